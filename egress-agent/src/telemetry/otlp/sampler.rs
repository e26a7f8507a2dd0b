//! Which requests' spans are exported.

/// What decides where no client has decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Root {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// Those whose trace id is below this bound, of 2^63: every party that takes the same ratio takes the
    /// same traces.
    Ratio(u64),
}

/// `OTEL_TRACES_SAMPLER` and its argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sampler {
    /// Without a decision of the client, or where it does not count.
    pub root: Root,
    /// Whether the client's decision counts, as in Envoy and Istio.
    pub parent_based: bool,
}

impl Default for Sampler {
    /// `parentbased_always_on`.
    fn default() -> Self {
        Self { root: Root::AlwaysOn, parent_based: true }
    }
}

impl Root {
    /// So many of all: a number from 0 to 1.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the product lies between 0 and 2^63"
    )]
    pub fn ratio(ratio: f64) -> Self {
        /// 2^63.
        const ALL: f64 = 9_223_372_036_854_775_808.0;
        Self::Ratio((ratio.clamp(0.0, 1.0) * ALL) as u64)
    }

    fn samples(self, trace_id: [u8; 16]) -> bool {
        match self {
            Self::AlwaysOn => true,
            Self::AlwaysOff => false,
            Self::Ratio(bound) => {
                // As the SDKs of OpenTelemetry do it: the last eight bytes, without their lowest bit.
                let [.., a, b, c, d, e, f, g, h] = trace_id;
                u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < bound
            }
        }
    }
}

impl Sampler {
    /// Whether a request's span is exported. `parent` is what its client has decided.
    #[must_use]
    pub fn samples(&self, parent: Option<bool>, trace_id: [u8; 16]) -> bool {
        match parent.filter(|_| self.parent_based) {
            Some(sampled) => sampled,
            None => self.root.samples(trace_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_decision_counts_where_it_is_to() {
        for (root, alone) in [(Root::AlwaysOn, true), (Root::AlwaysOff, false)] {
            let sampler = Sampler { root, parent_based: true };
            assert_eq!(sampler.samples(None, [1; 16]), alone);
            assert!(sampler.samples(Some(true), [1; 16]));
            assert!(!sampler.samples(Some(false), [1; 16]));
            let own = Sampler { root, parent_based: false };
            assert_eq!(own.samples(Some(!alone), [1; 16]), alone);
        }
    }

    #[test]
    fn a_ratio_takes_about_so_many() {
        assert!(!Root::ratio(0.0).samples([0xff; 16]) && !Root::ratio(0.0).samples([0; 16]));
        assert!(Root::ratio(1.0).samples([0xff; 16]));
        let taken = (0..=255_u8).filter(|byte| {
            let mut id = [0; 16];
            id[8] = *byte;
            Root::ratio(0.25).samples(id)
        });
        assert_eq!(taken.count(), 64);
    }
}
