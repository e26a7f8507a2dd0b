use proptest::{prelude::*, sample::select};

use super::{
    phases::{SECOND, lifetime},
    *,
};
use crate::{
    abi::capacity,
    packet::{self, ether_type},
    testing::{
        GATEWAY, IFINDEX, INSIDE, METADATA, OUTSIDE, OUTSIDE6, POD, POD6, World, addr, ip,
        neighbour,
    },
};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// The server's port in the pod, and the client's outside.
const SERVER: u16 = 8080;
const CLIENT: u16 = 40_000;

fn read(bytes: &[u8]) -> Packet {
    let version = if bytes[0] >> 4 == 4 { ether_type::IPV4 } else { ether_type::IPV6 };
    packet::ip(&bytes, 0, version)
}

fn segment(flags: u8, (from, source): (&str, u16), (to, destination): (&str, u16)) -> Packet {
    let mut header = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    header.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    read(&ip(6, from, to, &header))
}

fn datagram((from, source): (&str, u16), (to, destination): (&str, u16)) -> Packet {
    let mut header = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    header.extend([0, 9, 0, 0, b'x']);
    read(&ip(17, from, to, &header))
}

fn echo(kind: u8, from: &str, to: &str, id: u8) -> Packet {
    let protocol = if from.contains(':') { 58 } else { 1 };
    read(&ip(protocol, from, to, &[kind, 0, 0, 0, 0, id, 0, 1]))
}

/// A world and one scope of it.
struct Table {
    world: World,
    scope: Scope,
    sender: Sender,
}

impl Table {
    fn of(scope: Scope) -> Self {
        Self { world: World::usual(), scope, sender: Sender::Itself }
    }

    fn pod() -> Self {
        Self::of(Scope::Pod(IFINDEX))
    }

    fn comes(&self, packet: &Packet) {
        track_inbound(self.scope, packet, &self.world);
    }

    fn may_leave(&self, packet: &Packet) -> bool {
        let answers = answers(self.scope, self.sender, packet, &self.world);
        if !answers && self.scope == Scope::Uplink {
            note_refused(packet, &self.world);
        }
        answers
    }

    fn entries(&self) -> usize {
        self.world.table.borrow().flows.len()
    }

    fn wait(&self, seconds: u64) {
        self.world.table.borrow_mut().now += seconds * SECOND;
    }

    /// A segment of the client's comes in.
    fn asks(&self, flags: u8) {
        self.comes(&segment(flags, (OUTSIDE, CLIENT), (POD, SERVER)));
    }

    /// Whether a segment of the server's may leave.
    fn says(&self, flags: u8) -> bool {
        self.may_leave(&segment(flags, (POD, SERVER), (OUTSIDE, CLIENT)))
    }

    fn established() -> Self {
        let table = Self::pod();
        table.asks(SYN);
        assert!(table.says(SYN | ACK));
        table.asks(ACK);
        table
    }
}

#[test]
fn a_connection_from_outside_is_answered() {
    let table = Table::pod();
    assert!(!table.says(SYN | ACK), "nobody asked");
    table.asks(SYN);
    for early in [ACK, FIN | ACK, RST, SYN, 0, SYN | FIN, SYN | RST | ACK] {
        assert!(!table.says(early), "{early:02x} before the SYN's answer");
    }
    assert!(table.says(SYN | ACK));
    assert!(table.says(SYN | ACK), "again, should it be lost");
    table.asks(ACK);
    assert!(table.says(ACK) && table.says(ACK | 8) && !table.says(SYN));
    table.asks(FIN | ACK);
    assert!(table.says(ACK) && table.says(FIN | ACK) && table.says(FIN | ACK));
    table.asks(ACK);
    table.wait(29);
    assert!(table.says(ACK));
    table.wait(1);
    assert!(!table.says(ACK));
}

#[test]
fn an_answer_is_for_that_remote_its_port_and_that_port_of_ours() {
    let table = Table::established();
    let may = |from, to| table.may_leave(&segment(ACK, from, to));
    assert!(may((POD, SERVER), (OUTSIDE, CLIENT)));
    assert!(!may((POD, SERVER), (OUTSIDE, CLIENT + 1)));
    assert!(!may((POD, SERVER + 1), (OUTSIDE, CLIENT)));
    assert!(!may((POD, SERVER), ("198.51.100.8", CLIENT)));
    assert!(!may(("10.0.0.6", SERVER), (OUTSIDE, CLIENT)));
    let elsewhere = Table { scope: Scope::Pod(IFINDEX + 1), ..table };
    assert!(!elsewhere.says(ACK), "another pod's flow");
    for scope in [Scope::Uplink, Scope::Cgroup(IFINDEX.into())] {
        let elsewhere = Table { world: elsewhere.world.clone(), scope, ..elsewhere };
        assert!(!elsewhere.says(ACK), "{scope:?}");
    }
}

#[test]
fn a_closed_port_says_so_and_nothing_more() {
    let table = Table::pod();
    table.asks(SYN);
    assert!(table.says(RST | ACK));
    assert!(!table.says(ACK) && !table.says(RST));
    table.asks(ACK);
    assert!(!table.says(ACK), "the outside can't take up what wasn't answered");
}

#[test]
fn a_sockets_own_answer_may_go_unseen_and_nobody_elses() {
    for (scope, taken) in
        [(Scope::Cgroup(42), true), (Scope::Pod(IFINDEX), false), (Scope::Uplink, false)]
    {
        let table = Table::of(scope);
        table.asks(ACK);
        assert!(!table.says(ACK), "{scope:?}: nobody asked");
        table.asks(SYN);
        assert!(!table.says(ACK), "{scope:?}: nobody took it up");
        table.asks(ACK);
        assert_eq!(table.says(ACK), taken, "{scope:?}");
        assert!(!table.says(SYN), "{scope:?}");
    }
}

#[test]
fn a_reset_ends_it() {
    let table = Table::established();
    table.asks(RST);
    assert!(!table.says(ACK));
    let table = Table::established();
    assert!(table.says(RST) && table.says(RST | ACK), "again, should it be lost");
    assert!(!table.says(ACK));
    table.asks(ACK);
    assert!(!table.says(ACK), "and the outside doesn't bring it back");
    table.wait(10);
    assert!(!table.says(RST));
    table.asks(SYN);
    assert!(table.says(SYN | ACK), "but it can begin anew");
}

#[test]
fn every_state_has_its_time() {
    let lasts = |prepare: &dyn Fn(&Table), seconds: u64, flags: u8| {
        let table = Table::pod();
        table.asks(SYN);
        prepare(&table);
        table.wait(seconds - 1);
        assert!(table.says(flags), "{seconds} s");
        table.wait(1);
        assert!(!table.says(flags), "{seconds} s");
    };
    let answered = |table: &Table| assert!(table.says(SYN | ACK));
    let established = |table: &Table| {
        answered(table);
        table.asks(ACK);
    };
    let closing = |table: &Table| {
        established(table);
        table.asks(FIN | ACK);
    };
    let closed = |table: &Table| {
        closing(table);
        assert!(table.says(FIN | ACK));
    };
    let reset = |table: &Table| {
        established(table);
        assert!(table.says(RST));
    };
    lasts(&|_| {}, 60, SYN | ACK);
    lasts(&answered, 60, ACK);
    lasts(&established, 24 * 60 * 60, ACK);
    lasts(&closing, 60, ACK);
    lasts(&closed, 30, ACK);
    lasts(&reset, 10, RST);
}

#[test]
fn what_comes_in_prolongs_and_what_goes_out_does_not() {
    let table = Table::established();
    for _ in 0..30 {
        table.wait(60 * 60);
        assert!(table.says(ACK));
        table.asks(ACK);
    }
    for _ in 0..23 {
        table.wait(60 * 60);
        assert!(table.says(ACK), "the last inbound packet is less than a day old");
    }
    table.wait(60 * 60);
    assert!(!table.says(ACK));
    table.asks(ACK);
    assert!(!table.says(ACK), "what has ended needs a SYN");
}

#[test]
fn a_forged_syn_harms_no_connection_and_prolongs_none() {
    let table = Table::established();
    table.wait(10);
    table.asks(SYN);
    assert!(table.says(ACK));
    table.wait(24 * 60 * 60 - 10);
    assert!(!table.says(ACK));
}

#[test]
fn datagrams_are_answered_for_three_minutes() {
    let table = Table::pod();
    let answer = datagram((POD, 53), (OUTSIDE, CLIENT));
    assert!(!table.may_leave(&answer));
    table.comes(&datagram((OUTSIDE, CLIENT), (POD, 53)));
    table.wait(179);
    assert!(table.may_leave(&answer));
    assert!(!table.may_leave(&datagram((POD, 54), (OUTSIDE, CLIENT))));
    assert!(!table.may_leave(&datagram((POD, 53), (OUTSIDE, CLIENT + 1))));
    assert!(!table.may_leave(&segment(ACK, (POD, 53), (OUTSIDE, CLIENT))), "that is UDP's");
    table.wait(1);
    assert!(!table.may_leave(&answer));
}

#[test]
fn a_ping_is_answered_and_nothing_else_of_icmp() {
    for (own, outside, request, reply) in [(POD, OUTSIDE, 8, 0), (POD6, OUTSIDE6, 128, 129)] {
        let table = Table::pod();
        assert!(!table.may_leave(&echo(reply, own, outside, 7)));
        table.comes(&echo(request, outside, own, 7));
        assert!(table.may_leave(&echo(reply, own, outside, 7)));
        assert!(!table.may_leave(&echo(reply, own, outside, 8)), "another identifier");
        for kind in (0..=u8::MAX).filter(|kind| *kind != reply) {
            assert!(!table.may_leave(&echo(kind, own, outside, 7)), "type {kind}");
        }
        table.wait(30);
        assert!(!table.may_leave(&echo(reply, own, outside, 7)));
        // An unasked answer from an external host makes nothing.
        let table = Table::pod();
        table.comes(&echo(reply, outside, own, 7));
        assert_eq!(table.entries(), 0);
    }
}

#[test]
fn only_what_begins_outside_or_at_a_gateway_makes_an_entry() {
    let table = Table::pod();
    for from in [INSIDE, METADATA, "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"] {
        table.comes(&segment(SYN, (from, CLIENT), (POD, SERVER)));
        table.comes(&datagram((from, CLIENT), (POD, SERVER)));
        table.comes(&echo(8, from, POD, 7));
    }
    table.comes(&segment(SYN, ("fe80::1", CLIENT), (POD6, SERVER)));
    table.comes(&read(&neighbour(135, OUTSIDE6, POD6, POD6)));
    for flags in (0..=u8::MAX).filter(|flags| flags & (SYN | ACK | RST | FIN) != SYN) {
        table.asks(flags);
    }
    table.comes(&read(&ip(47, OUTSIDE, POD, &[0; 40])));
    let mut options = ip(17, OUTSIDE, POD, &[0; 40]);
    options[0] = 0x46;
    table.comes(&read(&options));
    assert_eq!(table.entries(), 0);
    table.asks(SYN);
    assert_eq!(table.entries(), 2, "the flow, and that the pod has seen the remote");
    table.comes(&datagram((GATEWAY, CLIENT), (POD, SERVER)));
    assert_eq!(table.entries(), 4);
}

#[test]
fn a_fragment_is_no_answer() {
    let table = Table::established();
    let mut packet = segment(ACK, (POD, SERVER), (OUTSIDE, CLIENT));
    assert!(table.may_leave(&packet));
    packet.flow.fragment = true;
    assert!(!table.may_leave(&packet));
}

#[test]
fn at_the_uplink_datagrams_need_a_pod_that_has_seen_the_remote() {
    let uplink = |sender| Table { sender, ..Table::of(Scope::Uplink) };
    // The node's address on the wire, the pod's behind the translation.
    const NODE: &str = "10.1.0.1";
    let answers = [datagram((NODE, 30_053), (OUTSIDE, CLIENT)), echo(0, NODE, OUTSIDE, 7)];
    for sender in [Sender::Unknown, Sender::Pod(IFINDEX), Sender::Pod(IFINDEX + 1)] {
        let table = uplink(sender);
        table.comes(&datagram((OUTSIDE, CLIENT), (NODE, 30_053)));
        table.comes(&echo(8, OUTSIDE, NODE, 7));
        for answer in &answers {
            assert!(!table.may_leave(answer), "{sender:?}");
        }
        // Now the pod sees it, under the remote's own address.
        let seen = datagram((OUTSIDE, CLIENT), (POD, 53));
        track_inbound(Scope::Pod(IFINDEX), &seen, &table.world);
        for answer in &answers {
            assert_eq!(table.may_leave(answer), sender == Sender::Pod(IFINDEX), "{sender:?}");
        }
        table.wait(180);
        assert!(!table.may_leave(&answers[0]));
    }
}

#[test]
fn at_the_uplink_tcp_needs_the_insides_syn_and_ack() {
    const NODE: &str = "10.1.0.1";
    for sender in [Sender::Unknown, Sender::Pod(IFINDEX)] {
        let table = Table { sender, ..Table::of(Scope::Uplink) };
        let says = |flags| table.may_leave(&segment(flags, (NODE, 30_080), (OUTSIDE, CLIENT)));
        let asks = |flags| table.comes(&segment(flags, (OUTSIDE, CLIENT), (NODE, 30_080)));
        asks(SYN);
        assert!(!says(ACK) && !says(RST) && !says(FIN | ACK));
        assert!(!says(RST | ACK), "a reset proves no connection");
        assert!(says(SYN | ACK));
        asks(ACK);
        assert!(says(ACK));
        assert!(says(RST | ACK));
    }
}

#[test]
fn a_simultaneous_open_makes_no_flow_at_the_uplink() {
    const NODE: &str = "10.1.0.1";
    let table = Table { sender: Sender::Pod(IFINDEX), ..Table::of(Scope::Uplink) };
    table.wait(1);
    let says = |flags| table.may_leave(&segment(flags, (NODE, 33_000), (OUTSIDE, 443)));
    let asks = |flags| table.comes(&segment(flags, (OUTSIDE, 443), (NODE, 33_000)));
    assert!(!says(SYN));
    asks(SYN);
    assert!(!says(SYN | ACK), "the inside asked first");
    assert_eq!(table.entries(), 0);
    // Another port of the remote's is another matter.
    table.comes(&segment(SYN, (OUTSIDE, CLIENT), (NODE, 33_000)));
    assert!(table.may_leave(&segment(SYN | ACK, (NODE, 33_000), (OUTSIDE, CLIENT))));
    table.wait(179);
    asks(SYN);
    assert!(!says(SYN | ACK));
    table.wait(1);
    asks(SYN);
    assert!(says(SYN | ACK), "connection tracking has forgotten the inside's SYN");
}

#[test]
fn a_system_call_may_send_where_datagrams_came_from() {
    let table = Table::of(Scope::Cgroup(42));
    table.wait(1);
    let to = |protocol, remote: &str, port| Flow {
        destination: addr(remote),
        destination_port: PortBe::new(port),
        protocol,
        ..Flow::UNKNOWN
    };
    assert!(!may_send(42, &to(17, OUTSIDE, CLIENT), &table.world));
    table.comes(&datagram((OUTSIDE, CLIENT), (POD, 53)));
    assert!(may_send(42, &to(17, OUTSIDE, CLIENT), &table.world));
    assert!(!may_send(43, &to(17, OUTSIDE, CLIENT), &table.world));
    assert!(!may_send(42, &to(17, OUTSIDE, CLIENT + 1), &table.world));
    assert!(!may_send(42, &to(6, OUTSIDE, CLIENT), &table.world));
    table.wait(180);
    assert!(!may_send(42, &to(17, OUTSIDE, CLIENT), &table.world));
    let table = Table::of(Scope::Cgroup(42));
    table.comes(&segment(SYN, (OUTSIDE, CLIENT), (POD, 53)));
    assert!(!may_send(42, &to(17, OUTSIDE, CLIENT), &table.world), "that was TCP");
}

#[test]
fn an_unknown_phase_lets_nothing_pass() {
    for phase in 8..64 {
        let state = FlowState { last_inbound: 0, phase, reserved: 0 };
        for signal in [Signal::Ack, Signal::SynAck, Signal::Datagram, Signal::EchoReply] {
            assert_eq!(reply(signal, state, 0, true), None);
        }
    }
}

const SIGNALS: [Signal; 11] = [
    Signal::Other,
    Signal::Datagram,
    Signal::EchoRequest,
    Signal::EchoReply,
    Signal::Syn,
    Signal::SynAck,
    Signal::Ack,
    Signal::Fin,
    Signal::Rst,
    Signal::RstAck,
    Signal::FlowError,
];

/// What happens to one flow: a packet comes in, one wants to go out, or time passes.
#[derive(Clone, Copy, Debug)]
enum Step {
    In(Signal),
    Out(Signal),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = select(vec![0, 1, 9, 30, 59, 61, 179, 181, 86_399, 86_401]);
    let step = prop_oneof![
        4 => select(SIGNALS.to_vec()).prop_map(Step::In),
        4 => select(SIGNALS.to_vec()).prop_map(Step::Out),
        1 => wait.prop_map(|seconds| Step::Wait(seconds * SECOND)),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn only_the_outside_begins_and_prolongs(steps in steps(), known: bool) {
        let mut entry: Option<FlowState> = None;
        let mut now = 1_000 * SECOND;
        // The model: what the outside asked last, and when it spoke last.
        let (mut asked, mut answered, mut spoke) = (None, false, 0);
        for step in steps {
            match step {
                Step::Wait(time) => now += time,
                Step::In(signal) => {
                    match observe(signal, entry, now) {
                        Observed::Nothing => {}
                        Observed::Entry(state) => {
                            prop_assert_eq!(state.last_inbound, now);
                            entry = Some(state);
                        }
                        Observed::End => entry = None,
                    }
                    spoke = now;
                    if matches!(signal, Signal::Syn | Signal::Datagram | Signal::EchoRequest) {
                        // A SYN may begin anew, or be a copy of one that was answered.
                        answered &= signal == Signal::Syn && asked == Some(signal);
                        asked = Some(signal);
                    }
                }
                Step::Out(signal) => {
                    let Some(before) = entry else { continue };
                    let Some(after) = reply(signal, before, now, known) else { continue };
                    prop_assert_eq!(after.last_inbound, before.last_inbound, "never prolonged");
                    prop_assert!(lifetime(after.phase) <= lifetime(before.phase)
                        || before.phase == flow_phase::ASKED, "never made to last longer");
                    prop_assert!(now - spoke < idle::ESTABLISHED);
                    match signal {
                        Signal::Datagram => prop_assert!(asked == Some(Signal::Datagram) && known),
                        Signal::EchoReply => {
                            prop_assert!(asked == Some(Signal::EchoRequest) && known);
                        }
                        Signal::SynAck => {
                            prop_assert_eq!(asked, Some(Signal::Syn));
                            answered = true;
                        }
                        Signal::RstAck => {
                            prop_assert!(asked == Some(Signal::Syn) && (answered || known));
                        }
                        Signal::Ack | Signal::Fin | Signal::Rst => {
                            prop_assert!(asked == Some(Signal::Syn) && answered);
                        }
                        Signal::FlowError => {
                            prop_assert!(asked.is_some() && known);
                            prop_assert_eq!(after, before);
                        }
                        Signal::Syn | Signal::EchoRequest | Signal::Error | Signal::Other => {
                            prop_assert!(false, "{:?} answers nothing", signal);
                        }
                    }
                    entry = Some(after);
                }
            }
        }
    }

    /// Whatever a workload sends through all scopes, without an inbound packet nothing passes
    /// and nothing is stored.
    #[test]
    fn without_the_outside_there_is_no_flow(
        packets in prop::collection::vec((0_u8..3, any::<u8>(), any::<u16>()), 1..20),
    ) {
        let world = World::usual();
        for (kind, value, port) in packets {
            let packet = match kind {
                0 => segment(value, (POD, port), (OUTSIDE, CLIENT)),
                1 => datagram((POD, port), (OUTSIDE, CLIENT)),
                _ => echo(value, POD, OUTSIDE, 7),
            };
            for scope in [Scope::Pod(IFINDEX), Scope::Uplink, Scope::Cgroup(1)] {
                for sender in [Sender::Itself, Sender::Pod(IFINDEX), Sender::Unknown] {
                    prop_assert!(!answers(scope, sender, &packet, &world));
                }
            }
            note_refused(&packet, &world);
        }
        prop_assert!(world.table.borrow().flows.is_empty());
    }

    #[test]
    fn a_slot_is_in_the_map(octets: [u8; 16], port: u16) {
        prop_assert!(slot(&Addr::v6(octets), PortBe::new(port)) < REFUSED_SYNS);
    }
}

/// Entries of a scope, and of another one.
fn counted(world: &World, scope: Scope) -> usize {
    let id = match scope {
        Scope::Pod(ifindex) => ifindex.into(),
        Scope::Cgroup(id) => id,
        Scope::Uplink => 0,
    };
    world.table.borrow().flows.keys().filter(|key| key.scope == id).count()
}

/// A datagram from the outside with this number, to the pod.
fn flood(number: u32) -> Packet {
    let [_, a, b, c] = number.to_be_bytes();
    datagram((&format!("198.{}.{b}.{c}", 18 + (a & 1)), CLIENT), (POD, SERVER))
}

#[test]
fn who_fills_the_table_makes_room_among_its_own() {
    let share = usize::try_from(capacity::FLOWS_SHARE).unwrap();
    for (scope, other) in [(Scope::Pod(7), Scope::Pod(8)), (Scope::Cgroup(7), Scope::Cgroup(8))] {
        let world = World::usual();
        let asked = datagram((OUTSIDE, CLIENT), (POD, SERVER));
        track_inbound(other, &asked, &world);
        let others = counted(&world, other);
        assert!(others > 0);
        for number in 0..3 * capacity::FLOWS_SHARE {
            track_inbound(scope, &flood(number), &world);
            assert!(number % 512 != 0 || counted(&world, scope) <= share, "{number}");
        }
        assert_eq!(counted(&world, scope), share, "{scope:?}");
        assert_eq!(counted(&world, other), others, "{scope:?}");
        let answer = datagram((POD, SERVER), (OUTSIDE, CLIENT));
        assert!(answers(other, Sender::Itself, &answer, &world), "{scope:?}");
        // The newest are there, the oldest are not.
        let answered = |number: u32| {
            let Packet { flow, .. } = flood(number);
            let to = std::net::IpAddr::from(flow.source).to_string();
            answers(scope, Sender::Itself, &datagram((POD, SERVER), (&to, CLIENT)), &world)
        };
        assert!(answered(3 * capacity::FLOWS_SHARE - 1), "{scope:?}");
        assert!(!answered(0), "{scope:?}");
    }
}

#[test]
fn established_connections_are_the_last_to_make_way() {
    let world = World::usual();
    let scope = Scope::Cgroup(7);
    let (client, server) = ((OUTSIDE, CLIENT), (POD, SERVER));
    track_inbound(scope, &segment(SYN, client, server), &world);
    assert!(answers(scope, Sender::Itself, &segment(SYN | ACK, server, client), &world));
    track_inbound(scope, &segment(ACK, client, server), &world);
    for number in 0..3 * capacity::FLOWS_SHARE {
        track_inbound(scope, &flood(number), &world);
    }
    assert!(answers(scope, Sender::Itself, &segment(ACK, server, client), &world));
    // One whose answer never came goes with the rest.
    let idle = (OUTSIDE, CLIENT + 1);
    track_inbound(scope, &segment(SYN, idle, server), &world);
    for number in 0..3 * capacity::FLOWS_SHARE {
        track_inbound(scope, &flood(number), &world);
    }
    assert!(!answers(scope, Sender::Itself, &segment(SYN | ACK, server, idle), &world));
    assert!(answers(scope, Sender::Itself, &segment(ACK, server, client), &world));
}

#[test]
fn a_scope_of_nothing_but_established_connections_has_its_share_all_the_same() {
    let world = World::usual();
    let scope = Scope::Cgroup(7);
    for number in 0..2 * capacity::FLOWS_SHARE {
        let [_, _, b, c] = number.to_be_bytes();
        let from = format!("198.18.{b}.{c}");
        let (client, server) = ((&*from, CLIENT), (POD, SERVER));
        track_inbound(scope, &segment(SYN, client, server), &world);
        assert!(answers(scope, Sender::Itself, &segment(SYN | ACK, server, client), &world));
        track_inbound(scope, &segment(ACK, client, server), &world);
    }
    assert_eq!(counted(&world, scope), usize::try_from(capacity::FLOWS_SHARE).unwrap());
}
