//! Connections to upstreams that wait for their next request. One pool a worker: no lock, and a
//! connection never changes its core.

use std::{
    cell::RefCell,
    collections::HashMap,
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
    policy::{Cluster, GatewayPolicy},
    types::{Host, UpstreamAddr},
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
    h1: Vec<Idle>,
    /// With the time at which it was last seen in use.
    h2: Vec<(Rc<H2Connection>, Instant)>,
}

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// The pool of one worker.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// By endpoint: which one a request takes is the balancer's choice.
    entries: RefCell<HashMap<Key, HashMap<UpstreamAddr, Entry>>>,
    sweeping: std::cell::Cell<bool>,
}

impl Pool {
    /// A connection to this endpoint that stands and may take another request. Its address is checked again: policy
    /// may have changed since it was dialled.
    pub(super) fn checkout(
        &self,
        key: &Key,
        addr: UpstreamAddr,
        policy: &GatewayPolicy,
        scratch: &mut [u8],
    ) -> Option<Outbound> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(key)?.get_mut(&addr)?;
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
        // The one used last, so that what isn't needed grows old.
        while let Some(mut idle) = entry.h1.pop() {
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
        let addr = connection.link.addr;
        let mut entries = self.entries.borrow_mut();
        let entry = entries.entry(key).or_default().entry(addr).or_default();
        entry.h2.push((connection, Instant::now()));
        drop(entries);
        self.sweep();
        place
    }

    /// Gives a connection back after an exchange that left it clean.
    pub(super) fn put(self: &Rc<Self>, key: Key, mut connection: Box<H1Connection>) {
        let limit = key.cluster.pool.max_requests_per_connection;
        if !connection.outbound.is_reusable() || (limit != 0 && connection.started >= limit) {
            return;
        }
        connection.in_flight = None;
        connection.outbound.stream.release();
        let addr = connection.link.addr;
        let idle = Idle { connection, since: Instant::now() };
        let mut entries = self.entries.borrow_mut();
        entries.entry(key).or_default().entry(addr).or_default().h1.push(idle);
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
        entries.retain(|key, endpoints| {
            let timeout = key.cluster.pool.idle_timeout;
            endpoints.retain(|_, entry| {
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
            !endpoints.is_empty()
        });
        entries.is_empty()
    }
}
