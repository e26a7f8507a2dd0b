//! Endpoints that are new get less than their share at first.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

use crate::{
    policy::{Endpoint, Warmup},
    types::UpstreamAddr,
};

/// Weights are multiplied by this before a part of them is taken.
const SCALE: f64 = 1000.0;

/// Since when the endpoints of a cluster are there; as many as its last look-up found.
#[derive(Debug, Default)]
pub(super) struct Newcomers(Mutex<HashMap<UpstreamAddr, Instant>>);

impl Newcomers {
    /// Gives each of the endpoints the part of its weight that it has earned. Whether one of them is new.
    /// One that was away in between is new again.
    pub(super) fn weigh(&self, endpoints: &mut [Endpoint], warmup: Warmup, now: Instant) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here: HashSet<_> = endpoints.iter().map(|endpoint| endpoint.addr).collect();
        since.retain(|addr, _| here.contains(&addr.0));
        let mut is_new = false;
        for endpoint in endpoints.iter_mut() {
            let began = *since.entry(UpstreamAddr(endpoint.addr)).or_insert(now);
            let part = warmup.part(now.saturating_duration_since(began));
            is_new |= part < 1.0;
            endpoint.weight = scaled(endpoint.weight, part);
        }
        is_new
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
    use std::time::Duration;

    use super::*;

    fn endpoint(last: u8) -> Endpoint {
        Endpoint { addr: ([192, 0, 2, last], 80).into(), weight: 2, place: 0 }
    }

    #[test]
    fn a_new_endpoint_grows_to_its_weight() {
        let duration = Duration::from_secs(100);
        let warmup = Warmup { duration, minimum_percent: 10.0, aggression: 1.0 };
        let (newcomers, start) = (Newcomers::default(), Instant::now());
        let weights = |lasts: &[u8], after: u64| {
            let mut all: Vec<_> = lasts.iter().map(|last| endpoint(*last)).collect();
            let now = start + Duration::from_secs(after);
            let is_new = newcomers.weigh(&mut all, warmup, now);
            (all.iter().map(|endpoint| endpoint.weight).collect::<Vec<_>>(), is_new)
        };
        assert_eq!(weights(&[1], 0), (vec![200], true));
        assert_eq!(weights(&[1], 100), (vec![2000], false));
        assert_eq!(weights(&[1, 2], 100), (vec![2000, 200], true));
        assert_eq!(weights(&[1, 2], 150), (vec![2000, 1000], true));
        assert_eq!(weights(&[1, 2], 200), (vec![2000, 2000], false));
        // Away and back again.
        assert_eq!(weights(&[2], 210), (vec![2000], false));
        assert_eq!(weights(&[1, 2], 220), (vec![200, 2000], true));
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
