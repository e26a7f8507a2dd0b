//! From what the maps hold to what they should, in an order that opens nothing on the way.
//!
//! Between two steps a packet may meet any mixture of old and new. The order guarantees: what is
//! let out directly in a mixture was let out by the old contents or is by the new ones.
//!
//! The argument for routes, where the longest prefix wins: redirects and denials are put first,
//! which only ever takes directness away; then direct entries that go are removed, while every old
//! redirect is still there to catch what was below it; then new direct entries are put, while every
//! new redirect is there already; at last old redirects go, when only new direct entries are left.
//!
//! The argument for modes, where a cgroup without an entry has its nearest ancestor's: a policy
//! that is to enforce does so first. So from then on a policy is lenient (audit, exempt) only if
//! both old and new say so, and moving a workload to it can't do harm before it is moved for good.
//! Workloads that get a policy that enforces are moved next, then the others, whose new ancestors
//! are all there to shield those below them. Entries that go are removed: lenient ones at any time,
//! since what they cover was lenient; those that enforce after all others, since what is below them
//! may fall to whatever is left. At last policies become lenient, when no other workload has them.
//!
//! Workloads that are not known have no routes at all, and no gateway is open to them. So an interface or a
//! cgroup becomes known after every change of those, and unknown before.
//!
//! Workloads with a table of routes of their own are kept out of all this: see [`closing`].

mod change;
mod closing;
mod make;
mod members;
mod op;

use std::collections::{BTreeMap, BTreeSet};

use egress_ebpf::abi::{
    GatewayKey, Globals, Group, GroupId, Route, RouteKey, Tunnel, route_action,
};

use self::change::{UNWRITTEN, differences, enforces};
pub use self::{change::Change, op::Op};
use super::plan::{Contents, Prefix};

/// Changes in the order in which they are to be made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ops {
    /// Workloads whose tables change have none meanwhile. When one failed, nothing may follow.
    pub close: Vec<Op>,
    /// Policies that enforce from now on. A failed one leaves something as it was.
    pub enforce: Vec<Op>,
    /// Workloads that are not known any more, and so lose gateways and routes: when one of `enforce`
    /// failed, none of these may follow. A failed one leaves something as it was.
    pub seclude: Vec<Op>,
    /// They only take away. A failed one leaves something as it was.
    pub tighten: Vec<Op>,
    /// Groups, gateways' ports and the tunnel's listener, which open the enforcement point for what
    /// the new routes name, unless it is denied: when one of the former failed, none of these may
    /// follow.
    pub gateways: Vec<Op>,
    /// Workloads that get a policy that enforces, which it has to do already: when one of `enforce`
    /// failed, none of these may follow.
    pub assign: Vec<Op>,
    /// They redirect or refuse what was direct. A failed one leaves something as it was.
    pub redirect: Vec<Op>,
    /// They may let out more, each relying on all before it being done: when one failed, none may
    /// follow.
    pub loosen: Vec<Op>,
    /// Workloads that were closed have what is desired again, each relying on all before being done.
    pub open: Vec<Op>,
}

impl Ops {
    /// How many changes.
    pub fn count(&self) -> usize {
        let Self { close, enforce, seclude, tighten, gateways, assign, redirect, loosen, open } =
            self;
        let all = [close, enforce, seclude, tighten, gateways, assign, redirect, loosen, open];
        all.map(Vec::len).iter().sum()
    }
}

/// What to do to get from `old` to `new`.
#[must_use]
pub fn diff(old: &Contents, new: &Contents) -> Ops {
    match closing::closed(old, new) {
        None => steps(old, new),
        Some((from, to)) => {
            let (close, open) = (closing::close(old, &from), closing::open(&to, new));
            Ops { close, open, ..steps(&from, &to) }
        }
    }
}

/// The changes where every workload keeps its table of routes.
fn steps(old: &Contents, new: &Contents) -> Ops {
    let (enforce, lenient) = policies(old, new);
    let gateways = sets(&old.gateways, &new.gateways);
    let internal = sets(&old.internal, &new.internal);
    let denied = sets(&old.denied, &new.denied);
    let addresses = sets(&old.pod_addresses, &new.pod_addresses);
    let interfaces = members::interfaces(old, new);
    let workloads = members::workloads(old, new);
    let routes = routes(&old.routes, &new.routes);
    let (groups, emptied) = groups(&old.groups, &new.groups);
    let is_mark = GatewayKey::closes;
    let (marks, ports): (Vec<_>, Vec<_>) =
        gateways.puts.into_iter().partition(|change| is_mark(change.key()));
    let (unmarks, unports): (Vec<_>, Vec<_>) =
        gateways.removes.into_iter().partition(|change| is_mark(change.key()));

    let mut seclude: Vec<Op> = workloads.secluded.into_iter().map(Op::Workload).collect();
    seclude.extend(interfaces.secluded.into_iter().map(Op::PodInterface));

    // First of all look-ups are made again that will find something from now on.
    let fewer = fewer_absent(old, new);
    let mut tighten: Vec<Op> = fewer.map(Op::Globals).into_iter().collect();
    tighten.extend(denied.puts.into_iter().map(Op::Denied));
    tighten.extend(marks.into_iter().map(Op::Gateway));
    tighten.extend(internal.removes.into_iter().map(Op::Internal));
    tighten.extend(addresses.removes.into_iter().map(Op::PodAddress));
    tighten.extend(interfaces.removes.into_iter().map(Op::PodInterface));
    tighten.extend(workloads.lenient_removes.into_iter().map(Op::Workload));

    // Groups, and the gateways' ports at the enforcement point, before the routes to them:
    // otherwise connects would be refused for a moment. Only what a route names is opened by it.
    let mut gateways: Vec<Op> = groups;
    gateways.extend(ports.into_iter().map(Op::Gateway));
    // The listener after its port.
    let listener = (old.tunnel != new.tunnel).then_some(new.tunnel);
    gateways.extend(listener.flatten().map(Op::Tunnel));

    let mut assign: Vec<Op> = workloads.strict_puts.into_iter().map(Op::Workload).collect();
    assign.extend(interfaces.strict_moves.into_iter().map(Op::PodInterface));

    let mut redirect: Vec<Op> = routes.strict_puts.into_iter().map(Op::Route).collect();
    redirect.extend(routes.direct_removes.into_iter().map(Op::Route));

    let mut loosen = Vec::new();
    loosen.extend(internal.puts.into_iter().map(Op::Internal));
    loosen.extend(routes.direct_puts.into_iter().map(Op::Route));
    loosen.extend(routes.strict_removes.into_iter().map(Op::Route));
    loosen.extend(unports.into_iter().map(Op::Gateway));
    loosen.extend(emptied);
    loosen.extend(listener.filter(Option::is_none).map(|_| Op::Tunnel(Tunnel::NONE)));
    // An address that was a gateway's or denied may be in a network that was internal before.
    loosen.extend(unmarks.into_iter().map(Op::Gateway));
    loosen.extend(denied.removes.into_iter().map(Op::Denied));
    // Who was not known must meet no gateway and no route that is old.
    loosen.extend(workloads.opening.into_iter().map(Op::Workload));
    loosen.extend(workloads.lenient_puts.into_iter().map(Op::Workload));
    loosen.extend(workloads.strict_removes.into_iter().map(Op::Workload));
    loosen.extend(interfaces.puts.into_iter().map(Op::PodInterface));
    loosen.extend(addresses.puts.into_iter().map(Op::PodAddress));
    loosen.extend(lenient);
    // Last: with generation zero everything is denied, so a first fill is atomic.
    if fewer.or(old.globals) != new.globals {
        loosen.extend(new.globals.map(Op::Globals));
    }
    let (close, open) = (Vec::new(), Vec::new());
    Ops { close, enforce, seclude, tighten, gateways, assign, redirect, loosen, open }
}

/// The old globals, with what is absent from both, if that is less than before.
fn fewer_absent(old: &Contents, new: &Contents) -> Option<Globals> {
    let before = old.globals?;
    let absent = before.absent & new.globals.map_or(0, |globals| globals.absent);
    (absent != before.absent).then_some(Globals { absent, ..before })
}

/// Policies that enforce from now on, and those that don't. An array's entries can't be removed.
fn policies(old: &Contents, new: &Contents) -> (Vec<Op>, Vec<Op>) {
    let mut ops = Vec::new();
    differences(&old.policies, &new.policies, |id, old, new| {
        let (old, new) = (old.copied().unwrap_or(UNWRITTEN), new.copied().unwrap_or(UNWRITTEN));
        if old != new {
            ops.push((*id, new));
        }
    });
    let (strict, lenient): (Vec<_>, Vec<_>) =
        ops.into_iter().partition(|(_, policy)| enforces(*policy));
    let op = |(id, policy)| Op::Policy(id, policy);
    (strict.into_iter().map(op).collect(), lenient.into_iter().map(op).collect())
}

/// Groups to fill, and groups to empty once no route leads there.
fn groups(old: &BTreeMap<GroupId, Group>, new: &BTreeMap<GroupId, Group>) -> (Vec<Op>, Vec<Op>) {
    let empty = Group::EMPTY;
    let (mut fill, mut drain) = (Vec::new(), Vec::new());
    differences(old, new, |id, old, new| {
        let old = old.copied().unwrap_or(empty);
        match new {
            Some(group) if *group != old => fill.push(Op::Group(*id, Box::new(*group))),
            None if old != empty => drain.push(Op::Group(*id, Box::new(empty))),
            Some(_) | None => {}
        }
    });
    (fill, drain)
}

struct Changes<K> {
    puts: Vec<Change<K, ()>>,
    removes: Vec<Change<K, ()>>,
}

fn sets<K: Copy + Ord>(old: &BTreeSet<K>, new: &BTreeSet<K>) -> Changes<K> {
    Changes {
        puts: new.difference(old).map(|key| Change::Put(*key, ())).collect(),
        removes: old.difference(new).map(|key| Change::Remove(*key)).collect(),
    }
}

type RouteChange = Change<Prefix<RouteKey>, Route>;

#[derive(Default)]
struct RouteChanges {
    strict_puts: Vec<RouteChange>,
    direct_removes: Vec<RouteChange>,
    direct_puts: Vec<RouteChange>,
    strict_removes: Vec<RouteChange>,
}

fn routes(
    old: &BTreeMap<Prefix<RouteKey>, Route>,
    new: &BTreeMap<Prefix<RouteKey>, Route>,
) -> RouteChanges {
    let direct = |route: &Route| route.action == route_action::DIRECT;
    let mut changes = RouteChanges::default();
    differences(old, new, |key, old, new| match (old, new) {
        (_, Some(route)) if direct(route) => changes.direct_puts.push(Change::Put(*key, *route)),
        (_, Some(route)) => changes.strict_puts.push(Change::Put(*key, *route)),
        (Some(route), None) if direct(route) => changes.direct_removes.push(Change::Remove(*key)),
        (_, None) => changes.strict_removes.push(Change::Remove(*key)),
    });
    changes
}

impl Contents {
    /// Makes a change here that was made in the kernel.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Globals(globals) => self.globals = Some(*globals),
            Op::Policy(id, policy) => put(&mut self.policies, &Change::Put(*id, *policy)),
            Op::Group(id, group) => put(&mut self.groups, &Change::Put(*id, **group)),
            Op::Route(change) => put(&mut self.routes, change),
            Op::Gateway(change) => put_in(&mut self.gateways, change),
            Op::Tunnel(tunnel) => self.set_tunnel(*tunnel),
            Op::Internal(change) => put_in(&mut self.internal, change),
            Op::Denied(change) => put_in(&mut self.denied, change),
            Op::PodInterface(change) => put(&mut self.pod_interfaces, change),
            Op::PodAddress(change) => put_in(&mut self.pod_addresses, change),
            Op::Workload(change) => put(&mut self.workloads, change),
        }
    }
}

fn put<K: Copy + Ord, V: Copy>(map: &mut BTreeMap<K, V>, change: &Change<K, V>) {
    match change {
        Change::Put(key, value) => drop(map.insert(*key, *value)),
        Change::Remove(key) => drop(map.remove(key)),
    }
}

fn put_in<K: Copy + Ord>(set: &mut BTreeSet<K>, change: &Change<K, ()>) {
    match change {
        Change::Put(key, ()) => drop(set.insert(*key)),
        Change::Remove(key) => drop(set.remove(key)),
    }
}

#[cfg(test)]
mod tests;
