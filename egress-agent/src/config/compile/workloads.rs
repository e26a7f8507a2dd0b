//! `workloads` and `enforcementOverrides` of `mesh.yaml`: who is who, and how verdicts on whom are
//! carried out.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{
        decode::{Cx, SourcePosition, Spanned},
        mesh::{Enforcing, MeshOverride, MeshWorkload},
        names,
    },
    nodes,
};
use crate::{
    policy::{DEFAULT_SET, Enforcement, EnforcementOverride},
    types::{Namespace, Node, Selector, Workload},
};

/// Sets that may have a mode of their own. The kernel has room for more, a reader's mind doesn't.
pub(super) const MAX_SETS: usize = 1000;
/// Bytes of a set's name: it is a label's value in metrics.
const MAX_NAME: usize = 63;
/// Bytes of an interface's name (`IFNAMSIZ` without its final zero).
const MAX_INTERFACE: usize = 15;
/// Where cgroup2 is mounted by custom; paths are asked for without it.
const CGROUP_MOUNT: &str = "/sys/fs/cgroup";

/// The workloads, in file order.
pub(super) fn workloads(
    named: &[MeshWorkload],
    nodes: &[Arc<Node>],
    cx: &mut Cx<'_>,
) -> Vec<Arc<Workload>> {
    let mut claims = AddressOwners::default();
    named.iter().filter_map(|one| workload(one, nodes, &mut claims, cx)).map(Arc::new).collect()
}

/// What workloads say is theirs, and whose it is.
#[derive(Default)]
struct AddressOwners {
    cgroups: BTreeMap<PathBuf, String>,
    interfaces: BTreeMap<String, String>,
}

fn workload(
    workload: &MeshWorkload,
    nodes: &[Arc<Node>],
    claims: &mut AddressOwners,
    cx: &mut Cx<'_>,
) -> Option<Workload> {
    let MeshWorkload {
        at,
        name,
        namespace,
        labels,
        addresses: list,
        cgroups,
        interface,
        node,
        service_account,
    } = workload;
    let name = name.as_ref()?.value.as_str();
    let namespace = namespace.as_ref().map_or("default", |namespace| namespace.value.as_str());
    let full = format!("{namespace}/{name}");
    if list.is_empty() && cgroups.is_empty() && interface.is_none() {
        let expected = "addresses, cgroups or interface";
        cx.wrong(at, "none of them", expected, "nothing says what belongs to this workload");
    }
    let mut own = Vec::new();
    for text in cgroups {
        let Some(path) = cgroup(text, cx) else { continue };
        if claim(&mut claims.cgroups, &path, &full, "cgroup", text, cx) {
            own.push(path);
        }
    }
    let interface = interface.as_ref().filter(|name| interface_name(name, cx));
    let interface = interface
        .filter(|text| claim(&mut claims.interfaces, &text.value, &full, "interface", text, cx));
    Some(Workload {
        name: name.into(),
        namespace: Namespace(namespace.into()),
        labels: names::labels(labels),
        addresses: names::addresses(list, cx),
        cgroups: own,
        interface: interface.map(|name| name.value.as_str().into()),
        node: node.as_ref().and_then(|name| nodes::known(name, nodes, cx)),
        service_account: nodes::service_account(service_account.as_ref(), namespace, cx),
    })
}

/// Notes whose something is; `false` after telling that it is somebody's already.
fn claim<K: Ord + Clone>(
    claims: &mut BTreeMap<K, String>,
    key: &K,
    who: &str,
    what: &str,
    text: &Spanned<String>,
    cx: &mut Cx<'_>,
) -> bool {
    let Some(owner) = claims.get(key) else {
        claims.insert(key.clone(), who.to_owned());
        return true;
    };
    let (message, expected) = if owner == who {
        (format!("this {what} is listed twice"), format!("each {what} of a workload once"))
    } else {
        let message = format!("two workloads claim this {what}, and it can have only one policy");
        (message, format!("one that isn't {owner}'s"))
    };
    cx.wrong(&text.at, format!("{:?}", text.value), expected, message);
    false
}

/// A path below the cgroup2 mount, in one spelling.
fn cgroup(text: &Spanned<String>, cx: &mut Cx<'_>) -> Option<PathBuf> {
    let path = Path::new(&text.value);
    let message = if !path.is_absolute() {
        "not a path from the cgroup2 mount down"
    } else if path.components().any(|part| part == Component::ParentDir) {
        "a cgroup's path can't go up"
    } else if path.starts_with(CGROUP_MOUNT) {
        "the path of the mount isn't part of the cgroup's path"
    } else if path.parent().is_none() {
        "the root holds the whole host, the agents too"
    } else {
        // Without doubled slashes, dots and a slash at the end.
        return Some(path.components().collect());
    };
    let expected = "a path below the cgroup2 mount, without it, such as /pods/web";
    cx.wrong(&text.at, format!("{:?}", text.value), expected, message);
    None
}

/// Whether Linux would take it as an interface's name (`dev_valid_name`, net/core/dev.c).
fn interface_name(text: &Spanned<String>, cx: &mut Cx<'_>) -> bool {
    let name = &text.value;
    let fits = !name.is_empty() && name.len() <= MAX_INTERFACE && name != "." && name != "..";
    if fits && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        return true;
    }
    let expected = format!("an interface's name, of 1 to {MAX_INTERFACE} bytes");
    cx.wrong(&text.at, format!("{name:?}"), expected, "no interface can be called so");
    false
}

/// `enforcement` or a set's `mode`, and `redirect` beside it; audit is never silent.
pub(super) fn mode(
    mode: Option<&Spanned<Enforcing>>,
    redirect: Option<&Spanned<bool>>,
    what: &str,
    cx: &mut Cx<'_>,
) -> Enforcement {
    let audit = mode.filter(|mode| mode.value == Enforcing::Audit);
    let Some(mode) = audit else {
        if let Some(redirect) = redirect {
            cx.warn(&redirect.at, "counts in audit mode alone: enforcement always redirects");
        }
        return Enforcement::Enforce;
    };
    if redirect.is_some_and(|redirect| redirect.value) {
        let message = format!(
            "audit mode with redirects: {what} passes the node, and what should not is only \
             reported; what goes to a gateway is decided there"
        );
        cx.warn(&mode.at, message);
        return Enforcement::AuditRedirect;
    }
    cx.warn(&mode.at, format!("audit mode: {what} passes, and what should not is only reported"));
    Enforcement::Audit
}

/// The sets with a mode of their own, in file order.
pub(super) fn overrides(
    given: &[MeshOverride],
    workloads: &[Arc<Workload>],
    cx: &mut Cx<'_>,
) -> Vec<EnforcementOverride> {
    let mut sets: Vec<EnforcementOverride> = Vec::new();
    let mut places = Vec::new();
    for (number, one) in given.iter().enumerate() {
        if number == MAX_SETS {
            let found = given.len().to_string();
            cx.wrong(&one.at, found, format!("at most {MAX_SETS}"), "too many sets");
            break;
        }
        let MeshOverride { at, name, namespaces, labels, mode: own_mode, redirect } = one;
        let selector = Selector {
            namespaces: namespaces
                .iter()
                .flatten()
                .map(|name| Namespace(name.value.as_str().into()))
                .collect(),
            labels: names::labels(labels),
        };
        let understood = check_selector(namespaces.as_deref(), &selector, at, cx);
        let taken: Vec<&str> = sets.iter().map(|set| &*set.name).collect();
        let Some(name) = name.as_ref().filter(|name| set_name(name, &taken, cx)) else { continue };
        let what = format!("everything from the set {:?}", name.value);
        let mode = mode(own_mode.as_ref(), redirect.as_ref(), &what, cx);
        sets.push(EnforcementOverride { name: name.value.as_str().into(), selector, mode });
        places.push((at, understood));
    }
    let mut used = vec![false; sets.len()];
    for workload in workloads {
        if let Some(set) = sets.iter().position(|set| set.selector.matches(workload)) {
            used[set] = true;
        }
    }
    for ((set, (at, understood)), used) in sets.iter().zip(places).zip(used) {
        if understood && !used && !workloads.is_empty() {
            let message = format!(
                "no workload is in this set, or all of them are in an earlier one ({})",
                set.selector
            );
            cx.warn(at, message);
        }
    }
    sets
}

/// A set has to say who is in it, and all of it has to be understood: a condition that is
/// misspelt would be none.
fn check_selector(
    namespaces: Option<&[Spanned<String>]>,
    selector: &Selector,
    at: &SourcePosition,
    cx: &mut Cx<'_>,
) -> bool {
    if cx.has_told(&format!("{}[", at.path)) {
        cx.error(at, "a set with a field that isn't known: it could mean fewer workloads");
    } else if namespaces.is_some_and(<[_]>::is_empty) {
        let expected = "at least one namespace, or the field left out";
        cx.wrong(&at.field("namespaces"), "[]", expected, "no workload is in one of no namespaces");
    } else if namespaces.is_none() && selector.labels.is_empty() {
        let expected = "namespaces or labels; `enforcement` is for all that are in no set";
        cx.wrong(at, "neither", expected, "a set without namespaces and labels selects nothing");
    } else {
        return true;
    }
    false
}

/// Whether a set can be called so; `taken` are the names of others.
pub(super) fn set_name(name: &Spanned<String>, taken: &[&str], cx: &mut Cx<'_>) -> bool {
    let text = name.value.as_str();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let found = format!("{text:?}");
    if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(plain) {
        let expected = format!("1 to {MAX_NAME} letters, digits, -, _ and .");
        cx.wrong(&name.at, found, expected, "not a set's name");
        return false;
    }
    if text == DEFAULT_SET {
        let message = "this is the name of the workloads that are in no set";
        cx.wrong(&name.at, found, "another name", message);
        return false;
    }
    if taken.contains(&text) {
        cx.wrong(&name.at, found, "a name of its own", "two sets have this name");
        return false;
    }
    true
}
