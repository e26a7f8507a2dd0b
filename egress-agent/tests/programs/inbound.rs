//! Flows that begin outside: what `pod_egress`, `uplink_ingress` and `cgroup_ingress` take note of,
//! and what `pod_ingress`, `uplink_egress` and `cgroup_egress` let pass as an answer.

use egress_ebpf::{
    abi::{action, capacity, hook},
    reason::Reason,
    verdict::{CGROUP_PASS, CGROUP_REFUSE, TC_DROP, TC_NEXT},
};

use crate::{
    kernel::{DEFAULT_POLICY, EXEMPT, IFINDEX, Kernel},
    packets::{ethernet, own_cgroup},
};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Ends of a flow: the client outside and the server in the pod.
type Ends = ((&'static str, u16), (&'static str, u16));
const FLOWS: [Ends; 2] =
    [(("198.51.100.7", 40_000), ("10.0.0.5", 8080)), (("2001:db8::7", 40_000), ("fd00::5", 8080))];
/// An interface that no pod is known behind.
const FOREIGN: u32 = 77;

fn tcp(flags: u8, (from, source): (&str, u16), (to, destination): (&str, u16)) -> Vec<u8> {
    let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    ethernet(6, from, to, &segment)
}

fn udp((from, source): (&str, u16), (to, destination): (&str, u16)) -> Vec<u8> {
    let mut datagram = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    datagram.extend([0, 8, 0, 0]);
    ethernet(17, from, to, &datagram)
}

fn ping(reply: bool, (from, _): (&str, u16), (to, _): (&str, u16)) -> Vec<u8> {
    let (protocol, kind) = match (from.contains(':'), reply) {
        (false, false) => (1, 8),
        (false, true) => (1, 0),
        (true, false) => (58, 128),
        (true, true) => (58, 129),
    };
    ethernet(protocol, from, to, &[kind, 0, 0, 0, 0, 7, 0, 1])
}

impl Kernel {
    /// A frame comes in at a program that takes note, for the hardware address of the interface that tests run on,
    /// which is loopback's; it always passes.
    fn comes(&mut self, program: &str, frame: &[u8]) {
        let mut frame = frame.to_vec();
        frame[..6].fill(0);
        self.passes_by(program, &frame);
    }

    /// The same for the hardware address that the frame has.
    fn passes_by(&mut self, program: &str, frame: &[u8]) {
        assert_eq!(self.classify(program, frame, 0), TC_NEXT);
    }

    /// Whether the pod may send it, with how often a reply was counted so far.
    fn pod_sends(&mut self, frame: &[u8]) -> i32 {
        self.classify("pod_ingress", frame, 0)
    }
}

#[test]
fn a_pod_answers_a_connection_from_outside_and_begins_none() {
    for (client, server) in FLOWS {
        let mut kernel = Kernel::usual();
        for flags in [SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK] {
            let frame = tcp(flags, server, client);
            assert_eq!(kernel.pod_sends(&frame), TC_DROP, "{flags:02x} without a flow");
        }
        assert_eq!(kernel.flows(), 0, "what a pod sends makes no entry");
        kernel.comes("pod_egress", &tcp(SYN, client, server));
        assert_eq!(kernel.pod_sends(&tcp(ACK, server, client)), TC_DROP, "before the answer");
        assert_eq!(kernel.pod_sends(&tcp(SYN | ACK, server, client)), TC_NEXT);
        kernel.comes("pod_egress", &tcp(ACK, client, server));
        assert_eq!(kernel.pod_sends(&tcp(ACK, server, client)), TC_NEXT);
        assert_eq!(kernel.count(hook::POD, action::ALLOW, Reason::Reply, false), 2);
        assert_eq!(kernel.pod_sends(&tcp(SYN, server, client)), TC_DROP);
        for other in [(client.0, client.1 + 1), ("198.51.100.8", client.1)] {
            if other.0.contains(':') == server.0.contains(':') {
                assert_eq!(kernel.pod_sends(&tcp(ACK, server, other)), TC_DROP, "{other:?}");
            }
        }
        assert_eq!(kernel.pod_sends(&tcp(ACK, (server.0, 8081), client)), TC_DROP);
        kernel.comes("pod_egress", &tcp(RST, client, server));
        assert_eq!(kernel.pod_sends(&tcp(ACK, server, client)), TC_DROP, "after its end");
    }
}

#[test]
fn a_pod_answers_datagrams_and_pings_and_sends_none_of_its_own() {
    for (client, server) in FLOWS {
        let mut kernel = Kernel::usual();
        assert_eq!(kernel.pod_sends(&udp(server, client)), TC_DROP);
        assert_eq!(kernel.pod_sends(&ping(true, server, client)), TC_DROP);
        kernel.comes("pod_egress", &udp(client, server));
        kernel.comes("pod_egress", &ping(false, client, server));
        assert_eq!(kernel.pod_sends(&udp(server, client)), TC_NEXT);
        assert_eq!(kernel.pod_sends(&ping(true, server, client)), TC_NEXT);
        assert_eq!(kernel.pod_sends(&ping(false, server, client)), TC_DROP);
        assert_eq!(kernel.pod_sends(&udp((server.0, 53), client)), TC_DROP);
    }
}

#[test]
fn nothing_but_the_outside_and_gateways_makes_entries() {
    let mut kernel = Kernel::usual();
    let server = ("10.0.0.5", 8080);
    for inside in ["10.1.2.3", "169.254.169.254"] {
        for program in ["pod_egress", "uplink_ingress"] {
            kernel.comes(program, &tcp(SYN, (inside, 40_000), server));
            kernel.comes(program, &udp((inside, 40_000), server));
        }
    }
    let mut tagged = tcp(SYN, FLOWS[0].0, server);
    tagged[12..14].copy_from_slice(&[0x81, 0]);
    kernel.comes("pod_egress", &tagged);
    assert_eq!(kernel.flows(), 0);
    // Metadata isn't answered though it asks.
    let metadata = ("169.254.169.254", 80);
    assert_eq!(kernel.pod_sends(&tcp(SYN | ACK, server, metadata)), TC_DROP);
    // A gateway that asks is answered, at the port that asked.
    let (gateway, other) = (("10.9.0.10", 40_000), ("10.9.0.10", 40_001));
    assert_eq!(kernel.pod_sends(&udp(server, gateway)), TC_DROP);
    kernel.comes("pod_egress", &udp(gateway, server));
    assert_eq!(kernel.pod_sends(&udp(server, gateway)), TC_NEXT);
    assert_eq!(kernel.pod_sends(&udp(server, other)), TC_DROP);
}

/// Interfaces of other namespaces on the uplink (macvlan) have hardware addresses of their own, and what one sends
/// the next comes by the uplink.
#[test]
fn what_comes_in_for_another_hardware_address_begins_no_flow_at_the_uplink() {
    for (client, server) in FLOWS {
        let mut kernel = Kernel::usual();
        for frame in [tcp(SYN, client, server), udp(client, server), ping(false, client, server)] {
            kernel.passes_by("uplink_ingress", &frame);
        }
        assert_eq!(kernel.flows(), 0);
        let answer = tcp(SYN | ACK, server, client);
        assert_eq!(kernel.classify("uplink_egress", &answer, FOREIGN), TC_DROP);
        kernel.comes("uplink_ingress", &tcp(SYN, client, server));
        assert_eq!(kernel.classify("uplink_egress", &answer, FOREIGN), TC_NEXT);
    }
}

#[test]
fn the_uplink_lets_answers_leave_that_it_saw_asked() {
    for (client, server) in FLOWS {
        let mut kernel = Kernel::usual();
        let leaves = |kernel: &mut Kernel, frame: &[u8], came_in_on| {
            kernel.classify("uplink_egress", frame, came_in_on)
        };
        // The pod's own interface has seen the client; the uplink hasn't.
        kernel.comes("pod_egress", &tcp(SYN, client, server));
        kernel.comes("pod_egress", &udp(client, server));
        assert_eq!(leaves(&mut kernel, &tcp(SYN | ACK, server, client), IFINDEX), TC_DROP);
        assert_eq!(leaves(&mut kernel, &udp(server, client), IFINDEX), TC_DROP);
        kernel.comes("uplink_ingress", &tcp(SYN, client, server));
        kernel.comes("uplink_ingress", &udp(client, server));
        assert_eq!(leaves(&mut kernel, &tcp(ACK, server, client), IFINDEX), TC_DROP);
        assert_eq!(leaves(&mut kernel, &udp(server, client), FOREIGN), TC_DROP, "no pod's");
        assert_eq!(leaves(&mut kernel, &tcp(SYN | ACK, server, client), FOREIGN), TC_NEXT);
        assert_eq!(leaves(&mut kernel, &tcp(ACK, server, client), IFINDEX), TC_NEXT);
        assert_eq!(leaves(&mut kernel, &udp(server, client), IFINDEX), TC_NEXT);
        assert_eq!(kernel.count(hook::UPLINK, action::ALLOW, Reason::Reply, false), 3);
        // The inside asked first: connection tracking would take its answer for one.
        let other = (client.0, 443);
        assert_eq!(leaves(&mut kernel, &tcp(SYN, server, other), IFINDEX), TC_DROP);
        kernel.comes("uplink_ingress", &tcp(SYN, other, server));
        assert_eq!(leaves(&mut kernel, &tcp(SYN | ACK, server, other), IFINDEX), TC_DROP);
    }
}

#[test]
fn a_pods_packets_are_judged_by_its_policy_at_the_uplink_too() {
    let mut kernel = Kernel::usual();
    let (client, server) = FLOWS[0];
    let outward = tcp(SYN, server, client);
    assert_eq!(kernel.classify("uplink_egress", &outward, IFINDEX), TC_DROP);
    kernel.pod_interface(IFINDEX, EXEMPT);
    assert_eq!(kernel.classify("uplink_egress", &outward, IFINDEX), TC_NEXT);
    assert_eq!(kernel.classify("uplink_egress", &outward, FOREIGN), TC_DROP);
}

#[test]
fn a_raw_socket_opens_no_flow() {
    let mut kernel = Kernel::usual();
    kernel.workload(own_cgroup(), DEFAULT_POLICY);
    let (client, server) = FLOWS[0];
    for frame in [tcp(SYN, client, server), udp(client, server)] {
        assert_eq!(kernel.cgroup_skb("cgroup_ingress", &frame), CGROUP_PASS);
    }
    assert_eq!(kernel.flows(), 0);
    assert_eq!(kernel.cgroup_egress(&tcp(SYN | ACK, server, client)), CGROUP_REFUSE);
}

#[test]
fn one_workload_takes_its_share_of_the_table_of_flows_and_no_more() {
    let mut kernel = Kernel::usual();
    let (client, server) = FLOWS[0];
    kernel.comes("uplink_ingress", &tcp(SYN, client, server));
    let before = kernel.flows();
    // Each takes an entry for itself and one for its remote.
    for number in 0..2 * capacity::FLOWS_SHARE {
        let [_, _, high, low] = number.to_be_bytes();
        let from = format!("198.18.{high}.{low}");
        kernel.comes("pod_egress", &udp((&from, 40_000), server));
    }
    let share = usize::try_from(capacity::FLOWS_SHARE).unwrap();
    assert_eq!(kernel.flows() - before, share);
    // The newest is answered, the oldest is not, and neither is what others had disturbed.
    let last = 2 * capacity::FLOWS_SHARE - 1;
    let newest = format!("198.18.{}.{}", last >> 8 & 0xff, last & 0xff);
    assert_eq!(kernel.pod_sends(&udp(server, (&newest, 40_000))), TC_NEXT);
    assert_eq!(kernel.pod_sends(&udp(server, ("198.18.0.0", 40_000))), TC_DROP);
    let answer = tcp(SYN | ACK, server, client);
    assert_eq!(kernel.classify("uplink_egress", &answer, FOREIGN), TC_NEXT);
}
