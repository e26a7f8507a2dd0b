//! `nodes` of `mesh.yaml`, and identities that other parts of it name.

use std::sync::Arc;

use super::super::{
    decode::{At, Cx, nearest},
    mesh::MeshNode,
    names,
};
use crate::types::{DEFAULT_SERVICE_ACCOUNT, Node, SpiffeId, TrustDomain, Workload};

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

/// A SPIFFE ID of the mesh's own trust domain.
pub(super) fn principal(
    text: &At<String>,
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
pub(super) fn known(name: &At<String>, nodes: &[Arc<Node>], cx: &mut Cx<'_>) -> Option<Arc<str>> {
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
pub(super) fn unspoken(workloads: &[Arc<Workload>]) -> Option<String> {
    const SHOWN: usize = 3;
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
    text: Option<&At<String>>,
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
