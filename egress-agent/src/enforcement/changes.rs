//! What comes, goes and is mended: hearing of it, and telling it in the log.

use super::counters::NodeCounters;
use crate::{
    bpf::{self, Change, Repair, Target},
    sys::netlink::links::Watch,
};

/// Listens to the kernel; `None` where that isn't possible, which is said.
pub(crate) fn listen() -> Option<Watch> {
    let watch = Watch::new().inspect_err(|error| {
        tracing::warn!(
            "can't listen to the kernel about interfaces ({error}); looking each second"
        );
    });
    watch.ok()
}

/// Waits until the kernel tells of interfaces; for ever where it doesn't tell.
pub(crate) async fn changed(watch: &mut Option<Watch>) {
    let Some(listening) = watch else { return std::future::pending().await };
    if let Err(error) = listening.changed().await {
        tracing::warn!(
            "can't hear the kernel about interfaces any more ({error}); looking each second"
        );
        *watch = None;
    }
}

/// Logs changes, and failures only once.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    /// Of the last look: they recur with every one.
    failures: Vec<String>,
}

impl Reporter {
    /// What failed in the last look.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Logs and counts what a look found.
    pub(crate) fn report(
        &mut self,
        changes: Vec<Result<Change, bpf::Error>>,
        tally: &NodeCounters,
    ) {
        let mut failures = Vec::new();
        for change in changes {
            match change {
                Ok(Change::Gone { target, named: true }) => {
                    tracing::warn!("{target} is gone; waiting for it to come back");
                }
                Ok(Change::Gone { target, named: false }) => tracing::info!("{target} is gone"),
                Ok(Change::Appeared { target }) => {
                    tracing::info!("{target} is new; enforcing on it");
                }
                Ok(Change::Repaired { target, repair }) => {
                    tally.repaired(repair);
                    log(&target, repair);
                }
                Err(error) => failures.push(error.to_string()),
            }
        }
        for failure in failures.iter().filter(|failure| !self.failures.contains(failure)) {
            tracing::error!("{failure}");
        }
        self.failures = failures;
    }
}

fn log(target: &Target, repair: Repair) {
    match repair {
        Repair::Interface => tracing::info!("{target} is back; enforcing on it"),
        Repair::Cgroup => tracing::info!("{target} was made again; enforcing on it"),
        Repair::Detached => {
            tracing::warn!("a program of ours was detached from {target}; it is attached again");
        }
        Repair::Order => {
            tracing::warn!("another program came before ours on {target}; ours is first again");
        }
        Repair::Pin => tracing::warn!("a pin of {target} was removed; it is pinned again"),
    }
}
