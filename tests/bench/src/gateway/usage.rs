//! What a process uses.

use std::fs;

use anyhow::{Context as _, Result};

/// Seconds of processor time, user's and system's, of all its threads.
pub(super) fn seconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().context("no time in schedstat")?;
        nanoseconds += first.parse::<u64>()?;
    }
    #[expect(clippy::cast_precision_loss, reason = "some minutes at most")]
    Ok(nanoseconds as f64 / 1e9)
}

/// Kibibytes of memory: its own, and its share of what it has in common with others.
pub(super) fn memory(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no Pss")?;
    Ok(number.parse::<u32>()?.into())
}
