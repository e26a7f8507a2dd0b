//! What the frames of pods come from: the hardware address at the other end of each interface, as the
//! agent looks it up in the pod's network namespace.
//!
//! It is taken once, when the interface's addresses are known and both ends are up, and kept in
//! the maps for as long as the interface lives, over restarts of the agent too. So a runtime may set
//! it until then; whoever changes it later, as a pod with `CAP_NET_ADMIN` can, is refused and not
//! believed. An address that another port of the same bridge has, or the bridge itself, isn't taken.

use std::collections::BTreeMap;

use super::plan::{Contents, NO_INTERFACE, PodHardware, PodInterface};
use crate::sys::netlink::links::{self, Link, Peer};

/// Fills in what the pods' frames come from: what the maps hold already, or what is there now.
pub fn learn(pods: &mut [PodInterface], current: &Contents) {
    let unknown = take_over(pods, current);
    if !unknown {
        return;
    }
    match links::list() {
        Ok(links) => look_up(pods, &links, ask),
        Err(error) => tracing::warn!("can't list the interfaces: {error}"),
    }
}

/// Takes what the maps hold; whether something is left to be looked up.
fn take_over(pods: &mut [PodInterface], current: &Contents) -> bool {
    let mut unknown = false;
    for pod in pods.iter_mut().filter(|pod| pod.ifindex != NO_INTERFACE) {
        pod.hardware = current
            .pod_interfaces
            .get(&pod.ifindex)
            .copied()
            .map_or(PodHardware::Unknown, Into::into);
        unknown |= pod.hardware == PodHardware::Unknown;
    }
    unknown
}

fn ask(peer: Peer) -> Option<[u8; 6]> {
    let found = links::peer_hardware(peer);
    // It may be gone already; otherwise it is asked for again a moment later.
    found.inspect_err(|error| tracing::debug!("can't look up a pod's interface: {error}")).ok()?
}

/// Looks up what is unknown, with `ask` for the other end of a pair.
fn look_up(pods: &mut [PodInterface], links: &[Link], ask: impl Fn(Peer) -> Option<[u8; 6]>) {
    let by_index: BTreeMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
    let master = |ifindex: u32| by_index.get(&ifindex).and_then(|link| link.master);
    let mut taken: Vec<(u32, [u8; 6])> = Vec::new();
    for pod in pods.iter() {
        if let (PodHardware::Known(hardware), Some(master)) = (pod.hardware, master(pod.ifindex)) {
            taken.push((master, hardware));
        }
    }
    let unknown = |pod: &&mut PodInterface| {
        pod.ifindex != NO_INTERFACE && pod.hardware == PodHardware::Unknown
    };
    for pod in pods.iter_mut().filter(unknown) {
        let Some(link) = by_index.get(&pod.ifindex) else { continue };
        let Some(peer) = link.peer else {
            tracing::warn!(
                "{} is no end of a pair, so the hardware address behind it can't be known: frames \
                 from any are taken for the pod's",
                link.name
            );
            pod.hardware = PodHardware::Any;
            continue;
        };
        // Until both ends are up the runtime may set another one.
        let Some(hardware) = ask(peer).filter(|_| link.carries) else { continue };
        let rival = |at: u32| {
            let of_bridge = by_index.get(&at).and_then(|bridge| bridge.hardware);
            of_bridge == Some(hardware) || taken.contains(&(at, hardware))
        };
        if link.master.is_some_and(rival) {
            pod.hardware = PodHardware::Taken;
            continue;
        }
        taken.extend(link.master.map(|master| (master, hardware)));
        pod.hardware = PodHardware::Known(hardware);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ifindex: u32) -> PodInterface {
        let addresses = vec!["10.0.0.5".parse().unwrap()];
        PodInterface { ifindex, addresses, hardware: PodHardware::Unknown, policy: 0 }
    }

    fn mac(last: u8) -> [u8; 6] {
        [2, 0, 0, 0, 0, last]
    }

    fn veth(index: u32, master: Option<u32>) -> Link {
        let peer = Some(Peer { index: index + 100, namespace: Some(7) });
        Link { index, name: format!("veth{index}"), master, peer, carries: true, ..Link::default() }
    }

    fn looked_up(pods: &[u32], links: &[Link], macs: &[(u32, u8)]) -> Vec<PodHardware> {
        let mut pods: Vec<_> = pods.iter().map(|index| pod(*index)).collect();
        look_up(&mut pods, links, |peer| {
            assert_eq!(peer.namespace, Some(7));
            let found = macs.iter().find(|(index, _)| index + 100 == peer.index);
            found.map(|(_, last)| mac(*last))
        });
        pods.iter().map(|pod| pod.hardware).collect()
    }

    #[test]
    fn the_other_ends_address_is_taken_when_both_are_up() {
        use PodHardware::{Any, Known, Unknown};
        let down = Link { carries: false, ..veth(3, None) };
        let tap = Link { index: 5, peer: None, ..veth(5, None) };
        let links = [veth(2, None), down, veth(4, None), tap];
        let found = looked_up(&[2, 3, 4, 5, 6], &links, &[(2, 22), (3, 33)]);
        assert_eq!(found, [Known(mac(22)), Unknown, Unknown, Any, Unknown]);
    }

    #[test]
    fn on_a_bridge_nobody_takes_anothers() {
        use PodHardware::{Known, Taken};
        let bridge = Link { index: 9, hardware: Some(mac(99)), ..Link::default() };
        let links = [veth(2, Some(9)), veth(3, Some(9)), veth(4, None), veth(5, Some(9)), bridge];
        let found = looked_up(&[2, 3, 4, 5], &links, &[(2, 22), (3, 22), (4, 22), (5, 99)]);
        assert_eq!(found, [Known(mac(22)), Taken, Known(mac(22)), Taken]);
    }

    #[test]
    fn what_the_maps_hold_stays_whatever_the_pod_has_now() {
        let mut held = Contents::default();
        held.set_pods(&[
            PodInterface { hardware: PodHardware::Known(mac(22)), ..pod(2) },
            PodInterface { hardware: PodHardware::Any, ..pod(3) },
            PodInterface { hardware: PodHardware::Unknown, ..pod(4) },
        ]);
        let mut pods = [pod(2), pod(3)];
        assert!(!take_over(&mut pods, &held));
        assert_eq!(pods[0].hardware, PodHardware::Known(mac(22)));
        assert_eq!(pods[1].hardware, PodHardware::Any);
        let mut pods = [pod(4), pod(1)];
        assert!(take_over(&mut pods, &held));
        assert!(pods.iter().all(|pod| pod.hardware == PodHardware::Unknown));
    }

    /// The other end of a real pair in another namespace, and here.
    #[test]
    fn the_kernel_tells_of_a_pairs_other_end() {
        let missing = links::peer_hardware(Peer { index: u32::MAX / 2, namespace: None });
        assert!(missing.is_err());
        let loopback = links::list().unwrap().into_iter().find(|link| link.name == "lo").unwrap();
        let found = links::peer_hardware(Peer { index: loopback.index, namespace: None });
        assert_eq!(found.unwrap(), loopback.hardware);
    }
}
