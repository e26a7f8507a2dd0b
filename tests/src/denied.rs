//! What must be true of an attempt that is denied: no answer, a flow event and a counter with the
//! reason, and nothing outside.

use anyhow::{Result, ensure};

use crate::{
    capture::Capture,
    process::{Finished, Process},
    testbed::Testbed,
    wait::{SOON, until, until_is},
};

/// An enforcing node and the capture behind it.
#[derive(Clone, Copy, Debug)]
pub struct Wall<'a> {
    /// The hosts.
    pub testbed: &'a Testbed,
    /// The node agent.
    pub node: &'a Process,
    /// What arrives outside.
    pub capture: &'a Capture,
}

impl Wall<'_> {
    /// Makes an attempt and checks everything about it.
    ///
    /// # Errors
    /// It was answered (exit code 0), nothing was said or counted for any of the reasons, or
    /// something arrived outside.
    pub fn stops(
        &self,
        what: &str,
        reasons: &[&str],
        attempt: impl FnOnce() -> Result<Finished>,
    ) -> Result<Finished> {
        let events_before = self.node.stdout().len();
        let counted_before = self.denied(reasons);
        let done = attempt()?;
        let leaked = self.capture.take();
        ensure!(leaked.is_empty(), "{what} leaked: {leaked:#?}; {done:?}");
        ensure!(!done.ok(), "{what} was answered: {done:?}");
        let events = || self.node.stdout().get(events_before..).unwrap_or_default().to_owned();
        let told = until(SOON, "an event", || {
            let about = |line: &str| {
                line.contains("DENIED") && reasons.iter().any(|reason| line.contains(reason))
            };
            events().lines().any(about).then_some(())
        });
        ensure!(
            told.is_ok(),
            "{what}: no event says any of {reasons:?}; {done:?}; events:\n{}",
            events()
        );
        until_is(
            SOON,
            &format!("{what} to be counted as {reasons:?}"),
            || self.denied(reasons),
            |now| *now > counted_before,
        )?;
        Ok(done)
    }

    /// What the node counted as denied for these reasons.
    #[must_use]
    pub fn denied(&self, reasons: &[&str]) -> u64 {
        let metrics = self.testbed.node_metrics().unwrap_or_default();
        metrics
            .lines()
            .filter(|line| line.contains("action=\"deny\""))
            .filter(|line| reasons.iter().any(|reason| line.contains(&format!("\"{reason}\""))))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }
}
