//! Pods that start while no agent runs: nobody knows them, and no program is at their interfaces. They reach
//! in-cluster hosts and have no egress, until an agent knows them.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    access_log,
    cluster::Cluster,
    denied::Wall,
    pair::{mesh, routes},
    plan,
    process::Place,
    testbed::Testbed,
    wait::{SOON, START, until, until_is},
};

/// The late pod's address among the other pods of its node.
const LATE: &str = "10.244.1.30";
/// Its interface on the node.
const INTERFACE: &str = "late";

/// What a gateway answers on its own port to a request that no hook has sent there: a status, `000` for none.
fn ask(from: &Place, source: &str) -> String {
    ask_for("-m3", from, source)
}

/// The same where an answer is sure to come.
fn ask_patiently(from: &Place, source: &str) -> String {
    ask_for("-m20", from, source)
}

fn ask_for(limit: &str, from: &Place, source: &str) -> String {
    let url = format!("http://{}/plain", plan::GATEWAYS[0]);
    let host = "Host: www.example.com";
    let own = ["-s", limit, "-o/dev/null", "-w%{http_code}", "-H", host, "--interface", source];
    from.run("curl", &[&own[..], &[&url]].concat()).unwrap().stdout
}

/// Counts what comes to the gateway with the neighbour's address.
fn count_neighbours(testbed: &Testbed) {
    let rules = format!(
        "table ip seen {{ chain in {{ type filter hook prerouting priority 0; ip saddr {} counter; }}; }}",
        plan::NEIGHBOUR
    );
    let done = testbed.gateway(0).run("nft", &[&rules]).unwrap();
    assert!(done.ok(), "{done:?}");
}

fn from_neighbour(testbed: &Testbed) -> u64 {
    let listed = testbed.gateway(0).run("nft", &["list", "table", "ip", "seen"]).unwrap().stdout;
    let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

fn reaches_the_inside(from: &Place) {
    for to in [plan::APP, plan::REMOTE] {
        let ping = || from.run("ping", &["-c1", "-W1", to]).unwrap().ok();
        until_is(SOON, &format!("{to} in the cluster"), ping, |reached| *reached).unwrap();
    }
}

/// The late pod's interface becomes a port of the bridge that the other pods' are ports of.
fn move_to_bridge(testbed: &Testbed, late: &Place) {
    testbed.app().ns.ip(&["link", "set", INTERFACE, "master", "cni0"]).unwrap();
    late.ns.ip(&["addr", "flush", "dev", "eth0"]).unwrap();
    // The neighbour's address, too, as whoever has `CAP_NET_RAW` may claim it.
    for address in [format!("{LATE}/24"), format!("{}/32", plan::NEIGHBOUR)] {
        late.ns.ip(&["addr", "add", &address, "dev", "eth0"]).unwrap();
    }
    late.ns.ip(&["route", "replace", "default", "via", plan::POD_ROUTER, "src", LATE]).unwrap();
}

#[test]
fn a_pod_that_starts_while_no_agent_runs_has_no_egress_until_it_is_known() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let listed = format!("{}- {{name: late, namespace: c, addresses: [{LATE}]}}\n", mesh());
    testbed.apply_mesh(&listed).unwrap();
    testbed.apply("routes.yaml", &routes()).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let mut args = cluster.node_args(&testbed);
    let mut node = testbed.start_node_with(&args).unwrap();
    let known = || ask(&testbed.outside_cgroup(), plan::POD);
    until_is(SOON, "a pod that is known", known, |status| status == "200").unwrap();
    count_neighbours(&testbed);
    node.kill();
    node.wait(SOON).unwrap();

    // Behind an interface of its own. The node translates its address, so the gateway would take it for the node.
    let late = testbed.inner(testbed.app(), INTERFACE, "10.244.9").unwrap();
    reaches_the_inside(&late);
    assert_eq!(ask(&late, "10.244.9.2"), "000", "behind its own interface");
    // As a port of the bridge that the other pods' interfaces are ports of.
    move_to_bridge(&testbed, &late);
    reaches_the_inside(&late);
    assert_eq!(ask(&late, LATE), "000", "by a bridge of pods");
    assert_eq!(ask(&late, plan::NEIGHBOUR), "000", "in its neighbour's name");
    // The twin, after which the gateway has what was sent before.
    assert_eq!(ask_patiently(&testbed.outside_cgroup(), plan::POD), "200");
    assert_eq!(from_neighbour(&testbed), 0);

    args.extend(["--pod-interface".into(), format!("{INTERFACE}={LATE}")]);
    let node = testbed.start_agent(testbed.app(), "again", &args).unwrap();
    until_is(START, "the late pod", || ask(&late, LATE), |status| status == "200").unwrap();
    until(SOON, "a line with the late pod's address", || {
        let lines = access_log::lines(&gateway.stdout());
        let of_late = |line: &access_log::Line| line.downstream_remote.starts_with(LATE);
        lines.iter().any(of_late).then_some(())
    })
    .unwrap();
    let capture = testbed.capture().unwrap();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    // The kernel has counted while no agent ran.
    assert!(wall.denied(&["uplink"], &["unknown_workload"]) >= 3);
    wall.stops_at(
        &["pod"],
        "the neighbour's name",
        &["spoofed_source", "spoofed_neighbour"],
        || late.run("ping", &["-c1", "-W1", "-I", plan::NEIGHBOUR, plan::ATTACKER]),
    )
    .unwrap();
    assert_eq!(from_neighbour(&testbed), 0);
}

/// What a host forwards that is no pod's (another network, another bridge) has the way that it had, whether an
/// agent runs or not.
#[test]
fn what_a_host_forwards_from_another_network_reaches_the_gateway_as_ever() {
    let testbed = Testbed::test(1).unwrap();
    testbed.apply_mesh(&mesh()).unwrap();
    testbed.apply("routes.yaml", &routes()).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    // A bridge that no pod is a port of, as of containers that nobody asked to be enforced.
    let client = testbed.inner(testbed.app(), "other", "10.244.9").unwrap();
    let app = &testbed.app().ns;
    app.ip(&["link", "add", "br9", "type", "bridge"]).unwrap();
    app.ip(&["addr", "flush", "dev", "other"]).unwrap();
    app.ip(&["link", "set", "other", "master", "br9"]).unwrap();
    app.ip(&["addr", "add", "10.244.9.1/24", "dev", "br9"]).unwrap();
    app.ip(&["link", "set", "br9", "up"]).unwrap();
    let mut node = testbed.start_node().unwrap();
    let forwarded = || ask(&client, "10.244.9.2");
    until_is(SOON, "another network's request", forwarded, |status| status == "200").unwrap();
    node.kill();
    node.wait(SOON).unwrap();
    assert_eq!(ask_patiently(&client, "10.244.9.2"), "200");
}
