//! What takes connections: workers and admin endpoints, from their listeners on.

use std::sync::Arc;

use anyhow::Context as _;

use crate::{
    admin::{Admin, AdminListeners, AdminSources, Status},
    proxy::{Drain, Listeners, Rates, Workers, WorkersConfig},
    telemetry::Telemetry,
};

/// Listeners that nobody reads yet, and who is to read them.
pub(super) struct BoundListeners {
    pub(super) workers: WorkersConfig,
    /// A set for each worker.
    pub(super) listeners: Vec<Listeners>,
    /// Where workers run; none for anywhere.
    pub(super) cores: Vec<usize>,
    pub(super) admin: AdminListeners,
    pub(super) sources: AdminSources,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) status: Arc<Status>,
}

/// Connections are accepted.
pub(super) struct Open {
    admin: Admin,
    /// Until somebody waits for their end.
    pub(super) workers: Option<Workers>,
    drains: Vec<Drain>,
    /// What workloads have asked of hosts, where that is limited.
    pub(super) rates: Arc<Rates>,
}

impl BoundListeners {
    /// Accepts connections.
    ///
    /// # Errors
    /// A thread can't be started.
    pub(super) fn open(self) -> anyhow::Result<Open> {
        let Self { workers, listeners, cores, admin, sources, telemetry, status } = self;
        let admin = admin.serve(sources, telemetry, status)?;
        let (count, rates) = (listeners.len(), Arc::clone(&workers.rates));
        let workers =
            Workers::start(&workers, listeners, &cores).context("can't start the workers")?;
        tracing::info!("{count} workers take connections");
        Ok(Open { admin, drains: workers.drains(), workers: Some(workers), rates })
    }
}

impl Open {
    /// The drains of all workers.
    pub(super) fn drains(&self) -> &[Drain] {
        &self.drains
    }

    /// Leaves what is new to another process, which accepts from the same listeners.
    pub(super) fn hand_over(&self) {
        self.admin.leave();
        self.drains.iter().for_each(Drain::hand_over);
    }
}
