//! What a gateway takes from the API server about nodes: for whose pods a node may speak, and that a node's address
//! is nobody's.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    kubernetes::{MESH, Resource, TestCluster, node},
    manifests::{Step, Walkthrough},
    mtls::NODE_ID,
    plan,
    process::Process,
    testbed::Testbed,
    wait::{SOON, until_is},
};
use serde_json::json;

const URL: &str = "https://edition.cnn.com/politics";

fn apply(cluster: &TestCluster, step: &Step) {
    for (_, text) in &step.files {
        cluster.api.apply_yaml(text).unwrap();
    }
}

fn is_served(cluster: &TestCluster, [gateway, node]: [&Process; 2]) {
    until_is(SOON, "the host to be served", || cluster.curl(&[URL]).unwrap(), |seen| seen == "200")
        .unwrap_or_else(|error| {
            panic!(
                "{error:#}\n{}{}\n{}{}",
                gateway.stderr(),
                gateway.stdout(),
                node.stderr(),
                node.stdout()
            )
        });
}

fn is_refused(cluster: &TestCluster) {
    let refused = |seen: &String| seen.starts_with("curl: ");
    until_is(SOON, "the host to be refused", || cluster.curl(&[URL]).unwrap(), refused).unwrap();
}

#[test]
fn a_node_speaks_for_the_pods_that_the_api_server_has_there() {
    let mut cluster = TestCluster::new().unwrap();
    cluster.testbed.prepare_mtls(1).unwrap();
    cluster.apply_mesh(&format!("{MESH}nodePrincipal: {NODE_ID}\n"));
    let certificates = cluster.testbed.dir().join("gateway");
    apply(
        &cluster,
        &Walkthrough::example_mtls().unwrap().passthrough.with_certificates(&certificates),
    );
    let identity = cluster.testbed.identity_args("gateway");
    let args: Vec<&str> = identity.iter().map(String::as_str).collect();
    let gateway = cluster.start_gateway(&args).unwrap();
    let own = [cluster.testbed.identity_args("node"), Testbed::tunnel_args()].concat();
    let args: Vec<&str> = own.iter().map(String::as_str).collect();
    let node_agent = cluster.start_node(&args).unwrap();
    cluster.run_pod().unwrap();
    is_served(&cluster, [&gateway, &node_agent]);
    // The pod runs on another node, says the API server: this one may not speak for it.
    let labels = || json!({"app": "web"});
    cluster.announce_on("gateway", labels());
    is_refused(&cluster);
    let agent = cluster.testbed.agent().to_string_lossy().into_owned();
    let control = cluster.testbed.gateway_control(0).to_string_lossy().into_owned();
    let args = ["flows", "--control", &control, "-o", "json"];
    let told = || cluster.testbed.gateway(0).run(&agent, &args).unwrap().stdout;
    let why = "may not speak for the workload shop/web-0: it runs on gateway";
    until_is(SOON, "the reason in the flows", told, |text| text.contains(why)).unwrap();
    cluster.announce(labels());
    is_served(&cluster, [&gateway, &node_agent]);
    // The node has another address: what comes from this one is not its agent.
    cluster.api.apply(node("app", "10.10.0.99", "10.244.1.0/24"));
    is_refused(&cluster);
    let why = format!("it runs on app, and {} is none of that node's addresses", plan::APP);
    until_is(SOON, "the reason in the flows", told, |text| text.contains(&why)).unwrap();
    cluster.api.apply(node("app", plan::APP, "10.244.1.0/24"));
    is_served(&cluster, [&gateway, &node_agent]);
    // Two nodes claim the address: it is neither's.
    cluster.api.apply(node("thief", plan::APP, "10.244.7.0/24"));
    is_refused(&cluster);
    assert!(cluster.api.delete("nodes", "", "thief"));
    is_served(&cluster, [&gateway, &node_agent]);
}

/// What pods send to gateways leaves the node with the node's address, as with some network plug-ins.
fn masquerade(cluster: &TestCluster, on: bool) {
    let rules = if on {
        format!(
            "add table ip hides\n\
             add chain ip hides out {{ type nat hook postrouting priority 100 ; }}\n\
             add rule ip hides out ip saddr {} ip daddr {} masquerade\n",
            plan::POD,
            plan::GATEWAYS[0]
        )
    } else {
        "delete table ip hides\n".to_owned()
    };
    let file = cluster.testbed.dir().join("masquerade.nft");
    std::fs::write(&file, rules).unwrap();
    let done = cluster.testbed.app().run("nft", &["-f", &file.to_string_lossy()]).unwrap();
    assert!(done.ok(), "{}", done.stderr);
}

#[test]
fn a_nodes_address_has_no_pods_rights_and_is_reported() {
    let mut cluster = TestCluster::new().unwrap();
    // Somebody names a workload with the node's address: it would lend its rights to each pod there.
    cluster.apply_mesh(&format!(
        "{MESH}workloads:\n- {{name: lender, namespace: shop, labels: {{app: web}}, addresses: [{}]}}\n",
        plan::APP
    ));
    cluster.api.add_crd(Resource::egress("egresspolicies", "EgressPolicy"));
    apply(&cluster, &Walkthrough::example_policy().unwrap().passthrough);
    let gateway = cluster.start_gateway(&[]).unwrap();
    let node_agent = cluster.start_node(&[]).unwrap();
    cluster.run_pod().unwrap();
    is_served(&cluster, [&gateway, &node_agent]);
    let status = || cluster.status_of_gateway().unwrap();
    let warning = format!("came from the address of a node (app {})", plan::APP);
    assert!(!status().contains(&warning), "{}", status());
    masquerade(&cluster, true);
    is_refused(&cluster);
    until_is(SOON, "the warning in status", status, |text| text.contains(&warning)).unwrap();
    let logged = format!("a connection came from {}, the address of the node app", plan::APP);
    assert!(gateway.stderr().contains(&logged), "{}", gateway.stderr());
    let metrics = || {
        let url = "http://localhost:15090/stats/prometheus";
        cluster.testbed.gateway(0).run("curl", &["-s", url]).unwrap().stdout
    };
    let counted = |text: &String| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix("egress_node_address_connections_total "));
        value.is_some_and(|value| value.trim().parse::<u64>().unwrap() > 0)
    };
    until_is(SOON, "the metric", metrics, counted).unwrap();
    masquerade(&cluster, false);
    is_served(&cluster, [&gateway, &node_agent]);
}
