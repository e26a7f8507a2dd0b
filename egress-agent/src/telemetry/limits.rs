//! What a gateway counts of the resources that its sources share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A resource with a bound, of which every source has a share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    /// Connections from clients, those in tunnels included.
    Connections,
    /// Requests and forwarded connections under way: each may have a connection to an upstream.
    Requests,
    /// Bytes of request heads that are held while their requests are under way.
    RequestBytes,
    /// Bytes that wait for the readers of HTTP/2 streams.
    QueuedBytes,
    /// The process's memory, in bytes.
    Memory,
    /// The process's descriptors.
    Descriptors,
}

impl Resource {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Connections,
        Self::Requests,
        Self::RequestBytes,
        Self::QueuedBytes,
        Self::Memory,
        Self::Descriptors,
    ];

    /// As metrics and messages name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Requests => "requests",
            Self::RequestBytes => "request_bytes",
            Self::QueuedBytes => "queued_bytes",
            Self::Memory => "memory_bytes",
            Self::Descriptors => "descriptors",
        }
    }
}

#[derive(Debug, Default)]
struct Values {
    limit: AtomicU64,
    used: AtomicU64,
    refused: AtomicU64,
    closed: AtomicU64,
}

/// Bounds and use of every [`Resource`], of all workers together.
#[derive(Debug, Default)]
pub struct LimitStats {
    of: [Values; Resource::ALL.len()],
    pressed: AtomicBool,
}

impl LimitStats {
    /// The bound.
    pub fn set_limit(&self, resource: Resource, limit: u64) {
        self.of[resource as usize].limit.store(limit, Relaxed);
    }

    /// What is used now.
    pub fn set_used(&self, resource: Resource, used: u64) {
        self.of[resource as usize].used.store(used, Relaxed);
    }

    /// More is used now.
    pub fn add(&self, resource: Resource, amount: usize) {
        self.of[resource as usize].used.fetch_add(number(amount), Relaxed);
    }

    /// Less is used now.
    pub fn sub(&self, resource: Resource, amount: usize) {
        self.of[resource as usize].used.fetch_sub(number(amount), Relaxed);
    }

    /// Something was refused because its source had its share.
    pub fn refused(&self, resource: Resource) {
        self.of[resource as usize].refused.fetch_add(1, Relaxed);
    }

    /// A connection was closed because its source had the most and another needed room.
    pub fn closed(&self, resource: Resource) {
        self.of[resource as usize].closed.fetch_add(1, Relaxed);
    }

    /// Whether the process is short of memory.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.pressed.load(Relaxed)
    }

    /// The process is short of memory, or no longer.
    pub fn set_pressed(&self, pressed: bool) {
        self.pressed.store(pressed, Relaxed);
    }

    /// The bound, as last set; zero for none.
    #[must_use]
    pub fn limit(&self, resource: Resource) -> u64 {
        self.of[resource as usize].limit.load(Relaxed)
    }

    /// What is used.
    #[must_use]
    pub fn used(&self, resource: Resource) -> u64 {
        self.of[resource as usize].used.load(Relaxed)
    }

    /// How often something was refused.
    #[must_use]
    pub fn refused_total(&self, resource: Resource) -> u64 {
        self.of[resource as usize].refused.load(Relaxed)
    }

    /// How many connections were closed.
    #[must_use]
    pub fn closed_total(&self, resource: Resource) -> u64 {
        self.of[resource as usize].closed.load(Relaxed)
    }
}

fn number(amount: usize) -> u64 {
    u64::try_from(amount).unwrap_or(u64::MAX)
}

/// Why a connection to an admin endpoint was not served to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminRefusal {
    /// Its source is a workload under enforcement, or is not on the list of sources.
    Source,
    /// Its source had the most connections and another needed the place.
    Overflow,
}

impl AdminRefusal {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Source, Self::Overflow];

    /// As metrics name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Overflow => "overflow",
        }
    }
}

/// The endpoints that refuse connections.
pub const ADMIN_ENDPOINTS: [&str; 3] = ["admin", "health", "metrics"];

/// Connections to admin endpoints that were not served to their end.
#[derive(Debug, Default)]
pub struct AdminRefusals([[AtomicU64; AdminRefusal::ALL.len()]; ADMIN_ENDPOINTS.len()]);

impl AdminRefusals {
    /// One more; `endpoint` is one of [`ADMIN_ENDPOINTS`].
    pub fn add(&self, endpoint: &str, why: AdminRefusal) {
        if let Some(index) = ADMIN_ENDPOINTS.iter().position(|name| *name == endpoint) {
            self.0[index][why as usize].fetch_add(1, Relaxed);
        }
    }

    /// How many.
    #[must_use]
    pub fn get(&self, endpoint: usize, why: AdminRefusal) -> u64 {
        self.0.get(endpoint).map_or(0, |counts| counts[why as usize].load(Relaxed))
    }
}
