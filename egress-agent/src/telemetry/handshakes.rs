//! TLS handshakes of the whole process, by the group of their key exchange.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::policy::KeyGroup;

/// With whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsPeer {
    /// An external host; for a node, the gateway.
    Upstream,
    /// A client, or a node with its tunnel.
    Downstream,
}

impl TlsPeer {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Upstream, Self::Downstream];

    /// The metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Downstream => "downstream",
        }
    }
}

const GROUPS: usize = KeyGroup::ALL.len();

static COUNTS: [[AtomicU64; GROUPS]; TlsPeer::ALL.len()] =
    [const { [const { AtomicU64::new(0) }; GROUPS] }; TlsPeer::ALL.len()];

fn count(peer: TlsPeer, group: KeyGroup) -> Option<&'static AtomicU64> {
    COUNTS.get(peer as usize)?.get(group as usize)
}

/// Counts one that settled on this group.
pub fn count_handshake(peer: TlsPeer, group: KeyGroup) {
    if let Some(count) = count(peer, group) {
        count.fetch_add(1, Relaxed);
    }
}

/// How many there were.
#[must_use]
pub fn handshakes(peer: TlsPeer, group: KeyGroup) -> u64 {
    count(peer, group).map_or(0, |count| count.load(Relaxed))
}
