//! The `node` command: enforce on this node.
//!
//! The order of a start is the point of it: programs are attached first, with maps that deny (or
//! hold what an earlier agent left), and policy is loaded after. There is no order in which
//! something could slip out.
//!
//! Only on a node where nothing was enforced, what runs already is left as it is until the maps hold the first
//! configuration: workloads must survive the agent's first start, and audit mode must not disturb them. A
//! configuration that is refused denies at once.

mod certs;
mod options;
mod targets;
mod view;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::timeout,
};

pub use self::options::NodeArgs;
use self::view::View;
use crate::{
    admin::{
        control::{self, NODE_SOCKET, Process},
        node_metrics::{self, AgentSources, MapFillCounter, Sources},
    },
    bpf::{self, Enforcer, FirstStart, Targets, TcMode},
    enforcement::{
        AuditReminder, Checker, Condition, EnforcedInterfaces, KnownPods, Naming, NodeCounters,
        NodeTunnel, Printer, ProbeIdentity, Probing, Reconciler, ReconcilerInputs, dns::Names,
        flows, notify, plan, takeover, tunnel, unnamed_policy,
    },
    net::{LookupLimits, Resolver},
    otlp,
    pods::Announced,
    source::{
        Origin, Reload,
        kubernetes::{More, Scope, StartupTaint},
    },
    sys::{listening::Sockets, process::raise_open_files},
    telemetry::{self, FlowLog},
    types::ConfigurationStamp,
};

/// How long the API server's first lists are waited for.
const FIRST_LISTS: Duration = Duration::from_secs(10);

/// Runs it until SIGTERM or SIGINT.
///
/// # Errors
/// What stands in the way of enforcing, and what to do about it.
pub fn run(args: NodeArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    let result = runtime.block_on(enforce(args));
    // Not waiting for file reads that hang.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

async fn enforce(args: NodeArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("can't handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't handle SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("can't handle SIGHUP")?;
    // Without the privileges nothing below could succeed, and would only hide the cause.
    if args.allow_untested_kernel {
        bpf::allow_untested_kernel();
    }
    bpf::check_host()?;
    options::check_listeners(&args.tunnel_listen)?;
    let targets = Targets {
        cgroups: targets::cgroups(args.cgroups, bpf::cgroup2_mount().as_deref())?,
        pod_interfaces: args.pod_interfaces.iter().map(|pod| pod.name.clone()).collect(),
        uplinks: targets::uplinks(args.uplinks)?,
        unnamed: unnamed_policy(args.config.is_kubernetes()),
        node_sockets: bpf::has_lookup_interface(),
    };
    // What can fail without the kernel comes first; then nothing was touched. A second agent must
    // hear that it is the second one, not that its port is taken.
    let enforced = bpf::Pins::own_existing(&args.bpffs)?.is_some_and(|pins| pins.in_use());
    let listener = match args.metrics_addr.0 {
        Some(addr) => {
            let listener = node_metrics::listen(addr).await;
            Some(listener.with_context(|| {
                format!("can't serve metrics on {addr}; choose another --metrics-addr, or off")
            })?)
        }
        None => None,
    };
    let node = args.node_name.unwrap_or_default();
    let exported = otlp::start("egress-node", &node, &[telemetry::Signal::Logs])?;
    let (exports, exporter) = exported.unzip();
    let (ready, is_ready) = watch::channel(false);
    let taint =
        args.startup_taint.map(|key| StartupTaint { node: node.clone(), key, ready: is_ready });
    let more = More { taint, ..More::default() };
    let (origin, reported) = args.config.open(Scope::Node(node.clone()), more).await?;
    let places = args.certificates.places()?;
    let control = control::listen(&args.control, NODE_SOCKET, &mut Sockets::default())?;
    let tunnels = tunnel::listen(&args.tunnel_listen)?;
    // Every attachment is held open, besides its pin.
    if let Err(error) = raise_open_files() {
        tracing::warn!("can't raise the limit of open files: {error}");
    }
    let resolver = Resolver::new(args.resolver.unwrap_or_default(), LookupLimits::default())?;
    let printer = Printer::start(args.events).context("can't start the events' thread")?;

    if !enforced {
        first_lists(&origin).await;
    }
    // What runs here before the first agent does must not notice its start.
    let enforcer =
        Enforcer::start(&args.bpffs, &targets, TcMode::detect(), FirstStart::WhenFilled)?;
    let records = enforcer.records.clone();
    let Enforcer {
        attachments,
        maps,
        counters,
        shares,
        events,
        cgroups,
        families,
        adopted,
        pins,
        records: _,
    } = enforcer;
    let held = maps.current().globals.as_ref().and_then(ConfigurationStamp::of);
    takeover::announce(adopted, attachments.waiting(), held);

    let directory = args.config.place();
    let (reload, loaded) = Reload::new(origin);
    // Without an API server nobody knows whose the UIDs in cgroups' paths are.
    let roots: Vec<PathBuf> = match reported {
        Some(_) => plan::cgroups(&cgroups, &attachments).into_values().collect(),
        None => Vec::new(),
    };
    let interfaces = plan::interfaces(&args.pod_interfaces, &attachments);
    let announced = Announced::default();
    let (known, loaded) = KnownPods::start(loaded, reported, roots, &interfaces, announced.clone());
    let (in_maps, known_interfaces) = watch::channel(BTreeSet::new());
    let standing = EnforcedInterfaces::new(announced, known.sightings.clone(), known_interfaces);
    let reload = reload.inheriting(takeover::inherited(attachments.waiting(), held));
    let again = reload.again();
    let probing = Probing {
        port: args.health_port,
        interval: args.health_interval,
        timeout: args.health_timeout,
    };
    let (in_force, revisions) = watch::channel(None);
    let words = ProbeIdentity::new(&node, revisions).filter(|_| args.config.is_kubernetes());
    let checker = Checker::spawn(probing, plan::inherited(maps.current()), words);
    let (shout, modes) = AuditReminder::new();
    let tally = Arc::new(NodeCounters { dropped: printer.dropped(), ..NodeCounters::default() });
    let condition = Arc::<Condition>::default();
    condition.set_gaps(families.gaps());
    condition.set_waiting(attachments.waiting() == Some(bpf::PendingReason::FirstStart));
    for exposure in condition.exposures() {
        tracing::warn!("exposed: {exposure}");
    }
    let counters = Arc::new(counters);
    let credentials = certs::follow(places, loaded.clone());
    let flows = Arc::<FlowLog>::default();
    if let Some(exports) = &exports {
        flows.export_to(Arc::clone(exports));
    }
    let listeners = (args.tunnel_listen, tunnels);
    let tunnel =
        NodeTunnel::new(listeners, records.clone(), Arc::clone(&credentials), Arc::clone(&flows));
    let drain = tunnel.drain();
    let view = View {
        process: Process::this(),
        bpffs: args.bpffs.display().to_string(),
        directory,
        events_per_second: args.events_per_second,
        loaded: loaded.clone(),
        healthy: checker.healthy.clone(),
        modes: modes.clone(),
        counters: Arc::clone(&counters),
        tally: Arc::clone(&tally),
        condition: Arc::clone(&condition),
        credentials: Arc::clone(&credentials),
        tunnel: (tunnel.addresses.clone(), Arc::clone(&tunnel.stats)),
        standing,
        exports: exports.clone(),
    };
    let control = control.map(|control| control.serve(view.serving(Arc::clone(&flows))));
    let _control = control.transpose().context("can't serve the control socket")?;
    if let Some(listener) = listener {
        let sources = Sources {
            counters,
            shares,
            agent: AgentSources {
                pods: args.pod_interfaces.clone(),
                tally: Arc::clone(&tally),
                condition: Arc::clone(&condition),
                loaded: loaded.clone(),
                healthy: checker.healthy.clone(),
                modes,
                credentials,
                tunnel: Arc::clone(&tunnel.stats),
                fills: MapFillCounter::new(args.bpffs.clone()),
                unknown: known.unknown.clone(),
                exports,
            },
        };
        tokio::spawn(node_metrics::serve(listener, Arc::new(sources)));
    }
    tokio::spawn(reload.start().context("can't start the compiler's thread")?);
    let names = Names::spawn(Arc::new(resolver));
    let naming = Naming {
        loaded: loaded.clone(),
        resolved: names.resolved.clone(),
        pods: args.pod_interfaces.clone(),
    };
    let printing = flows::run(events, printer, naming, flows, Arc::clone(&tally));
    let parts = ReconcilerInputs {
        attachments,
        families,
        records,
        maps,
        pins,
        strangers: cgroups,
        shout,
        pods: args.pod_interfaces,
        known,
        tunnel,
        events_per_second: args.events_per_second,
        loaded,
        checker,
        names,
        tally,
        condition,
        ready,
        in_force,
        in_maps,
    };
    let mut reconciler = Reconciler::new(parts);
    let ended = async {
        ends(&mut terminate, &mut interrupt).await;
        if drain.running() > 0 {
            let limit = args.drain_timeout;
            tracing::info!(
                "draining {} connections in tunnels for at most {} s; a second signal ends it at once",
                drain.running(),
                limit.as_secs()
            );
            tokio::select! {
                () = drain.finish(limit) => {}
                () = ends(&mut terminate, &mut interrupt) => {}
            }
        }
    };
    // The node is kept as configured until then.
    tokio::select! {
        () = reconciler.run() => {}
        () = printing => {}
        () = ended => {}
        () = async { while hangup.recv().await.is_some() { again.notify_one(); } } => {}
    }
    if drain.running() > 0 {
        tracing::warn!("{} connections in tunnels are reset", drain.running());
    }
    notify::stopping();
    if let Some(exporter) = exporter {
        exporter.stop();
    }
    tracing::info!(
        "stopping; enforcement stays in force, as it is now, until `egress-agent detach`"
    );
    Ok(())
}

async fn ends(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Waits until the API server's first lists are complete: nothing is enforced on this node yet, and
/// enforcement without a configuration denies everything, in-cluster traffic too. After
/// [`FIRST_LISTS`] it is enforced all the same.
async fn first_lists(origin: &Origin) {
    if timeout(FIRST_LISTS, origin.ready()).await.is_err() {
        tracing::warn!(
            "the API server has not answered within {} s; enforcing without a configuration, which \
             denies everything",
            FIRST_LISTS.as_secs()
        );
    }
}
