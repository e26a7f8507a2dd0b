//! The records of what connections to the tunnel listener were meant for.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError},
};
use egress_ebpf::{
    abi::{self, PolicyId, Tunneled, TunneledKey, space},
    addr::PortBe,
    tunnel::End,
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    Error, events,
    host::node_network,
    load,
    plan::{NO_INTERFACE, PodInterface},
    pod::Raw,
};
use crate::types::{GatewayPort, OriginalDst, Port};

const MAP: &str = "TUNNELED";
/// What sockets asked for, and which process did.
const ASKED: &str = "ORIGINAL_DST";

type Entries = HashMap<MapData, Raw<TunneledKey>, Raw<Tunneled>>;
type Asked = HashMap<MapData, u64, Raw<abi::OriginalDst>>;

/// The kernel's records. Clones share them.
#[derive(Clone, Debug)]
pub struct Records(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    map: Mutex<Entries>,
    asked: Asked,
    ends: RwLock<KnownAddresses>,
}

/// Whose addresses are known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KnownAddresses {
    /// Pods' whose interfaces are under enforcement.
    pub pods: HashSet<IpAddr>,
    /// The node's own; empty where the kernel doesn't number network namespaces (before 5.14).
    pub node: HashSet<IpAddr>,
}

impl KnownAddresses {
    /// Of the pods' interfaces that are under enforcement, and of the node itself
    /// ([`NO_INTERFACE`]).
    #[must_use]
    pub fn new(pods: &[PodInterface]) -> Self {
        let mut ends = Self::default();
        for pod in pods {
            let addresses = pod.addresses.iter().map(IpAddr::to_canonical);
            match pod.ifindex {
                NO_INTERFACE if node_network() == 0 => {}
                NO_INTERFACE => ends.node.extend(addresses),
                _ => ends.pods.extend(addresses),
            }
        }
        ends
    }

    /// Where the record for an end from this address is, if the pod's interface made none.
    fn space(&self, addr: IpAddr) -> Option<u8> {
        let addr = addr.to_canonical();
        if self.pods.contains(&addr) {
            return None;
        }
        Some(if self.node.contains(&addr) { space::NODE } else { space::OTHER })
    }
}

/// What a connection to the tunnel listener was meant for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Where the application wanted to go.
    pub original: OriginalDst,
    /// The gateway group that the route leads to: an index in
    /// [`MeshConfig::gateways`](crate::policy::MeshConfig::gateways) of the snapshot that the maps
    /// hold.
    pub group: usize,
    /// The port at the gateway that the route means; `None` where a corrupt record has none.
    pub gateway_port: Option<GatewayPort>,
    /// The policy that decided.
    pub policy: PolicyId,
    /// The id of the cgroup that is listed for the workload, whose descendant the process's may be:
    /// a `--cgroup`, or one that a workload of the configuration names. Zero for none.
    pub cgroup: u64,
    /// The application's socket.
    pub cookie: u64,
}

/// The process that asked for a connection, as the connect hook saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectingProcess {
    /// Its number in the first PID namespace.
    pub pid: u32,
    /// The name that it has given itself.
    pub command: Option<String>,
    /// The id of its cgroup.
    pub cgroup: u64,
}

impl Records {
    pub(super) fn take_from(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Self::open(load::map(ebpf, MAP)?, load::map(ebpf, ASKED)?)
    }

    /// Of the maps `TUNNELED` and `ORIGINAL_DST`.
    ///
    /// # Errors
    /// A map is of another kind.
    pub fn open(records: Map, asked: Map) -> Result<Self, Error> {
        let map = HashMap::try_from(records).map_err(|error| Error::Map { map: MAP, error })?;
        let asked = HashMap::try_from(asked).map_err(|error| Error::Map { map: ASKED, error })?;
        let map = Mutex::new(map);
        Ok(Self(Arc::new(Shared { map, asked, ends: RwLock::default() })))
    }

    /// The process whose socket this is, if the socket still asks for this destination: the kernel forgets what it
    /// has no room for, and a socket may be connected again.
    #[must_use]
    pub fn process(&self, cookie: u64, original: OriginalDst) -> Option<ConnectingProcess> {
        let Raw(asked) = self.0.asked.get(&cookie, 0).ok()?;
        process(&asked, original)
    }

    /// Says whose addresses are known from here on.
    pub fn set_ends(&self, ends: KnownAddresses) {
        *self.0.ends.write().unwrap_or_else(PoisonError::into_inner) = ends;
    }

    /// Takes the record for a connection that was accepted from `peer`: it is gone afterwards, and
    /// nobody else gets it.
    ///
    /// `None` where there is none, as for a listener that was dialled directly; where it is so old
    /// that it must be another connection's; or where nobody knows whose address it is, and two
    /// sockets claimed this end of a connection.
    #[must_use]
    pub fn take(&self, peer: SocketAddr) -> Option<Record> {
        let end = End { addr: peer.ip().into(), port: PortBe::new(peer.port()) };
        let other = {
            let ends = self.0.ends.read().unwrap_or_else(PoisonError::into_inner);
            ends.space(peer.ip())
        };
        [Some(space::WALL), other].into_iter().flatten().find_map(|space| self.take_at(end, space))
    }

    fn take_at(&self, end: End, space: u8) -> Option<Record> {
        let key = Raw(end.key(space));
        let mut map = self.0.map.lock().unwrap_or_else(PoisonError::into_inner);
        // Linux before 5.14 can't look up and delete in one step here. It needn't: the record of an
        // accepted connection is changed by the kernel in one way alone, to be unowned.
        let found = match map.get(&key, 0) {
            Ok(Raw(found)) => found,
            Err(MapError::KeyNotFound) => return None,
            Err(error) => {
                tracing::debug!("no record for {end:?}: {error}");
                return None;
            }
        };
        if let Err(error) = map.remove(&key) {
            tracing::debug!("the record for {end:?} was taken by another: {error}");
            return None;
        }
        read(&found, now())
    }
}

/// What a record says, if it counts.
fn read(found: &Tunneled, now: u64) -> Option<Record> {
    let Tunneled { time: _, cookie, group, policy, cgroup, addr, port, routed_port, contested } =
        *found;
    if contested != 0 || !found.is_fresh(now) {
        return None;
    }
    Some(Record {
        original: OriginalDst(SocketAddr::new(IpAddr::from(addr), port.get())),
        group: usize::try_from(group).ok()?,
        gateway_port: Port::new(routed_port.get()).map(GatewayPort),
        policy,
        cgroup,
        cookie,
    })
}

fn process(asked: &abi::OriginalDst, original: OriginalDst) -> Option<ConnectingProcess> {
    let abi::OriginalDst { caller, addr, port, pid, command, .. } = *asked;
    let wanted = OriginalDst(SocketAddr::new(IpAddr::from(addr), port.get()));
    (wanted == original && pid != 0).then(|| ConnectingProcess {
        pid,
        command: events::name(&command),
        cgroup: caller,
    })
}

/// The programs' clock (CLOCK_MONOTONIC), in nanoseconds.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use egress_ebpf::addr::Addr;

    use super::*;
    use crate::bpf::plan::PodHardware;

    fn record() -> Tunneled {
        Tunneled {
            time: 1_000,
            cookie: 9,
            cgroup: 77,
            addr: Addr::v4([198, 51, 100, 7]),
            group: 2,
            policy: 1,
            port: PortBe::new(5432),
            routed_port: PortBe::new(15432),
            contested: 0,
        }
    }

    #[test]
    fn a_record_says_where_the_application_wanted_to_go() {
        let read = read(&record(), 2_000).unwrap();
        assert_eq!(read.original, OriginalDst("198.51.100.7:5432".parse().unwrap()));
        assert_eq!(read.gateway_port, Port::new(15432).map(GatewayPort));
        assert_eq!((read.group, read.policy, read.cgroup, read.cookie), (2, 1, 77, 9));
    }

    #[test]
    fn a_socket_that_was_connected_elsewhere_names_no_process() {
        let asked = abi::OriginalDst {
            cgroup: 77,
            caller: 78,
            share: 77,
            network: 0,
            addr: Addr::v4([198, 51, 100, 7]),
            gateway: Addr::v4([10, 0, 0, 1]),
            group: 2,
            policy: 1,
            port: PortBe::new(5432),
            gateway_port: PortBe::new(15001),
            routed_port: PortBe::new(15432),
            hop: abi::hop::RECORDED,
            reported: 1,
            pid: 4711,
            reserved: 0,
            command: *b"psql\0\0\0\0\0\0\0\0\0\0\0\0",
        };
        let to = |text: &str| OriginalDst(text.parse().unwrap());
        let found = process(&asked, to("198.51.100.7:5432")).unwrap();
        assert_eq!((found.pid, found.cgroup), (4711, 78));
        assert_eq!(found.command.as_deref(), Some("psql"));
        assert_eq!(process(&asked, to("198.51.100.7:5433")), None);
        assert_eq!(process(&asked, to("198.51.100.8:5432")), None);
        let unknown = abi::OriginalDst { pid: 0, ..asked };
        assert_eq!(process(&unknown, to("198.51.100.7:5432")), None);
    }

    #[test]
    fn an_end_that_is_known_is_looked_for_where_it_was_seen() {
        let addresses = |text: &str| vec![text.parse().unwrap()];
        let at = |ifindex, addresses| PodInterface {
            ifindex,
            addresses,
            hardware: PodHardware::Unknown,
            policy: 0,
        };
        let own = at(NO_INTERFACE, addresses("10.9.0.1"));
        let ends = KnownAddresses::new(&[at(7, addresses("10.0.0.5")), own]);
        let space = |text: &str| ends.space(text.parse().unwrap());
        assert_eq!((space("10.0.0.5"), space("::ffff:10.0.0.5")), (None, None));
        assert_eq!(space("10.0.0.6"), Some(space::OTHER));
        let node = if node_network() == 0 { space::OTHER } else { space::NODE };
        assert_eq!(space("10.9.0.1"), Some(node));
    }

    #[test]
    fn what_is_old_or_claimed_twice_is_nobodys() {
        assert!(read(&record(), 1_000 + Tunneled::LIFETIME - 1).is_some());
        assert_eq!(read(&record(), 1_000 + Tunneled::LIFETIME), None);
        assert_eq!(read(&Tunneled { contested: 1, ..record() }, 1_000), None);
        assert!(read(&record(), 0).is_some(), "clocks of two processors differ a little");
    }
}
