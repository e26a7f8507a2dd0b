//! The `node` command: enforce on this node.
//!
//! The order of a start is the point of it: programs are attached first, with maps that deny (or
//! hold what an earlier agent left), and policy is loaded after. There is no order in which
//! something could slip out.

mod behind;
mod certs;
mod changes;
mod condition;
mod exposure;
mod flows;
mod health;
mod inside;
mod losses;
mod metrics;
mod modes;
mod names;
mod notify;
mod options;
mod plan;
mod questions;
mod reconcile;
mod sockets;
mod takeover;
mod tunnel;
mod view;
mod who;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Context;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

pub use self::options::NodeArgs;
pub(super) use self::who::Namer;
use self::{
    changes::{Reporter, heard, listen},
    condition::Condition,
    exposure::scan::Looks,
    flows::{Naming, Printer},
    health::{Checker, Probing},
    metrics::{Sources, Tally},
    modes::Shout,
    names::Names,
    notify::Manager,
    options::Pod,
    plan::Planned,
    sockets::Closer,
    takeover::TakeOver,
    tunnel::NodeTunnel,
    view::View,
};
use super::{
    cli,
    control::{self, NODE_SOCKET, Process},
    reload::{Loaded, Reload},
};
use crate::{
    bpf::{self, Enforcer, Held, PlanProblem, Targets, TcMode},
    net::Resolver,
    sys::{netlink::links::Watch, process::raise_open_files},
    telemetry::FlowLog,
};

/// Where pins are by default.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/egress-agent";
/// Between two looks at the interfaces, and two attempts to bring the maps up to date.
const LOOK: Duration = Duration::from_secs(1);

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
    match result {
        Err(error) if error.downcast_ref().is_some_and(is_owned) => {
            tracing::error!("{error:#}");
            Ok(ExitCode::from(cli::OWNED))
        }
        result => result.map(|()| ExitCode::SUCCESS),
    }
}

pub(super) fn is_owned(error: &bpf::Error) -> bool {
    matches!(error, bpf::Error::Owned { .. })
}

async fn enforce(args: NodeArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("can't handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't handle SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("can't handle SIGHUP")?;
    // Without the privileges nothing below could succeed, and would only hide the cause.
    bpf::check_host()?;
    options::check_listeners(&args.tunnel_listen)?;
    // What can fail without the kernel comes first; then nothing was touched. A second agent must
    // hear that it is the second one, not that its port is taken.
    drop(bpf::Pins::own_existing(&args.bpffs)?);
    let listener = match args.metrics_addr.0 {
        Some(addr) => {
            let listener = metrics::listen(addr).await;
            Some(listener.with_context(|| {
                format!("can't serve metrics on {addr}; choose another --metrics-addr, or off")
            })?)
        }
        None => None,
    };
    let places = args.certificates.places()?;
    let control = control::listen(args.control.as_ref(), NODE_SOCKET)?;
    let tunnels = tunnel::listen(&args.tunnel_listen)?;
    // Every attachment is held open, besides its pin.
    if let Err(error) = raise_open_files() {
        tracing::warn!("can't raise the limit of open files: {error}");
    }
    let resolver = Resolver::new(args.resolver.unwrap_or_default())?;
    let printer = Printer::start(args.events).context("can't start the events' thread")?;

    let targets = Targets {
        cgroups: args.cgroups,
        pod_interfaces: args.pod_interfaces.iter().map(|pod| pod.name.clone()).collect(),
        uplinks: args.uplinks,
    };
    let enforcer = Enforcer::start(&args.bpffs, &targets, TcMode::detect())?;
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
    let held = maps.current().globals.as_ref().and_then(Held::of);
    takeover::announce(adopted, attachments.is_waiting(), held);

    let directory = args.config.config.display().to_string();
    let (reload, loaded) = Reload::new(args.config);
    let reload = reload.inheriting(takeover::inherited(attachments.is_waiting(), held));
    let again = reload.again();
    let probing = Probing {
        port: args.health_port,
        interval: args.health_interval,
        timeout: args.health_timeout,
    };
    let checker = Checker::spawn(probing, plan::inherited(maps.current()));
    let (shout, modes) = Shout::new();
    let tally = Arc::new(Tally { dropped: printer.dropped(), ..Tally::default() });
    let condition = Arc::<Condition>::default();
    condition.set_gaps(families.gaps());
    for exposure in condition.exposures() {
        tracing::warn!("exposed: {exposure}");
    }
    let counters = Arc::new(counters);
    let credentials = certs::follow(places, loaded.clone());
    let flows = Arc::<FlowLog>::default();
    let listeners = (args.tunnel_listen, tunnels);
    let tunnel =
        NodeTunnel::new(listeners, records.clone(), Arc::clone(&credentials), Arc::clone(&flows));
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
    };
    let control = control.map(|control| control.serve(view.serving(Arc::clone(&flows))));
    let _control = control.transpose().context("can't serve the control socket")?;
    if let Some(listener) = listener {
        let sources = Sources {
            counters,
            shares,
            pods: args.pod_interfaces.clone(),
            tally: Arc::clone(&tally),
            condition: Arc::clone(&condition),
            loaded: loaded.clone(),
            healthy: checker.healthy.clone(),
            modes,
            credentials,
            tunnel: Arc::clone(&tunnel.stats),
        };
        tokio::spawn(metrics::serve(listener, Arc::new(sources)));
    }
    tokio::spawn(reload.run());
    let names = Names::spawn(Arc::new(resolver));
    let naming = Naming {
        loaded: loaded.clone(),
        resolved: names.resolved.clone(),
        pods: args.pod_interfaces.clone(),
    };
    let printing = flows::run(events, printer, naming, flows, Arc::clone(&tally));
    let mut node = Node {
        attachments,
        families,
        watch: listen(),
        records,
        maps,
        pins,
        strangers: cgroups,
        planned: Planned::default(),
        shout,
        pods: args.pod_interfaces,
        tunnel,
        events_per_second: args.events_per_second,
        loaded,
        checker,
        names,
        tally,
        condition,
        problems: Vec::new(),
        reporter: Reporter::default(),
        take_over: TakeOver::default(),
        closer: Closer::default(),
        looks: Looks::default(),
        ready: false,
        manager: Manager::new(Instant::now()),
    };
    tokio::select! {
        () = node.run() => {}
        () = printing => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = async { while hangup.recv().await.is_some() { again.notify_one(); } } => {}
    }
    notify::stopping();
    tracing::info!(
        "stopping; enforcement stays in force, as it is now, until `egress-agent detach`"
    );
    Ok(())
}

/// What keeps the kernel equal to the configuration.
struct Node {
    attachments: bpf::Attachments,
    families: bpf::Families,
    /// `None` where the kernel doesn't tell of interfaces.
    watch: Option<Watch>,
    maps: bpf::Maps,
    pins: bpf::Pins,
    records: bpf::Records,
    /// The cgroups that an earlier agent attached to, and that this one's options don't name.
    strangers: BTreeMap<u64, PathBuf>,
    planned: Planned,
    shout: Shout,
    pods: Vec<Pod>,
    tunnel: NodeTunnel,
    events_per_second: u32,
    loaded: watch::Receiver<Loaded>,
    checker: Checker,
    names: Names,
    tally: Arc<Tally>,
    condition: Arc<Condition>,
    /// Those that were logged already.
    problems: Vec<PlanProblem>,
    reporter: Reporter,
    take_over: TakeOver,
    closer: Closer,
    looks: Looks,
    ready: bool,
    manager: Manager,
}

impl Node {
    async fn run(&mut self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.reconcile();
            self.tell_manager();
            tokio::select! {
                changed = self.loaded.changed() => if changed.is_err() { return },
                changed = self.checker.healthy.changed() => if changed.is_err() { return },
                changed = self.names.resolved.changed() => if changed.is_err() { return },
                () = heard(&mut self.watch) => self.follow(),
                _ = looks.tick() => self.look().await,
            }
        }
    }

    /// Says to systemd how the node fares.
    fn tell_manager(&mut self) {
        let loaded = self.loaded.borrow().clone();
        let behind = self.tally.behind.load(Ordering::Relaxed) != 0;
        let refused = loaded.last.as_ref().is_some_and(|last| !last.accepted);
        let held = self.maps.current().globals.as_ref().and_then(Held::of);
        let held = takeover::inherited(self.attachments.is_waiting(), held);
        let status = notify::sentence(&loaded, held.as_deref(), &self.condition.unready(&loaded));
        self.manager.tell(self.ready || behind || refused, status);
    }

    /// Looks at what came and went.
    fn follow(&mut self) {
        let changes = self.attachments.follow(&self.pins);
        self.report_changes(changes);
    }

    /// Looks at everything that is attached, and for sockets that aren't allowed any more.
    async fn look(&mut self) {
        let mut changes = self.attachments.refresh(&self.pins);
        changes.extend(self.families.repair(&self.pins));
        self.condition.set_gaps(self.families.gaps());
        let cgroups = plan::cgroups(&self.strangers, &self.attachments);
        let snapshot = self.loaded.borrow().snapshot.clone();
        self.looks.begin(&cgroups, snapshot.as_ref(), &self.condition);
        self.report_changes(changes);
        if self.ready {
            let (cgroups, count) = (self.attachments.cgroups(), &self.tally.sockets_destroyed);
            self.closer.look(self.maps.current(), cgroups, count).await;
        }
    }

    fn report_changes(&mut self, changes: Vec<Result<bpf::Change, bpf::Error>>) {
        self.reporter.report(changes, &self.tally);
        self.condition.set_attachments(&self.attachments.missing(), self.reporter.failures());
    }
}
