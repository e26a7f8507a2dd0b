//! Endpoints that are new get less than their share at first.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    policy::{Endpoint, Warmup},
    types::UpstreamAddr,
};

/// Weights are multiplied by this before a part of them is taken.
const SCALE: f64 = 1000.0;
/// An endpoint that was missing for longer is new when it is back. It may be missing for a moment although it is
/// there: DNS names some addresses of many in turn, and a request may be for addresses of one family.
const AWAY: Duration = Duration::from_secs(60);
/// Endpoints remembered that are missing.
const MISSING: usize = 4096;

/// Since when the endpoints of a cluster are there: those of the last request, and up to [`MISSING`] others.
#[derive(Debug, Default)]
pub(super) struct EndpointAges(Mutex<FirstSeen>);

#[derive(Debug, Default)]
struct FirstSeen {
    endpoints: HashMap<UpstreamAddr, KnownEndpoints>,
    /// The last request's time.
    last: Option<Instant>,
}

#[derive(Debug)]
struct KnownEndpoints {
    /// `None` where it is unknown.
    since: Option<Instant>,
    /// The last request that it was there for.
    seen: Instant,
}

impl EndpointAges {
    /// Gives each of the endpoints the part of its weight that it has earned. Whether one of them is new.
    ///
    /// An endpoint is new beside others that were there before. If none of them was, it is the gateway that is new, or
    /// the rule: they count as grown, so that what comes next gets less than they.
    pub(super) fn weigh(&self, endpoints: &mut [Endpoint], warmup: Warmup, now: Instant) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.evict(endpoints.len() + MISSING);
        let known = &mut seen.endpoints;
        let was_there = |endpoint: &Endpoint| known.contains_key(&UpstreamAddr(endpoint.addr));
        let since = endpoints.iter().any(was_there).then_some(now);
        let mut is_new = false;
        for endpoint in endpoints.iter_mut() {
            let known = known
                .entry(UpstreamAddr(endpoint.addr))
                .or_insert(KnownEndpoints { since, seen: now });
            known.seen = now;
            let age = known.since.map(|since| now.saturating_duration_since(since));
            let part = age.map_or(1.0, |age| warmup.part(age));
            is_new |= part < 1.0;
            endpoint.weight = scaled(endpoint.weight, part);
        }
        seen.last = Some(now);
        is_new
    }
}

impl FirstSeen {
    /// Forgets those that were missing for too long as of the last request, and all that are missing if there are more
    /// than `most`.
    fn evict(&mut self, most: usize) {
        let Some(last) = self.last else { return };
        let missing = |known: &KnownEndpoints| last.saturating_duration_since(known.seen);
        self.endpoints.retain(|_, known| missing(known) <= AWAY);
        if self.endpoints.len() > most {
            self.endpoints.retain(|_, known| missing(known).is_zero());
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded on both sides before"
)]
fn scaled(weight: u32, part: f64) -> u32 {
    (f64::from(weight) * SCALE * part).round().clamp(1.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Endpoints by the last parts of their addresses, whose weights are 2.
    fn endpoints(lasts: impl IntoIterator<Item = u16>) -> Vec<Endpoint> {
        let addr = |last: u16| (std::net::Ipv4Addr::from(0xc633_0000 | u32::from(last)), 80).into();
        lasts.into_iter().map(|last| Endpoint { addr: addr(last), weight: 2, place: 0 }).collect()
    }

    /// The weights for requests so many seconds after a start, which grow within 100 seconds.
    fn weighed() -> impl Fn(&[u16], u64) -> Vec<u32> {
        let duration = Duration::from_secs(100);
        let warmup = Warmup { duration, minimum_percent: 10.0, aggression: 1.0 };
        let (newcomers, start) = (EndpointAges::default(), Instant::now());
        move |lasts, after| {
            let mut all = endpoints(lasts.iter().copied());
            let is_new = newcomers.weigh(&mut all, warmup, start + Duration::from_secs(after));
            let weights: Vec<_> = all.iter().map(|endpoint| endpoint.weight).collect();
            assert_eq!(is_new, weights.iter().any(|weight| *weight < 2000), "{weights:?}");
            weights
        }
    }

    #[test]
    fn a_new_endpoint_grows_to_its_weight() {
        let weights = weighed();
        assert_eq!(weights(&[1], 0), [2000]);
        // Although the first one has not been seen for longer than a moment.
        assert_eq!(weights(&[1, 2], 1), [2000, 200]);
        assert_eq!(weights(&[1, 2], 51), [2000, 1000]);
        assert_eq!(weights(&[1, 2], 101), [2000, 2000]);
    }

    #[test]
    fn endpoints_of_which_none_was_there_before_are_not_new() {
        let weights = weighed();
        assert_eq!(weights(&[1, 2], 0), [2000, 2000]);
        // All of them replaced, and one more.
        assert_eq!(weights(&[3, 4], 10), [2000, 2000]);
        assert_eq!(weights(&[3, 4, 5], 20), [2000, 2000, 200]);
    }

    #[test]
    fn an_endpoint_is_new_again_only_after_it_was_away_for_a_while() {
        let weights = weighed();
        weights(&[1, 2], 0);
        // Requests of one family each, say, or answers that name some addresses in turn.
        for after in 1..150 {
            assert_eq!(weights(&[1], after), [2000]);
            assert_eq!(weights(&[2], after), [2000]);
        }
        assert_eq!(weights(&[1, 2], 150), [2000, 2000]);
        // Whoever is not asked for is not away.
        assert_eq!(weights(&[1, 2], 5000), [2000, 2000]);
        for after in 5001..5065 {
            weights(&[2], after);
        }
        assert_eq!(weights(&[1, 2], 5065), [200, 2000]);
        // Growth goes on meanwhile.
        assert_eq!(weights(&[2], 5090), [2000]);
        assert_eq!(weights(&[1, 2], 5115), [1000, 2000]);
    }

    #[test]
    fn what_is_remembered_of_missing_endpoints_is_bounded() {
        let duration = Duration::from_secs(100);
        let warmup = Warmup { duration, minimum_percent: 10.0, aggression: 1.0 };
        let (newcomers, start) = (EndpointAges::default(), Instant::now());
        for number in 0..20_000 {
            let now = start + Duration::from_millis(u64::from(number));
            newcomers.weigh(&mut endpoints([0, number]), warmup, now);
        }
        let remembered = newcomers.0.lock().unwrap().endpoints.len();
        assert!((2..=MISSING + 4).contains(&remembered), "{remembered}");
    }

    #[test]
    fn more_aggression_is_sooner() {
        let duration = Duration::from_secs(100);
        let part = |aggression, age| {
            Warmup { duration, minimum_percent: 0.0, aggression }.part(Duration::from_secs(age))
        };
        assert!((part(1.0, 25) - 0.25).abs() < 1e-9);
        assert!((part(2.0, 25) - 0.5).abs() < 1e-9);
        assert!(part(1.0, 0) > 0.0, "it gets something from the beginning");
        assert!((part(0.5, 99) - 0.9801).abs() < 1e-9);
    }
}
