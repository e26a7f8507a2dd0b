//! What the node agent counts itself.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::bpf::Repair;

/// What the node agent counts itself.
#[derive(Debug, Default)]
pub(crate) struct NodeCounters {
    /// Lines of flow events that nobody read in time.
    pub dropped: Arc<AtomicU64>,
    /// Events of a kind that this agent doesn't know.
    pub unreadable: AtomicU64,
    /// Attempts to bring the maps up to date that failed.
    pub failures: AtomicU64,
    /// 1 while the maps don't hold what they should.
    pub behind: AtomicU64,
    /// Sockets that were closed: open before the enforcement, and not allowed.
    pub sockets_destroyed: AtomicU64,
    /// Times that something was mended, in the order of [`Repair::ALL`].
    pub repairs: [AtomicU64; Repair::ALL.len()],
}

impl NodeCounters {
    /// All repairs.
    pub(crate) fn repairs(&self) -> u64 {
        self.repairs.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Counts a repair.
    pub(crate) fn repaired(&self, repair: Repair) {
        let mut kinds = Repair::ALL.iter().zip(&self.repairs);
        if let Some((_, count)) = kinds.find(|(kind, _)| **kind == repair) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
