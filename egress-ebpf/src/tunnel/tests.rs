use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
};

use super::*;
use crate::{
    abi::capacity,
    testing::{OUTSIDE, POD, POD6, addr},
};

const PORT: PortBe = PortBe::new(15001);
const PORT6: PortBe = PortBe::new(15002);
const LISTENER: &str = "192.0.2.7";
const LISTENER6: &str = "2001:db8::7";

fn end(at: &str, port: u16) -> End {
    End { addr: addr(at), port: PortBe::new(port) }
}

fn both() -> Tunnel {
    Tunnel { v4: addr(LISTENER), v6: addr(LISTENER6), port_v4: PORT, port_v6: PORT6 }
}

/// The maps.
struct Table {
    time: Cell<u64>,
    listener: Tunnel,
    asked: RefCell<HashMap<u64, OriginalDst>>,
    records: RefCell<HashMap<TunneledKey, Tunneled>>,
    turns: RefCell<HashMap<u64, u32>>,
    places: RefCell<HashMap<(u64, u32), TunneledPlace>>,
    /// The network namespace that sockets are in.
    network: Cell<u64>,
}

/// The node's network namespace, and another one.
const NODE: u64 = 1;
const ELSEWHERE: u64 = 2;

impl Table {
    fn new() -> Self {
        Self {
            time: Cell::new(5),
            listener: both(),
            asked: RefCell::default(),
            records: RefCell::default(),
            turns: RefCell::default(),
            places: RefCell::default(),
            network: Cell::new(ELSEWHERE),
        }
    }

    /// What the connect hook does for a socket.
    fn ask(&self, cookie: u64, hop: u8, there: End) {
        let asked = OriginalDst {
            cgroup: 70 + cookie,
            caller: 80 + cookie,
            share: 90 + cookie,
            network: self.network.get(),
            addr: addr(OUTSIDE),
            gateway: there.addr,
            group: 2,
            policy: 3,
            port: PortBe::new(443),
            gateway_port: there.port,
            routed_port: PortBe::new(8443),
            hop,
            reported: 0,
            pid: 0,
            reserved: 0,
            command: [0; _],
        };
        self.asked.borrow_mut().insert(cookie, asked);
    }

    /// A connection through the tunnel, as the hooks see it.
    fn tunnel(&self, cookie: u64, local: End) {
        let listener =
            if local.addr.is_v4() { end(LISTENER, 15001) } else { end(LISTENER6, 15002) };
        self.ask(cookie, hop::TUNNEL, listener);
        established(cookie, local, listener, self);
    }

    /// A SYN of a socket that was redirected, at the pod's interface.
    fn pass(&self, cookie: u64, local: End) {
        let listener =
            if local.addr.is_v4() { end(LISTENER, 15001) } else { end(LISTENER6, 15002) };
        self.ask(cookie, hop::TUNNEL, listener);
        passed(cookie, local, listener, self);
    }

    /// What the listener gets.
    fn take(&self, local: End) -> Option<Tunneled> {
        self.take_of(space::OTHER, local)
    }

    fn take_of(&self, space: u8, local: End) -> Option<Tunneled> {
        let taken = self.records.borrow_mut().remove(&local.key(space));
        taken.filter(|record| record.contested == 0 && record.is_fresh(self.time.get()))
    }
}

impl TunnelTable for Table {
    fn time(&self) -> u64 {
        self.time.get()
    }

    fn listener(&self) -> Tunnel {
        self.listener
    }

    fn node_network(&self) -> u64 {
        NODE
    }

    fn take_place(&self, cgroup: u64, record: &TunneledPlace) -> Option<TunneledPlace> {
        let mut turns = self.turns.borrow_mut();
        let turn = turns.entry(cgroup).or_default();
        *turn += 1;
        self.places.borrow_mut().insert((cgroup, *turn % capacity::TUNNELED_SHARE), *record)
    }

    fn put_record(&self, key: &TunneledKey, record: &Tunneled) {
        self.records.borrow_mut().insert(*key, *record);
    }

    fn asked(&self, cookie: u64) -> Option<OriginalDst> {
        self.asked.borrow().get(&cookie).copied()
    }

    fn set_recorded(&self, cookie: u64) {
        if let Some(asked) = self.asked.borrow_mut().get_mut(&cookie) {
            asked.hop = hop::RECORDED;
        }
    }

    fn add_record(&self, key: &TunneledKey, record: &Tunneled) -> bool {
        let mut records = self.records.borrow_mut();
        let is_new = !records.contains_key(key);
        if is_new {
            records.insert(*key, *record);
        }
        is_new
    }

    fn record(&self, key: &TunneledKey) -> Option<Tunneled> {
        self.records.borrow().get(key).copied()
    }

    fn contest(&self, key: &TunneledKey) {
        if let Some(record) = self.records.borrow_mut().get_mut(key) {
            record.contested = 1;
        }
    }

    fn remove_record(&self, key: &TunneledKey) {
        self.records.borrow_mut().remove(key);
    }
}

#[test]
fn a_socket_gets_a_listener_that_it_can_reach() {
    let (v4, v6) = (end(LISTENER, 15001), end(LISTENER6, 15002));
    let only_v4 = Tunnel { v6: Addr::UNSPECIFIED, port_v6: PortBe::new(0), ..both() };
    let only_v6 = Tunnel { v4: Addr::UNSPECIFIED, port_v4: PortBe::new(0), ..both() };
    for (tunnel, reach, expected) in [
        (both(), Reach::V4, Some(v4)),
        (both(), Reach::V4First, Some(v4)),
        (both(), Reach::V6First, Some(v6)),
        (only_v4, Reach::V4, Some(v4)),
        (only_v4, Reach::V4First, Some(v4)),
        (only_v4, Reach::V6First, Some(v4)),
        (only_v6, Reach::V4, None),
        (only_v6, Reach::V4First, Some(v6)),
        (only_v6, Reach::V6First, Some(v6)),
        (Tunnel::NONE, Reach::V4, None),
        (Tunnel::NONE, Reach::V4First, None),
        (Tunnel::NONE, Reach::V6First, None),
    ] {
        assert_eq!(tunnel.pick(reach), expected, "{reach:?} of {tunnel:?}");
        if let Some(listener) = expected {
            assert!(tunnel.is_at(listener));
        }
    }
    for elsewhere in [end(LISTENER, 15002), end(LISTENER6, 15001), end(POD, 15001), end("::", 0)] {
        assert!(!both().is_at(elsewhere), "{elsewhere:?}");
        assert!(!Tunnel::NONE.is_at(elsewhere), "{elsewhere:?}");
    }
    assert!(!only_v6.is_at(end("0.0.0.0", 0)));
}

#[test]
fn a_connection_through_the_tunnel_has_one_record_that_is_taken_once() {
    let table = Table::new();
    for local in [end(POD, 40000), end(POD6, 40000)] {
        table.tunnel(1, local);
        let record = table.take(local).unwrap();
        assert_eq!((record.addr, record.port.get()), (addr(OUTSIDE), 443));
        assert_eq!((record.group, record.policy, record.cgroup), (2, 3, 71));
        assert_eq!((record.routed_port.get(), record.time, record.cookie), (8443, 5, 1));
        assert_eq!(table.take(local), None);
    }
}

#[test]
fn who_dials_the_listener_directly_has_none() {
    let table = Table::new();
    let (local, listener) = (end(POD, 40000), end(LISTENER, 15001));
    established(1, local, listener, &table);
    assert_eq!(table.take(local), None);
    // Nor has the same socket, once its own record was made.
    table.tunnel(1, local);
    table.take(local).unwrap();
    established(1, local, listener, &table);
    assert_eq!(table.take(local), None);
    // Nor what goes to a gateway, or elsewhere than the connect hook sent it.
    table.ask(2, hop::PLAIN, listener);
    established(2, local, listener, &table);
    table.ask(3, hop::TUNNEL, listener);
    established(3, local, end(OUTSIDE, 443), &table);
    assert_eq!(table.take(local), None);
}

/// While programs are replaced, the old and the new one see each connection.
#[test]
fn two_programs_of_ours_make_one_record() {
    let table = Table::new();
    let local = end(POD, 40000);
    table.tunnel(1, local);
    established(1, local, end(LISTENER, 15001), &table);
    assert!(table.take(local).is_some());
    assert!(table.records.borrow().is_empty());
}

/// The listener may have another address by the time that the connection is established.
#[test]
fn a_connection_that_is_under_way_keeps_its_listener() {
    let mut table = Table::new();
    table.listener = Tunnel::NONE;
    table.tunnel(1, end(POD, 40000));
    assert!(table.take(end(POD, 40000)).is_some());
}

#[test]
fn what_two_sockets_claim_is_nobodys() {
    let local = end(POD, 40000);
    let listener = end(LISTENER, 15001);
    // Whoever was first, and whether the other one was redirected or dialled directly.
    for direct in [false, true] {
        let table = Table::new();
        table.tunnel(1, local);
        if direct {
            established(2, local, listener, &table);
        } else {
            table.tunnel(2, local);
        }
        assert!(table.records.borrow().contains_key(&local.key(space::OTHER)));
        assert_eq!(table.take(local), None, "direct: {direct}");
        // Taken as it is, it is out of the way.
        table.tunnel(3, local);
        assert_eq!(table.take(local).unwrap().cookie, 3);
    }
    // Another end isn't concerned.
    let table = Table::new();
    table.tunnel(1, local);
    table.tunnel(2, end(POD, 40001));
    assert_eq!(table.take(local).unwrap().cookie, 1);
    assert_eq!(table.take(end(POD, 40001)).unwrap().cookie, 2);
}

#[test]
fn what_nobody_took_in_time_serves_nobody_and_is_in_nobodys_way() {
    let table = Table::new();
    let local = end(POD, 40000);
    table.tunnel(1, local);
    table.time.set(5 + Tunneled::LIFETIME);
    table.tunnel(2, local);
    assert_eq!(table.take(local).unwrap().cookie, 2);
    table.tunnel(3, local);
    table.time.set(5 + 2 * Tunneled::LIFETIME);
    assert_eq!(table.take(local), None);
}

/// What another claims in a network of his own doesn't touch what the pod's interface has seen, nor
/// what is in the node's own network.
#[test]
fn an_end_that_was_seen_cannot_be_claimed() {
    let listener = end(LISTENER, 15001);
    for local in [end(POD, 40000), end(LISTENER, 40000)] {
        for attacker_first in [true, false] {
            let table = Table::new();
            let attack = || {
                table.network.set(ELSEWHERE);
                table.tunnel(2, local);
                established(3, local, listener, &table);
            };
            if attacker_first {
                attack();
            }
            let space = if local.addr == addr(POD) {
                table.pass(1, local);
                space::WALL
            } else {
                table.network.set(NODE);
                table.tunnel(1, local);
                space::NODE
            };
            if !attacker_first {
                attack();
            }
            assert_eq!(table.take_of(space, local).unwrap().cookie, 1, "{attacker_first}");
        }
    }
}

#[test]
fn the_interface_believes_the_socket_that_a_syn_is_of() {
    let table = Table::new();
    let (local, listener) = (end(POD, 40000), end(LISTENER, 15001));
    table.pass(1, local);
    // Sent again, it is the same; of another socket at this end, it is that one's.
    passed(1, local, listener, &table);
    table.pass(2, local);
    assert_eq!(table.take_of(space::WALL, local).unwrap().cookie, 2);
    // A raw socket asked for nothing, nor did who dials directly: what was left is gone.
    for cookie in [0, 7] {
        table.pass(1, local);
        passed(cookie, local, listener, &table);
        assert_eq!(table.take_of(space::WALL, local), None);
    }
    // Whom the connect hook sent elsewhere, or whose record was made, has asked for nothing here.
    table.ask(4, hop::PLAIN, listener);
    passed(4, local, listener, &table);
    table.ask(5, hop::RECORDED, listener);
    passed(5, local, listener, &table);
    assert_eq!(table.take_of(space::WALL, local), None);
    // What goes to a gateway leaves the records alone.
    table.pass(1, local);
    passed(0, local, end(OUTSIDE, 443), &table);
    assert!(table.take_of(space::WALL, local).is_some());
}

#[test]
fn a_workload_has_its_share_of_the_records_and_no_more() {
    let share = usize::try_from(capacity::TUNNELED_SHARE).unwrap();
    for network in [ELSEWHERE, NODE] {
        let table = Table::new();
        table.network.set(network);
        let space = if network == NODE { space::NODE } else { space::OTHER };
        // The connect hook notes the workload: the cookie says which.
        let neighbour = end("10.0.0.6", 1);
        table.tunnel(2, neighbour);
        for number in 0..3 * capacity::TUNNELED_SHARE {
            let [_, a, b, c] = number.to_be_bytes();
            table.time.set(10 + u64::from(number));
            table.tunnel(1, end(&format!("10.{a}.{b}.{c}"), 40_000));
        }
        assert_eq!(table.records.borrow().len(), share + 1);
        assert!(table.take_of(space, neighbour).is_some());
        let [_, a, b, c] = (3 * capacity::TUNNELED_SHARE - 1).to_be_bytes();
        assert!(table.take_of(space, end(&format!("10.{a}.{b}.{c}"), 40_000)).is_some());
        assert!(table.take_of(space, end("10.0.0.0", 40_000)).is_none());
    }
}

#[test]
fn an_end_that_is_used_again_keeps_its_record() {
    let table = Table::new();
    let own = end(POD, 40_000);
    table.tunnel(1, own);
    assert!(table.take(own).is_some());
    for number in 0..capacity::TUNNELED_SHARE - 2 {
        let [_, _, high, low] = number.to_be_bytes();
        table.tunnel(1, end(&format!("10.1.{high}.{low}"), 1));
    }
    // Its first record had the place that is taken next.
    table.time.set(100);
    table.tunnel(1, own);
    table.tunnel(1, end("10.2.0.1", 1));
    assert!(table.take(own).is_some());
}
