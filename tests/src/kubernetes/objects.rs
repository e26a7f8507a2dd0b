//! Objects as a cluster has them, as short as they may be.

use anyhow::{Context, Result};
use data_encoding::BASE64;
use serde_json::{Map, Value, json};

/// The documents of a file of YAML.
///
/// # Errors
/// It isn't YAML.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let parts = text.split("\n---").map(|part| part.trim_start_matches("---"));
    let some = parts
        .filter(|part| part.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')));
    some.map(|part| serde_saphyr::from_str(part).context(part.to_owned())).collect()
}

/// A pod that the scheduler has bound to a node, without an address yet.
#[must_use]
pub fn pod(namespace: &str, name: &str, uid: &str, node: &str, labels: Value) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "labels": labels},
        "spec": {"nodeName": node, "serviceAccountName": "default", "containers": [{"name": "app"}]},
        "status": {"phase": "Pending"},
    })
}

/// A node with the network of its pods.
#[must_use]
pub fn node(name: &str, address: &str, pods: &str) -> Value {
    json!({
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDR": pods, "podCIDRs": [pods]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": address},
            {"type": "Hostname", "address": name},
        ]},
    })
}

/// A Service that selects pods.
#[must_use]
pub fn service(namespace: &str, name: &str, cluster_ip: &str, selector: Value) -> Value {
    json!({
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "selector": selector, "ports": [{"port": 443}]},
    })
}

/// The endpoints of a Service; without an address as the server writes it: `null`.
#[must_use]
pub fn endpoint_slice(namespace: &str, service: &str, addresses: &[&str]) -> Value {
    let endpoint = |address: &&str| json!({"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false}});
    let endpoints: Vec<Value> = addresses.iter().map(endpoint).collect();
    json!({
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-abcde"),
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": if endpoints.is_empty() { Value::Null } else { endpoints.into() },
        "ports": null,
    })
}

/// A network of Services.
#[must_use]
pub fn service_cidr(name: &str, cidrs: &[&str]) -> Value {
    json!({"kind": "ServiceCIDR", "metadata": {"name": name}, "spec": {"cidrs": cidrs}})
}

/// A Secret with these keys.
#[must_use]
pub fn secret(namespace: &str, name: &str, keys: &[(&str, &str)]) -> Value {
    let data: Map<String, Value> = keys
        .iter()
        .map(|(key, value)| ((*key).to_owned(), BASE64.encode(value.as_bytes()).into()))
        .collect();
    json!({
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "Opaque",
        "data": data,
    })
}

/// A ConfigMap with one key.
#[must_use]
pub fn config_map(namespace: &str, name: &str, key: &str, text: &str) -> Value {
    json!({"kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": {key: text}})
}
