//! The `gateway` command: configuration, listeners, workers, admin endpoints, and their end.

mod bound_listeners;
mod in_force;
mod loaded_configuration;
mod missing;
mod peers;
mod pods;
mod role;
mod running;
mod shutdown_signals;
mod view;

use std::{net::IpAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use ipnet::IpNet;
use tokio::{runtime, sync::mpsc, time::Instant};

use self::{
    bound_listeners::BoundListeners, in_force::InForce, role::Role, shutdown_signals::DrainLimits,
    view::View,
};
use crate::{
    admin::{
        AdminListeners, AdminPorts, AdminSources, Listener, Status,
        control::{self, ControlArgs, GATEWAY_SOCKET, Process},
    },
    bpf,
    capture::{self, Capture, Captured, TunnelPort},
    handover::{Predecessor, Program, Succession},
    limits::{Allowance, LimitArgs, LookupArgs, MessageArgs, pressure},
    net::{ClusterStates, ResolverSource},
    otlp,
    proxy::{Listeners, PolicyCell, WorkersConfig},
    source::{ConfigArgs, NodeSelector, Rollout, Secrets},
    sys::{
        listening::{Named, Sockets},
        memory,
        netlink::addresses,
        process::{cores, open_files, raise_open_files},
        retire::Retired,
    },
    telemetry::{Signal, Telemetry},
    tls::{CertificateArgs, CredentialStore, Credentials, TrustRoots},
    types::{GatewayIdentity, Labels, Namespace, Port, duration_within},
};

/// Upgrades that are asked for and not looked at.
const REQUESTS: usize = 4;

const EXAMPLES: &str = "\
Examples:
  # Every port, with one listener, for Gateway resources that select the labels.
  egress-agent gateway --config /etc/egress/config \\
      --labels istio=egressgateway --namespace istio-system --capture sk-lookup

  # Without eBPF: it listens on the ports that applications dial.
  egress-agent gateway --config config/ --mesh mesh.yaml --capture bind:80,443 \\
      --labels istio=egressgateway --namespace istio-system";

/// Options of `gateway`.
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "egress-agent gateway [OPTIONS] --labels <KEY=VALUE,...> --namespace <NS>\n       \
                      --capture <sk-lookup|bind:PORTS>",
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", otlp::VARIABLES)
)]
pub struct GatewayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The labels of this gateway: `Gateway` resources whose selector matches them apply to it.
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = labels)]
    labels: Labels,
    /// The namespace of this gateway.
    #[arg(long, value_name = "NS", value_parser = namespace)]
    namespace: Namespace,
    #[command(flatten)]
    certificates: CertificateArgs,
    /// Where connections come from: `sk-lookup` takes every TCP port of this host's addresses
    /// (needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN), `bind:80,443` listens on these ports (those below 1024
    /// need CAP_NET_BIND_SERVICE).
    #[arg(long, value_name = "sk-lookup|bind:PORTS")]
    capture: Capture,
    /// With `sk-lookup`: accept Linux 5.12 to 6.0, on which nobody has tested the programs.
    #[arg(long)]
    allow_untested_kernel: bool,
    /// With `sk-lookup`: ports that stay the host's own. The admin, health and metrics ports always
    /// do.
    #[arg(long, value_name = "PORTS", default_value = "22", value_parser = PortList::parse)]
    capture_exclude: PortList,
    /// With `sk-lookup`: take connections to these addresses alone [default: every address of this
    /// host but loopback].
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    capture_address: Vec<IpAddr>,
    /// The port on which nodes open their tunnels (mutual TLS, HBONE); `off` for none.
    #[arg(long, value_name = "PORT|off", default_value = "15008")]
    tunnel_port: TunnelPort,
    /// Worker threads, each on a core of its own as far as there are cores [default: as many as
    /// there are cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// The DNS server that names are resolved with [default: those of /etc/resolv.conf].
    #[arg(long, value_name = "IP[:PORT]")]
    resolver: Option<ResolverSource>,
    /// With `--source kubernetes`: the labels of the nodes that run a node agent. A policy is `Programmed` when all of
    /// them have it in force.
    #[arg(long, value_name = "KEY=VALUE,KEY!=VALUE", default_value = "egress-enforcer.io/gateway!=true", value_parser = NodeSelector::parse)]
    agent_nodes: NodeSelector,
    /// How long connections may go on after SIGTERM. A second SIGTERM ends them at once.
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = drain_timeout)]
    drain_timeout: Duration,
    /// How long connections may go on in this process after another one has taken over
    /// (`egress-agent upgrade`). What runs then is treated as after SIGTERM.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = drain_timeout)]
    upgrade_drain_timeout: Duration,
    #[command(flatten)]
    control: ControlArgs,
    /// Port of /stats, /clusters, /config_dump and /ready, on the loopback addresses.
    #[arg(long, value_name = "PORT", default_value_t = AdminPorts::default().admin)]
    admin_port: u16,
    /// Serve a page for a browser on the admin port, at /ui: what is in force, who talks to what, what is
    /// refused, live. Whoever reaches this host's loopback address can read it.
    #[arg(long)]
    admin_ui: bool,
    /// Port of /healthz/ready.
    #[arg(long, value_name = "PORT", default_value_t = AdminPorts::default().health)]
    health_port: u16,
    /// Port of /stats/prometheus.
    #[arg(long, value_name = "PORT", default_value_t = AdminPorts::default().metrics)]
    metrics_port: u16,
    /// The networks that /healthz/ready answers to, besides nodes (`nodes` in mesh.yaml) and this
    /// host [default: every source but the workloads under enforcement].
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',')]
    health_from: Vec<IpNet>,
    /// The networks that /stats/prometheus answers to, besides nodes and this host [default: every
    /// source but the workloads under enforcement].
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',')]
    metrics_from: Vec<IpNet>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    messages: MessageArgs,
    #[command(flatten)]
    lookups: LookupArgs,
}

/// Ports on the command line; empty for none.
#[derive(Clone, Debug)]
struct PortList(Vec<Port>);

impl PortList {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(Self(Vec::new())) } else { capture::ports(text).map(Self) }
    }
}

fn labels(text: &str) -> Result<Labels, String> {
    let mut labels = Labels::new();
    for pair in text.split(',') {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(format!(
                "found `{pair}`, expected KEY=VALUE (pairs are separated by commas), as in istio=egressgateway"
            ));
        };
        if labels.insert(key.into(), value.into()).is_some() {
            return Err(format!("label {key} is given twice"));
        }
    }
    Ok(labels)
}

/// `--drain-timeout`.
fn drain_timeout(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::ZERO..=Duration::from_secs(24 * 3600), "up to 24h")
}

/// An RFC 1123 label, as Kubernetes wants namespaces to be.
fn namespace(text: &str) -> Result<Namespace, String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if good {
        Ok(Namespace(text.into()))
    } else {
        Err(format!(
            "found `{text}`, expected a namespace: at most 63 lower-case letters, digits and inner hyphens"
        ))
    }
}

/// Runs it until SIGTERM, SIGINT, or the end of what runs after another process has taken over.
///
/// # Errors
/// What the user has to know.
pub fn run(args: GatewayArgs) -> anyhow::Result<ExitCode> {
    let program = Program::this().context("can't find out the program's path")?;
    let (predecessor, sockets) = Predecessor::find()?.unzip();
    let result = start(args, program, predecessor.as_ref(), sockets.unwrap_or_default());
    if let (Err(error), Some(predecessor)) = (&result, &predecessor) {
        predecessor.refuse(error);
    }
    result
}

/// Makes all parts, and runs them.
fn start(
    args: GatewayArgs,
    program: Program,
    predecessor: Option<&Predecessor>,
    inherited: Vec<Named>,
) -> anyhow::Result<ExitCode> {
    let mut sockets = Sockets::inheriting(inherited);
    let exported = otlp::start("egress-gateway", "", &[Signal::Logs, Signal::Traces])?;
    let descriptors = raise_open_files().unwrap_or_else(|error| {
        tracing::warn!("the limit of open files can't be raised: {error}");
        open_files()
    });
    let ports =
        AdminPorts { admin: args.admin_port, health: args.health_port, metrics: args.metrics_port };
    let cores = cores();
    let count = args.workers.map_or(cores.len().max(1), usize::from);
    let telemetry = Arc::<Telemetry>::default();
    let exporter = exported.map(|(exports, exporter)| {
        telemetry.exports.get_or_init(|| exports);
        exporter
    });
    let status = Arc::<Status>::default();
    let own = [ports.admin, ports.health, ports.metrics];
    let ports_taken: Vec<u16> = own.into_iter().chain(args.tunnel_port.number()).collect();
    let excluded = &args.capture_exclude.0;
    let addresses = &args.capture_address;
    if args.allow_untested_kernel {
        bpf::allow_untested_kernel();
    }
    let Captured { listeners, lookup } =
        capture::capture(&args.capture, count, &ports_taken, excluded, addresses, &mut sockets)?;
    let tunnels = args.tunnel_port.listen(addresses, count, &mut sockets)?;
    let listeners = listeners
        .into_iter()
        .zip(tunnels)
        .map(|(captured, tunnels)| Listeners { captured, tunnels })
        .collect();
    let mut listened = listened(&args);
    let sources =
        AdminSources { health: args.health_from, metrics: args.metrics_from, ui: args.admin_ui };
    let admin = AdminListeners::open(ports, &mut sockets)?;
    listened.extend(listeners_of(admin.ports()));
    status.set_listeners(listened);
    let control = control::listen(&args.control, GATEWAY_SOCKET, &mut sockets)?;
    let policy = PolicyCell::default();
    let states = Arc::<ClusterStates>::default();
    let mut places = args.certificates.places()?;
    // Secrets come from the API server, of the gateway's own namespace as in Istio, unless they are mounted.
    let secrets = (args.config.is_kubernetes() && places.credentials.is_none())
        .then(|| Secrets::new(&args.namespace.0));
    places.credentials = places.credentials.or(secrets.clone().map(CredentialStore::Secrets));
    let credential_store = places.credentials.clone();
    let credentials = Arc::new(Credentials::new(places));
    status.set_credentials(Arc::clone(&credentials));
    let allowance = Allowance {
        memory: match args.limits.memory() {
            Some(memory) => memory,
            None => memory::memory_limit().context("can't find out the memory limit")?,
        },
        descriptors,
        open: memory::descriptors_used().context("can't count open files")?,
    };
    let bounds = args.limits.derive(allowance, count)?;
    bounds.publish(telemetry.stats.limits());
    tracing::info!("limits of what sources share: {bounds}");
    let watched = pressure::watch(Arc::clone(telemetry.stats.limits()))
        .context("can't watch the process's memory")?;
    let config = WorkersConfig {
        policy: Arc::clone(&policy),
        telemetry: Arc::clone(&telemetry),
        resolver: args.resolver.unwrap_or_default(),
        lookups: args.lookups.limits()?,
        roots: TrustRoots::system(),
        credential_store,
        credentials: Arc::clone(&credentials),
        states: Arc::clone(&states),
        rates: Arc::default(),
        limits: args.messages.within(bounds.of_worker()),
    };
    // More workers than cores would only get into each other's way on one of them.
    let cores = if count <= cores.len() { cores } else { Vec::new() };
    let (upgrade, requests) = mpsc::channel(REQUESTS);
    let drain = DrainLimits { signal: args.drain_timeout, upgrade: args.upgrade_drain_timeout };
    let open = sockets.into_open();
    let succession = Succession::new(program, open, requests, Arc::clone(&status), drain.upgrade);
    let view = View {
        process: Process::this(),
        directory: args.config.place(),
        capture: args.capture.to_string(),
        ports: own,
        tunnel: args.tunnel_port.number(),
        workers: count,
        telemetry: Arc::clone(&telemetry),
        status: Arc::clone(&status),
        before: succession.draining(),
        upgrade,
    };
    let front = BoundListeners {
        workers: config,
        listeners,
        cores,
        admin,
        sources,
        telemetry: Arc::clone(&telemetry),
        status: Arc::clone(&status),
    };
    let identity = GatewayIdentity {
        labels: args.labels,
        namespace: args.namespace,
        addresses: addresses::list().context("can't list this host's addresses")?,
    };
    let rollout = args.config.is_kubernetes().then(|| Rollout::new(Instant::now()));
    if let Some(rollout) = &rollout {
        rollout.set_own(&identity.addresses);
        status.set_rollout(rollout.clone());
    }
    let role = Role {
        in_force: InForce {
            identity: Arc::new(identity),
            rollout,
            policy,
            replaced: Retired::start().context("can't start a thread")?,
            telemetry: Arc::clone(&telemetry),
            status,
            states,
            credentials,
        },
        front,
        lookup,
        control,
        view,
        secrets,
        succession,
        drain,
        agents: args.agent_nodes,
        health: ports.health,
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(role.run(args.config, predecessor));
    drop(watched);
    telemetry.access_log.shutdown();
    if let Some(exporter) = exporter {
        exporter.stop();
    }
    result
}

/// What takes connections, for `/listeners`.
fn listened(args: &GatewayArgs) -> Vec<Listener> {
    let capture = Listener { name: "capture", address: args.capture.to_string() };
    let tunnel = args.tunnel_port.number();
    let tunnel = tunnel.map(|port| Listener { name: "tunnel", address: format!("[::]:{port}") });
    std::iter::once(capture).chain(tunnel).collect()
}

/// The same of the admin endpoints.
fn listeners_of(ports: AdminPorts) -> [Listener; 3] {
    let at = |name, ip: &str, port: u16| Listener { name, address: format!("{ip}:{port}") };
    [
        at("admin", "127.0.0.1", ports.admin),
        at("health", "[::]", ports.health),
        at("metrics", "[::]", ports.metrics),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_namespaces_are_read_and_wrong_ones_explained() {
        let read = labels("istio=egressgateway,app=x,empty=").unwrap();
        assert_eq!(read["istio"], "egressgateway");
        assert_eq!(read["empty"], "");
        for (text, what) in [
            ("", "KEY=VALUE"),
            ("istio", "found `istio`"),
            ("=x", "KEY=VALUE"),
            ("a=b,", "KEY=VALUE"),
            ("a=b,a=c", "label a is given twice"),
        ] {
            let error = labels(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
        assert!(namespace("istio-system").is_ok());
        for text in ["", "Istio", "-a", "a-", "a.b", &"a".repeat(64)] {
            assert!(namespace(text).is_err(), "{text}");
        }
    }
}
