//! Making the maps hold what they should.

use std::hash::Hash;

use aya::{
    Ebpf,
    maps::{
        Array, HashMap, Map, MapData, MapError,
        lpm_trie::{Key, LpmTrie},
    },
};
use egress_ebpf::{
    abi::{GatewayKey, Globals, Group, Policy, PolicyId, Route, RouteKey, Tunnel},
    addr::Addr,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    Error,
    diff::{Change, Op, diff},
    epoch::Epoch,
    handle::{absent, named, typed},
    pins::Pins,
    plan::{Contents, Prefix},
    pod::Raw,
    slots::{KernelMaps, Slots},
};

type Set<K, V> = HashMap<MapData, K, V>;
type Trie<K, V> = LpmTrie<MapData, Raw<K>, V>;

/// The policy maps, and what they hold.
pub struct Maps {
    globals: Array<MapData, Raw<Globals>>,
    policies: Array<MapData, Raw<Policy>>,
    routes: Trie<RouteKey, Raw<Route>>,
    groups: Array<MapData, Raw<Group>>,
    gateways: Set<Raw<GatewayKey>, u32>,
    tunnel: Array<MapData, Raw<Tunnel>>,
    internal: Trie<Addr, u32>,
    denied: Trie<Addr, u32>,
    slots: Slots<KernelMaps>,
    workloads: Set<u64, PolicyId>,
    epoch: Epoch,
    current: Contents,
}

/// Attaching to a cgroup lists it too, so the object keeps its handle.
fn workloads(pins: &Pins) -> Result<Set<u64, PolicyId>, Error> {
    const MAP: &str = "WORKLOADS";
    let map = named(MAP, MapData::from_pin(pins.maps().join(MAP)))?;
    named(MAP, HashMap::try_from(Map::HashMap(map)))
}

impl Maps {
    /// Takes the maps and reads what an earlier agent left in them.
    pub(super) fn take(ebpf: &mut Ebpf, pins: &Pins) -> Result<Self, Error> {
        let slots = KernelMaps::take(ebpf)?;
        let left = slots.read()?;
        let mut maps = Self {
            globals: typed(ebpf, "GLOBALS")?,
            policies: typed(ebpf, "POLICIES")?,
            routes: typed(ebpf, "ROUTES")?,
            groups: typed(ebpf, "GROUPS")?,
            gateways: typed(ebpf, "GATEWAYS")?,
            tunnel: typed(ebpf, "TUNNEL")?,
            internal: typed(ebpf, "INTERNAL")?,
            denied: typed(ebpf, "DENIED")?,
            slots: Slots::take(slots, left)?,
            workloads: workloads(pins)?,
            epoch: Epoch::take(ebpf)?,
            current: Contents::default(),
        };
        maps.current = maps.read()?;
        Ok(maps)
    }

    /// What the maps hold.
    #[must_use]
    pub fn current(&self) -> &Contents {
        &self.current
    }

    /// How many gateway groups there may be.
    #[must_use]
    pub fn max_groups(&self) -> u32 {
        self.groups.len()
    }

    /// Makes the maps hold `desired`. Returns how many changes were made.
    ///
    /// # Errors
    /// What couldn't be done, each on its own. Nothing that lets out more follows a failure to take
    /// something away, so what a full map refuses stays denied.
    pub fn reconcile(&mut self, desired: &Contents) -> Result<usize, Vec<Error>> {
        let ops = diff(&self.current, desired);
        let mut errors = ops.make(|op| self.make(op));
        errors.extend(self.epoch.open().err());
        if errors.is_empty() { Ok(ops.count()) } else { Err(errors) }
    }

    /// Makes one change. One that fails changes nothing, so what the maps hold stays known.
    fn make(&mut self, op: &Op) -> Result<(), Error> {
        self.epoch.before(op)?;
        self.apply(op)?;
        self.current.apply(op);
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::Globals(globals) => named("GLOBALS", self.globals.set(0, Raw(*globals), 0)),
            Op::Policy(id, policy) => named("POLICIES", self.policies.set(*id, Raw(*policy), 0)),
            Op::Group(id, group) => named("GROUPS", self.groups.set(*id, Raw(**group), 0)),
            Op::Route(Change::Put(key, route)) => {
                named("ROUTES", self.routes.insert(&trie_key(key), Raw(*route), 0))
            }
            Op::Route(Change::Remove(key)) => {
                named("ROUTES", absent(self.routes.remove(&trie_key(key))))
            }
            Op::Gateway(change) => named("GATEWAYS", change_set(&mut self.gateways, change)),
            Op::Tunnel(tunnel) => named("TUNNEL", self.tunnel.set(0, Raw(*tunnel), 0)),
            Op::Internal(change) => named("INTERNAL", change_trie(&mut self.internal, change)),
            Op::Denied(change) => named("DENIED", change_trie(&mut self.denied, change)),
            Op::PodInterface(Change::Put(index, port)) => self.slots.put(*index, *port),
            Op::PodInterface(Change::Remove(index)) => self.slots.remove(*index),
            Op::PodAddress(Change::Put(address, ())) => self.slots.add(address),
            Op::PodAddress(Change::Remove(address)) => self.slots.remove_address(address),
            Op::Workload(Change::Put(id, policy)) => {
                named("WORKLOADS", self.workloads.insert(id, policy, 0))
            }
            Op::Workload(Change::Remove(id)) => {
                named("WORKLOADS", absent(self.workloads.remove(id)))
            }
        }
    }

    /// Reads everything from the kernel.
    fn read(&self) -> Result<Contents, Error> {
        let globals = named("GLOBALS", self.globals.get(&0, 0))?.0;
        let mut contents = Contents {
            globals: (globals.generation != 0).then_some(globals),
            ..Contents::default()
        };
        for (id, policy) in (0..).zip(self.policies.iter()) {
            let Raw(policy) = named("POLICIES", policy)?;
            if policy != (Policy { mode: 0, table: 0 }) {
                contents.policies.insert(id, policy);
            }
        }
        for (id, group) in (0..).zip(self.groups.iter()) {
            let Raw(group) = named("GROUPS", group)?;
            if group.count != 0 {
                contents.groups.insert(id, group);
            }
        }
        for entry in self.routes.iter() {
            let (key, Raw(route)) = named("ROUTES", entry)?;
            contents.routes.insert(prefix(key), route);
        }
        for key in self.gateways.keys() {
            contents.gateways.insert(named("GATEWAYS", key)?.0);
        }
        let tunnel = named("TUNNEL", self.tunnel.get(&0, 0))?.0;
        contents.set_tunnel(tunnel);
        for key in self.internal.keys() {
            contents.internal.insert(prefix(named("INTERNAL", key)?));
        }
        for key in self.denied.keys() {
            contents.denied.insert(prefix(named("DENIED", key)?));
        }
        contents.pod_interfaces = self.slots.interfaces();
        contents.pod_addresses = self.slots.addresses();
        for entry in self.workloads.iter() {
            let (id, policy) = named("WORKLOADS", entry)?;
            contents.workloads.insert(id, policy);
        }
        Ok(contents)
    }
}

fn change_set<K>(map: &mut Set<Raw<K>, u32>, change: &Change<K, ()>) -> Result<(), MapError>
where
    K: IntoBytes + FromBytes + Immutable + Copy + Eq + Hash + 'static,
{
    match change {
        Change::Put(key, ()) => map.insert(Raw(*key), 1, 0),
        Change::Remove(key) => absent(map.remove(&Raw(*key))),
    }
}

fn change_trie(
    map: &mut Trie<Addr, u32>,
    change: &Change<Prefix<Addr>, ()>,
) -> Result<(), MapError> {
    match change {
        Change::Put(key, ()) => map.insert(&trie_key(key), 1, 0),
        Change::Remove(key) => absent(map.remove(&trie_key(key))),
    }
}

fn trie_key<T>(key: &Prefix<T>) -> Key<Raw<T>>
where
    T: IntoBytes + FromBytes + Immutable + Copy + 'static,
{
    Key::new(key.bits, Raw(key.data))
}

fn prefix<T>(key: Key<Raw<T>>) -> Prefix<T>
where
    T: IntoBytes + FromBytes + Immutable + Copy + 'static,
{
    Prefix { bits: key.prefix_len(), data: key.data().0 }
}
