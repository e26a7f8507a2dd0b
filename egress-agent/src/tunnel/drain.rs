//! The end of the tunnel: what runs in it, and when it takes nothing new.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

/// The last part of a drain, in which nothing new is taken: what came late has that long to end.
const LAST: u32 = 5;

/// Shared by the tunnel's threads and whoever ends them. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    closed: watch::Sender<bool>,
    /// Connections of pods, from their accept to their end.
    running: watch::Sender<usize>,
}

impl Drain {
    /// Completes when nothing runs in the tunnel, or the limit has passed. Until shortly before that new
    /// connections are taken: nobody else would take them.
    pub async fn finish(&self, limit: Duration) {
        let end = Instant::now() + limit;
        if timeout(limit - limit / LAST, self.idle()).await.is_ok() {
            return;
        }
        self.0.closed.send_replace(true);
        timeout_at(end, self.idle()).await.ok();
    }

    /// How many connections run.
    #[must_use]
    pub fn running(&self) -> usize {
        *self.0.running.borrow()
    }

    /// One more connection, for as long as the guard lives.
    pub(super) fn enter(&self) -> Running {
        self.0.running.send_modify(|running| *running += 1);
        Running(self.clone())
    }

    /// Completes when nothing new is to be taken.
    pub(super) async fn closed(&self) {
        // The sender lives as long as this does.
        self.0.closed.subscribe().wait_for(|closed| *closed).await.ok();
    }

    async fn idle(&self) {
        self.0.running.subscribe().wait_for(|running| *running == 0).await.ok();
    }
}

/// A connection that runs.
#[derive(Debug)]
pub(super) struct Running(Drain);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.running.send_modify(|running| *running = running.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);
    const LIMIT: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn it_ends_with_the_last_connection() {
        let drain = Drain::default();
        drain.finish(LONG).await;
        let (first, second) = (drain.enter(), drain.enter());
        let finishing = tokio::spawn({
            let drain = drain.clone();
            async move { drain.finish(LONG).await }
        });
        drop(first);
        // A new one is waited for as well.
        let third = drain.enter();
        drop(second);
        tokio::task::yield_now().await;
        assert!(!finishing.is_finished());
        drop(third);
        finishing.await.unwrap();
        assert_eq!(drain.running(), 0);
    }

    #[tokio::test]
    async fn it_ends_at_its_limit_and_takes_nothing_shortly_before() {
        let drain = Drain::default();
        let _stays = drain.enter();
        let start = Instant::now();
        let finishing = tokio::spawn({
            let drain = drain.clone();
            async move { drain.finish(LIMIT).await }
        });
        drain.closed().await;
        assert!(start.elapsed() >= LIMIT / LAST * (LAST - 1));
        assert!(!finishing.is_finished());
        finishing.await.unwrap();
        assert!(start.elapsed() >= LIMIT);
        assert_eq!(drain.running(), 1);
    }
}
