//! A cluster of 10,000 pods and 2,000 resources: what the agents keep of it in memory.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::fs;

use egress_tests::{
    kubernetes::{TestCluster, documents, node, pod},
    manifests::Walkthrough,
    process::Process,
    wait::{SOON, until_is},
};
use serde_json::{Value, json};

const PODS: u32 = 10_000;
const NODES: u32 = 100;
const RESOURCES: u32 = 2_000;
/// MiB that a node's agent and a gateway may take.
const OF_NODE: u64 = 60;
const OF_GATEWAY: u64 = 150;

/// A pod of another node, with the labels and the address that pods have.
fn other_pod(number: u32) -> Value {
    let uid = format!("10000000-0000-4000-8000-{number:012x}");
    let (node, name) = (format!("node-{}", number % NODES), format!("web-7d4b9c6f5d-{number:05}"));
    let labels = json!({"app": "web", "pod-template-hash": "7d4b9c6f5d", "team": format!("t{}", number % 50)});
    let mut pod = pod(&format!("shop-{}", number % 100), &name, &uid, &node, labels);
    let address = format!("10.{}.{}.{}", 100 + number / 65_536, number / 256 % 256, number % 256);
    pod["status"] = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]});
    pod
}

fn service_entry(number: u32) -> Value {
    json!({
        "kind": "ServiceEntry", "metadata": {"name": format!("host-{number}"), "namespace": "shop"},
        "spec": {
            "hosts": [format!("host-{number}.example.com")], "resolution": "DNS",
            "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}],
        },
    })
}

/// Memory of its own that a process has, in MiB.
fn memory(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn agents_of_a_large_cluster_stay_small() {
    let mut cluster = TestCluster::new().unwrap();
    for number in 0..NODES {
        let (name, address) = (format!("node-{number}"), format!("10.20.0.{}", number + 1));
        cluster.api.apply(node(&name, &address, &format!("10.30.{number}.0/24")));
    }
    (0..PODS).for_each(|number| cluster.api.apply(other_pod(number)));
    (0..RESOURCES).for_each(|number| cluster.api.apply(service_entry(number)));
    for (_, text) in &Walkthrough::example().unwrap().passthrough.files {
        documents(text).unwrap().into_iter().for_each(|object| cluster.api.apply(object));
    }
    let gateway = cluster.start_gateway(&[]).unwrap();
    let node = cluster.start_node(&[]).unwrap();
    cluster.run_pod().unwrap();
    let url = "https://edition.cnn.com/politics";
    until_is(SOON, "the host to be served", || cluster.curl(&[url]).unwrap(), |seen| seen == "200")
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.stderr()));
    // A pod that comes, and one that goes.
    cluster.api.apply(other_pod(PODS));
    assert!(cluster.api.delete("pods", "shop-0", "web-7d4b9c6f5d-00000"));
    assert_eq!(cluster.curl(&[url]).unwrap(), "200");
    let (of_node, of_gateway) = (memory(&node), memory(&gateway));
    println!(
        "{PODS} pods, {RESOURCES} resources: node agent {of_node} MiB, gateway {of_gateway} MiB"
    );
    assert!(of_node <= OF_NODE, "the node agent takes {of_node} MiB");
    assert!(of_gateway <= OF_GATEWAY, "the gateway takes {of_gateway} MiB");
}
