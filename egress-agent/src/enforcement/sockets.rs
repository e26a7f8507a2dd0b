//! Closing sockets that were open before enforcement began, or before it got stricter, and whose
//! packets are dropped now: their owners learn it at once, instead of waiting for a timeout.
//!
//! The wall holds without this. A socket that isn't understood is left to it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use egress_ebpf::{abi::PolicyId, decide::PolicyView, reason::Reason};
use tokio::task::JoinHandle;

use crate::{
    bpf::{Contents, PolicyEvaluator},
    sys::{
        netlink::sockets::{self, Protocol, Socket},
        netns,
    },
};

/// Closed sockets that are logged one by one.
const LOGGED: usize = 20;

/// Looks for sockets to close when something has changed, one look at a time.
#[derive(Debug, Default)]
pub(crate) struct Closer {
    due: bool,
    running: Option<JoinHandle<SocketScan>>,
    told: LogOnce,
}

/// What was said once and isn't said again.
#[derive(Debug, Default)]
struct LogOnce(HashSet<String>);

/// What a look brought.
#[derive(Debug, Default)]
struct SocketScan {
    closed: Vec<Closed>,
    complaints: Vec<String>,
}

#[derive(Debug)]
struct Closed {
    protocol: Protocol,
    local: SocketAddr,
    remote: SocketAddr,
    reason: Reason,
}

impl Closer {
    /// The policy has changed, or not: what was allowed may not be any more.
    pub(crate) fn request(&mut self, changed: bool) {
        self.due |= changed;
    }

    /// Begins a look if one is due, and tells what the last one found. `contents` are what the maps
    /// hold; `cgroups` are enforced on, with those below them.
    pub(crate) async fn look(
        &mut self,
        contents: &Contents,
        cgroups: &BTreeMap<u64, PathBuf>,
        count: &AtomicU64,
    ) {
        if self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        if let Some(finished) = self.running.take() {
            match finished.await {
                Ok(found) => self.report(found, count),
                Err(error) => tracing::error!("looking for sockets to close: {error}"),
            }
        }
        if std::mem::take(&mut self.due) {
            let (contents, cgroups) = (contents.clone(), Arc::new(cgroups.clone()));
            self.running = Some(tokio::task::spawn_blocking(move || close(&contents, &cgroups)));
        }
    }

    fn report(&mut self, found: SocketScan, count: &AtomicU64) {
        let closed = u64::try_from(found.closed.len()).unwrap_or(u64::MAX);
        count.fetch_add(closed, Ordering::Relaxed);
        for Closed { protocol, local, remote, reason } in found.closed.iter().take(LOGGED) {
            let (protocol, reason) = (protocol.name(), reason.name());
            tracing::info!(
                "closed {protocol} {local} -> {remote}, which is not allowed ({reason})"
            );
        }
        if let Some(more) = found.closed.len().checked_sub(LOGGED).filter(|more| *more > 0) {
            tracing::info!("closed {more} more sockets that aren't allowed");
        }
        for complaint in found.complaints {
            if self.told.0.insert(complaint.clone()) {
                tracing::warn!("{complaint}");
            }
        }
    }
}

/// Who is enforced on.
#[derive(Debug, Default)]
struct Members {
    /// Cgroups and their policies.
    cgroups: HashMap<u64, PolicyId>,
    /// The network namespaces of their processes.
    namespaces: Vec<File>,
    /// Some couldn't be opened: that takes `CAP_SYS_PTRACE` for processes of other users.
    hidden: bool,
}

impl Members {
    fn of(contents: &Contents, cgroups: &BTreeMap<u64, PathBuf>) -> Self {
        let mut members = Self::default();
        let mut seen = HashSet::new();
        for path in cgroups.values() {
            members.add(
                path,
                contents,
                PolicyEvaluator::from(contents).globals().default_policy,
                &mut seen,
            );
        }
        members
    }

    /// A cgroup with those below it, which have its policy unless they have their own.
    fn add(
        &mut self,
        path: &Path,
        contents: &Contents,
        above: PolicyId,
        seen: &mut HashSet<(u64, u64)>,
    ) {
        let Ok(id) = fs::metadata(path).map(|metadata| metadata.ino()) else { return };
        let policy = contents.workloads.get(&id).copied().unwrap_or(above);
        self.cgroups.insert(id, policy);
        let processes = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines() {
            let ns = match File::open(format!("/proc/{pid}/ns/net")) {
                Ok(ns) => ns,
                Err(error) => {
                    // One that ended in the meantime has no namespace any more.
                    self.hidden |= error.kind() == io::ErrorKind::PermissionDenied;
                    continue;
                }
            };
            let identity = ns.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
            if identity.is_ok_and(|identity| seen.insert(identity)) {
                self.namespaces.push(ns);
            }
        }
        let below = fs::read_dir(path).into_iter().flatten().flatten();
        for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            self.add(&entry.path(), contents, policy, seen);
        }
    }
}

fn close(contents: &Contents, cgroups: &BTreeMap<u64, PathBuf>) -> SocketScan {
    let members = Members::of(contents, cgroups);
    let judge = PolicyEvaluator::from(contents);
    let mut found = SocketScan::default();
    if members.hidden {
        found.complaints.push(not_entered("CAP_SYS_PTRACE"));
    }
    for ns in &members.namespaces {
        match netns::inside(ns, || visit(&members, &judge)) {
            Ok(here) => {
                found.closed.extend(here.closed);
                found.complaints.extend(here.complaints);
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                found.complaints.push(not_entered("CAP_SYS_ADMIN"));
            }
            Err(error) => {
                found.complaints.push(format!("can't enter a network namespace: {error}"))
            }
        }
    }
    found
}

fn not_entered(privilege: &str) -> String {
    format!(
        "can't enter all workloads' network namespaces without {privilege}: sockets there that were \
         open before enforcement are blocked, but not closed"
    )
}

/// Closes what isn't allowed in the network namespace of the calling thread.
fn visit(members: &Members, judge: &PolicyEvaluator<'_>) -> SocketScan {
    let mut found = SocketScan::default();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let sockets = match sockets::list(protocol) {
            Ok(sockets) => sockets,
            Err(error) => {
                found.complaints.push(format!("can't list {protocol:?} sockets: {error}"));
                continue;
            }
        };
        for (socket, remote, reason) in denied(members, judge, &sockets) {
            match sockets::destroy(socket) {
                Ok(()) => {
                    found.closed.push(Closed { protocol, local: socket.local, remote, reason });
                }
                Err(error) => found.complaints.extend(complaint(&error)),
            }
        }
    }
    found
}

/// What to say of a socket that couldn't be closed; nothing if it was closed in the meantime.
#[expect(clippy::wildcard_enum_match_arm, reason = "the standard library's enum, which may grow")]
fn complaint(error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::NotFound => None,
        io::ErrorKind::Unsupported => Some(
            "this kernel can't close sockets (CONFIG_INET_DIAG_DESTROY is not set): those that were \
             open before enforcement are blocked, but not closed"
                .into(),
        ),
        _ => Some(format!("can't close a socket that isn't allowed, only block it: {error}")),
    }
}

/// The workloads' sockets that aren't allowed. One with the port of a listener was accepted: whether
/// it may answer, the table of inbound flows knows. It is left to the wall.
fn denied<'a>(
    members: &Members,
    judge: &PolicyEvaluator<'_>,
    sockets: &'a [Socket],
) -> Vec<(&'a Socket, SocketAddr, Reason)> {
    let listening: HashSet<u16> = sockets
        .iter()
        .filter(|socket| socket.remote.is_none())
        .map(|socket| socket.local.port())
        .collect();
    let judged = sockets.iter().filter_map(|socket| {
        let policy = *members.cgroups.get(&socket.cgroup?)?;
        let remote = socket.remote?;
        if listening.contains(&socket.local.port()) {
            return None;
        }
        let reason = judge.refuses(policy, socket.protocol.number(), socket.local, remote)?;
        Some((socket, remote, reason))
    });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn own_cgroup() -> u64 {
        let path = fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = path.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        fs::metadata(crate::bpf::cgroup2_mount().unwrap().join(path)).unwrap().ino()
    }

    #[test]
    fn only_workloads_sockets_are_judged_and_accepted_ones_are_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (mut dialled, (_accepted, _)) =
            (TcpStream::connect(at).unwrap(), listener.accept().unwrap());
        let dialled_from = dialled.local_addr().unwrap();
        let sockets: Vec<Socket> = sockets::list(Protocol::Tcp)
            .unwrap()
            .into_iter()
            .filter(|socket| socket.local == dialled_from || socket.local == at)
            .map(|mut socket| {
                // Loopback is always allowed, so they pretend to be elsewhere.
                let elsewhere = |at: SocketAddr| SocketAddr::new([192, 0, 2, 1].into(), at.port());
                socket.remote = socket.remote.map(elsewhere);
                socket
            })
            .collect();
        assert_eq!(sockets.len(), 3, "a listener and two ends");
        let contents = Contents::default();
        let judge = PolicyEvaluator::from(&contents);
        let of = |id| Members { cgroups: [(id, 0)].into(), ..Members::default() };
        let strangers = of(u64::MAX);
        assert!(denied(&strangers, &judge, &sockets).is_empty());
        let ours = denied(&of(own_cgroup()), &judge, &sockets);
        let [(socket, _, reason)] = &ours[..] else { panic!("{ours:?}") };
        assert_eq!((socket.local, *reason), (dialled_from, Reason::NoPolicy));
        sockets::destroy(socket).unwrap();
        assert_eq!(dialled.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[test]
    fn a_cgroup_brings_those_below_it_and_their_namespaces() {
        let mount = crate::bpf::cgroup2_mount().unwrap();
        let own = own_cgroup();
        let members = Members::of(&Contents::default(), &[(1, mount)].into());
        assert!(members.cgroups.contains_key(&own));
        assert!(!members.namespaces.is_empty());
    }

    #[test]
    fn what_cannot_be_closed_is_explained() {
        let error = |errno: rustix::io::Errno| io::Error::from(errno);
        assert_eq!(complaint(&error(rustix::io::Errno::NOENT)), None);
        let text = complaint(&error(rustix::io::Errno::OPNOTSUPP)).unwrap();
        assert!(text.contains("CONFIG_INET_DIAG_DESTROY"), "{text}");
        assert!(complaint(&error(rustix::io::Errno::PERM)).is_some());
    }
}
