//! What the tunnel counts; all threads share it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::Refusal;

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Why a connection to a gateway ended.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Closed { $($(#[$doc])* $name,)* }

        impl Closed {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The label's value.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

causes! {
    /// It was closed without an error: it lay idle, was replaced, or the gateway asked for it.
    Regular = "closed";
    /// It broke.
    Broken = "broken";
    /// The gateway gave no sign of life.
    Silent = "silent";
    /// The gateway's certificate was revoked, has expired or lost its root.
    Distrusted = "distrusted";
}

/// Counters and gauges.
#[derive(Debug)]
pub struct Stats {
    /// Connections to gateways that are open.
    pub connections: AtomicU64,
    /// TLS handshakes that succeeded: connections that were ever opened.
    pub handshakes: AtomicU64,
    /// Dials that failed.
    pub failed_dials: AtomicU64,
    /// Pods' connections that are relayed now.
    pub streams: AtomicU64,
    /// All that ever were.
    pub streams_total: AtomicU64,
    /// Those of them that ended in a reset.
    pub streams_reset: AtomicU64,
    /// Bytes from pods.
    pub sent: AtomicU64,
    /// Bytes to pods.
    pub received: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    closed: [AtomicU64; Closed::ALL.len()],
}

impl Default for Stats {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            connections: zero(),
            handshakes: zero(),
            failed_dials: zero(),
            streams: zero(),
            streams_total: zero(),
            streams_reset: zero(),
            sent: zero(),
            received: zero(),
            refused: std::array::from_fn(|_| zero()),
            closed: std::array::from_fn(|_| zero()),
        }
    }
}

impl Stats {
    /// Refusals, each kind with its count.
    pub fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> {
        let counts = self.refused.iter().map(|count| count.load(Ordering::Relaxed));
        Refusal::ALL.iter().copied().zip(counts)
    }

    /// Ends of connections to gateways, each kind with its count.
    pub fn closed(&self) -> impl Iterator<Item = (Closed, u64)> {
        let counts = self.closed.iter().map(|count| count.load(Ordering::Relaxed));
        Closed::ALL.iter().copied().zip(counts)
    }

    pub(super) fn count_refused(&self, refusal: Refusal) {
        add(&self.refused[refusal.index()], 1);
    }

    pub(super) fn count_closed(&self, cause: Closed) {
        add(&self.closed[cause as usize], 1);
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(u64::try_from(number).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// One more for as long as it lives.
#[derive(Debug)]
pub(super) struct Gauge {
    stats: Arc<Stats>,
    of: fn(&Stats) -> &AtomicU64,
}

impl Gauge {
    pub(super) fn new(stats: &Arc<Stats>, of: fn(&Stats) -> &AtomicU64) -> Self {
        of(stats).fetch_add(1, Ordering::Relaxed);
        Self { stats: Arc::clone(stats), of }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        (self.of)(&self.stats).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_goes_back() {
        let stats = Arc::<Stats>::default();
        let gauge = Gauge::new(&stats, |stats| &stats.streams);
        assert_eq!(stats.streams.load(Ordering::Relaxed), 1);
        drop(gauge);
        assert_eq!(stats.streams.load(Ordering::Relaxed), 0);
        stats.count_refused(Refusal::NoRecord);
        let found: Vec<_> = stats.refused().filter(|(_, count)| *count > 0).collect();
        assert_eq!(found, [(Refusal::NoRecord, 1)]);
    }
}
