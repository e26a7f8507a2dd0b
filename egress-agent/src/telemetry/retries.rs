//! Retries under way to a cluster, which are limited.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::cluster::ClusterStats;

/// A retry under way; over when it is dropped.
#[derive(Debug)]
pub struct RetryGuard(Arc<ClusterStats>);

impl RetryGuard {
    /// Begins a retry, unless so many are under way.
    #[must_use]
    pub fn begin(stats: &Arc<ClusterStats>, most: u64) -> Option<Self> {
        let more = |count: u64| (count < most).then(|| count + 1);
        stats.retries.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Self(Arc::clone(stats)))
    }
}

impl Drop for RetryGuard {
    fn drop(&mut self) {
        self.0.retries.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_retries_are_under_way_and_no_more() {
        let stats = Arc::<ClusterStats>::default();
        let first = RetryGuard::begin(&stats, 2).unwrap();
        let _second = RetryGuard::begin(&stats, 2).unwrap();
        assert!(RetryGuard::begin(&stats, 2).is_none());
        drop(first);
        assert!(RetryGuard::begin(&stats, 2).is_some());
        assert!(RetryGuard::begin(&stats, 0).is_none());
    }
}
