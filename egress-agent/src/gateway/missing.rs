//! Addresses to dial from that this host does not have.

use crate::{policy::Snapshot, sys::netlink::addresses};

/// A sentence for each: what is to be dialled from it is refused, and nothing else.
pub(super) fn missing_addresses(snapshot: &Snapshot) -> Vec<String> {
    let sets = &snapshot.mesh.egress_addresses;
    let clusters = snapshot.rules.clusters.iter().filter_map(|cluster| cluster.from.as_ref());
    let mut wanted: Vec<_> = sets.iter().map(|set| &set.from).chain(clusters).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let own = match addresses::list() {
        Ok(own) => own,
        Err(error) => {
            tracing::warn!("can't list this host's addresses: {error}");
            return Vec::new();
        }
    };
    wanted.sort_by(|a, b| a.name.cmp(&b.name));
    wanted.dedup();
    wanted
        .into_iter()
        .flat_map(|from| {
            let missing = from.addresses.iter().filter(|ip| !own.contains(ip));
            missing.map(|missing| {
                format!(
                    "{missing} of the egress addresses {:?} is no address of this host: what is dialled from it is \
                     refused (egress_address_unavailable)",
                    from.name
                )
            })
        })
        .collect()
}
