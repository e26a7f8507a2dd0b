//! The configuration as this process follows it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::in_force::InForce;
use crate::{admin::State, config::LastGood, source::Loaded};

/// How often a process that is to take over looks whether it can.
const LOOK: Duration = Duration::from_millis(50);
/// How long it waits for certificates, beyond its configuration: an API server's Secrets come later.
const CERTIFICATES: Duration = Duration::from_secs(30);

/// What is loaded, and what of it is in force.
pub(super) struct LoadedConfiguration {
    pub(super) in_force: InForce,
    pub(super) loaded: watch::Receiver<Loaded>,
    /// What reads the configuration and the certificates.
    pub(super) tasks: [JoinHandle<()>; 2],
}

impl LoadedConfiguration {
    /// Puts in force what is loaded now.
    pub(super) async fn apply(&mut self) {
        let now = self.loaded.borrow_and_update().clone();
        self.in_force.apply(&now).await;
    }

    /// Ends what reads the configuration and the certificates, and reports nothing more.
    pub(super) fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Some(rollout) = &self.in_force.rollout {
            rollout.stop();
        }
    }

    /// Completes when this process can do all that the one before it does, which uses these certificates.
    ///
    /// # Errors
    /// Why it can't. A refused configuration is such a reason, although the process before has a good
    /// one: that one is nowhere but in its memory.
    pub(super) async fn prepared(&mut self, credentials: &[String]) -> anyhow::Result<()> {
        let status = Arc::clone(&self.in_force.status);
        let mut since = None;
        loop {
            let last = self.loaded.borrow().last.clone();
            if let Some(last) = last.filter(|last| !last.accepted) {
                bail!("the configuration is refused: {}", last.problems.join("; "));
            }
            let last = self.loaded.borrow().last.clone();
            let problems = last.iter().flat_map(|last| &last.problems);
            if let Some(problem) = problems.into_iter().find(|p| LastGood::is_without_version(p)) {
                bail!(
                    "the process before this one may know a valid version of an object: {problem}"
                );
            }
            match status.state() {
                State::Live => {
                    let missing = self.missing(credentials);
                    let since = *since.get_or_insert_with(Instant::now);
                    if missing.is_empty() {
                        return Ok(());
                    }
                    if since.elapsed() > CERTIFICATES {
                        bail!("certificates that are in use are missing: {}", missing.join("; "));
                    }
                }
                State::Faulty => bail!("{}", status.faults().join("; ")),
                State::Initializing | State::Draining => {}
            }
            tokio::select! {
                changed = self.loaded.changed() => {
                    changed.context("the configuration is no longer watched")?;
                    self.apply().await;
                }
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Those of the certificates that the configuration asks for and that are not there, with the reason.
    fn missing(&self, credentials: &[String]) -> Vec<String> {
        let states = self.in_force.status.certificates().into_iter();
        let missing =
            states.filter(|state| state.not_after.is_none() && credentials.contains(&state.name));
        missing.map(|state| format!("{}: {}", state.name, state.problems.join(", "))).collect()
    }
}
