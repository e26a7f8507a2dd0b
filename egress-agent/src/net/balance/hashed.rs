//! Tables of consistent hashing, made as Envoy makes them: a ring of points, or Maglev's table.

use crate::{
    policy::{Endpoint, HashTable, hash_of, hash_with},
    types::UpstreamAddr,
};

/// Points of a ring, however unequal the weights are. A ring is made while requests wait for it.
const MOST_POINTS: u32 = 1 << 16;

/// A table for certain endpoints.
#[derive(Debug)]
pub(super) struct Hashed {
    /// Sorted by address, so that it is the same in whatever order they are found.
    endpoints: Box<[Endpoint]>,
    table: HashTable,
    slots: Slots,
}

#[derive(Debug)]
enum Slots {
    /// Hash and endpoint, sorted.
    Ring(Box<[(u64, u32)]>),
    /// The endpoint of each slot.
    Maglev(Box<[u32]>),
}

impl Hashed {
    /// For these endpoints, sorted by address; with weights above zero, and not more than 2³².
    pub(super) fn new(endpoints: &[Endpoint], table: HashTable) -> Self {
        let slots = match table {
            HashTable::Ring { minimum } => Slots::Ring(ring(endpoints, minimum)),
            HashTable::Maglev { size } => Slots::Maglev(maglev(endpoints, size)),
        };
        Self { endpoints: endpoints.into(), table, slots }
    }

    /// Whether it is the table for these.
    pub(super) fn is_for(&self, endpoints: &[Endpoint], table: HashTable) -> bool {
        self.table == table && *self.endpoints == *endpoints
    }

    /// The endpoint for a hash; `None` where there is none at all.
    pub(super) fn choose(&self, hash: u64) -> Option<UpstreamAddr> {
        let at = match &self.slots {
            Slots::Ring(points) => {
                let next = points.partition_point(|(point, _)| *point < hash);
                points.get(next).or_else(|| points.first())?.1
            }
            Slots::Maglev(slots) => {
                let size = u64::try_from(slots.len()).ok().filter(|size| *size > 0)?;
                *slots.get(usize::try_from(hash % size).ok()?)?
            }
        };
        Some(UpstreamAddr(self.endpoints.get(usize::try_from(at).ok()?)?.addr))
    }
}

/// The index of the endpoint for a hash without a table: the one whose hash with it is the greatest
/// (Thaler and Ravishankar 1998). Weights don't count.
pub(super) fn rendezvous(endpoints: &[Endpoint], hash: u64) -> usize {
    let score = |endpoint: &Endpoint| hash_with(hash, endpoint.addr.to_string().as_bytes());
    let best = endpoints.iter().enumerate().max_by_key(|(_, endpoint)| score(endpoint));
    best.map_or(0, |(at, _)| at)
}

/// Weights as parts of their sum.
fn parts(endpoints: &[Endpoint]) -> Vec<f64> {
    let total: f64 = endpoints.iter().map(|endpoint| f64::from(endpoint.weight)).sum();
    endpoints.iter().map(|endpoint| f64::from(endpoint.weight) / total.max(1.0)).collect()
}

/// The endpoint with the least weight has a whole number of points, at least one; all others as many more as
/// they weigh.
fn ring(endpoints: &[Endpoint], minimum: u32) -> Box<[(u64, u32)]> {
    let parts = parts(endpoints);
    let least = parts.iter().copied().filter(|part| *part > 0.0).fold(1.0, f64::min);
    let scale = ((least * f64::from(minimum)).ceil() / least).min(f64::from(MOST_POINTS));
    let mut points = Vec::new();
    let (mut wanted, mut made) = (0.0, 0.0);
    for ((number, endpoint), part) in (0..).zip(endpoints).zip(&parts) {
        wanted += scale * part;
        let mut own = 0_u32;
        while made < wanted {
            points.push((hash_of(format!("{}_{own}", endpoint.addr).as_bytes()), number));
            own += 1;
            made += 1.0;
        }
    }
    points.sort_unstable();
    points.into()
}

/// Each endpoint goes through the slots in an order of its own; in turns each takes the next free one, the
/// more often the more it weighs.
fn maglev(endpoints: &[Endpoint], size: u32) -> Box<[u32]> {
    const FREE: u32 = u32::MAX;
    struct SlotTaker {
        offset: u64,
        skip: u64,
        next: u64,
        part: f64,
        target: f64,
    }
    let slots = u64::from(size.max(2));
    let parts = parts(endpoints);
    let most = parts.iter().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return Box::default();
    }
    let mut takers: Vec<SlotTaker> = endpoints
        .iter()
        .zip(parts)
        .map(|(endpoint, part)| {
            let key = endpoint.addr.to_string();
            let offset = hash_of(key.as_bytes()) % slots;
            let skip = hash_with(1, key.as_bytes()) % (slots - 1) + 1;
            SlotTaker { offset, skip, next: 0, part, target: 0.0 }
        })
        .collect();
    let mut table = vec![FREE; usize::try_from(slots).unwrap_or(2)];
    let (mut free, mut turn) = (table.len(), 0.0);
    while free > 0 {
        turn += 1.0;
        for (number, taker) in (0_u32..).zip(&mut takers) {
            if turn * taker.part < taker.target || free == 0 {
                continue;
            }
            taker.target += most;
            loop {
                let slot = (taker.offset + taker.skip * taker.next) % slots;
                taker.next += 1;
                let slot = usize::try_from(slot).ok().and_then(|slot| table.get_mut(slot));
                let Some(slot) = slot else { break };
                if *slot == FREE {
                    *slot = number;
                    free -= 1;
                    break;
                }
            }
        }
    }
    table.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const TABLES: [HashTable; 2] =
        [HashTable::Ring { minimum: 1024 }, HashTable::Maglev { size: 65_537 }];

    fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        (1u8..)
            .zip(weights)
            .map(|(last, weight)| Endpoint {
                addr: ([192, 0, 2, last], 443).into(),
                weight: *weight,
                place: 0,
            })
            .collect()
    }

    fn counts(hashed: &Hashed) -> HashMap<UpstreamAddr, usize> {
        let mut counts = HashMap::new();
        for key in 0..20_000_u32 {
            let chosen = hashed.choose(hash_of(&key.to_be_bytes())).unwrap();
            *counts.entry(chosen).or_default() += 1;
        }
        counts
    }

    #[test]
    fn the_load_is_shared_by_weight() {
        for table in TABLES {
            let from = endpoints(&[1, 1, 2]);
            let counts = counts(&Hashed::new(&from, table));
            let of = |at: usize| counts[&UpstreamAddr(from[at].addr)];
            for (at, about) in [(0, 5000), (1, 5000), (2, 10_000)] {
                assert!(
                    of(at) > about * 8 / 10 && of(at) < about * 12 / 10,
                    "{table:?} {counts:?}"
                );
            }
        }
    }

    #[test]
    fn whoever_goes_takes_little_else_along() {
        for table in TABLES {
            let from = endpoints(&[1; 5]);
            let gone = from[2];
            let before = Hashed::new(&from, table);
            let rest: Vec<_> = from.iter().copied().filter(|one| *one != gone).collect();
            let after = Hashed::new(&rest, table);
            let mut moved = 0;
            for key in 0..20_000_u32 {
                let hash = hash_of(&key.to_be_bytes());
                let (was, is) = (before.choose(hash).unwrap(), after.choose(hash).unwrap());
                if was != UpstreamAddr(gone.addr) && was != is {
                    moved += 1;
                }
                assert_ne!(is, UpstreamAddr(gone.addr));
            }
            // The rest shares what was its fifth. By the remainder of a division four fifths would move.
            assert!(moved < 5000, "{table:?}: {moved}");
        }
    }

    /// `127.0.0.1` on ports from 90 on.
    fn local(weights: &[u32]) -> Vec<Endpoint> {
        (90..)
            .zip(weights)
            .map(|(port, weight)| Endpoint {
                addr: ([127, 0, 0, 1], port).into(),
                weight: *weight,
                place: 0,
            })
            .collect()
    }

    /// Points and endpoints of Envoy's own test, `RingHashLoadBalancerTest.Basic` in
    /// `test/extensions/load_balancing_policies/ring_hash/ring_hash_lb_test.cc`.
    #[test]
    fn the_ring_is_envoys() {
        let expected: [(u64, u32); 12] = [
            (833_437_586_790_550_860, 4),
            (928_266_305_478_181_108, 2),
            (1_033_482_794_131_418_490, 0),
            (3_551_244_743_356_806_947, 5),
            (3_851_675_632_748_031_481, 3),
            (5_583_722_120_771_150_861, 1),
            (6_311_230_543_546_372_928, 1),
            (7_700_377_290_971_790_572, 3),
            (13_144_177_310_400_110_813, 5),
            (13_444_792_449_719_432_967, 2),
            (15_516_499_411_664_133_160, 4),
            (16_117_243_373_044_804_889, 0),
        ];
        let from = local(&[1; 6]);
        assert_eq!(*ring(&from, 12), expected);
        let hashed = Hashed::new(&from, HashTable::Ring { minimum: 12 });
        // The next point, and after the last one the first.
        for (hash, endpoint) in [
            (0, 4),
            (u64::MAX, 4),
            (3_551_244_743_356_806_947, 5),
            (3_551_244_743_356_806_948, 3),
            (16_117_243_373_044_804_880, 0),
        ] {
            assert_eq!(hashed.choose(hash), Some(UpstreamAddr(from[endpoint].addr)), "{hash}");
        }
    }

    /// Tables of Envoy's own tests, `MaglevLoadBalancerTest.Basic` and `Weighted` in
    /// `test/extensions/load_balancing_policies/maglev/maglev_lb_test.cc`.
    #[test]
    fn the_table_of_maglev_is_envoys() {
        let basic: &[u32] = &[2, 4, 0, 1, 5, 0, 3];
        let weighted: &[u32] = &[1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1];
        for (weights, size, expected) in [(&[1; 6][..], 7, basic), (&[1, 2], 17, weighted)] {
            let from = local(weights);
            assert_eq!(*maglev(&from, size), *expected);
            let hashed = Hashed::new(&from, HashTable::Maglev { size });
            for hash in 0..u64::from(3 * size) {
                let slot = usize::try_from(hash % u64::from(size)).unwrap();
                let endpoint = usize::try_from(expected[slot]).unwrap();
                assert_eq!(hashed.choose(hash), Some(UpstreamAddr(from[endpoint].addr)), "{hash}");
            }
        }
    }

    /// What a client can tell the two apart by: where keys lead, and how evenly. A ring is the more even the more
    /// points it has; of Maglev's slots all have as many as they can.
    #[test]
    fn a_ring_is_no_table_of_maglev() {
        let from = endpoints(&[1; 5]);
        let of = |table| Hashed::new(&from, table);
        let [ring, table] = TABLES.map(of);
        let same = (0..20_000_u32).map(|key| hash_of(&key.to_be_bytes()));
        let same = same.filter(|hash| ring.choose(*hash) == table.choose(*hash)).count();
        // Of five endpoints, chance makes a fifth of the keys lead to one and the same.
        assert!((3000..5000).contains(&same), "{same}");
        // The greatest share of the keys, in thousandths of an even one.
        let greatest = |table| {
            let all = counts(&of(table));
            *all.values().max().unwrap() * from.len() / 20
        };
        let [few, some, many] = [10, 1024, 10_240].map(|minimum| HashTable::Ring { minimum });
        let ring = [few, some, many].map(greatest);
        assert!(ring[0] > 1300 && ring[0] > ring[1], "{ring:?}");
        assert!((1030..1100).contains(&ring[1]) && ring[2] < 1050, "{ring:?}");
        for size in [7, 257, 65_537] {
            let slots = maglev(&from, size);
            let of = |number| slots.iter().filter(|slot| **slot == number).count();
            let owned: Vec<_> = (0..5).map(of).collect();
            let (least, most) = (owned.iter().min().unwrap(), owned.iter().max().unwrap());
            assert!(most - least <= 1 && owned.iter().sum::<usize>() == slots.len(), "{owned:?}");
        }
    }

    #[test]
    fn without_a_table_the_order_of_endpoints_says_nothing() {
        let from = endpoints(&[1; 5]);
        let mut other = from.clone();
        other.reverse();
        let mut chosen = HashMap::new();
        for hash in 0..1000 {
            let one = from[rendezvous(&from, hash)].addr;
            assert_eq!(one, other[rendezvous(&other, hash)].addr);
            *chosen.entry(one).or_insert(0) += 1;
        }
        assert!(chosen.len() == 5 && chosen.values().all(|count| *count > 100), "{chosen:?}");
    }

    #[test]
    fn one_endpoint_takes_all_and_none_takes_nothing() {
        for table in [HashTable::Ring { minimum: 1 }, HashTable::Maglev { size: 3 }] {
            let one = endpoints(&[1]);
            let hashed = Hashed::new(&one, table);
            assert_eq!(counts(&hashed).len(), 1);
            assert!(hashed.is_for(&one, table) && !hashed.is_for(&[], table));
            assert_eq!(Hashed::new(&[], table).choose(7), None);
        }
        // More endpoints than points asked for: each has one.
        let many = ring(&endpoints(&[1; 100]), 1);
        assert!((100..102).contains(&many.len()), "{}", many.len());
        for number in 0..100 {
            assert!(many.iter().any(|(_, own)| *own == number), "{number}");
        }
        // However little one weighs, it has one.
        let unequal = ring(&endpoints(&[1, 10_000]), 8);
        assert_eq!(unequal.iter().filter(|(_, own)| *own == 0).count(), 1);
        assert!((10_001..10_003).contains(&unequal.len()), "{}", unequal.len());
    }
}
