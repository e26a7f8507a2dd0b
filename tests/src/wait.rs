//! Waiting for a condition, never for a time.

use std::{
    env,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long the testbed waits for what takes a moment.
pub const SOON: Duration = Duration::from_secs(15);
/// How long it waits for an agent to start: the kernel verifies the programs, seconds of work on a
/// machine that has other things to do.
pub const START: Duration = Duration::from_secs(60);

/// How many times longer every wait may last than on an ordinary machine.
const PATIENCE: &str = "EGRESS_TEST_PATIENCE";

/// `EGRESS_TEST_PATIENCE`, or 1. Limits are there to end a test that fails; on a machine that is
/// emulated everything takes several times longer.
#[must_use]
pub fn patience() -> u32 {
    static PATIENCE_FACTOR: OnceLock<u32> = OnceLock::new();
    let factor = || env::var(PATIENCE).ok()?.parse().ok().filter(|factor| *factor > 0);
    *PATIENCE_FACTOR.get_or_init(|| factor().unwrap_or(1))
}

/// A limit in this machine's time. [`until`] and [`until_is`] do this by themselves.
#[must_use]
pub fn patiently(limit: Duration) -> Duration {
    limit * patience()
}

/// Asks until the answer is `Some`.
///
/// # Errors
/// It wasn't within `limit`; the message says what was waited for.
pub fn until<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let limit = patiently(limit);
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if start.elapsed() > limit {
            bail!("waited {} s in vain: {what}", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Asks until the answer is as wanted, and gives it back; at the limit the last answer is shown.
///
/// # Errors
/// It never was.
pub fn until_is<T: std::fmt::Debug>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> Result<T> {
    let limit = patiently(limit);
    let start = Instant::now();
    loop {
        let answer = ask();
        if wanted(&answer) {
            return Ok(answer);
        }
        if start.elapsed() > limit {
            bail!("waited {} s in vain: {what}; last: {answer:#?}", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
}
