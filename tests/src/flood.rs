//! What a workload does to take a gateway from others: `flood.py` on a host of the testbed.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{
    process::{Place, Process},
    testbed::Testbed,
    wait::{START, until},
};

/// Runs `flood.py` until the value is dropped, and waits until its load is there.
///
/// # Errors
/// It cannot be started, or ends.
pub fn start(testbed: &Testbed, from: &Place, name: &str, args: &[&str]) -> Result<Process> {
    let script = testbed.dir().join("flood.py");
    fs::write(&script, include_str!("flood.py")).context("flood.py")?;
    let script = script.to_string_lossy().into_owned();
    let args = [&[script.as_str()], args].concat();
    let mut running = from.start(&testbed.dir(), name, "/usr/bin/python3", &args)?;
    until(START, "the flood to be under way", || {
        (running.stdout().contains("ready") || running.ended().is_some()).then_some(())
    })
    .with_context(|| running.stderr())?;
    ensure!(running.ended().is_none(), "the flood ended: {}", running.stderr());
    Ok(running)
}
