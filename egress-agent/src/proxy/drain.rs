//! The end of a worker, in two steps: finish what runs, then close.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio::sync::Notify;

/// Tells the connections of one worker that the end has come. Clones are the same drain; it may be
/// started from another thread.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    phase: AtomicU8,
    notify: Notify,
}

const DRAINING: u8 = 1;
const EXPIRED: u8 = 2;

impl Drain {
    /// Nothing new is accepted from here on. HTTP/1 answers with `Connection: close`, HTTP/2 sends
    /// GOAWAY; connections that lie idle are closed.
    pub fn start(&self) {
        self.enter(DRAINING);
    }

    /// The deadline has passed: what still runs is reset.
    pub fn expire(&self) {
        self.enter(EXPIRED);
    }

    fn enter(&self, phase: u8) {
        self.0.phase.fetch_max(phase, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Whether [`Self::start`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.phase.load(Ordering::Acquire) >= DRAINING
    }

    /// Completes when draining starts, at once if it has.
    pub async fn started(&self) {
        self.reached(DRAINING).await;
    }

    /// Completes when the deadline has passed. Whoever holds a connection then resets it (linger
    /// zero, then drop): an ordinary close could look like the regular end of a response.
    pub async fn expired(&self) {
        self.reached(EXPIRED).await;
    }

    async fn reached(&self, phase: u8) {
        loop {
            let notified = self.0.notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.0.phase.load(Ordering::Acquire) >= phase {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_come_in_order_and_stay() {
        let drain = Drain::default();
        assert!(!drain.is_draining());
        let (started, expired) = (drain.clone(), drain.clone());
        let started = tokio::spawn(async move { started.started().await });
        let expired = tokio::spawn(async move { expired.expired().await });
        tokio::task::yield_now().await;
        drain.start();
        started.await.unwrap();
        assert!(drain.is_draining());
        assert!(!expired.is_finished());
        drain.expire();
        expired.await.unwrap();
        drain.start();
        drain.expired().await;
    }
}
