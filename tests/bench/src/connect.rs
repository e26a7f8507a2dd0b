//! What `connect()` costs with the hooks, and without.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use egress_agent::{
    bpf::{Enforcer, FirstStart, Targets, TcMode},
    sys::process::{cores, pin_to_core},
};
use egress_tests::{cgroup, netns::NetNs, site::Site};
use socket2::{Domain, Socket, Type};
use tokio::runtime::Handle;

use crate::{
    policy::{self, GATEWAY, INSIDE, OUTSIDE, ROUTED_PORT},
    table::{Row, median},
};

const ROUTES: u32 = 10_000;
const ROUNDS: usize = 11;
/// Connections in a round; less than the listeners' backlog.
const CONNECTS: usize = 1_000;
const INSIDE_PORT: u16 = 8080;
const AIM: &str = "≤ +2 µs";

/// A connect that is made in both cgroups.
struct Case {
    what: &'static str,
    kind: Type,
    /// Where it goes without hooks.
    plain: SocketAddrV4,
    /// What is dialled with hooks, which ends at the same place.
    enforced: SocketAddrV4,
}

/// Times on loopback of a namespace: this process connects from a cgroup without hooks and from one
/// with them, in turn. All of it stays on one core: whether another one has to be woken up for the
/// accepting thread makes a difference of several microseconds, now in this way and now in that.
pub(crate) fn run(site: &Site) -> Result<Vec<Row>> {
    let core = cores().pop().context("this process has no core")?;
    let runtime = Handle::current();
    let pinned = || {
        let _inside = runtime.enter();
        pin_to_core(core)?;
        on_one_core(site)
    };
    thread::scope(|scope| scope.spawn(pinned).join()).map_err(|_| anyhow!("it panicked"))?
}

fn on_one_core(site: &Site) -> Result<Vec<Row>> {
    let ns = site.netns("connect")?;
    for address in [GATEWAY, INSIDE] {
        ns.ip(&["addr", "add", &format!("{address}/32"), "dev", "lo"])?;
    }
    // Nobody in a pod has the gateway's address for a source.
    let (gateway, inside) = (GATEWAY.to_string(), INSIDE.to_string());
    let from = ["dev", "lo", "src", &inside, "table", "local"];
    ns.ip(&[&["route", "replace", "local", &gateway][..], &from].concat())?;
    let cgroups = [site.cgroup("plain")?, site.cgroup("enforced")?];
    let dir = site.bpffs().join("connect");
    let targets = Targets { cgroups: vec![cgroups[1].clone()], ..Targets::default() };
    let mut enforcer = Enforcer::start(&dir, &targets, TcMode::detect(), FirstStart::AtOnce)?;
    let contents = policy::contents(&policy::snapshot(ROUTES)?, &policy::facts(1))?;
    if let Err(errors) = enforcer.maps.reconcile(&contents) {
        bail!("the maps can't be filled: {errors:?}");
    }
    serve(&ns, SocketAddrV4::new(GATEWAY, ROUTED_PORT))?;
    serve(&ns, SocketAddrV4::new(INSIDE, INSIDE_PORT))?;
    let at = |ip: Ipv4Addr, port| SocketAddrV4::new(ip, port);
    let cases = [
        Case {
            what: "TCP, sent to a gateway",
            kind: Type::STREAM,
            plain: at(GATEWAY, ROUTED_PORT),
            enforced: at(OUTSIDE, ROUTED_PORT),
        },
        Case {
            what: "TCP, in the cluster",
            kind: Type::STREAM,
            plain: at(INSIDE, INSIDE_PORT),
            enforced: at(INSIDE, INSIDE_PORT),
        },
        Case {
            what: "UDP, in the cluster",
            kind: Type::DGRAM,
            plain: at(INSIDE, INSIDE_PORT),
            enforced: at(INSIDE, INSIDE_PORT),
        },
    ];
    let home = Home::find()?;
    let rows = ns.enter(|| cases.iter().map(|case| measure(case, &cgroups)).collect());
    drop(home);
    egress_agent::bpf::detach(&{
        drop(enforcer);
        dir
    })?;
    rows?
}

fn measure(case: &Case, cgroups: &[PathBuf; 2]) -> Result<Row> {
    let mut plain = Vec::new();
    let mut enforced = Vec::new();
    let mut added = Vec::new();
    for _ in 0..ROUNDS {
        move_to(&cgroups[0])?;
        let without = connects(case.kind, case.plain)?;
        move_to(&cgroups[1])?;
        let with = connects(case.kind, case.enforced)?;
        plain.push(without);
        enforced.push(with);
        added.push(with.as_secs_f64() - without.as_secs_f64());
    }
    let micros = |times: &[Duration]| median(times).unwrap_or_default().as_secs_f64() * 1e6;
    let measured = format!(
        "{:+.2} µs ({:.2} without, {:.2} with)",
        median(&added).unwrap_or_default() * 1e6,
        micros(&plain),
        micros(&enforced)
    );
    Ok(Row::new(format!("connect(): {}", case.what), measured, AIM))
}

/// The median of many connects to one place.
fn connects(kind: Type, to: SocketAddrV4) -> Result<Duration> {
    let to = SocketAddr::V4(to).into();
    let mut times = Vec::with_capacity(CONNECTS);
    for _ in 0..CONNECTS {
        let socket = Socket::new(Domain::IPV4, kind, None)?;
        if kind == Type::STREAM {
            // Its end is a reset, which leaves no state behind.
            socket.set_linger(Some(Duration::ZERO))?;
        }
        let start = Instant::now();
        socket.connect(&to)?;
        times.push(start.elapsed());
    }
    median(&times).context("nothing was measured")
}

/// Accepts and closes, for as long as this process lives.
fn serve(ns: &NetNs, at: SocketAddrV4) -> Result<()> {
    let listener = ns.enter(|| -> Result<TcpListener> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::V4(at).into())?;
        socket.listen(4096)?;
        Ok(socket.into())
    })??;
    ns.spawn(move || {
        for connection in listener.incoming() {
            drop(connection);
        }
    })?;
    Ok(())
}

/// Moves this process.
pub(crate) fn move_to(cgroup: &Path) -> Result<()> {
    let procs = cgroup.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| procs.display().to_string())
}

/// This process's own cgroup, to which it goes back when this is dropped: what is left in a site's
/// cgroup is killed.
pub(crate) struct Home(PathBuf);

impl Home {
    pub(crate) fn find() -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
        Ok(Self(cgroup::mount_point()?.join(path.context("this process is in no cgroup2")?)))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = move_to(&self.0) {
            eprintln!("can't go back to {}: {error:#}", self.0.display());
        }
    }
}
