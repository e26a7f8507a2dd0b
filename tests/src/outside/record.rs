//! What reached the servers.

use std::sync::{Arc, Mutex, PoisonError};

/// Something that reached the outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// A request in clear.
    Http {
        /// `Host`.
        host: String,
        /// Path and query.
        path: String,
    },
    /// A request over TLS.
    Https {
        /// SNI.
        server_name: Option<String>,
        /// `Host` or `:authority`.
        host: String,
        /// Path and query.
        path: String,
    },
    /// A TLS connection that ended in the handshake.
    HandshakeFailed,
    /// Bytes on a raw TCP service.
    Tcp(u16),
    /// A datagram at the attacker's.
    Udp,
}

/// What reached the outside so far.
#[derive(Clone, Debug, Default)]
pub struct Record(Arc<Mutex<Vec<Seen>>>);

impl Record {
    pub(super) fn add(&self, seen: Seen) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    /// All of it; the list starts anew.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
