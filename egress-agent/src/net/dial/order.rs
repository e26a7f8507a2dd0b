//! In which order addresses are tried, and how fast (RFC 8305).

use std::time::Duration;

use crate::policy::Endpoint;

/// Addresses tried for one connection at most.
pub(super) const ATTEMPTS: usize = 16;
/// How long an address has before the next one is tried beside it (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses of both families in turn (RFC 8305 §4), each family in its order: so neither hides the
/// other. At most [`ATTEMPTS`].
/// They are put into `first`.
pub(super) fn interleave(first: &mut Vec<Endpoint>, other: &mut Vec<Endpoint>) {
    first.truncate(ATTEMPTS);
    for (number, endpoint) in other.drain(..).take(ATTEMPTS).enumerate() {
        first.insert(first.len().min(2 * number + 1), endpoint);
    }
    first.truncate(ATTEMPTS);
}

/// How long after one address the next of `count` is tried: so that all are tried within `limit`, and
/// the last one has as long as the others.
pub(super) fn stagger(limit: Duration, count: usize) -> Duration {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    ATTEMPT_DELAY.min(limit / count.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use proptest::prelude::*;

    use super::*;

    fn endpoints(count: u8, ip: impl Fn(u8) -> IpAddr) -> Vec<Endpoint> {
        (0..count)
            .map(|n| Endpoint { addr: SocketAddr::new(ip(n), 443), weight: 1, place: 0 })
            .collect()
    }

    proptest! {
        #[test]
        fn no_family_is_cut_off_and_each_keeps_its_order(v4 in 0_u8..40, v6 in 0_u8..40) {
            let first = endpoints(v4, |n| [198, 51, 100, n].into());
            let other = endpoints(v6, |n| [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)].into());
            let mut order = first.clone();
            interleave(&mut order, &mut other.clone());
            prop_assert_eq!(order.len(), usize::from(v4 + v6).min(ATTEMPTS));
            let half = ATTEMPTS / 2;
            for family in [first, other] {
                let its: Vec<_> = order.iter().filter(|one| family.contains(one)).collect();
                prop_assert!(its.len() >= family.len().min(half));
                prop_assert_eq!(its, family.iter().take(order.len()).collect::<Vec<_>>()
                    .into_iter().take(order.iter().filter(|one| family.contains(one)).count())
                    .collect::<Vec<_>>());
            }
            // As long as both have some, they take turns.
            let both = usize::from(v4.min(v6)).min(half);
            for pair in order.chunks(2).take(both) {
                prop_assert!(pair[0].addr.is_ipv4() && pair[1].addr.is_ipv6());
            }
        }

        #[test]
        fn all_are_tried_in_time(milliseconds in 1_u64..60_000, count in 1_usize..=16) {
            let limit = Duration::from_millis(milliseconds);
            let count_of = u32::try_from(count).unwrap();
            let wait = stagger(limit, count);
            prop_assert!(wait * (count_of - 1) + wait <= limit);
        }
    }
}
