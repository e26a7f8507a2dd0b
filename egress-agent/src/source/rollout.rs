//! Which agents have which revisions of policies in force, as a gateway knows it: for the condition `Programmed`.
//!
//! A node agent asks each gateway for its health once a second, and says which node it is and which revisions are in
//! force there, as a digest. Gateways ask each other the same way. A digest stands for revisions that this gateway
//! had in force itself, now or a short while ago. One that it does not know yet, such as that of an agent that is
//! ahead, says nothing new: revisions never go back, so what was known of the agent before still holds.
//!
//! What is said of a node counts only from an address of that node, so nobody else speaks for it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::types::Revisions;

/// The header in which an agent says which node it is on.
pub const NODE_HEADER: &str = "x-egress-node";
/// The header in which an agent says which revisions are in force: their digest, or [`NONE`].
pub const REVISIONS_HEADER: &str = "x-egress-revisions";
/// No revisions: the maps do not hold a whole configuration.
pub const NONE: &str = "none";

/// For how long what an agent has said holds. It says it once a second.
const HOLDS: Duration = Duration::from_secs(30);
/// The same for a gateway, which is asked every two seconds: one that is gone takes no connections.
const GATEWAY_HOLDS: Duration = Duration::from_secs(7);
/// For how long after its start a gateway has not heard of everybody yet.
const WARM: Duration = Duration::from_secs(5);
/// Configurations that are remembered. Agents are a second behind each other, and no more than some changes.
const REMEMBERED: usize = 32;

/// Shared by all that know something of it.
#[derive(Clone, Debug)]
pub struct Rollout(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    since: Instant,
    /// The addresses of this gateway's host.
    own: Vec<IpAddr>,
    stopped: bool,
    /// The endpoints of all gateways.
    gateways: BTreeSet<IpAddr>,
    /// The nodes that run an agent, with their addresses.
    nodes: BTreeMap<String, Vec<IpAddr>>,
    /// What was in force here, the newest last.
    history: VecDeque<Arc<Revisions>>,
    heard_nodes: BTreeMap<String, AgentState>,
    heard_gateways: BTreeMap<IpAddr, AgentState>,
}

/// What was heard of an agent.
#[derive(Clone, Debug)]
struct AgentState {
    at: Instant,
    revisions: Option<Arc<Revisions>>,
}

/// Who has what in force at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Agents with the same revisions.
    groups: Vec<Group>,
    /// Whether everybody has had the time to say something.
    pub is_warm: bool,
    /// How many agents there are.
    pub agents: usize,
}

#[derive(Clone, Debug, Default)]
struct Group {
    revisions: Option<Arc<Revisions>>,
    nodes: Vec<String>,
    gateways: Vec<IpAddr>,
}

/// Where a revision is in force.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Nodes that have it, and all.
    pub nodes: (usize, usize),
    /// Gateways that have it, and all.
    pub gateways: (usize, usize),
    /// Who does not have it.
    pub waiting: Vec<String>,
}

impl Counts {
    /// Whether it is in force everywhere.
    #[must_use]
    pub fn is_everywhere(&self) -> bool {
        let all = |(done, all): (usize, usize)| all > 0 && done == all;
        all(self.nodes) && all(self.gateways)
    }
}

impl Rollout {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let state = State {
            since: now,
            own: Vec::new(),
            stopped: false,
            gateways: BTreeSet::new(),
            nodes: BTreeMap::new(),
            history: VecDeque::new(),
            heard_nodes: BTreeMap::new(),
            heard_gateways: BTreeMap::new(),
        };
        Self(Arc::new(Shared { state: Mutex::new(state), changes: watch::Sender::new(0) }))
    }

    /// The addresses of this gateway's host.
    pub fn set_own(&self, addresses: &[IpAddr]) {
        self.state().own = addresses.to_vec();
    }

    /// The nodes that should run an agent, with their addresses.
    pub fn set_nodes(&self, nodes: BTreeMap<String, Vec<IpAddr>>) {
        self.change(|state| {
            state.heard_nodes.retain(|name, _| nodes.contains_key(name));
            let changed = state.nodes != nodes;
            state.nodes = nodes;
            changed
        });
    }

    /// This gateway has these revisions in force from now on, and there are these gateways.
    pub fn in_force(&self, revisions: &Arc<Revisions>, gateways: BTreeSet<IpAddr>) {
        self.change(|state| {
            state.heard_gateways.retain(|addr, _| gateways.contains(addr));
            state.gateways = gateways;
            if state.history.back() != Some(revisions) {
                state.history.push_back(Arc::clone(revisions));
            }
            if state.history.len() > REMEMBERED {
                state.history.pop_front();
            }
            true
        });
    }

    /// This gateway ends: it reports no more.
    pub fn stop(&self) {
        self.state().stopped = true;
    }

    /// The digest of what is in force here.
    #[must_use]
    pub fn digest(&self) -> Option<String> {
        self.state().history.back().map(|revisions| revisions.digest().to_owned())
    }

    /// What the agent of a node says, from this address.
    pub fn hear_node(&self, now: Instant, from: IpAddr, node: &str, digest: &str) {
        let from = from.to_canonical();
        self.change(|state| {
            let known = state.nodes.get(node);
            if !known.is_some_and(|own| own.iter().any(|addr| addr.to_canonical() == from)) {
                return false;
            }
            let before = state.heard_nodes.get(node).cloned();
            let (heard, changed) = state.take(now, before, digest);
            state.heard_nodes.insert(node.to_owned(), heard);
            changed
        });
    }

    /// What another gateway says that is ready; `None` of one that is not.
    pub fn hear_gateway(&self, now: Instant, addr: IpAddr, digest: Option<&str>) {
        self.change(|state| {
            let Some(digest) = digest.filter(|_| state.gateways.contains(&addr)) else {
                return state.heard_gateways.remove(&addr).is_some();
            };
            let before = state.heard_gateways.get(&addr).cloned();
            let is_new = before.is_none();
            let (heard, changed) = state.take(now, before, digest);
            state.heard_gateways.insert(addr, heard);
            changed || is_new
        });
    }

    /// The other gateways, which are to be asked.
    #[must_use]
    pub fn peers(&self) -> Vec<IpAddr> {
        let state = self.state();
        state.gateways.iter().filter(|addr| !state.own.contains(addr)).copied().collect()
    }

    /// Whether it is this gateway that reports: the first one by address of those that are ready.
    #[must_use]
    pub fn is_reporter(&self, now: Instant) -> bool {
        let state = self.state();
        let own = state.gateways.iter().find(|addr| state.own.contains(addr));
        let Some(own) = own.filter(|_| !state.stopped) else { return false };
        let ready = |heard: &AgentState| now.duration_since(heard.at) < GATEWAY_HOLDS;
        state.heard_gateways.iter().all(|(addr, heard)| addr > own || !ready(heard))
    }

    /// Changes with whatever changes here.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Who has what in force now.
    #[must_use]
    pub fn view(&self, now: Instant) -> View {
        let state = self.state();
        let mut view = View { is_warm: now.duration_since(state.since) >= WARM, ..View::default() };
        for node in state.nodes.keys() {
            let heard = state.heard_nodes.get(node);
            let fresh = heard.filter(|heard| now.duration_since(heard.at) < HOLDS);
            let group = view.group(fresh.and_then(|heard| heard.revisions.clone()));
            group.nodes.push(node.clone());
        }
        if let Some(own) = state.gateways.iter().find(|addr| state.own.contains(addr)) {
            view.group(state.history.back().cloned()).gateways.push(*own);
        }
        for (addr, heard) in &state.heard_gateways {
            if now.duration_since(heard.at) < GATEWAY_HOLDS && !state.own.contains(addr) {
                view.group(heard.revisions.clone()).gateways.push(*addr);
            }
        }
        view.agents = view.groups.iter().map(|of| of.nodes.len() + of.gateways.len()).sum();
        view
    }

    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        if change(&mut self.state()) {
            self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is known of an agent after its words, and whether that is news.
    fn take(&self, now: Instant, before: Option<AgentState>, digest: &str) -> (AgentState, bool) {
        let old = before.and_then(|before| before.revisions);
        let found = self.history.iter().rev().find(|one| one.digest() == digest).cloned();
        let revisions = match (digest, found) {
            (NONE, _) => None,
            (_, Some(found)) => Some(found),
            (_, None) => old.clone(),
        };
        let changed = revisions != old;
        (AgentState { at: now, revisions }, changed)
    }
}

impl View {
    fn group(&mut self, revisions: Option<Arc<Revisions>>) -> &mut Group {
        let index = self.groups.iter().position(|group| group.revisions == revisions);
        let index = index.unwrap_or_else(|| {
            self.groups.push(Group { revisions, ..Group::default() });
            self.groups.len() - 1
        });
        &mut self.groups[index]
    }

    /// Where this revision of an object is in force.
    #[must_use]
    pub fn counts(&self, name: &str, uid: &str, generation: i64) -> Counts {
        let mut counts = Counts::default();
        for Group { revisions, nodes, gateways } in &self.groups {
            let has = revisions.as_ref().is_some_and(|of| of.has(name, uid, generation));
            counts.nodes.1 += nodes.len();
            counts.gateways.1 += gateways.len();
            if has {
                counts.nodes.0 += nodes.len();
                counts.gateways.0 += gateways.len();
            } else {
                counts.waiting.extend(nodes.iter().cloned());
                counts.waiting.extend(gateways.iter().map(ToString::to_string));
            }
        }
        counts.waiting.sort();
        counts
    }
}

#[cfg(test)]
mod tests;
