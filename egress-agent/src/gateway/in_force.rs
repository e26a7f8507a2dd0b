//! The configuration in force at a gateway, for the next decision of every worker.

use std::{future::pending, panic::resume_unwind, sync::Arc};

use tokio::task::spawn_blocking;

use super::missing::missing_addresses;
use crate::{
    admin::{ConfigState, Status},
    net::ClusterStates,
    policy::{GatewayPolicy, Snapshot},
    proxy::PolicyCell,
    source::{Loaded, Rollout},
    sys::{netlink::addresses, retire::Retired},
    telemetry::Telemetry,
    tls::Credentials,
    types::GatewayIdentity,
};

/// What follows a change of the configuration, apart from the workers.
pub(super) struct InForce {
    pub(super) identity: Arc<GatewayIdentity>,
    pub(super) policy: PolicyCell,
    /// Policies that were replaced: no worker frees one.
    pub(super) replaced: Retired,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) status: Arc<Status>,
    pub(super) states: Arc<ClusterStates>,
    pub(super) credentials: Arc<Credentials>,
    /// Who wants to know what is in force; absent without an API server.
    pub(super) rollout: Option<Rollout>,
}

impl InForce {
    /// Puts what was loaded in force, for the next decision of every worker.
    pub(super) async fn apply(&self, loaded: &Loaded) {
        let Loaded { snapshot, current, accepted, rejected, held: _, last: _ } = loaded;
        let mut clusters = self.status.config().clusters.clone();
        if let Some(snapshot) = snapshot
            && !self.is_in_force(snapshot)
        {
            let policy = self.decide_by(snapshot).await;
            clusters = policy.clusters().map(Arc::clone).collect();
            self.telemetry.stats.configure(clusters.iter().map(|cluster| &cluster.name));
            self.states.configure(clusters.iter().map(|cluster| &cluster.name));
            // Before the policy: its first connection finds the certificates.
            self.credentials.attribute(&snapshot.credential_uses);
            self.credentials.originate(policy.originating(), policy.shown_to_proxies());
            self.credentials.configure(policy.terminating(), []).await;
            let fault = self.telemetry.access_log.configure(&snapshot.mesh).err();
            if let Some(error) = &fault {
                tracing::error!("{error}");
            }
            self.status.set_fault("access_log", fault.map(|error| error.to_string()));
            missing_addresses(snapshot).iter().for_each(|missing| tracing::error!("{missing}"));
            self.put_in_force(policy);
            if let Some(rollout) = &self.rollout {
                let groups = snapshot.mesh.gateways.iter();
                let gateways = groups.flat_map(|group| group.endpoints.iter().copied());
                rollout.in_force(&snapshot.revisions, gateways.collect());
            }
        }
        self.status.set_config(ConfigState {
            snapshot: snapshot.clone(),
            clusters,
            current: *current,
            accepted: *accepted,
            rejected: *rejected,
        });
    }

    /// The policy of this process by a snapshot. Its tables are made on a thread of their own, so that
    /// this one serves meanwhile.
    async fn decide_by(&self, snapshot: &Arc<Snapshot>) -> Arc<GatewayPolicy> {
        let (snapshot, identity) = (Arc::clone(snapshot), Arc::clone(&self.identity));
        match spawn_blocking(move || Arc::new(GatewayPolicy::new(snapshot, &identity))).await {
            Ok(policy) => policy,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // Cancelled: the runtime ends, and nobody polls this again.
                Err(_) => pending().await,
            },
        }
    }

    fn put_in_force(&self, policy: Arc<GatewayPolicy>) {
        if let Some(replaced) = self.policy.swap(Some(policy)) {
            self.replaced.add(replaced);
        }
    }

    /// Never dials an address that the host was given meanwhile.
    pub(super) async fn follow_addresses(&mut self) {
        match addresses::list() {
            Ok(now) if now != self.identity.addresses => {
                self.identity =
                    Arc::new(GatewayIdentity { addresses: now, ..(*self.identity).clone() });
                if let Some(rollout) = &self.rollout {
                    rollout.set_own(&self.identity.addresses);
                }
                let snapshot = self.status.config().snapshot.clone();
                if let Some(snapshot) = &snapshot {
                    let policy = self.decide_by(snapshot).await;
                    self.put_in_force(policy);
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("can't list this host's addresses: {error}"),
        }
    }

    fn is_in_force(&self, snapshot: &Arc<Snapshot>) -> bool {
        let config = self.status.config();
        config.snapshot.as_ref().is_some_and(|before| Arc::ptr_eq(before, snapshot))
    }
}
