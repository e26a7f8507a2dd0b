//! Whose share of something bounded is used.

use std::{fmt, net::IpAddr, sync::Arc};

use super::Workload;

/// Who a share of a buffer, a queue or a cache belongs to. All pods of a workload have one share.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ShareOwner {
    /// A workload that the configuration names.
    Workload {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
    /// An address that belongs to no known workload.
    Address(IpAddr),
    /// This process itself.
    Own,
}

impl ShareOwner {
    /// The workload if it is known, the address otherwise.
    #[must_use]
    pub fn of(workload: Option<&Workload>, addr: IpAddr) -> Self {
        match workload {
            Some(workload) => Self::Workload {
                namespace: Arc::clone(&workload.namespace.0),
                name: Arc::clone(&workload.name),
            },
            None => Self::Address(addr.to_canonical()),
        }
    }
}

impl fmt::Display for ShareOwner {
    /// `NAMESPACE/NAME`, the address, or `self`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Address(addr) => write!(f, "{addr}"),
            Self::Own => f.write_str("self"),
        }
    }
}

/// Whether an owner that uses `used` may take more of a resource of which all owners together use
/// `total` of `capacity`: yes as long as it uses less than what is free, divided by `divisor`
/// (dynamic thresholds, Choudhury and Hahne 1998). However much some owners want, a part stays free
/// for one that has nothing yet: of n greedy owners each gets 1/(n + divisor), and so does a late
/// one.
#[must_use]
pub fn within_share(used: usize, total: usize, capacity: usize, divisor: usize) -> bool {
    used.saturating_mul(divisor) < capacity.saturating_sub(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Owners that take what they can get, in the order of `wants`.
    fn fill(wants: &[usize], owners: usize, capacity: usize, divisor: usize) -> Vec<usize> {
        let mut used = vec![0; owners];
        for owner in wants {
            let total = used.iter().sum();
            if within_share(used[*owner], total, capacity, divisor) {
                used[*owner] += 1;
            }
        }
        used
    }

    proptest! {
        #[test]
        fn whoever_has_nothing_gets_something(
            wants in prop::collection::vec(0_usize..6, 0..4000),
            divisor in 1_usize..8,
        ) {
            let capacity = 256;
            let used = fill(&wants, 6, capacity, divisor);
            let total = used.iter().sum();
            prop_assert!(total < capacity);
            // One that was not there yet is let in, whatever the others took.
            prop_assert!(within_share(0, total, capacity, divisor));
        }
    }

    #[test]
    fn a_greedy_owner_is_held_to_its_share() {
        let alone = fill(&[0; 1000], 1, 256, 7);
        assert_eq!(alone, [32]);
        let wants: Vec<_> = (0..8000).map(|n| n % 8).collect();
        let eight = fill(&wants, 8, 256, 7);
        assert!(eight.iter().all(|used| (17..=18).contains(used)), "{eight:?}");
    }

    #[test]
    fn an_unknown_source_is_its_address_in_one_form() {
        let mapped = ShareOwner::of(None, "::ffff:10.0.0.5".parse().unwrap());
        assert_eq!(mapped, ShareOwner::of(None, "10.0.0.5".parse().unwrap()));
        assert_eq!(mapped.to_string(), "10.0.0.5");
    }
}
