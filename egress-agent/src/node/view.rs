//! What the node agent tells on its control socket.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::watch;

use crate::{
    admin::control::{
        AgentReport, Configuration, EventsReport, GatewayHealth, NodeReport, Process, Serving,
        SetReport, TunnelReport,
    },
    bpf::Counters,
    enforcement::{Condition, EnforcedInterfaces, Modes, NodeCounters, SetMode, mode_name},
    policy::MeshConfig,
    source::Loaded,
    telemetry::{Exports, FlowLog},
    tls::{CredentialState, Credentials},
    tunnel::Stats,
};

/// Where the answers come from.
pub(super) struct View {
    pub(super) process: Process,
    pub(super) bpffs: String,
    pub(super) directory: String,
    pub(super) events_per_second: u32,
    pub(super) loaded: watch::Receiver<Loaded>,
    pub(super) healthy: watch::Receiver<HashSet<IpAddr>>,
    pub(super) modes: watch::Receiver<Modes>,
    pub(super) counters: Arc<Counters>,
    pub(super) tally: Arc<NodeCounters>,
    pub(super) condition: Arc<Condition>,
    pub(super) credentials: Arc<Credentials>,
    /// Where the tunnel listens, and what it counts.
    pub(super) tunnel: (Vec<SocketAddr>, Arc<Stats>),
    /// Whether enforcement stands for a pod that starts.
    pub(super) standing: EnforcedInterfaces,
    /// What is exported over OTLP.
    pub(super) exports: Option<Arc<Exports>>,
}

impl View {
    /// For the control socket.
    pub(super) fn serving(self, flows: Arc<FlowLog>) -> Serving {
        let view = Arc::new(self);
        let (lost, loaded) = (Arc::clone(&view), view.loaded.clone());
        let standing = view.standing.clone();
        Serving {
            status: Box::new(move || AgentReport::Node(view.report())),
            snapshot: Box::new(move || loaded.borrow().snapshot.clone()),
            flows,
            standing: Box::new(move |pod: &str, namespace| standing.check(pod, namespace)),
            lost: Box::new(move || {
                let events = lost.events();
                events.lost_rate + events.lost_full + events.lost_unknown
            }),
            upgrade: None,
        }
    }

    fn report(&self) -> NodeReport {
        let loaded = self.loaded.borrow().clone();
        let mesh = loaded.snapshot.as_ref().map(|snapshot| &snapshot.mesh);
        let load = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
        NodeReport {
            process: self.process.clone(),
            bpffs: self.bpffs.clone(),
            configuration: Configuration::new(self.directory.clone(), &loaded),
            enforcement: self.modes.borrow().iter().map(set).collect(),
            gateways: mesh.map(|mesh| self.gateways(mesh)).unwrap_or_default(),
            events: self.events(),
            first_start: self.condition.waiting(),
            maps_behind: load(&self.tally.behind) != 0,
            problems: self.problems(),
            warnings: self.warnings(),
            exemptions: self.condition.exemptions(),
            exposures: self.condition.exposures(),
            repairs: self.tally.repairs(),
            sockets_destroyed: load(&self.tally.sockets_destroyed),
            tunnel: self.tunnel(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let exports = self.exports.iter().flat_map(|exports| exports.warnings());
        self.condition.warnings().into_iter().chain(exports).collect()
    }

    fn tunnel(&self) -> Option<TunnelReport> {
        let (listen, stats) = &self.tunnel;
        (!listen.is_empty()).then(|| TunnelReport {
            listen: listen.iter().map(ToString::to_string).collect(),
            connections: stats.connections.load(Ordering::Relaxed),
            streams: stats.streams.load(Ordering::Relaxed),
        })
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = self.condition.problems();
        for CredentialState { name, problems: faults, .. } in self.credentials.states() {
            problems.extend(faults.iter().map(|fault| format!("certificate {name}: {fault}")));
        }
        problems
    }

    fn gateways(&self, mesh: &MeshConfig) -> Vec<GatewayHealth> {
        let healthy = self.healthy.borrow();
        let all = mesh.gateways.iter().flat_map(|gateway| {
            gateway.endpoints.iter().map(|addr| GatewayHealth {
                service: gateway.service.to_string(),
                address: addr.to_string(),
                healthy: healthy.contains(addr),
            })
        });
        all.collect()
    }

    /// A counter that can't be read counts nothing; its map's trouble shows elsewhere.
    fn events(&self) -> EventsReport {
        let lost = self.counters.lost().unwrap_or_default();
        EventsReport {
            per_second: self.events_per_second,
            lost_rate: lost.rate,
            lost_full: lost.full,
            lost_output: self.tally.dropped.load(Ordering::Relaxed),
            lost_unknown: self.tally.unreadable.load(Ordering::Relaxed),
        }
    }
}

/// Who is enforced how, as the kernel has it; the first one is everybody that no other one names.
fn set(set: &SetMode) -> SetReport {
    SetReport { name: set.name.to_string(), mode: mode_name(set.mode).into() }
}
