//! `egressAddresses` of `mesh.yaml`, and the annotation that names them.

use std::{net::IpAddr, sync::Arc};

use super::super::{
    annotations::{Annotations, EGRESS_ADDRESS},
    decode::{At, Cx},
    mesh::MeshEgressAddresses,
    names,
};
use crate::{
    policy::{Cluster, Destination, EgressAddressSet, EgressAddresses, Provider, Reached},
    types::{Namespace, Selector},
};

/// Entries, at most.
const MAX_SETS: usize = 256;

pub(super) fn sets(given: &[MeshEgressAddresses], cx: &mut Cx<'_>) -> Vec<EgressAddressSet> {
    let mut sets: Vec<EgressAddressSet> = Vec::new();
    if let Some(over) = given.get(MAX_SETS) {
        let found = given.len().to_string();
        cx.wrong(&over.at, found, format!("at most {MAX_SETS}"), "too many entries");
    }
    for MeshEgressAddresses { at, name, addresses: list, namespaces, labels } in given {
        let Some(name) = name else { continue };
        if sets.iter().any(|set| *set.from.name == *name.value) {
            cx.error(&name.at, format!("the name {:?} is given twice", name.value));
        }
        if name.value.is_empty() || name.value.contains([',', ' ']) || is_address(&name.value) {
            let found = format!("{:?}", name.value);
            let expected = "a name without commas and spaces that is no address";
            cx.wrong(&name.at, found, expected, "it could not be told from a list of addresses");
        }
        let found = usable(names::addresses(list, cx), &name.value);
        if list.is_empty() {
            cx.wrong(&at.field("addresses"), "nothing", "at least one", "nothing to dial from");
        }
        let spaces = namespaces.iter().map(|name| Namespace(name.value.as_str().into()));
        let selector = Selector { namespaces: spaces.collect(), labels: names::labels(labels) };
        sets.push(EgressAddressSet { selector, from: Arc::new(found) });
    }
    sets
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn usable(addresses: Vec<IpAddr>, name: &str) -> EgressAddresses {
    EgressAddresses { name: name.into(), addresses }
}

/// What the annotation of a virtual service says: the name of an entry, or addresses.
pub(super) fn annotated(
    annotations: &Annotations,
    sets: &[EgressAddressSet],
    cx: &mut Cx<'_>,
) -> Option<Arc<EgressAddresses>> {
    let text = annotations.get(EGRESS_ADDRESS)?;
    let value = text.value.trim();
    if let Some(set) = sets.iter().find(|set| *set.from.name == *value) {
        return Some(Arc::clone(&set.from));
    }
    let parts =
        value.split(',').map(|part| At { value: part.trim().to_owned(), at: text.at.clone() });
    let parts: Vec<_> = parts.collect();
    if !parts.iter().all(|part| is_address(&part.value)) {
        // Once a resource, not for each of its destinations.
        if !cx.has_told(&text.at.path.to_string()) {
            let expected = "a name of `egressAddresses` in mesh.yaml, or addresses";
            let message = "nobody would know which address to dial from";
            cx.wrong(&text.at, format!("{value:?}"), expected, message);
        }
        // Nothing is dialled from another one: the error forbids the snapshot.
        return None;
    }
    Some(Arc::new(usable(names::addresses(&parts, cx), value)))
}

/// The destination, dialled from these addresses.
pub(super) fn dialled_from(
    destination: &Destination,
    from: &Arc<EgressAddresses>,
) -> Vec<Provider> {
    let from = |reached: &Reached| Reached {
        cluster: Arc::new(Cluster {
            from: Some(Arc::clone(from)),
            ..Cluster::clone(&reached.cluster)
        }),
        refusals: reached.refusals.clone(),
    };
    let providers = destination.providers.iter().map(|provider| Provider {
        by_client: provider.by_client.iter().map(|(name, own)| (name.clone(), from(own))).collect(),
        others: from(&provider.others),
        ..provider.clone()
    });
    providers.collect()
}
