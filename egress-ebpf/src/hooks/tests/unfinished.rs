//! Packets into which the kernel or a device is yet to write.

use super::*;
use crate::{packet::offload::Offload, testing::Unfinished};

/// The place of the checksum of UDP over IPv4, with `header` bytes before the IP header.
fn own(header: u32) -> Offload {
    Offload { partial: u32::MAX, start: header + 20, field: 6, encapsulated: 0 }
}

/// The place of the destination's address.
fn address(header: u32) -> Offload {
    Offload { start: header, field: 16, ..own(header) }
}

const REFUSED: (bool, Reason) = (DROP, Reason::PartialChecksum);
const WORKLOAD: Workload = Workload { policy: POLICY, cgroup: 9 };

fn at_uplink(offload: Offload, way: ForwardPath, workload: Option<Workload>) -> (bool, Reason) {
    let bytes = &ip_frame(&udp(POD, INSIDE, 53))[..];
    judged(uplink(&Unfinished { bytes, offload }, way, workload, false, &World::usual()))
}

#[test]
fn a_pod_leaves_nothing_but_its_checksum_to_be_filled_in() {
    let bytes = &ip_frame(&udp(POD, INSIDE, 53))[..];
    let sent =
        |offload| judged(pod(&Unfinished { bytes, offload }, IFINDEX, false, &World::usual()));
    assert_eq!(sent(own(14)), (PASS, Reason::Internal));
    assert_eq!(sent(address(14)), REFUSED);
    assert_eq!(sent(Offload::UNKNOWN), REFUSED);
}

#[test]
fn a_workloads_socket_leaves_nothing_but_its_checksum_to_be_filled_in() {
    let bytes = &udp(POD, INSIDE, 53)[..];
    let sent = |offload| {
        let bytes = Unfinished { bytes, offload };
        let judgement = skb(&bytes, ether_type::IPV4, POLICY, 9, &World::usual());
        (judgement.cgroup_skb() == CGROUP_PASS, judgement.reason())
    };
    assert_eq!(sent(own(0)), (PASS, Reason::Internal));
    assert_eq!(sent(address(0)), REFUSED);
    assert_eq!(sent(Offload::UNKNOWN), REFUSED);
}

#[test]
fn at_the_uplink_everybody_but_the_node_leaves_nothing_else_to_be_filled_in() {
    let stranger = ForwardPath { namespace: Namespace::Other, ..from(0) };
    let noted = ForwardPath { pod: IFINDEX, ..from(FOREIGN) };
    for (way, workload) in
        [(from(0), Some(WORKLOAD)), (stranger, None), (from(FOREIGN), None), (noted, None)]
    {
        assert_eq!(at_uplink(own(14), way, workload), (PASS, Reason::Internal), "{way:?}");
        assert_eq!(at_uplink(address(14), way, workload), REFUSED, "{way:?}");
        assert_eq!(at_uplink(Offload::UNKNOWN, way, workload), REFUSED, "{way:?}");
    }
    // What the node's processes and its tunnels leave is the node's.
    let tunnel = Offload { encapsulated: u32::MAX, ..address(14) };
    assert_eq!(at_uplink(tunnel, from(0), None), (PASS, Reason::Host));
}

#[test]
fn in_arp_there_is_nothing_to_fill_in() {
    let request = frame(0x0806, &arp(1, POD, INSIDE));
    for offload in [own(14), address(14)] {
        let bytes = Unfinished { bytes: &request, offload };
        assert_eq!(judged(pod(&bytes, IFINDEX, false, &World::usual())), REFUSED);
        let way = ForwardPath { namespace: Namespace::Other, ..from(0) };
        assert_eq!(judged(uplink(&bytes, way, None, false, &World::usual())), REFUSED);
    }
    assert_eq!(at_pod(&request), (PASS, Reason::Neighbour));
}
