//! Waiting for a condition.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Far more than anything takes.
pub(super) const WAIT: Duration = Duration::from_secs(60);

/// Waits for a condition.
pub(super) async fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + WAIT;
    while !condition() {
        assert!(Instant::now() < end, "it didn't come about");
        sleep(Duration::from_millis(2)).await;
    }
}
