//! A node that is given one random snapshot after the other.

use std::net::IpAddr;

use egress_agent::{
    bpf::{
        diff::{Op, diff},
        plan::Contents,
    },
    policy::Hop,
};
use egress_ebpf::{
    abi::PodAddress,
    addr::{Addr, PortBe},
    decide::{Place, PolicyView as _, decide},
    packet::Flow,
    verdict::{Action, Mode},
};

use crate::{
    intent::{self, Answer, Intent},
    maps::Maps,
    random::Random,
};

/// The policy of everything that has no other.
const DEFAULT: u32 = 0;

/// Snapshots are planned and carried out change by change. After each, whatever goes out directly
/// was let out by the snapshot before or is by the one after; in the end every verdict over the maps
/// is the one that the snapshot means. Changes that fail open nothing, and are made up for.
pub fn snapshots(bytes: &[u8]) {
    let mut random = Random::new(bytes);
    let mut maps = Maps::default();
    let mut before = Intent::nothing();
    for generation in 1..=2 + u64::from(random.u8() % 3) {
        let after = Intent::random(&mut random, generation);
        let flows = flows(&mut random, [&before, &after]);
        let failing = if random.rarely() { random.u16() } else { 0 };
        let (desired, _problems) = Contents::desired(&after.snapshot, &after.facts);
        if failing != 0 {
            let mut number = 0_u32;
            advance(&mut maps, &desired, [&before, &after], &flows, || {
                number += 1;
                failing >> (number % 16) & 1 == 1
            });
        }
        advance(&mut maps, &desired, [&before, &after], &flows, || false);
        for (place, flow) in &flows {
            let meant = after.verdict(*place, flow);
            let found = verdict(&maps, *place, flow);
            assert_eq!(found, meant, "{place:?} {flow:?} under {after:#?}");
        }
        for (ifindex, ip) in intent::ends() {
            assert_eq!(may_send(&maps, ifindex, ip), after.may_send(ifindex, ip), "{ifindex} {ip}");
        }
        let left = diff(&maps.0, &desired);
        assert_eq!(left.count(), 0, "{left:?}");
        before = after;
    }
}

/// Makes the changes; `fails` says of each in turn whether it fails.
fn advance(
    maps: &mut Maps,
    desired: &Contents,
    around: [&Intent; 2],
    flows: &[(Place, Flow)],
    mut fails: impl FnMut() -> bool,
) {
    // What already leaked through an earlier failure isn't looked for here: it never does.
    let step = |maps: &mut Maps, op: &Op| {
        if fails() {
            return Err(());
        }
        maps.apply(op);
        for (place, flow) in flows {
            let open = passes(verdict(maps, *place, flow));
            let meant = around.iter().any(|intent| passes(intent.verdict(*place, flow)));
            assert!(meant || !open, "{place:?} {flow:?} passes after {op:?}, under {around:#?}");
        }
        for (ifindex, ip) in intent::ends() {
            let meant = around.iter().any(|intent| intent.may_send(ifindex, ip));
            assert!(meant || !may_send(maps, ifindex, ip), "{ip} on {ifindex} after {op:?}");
        }
        Ok(())
    };
    let mut step = step;
    let _failed = diff(&maps.0.clone(), desired).make(|op| step(maps, op));
}

fn verdict(maps: &Maps, place: Place, flow: &Flow) -> (Answer, bool) {
    let verdict = decide(place, flow, DEFAULT, maps);
    let answer = match verdict.action {
        Action::Allow => Answer::Allow(verdict.reason),
        Action::Deny => Answer::Deny(verdict.reason),
        Action::Redirect(target) => {
            Answer::Redirect { group: target.group, port: target.port.get(), hop: Hop::Plain }
        }
        Action::Tunnel(target) => {
            Answer::Redirect { group: target.group, port: target.port.get(), hop: Hop::Tunnel }
        }
    };
    (answer, maps.policy(DEFAULT).mode != Mode::Enforce)
}

/// Whether a flow goes out as it is.
fn passes((answer, audit): (Answer, bool)) -> bool {
    audit || matches!(answer, Answer::Allow(_))
}

/// Whether the interface's pod is known, and may send from the address.
fn may_send(maps: &Maps, ifindex: u32, ip: IpAddr) -> bool {
    let address = PodAddress { ifindex, addr: ip.into() };
    maps.interface(ifindex).is_some() && maps.is_pod_address(&address)
}

/// Random flows, and flows to the addresses that the snapshots are about.
fn flows(random: &mut Random<'_>, around: [&Intent; 2]) -> Vec<(Place, Flow)> {
    let mut flows = random.list(12, |random| {
        let protocol = random.choose(&[6, 6, 6, 17, 58]);
        let fragment = random.rarely();
        (random.ip(), random.port(), protocol, fragment)
    });
    let ports = [443, 15000, random.port()];
    for ip in around.iter().flat_map(|intent| intent.addresses()) {
        flows.extend(ports.map(|port| (ip, port, 6, false)));
    }
    let place = random.choose(&[Place::Socket, Place::Skb, Place::Wire]);
    let flow = |(destination, port, protocol, fragment): (IpAddr, _, _, bool)| Flow {
        destination: Addr::from(destination),
        destination_port: PortBe::new(if fragment { 0 } else { port }),
        protocol,
        fragment,
        ..Flow::UNKNOWN
    };
    flows.into_iter().map(|described| (place, flow(described))).collect()
}
