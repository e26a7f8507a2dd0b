//! How a gateway ends: signals, and the drain of its workers.

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::proxy::Drain;

/// How long what runs may go on.
#[derive(Clone, Copy)]
pub(super) struct DrainLimits {
    /// After a signal.
    pub(super) signal: Duration,
    /// Once another process has taken over; and then as after a signal.
    pub(super) upgrade: Duration,
}

/// Ends the workers: at once where nothing runs, at the deadline or the next signal at the latest.
/// Whether it was a signal.
pub(super) async fn drain(
    drains: &[Drain],
    mut finished: JoinHandle<()>,
    ends: &mut ShutdownSignals,
    timeout: Duration,
) -> bool {
    tracing::info!("draining for at most {} s; a second signal ends it at once", timeout.as_secs());
    drains.iter().for_each(Drain::start);
    let (reason, signalled) = tokio::select! {
        _ = &mut finished => return false,
        () = sleep_until(Instant::now() + timeout) => ("the drain's time is over", false),
        () = ends.next() => ("another signal", true),
    };
    tracing::warn!("{reason}: what still runs is reset");
    drains.iter().for_each(Drain::expire);
    if finished.await.is_err() {
        tracing::error!("the workers' end panicked");
    }
    signalled
}

/// SIGTERM and SIGINT.
pub(super) struct ShutdownSignals {
    term: Signal,
    int: Signal,
}

impl ShutdownSignals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
