//! What the sources of a worker share, and their shares of it: connections, requests under way, bytes
//! of request heads, bytes that wait for readers, and the thread's time.
//!
//! A source is a workload that the configuration knows, or an address. Each resource has a bound for
//! all and one for each source. Where a bound is reached, or the process is short of memory, the
//! shares are equal: a source that has its share is refused, and one that has less gets room from the
//! source with the most, one of whose connections is closed ([`shares`]). The thread's time is shared
//! likewise, by turns ([`FairTurns`]). One source's load so costs no other one anything.

mod end;
mod evict;
mod queue;
mod shares;
mod unread;
mod usage;
mod work;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    fmt,
    rc::{Rc, Weak},
    sync::Arc,
    task::Waker,
};

use tokio::{sync::Notify, task::spawn_local};

pub use self::{
    queue::{Queued, UnwrittenBytes},
    work::Work,
};
use self::{
    shares::{Bound, State, Verdict, judge},
    usage::{ASKED, Usage},
};
use super::Limits;
use crate::{
    net::FairTurns,
    telemetry::{LimitStats, Resource},
    types::{ShareOwner, Source},
};

/// One source.
#[derive(Debug, Default)]
struct Share {
    used: Rc<Cell<Usage>>,
    /// Bytes that wait for its readers; see [`unread`].
    unread: Rc<Cell<usize>>,
    /// When its tasks run.
    turns: Rc<FairTurns>,
    /// Its connections, the oldest first.
    slots: BTreeMap<u64, Rc<Slot>>,
}

#[derive(Debug, Default)]
struct Table {
    used: Usage,
    shares: HashMap<ShareOwner, Share>,
    /// The turns of connections to upstreams, which may outlast all connections of their source.
    upstream: HashMap<ShareOwner, Weak<FairTurns>>,
    next: u64,
}

impl Table {
    /// The turns of a source's connections to upstreams.
    fn upstream_turns(&mut self, owner: &ShareOwner) -> Rc<FairTurns> {
        if let Some(turns) = self.upstream.get(owner).and_then(Weak::upgrade) {
            return turns;
        }
        if self.upstream.len() > 2 * self.shares.len() + SPARE {
            self.upstream.retain(|_, turns| turns.strong_count() > 0);
        }
        let turns = Rc::default();
        self.upstream.insert(owner.clone(), Rc::downgrade(&turns));
        turns
    }
}

/// Sources without a connection that are remembered before those whose turns have ended are looked for.
const SPARE: usize = 64;

/// One a worker.
pub struct Limiter {
    limits: Limits,
    stats: Arc<LimitStats>,
    table: RefCell<Table>,
    /// Connections that have not ended, those that were told to included.
    open: Cell<usize>,
    /// Bytes that wait to be written, of all connections.
    queued: Cell<usize>,
    /// Bytes that were received and wait for readers, of all connections.
    unread: Cell<usize>,
    empty: Notify,
}

/// A connection as the limiter knows it.
struct Slot {
    limiter: Rc<Limiter>,
    owner: ShareOwner,
    id: u64,
    used: Cell<Usage>,
    /// What all connections of its source use.
    share_used: Rc<Cell<Usage>>,
    evicted: Cell<bool>,
    told: Notify,
    /// The task that serves it; see [`end`].
    task: Cell<Option<Waker>>,
    queued: Cell<usize>,
    unread: Cell<usize>,
    /// Those of all connections of its source.
    share_unread: Rc<Cell<usize>>,
    /// Its source's, and those of its source's connections to upstreams, which others may use as well.
    turns: Rc<FairTurns>,
    upstream_turns: Rc<FairTurns>,
    /// Who waits for room in the connection's queue.
    waiting: RefCell<Vec<Waker>>,
}

/// What a connection asks the limiter with; the default one is not limited.
#[derive(Clone, Default)]
pub struct ConnectionOwner(Option<Rc<Slot>>);

/// One connection's place; given back on drop.
pub struct Permit {
    slot: Rc<Slot>,
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("open", &self.open.get()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl fmt::Debug for ConnectionOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Holder").field(&self.0.as_ref().map(|slot| slot.id)).finish()
    }
}

impl Limiter {
    /// For one worker with these limits.
    #[must_use]
    pub fn new(limits: Limits, stats: Arc<LimitStats>) -> Rc<Self> {
        Rc::new(Self {
            limits,
            stats,
            table: RefCell::default(),
            open: Cell::new(0),
            queued: Cell::new(0),
            unread: Cell::new(0),
            empty: Notify::new(),
        })
    }

    /// A place for a connection; `None` if its source has its share.
    pub fn admit(self: &Rc<Self>, source: &Source) -> Option<Permit> {
        let owner = ShareOwner::of(source.workload.as_deref(), source.addr);
        let own = || self.table.borrow().shares.get(&owner).map(|share| share.used.get());
        if !self.has_room(&owner, own, Usage::CONNECTION) {
            return None;
        }
        let mut table = self.table.borrow_mut();
        let id = table.next;
        table.next += 1;
        let share = table.shares.entry(owner.clone()).or_default();
        let (share_unread, turns) = (Rc::clone(&share.unread), Rc::clone(&share.turns));
        let share_used = Rc::clone(&share.used);
        let upstream_turns = table.upstream_turns(&owner);
        let slot = Rc::new(Slot {
            limiter: Rc::clone(self),
            owner: owner.clone(),
            id,
            used: Cell::default(),
            share_used,
            evicted: Cell::new(false),
            told: Notify::new(),
            task: Cell::default(),
            queued: Cell::new(0),
            unread: Cell::new(0),
            share_unread,
            turns,
            upstream_turns,
            waiting: RefCell::default(),
        });
        table.shares.entry(owner).or_default().slots.insert(id, Rc::clone(&slot));
        drop(table);
        self.take(&slot, Usage::CONNECTION);
        self.open.set(self.open.get() + 1);
        Some(Permit { slot })
    }

    /// Completes when no connection is left.
    pub async fn empty(&self) {
        while self.open.get() > 0 {
            self.empty.notified().await;
        }
    }

    /// The process is short of memory: the source that has the most gives back a connection.
    pub fn shed(&self) {
        if !self.stats.is_pressed() {
            return;
        }
        let of = [Resource::RequestBytes, Resource::Requests, Resource::Connections];
        let most = of.into_iter().find(|of| self.table.borrow().used.of(*of) > 0);
        if let Some(resource) = most {
            self.evict_from_largest(resource, None, 0);
        }
    }

    fn bound(&self, resource: Resource) -> Bound {
        let limits = &self.limits;
        let (all, each) = match resource {
            Resource::Connections => (limits.connections, limits.connections_per_source),
            Resource::Requests => (limits.requests, limits.requests_per_source),
            Resource::RequestBytes => (limits.request_bytes, limits.request_bytes_per_source),
            // Not asked for: see [`queue`] and [`unread`].
            Resource::QueuedBytes | Resource::Memory | Resource::Descriptors => {
                (usize::MAX, usize::MAX)
            }
        };
        Bound { all, each }
    }

    /// Whether the source, which has `own` or nothing yet, may have this much more; others may have to make
    /// room for it.
    fn has_room(&self, owner: &ShareOwner, own: impl Fn() -> Option<Usage>, more: Usage) -> bool {
        ASKED.into_iter().filter(|resource| more.of(*resource) > 0).all(|resource| {
            let room = self.room(owner, &own, resource, more.of(resource));
            if !room {
                self.stats.refused(resource);
            }
            room
        })
    }

    fn room(
        &self,
        owner: &ShareOwner,
        own: impl Fn() -> Option<Usage>,
        resource: Resource,
        amount: usize,
    ) -> bool {
        let bound = self.bound(resource);
        let mut pressed = self.stats.is_pressed();
        loop {
            let (state, own) = {
                let usage = own();
                let own = usage.map_or(0, |used| used.of(resource));
                let table = self.table.borrow();
                let sources = table.shares.len() + usize::from(usage.is_none());
                let used = table.used.of(resource);
                (State { used, own, sources, pressed }, own)
            };
            match judge(bound, state, amount) {
                Verdict::Admit => return true,
                Verdict::Refuse => return false,
                Verdict::MakeRoom => {
                    if !self.evict_from_largest(resource, Some(owner), own + amount) {
                        return false;
                    }
                    // One for one is enough: pressure is the process's, not this worker's alone.
                    pressed = false;
                }
            }
        }
    }

    fn take(&self, slot: &Slot, used: Usage) {
        self.table.borrow_mut().used.add(used);
        for of in [&*slot.share_used, &slot.used] {
            let mut own = of.get();
            own.add(used);
            of.set(own);
        }
        self.gauge(used, LimitStats::add);
    }

    fn give_back(&self, slot: &Slot, used: Usage) {
        // What was evicted has given everything back.
        if slot.evicted.get() {
            return;
        }
        for of in [&*slot.share_used, &slot.used] {
            let mut own = of.get();
            own.sub(used);
            of.set(own);
        }
        let mut table = self.table.borrow_mut();
        table.used.sub(used);
        if slot.used.get() == Usage::default()
            && let Some(share) = table.shares.get_mut(&slot.owner)
        {
            share.slots.remove(&slot.id);
            if share.slots.is_empty() {
                table.shares.remove(&slot.owner);
            }
        }
        self.gauge(used, LimitStats::sub);
    }

    fn gauge(&self, used: Usage, change: fn(&LimitStats, Resource, usize)) {
        for resource in ASKED {
            if used.of(resource) > 0 {
                change(&self.stats, resource, used.of(resource));
            }
        }
    }
}

impl ConnectionOwner {
    /// Runs a task of the connection, or of a request on it. All that one source has to do shares the
    /// turns of that source.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        match &self.0 {
            Some(slot) => slot.turns.spawn(task),
            None => drop(spawn_local(task)),
        }
    }

    /// Runs what drives a connection to an upstream that requests of the source have made. Requests of others
    /// may be on it, so it does not wait for what the source itself has to do.
    pub fn spawn_upstream(&self, task: impl Future<Output = ()> + 'static) {
        match &self.0 {
            Some(slot) => slot.upstream_turns.spawn(task),
            None => drop(spawn_local(task)),
        }
    }

    /// Completes when the connection is to be ended for another source's sake.
    pub async fn evicted(&self) {
        match &self.0 {
            None => std::future::pending().await,
            Some(slot) => {
                while !slot.evicted.get() {
                    slot.told.notified().await;
                }
            }
        }
    }

    /// Whether it is to be ended.
    #[must_use]
    pub fn is_evicted(&self) -> bool {
        self.0.as_ref().is_some_and(|slot| slot.evicted.get())
    }
}

impl Permit {
    /// For the connection's own questions.
    #[must_use]
    pub fn holder(&self) -> ConnectionOwner {
        ConnectionOwner(Some(Rc::clone(&self.slot)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let limiter = &self.slot.limiter;
        limiter.give_back(&self.slot, Usage::CONNECTION);
        limiter.open.set(limiter.open.get().saturating_sub(1));
        if limiter.open.get() == 0 {
            limiter.empty.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
