//! How much of each resource is used.

use crate::telemetry::Resource;

/// What a connection uses, or a source, or all.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Usage {
    connections: usize,
    requests: usize,
    bytes: usize,
}

impl Usage {
    pub(super) const CONNECTION: Self = Self { connections: 1, requests: 0, bytes: 0 };

    pub(super) const fn request(bytes: usize) -> Self {
        Self { connections: 0, requests: 1, bytes }
    }

    pub(super) const fn bytes(bytes: usize) -> Self {
        Self { connections: 0, requests: 0, bytes }
    }

    pub(super) const fn of(self, resource: Resource) -> usize {
        match resource {
            Resource::Connections => self.connections,
            Resource::Requests => self.requests,
            Resource::RequestBytes => self.bytes,
            Resource::QueuedBytes | Resource::Memory | Resource::Descriptors => 0,
        }
    }

    pub(super) fn add(&mut self, more: Self) {
        self.connections += more.connections;
        self.requests += more.requests;
        self.bytes += more.bytes;
    }

    pub(super) fn sub(&mut self, less: Self) {
        self.connections = self.connections.saturating_sub(less.connections);
        self.requests = self.requests.saturating_sub(less.requests);
        self.bytes = self.bytes.saturating_sub(less.bytes);
    }
}

/// The resources that a source asks for.
pub(super) const ASKED: [Resource; 3] =
    [Resource::Connections, Resource::Requests, Resource::RequestBytes];
