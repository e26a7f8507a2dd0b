//! The last flows, and those who follow them as they happen.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::broadcast::{self, error::RecvError};

use super::{FlowOrigin, FlowRecord};
use crate::telemetry::Exports;

/// Flows that are remembered, of refusals and of the rest each: many redirects mustn't push out the
/// one refusal that somebody asks for a minute later. Beyond them the oldest flow of the
/// workload that has the most there is forgotten, so that a workload's flood pushes out its own.
const HISTORY: usize = 4096;
/// Flows that may wait for a slow follower; it loses the oldest beyond them.
const BACKLOG: usize = 4096;

/// Flows of this process: a bounded history, and any number of followers. Whoever hands one in is
/// never held up by those who read.
#[derive(Debug)]
pub struct FlowLog {
    history: Mutex<History>,
    live: broadcast::Sender<Arc<FlowRecord>>,
    followers: AtomicUsize,
    /// Where a node's flows go besides.
    exports: OnceLock<Arc<Exports>>,
}

#[derive(Debug, Default)]
struct History {
    next: u64,
    refusals: Shared,
    others: Shared,
}

/// Flows by who caused them, at most [`HISTORY`].
#[derive(Debug, Default)]
struct Shared {
    flows: HashMap<FlowOrigin, VecDeque<(u64, Arc<FlowRecord>)>>,
    count: usize,
}

impl Shared {
    fn push(&mut self, number: u64, flow: &Arc<FlowRecord>) {
        if self.count >= HISTORY {
            self.discard_oldest();
        }
        self.flows.entry(FlowOrigin::of(flow)).or_default().push_back((number, Arc::clone(flow)));
        self.count += 1;
    }

    /// The oldest flow of the workload that has the most; among equals the oldest of all.
    fn discard_oldest(&mut self) {
        let oldest = |flows: &VecDeque<(u64, _)>| flows.front().map_or(0, |(number, _)| *number);
        let most =
            self.flows.iter_mut().max_by_key(|(_, flows)| (flows.len(), Reverse(oldest(flows))));
        let Some((causer, flows)) = most else { return };
        flows.pop_front();
        self.count -= 1;
        if flows.is_empty() {
            let causer = causer.clone();
            self.flows.remove(&causer);
        }
    }
}

impl Default for FlowLog {
    fn default() -> Self {
        let (live, _) = broadcast::channel(BACKLOG);
        Self {
            history: Mutex::default(),
            live,
            followers: AtomicUsize::new(0),
            exports: OnceLock::new(),
        }
    }
}

impl FlowLog {
    /// Takes a flow.
    pub fn push(&self, flow: FlowRecord) {
        if let Some(exports) = self.exports.get() {
            exports.flow(&flow);
        }
        let flow = Arc::new(flow);
        let mut history = self.lock();
        let number = history.next;
        history.next += 1;
        let kept = if flow.is_refusal() { &mut history.refusals } else { &mut history.others };
        kept.push(number, &flow);
        // With the lock held, so that a new follower misses none and gets none twice.
        if self.is_followed() {
            // An error says that the last follower left just now.
            self.live.send(flow).ok();
        }
    }

    /// Every flow is exported from now on. A gateway exports its access log instead, which says more.
    pub fn export_to(&self, exports: Arc<Exports>) {
        // The first one counts.
        self.exports.set(exports).ok();
    }

    /// Whether somebody follows: one atomic load.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.followers.load(Ordering::Relaxed) > 0
    }

    /// What is remembered, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Arc<FlowRecord>> {
        merged(&self.lock())
    }

    /// What is remembered, and whatever comes after it.
    #[must_use]
    pub fn follow(self: &Arc<Self>) -> (Vec<Arc<FlowRecord>>, Follower) {
        let history = self.lock();
        self.followers.fetch_add(1, Ordering::Relaxed);
        let follower = Follower { live: self.live.subscribe(), log: Arc::clone(self) };
        (merged(&history), follower)
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn merged(history: &History) -> Vec<Arc<FlowRecord>> {
    let kept = [&history.refusals, &history.others].map(|kept| kept.flows.values().flatten());
    let mut all: Vec<_> = kept.into_iter().flatten().cloned().collect();
    all.sort_unstable_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, flow)| flow).collect()
}

/// What a follower sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FollowItem {
    /// A flow.
    Flow(Arc<FlowRecord>),
    /// It was too slow for so many.
    Lost(u64),
}

/// Somebody who follows; counted for as long as it lives.
#[derive(Debug)]
pub struct Follower {
    live: broadcast::Receiver<Arc<FlowRecord>>,
    log: Arc<FlowLog>,
}

impl Follower {
    /// The next; `None` when there will be none. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<FollowItem> {
        match self.live.recv().await {
            Ok(flow) => Some(FollowItem::Flow(flow)),
            Err(RecvError::Lagged(lost)) => Some(FollowItem::Lost(lost)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.log.followers.fetch_sub(1, Ordering::Relaxed);
    }
}
