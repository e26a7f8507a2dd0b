//! What the double says that it has, for kubectl: groups, their versions, and the kinds in each. Aggregated
//! discovery is not spoken, so clients fall back to this.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::store::{Store, is_cluster_wide};

/// The answer to `/api`, `/apis`, `/api/v1` and `/apis/GROUP/VERSION`; `None` for other paths.
pub(super) fn discovery(path: &str, store: &Store) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts[..] {
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => {
            let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for kind in store.kinds().filter(|kind| !kind.group.is_empty()) {
                let versions = groups.entry(kind.group).or_default();
                let new = kind.versions.iter().filter(|version| !versions.contains(*version));
                versions.extend(new.copied().collect::<Vec<_>>());
            }
            let version = |group: &str, one: &str| json!({"groupVersion": format!("{group}/{one}"), "version": one});
            let group = |(name, versions): (&str, Vec<&str>)| {
                let all: Vec<Value> = versions.iter().map(|one| version(name, one)).collect();
                json!({"name": name, "preferredVersion": all.first(), "versions": all})
            };
            let groups: Vec<Value> = groups.into_iter().map(group).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["api", version] => resources(store, "", version),
        ["apis", group, version] => resources(store, group, version),
        _ => None,
    }
}

fn resources(store: &Store, group: &str, version: &str) -> Option<Value> {
    let of = store.kinds().filter(|kind| kind.group == group && kind.versions.contains(&version));
    let resources: Vec<Value> = of
        .map(|kind| {
            json!({
                "name": kind.plural, "singularName": kind.kind.to_lowercase(), "kind": kind.kind,
                "namespaced": !is_cluster_wide(kind.plural),
                "verbs": ["create", "delete", "get", "list", "patch", "watch"],
            })
        })
        .collect();
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    (!resources.is_empty()).then(|| {
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources})
    })
}
