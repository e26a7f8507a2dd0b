//! `nodes` of `mesh.yaml`, and identities that other parts of it name.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use super::super::{
    decode::{Cx, Spanned, nearest},
    mesh::MeshNode,
    names,
};
use crate::{
    policy::MeshConfig,
    types::{DEFAULT_SERVICE_ACCOUNT, Node, SpiffeId, TrustDomain, Workload},
};

/// The nodes, in file order.
pub(super) fn nodes(
    given: &[MeshNode],
    trust_domain: &TrustDomain,
    cx: &mut Cx<'_>,
) -> Vec<Arc<Node>> {
    let mut nodes: Vec<Arc<Node>> = Vec::new();
    for MeshNode { at, name, principal: proven, addresses: list } in given {
        let own = names::addresses(list, cx);
        let (Some(name), Some(proven)) = (name, proven) else { continue };
        if name.value.is_empty() {
            let expected = "the node's name";
            cx.wrong(&name.at, "\"\"", expected, "workloads name their node by it");
            continue;
        }
        if nodes.iter().any(|node| *node.name == name.value) {
            let found = format!("{:?}", name.value);
            cx.wrong(&name.at, found, "a name of its own", "two nodes have this name");
            continue;
        }
        let Some(principal) = principal(proven, trust_domain, cx) else { continue };
        let same: Vec<_> = nodes.iter().filter(|node| node.principal == principal).collect();
        // Addresses tell nodes of one identity apart, but only where all of them have some.
        let blurred = same.iter().find(|node| own.is_empty() || node.addresses.is_empty());
        if let Some(other) = blurred {
            let message = format!(
                "node {} has this identity too; without addresses nobody could tell which of them \
                 speaks",
                other.name
            );
            let expected = "an identity of its own, or addresses for both";
            cx.wrong(at, proven.value.clone(), expected, message);
            continue;
        }
        let shared = same.iter().find_map(|node| {
            let address = node.addresses.iter().find(|address| own.contains(address))?;
            Some((address.to_string(), node.name.to_string()))
        });
        if let Some((address, other)) = shared {
            let message = format!("node {other} has this address and this identity too");
            cx.wrong(&at.field("addresses"), address, "an address of its own", message);
            continue;
        }
        nodes.push(Arc::new(Node { name: name.value.as_str().into(), principal, addresses: own }));
    }
    nodes
}

/// The nodes with those of the API server, which all prove one identity and differ by their addresses. A node
/// without an address of its own is left out: it could not be recognised.
pub(super) fn with_found(
    mut nodes: Vec<Arc<Node>>,
    principal: Option<&SpiffeId>,
    found: &BTreeMap<String, Vec<IpAddr>>,
) -> Vec<Arc<Node>> {
    let Some(principal) = principal else { return nodes };
    let given: HashSet<Arc<str>> = nodes.iter().map(|node| Arc::clone(&node.name)).collect();
    let taken: HashSet<IpAddr> =
        nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect();
    let mut own: BTreeMap<Arc<str>, Vec<IpAddr>> = BTreeMap::new();
    for (address, name) in addresses_of(found) {
        if !taken.contains(&address) && !given.contains(&name) {
            own.entry(name).or_default().push(address);
        }
    }
    nodes.extend(own.into_iter().map(|(name, mut addresses)| {
        addresses.sort();
        Arc::new(Node { name, principal: principal.clone(), addresses })
    }));
    nodes
}

/// The nodes by their addresses. One that two nodes claim is neither's.
pub(super) fn addresses_of(found: &BTreeMap<String, Vec<IpAddr>>) -> HashMap<IpAddr, Arc<str>> {
    let mut owners: HashMap<IpAddr, Option<Arc<str>>> = HashMap::new();
    for (name, addresses) in found {
        let name: Arc<str> = name.as_str().into();
        let distinct: HashSet<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
        for address in distinct {
            owners
                .entry(address)
                .and_modify(|owner| *owner = None)
                .or_insert_with(|| Some(Arc::clone(&name)));
        }
    }
    owners.into_iter().filter_map(|(address, owner)| Some((address, owner?))).collect()
}

/// A SPIFFE ID of the mesh's own trust domain.
pub(super) fn principal(
    text: &Spanned<String>,
    trust_domain: &TrustDomain,
    cx: &mut Cx<'_>,
) -> Option<SpiffeId> {
    let expected = format!("spiffe://{trust_domain}/ns/<namespace>/sa/<service account>");
    let found = format!("{:?}", text.value);
    match SpiffeId::parse(&text.value) {
        Ok(id) if id.trust_domain == *trust_domain => Some(id),
        Ok(id) => {
            let message = format!(
                "the trust domain {} isn't the mesh's (trustDomain), so nobody would believe it",
                id.trust_domain
            );
            cx.wrong(&text.at, found, expected, message);
            None
        }
        Err(error) => {
            cx.wrong(&text.at, found, expected, format!("not a SPIFFE ID: {error}"));
            None
        }
    }
}

/// The node of this name.
pub(super) fn known(
    name: &Spanned<String>,
    nodes: &[Arc<Node>],
    cx: &mut Cx<'_>,
) -> Option<Arc<str>> {
    if let Some(node) = nodes.iter().find(|node| *node.name == name.value) {
        return Some(Arc::clone(&node.name));
    }
    let near = nearest(&name.value, nodes.iter().map(|node| &*node.name));
    let hint = near.map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
    let message = format!("`nodes` has no node of this name{hint}");
    cx.wrong(&name.at, format!("{:?}", name.value), "the name of one of `nodes`", message);
    None
}

/// Who gets nowhere through a tunnel, in words: a node may speak only for workloads that name it.
pub(super) fn unspoken(mesh: &MeshConfig) -> Option<String> {
    const SHOWN: usize = 3;
    let workloads = &mesh.workloads;
    // Which pod is on which node is the API server's to say.
    if !mesh.node_addresses.is_empty() {
        let message = "no node is known to gateways, so what comes through tunnels is refused \
                       (claimed_workload); set nodePrincipal to the identity of node agents";
        return mesh.nodes.is_empty().then(|| message.into());
    }
    let name = |workload: &Workload| format!("{}/{}", workload.namespace.0, workload.name);
    let without: Vec<_> = workloads.iter().filter(|workload| workload.node.is_none()).collect();
    let who = match without.len() {
        _ if workloads.is_empty() => "there are no `workloads` in mesh.yaml".to_owned(),
        0 => return None,
        number => {
            let shown: Vec<_> = without.iter().take(SHOWN).map(|workload| name(workload)).collect();
            let more = number.saturating_sub(SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{more}: no `node` is named for them in mesh.yaml", shown.join(", "))
        }
    };
    Some(format!(
        "{who}, and a gateway believes a node's tunnel only for workloads that name the node; what \
         comes from others is refused (claimed_workload)"
    ))
}

/// The service account, in the characters that an identity has.
pub(super) fn service_account(
    text: Option<&Spanned<String>>,
    namespace: &str,
    cx: &mut Cx<'_>,
) -> Arc<str> {
    let Some(text) = text else { return DEFAULT_SERVICE_ACCOUNT.into() };
    let id = format!("spiffe://{}/ns/{namespace}/sa/{}", TrustDomain::default(), text.value);
    if let Err(error) = SpiffeId::parse(&id) {
        let expected = "letters, digits, dots, hyphens and underscores";
        let message = format!("no identity can be made of it: {error}");
        cx.wrong(&text.at, format!("{:?}", text.value), expected, message);
    }
    text.value.as_str().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(list: &[(&str, &[&str])]) -> BTreeMap<String, Vec<IpAddr>> {
        let addresses = |list: &[&str]| list.iter().map(|addr| addr.parse().unwrap()).collect();
        list.iter().map(|(name, list)| ((*name).to_owned(), addresses(list))).collect()
    }

    #[test]
    fn nodes_that_are_found_are_told_apart_by_their_addresses() {
        let principal =
            SpiffeId::parse("spiffe://cluster.local/ns/istio-system/sa/egress-node").unwrap();
        let given = vec![Arc::new(Node {
            name: "given".into(),
            principal: principal.clone(),
            addresses: vec!["10.0.0.9".parse().unwrap()],
        })];
        let all = found(&[
            ("a", &["10.0.0.1", "fd00::1"]),
            ("b", &["10.0.0.2", "10.0.0.3"]),
            // Two claim one address; what is left of the other has none.
            ("c", &["10.0.0.3"]),
            ("bare", &[]),
            ("given", &["10.0.0.4"]),
            ("thief", &["10.0.0.9"]),
        ]);
        let nodes = with_found(given.clone(), Some(&principal), &all);
        let shown: Vec<(&str, Vec<String>)> = nodes
            .iter()
            .map(|node| (&*node.name, node.addresses.iter().map(ToString::to_string).collect()))
            .collect();
        let of = |list: &[&str]| list.iter().map(|addr| (*addr).to_owned()).collect::<Vec<_>>();
        let expected = [
            ("given", of(&["10.0.0.9"])),
            ("a", of(&["10.0.0.1", "fd00::1"])),
            ("b", of(&["10.0.0.2"])),
        ];
        assert_eq!(shown, expected);
        // Without an identity none is a node that may speak.
        assert_eq!(with_found(given.clone(), None, &all), given);
    }
}
