//! The taint that keeps pods off a node until enforcement stands: it stays until then, goes after, and no other
//! taint goes with it.

use egress_tests::{
    kubernetes::{MESH, TestCluster, node},
    plan,
    wait::{SOON, until_is},
};
use serde_json::{Value, json};

const TAINT: &str = "egress-enforcer.io/starting";
const OTHER: &str = "node.kubernetes.io/unschedulable";

/// A node with both taints.
fn tainted(name: &str, address: &str, pods: &str) -> Value {
    let mut object = node(name, address, pods);
    let taint = |key: &str| json!({"key": key, "effect": "NoSchedule"});
    object["spec"]["taints"] = json!([taint(OTHER), taint(TAINT)]);
    object
}

#[test]
fn the_taint_goes_when_enforcement_stands_and_not_before() {
    let cluster = TestCluster::new().unwrap();
    let own = || tainted("app", plan::APP, "10.244.1.0/24");
    cluster.api.apply(own());
    cluster.api.apply(tainted("gateway", plan::GATEWAYS[0], "10.244.9.0/24"));
    // With settings that do not compile nothing is in force.
    cluster.apply_mesh("- nothing");
    let args = cluster.node_args(&["--startup-taint", TAINT]).unwrap();
    let agent = cluster.testbed.start_agent(cluster.testbed.app(), "node", &args).unwrap();
    let refused = || agent.stderr().contains("the configuration is refused");
    until_is(SOON, "the settings to be refused", refused, |refused| *refused).unwrap();
    let taints = |name: &str| {
        let object = cluster.api.get("nodes", "v1", "", name).unwrap();
        let taints = object["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.iter().map(|taint| taint["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(taints("app"), [OTHER, TAINT]);
    cluster.apply_mesh(MESH);
    until_is(SOON, "the taint to go", || taints("app"), |taints| *taints == [OTHER])
        .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.stderr()));
    assert!(agent.stderr().contains(&format!("removed the taint {TAINT}")));
    // Another node keeps it.
    assert_eq!(taints("gateway"), [OTHER, TAINT]);
    // A node that registers again gets it again.
    cluster.api.apply(own());
    until_is(SOON, "the taint to go again", || taints("app"), |taints| *taints == [OTHER]).unwrap();
}
