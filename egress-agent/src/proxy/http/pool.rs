//! Connections to upstreams that wait for their next request. One pool a worker: no lock, and a
//! connection never changes its core.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    hash::{Hash, Hasher},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    h2::{H2Connection, H2Outbound},
    outbound::{H1Connection, Outbound},
};
use crate::{
    policy::{Cluster, Discovery, GatewayPolicy},
    types::Host,
};

/// What a connection was made for. The whole cluster is part of it: when the configuration changes
/// anything about it, connections made before aren't used again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Key {
    pub(super) cluster: Arc<Cluster>,
    /// Whom it was resolved for, and whom the certificate was verified for.
    pub(super) host: Host,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // A part of what `Eq` compares, which is all that hashing needs.
        self.cluster.name.hash(state);
        self.host.hash(state);
    }
}

#[derive(Debug)]
struct Idle {
    connection: Box<H1Connection>,
    since: Instant,
}

#[derive(Debug, Default)]
struct Entry {
    h1: VecDeque<Idle>,
    /// With the time at which it was last seen in use.
    h2: Vec<(Rc<H2Connection>, Instant)>,
}

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// The pool of one worker.
#[derive(Debug, Default)]
pub(super) struct Pool {
    entries: RefCell<HashMap<Key, Entry>>,
    sweeping: std::cell::Cell<bool>,
}

impl Pool {
    /// A connection that stands and may take another request. Its address is checked again: policy
    /// may have changed since it was dialled.
    pub(super) fn checkout(
        &self,
        key: &Key,
        policy: &GatewayPolicy,
        scratch: &mut [u8],
    ) -> Option<Outbound> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(key)?;
        let limit = key.cluster.pool.max_requests_per_connection;
        entry.h2.retain(|(connection, _)| {
            connection.is_open()
                && policy.may_dial(connection.link.addr.ip())
                && (limit == 0 || connection.started.get() < limit)
        });
        let free = entry.h2.iter_mut().find(|(connection, _)| connection.has_room());
        if let Some((connection, used)) = free {
            *used = Instant::now();
            return Some(Outbound::H2(H2Outbound::new(Rc::clone(connection))));
        }
        while let Some(mut idle) = next_idle(&key.cluster, &mut entry.h1) {
            if policy.may_dial(idle.connection.link.addr.ip())
                && idle.connection.outbound.is_alive(scratch)
                && idle.since.elapsed() < key.cluster.pool.idle_timeout
            {
                return Some(Outbound::H1(idle.connection));
            }
        }
        None
    }

    /// Adds a new HTTP/2 connection, and takes the first place on it.
    pub(super) fn share(self: &Rc<Self>, key: Key, connection: H2Connection) -> H2Outbound {
        let connection = Rc::new(connection);
        let place = H2Outbound::new(Rc::clone(&connection));
        self.entries.borrow_mut().entry(key).or_default().h2.push((connection, Instant::now()));
        self.sweep();
        place
    }

    /// Gives a connection back after an exchange that left it clean.
    pub(super) fn put(self: &Rc<Self>, key: Key, mut connection: Box<H1Connection>) {
        let limit = key.cluster.pool.max_requests_per_connection;
        if !connection.outbound.is_reusable() || (limit != 0 && connection.started >= limit) {
            return;
        }
        connection.outbound.stream.release();
        let idle = Idle { connection, since: Instant::now() };
        let mut entries = self.entries.borrow_mut();
        let h1 = &mut entries.entry(key).or_default().h1;
        h1.push_back(idle);
        drop(entries);
        self.sweep();
    }

    /// Starts the task that closes what is too old or was closed by the upstream. It ends with the
    /// last connection.
    fn sweep(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            return;
        }
        let pool = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            let mut scratch = vec![0; 1024];
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(pool) = Weak::upgrade(&pool) else { return };
                if pool.sweep_once(&mut scratch) {
                    pool.sweeping.set(false);
                    return;
                }
            }
        });
    }

    /// Whether nothing is left.
    fn sweep_once(&self, scratch: &mut [u8]) -> bool {
        let mut entries = self.entries.borrow_mut();
        entries.retain(|key, entry| {
            let timeout = key.cluster.pool.idle_timeout;
            entry.h1.retain_mut(|idle| {
                idle.since.elapsed() < timeout && idle.connection.outbound.is_alive(scratch)
            });
            entry.h2.retain_mut(|(connection, used)| {
                if !connection.is_idle() {
                    *used = Instant::now();
                }
                connection.is_open() && used.elapsed() < timeout
            });
            !entry.h1.is_empty() || !entry.h2.is_empty()
        });
        entries.is_empty()
    }
}

/// The connection used last, so that what isn't needed grows old; with several endpoints the one
/// that has waited longest, so that requests go round.
fn next_idle(cluster: &Cluster, idle: &mut VecDeque<Idle>) -> Option<Idle> {
    match &cluster.discovery {
        Discovery::Static(endpoints) if endpoints.len() > 1 => idle.pop_front(),
        Discovery::Dns(names) if names.len() > 1 => idle.pop_front(),
        Discovery::Static(_) | Discovery::Dns(_) | Discovery::Request(_) => idle.pop_back(),
    }
}
