//! Rate limits: how much a workload may ask of one host, local to a gateway.
//!
//! A rate is a token bucket of `burst` tokens that fills with `per_second`. Instead of tokens the moment is
//! kept at which the bucket is full again (the virtual scheduling algorithm of ITU-T I.371), so that nobody
//! has to fill it, and a rate may change while it is in use. Times are nanoseconds by any clock.

use std::sync::Arc;

/// What a resource allows each workload to ask of each host.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RateLimit {
    /// Who sets it. Limits of two resources are counted apart.
    pub label: Arc<str>,
    /// HTTP requests.
    pub requests: Option<Rate>,
    /// Connections of TLS that is passed through, and of raw TCP.
    pub connections: Option<Rate>,
    /// Bytes of bodies and of relayed connections, of both directions together.
    pub bytes: Option<Rate>,
}

/// So much a second.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rate {
    /// How much; never 0.
    pub per_second: u32,
    /// How much at once; never 0.
    pub burst: u32,
}

/// Nanoseconds of a second.
const SECOND: u128 = 1_000_000_000;

impl Rate {
    /// How long the bucket takes to make up for so much.
    #[must_use]
    pub fn span(self, amount: u64) -> u64 {
        let span = u128::from(amount) * SECOND / u128::from(self.per_second.max(1));
        u64::try_from(span).unwrap_or(u64::MAX)
    }

    /// Takes so much, where `full` is the moment at which the bucket is full: the new one, or `None` where
    /// there is not enough left.
    #[must_use]
    pub fn take(self, full: u64, now: u64, amount: u64) -> Option<u64> {
        let next = self.spend(full, now, amount);
        (next <= now.saturating_add(self.span(self.burst.into()))).then_some(next)
    }

    /// Takes so much, however little is left.
    #[must_use]
    pub fn spend(self, full: u64, now: u64, amount: u64) -> u64 {
        full.max(now).saturating_add(self.span(amount))
    }

    /// What is left, in whole tokens.
    #[must_use]
    pub fn left(self, full: u64, now: u64) -> u64 {
        let used = u128::from(full.saturating_sub(now));
        let free = u128::from(self.span(self.burst.into())).saturating_sub(used);
        // Spans are rounded down.
        let tokens = if free == 0 { 0 } else { (free + 1) * u128::from(self.per_second) / SECOND };
        u64::try_from(tokens).unwrap_or(u64::MAX).min(self.burst.into())
    }

    /// The moment at which so much is left, of at most a burst.
    #[must_use]
    pub fn ready(self, full: u64, amount: u64) -> u64 {
        let amount = amount.min(self.burst.into());
        // Rounded up: `left` counts whole tokens.
        let spare = self.span(self.burst.into()).saturating_sub(self.span(amount) + 1);
        full.saturating_sub(spare)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NANOS: u64 = 1_000_000_000;

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let rate = Rate { per_second: 10, burst: 3 };
        let mut full = 0;
        let mut allowed = Vec::new();
        // Every 50 ms, for two seconds.
        for step in 0..40 {
            let now = NANOS + step * NANOS / 20;
            let taken = rate.take(full, now, 1);
            full = taken.unwrap_or(full);
            allowed.push(taken.is_some());
        }
        assert_eq!(allowed[..6], [true, true, true, true, true, false]);
        assert_eq!(allowed[6..].iter().filter(|allowed| **allowed).count(), 17);
    }

    #[test]
    fn what_is_left_comes_back() {
        let rate = Rate { per_second: 1000, burst: 500 };
        assert_eq!(rate.left(0, NANOS), 500);
        let full = rate.spend(0, NANOS, 700);
        assert_eq!(rate.left(full, NANOS), 0);
        assert_eq!(rate.take(full, NANOS, 1), None);
        let ready = rate.ready(full, 100);
        assert!(rate.left(full, ready) >= 100 && rate.left(full, ready - NANOS / 1000) < 100);
        // More than a burst never is.
        assert_eq!(rate.ready(full, 9999), rate.ready(full, 500));
    }

    #[test]
    fn huge_numbers_saturate() {
        let rate = Rate { per_second: 1, burst: u32::MAX };
        assert_eq!(rate.spend(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
        assert!(rate.take(0, 0, u32::MAX.into()).is_some());
        assert_eq!(rate.take(0, 0, u64::from(u32::MAX) + 1), None);
    }

    proptest! {
        /// However a workload asks, in no span of time does it get more than a burst and the rate.
        #[test]
        fn nobody_gets_more_than_a_burst_and_the_rate(
            per_second in 1_u32..5000,
            burst in 1_u32..5000,
            pauses in prop::collection::vec(0_u64..50_000_000, 1..400),
            amounts in prop::collection::vec(1_u64..40, 400),
        ) {
            let rate = Rate { per_second, burst };
            let (mut full, mut now) = (0, 1);
            let mut got: Vec<(u64, u64)> = Vec::new();
            for (pause, amount) in pauses.into_iter().zip(amounts) {
                now += pause;
                if let Some(next) = rate.take(full, now, amount) {
                    full = next;
                    got.push((now, amount));
                }
            }
            for start in 0..got.len() {
                let mut sum = 0;
                for (at, amount) in &got[start..] {
                    sum += u128::from(*amount);
                    let span = u128::from(at - got[start].0);
                    let most = u128::from(burst) + span * u128::from(per_second) / SECOND + 1;
                    // Each amount is rounded down by less than a nanosecond.
                    prop_assert!(sum <= most + 1, "{sum} of {most}");
                }
            }
        }

        /// A wait for what is there is a wait that is long enough, and not much longer.
        #[test]
        fn a_wait_ends_when_enough_is_left(
            per_second in 1_u32..1_000_000,
            burst in 1_u32..1_000_000,
            spent in 0_u64..10_000_000,
            amount in 1_u64..100_000,
        ) {
            let rate = Rate { per_second, burst };
            let full = rate.spend(0, 5 * NANOS, spent);
            let ready = rate.ready(full, amount);
            prop_assert!(rate.left(full, ready) >= amount.min(burst.into()));
        }
    }
}
