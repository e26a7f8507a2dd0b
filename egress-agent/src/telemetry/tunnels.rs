//! What a gateway counts of the nodes' tunnels.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Tunnels, and connections in them.
#[derive(Debug, Default)]
pub struct TunnelStats {
    /// Tunnels that are open.
    pub open: AtomicU64,
    /// Tunnels that were ever opened: handshakes that succeeded.
    pub opened: AtomicU64,
    /// Connections in them that are open.
    pub streams: AtomicU64,
    /// All that ever were.
    pub streams_opened: AtomicU64,
}

/// One that is open; closed when it is dropped.
#[derive(Debug)]
pub struct Open {
    stats: Arc<TunnelStats>,
    of: fn(&TunnelStats) -> &AtomicU64,
}

impl TunnelStats {
    /// A tunnel is open.
    #[must_use]
    pub fn tunnel(self: &Arc<Self>) -> Open {
        self.opened.fetch_add(1, Relaxed);
        Open::new(self, |stats| &stats.open)
    }

    /// A connection in a tunnel is open.
    #[must_use]
    pub fn stream(self: &Arc<Self>) -> Open {
        self.streams_opened.fetch_add(1, Relaxed);
        Open::new(self, |stats| &stats.streams)
    }
}

impl Open {
    fn new(stats: &Arc<TunnelStats>, of: fn(&TunnelStats) -> &AtomicU64) -> Self {
        of(stats).fetch_add(1, Relaxed);
        Self { stats: Arc::clone(stats), of }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.of)(&self.stats).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_is_open_no_more_but_stays_counted() {
        let stats = Arc::<TunnelStats>::default();
        let (tunnel, stream) = (stats.tunnel(), stats.stream());
        let loads = || {
            [&stats.open, &stats.opened, &stats.streams, &stats.streams_opened]
                .map(|value| value.load(Relaxed))
        };
        assert_eq!(loads(), [1, 1, 1, 1]);
        drop(stream);
        assert_eq!(loads(), [1, 1, 0, 1]);
        drop(tunnel);
        assert_eq!(loads(), [0, 1, 0, 1]);
    }
}
