//! What a role tells the admin endpoints about itself.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use crate::{
    policy::{Callers, Cluster, Snapshot},
    source::Rollout,
    tls::{CredentialState, Credentials},
};

/// The configuration as the role has it.
#[derive(Clone, Debug, Default)]
pub struct ConfigState {
    /// What is in force; `None` before the first one was accepted.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Every cluster that a request could lead to; empty on a node.
    pub clusters: Vec<Arc<Cluster>>,
    /// Whether the files, as last read, are what is in force.
    pub current: bool,
    /// Configurations accepted since the start.
    pub accepted: u64,
    /// Configurations refused since the start.
    pub rejected: u64,
}

/// Something that the process listens on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// What it is for.
    pub name: &'static str,
    /// Where, as an option names it or as the socket is bound.
    pub address: String,
}

/// How open connections end where listeners are drained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrainManner {
    /// By themselves, within the process's drain time.
    Graceful,
    /// At once.
    AtOnce,
}

/// One a process, shared between its role and the admin endpoints.
#[derive(Debug, Default)]
pub struct Status {
    config: ArcSwap<ConfigState>,
    callers: ArcSwap<Callers>,
    draining: AtomicBool,
    /// `/healthcheck/fail`.
    failed: AtomicBool,
    /// `/drain_listeners`.
    drain: watch::Sender<Option<DrainManner>>,
    listeners: ArcSwap<Vec<Listener>>,
    faults: Mutex<BTreeMap<&'static str, String>>,
    credentials: ArcSwapOption<Credentials>,
    rollout: OnceLock<Rollout>,
}

/// Envoy's server states, those that occur here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Ready.
    Live,
    /// It is shutting down.
    Draining,
    /// Waiting for a configuration.
    Initializing,
    /// Something is wrong, see [`Status::set_fault`].
    Faulty,
}

impl State {
    /// As `/ready` and `/server_info` write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::Initializing => "INITIALIZING",
            Self::Faulty => "FAULTY",
        }
    }
}

impl Status {
    /// Which agents have which policies in force is kept there. The first one counts.
    pub fn set_rollout(&self, rollout: Rollout) {
        drop(self.rollout.set(rollout));
    }

    /// Where that is kept; `None` without an API server.
    pub(super) fn rollout(&self) -> Option<&Rollout> {
        self.rollout.get()
    }

    /// A configuration was accepted or refused.
    pub fn set_config(&self, config: ConfigState) {
        if let Some(snapshot) = &config.snapshot {
            self.callers.store(Arc::new(Callers::new(&snapshot.mesh)));
        }
        self.config.store(Arc::new(config));
    }

    /// The process shuts down: it isn't ready any more.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The process is to be taken for unready, or no longer.
    pub fn set_failed(&self, failed: bool) {
        self.failed.store(failed, Ordering::Release);
    }

    /// Asks the role to drain its listeners.
    pub fn ask_drain(&self, manner: DrainManner) {
        self.drain.send_replace(Some(manner));
    }

    /// Completes when somebody has asked for that.
    pub async fn drain_asked(&self) -> DrainManner {
        let mut asked = self.drain.subscribe();
        loop {
            if let Some(manner) = *asked.borrow_and_update() {
                return manner;
            }
            // The sender lives as long as this does.
            asked.changed().await.ok();
        }
    }

    /// The process listens there.
    pub fn set_listeners(&self, listeners: Vec<Listener>) {
        self.listeners.store(Arc::new(listeners));
    }

    /// What the process listens on.
    #[must_use]
    pub fn listeners(&self) -> Arc<Vec<Listener>> {
        self.listeners.load_full()
    }

    /// Something (`name`) is wrong, so that nobody should rely on this process; `None` clears it.
    pub fn set_fault(&self, name: &'static str, problem: Option<String>) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => faults.insert(name, problem),
            None => faults.remove(name),
        };
    }

    /// The process has these certificates.
    pub fn set_credentials(&self, credentials: Arc<Credentials>) {
        self.credentials.store(Some(credentials));
    }

    /// How they fare; none where the process has none.
    #[must_use]
    pub fn certificates(&self) -> Vec<CredentialState> {
        self.credentials.load().as_ref().map(|all| all.states()).unwrap_or_default()
    }

    /// Who the configuration says a source is.
    pub(super) fn callers(&self) -> Arc<Callers> {
        self.callers.load_full()
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> Arc<ConfigState> {
        self.config.load_full()
    }

    /// Whether the process is ready, and if not why.
    #[must_use]
    pub fn state(&self) -> State {
        if self.draining.load(Ordering::Acquire) || self.failed.load(Ordering::Acquire) {
            // Envoy's state, too, where the health check was made to fail.
            State::Draining
        } else if self.config.load().snapshot.is_none() {
            State::Initializing
        } else if !self.faults.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            State::Faulty
        } else {
            State::Live
        }
    }

    /// What is wrong, one sentence a fault.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.iter().map(|(name, problem)| format!("{name}: {problem}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_with_a_configuration_and_without_faults() {
        let status = Status::default();
        assert_eq!(status.state(), State::Initializing);
        // A refused configuration alone changes nothing.
        status.set_config(ConfigState { rejected: 1, ..ConfigState::default() });
        assert_eq!(status.state(), State::Initializing);
        let snapshot = Some(Arc::new(Snapshot::default()));
        status.set_config(ConfigState { snapshot, ..ConfigState::default() });
        assert_eq!(status.state(), State::Live);
        status.set_fault("maps", Some("ROUTES is full".into()));
        assert_eq!(status.state(), State::Faulty);
        assert_eq!(status.faults(), ["maps: ROUTES is full"]);
        status.set_fault("maps", None);
        assert_eq!(status.state(), State::Live);
        status.set_failed(true);
        assert_eq!(status.state(), State::Draining);
        status.set_failed(false);
        assert_eq!(status.state(), State::Live);
        status.set_draining();
        assert_eq!(status.state(), State::Draining);
    }
}
