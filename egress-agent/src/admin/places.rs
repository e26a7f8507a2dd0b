//! How many connections an endpoint holds, and whose. Pure: a connection is a number.
//!
//! The bound is [`EndpointConnections::ALL`] connections an endpoint, of which [`EndpointConnections::RESERVED`] are for nodes
//! alone; the share of one source is [`EndpointConnections::EACH`]. Nobody is kept waiting: where there is no
//! place left, the oldest connection of the source with the most is closed for the new one.

use std::net::{IpAddr, Ipv6Addr};

use crate::policy::Caller;

/// The number of a connection, which grows with time.
pub(super) type Id = u64;

#[derive(Clone, Copy, Debug)]
struct ConnectionSlot {
    id: Id,
    origin: IpAddr,
    caller: Caller,
}

/// The open connections of one endpoint, the oldest first.
#[derive(Debug, Default)]
pub(super) struct EndpointConnections {
    open: Vec<ConnectionSlot>,
    next: Id,
}

/// What becomes of a new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    /// It has a place.
    Admitted(Id),
    /// It has the place of this older one, which is to be closed.
    Instead {
        /// The new one.
        id: Id,
        /// The one to close.
        of: Id,
    },
    /// It has none.
    Refused,
}

impl EndpointConnections {
    /// Connections at a time.
    pub(super) const ALL: usize = 256;
    /// Those that are for nodes and loopback alone.
    pub(super) const RESERVED: usize = 128;
    /// Those that one source may have.
    pub(super) const EACH: usize = 16;

    pub(super) fn admit(&mut self, origin: IpAddr, caller: Caller) -> Admission {
        let victim = match caller {
            Caller::Refused => return Admission::Refused,
            Caller::Node | Caller::Other
                if self.count(|place| place.origin == origin) >= Self::EACH =>
            {
                self.open.iter().find(|place| place.origin == origin).map(|place| place.id)
            }
            Caller::Other if self.count(is_other) >= Self::ALL - Self::RESERVED => {
                self.oldest_of_the_largest(is_other)
            }
            // What others hold is less than all, so a node finds a place or takes another node's.
            Caller::Node if self.open.len() >= Self::ALL => {
                self.oldest_of_the_largest(|place| place.caller == Caller::Node)
            }
            Caller::Node | Caller::Other => None,
        };
        let id = self.next;
        self.next += 1;
        if let Some(victim) = victim {
            self.leave(victim);
        }
        self.open.push(ConnectionSlot { id, origin, caller });
        victim.map_or(Admission::Admitted(id), |of| Admission::Instead { id, of })
    }

    /// A connection has ended.
    pub(super) fn leave(&mut self, id: Id) {
        self.open.retain(|place| place.id != id);
    }

    /// Connections that are open.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.open.len()
    }

    fn count(&self, which: impl Fn(&ConnectionSlot) -> bool) -> usize {
        self.open.iter().filter(|place| which(place)).count()
    }

    fn oldest_of_the_largest(&self, which: impl Fn(&ConnectionSlot) -> bool) -> Option<Id> {
        let among = || self.open.iter().filter(|place| which(place));
        // Of several with as many, the first found has the oldest connection.
        let mut largest: Option<(usize, &ConnectionSlot)> = None;
        for place in among() {
            let count = among().filter(|other| other.origin == place.origin).count();
            if largest.is_none_or(|(most, _)| count > most) {
                largest = Some((count, place));
            }
        }
        largest.map(|(_, place)| place.id)
    }
}

fn is_other(place: &ConnectionSlot) -> bool {
    place.caller == Caller::Other
}

/// What places are counted by: an IPv4 address, or the /64 of an IPv6 address, of which one host
/// may have every address.
pub(super) fn origin(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(last: u16) -> IpAddr {
        let [a, b] = last.to_be_bytes();
        IpAddr::from([10, 0, a, b])
    }

    fn fill(places: &mut EndpointConnections, origins: impl IntoIterator<Item = u16>, each: usize) {
        for origin in origins {
            for _ in 0..each {
                places.admit(ip(origin), Caller::Other);
            }
        }
    }

    #[test]
    fn a_source_beyond_its_share_loses_its_own_oldest() {
        let mut places = EndpointConnections::default();
        let mut ids = Vec::new();
        for _ in 0..EndpointConnections::EACH {
            let admitted = places.admit(ip(1), Caller::Other);
            let Admission::Admitted(id) = admitted else { panic!("{admitted:?}") };
            ids.push(id);
        }
        let next = places.admit(ip(1), Caller::Other);
        assert!(matches!(next, Admission::Instead { of, .. } if of == ids[0]), "{next:?}");
        assert_eq!(places.len(), EndpointConnections::EACH);
        assert!(matches!(places.admit(ip(2), Caller::Other), Admission::Admitted(_)));
    }

    #[test]
    fn under_pressure_the_largest_source_makes_room() {
        let mut places = EndpointConnections::default();
        places.admit(ip(1), Caller::Other);
        let Admission::Admitted(oldest) = places.admit(ip(2), Caller::Other) else { panic!() };
        fill(&mut places, [2], EndpointConnections::EACH - 1);
        // One connection each: an attacker with many addresses.
        fill(&mut places, 100..100 + 111, 1);
        assert_eq!(places.len(), EndpointConnections::ALL - EndpointConnections::RESERVED);
        let next = places.admit(ip(3), Caller::Other);
        assert!(matches!(next, Admission::Instead { of, .. } if of == oldest), "{next:?}");
    }

    #[test]
    fn nodes_have_places_that_nobody_else_takes() {
        let mut places = EndpointConnections::default();
        fill(&mut places, 1..400, 4);
        assert_eq!(places.len(), EndpointConnections::ALL - EndpointConnections::RESERVED);
        for node in 1000..1000 + 128 {
            let admitted = places.admit(ip(node), Caller::Node);
            assert!(matches!(admitted, Admission::Admitted(_)), "{admitted:?}");
        }
        assert_eq!(places.len(), EndpointConnections::ALL);
        // More nodes than places: another node's goes, nobody is turned away.
        let next = places.admit(ip(2000), Caller::Node);
        assert!(matches!(next, Admission::Instead { .. }), "{next:?}");
        assert_eq!(places.admit(ip(1), Caller::Refused), Admission::Refused);
    }

    #[test]
    fn an_ipv6_host_has_one_share_for_all_its_addresses() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(origin(ip("2001:db8::1")), origin(ip("2001:db8::ffff")));
        assert_ne!(origin(ip("2001:db8::1")), origin(ip("2001:db8:0:1::1")));
        assert_ne!(origin(ip("10.0.0.1")), origin(ip("10.0.0.2")));
        assert_eq!(origin(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    }

    proptest! {
        #[test]
        fn the_bounds_hold_whoever_comes(
            steps in proptest::collection::vec((0_u16..40, 0_u8..4, any::<bool>()), 0..1500),
        ) {
            let mut places = EndpointConnections::default();
            let mut open = Vec::new();
            for (origin, kind, leaves) in steps {
                let caller = if kind == 0 { Caller::Node } else { Caller::Other };
                let origin = ip(if kind == 0 { 1000 + origin } else { origin });
                match places.admit(origin, caller) {
                    Admission::Admitted(id) => open.push(id),
                    Admission::Instead { id, of } => {
                        prop_assert!(open.contains(&of));
                        open.retain(|other| *other != of);
                        open.push(id);
                    }
                    Admission::Refused => prop_assert!(false, "only refused callers are refused"),
                }
                if leaves {
                    places.leave(open.remove(0));
                }
                prop_assert_eq!(places.len(), open.len());
                prop_assert!(places.len() <= EndpointConnections::ALL);
                prop_assert!(places.count(is_other) <= EndpointConnections::ALL - EndpointConnections::RESERVED);
                prop_assert!(places.count(|place| place.origin == origin) <= EndpointConnections::EACH);
            }
        }
    }
}
