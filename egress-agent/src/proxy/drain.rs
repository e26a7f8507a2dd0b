//! The end of a worker, in steps: leave what is new to others, finish what runs, then close.

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

const HANDED_OVER: u8 = 1;
const DRAINING: u8 = 2;
const EXPIRED: u8 = 3;

impl Drain {
    /// Another process takes what is new, from the same listeners. HTTP/1 answers with `Connection:
    /// close`, HTTP/2 sends GOAWAY. A connection of HTTP/1 that lies idle is left open: a request may be
    /// on its way.
    pub fn hand_over(&self) {
        self.enter(HANDED_OVER);
    }

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

    /// Whether each connection is to end with what it carries: [`Self::hand_over`] or [`Self::start`]
    /// was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.has_reached(HANDED_OVER)
    }

    /// Whether nobody else accepts from the listeners: their queues are to be emptied before they are
    /// closed.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.has_reached(DRAINING)
    }

    /// Whether the deadline has passed; see [`Self::expired`].
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.has_reached(EXPIRED)
    }

    /// Completes when nothing new is to be accepted, at once if that is so.
    pub async fn started(&self) {
        self.reached(HANDED_OVER).await;
    }

    /// Completes when idle connections are to be closed.
    pub async fn idle_ends(&self) {
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
            if self.has_reached(phase) {
                return;
            }
            notified.await;
        }
    }

    fn has_reached(&self, phase: u8) -> bool {
        self.0.phase.load(Ordering::Acquire) >= phase
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_come_in_order_and_stay() {
        let drain = Drain::default();
        assert!(!drain.is_draining());
        let (started, idle, expired) = (drain.clone(), drain.clone(), drain.clone());
        let started = tokio::spawn(async move { started.started().await });
        let idle = tokio::spawn(async move { idle.idle_ends().await });
        let expired = tokio::spawn(async move { expired.expired().await });
        tokio::task::yield_now().await;
        drain.hand_over();
        started.await.unwrap();
        assert!(drain.is_draining() && !drain.is_last());
        assert!(!idle.is_finished());
        drain.start();
        idle.await.unwrap();
        assert!(drain.is_draining() && drain.is_last());
        assert!(!expired.is_finished());
        drain.expire();
        expired.await.unwrap();
        drain.start();
        drain.expired().await;
    }
}
