//! What must be true of an attempt that is denied: no answer, a flow event and a counter with the
//! reason, and nothing outside.

use std::fmt;

use anyhow::{Context, Result, ensure};

use crate::{
    capture::Capture,
    cluster::Cluster,
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

/// A connection that a test tries.
pub struct Attempt<'a> {
    /// What it is.
    pub what: String,
    /// The hooks that may deny it, as they are called in events and metrics; any where there is none.
    pub hooks: &'a [&'a str],
    /// The reasons that they may give.
    pub reasons: &'a [&'a str],
    /// Tries it; exit code 0 where it was answered.
    pub run: Box<dyn Fn() -> Result<Finished> + 'a>,
}

impl fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} at {:?}", self.what, self.reasons, self.hooks)
    }
}

/// An [`Attempt`].
pub fn attempt<'a>(
    what: impl Into<String>,
    hooks: &'a [&'a str],
    reasons: &'a [&'a str],
    run: impl Fn() -> Result<Finished> + 'a,
) -> Attempt<'a> {
    Attempt { what: what.into(), hooks, reasons, run: Box::new(run) }
}

/// Makes every attempt where nothing enforces: each must arrive outside, or it proves nothing.
///
/// # Errors
/// One doesn't.
pub fn all_get_out(capture: &Capture, attempts: &[Attempt<'_>]) -> Result<()> {
    for attempt in attempts {
        capture.take();
        let done = (attempt.run)().with_context(|| attempt.what.clone())?;
        until(SOON, &format!("{attempt:?} outside; {done:?}"), || {
            (!capture.take().is_empty()).then_some(())
        })?;
    }
    Ok(())
}

impl Wall<'_> {
    /// Makes every attempt: none may succeed.
    ///
    /// # Errors
    /// What was wrong with each that wasn't denied as it must be.
    pub fn stops_all(&self, attempts: &[Attempt<'_>]) -> Result<()> {
        let failures = attempts.iter().filter_map(|attempt| {
            let Attempt { what, hooks, reasons, run } = attempt;
            self.stops_at(hooks, what, reasons, run).err()
        });
        let failures: Vec<String> = failures.map(|error| format!("{error:#}")).collect();
        ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
        Ok(())
    }

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
        self.stops_at(&[], what, reasons, attempt)
    }

    /// The same, and the denial must come from one of these hooks.
    ///
    /// # Errors
    /// As for [`Self::stops`].
    pub fn stops_at(
        &self,
        hooks: &[&str],
        what: &str,
        reasons: &[&str],
        attempt: impl FnOnce() -> Result<Finished>,
    ) -> Result<Finished> {
        let events_before = self.node.stdout().len();
        let counted_before = self.denied(hooks, reasons);
        let done = attempt()?;
        let leaked = self.capture.take();
        ensure!(leaked.is_empty(), "{what} leaked: {leaked:#?}; {done:?}");
        ensure!(!done.ok(), "{what} was answered: {done:?}");
        let events = || self.node.stdout().get(events_before..).unwrap_or_default().to_owned();
        let about = |line: &str| {
            let why = reasons.iter().any(|reason| line.contains(&format!("({reason})")));
            let by = hooks.iter().any(|hook| line.contains(&format!(" at {hook}")));
            line.contains("DENIED") && why && (by || hooks.is_empty())
        };
        let told = until(SOON, "an event", || events().lines().any(about).then_some(()));
        ensure!(
            told.is_ok(),
            "{what}: no event says any of {reasons:?} at {hooks:?}; {done:?}; events:\n{}",
            events()
        );
        until_is(
            SOON,
            &format!("{what} to be counted as {reasons:?} at {hooks:?}"),
            || self.denied(hooks, reasons),
            |now| *now > counted_before,
        )?;
        Ok(done)
    }

    /// What the node counted as denied by these hooks (any where there is none) for these reasons.
    #[must_use]
    pub fn denied(&self, hooks: &[&str], reasons: &[&str]) -> u64 {
        let metrics = self.testbed.node_metrics().unwrap_or_default();
        let has = |line: &str, label: &str, values: &[&str]| {
            values.iter().any(|value| line.contains(&format!("{label}=\"{value}\"")))
        };
        metrics
            .lines()
            .filter(|line| has(line, "action", &["deny"]) && has(line, "reason", reasons))
            .filter(|line| hooks.is_empty() || has(line, "hook", hooks))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }
}

/// Two nodes with their pods, an agent that enforces on the first, and a capture behind it.
#[derive(Debug)]
pub struct Enforced {
    /// What arrives outside.
    pub capture: Capture,
    /// The node agent.
    pub node: Process,
    /// The other hosts.
    pub cluster: Cluster,
    /// The hosts.
    pub testbed: Testbed,
}

impl Enforced {
    /// Sets them up without gateways and without policy: only the inside is allowed.
    ///
    /// # Errors
    /// Something can't be set up.
    pub fn cluster() -> Result<Self> {
        let testbed = Testbed::test(0)?;
        let cluster = Cluster::grow(&testbed)?;
        Self::on(testbed, cluster)
    }

    /// Starts enforcing on hosts that are there.
    ///
    /// # Errors
    /// The agent doesn't start.
    pub fn on(testbed: Testbed, cluster: Cluster) -> Result<Self> {
        let node = testbed.start_node_with(&cluster.node_args(&testbed))?;
        let capture = testbed.capture()?;
        Ok(Self { capture, node, cluster, testbed })
    }

    /// Its wall.
    #[must_use]
    pub fn wall(&self) -> Wall<'_> {
        Wall { testbed: &self.testbed, node: &self.node, capture: &self.capture }
    }
}
