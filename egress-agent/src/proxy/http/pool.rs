//! Connections to upstreams that wait for their next request. One pool a worker: no lock, and a
//! connection never changes its core.

mod key;
pub(super) mod pending;
mod version;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use self::pending::Pending;
pub(super) use self::{key::Key, version::Version};
use super::{
    h2::{H2Connection, H2Outbound},
    outbound::{H1Connection, Outbound},
};
use crate::{
    net::{ClusterStates, Plan, now},
    policy::GatewayPolicy,
    proxy::PolicyCell,
    types::{ShareOwner, UpstreamAddr},
};

/// How long a connection that is for one client's connection alone waits for its next request.
const OF_ONE_CLIENT: Duration = Duration::from_secs(10);

/// Whose connections of HTTP/2 a request may share.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sharing<'a> {
    /// This source's, as long as others of it don't hold up the request there.
    Own {
        /// The source.
        owner: &'a ShareOwner,
        /// What the request's body is expected to take of a connection's window.
        body: usize,
    },
    /// Any.
    Any {
        /// The source.
        owner: &'a ShareOwner,
    },
}

#[derive(Debug)]
struct Idle {
    connection: Box<H1Connection>,
    since: Instant,
}

#[derive(Debug, Default)]
struct PoolEntry {
    h1: Vec<Idle>,
    /// With the time at which it was last seen in use.
    h2: Vec<(Rc<H2Connection>, Instant)>,
    /// Since when the endpoint is none of its host's any more.
    gone: Option<Instant>,
}

impl PoolEntry {
    fn len(&self) -> usize {
        self.h1.len() + self.h2.len()
    }

    /// Whether its endpoint has been gone for so long.
    fn is_over(&self, drain: Duration) -> bool {
        self.gone.is_some_and(|since| since.elapsed() >= drain)
    }
}

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// The pool of one worker. Connections that wait for a request are bounded in all: one more takes the
/// place of another.
#[derive(Debug)]
pub(super) struct Pool {
    /// By endpoint: which one a request takes is the balancer's choice.
    entries: RefCell<HashMap<Key, HashMap<UpstreamAddr, PoolEntry>>>,
    /// Connections that are being made.
    pub(super) pending: Pending,
    sweeping: Cell<bool>,
    policy: PolicyCell,
    /// The policy that the connections were last compared with.
    compared: Cell<usize>,
    states: Arc<ClusterStates>,
    /// Connections in it; those of HTTP/2 that are in use too.
    count: Cell<usize>,
    most: usize,
    /// `addressDrainTime`.
    drain: Cell<Duration>,
}

impl Pool {
    /// With room for so many connections that wait. Those of clusters that the policy no longer has go,
    /// and those whose place under `maxConnections` others need.
    pub(super) fn new(most: usize, policy: PolicyCell, states: Arc<ClusterStates>) -> Self {
        let (entries, pending, sweeping) =
            (RefCell::default(), Pending::default(), Cell::new(false));
        let (compared, count) = (Cell::new(0), Cell::new(0));
        Self {
            entries,
            pending,
            sweeping,
            policy,
            compared,
            states,
            count,
            most,
            drain: Cell::default(),
        }
    }

    /// The host has these endpoints now, of which none was left out. Connections to others take no more
    /// requests unless their address comes back, and are closed when they have been gone for `drain`; those
    /// of HTTP/2 when their last request has ended.
    pub(super) fn known(&self, key: &Key, plan: &Plan, drain: Duration) {
        self.drain.set(drain);
        let mut entries = self.entries.borrow_mut();
        let Some(endpoints) = entries.get_mut(key) else { return };
        for (addr, entry) in endpoints {
            if plan.addresses().any(|known| known == *addr) {
                entry.gone = None;
            } else if plan.is_whole() {
                entry.gone.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Makes room for one more, if there is none: the connection goes that has waited longest.
    #[expect(
        clippy::mutable_key_type,
        reason = "what is kept for a cluster is no part of what it is, for equality and hash"
    )]
    fn make_room(&self, entries: &mut HashMap<Key, HashMap<UpstreamAddr, PoolEntry>>) {
        if self.count.get() < self.most {
            return;
        }
        let all = || entries.values().flat_map(HashMap::values);
        let h1 = all().filter_map(|entry| entry.h1.first()).map(|idle| idle.since);
        let h2 = all().flat_map(|entry| &entry.h2);
        let h2 = h2.filter(|(connection, _)| connection.is_idle()).map(|(_, used)| *used);
        let Some(oldest) = h1.chain(h2).min() else { return };
        for entry in entries.values_mut().flat_map(HashMap::values_mut) {
            let before = entry.len();
            if entry.h1.first().is_some_and(|idle| idle.since == oldest) {
                entry.h1.remove(0);
            } else {
                entry.h2.retain(|(connection, used)| *used != oldest || !connection.is_idle());
            }
            self.count.set(self.count.get() - (before - entry.len()));
        }
    }

    /// A connection to this endpoint that stands and may take another request. Its address is checked
    /// again: policy may have changed since it was dialled.
    pub(super) fn checkout(
        &self,
        key: &Key,
        addr: UpstreamAddr,
        whose: Sharing<'_>,
        policy: &GatewayPolicy,
        scratch: &mut [u8],
    ) -> Option<Outbound> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(key)?.get_mut(&addr)?;
        let before = entry.len();
        let found = Self::take(key, entry, whose, policy, scratch);
        self.count.set(self.count.get() - (before - entry.len()));
        found
    }

    fn take(
        key: &Key,
        entry: &mut PoolEntry,
        whose: Sharing<'_>,
        policy: &GatewayPolicy,
        scratch: &mut [u8],
    ) -> Option<Outbound> {
        let limit = key.cluster.pool.max_requests_per_connection;
        let duration = key.cluster.pool.max_connection_duration;
        entry.h2.retain(|(connection, _)| {
            connection.is_open()
                && !connection.link.is_aged(duration)
                && policy.may_dial(connection.link.addr.ip())
                && (limit == 0 || connection.started.get() < limit)
        });
        let free = entry.h2.iter_mut().find(|(connection, _)| match whose {
            Sharing::Own { owner, body } => connection.has_room(owner, body),
            Sharing::Any { .. } => connection.may_take(),
        });
        if let Some((connection, used)) = free {
            *used = now();
            return Some(Outbound::H2(H2Outbound::new(Rc::clone(connection))));
        }
        // The one used last, so that what isn't needed grows old.
        while let Some(mut idle) = entry.h1.pop() {
            if policy.may_dial(idle.connection.link.addr.ip())
                && idle.connection.outbound.is_alive(scratch)
                && now().duration_since(idle.since) < key.cluster.pool.idle_timeout
                && !idle.connection.link.is_aged(duration)
            {
                let (Sharing::Own { owner, .. } | Sharing::Any { owner }) = whose;
                idle.connection.link.lease.set_owner(Some(owner));
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
        self.make_room(&mut entries);
        let entry = entries.entry(key).or_default().entry(addr).or_default();
        entry.h2.push((connection, Instant::now()));
        // It may have been made by a policy that was replaced meanwhile.
        self.compared.set(0);
        self.count.set(self.count.get() + 1);
        drop(entries);
        self.sweep();
        place
    }

    /// Gives a connection back after an exchange that left it clean and was decided by `policy`.
    pub(super) fn put(
        self: &Rc<Self>,
        key: Key,
        mut connection: Box<H1Connection>,
        policy: &Arc<GatewayPolicy>,
    ) {
        let replaced = self.policy.load().as_ref().filter(|now| !Arc::ptr_eq(now, policy)).cloned();
        if replaced.is_some_and(|now| !now.has_cluster(&key.cluster)) {
            return;
        }
        let limit = key.cluster.pool.max_requests_per_connection;
        if !connection.outbound.is_reusable()
            || (limit != 0 && connection.started >= limit)
            || connection.link.is_aged(key.cluster.pool.max_connection_duration)
        {
            return;
        }
        connection.in_flight = None;
        connection.outbound.stream.release();
        if self.states.grant(&key.cluster) {
            // Somebody waits for its place.
            return;
        }
        connection.link.lease.set_owner(None);
        let addr = connection.link.addr;
        let idle = Idle { connection, since: now() };
        let mut entries = self.entries.borrow_mut();
        self.make_room(&mut entries);
        entries.entry(key).or_default().entry(addr).or_default().h1.push(idle);
        self.count.set(self.count.get() + 1);
        drop(entries);
        self.sweep();
    }

    /// Starts the task that closes what is too old, what was closed by the upstream, what no rule leads
    /// to any more, and what others need the place of. It ends with the last connection.
    fn sweep(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            return;
        }
        let pool = Rc::downgrade(self);
        let mut wishes = self.states.wishes();
        tokio::task::spawn_local(async move {
            let mut scratch = vec![0; 1024];
            let mut next = Instant::now() + SWEEP;
            loop {
                tokio::select! {
                    () = sleep_until(next) => next = Instant::now() + SWEEP,
                    // It ends with the states, which the pool has.
                    _ = wishes.changed() => {
                        let Some(pool) = Weak::upgrade(&pool) else { return };
                        pool.retire_replaced();
                        pool.grant_wishes();
                        continue;
                    }
                }
                let Some(pool) = Weak::upgrade(&pool) else { return };
                pool.retire_replaced();
                if pool.sweep_once(&mut scratch) {
                    pool.sweeping.set(false);
                    return;
                }
            }
        });
    }

    /// Closes idle connections for whoever waits for their places.
    fn grant_wishes(&self) {
        self.retain(|key, entry| {
            // The one that has waited longest goes first.
            while !entry.h1.is_empty() && self.states.grant(&key.cluster) {
                entry.h1.remove(0);
            }
            entry.h2.retain(|(connection, _)| {
                !(connection.is_idle() && self.states.grant(&key.cluster))
            });
        });
    }

    /// Drops the connections of clusters that the policy in force does not have as they were: requests
    /// that are under way on them go on, and then they are closed.
    fn retire_replaced(&self) {
        let policy = self.policy.load_full();
        let current = policy.as_ref().map_or(0, |policy| Arc::as_ptr(policy).addr());
        if self.compared.replace(current) == current {
            return;
        }
        let Some(policy) = policy else { return };
        self.retain(|key, entry| {
            if !policy.has_cluster(&key.cluster) {
                entry.h1.clear();
                entry.h2.clear();
            }
        });
    }

    /// Whether nothing is left.
    fn sweep_once(&self, scratch: &mut [u8]) -> bool {
        self.retain(|key, entry| {
            // Nobody but that client can use it again.
            let most = if key.client.is_some() { OF_ONE_CLIENT } else { Duration::MAX };
            let timeout = key.cluster.pool.idle_timeout.min(most);
            let duration = key.cluster.pool.max_connection_duration;
            let over = entry.is_over(self.drain.get());
            entry.h1.retain_mut(|idle| {
                !over
                    && idle.since.elapsed() < timeout
                    && !idle.connection.link.is_aged(duration)
                    && idle.connection.outbound.is_alive(scratch)
            });
            entry.h2.retain_mut(|(connection, used)| {
                if !connection.is_idle() {
                    *used = Instant::now();
                } else if over {
                    return false;
                }
                // One in use goes with its last request.
                connection.is_open()
                    && used.elapsed() < timeout
                    && !connection.link.is_aged(duration)
            });
        });
        self.entries.borrow().is_empty()
    }

    /// Goes through all entries; those that are left empty go.
    fn retain(&self, mut change: impl FnMut(&Key, &mut PoolEntry)) {
        let mut entries = self.entries.borrow_mut();
        entries.retain(|key, endpoints| {
            endpoints.retain(|_, entry| {
                let before = entry.len();
                change(key, entry);
                self.count.set(self.count.get() - (before - entry.len()));
                entry.len() > 0
            });
            !endpoints.is_empty()
        });
    }
}
