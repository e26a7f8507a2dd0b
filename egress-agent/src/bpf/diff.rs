//! From what the maps hold to what they should, in an order that opens nothing on the way.
//!
//! Between two steps a packet may meet any mixture of old and new. The order guarantees: what is
//! let out directly in a mixture was let out by the old contents or is by the new ones. The
//! argument for routes, where the longest prefix wins: redirects and denials are put first, which
//! only ever takes directness away; then direct entries that go are removed, while every old
//! redirect is still there to catch what was below it; then new direct entries are put, while every
//! new redirect is there already; at last old redirects go, when only new direct entries are left.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
};

use egress_ebpf::{
    abi::{
        GatewayKey, Globals, Group, GroupId, PodAddress, Policy, PolicyId, Route, RouteKey, mode,
        route_action,
    },
    addr::{Addr, PortBe},
};

use super::plan::{Contents, Prefix};

/// A change of a map's entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change<K, V> {
    /// Add or overwrite.
    Put(K, V),
    /// Remove.
    Remove(K),
}

/// One change of one map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Of `GLOBALS`.
    Globals(Globals),
    /// Of `POLICIES`.
    Policy(PolicyId, Policy),
    /// Of `ROUTES`.
    Route(Change<Prefix<RouteKey>, Route>),
    /// Of `GROUPS`.
    Group(GroupId, Box<Group>),
    /// Of `GATEWAYS`.
    Gateway(Change<GatewayKey, ()>),
    /// Of `INTERNAL`.
    Internal(Change<Prefix<Addr>, ()>),
    /// Of `DENIED`.
    Denied(Change<Prefix<Addr>, ()>),
    /// Of `POD_INTERFACES`.
    PodInterface(Change<u32, PolicyId>),
    /// Of `POD_ADDRESSES`.
    PodAddress(Change<PodAddress, ()>),
}

/// Changes in the order in which they are to be made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ops {
    /// They only take away. A failed one leaves something as it was.
    pub tighten: Vec<Op>,
    /// Groups and gateways' ports, which open the wall for what the new routes name, unless it is
    /// denied: when one of `tighten` failed, none of these may follow.
    pub gateways: Vec<Op>,
    /// They redirect or refuse what was direct. A failed one leaves something as it was.
    pub redirect: Vec<Op>,
    /// They may let out more, each relying on all before it being done: when one failed, none may
    /// follow.
    pub loosen: Vec<Op>,
}

impl Ops {
    /// How many changes.
    pub fn count(&self) -> usize {
        let Self { tighten, gateways, redirect, loosen } = self;
        tighten.len() + gateways.len() + redirect.len() + loosen.len()
    }

    /// Makes the changes by `apply`, leaving out those that must not follow a failure. Gives back
    /// what failed.
    pub fn make<E>(&self, mut apply: impl FnMut(&Op) -> Result<(), E>) -> Vec<E> {
        let mut errors: Vec<E> = self.tighten.iter().filter_map(|op| apply(op).err()).collect();
        if errors.is_empty() {
            errors.extend(self.gateways.iter().filter_map(|op| apply(op).err()));
        }
        errors.extend(self.redirect.iter().filter_map(|op| apply(op).err()));
        if errors.is_empty() {
            errors.extend(self.loosen.iter().find_map(|op| apply(op).err()));
        }
        errors
    }
}

/// What to do to get from `old` to `new`.
#[must_use]
pub fn diff(old: &Contents, new: &Contents) -> Ops {
    let policies = policies(old, new);
    let (strict, lax): (Vec<Op>, Vec<Op>) =
        policies.into_iter().partition(|op| matches!(op, Op::Policy(_, p) if enforces(*p)));
    let gateways = sets(&old.gateways, &new.gateways);
    let internal = sets(&old.internal, &new.internal);
    let denied = sets(&old.denied, &new.denied);
    let addresses = sets(&old.pod_addresses, &new.pod_addresses);
    let interfaces = maps(old.pod_interfaces.iter(), &new.pod_interfaces);
    let routes = routes(&old.routes, &new.routes);
    let (groups, emptied) = groups(&old.groups, &new.groups);
    let is_mark = |key: &GatewayKey| key.port == PortBe::new(0) && key.protocol == 0;
    let (marks, ports): (Vec<_>, Vec<_>) =
        gateways.puts.into_iter().partition(|change| is_mark(change.key()));
    let (unmarks, unports): (Vec<_>, Vec<_>) =
        gateways.removes.into_iter().partition(|change| is_mark(change.key()));

    let mut tighten = strict;
    tighten.extend(denied.puts.into_iter().map(Op::Denied));
    tighten.extend(marks.into_iter().map(Op::Gateway));
    tighten.extend(internal.removes.into_iter().map(Op::Internal));
    tighten.extend(addresses.removes.into_iter().map(Op::PodAddress));
    tighten.extend(interfaces.removes.into_iter().map(Op::PodInterface));

    // Groups, and the gateways' ports at the wall, before the routes that lead there: otherwise
    // connects would be refused for a moment. Only what a route names is opened by it.
    let mut gateways: Vec<Op> = groups;
    gateways.extend(ports.into_iter().map(Op::Gateway));

    let mut redirect: Vec<Op> = routes.strict_puts.into_iter().map(Op::Route).collect();
    redirect.extend(routes.direct_removes.into_iter().map(Op::Route));

    let mut loosen = Vec::new();
    loosen.extend(internal.puts.into_iter().map(Op::Internal));
    loosen.extend(routes.direct_puts.into_iter().map(Op::Route));
    loosen.extend(routes.strict_removes.into_iter().map(Op::Route));
    loosen.extend(interfaces.puts.into_iter().map(Op::PodInterface));
    loosen.extend(addresses.puts.into_iter().map(Op::PodAddress));
    loosen.extend(unports.into_iter().map(Op::Gateway));
    loosen.extend(emptied);
    // An address that was a gateway's or denied may be in a network that was internal before.
    loosen.extend(unmarks.into_iter().map(Op::Gateway));
    loosen.extend(denied.removes.into_iter().map(Op::Denied));
    loosen.extend(lax);
    // Last: with generation zero everything is denied, so a first fill is atomic.
    if old.globals != new.globals {
        loosen.extend(new.globals.map(Op::Globals));
    }
    Ops { tighten, gateways, redirect, loosen }
}

impl<K, V> Change<K, V> {
    fn key(&self) -> &K {
        match self {
            Self::Put(key, _) | Self::Remove(key) => key,
        }
    }
}

/// An unknown mode enforces.
fn enforces(policy: Policy) -> bool {
    policy.mode != mode::AUDIT && policy.mode != mode::EXEMPT
}

fn policies(old: &Contents, new: &Contents) -> Vec<Op> {
    // Entries of an array can't be removed; zero enforces table 0.
    let zero = Policy { mode: mode::ENFORCE, table: 0 };
    let gone = old.policies.keys().filter(|id| !new.policies.contains_key(id));
    let gone = gone.map(|id| (*id, zero));
    let there = new.policies.iter().map(|(id, policy)| (*id, *policy));
    gone.chain(there)
        .filter(|(id, policy)| old.policies.get(id).copied().unwrap_or(zero) != *policy)
        .map(|(id, policy)| Op::Policy(id, policy))
        .collect()
}

/// Groups to fill, and groups to empty once no route leads there.
fn groups(old: &BTreeMap<GroupId, Group>, new: &BTreeMap<GroupId, Group>) -> (Vec<Op>, Vec<Op>) {
    let empty = Group::EMPTY;
    let before = |id: &GroupId| old.get(id).copied().unwrap_or(empty);
    let fill = new
        .iter()
        .filter(|(id, group)| before(id) != **group)
        .map(|(id, group)| Op::Group(*id, Box::new(*group)));
    let drain = old
        .iter()
        .filter(|(id, group)| !new.contains_key(id) && **group != empty)
        .map(|(id, _)| Op::Group(*id, Box::new(empty)));
    (fill.collect(), drain.collect())
}

struct Changes<K, V> {
    puts: Vec<Change<K, V>>,
    removes: Vec<Change<K, V>>,
}

fn sets<K: Copy + Eq + Hash>(old: &HashSet<K>, new: &HashSet<K>) -> Changes<K, ()> {
    Changes {
        puts: new.difference(old).map(|key| Change::Put(*key, ())).collect(),
        removes: old.difference(new).map(|key| Change::Remove(*key)).collect(),
    }
}

fn maps<'a>(
    old: impl Iterator<Item = (&'a u32, &'a PolicyId)>,
    new: &BTreeMap<u32, PolicyId>,
) -> Changes<u32, PolicyId> {
    let old: BTreeMap<u32, PolicyId> = old.map(|(key, value)| (*key, *value)).collect();
    let puts = new.iter().filter(|(key, value)| old.get(key) != Some(value));
    let removes = old.keys().filter(|key| !new.contains_key(key));
    Changes {
        puts: puts.map(|(key, value)| Change::Put(*key, *value)).collect(),
        removes: removes.map(|key| Change::Remove(*key)).collect(),
    }
}

type RouteChange = Change<Prefix<RouteKey>, Route>;

struct RouteChanges {
    strict_puts: Vec<RouteChange>,
    direct_removes: Vec<RouteChange>,
    direct_puts: Vec<RouteChange>,
    strict_removes: Vec<RouteChange>,
}

fn routes(
    old: &HashMap<Prefix<RouteKey>, Route>,
    new: &HashMap<Prefix<RouteKey>, Route>,
) -> RouteChanges {
    let direct = |route: &Route| route.action == route_action::DIRECT;
    let puts = new.iter().filter(|(key, route)| old.get(*key) != Some(route));
    let (direct_puts, strict_puts): (Vec<_>, Vec<_>) = puts.partition(|(_, route)| direct(route));
    let removes = old.iter().filter(|(key, _)| !new.contains_key(*key));
    let (direct_removes, strict_removes): (Vec<_>, Vec<_>) =
        removes.partition(|(_, route)| direct(route));
    let put = |entries: Vec<(&Prefix<RouteKey>, &Route)>| {
        entries.into_iter().map(|(key, route)| Change::Put(*key, *route)).collect()
    };
    let remove = |entries: Vec<(&Prefix<RouteKey>, &Route)>| {
        entries.into_iter().map(|(key, _)| Change::Remove(*key)).collect()
    };
    RouteChanges {
        strict_puts: put(strict_puts),
        direct_removes: remove(direct_removes),
        direct_puts: put(direct_puts),
        strict_removes: remove(strict_removes),
    }
}

#[cfg(test)]
mod tests;
