//! The proxy: accept → detect → decide → act.

pub mod http;

mod accept;
mod connection;
mod details;
mod drain;
mod forward;
mod inbox;
mod limiter;
mod limits;
mod next_step;
mod ping_timeout;
mod policy_cell;
mod post_tunnel;
mod preface;
mod rates;
mod record;
mod refuse;
mod terminate;
mod transport;
mod tunnel;
mod worker;

use std::{
    fmt,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use egress_ebpf::reason::Reason;

pub use self::{
    drain::Drain,
    limiter::{ConnectionOwner, Limiter, Permit, Queued, UnwrittenBytes, Work},
    limits::Limits,
    policy_cell::PolicyCell,
    rates::{Rates, UsedRate},
    worker::{Listeners, Workers, WorkersConfig},
};
use crate::{
    net::{Buffers, DialContext, DialError, Dialer, Plan, Upstream, WaitPolicy},
    policy::{Cluster, Denied, EgressAddresses, GatewayPolicy, Hop},
    telemetry::{ClusterStats, Telemetry},
    tls::{Credentials, Originator, RevocationSignal},
    types::{ClientAddr, DownstreamTls, Host, LocalAddr, OriginalPort, ShareOwner, Source},
};

/// What all connections of one worker thread share.
pub struct Worker {
    /// The policy in force; see [`Self::policy`].
    pub policy: PolicyCell,
    /// Counters and access log.
    pub telemetry: Arc<Telemetry>,
    /// Connections to the outside.
    pub dialer: Dialer,
    /// TLS towards the outside.
    pub originator: Originator,
    /// What TLS that ends here shows and asks for.
    pub credentials: Arc<Credentials>,
    /// HTTP's pool.
    pub http: http::Shared,
    /// What relayed connections share.
    pub buffers: Buffers,
    /// Deadlines and limits.
    pub limits: Limits,
    /// What workloads have asked of hosts, where that is limited.
    pub rates: Arc<Rates>,
    /// What its sources share.
    pub limiter: Rc<Limiter>,
    /// The worker's end.
    pub drain: Drain,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Worker {
    /// The policy to decide by, now. Ask again for every decision.
    ///
    /// # Errors
    /// [`Reason::NotConfigured`] as long as no configuration was accepted.
    pub fn policy(&self) -> Result<Arc<GatewayPolicy>, Denied> {
        self.policy.load_full().ok_or_else(|| Denied {
            reason: Reason::NotConfigured,
            detail: "this gateway has no configuration yet".into(),
            matched: None,
        })
    }

    /// Waits, before something is forwarded, until the access log has room for its line.
    async fn room_in_log(&self, downstream: &Downstream) {
        if !self.telemetry.access_log.is_on() {
            return;
        }
        self.telemetry.access_log.wait_for_room(&downstream.owner()).await;
    }

    /// Completes when the connection must end at once: the worker ends, or another source needs the
    /// room that the source of this one has too much of.
    async fn ends(&self, holder: &ConnectionOwner) {
        tokio::select! {
            () = self.drain.expired() => {}
            () = holder.evicted() => {}
        }
    }

    /// Dials, and counts what is counted alike for requests and connections: endpoints, and
    /// attempts that failed before one succeeded. How it failed in the end is the caller's to count.
    async fn dial(
        &self,
        policy: &GatewayPolicy,
        (cluster, host): (&Cluster, Option<&Host>),
        from: Option<&EgressAddresses>,
        downstream: &Downstream,
        stats: &ClusterStats,
    ) -> Result<Upstream, DialError> {
        let hash = cluster.hash.as_ref().and_then(|hash| hash.of_source(downstream.source.addr));
        let owner = downstream.owner();
        let asker = DialContext { owner: &owner, hash, from };
        let dialled = self.dialer.dial(policy, cluster, host, asker).await;
        self.count_members(cluster, stats);
        Self::count_dial(&dialled, stats);
        dialled
    }

    /// The endpoints for one request, the balancer's choice first.
    async fn plan(
        &self,
        policy: &GatewayPolicy,
        cluster: &Cluster,
        host: &Host,
        asker: DialContext<'_>,
        stats: &ClusterStats,
    ) -> Result<Plan, DialError> {
        let plan = self.dialer.plan(policy, cluster, Some(host), asker).await;
        self.count_members(cluster, stats);
        plan
    }

    /// Dials by a plan, and counts as [`Self::dial`] does.
    async fn connect(
        &self,
        cluster: &Cluster,
        plan: &Plan,
        owner: &ShareOwner,
        patience: WaitPolicy,
        stats: &ClusterStats,
    ) -> Result<Upstream, DialError> {
        let dialled = self.dialer.connect(cluster, plan, owner, patience).await;
        Self::count_dial(&dialled, stats);
        dialled
    }

    fn count_members(&self, cluster: &Cluster, stats: &ClusterStats) {
        let members = self.dialer.membership(cluster);
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let healthy = members.total.saturating_sub(members.ejected);
        stats.set_membership(number(healthy), number(members.total));
        stats.set_ejections_active(number(members.ejected));
    }

    fn count_dial(dialled: &Result<Upstream, DialError>, stats: &ClusterStats) {
        match dialled {
            Ok(upstream) => {
                for _ in 0..upstream.failed_attempts {
                    stats.inc_upstream_cx_connect_fail();
                }
            }
            Err(error) => {
                if let Some(addr) = error.upstream() {
                    stats.endpoint(addr).inc_cx_connect_fail();
                }
            }
        }
    }
}

/// A connection from an application.
#[derive(Clone, Debug)]
pub struct Downstream {
    /// Its other end.
    pub peer: ClientAddr,
    /// Our end; its port is the one that the application dialled. Through the tunnel it is the whole
    /// address that was dialled.
    pub local: LocalAddr,
    /// How it came from the node.
    pub hop: Hop,
    /// That port.
    pub port: OriginalPort,
    /// Who is there.
    pub source: Source,
    /// Its ClientHello had the extension of Encrypted Client Hello.
    pub encrypted_hello: bool,
    /// TLS that was ended here, once it was.
    pub tls: Option<Arc<DownstreamTls>>,
    /// Where it is told that its certificates aren't good any more; `None` where it showed none.
    pub ending: Option<RevocationSignal>,
    /// Its place among all connections.
    pub holder: ConnectionOwner,
    /// When it was accepted, for durations.
    pub start: Instant,
    /// When it was accepted, for people.
    pub start_time: SystemTime,
}

impl Downstream {
    /// Whose share of what is bounded it uses.
    pub(crate) fn owner(&self) -> ShareOwner {
        ShareOwner::of(self.source.workload.as_deref(), self.peer.ip())
    }
}
