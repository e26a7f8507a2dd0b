//! What the server and its handle share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::store::Store;

/// What the double does with requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mood {
    /// It answers.
    #[default]
    Serves,
    /// Connections are refused, and open ones are closed.
    Gone,
    /// Nothing more is said: neither to new requests nor on open watches.
    Silent,
    /// It starts: refused with this status (403, 404, 429, 503).
    Starts(u16),
}

/// What the threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Mutex<Store>,
    pub(super) token: String,
    /// Counts changes of the store; open watches look after each.
    pub(super) changes: watch::Sender<u64>,
    pub(super) mood: watch::Sender<Mood>,
    /// Paths with queries, in the order of requests.
    pub(super) requests: Mutex<Vec<String>>,
}

impl Shared {
    pub(super) fn new(token: &str) -> Self {
        Self {
            store: Mutex::default(),
            token: token.to_owned(),
            changes: watch::Sender::new(0),
            mood: watch::Sender::new(Mood::Serves),
            requests: Mutex::default(),
        }
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
