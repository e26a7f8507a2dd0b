//! Whether the other end of an HTTP/2 connection is still there.

use h2::{Ping, PingPong};
use tokio::time::{Instant, sleep_until};

use crate::net::{FrameObserver, PingInterval, PingMonitor, Step};

/// Completes when the peer gives no sign of life in time. `ping` is the connection's own, which answers
/// only as long as the connection is driven; what comes of it shows in `arrivals`.
pub(super) async fn ping_timeout(
    ping: Option<PingPong>,
    rhythm: PingInterval,
    arrivals: &FrameObserver,
) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    let mut pulse = PingMonitor::new(rhythm, Instant::now());
    let mut asking = false;
    loop {
        let until = match pulse.poll(arrivals.seen(), Instant::now()) {
            Step::Wait(until) => until,
            Step::Ask(until) => {
                asking = true;
                until
            }
            Step::GiveUp => return,
        };
        if !asking {
            sleep_until(until).await;
            continue;
        }
        tokio::select! {
            // The connection itself reports that it failed.
            _ = ping.ping(Ping::opaque()) => {}
            () = sleep_until(until) => {}
        }
        asking = false;
        sleep_until(until).await;
    }
}
