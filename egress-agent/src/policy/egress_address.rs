//! Source addresses that a gateway dials with.

use std::{net::IpAddr, sync::Arc};

use super::consistent_hash::hash_of;
use crate::types::{Selector, ShareOwner, Source};

/// Addresses to dial from; a workload keeps to one of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EgressAddresses {
    /// As `mesh.yaml` or the annotation has it.
    pub name: Arc<str>,
    /// One at least.
    pub addresses: Vec<IpAddr>,
}

/// An entry of `egressAddresses` in `mesh.yaml`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EgressAddressSet {
    /// The workloads whose connections come from them; none where it selects nothing.
    pub selector: Selector,
    /// The addresses.
    pub from: Arc<EgressAddresses>,
}

impl EgressAddresses {
    /// The address for an owner, in the family of what is dialled; `None` where there is none of it.
    #[must_use]
    pub fn choose(&self, owner: &ShareOwner, is_ipv6: bool) -> Option<IpAddr> {
        let own: Vec<_> = self.addresses.iter().filter(|ip| ip.is_ipv6() == is_ipv6).collect();
        let count = u64::try_from(own.len()).ok().filter(|count| *count > 0)?;
        // The same in every process, whatever it has dialled before.
        let at = usize::try_from(hash_of(owner.to_string().as_bytes()) % count).ok()?;
        own.get(at).map(|ip| **ip)
    }

    /// Whether there is one of this family.
    #[must_use]
    pub fn has(&self, is_ipv6: bool) -> bool {
        self.addresses.iter().any(|ip| ip.is_ipv6() == is_ipv6)
    }
}

/// The addresses for a source, as the first entry says that selects it.
#[must_use]
pub fn egress_addresses(
    sets: &[EgressAddressSet],
    source: &Source,
) -> Option<Arc<EgressAddresses>> {
    let workload = source.workload.as_deref()?;
    let set = sets.iter().find(|set| set.selector.matches(workload))?;
    Some(Arc::clone(&set.from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_keeps_its_address_and_owners_spread() {
        let pool = EgressAddresses {
            name: "pool".into(),
            addresses: ["203.0.113.1", "203.0.113.2", "2001:db8::1"]
                .map(|ip| ip.parse().unwrap())
                .into(),
        };
        let owner = |n: u8| ShareOwner::of(None, [10, 0, 0, n].into());
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..50 {
            let first = pool.choose(&owner(n), false).unwrap();
            assert_eq!(pool.choose(&owner(n), false), Some(first));
            assert!(first.is_ipv4());
            seen.insert(first);
            assert_eq!(pool.choose(&owner(n), true), Some("2001:db8::1".parse().unwrap()));
        }
        assert_eq!(seen.len(), 2);
        let only = EgressAddresses { addresses: vec!["203.0.113.1".parse().unwrap()], ..pool };
        assert_eq!(only.choose(&owner(1), true), None);
        assert!(only.has(false) && !only.has(true));
    }
}
