//! What a gateway tells on its control socket.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use tokio::sync::watch;

use super::missing::missing_addresses;
use crate::{
    admin::{
        State, Status,
        control::{
            AgentReport, Configuration, GatewayReport, LimitReport, Process, Serving, TunnelReport,
            UpgradeRequests,
        },
    },
    handover::Draining,
    source::Loaded,
    telemetry::{ClusterCounter, Resource, Telemetry},
    tls::CredentialState,
};

/// Where the answers come from, apart from the configuration.
pub(super) struct View {
    pub(super) process: Process,
    pub(super) directory: String,
    pub(super) capture: String,
    pub(super) ports: [u16; 3],
    /// `--tunnel-port`.
    pub(super) tunnel: Option<u16>,
    pub(super) workers: usize,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) status: Arc<Status>,
    /// The process that this one has replaced, while it drains.
    pub(super) before: Draining,
    /// How an upgrade is asked for.
    pub(super) upgrade: UpgradeRequests,
}

impl View {
    /// For the control socket.
    pub(super) fn serving(self, loaded: watch::Receiver<Loaded>) -> Serving {
        let flows = Arc::clone(&self.telemetry.flows);
        let config = loaded.clone();
        let upgrade = Some(self.upgrade.clone());
        Serving {
            upgrade,
            status: Box::new(move || AgentReport::Gateway(self.report(&loaded.borrow().clone()))),
            snapshot: Box::new(move || config.borrow().snapshot.clone()),
            flows,
            standing: Box::new(|_: &str, _| Err("a gateway enforces nothing on pods".into())),
            // A gateway hands its flows in itself.
            lost: Box::new(|| 0),
        }
    }

    fn report(&self, loaded: &Loaded) -> GatewayReport {
        let clusters = self.telemetry.stats.clusters();
        let sum = |counter| clusters.iter().map(|(_, stats)| stats.get(counter)).sum();
        let state = self.status.state();
        let mut problems = self.status.faults();
        for CredentialState { name, problems: faults, .. } in self.status.certificates() {
            problems.extend(faults.iter().map(|fault| format!("certificate {name}: {fault}")));
        }
        problems.extend(loaded.snapshot.iter().flat_map(|snapshot| missing_addresses(snapshot)));
        if self.telemetry.stats.limits().is_pressed() {
            let why = "memory is short: sources with more than their share are refused";
            problems.push(why.into());
        }
        match state {
            State::Draining => problems.push("it is draining: nothing new is accepted".into()),
            State::Initializing => problems
                .push("no configuration has been accepted yet; everything is refused".into()),
            State::Live | State::Faulty => {}
        }
        let warnings = self.telemetry.stats.node_sources().warning(Instant::now());
        GatewayReport {
            warnings: warnings
                .into_iter()
                .chain(self.before())
                .chain(self.exports(loaded))
                .collect(),
            process: self.process.clone(),
            state: state.name().into(),
            configuration: Configuration::new(self.directory.clone(), loaded),
            capture: self.capture.clone(),
            ports: self.ports,
            workers: self.workers,
            connections: sum(ClusterCounter::CxActive),
            requests: sum(ClusterCounter::RqActive),
            tunnel: self.tunnel.map(|port| self.tunnel(port)),
            limits: Resource::ALL.map(|resource| self.limit(resource)).into(),
            problems,
        }
    }

    /// What does not reach a collector.
    fn exports(&self, loaded: &Loaded) -> Vec<String> {
        let exports = self.telemetry.exports.get();
        let mut warnings = exports.map(|exports| exports.warnings()).unwrap_or_default();
        let traces = loaded.snapshot.as_ref().is_some_and(|snapshot| snapshot.mesh.tracing);
        if traces && self.telemetry.traces().is_none() {
            let text = "enableTracing has no effect: the gateway's environment names no collector for spans \
                        (OTEL_EXPORTER_OTLP_ENDPOINT)";
            warnings.push(text.into());
        }
        warnings
    }

    fn before(&self) -> Option<String> {
        let pid = self.before.load(Relaxed);
        let text = format!(
            "process {pid}, which this one replaced, still drains: until it ends, each counts its own \
             limits, rates and connections"
        );
        (pid != 0).then_some(text)
    }

    fn limit(&self, resource: Resource) -> LimitReport {
        let stats = self.telemetry.stats.limits();
        LimitReport {
            resource: resource.name().into(),
            used: stats.used(resource),
            bound: stats.limit(resource),
            refused: stats.refused_total(resource),
            closed: stats.closed_total(resource),
        }
    }

    fn tunnel(&self, port: u16) -> TunnelReport {
        let stats = self.telemetry.stats.tunnels();
        TunnelReport {
            listen: vec![format!("port {port}")],
            connections: stats.open.load(Relaxed),
            streams: stats.streams.load(Relaxed),
        }
    }
}
