//! The tunnel's part in the node agent: its threads, and what they go by.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use anyhow::Context;

use super::process::{CgroupPaths, Programs, container_of};
use crate::{
    bpf,
    policy::Snapshot,
    sys::socket,
    telemetry::FlowLog,
    tls::Credentials,
    tunnel::{
        CallingProcess, Drain, Limits, Origin, Origins, Settings, Stats, Tunnel, TunnelConfig,
    },
    types::{ClientAddr, Workload},
};

/// Threads that relay. Each has connections of its own to the gateways; one keeps a workload's
/// connections on a single one.
const THREADS: usize = 1;

/// Workloads by the ids of their cgroups.
type Cgroups = HashMap<u64, Arc<Workload>>;
/// A set of listeners for each thread.
pub(crate) type Listeners = Vec<Vec<TcpListener>>;

/// Listens. What the kernel led here meanwhile waits.
///
/// # Errors
/// An address can't be listened on.
pub(crate) fn listen(addresses: &[SocketAddr]) -> anyhow::Result<Listeners> {
    let mut sets: Listeners = (0..THREADS).map(|_| Vec::new()).collect();
    for addr in addresses {
        let listeners = socket::listeners(*addr, THREADS).with_context(|| {
            format!(
                "can't listen on {addr}; choose another --tunnel-listen, at an address of this node \
                 and a port that nobody uses"
            )
        })?;
        for (set, listener) in sets.iter_mut().zip(listeners) {
            set.push(listener);
        }
    }
    Ok(sets)
}

/// The tunnel of this node.
pub(crate) struct NodeTunnel {
    /// `--tunnel-listen`.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What it counts.
    pub(crate) stats: Arc<Stats>,
    config: TunnelConfig,
    /// What the settings are of: the snapshot, the healthy gateways, and the cgroups of workloads.
    of: Option<(Arc<Snapshot>, HashSet<IpAddr>, Cgroups)>,
    /// Until the first configuration: connections wait for it rather than being refused.
    waiting: Listeners,
    /// Ends when it is dropped.
    threads: Option<Tunnel>,
}

impl NodeTunnel {
    /// Connections are served from the first configuration on.
    pub(crate) fn new(
        (addresses, waiting): (Vec<SocketAddr>, Listeners),
        records: bpf::Records,
        credentials: Arc<Credentials>,
        flows: Arc<FlowLog>,
    ) -> Self {
        let stats = Arc::<Stats>::default();
        let config = TunnelConfig {
            settings: Arc::default(),
            origins: Arc::new(Recorded { records, names: Mutex::default() }),
            credentials,
            stats: Arc::clone(&stats),
            flows,
            limits: Limits::default(),
            drain: Drain::default(),
        };
        Self { addresses, stats, config, of: None, waiting, threads: None }
    }

    /// Its end.
    pub(crate) fn drain(&self) -> Drain {
        self.config.drain.clone()
    }

    /// What is to be done from here on. Called before the kernel's maps say the same, so that a
    /// connection which the kernel leads here finds its group.
    pub(crate) fn publish(&mut self, snapshot: &Arc<Snapshot>, healthy: &HashSet<IpAddr>) {
        let find = bpf::find_cgroup();
        let cgroups: Cgroups = snapshot
            .mesh
            .workloads
            .iter()
            .flat_map(|workload| workload.cgroups.iter().map(move |path| (path, workload)))
            .filter_map(|(path, workload)| Some((find(path)?, Arc::clone(workload))))
            .collect();
        let same = self.of.as_ref().is_some_and(|(of, with, known)| {
            Arc::ptr_eq(of, snapshot) && with == healthy && *known == cgroups
        });
        if !same {
            let settings = Settings::new(snapshot, healthy, cgroups.clone());
            self.config.settings.store(Arc::new(settings));
            self.of = Some((Arc::clone(snapshot), healthy.clone(), cgroups));
        }
        if self.waiting.iter().any(|listeners| !listeners.is_empty()) {
            match Tunnel::start(&self.config, std::mem::take(&mut self.waiting)) {
                Ok(threads) => self.threads = Some(threads),
                Err(error) => tracing::error!(
                    "can't start the tunnel's threads: {error}; connections that need it are refused"
                ),
            }
        }
    }
}

/// The kernel's records, and the names of what they number.
struct Recorded {
    records: bpf::Records,
    names: Mutex<(CgroupPaths, Programs)>,
}

impl Origins for Recorded {
    fn take(&self, peer: ClientAddr) -> Option<Origin> {
        let bpf::Record { original, group, gateway_port: _, policy: _, cgroup, cookie } =
            self.records.take(SocketAddr::new(peer.ip(), peer.0.port()))?;
        Some(Origin { original, group, cgroup, socket: cookie })
    }

    fn process(&self, origin: &Origin) -> CallingProcess {
        let Some(found) = self.records.process(origin.socket, origin.original) else {
            return CallingProcess::default();
        };
        let bpf::ConnectingProcess { pid, command, cgroup: id } = found;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let (paths, programs) = &mut *names;
        let path = paths.of(id);
        CallingProcess {
            pid: Some(pid),
            executable: programs.of(SystemTime::now(), pid, (id, &path)),
            command,
            container: container_of(&path),
            cgroup: Some(path.to_string()),
        }
    }
}
