//! Frames at the places where packets are judged: the pod's interface, the uplink, and a workload's
//! sockets; after frames that came in there.

use egress_ebpf::{
    abi::action,
    addr::Addr,
    hooks::{self, ForwardPath, Namespace, Socket, View, Workload},
    inbound::Scope,
    packet::Flow,
    reason::Reason,
    verdict::{CGROUP_PASS, CGROUP_REFUSE, Judgement, TC_DROP, TC_NEXT},
};

use crate::{
    frame::{self, Discovery, Frame, Packet, TCP},
    random::Random,
    world::{Expected, INTERFACES, World, is_link},
};

impl View for World {}

/// Cgroups of workloads; zero is none.
const CGROUPS: [u64; 3] = [0, 5, 6];
/// The index of another interface than pods'.
const BRIDGE: u32 = 101;
const SECOND: u64 = 1_000_000_000;

/// A random world, random frames that come in, and a random frame that goes out, or the bytes
/// themselves as one: what a program lets out, the oracle allows, which reads the frame and the
/// world in its own way; and plain TCP that it allows does pass.
pub fn packet(bytes: &[u8]) {
    let mut random = Random::new(bytes);
    let world = World::random(&mut random);
    let ifindex = random.choose(&INTERFACES);
    let cgroup = random.choose(&CGROUPS);
    let bridged = random.bool();
    let workload = random.bool().then(|| Workload { policy: random.policy(), cgroup });
    let mut seen = Inbound::default();
    for _ in 0..random.below(4) {
        let frame = frame::random(&mut random);
        seen.come_in(&mut random, &world, ifindex, cgroup, &frame);
    }
    let frame = match random.u8() {
        0..0x60 => frame::random(&mut random),
        0x60..0xc0 => match seen.last.clone() {
            Some(frame) => frame::turned(&mut random, &frame),
            None => frame::random(&mut random),
        },
        _ => random.rest().to_vec(),
    };
    let frame = frame.as_slice();
    let sound = frame::read(frame);
    let case = Case { frame, sound, seen: &seen };

    let at_pod = |frame: &[u8], vlan| hooks::pod(&frame, ifindex, vlan, &world);
    case.check(At::Pod, world.at_pod(ifindex, sound), tc(at_pod(frame, false)));
    case.check(At::Pod, world.at_pod(ifindex, None), tc(at_pod(frame, true)));

    let policy = workload.map(|workload| workload.policy);
    // Which pod's program let it pass is known, or else where it came in.
    let pod = if bridged { ifindex } else { 0 };
    let came_in_on = if bridged { BRIDGE } else { ifindex };
    let way = ForwardPath {
        came_in_on,
        pod,
        by_unknown_port: bridged,
        namespace: Namespace::Node,
        socket: Socket::None,
    };
    let at_uplink = |vlan| hooks::uplink(&frame, way, workload, vlan, &world);
    let allowed = |sound| world.at_uplink(ifindex, bridged, policy, sound);
    case.check(At::Uplink, allowed(sound), tc(at_uplink(false)));
    case.check(At::Uplink, allowed(None), tc(at_uplink(true)));
    // The node's processes send what they like, but for a loopback source.
    let own = ForwardPath { came_in_on: 0, socket: Socket::Process, ..way };
    let own = tc(hooks::uplink(&frame, own, None, false, &world));
    let allowed = matches!(own.reason, Reason::Host | Reason::Exempt);
    let refused = matches!(own.reason, Reason::SpoofedSource | Reason::Malformed);
    assert!(own.allowed == allowed && (allowed || refused), "{own:?} of {sound:?}");
    // Nothing that the node's kernel makes passes as a pod's or a workload's.
    let kernel = ForwardPath { came_in_on: 0, ..way };
    let kernel = tc(hooks::uplink(&frame, kernel, None, false, &world));
    let of_node = matches!(kernel.reason, Reason::Host | Reason::Exempt | Reason::Reply);
    assert!(kernel.allowed == of_node, "{kernel:?} of {sound:?}");

    at_sockets(&world, &case, policy.unwrap_or(1), cgroup);

    if let Some(Frame::Ip { packet, .. }) = sound {
        let judgement = at_pod(frame, false);
        // Of a frame from another hardware address nothing more is read.
        let unread = judgement.ether_type() == 0
            || (judgement.reason() == Reason::SpoofedHardware
                && *judgement.flow() == Flow::UNKNOWN);
        if !unread {
            assert!(tells(judgement.flow(), &packet), "{judgement:?} of {packet:?}");
        }
        // Padding changes nothing, but for what goes to the link, behind which there is nothing; without its last byte
        // it passes nowhere.
        let padded = tc(at_pod(&[&frame[..packet.end], &[0; 7]].concat(), false));
        let is_longer = goes_to_link(frame)
            && matches!(padded.reason, Reason::Malformed | Reason::ExtensionHeader)
            && !padded.allowed;
        assert!(is_longer || padded == tc(judgement), "padded: {padded:?}, {judgement:?}");
        let short = Case { frame: &frame[..packet.end - 1], sound: None, seen: &seen };
        let outcome = tc(at_pod(short.frame, false));
        short.check(At::Pod, world.at_pod(ifindex, None), outcome);
    }
}

/// Whether it is neighbour discovery, or a report of multicast groups behind its hop-by-hop header.
fn goes_to_link(frame: &[u8]) -> bool {
    match frame.get(20) {
        Some(58) => matches!(frame.get(54), Some(133 | 135 | 136)),
        Some(0) => matches!(frame.get(62), Some(131 | 132 | 143)),
        _ => false,
    }
}

/// The packet of a frame as `cgroup_skb` has it, which is told the version.
fn at_sockets(world: &World, case: &Case<'_>, policy: u32, cgroup: u64) {
    let (Some(&[high, low]), Some(packet)) = (case.frame.get(12..14), case.frame.get(14..)) else {
        return;
    };
    let ether_type = u16::from_be_bytes([high, low]);
    let judgement = hooks::skb(&packet, ether_type, policy, cgroup, world);
    let seen = Outcome::of(&judgement, true);
    let code = judgement.cgroup_skb();
    assert!(code == CGROUP_PASS || code == CGROUP_REFUSE);
    let sound = match &case.sound {
        Some(Frame::Ip { packet, .. }) => Some(packet),
        Some(Frame::Arp { .. }) | None => None,
    };
    let seen = Outcome { passed: code == CGROUP_PASS, ..seen };
    case.check(At::Socket, world.at_socket(policy, sound), seen);
}

/// Where a packet was judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Pod,
    Uplink,
    Socket,
}

/// What came in, and where.
#[derive(Default)]
struct Inbound {
    /// The flows that began there.
    began: Vec<(At, Packet)>,
    last: Option<Vec<u8>>,
}

impl Inbound {
    fn come_in(
        &mut self,
        random: &mut Random<'_>,
        world: &World,
        ifindex: u32,
        cgroup: u64,
        frame: &[u8],
    ) {
        let (mut at_pod, mut at_uplink, mut at_socket) = (false, false, false);
        match random.u8() % 4 {
            0 => at_pod = true,
            1 => at_uplink = true,
            2 => at_socket = true,
            _ => (at_pod, at_uplink) = (true, true),
        }
        if at_uplink {
            hooks::inward(&frame, Scope::Uplink, false, world);
        }
        if at_pod {
            hooks::inward(&frame, Scope::Pod(ifindex), false, world);
        }
        let packet = match frame::read(frame) {
            Some(Frame::Ip { packet, .. }) => Some(packet),
            Some(Frame::Arp { .. }) | None => None,
        };
        if let (true, Some(&[high, low]), Some(bytes), Some(packet)) =
            (at_socket, frame.get(12..14), frame.get(14..), packet)
        {
            let ether_type = u16::from_be_bytes([high, low]);
            // Over loopback comes what was sent in the same network, and makes no entry.
            hooks::to_socket(&bytes, ether_type, packet.protocol, hooks::LOOPBACK, cgroup, world);
            hooks::to_socket(&bytes, ether_type, packet.protocol, ifindex, cgroup, world);
        }
        world.wait(SECOND * u64::from(random.u8() / 4));
        let began = packet.filter(|packet| packet.begins);
        let places = [(at_pod, At::Pod), (at_uplink, At::Uplink), (at_socket, At::Socket)];
        let places = places.iter().filter(|(there, _)| *there).map(|(_, at)| *at);
        self.began.extend(places.flat_map(|at| began.map(|packet| (at, packet))));
        self.last = Some(frame.to_vec());
    }

    /// Whether the packet may be an answer to something that came in where answers at `at` count: at
    /// the uplink workloads' sockets count for themselves.
    fn is_answered(&self, at: At, packet: &Packet) -> bool {
        let counts = |place: At| place == at || (at, place) == (At::Uplink, At::Socket);
        let begins = packet.protocol == TCP && packet.begins;
        !packet.fragment
            && !begins
            && self.began.iter().any(|(place, began)| counts(*place) && packet.answers(began))
    }
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Outcome {
    passed: bool,
    reason: Reason,
    allowed: bool,
    audited: bool,
}

impl Outcome {
    fn of(judgement: &Judgement, passed: bool) -> Self {
        let code = judgement.action_code();
        assert_ne!(code, action::REDIRECT, "a packet can't be redirected: {judgement:?}");
        assert_eq!(judgement.redirect(), None);
        let allowed = code == action::ALLOW;
        let (reason, audited) = (judgement.reason(), judgement.audited());
        assert_eq!(allowed, (reason as u8) < 16, "{judgement:?}");
        assert!(!(allowed && audited), "{judgement:?}");
        Self { passed, reason, allowed, audited }
    }
}

fn tc(judgement: Judgement) -> Outcome {
    let seen = Outcome::of(&judgement, true);
    let code = judgement.tc();
    assert!(code == TC_NEXT || code == TC_DROP);
    Outcome { passed: code == TC_NEXT, ..seen }
}

/// A frame that is judged.
struct Case<'a> {
    frame: &'a [u8],
    sound: Option<Frame>,
    seen: &'a Inbound,
}

impl Case<'_> {
    fn check(&self, at: At, expected: Expected, outcome: Outcome) {
        let (may, audit) = match expected {
            Expected::Passes(reason) => (Some(reason), false),
            Expected::Audited(reason) => (reason, true),
            Expected::Dropped => (None, false),
        };
        // Audit changes what happens, and nothing of the verdict.
        assert_eq!(outcome.passed, outcome.allowed || audit, "{at:?}: {expected:?}, {outcome:?}");
        if outcome.allowed {
            let justified = may == Some(outcome.reason)
                || outcome.reason == Reason::Reply && self.is_answer(at)
                || outcome.reason == Reason::Neighbour && self.stays_on_link();
            assert!(justified, "{at:?}: {expected:?}, {outcome:?} of {:?}", self.sound);
        } else {
            let plain = at == At::Pod && may.is_some() && self.is_plain_tcp();
            assert!(!plain, "{at:?}: {expected:?}, {outcome:?} of {:?}", self.sound);
        }
    }

    fn is_answer(&self, at: At) -> bool {
        match &self.sound {
            Some(Frame::Ip { packet, .. }) => self.seen.is_answered(at, packet),
            Some(Frame::Arp { .. }) | None => false,
        }
    }

    /// An IPv6 packet to the link, which goes no further, whatever it holds.
    fn stays_on_link(&self) -> bool {
        let Some([0x86, 0xdd, _version, ..]) = self.frame.get(12..) else { return false };
        let octets = self.frame.get(38..54).and_then(|octets| octets.first_chunk::<16>());
        octets.is_some_and(|octets| is_link((*octets).into()))
    }

    fn is_plain_tcp(&self) -> bool {
        match &self.sound {
            Some(Frame::Ip { packet, .. }) => {
                packet.protocol == TCP && !packet.fragment && packet.discovery == Discovery::No
            }
            Some(Frame::Arp { .. }) | None => false,
        }
    }
}

/// Whether an event about the flow would say what the packet says.
fn tells(flow: &Flow, packet: &Packet) -> bool {
    let port = flow.destination_port.get();
    flow.source == Addr::from(packet.source)
        && flow.destination == Addr::from(packet.destination)
        && flow.protocol == packet.protocol
        && (port == packet.ports[1] || port == 0 || packet.fragment)
        && flow.fragment == packet.fragment
}
