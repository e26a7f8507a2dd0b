//! `egressAddresses` of `mesh.yaml`, and the annotation that names them.

use std::{net::IpAddr, sync::Arc};

use super::super::{
    annotations::EGRESS_ADDRESS,
    decode::{Cx, Spanned},
    mesh::MeshEgressAddresses,
    names,
    problem::Severity,
    resource::Meta,
};
use crate::{
    policy::{
        Cluster, Destination, EgressAddressSet, EgressAddresses, MeshConfig, Provider,
        VisibleDestination,
    },
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

/// What the annotation of a virtual service or a gateway says: the name of an entry, or addresses. A namespace may name
/// what is for it, the root namespace anything.
///
/// # Errors
/// It names what is none, or is not for its namespace; the sentence says so, and nothing is sent there.
pub(super) fn annotated(
    meta: &Meta,
    mesh: &MeshConfig,
    cx: &mut Cx<'_>,
) -> Result<Option<Arc<EgressAddresses>>, String> {
    let Some(text) = meta.annotations.get(EGRESS_ADDRESS) else { return Ok(None) };
    let (value, sets) = (text.value.trim(), &mesh.egress_addresses);
    // Once a resource, not for each of its destinations.
    let told = cx.has_told(&text.at.path.to_string());
    let named = sets.iter().find(|set| *set.from.name == *value);
    let from = if let Some(set) = named {
        Arc::clone(&set.from)
    } else {
        let parts = value
            .split(',')
            .map(|part| Spanned { value: part.trim().to_owned(), at: text.at.clone() });
        let parts: Vec<_> = parts.collect();
        if !parts.iter().all(|part| is_address(&part.value)) {
            if !told {
                let expected = "a name of `egressAddresses` in mesh.yaml, or addresses";
                let message = "nobody would know which address to dial from; what is routed there is \
                               refused";
                let problem = cx.note(Severity::Refusal, &text.at, message);
                problem.found = Some(format!("{value:?}"));
                problem.expected = Some(expected.into());
            }
            return Err(format!("{} dials from {value:?}, which is no address", meta.label));
        }
        Arc::new(usable(names::addresses(&parts, cx), value))
    };
    let (own, root) = (&meta.namespace, &mesh.root_namespace);
    let allowed = match named {
        Some(set) => is_for(set, own),
        None => from
            .addresses
            .iter()
            .all(|ip| sets.iter().any(|set| is_for(set, own) && set.from.addresses.contains(ip))),
    };
    if allowed || own == root {
        return Ok(Some(from));
    }
    if !told {
        let message = format!(
            "the egress address is not for the namespace {}; what is routed there is refused. Add the \
             namespace to `namespaces` of an entry of `egressAddresses` with it, or say it in a virtual \
             service of the root namespace ({})",
            own.0, root.0
        );
        let problem = cx.note(Severity::Refusal, &text.at, message);
        problem.found = Some(format!("{value:?}"));
        let open = sets.iter().filter(|set| is_for(set, own));
        let open: Vec<_> = open.map(|set| format!("{:?}", set.from.name)).collect();
        problem.expected = Some(match open.as_slice() {
            [] => format!("nothing: no entry of `egressAddresses` is for {}", own.0),
            open => format!("one of {}, or addresses of theirs", open.join(", ")),
        });
    }
    Err(format!("{} dials from {value}, which is not for its namespace", meta.label))
}

/// Whether virtual services of this namespace may name the entry.
fn is_for(set: &EgressAddressSet, namespace: &Namespace) -> bool {
    let Selector { namespaces, labels } = &set.selector;
    let for_all = namespaces.is_empty() && labels.is_empty();
    for_all || namespaces.contains(namespace)
}

/// The destination, dialled from these addresses.
pub(super) fn dialled_from(
    destination: &Destination,
    from: &Arc<EgressAddresses>,
) -> Vec<Provider> {
    let from = |reached: &VisibleDestination| VisibleDestination {
        cluster: Arc::new(Cluster {
            from: Some(Arc::clone(from)),
            ..Cluster::clone(&reached.cluster)
        }),
        rules: Arc::clone(&reached.rules),
        refusals: reached.refusals.clone(),
    };
    let providers = destination.providers.iter().map(|provider| Provider {
        by_client: provider.by_client.iter().map(|(who, own)| (who.clone(), from(own))).collect(),
        others: from(&provider.others),
        ..provider.clone()
    });
    providers.collect()
}
