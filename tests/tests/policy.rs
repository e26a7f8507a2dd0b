//! `EgressPolicy` from a pod, with curl: what it allows, and each time what it does not: another host, another
//! method, another path, a pod that is not selected, a packet past the gateway; and audit mode.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::cell::Cell;

use egress_tests::{
    cluster::Cluster,
    denied::Wall,
    manifests::Walkthrough,
    plan,
    process::{Place, Process},
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until, until_is},
};
use serde_json::Value;

const PLAIN: &str = "http://edition.cnn.com/politics";
const OTHER_PATH: &str = "http://edition.cnn.com/sport";
const OTHER_HOST: &str = "http://www.example.com/politics";
const SECURE: &str = "https://edition.cnn.com/politics";
/// A server that answers, by a name that no policy has.
const OTHER_SECURE: [&str; 4] =
    ["-k", "--resolve", "other.example.net:443:198.51.100.10", "https://other.example.net/"];
const POLICY: &str = "policy.yaml";

/// The pod is `web` of `shop`, its neighbour `job` of the same namespace.
fn mesh(more: &str) -> String {
    format!(
        "{}workloads:\n\
         - name: web\n  namespace: shop\n  labels: {{app: web}}\n  addresses: [{}]\n  interface: {}\n\
         - name: job\n  namespace: shop\n  labels: {{app: job}}\n  addresses: [{}]\n  interface: {}\n{more}",
        mesh_yaml(1).replace("direct: registry\n", ""),
        plan::POD,
        plan::POD_INTERFACE,
        plan::NEIGHBOUR,
        plan::NEIGHBOUR_INTERFACE,
    )
}

/// The status, or curl's error.
fn curl(place: &Place, args: &[&str]) -> String {
    let mut all = vec!["-s", "-o", "/dev/null", "-m", "10", "-w", "%{http_code}"];
    all.extend(args);
    let done = place.run("curl", &all).unwrap();
    if done.ok() { done.stdout } else { "refused".into() }
}

fn sees(place: &Place, args: &[&str], expected: &str) {
    let what = format!("{args:?} to give {expected}");
    until_is(SOON, &what, || curl(place, args), |seen| seen == expected).unwrap();
}

/// Waits for a line of the gateway's log.
fn logged(gateway: &Process, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let find = || {
        let text = gateway.stdout();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.rev().find(|line| wanted(line))
    };
    until(SOON, what, find).unwrap()
}

#[test]
fn a_pod_reaches_what_its_policies_allow() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    testbed.apply_mesh(&mesh("accessLogEncoding: JSON\n")).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let capture = testbed.capture().unwrap();
    let (pod, neighbour) = (testbed.pod(), &cluster.neighbour);
    let example = Walkthrough::example_policy().unwrap();
    for url in [PLAIN, SECURE] {
        sees(pod, &[url], "refused");
    }

    // Plain HTTP, which the server redirects.
    example.http.apply(&testbed).unwrap();
    sees(pod, &[PLAIN], "301");
    sees(pod, &[OTHER_PATH], "301");
    sees(pod, &[OTHER_HOST], "403");
    sees(pod, &[SECURE], "refused");
    sees(neighbour, &[PLAIN], "403");

    // The gateway starts TLS, and the limits hold.
    example.tls_origination.apply(&testbed).unwrap();
    sees(pod, &[PLAIN], "200");
    sees(pod, &["-I", PLAIN], "200");
    sees(pod, &["-X", "POST", "-d", "x", PLAIN], "403");
    sees(pod, &[OTHER_PATH], "403");
    sees(pod, &[OTHER_HOST], "403");
    sees(neighbour, &[PLAIN], "403");
    let body = testbed.curl(&["-X", "DELETE", PLAIN]).unwrap().stdout;
    assert!(
        body.contains("EgressPolicy shop/news allows HTTP there, GET, HEAD on /politics"),
        "{body}"
    );
    let line = logged(&gateway, "the refused path", |line| {
        line["path"] == "/sport" && line["response_code"] == 403
    });
    assert_eq!(line["reason"], "egress_policy_denied", "{line}");
    let line = logged(&gateway, "the allowed path", |line| {
        line["path"] == "/politics" && line["response_code"] == 200
    });
    assert_eq!(line["route_name"], "EgressPolicy shop/news", "{line}");

    // TLS passes by its server name.
    example.passthrough.apply(&testbed).unwrap();
    sees(pod, &[SECURE], "200");
    sees(pod, &["https://www.example.com/"], "200");
    sees(pod, &OTHER_SECURE, "refused");
    sees(pod, &[PLAIN], "refused");
    sees(neighbour, &[SECURE], "refused");
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    let past = || pod.run("curl", &["-s", "-m", "3", &format!("http://{}:22/", plan::ATTACKER)]);
    wall.stops("a connection past the gateway", &["no_route"], past).unwrap();

    // In audit mode what no policy allows passes the gateway, marked; the node refuses the rest as ever.
    let enforced = &example.tls_origination.files[0].1;
    let audited = enforced.replace("spec:\n", "spec:\n  mode: Audit\n");
    testbed.apply("egress-policy.yaml", &audited).unwrap();
    sees(pod, &["-X", "POST", "-d", "x", PLAIN], "200");
    sees(pod, &[OTHER_HOST], "301");
    sees(neighbour, &[OTHER_HOST], "403");
    sees(pod, &[OTHER_PATH], "200");
    let line = logged(&gateway, "the audited path", |line| {
        line["path"] == "/sport" && line["response_code"] == 200
    });
    assert_eq!(line["audit_policy"], "EgressPolicy shop/news", "{line}");
    wall.stops("a connection past the gateway", &["no_route"], past).unwrap();
    // Another policy for the same pod ends that.
    let other = "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\n\
                 metadata: {name: all, namespace: shop}\nspec: {rules: []}\n";
    testbed.apply(POLICY, other).unwrap();
    sees(pod, &[OTHER_HOST], "403");
    sees(pod, &[PLAIN], "200");
    testbed.delete(POLICY).unwrap();

    // One that is not valid allows nothing, and says so.
    testbed.apply("egress-policy.yaml", &enforced.replace("methods", "method")).unwrap();
    sees(pod, &[PLAIN], "refused");
    until(SOON, "the refusal to be reported", || {
        gateway
            .stderr()
            .contains("EgressPolicy shop/news, spec.rules[0].http[\"method\"]")
            .then_some(())
    })
    .unwrap();
    testbed.apply("egress-policy.yaml", enforced).unwrap();
    sees(pod, &[PLAIN], "200");
    testbed.delete("egress-policy.yaml").unwrap();
    sees(pod, &[PLAIN], "refused");
}

/// Raw TCP to two services on one port, told apart by their addresses.
#[test]
fn raw_tcp_goes_to_the_host_that_a_policy_names() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    testbed.apply_mesh(&mesh("")).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let policy = |host: &str| {
        format!(
            "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\n\
             metadata: {{name: db, namespace: shop}}\nspec:\n  podSelector: {{matchLabels: {{app: web}}}}\n  \
             rules:\n  - hosts: [{host}]\n    ports: [{{port: {}, protocol: TCP}}]\n",
            plan::TCP_PORTS[1]
        )
    };
    let asks = |from: &Place, addr: &str| {
        egress_tests::cluster::ask(from, "tcp", addr, plan::TCP_PORTS[1], &[]).unwrap().ok()
    };
    let (pod, neighbour) = (testbed.pod(), &cluster.neighbour);
    testbed.apply(POLICY, &policy(plan::LEDGER)).unwrap();
    until_is(SOON, "the ledger to answer", || asks(pod, plan::LEDGER), |answered| *answered)
        .unwrap();
    assert!(!asks(pod, plan::ATTACKER) && !asks(neighbour, plan::LEDGER));
    testbed.apply(POLICY, &policy("tcp.example.com")).unwrap();
    let service = || asks(pod, plan::TCP_SERVICE);
    until_is(SOON, "the service to answer by its name", service, |answered| *answered).unwrap();
    assert!(!asks(neighbour, plan::TCP_SERVICE));
    testbed.delete(POLICY).unwrap();
    until_is(SOON, "nothing to answer", service, |answered| !*answered).unwrap();
}

/// A host that has another address each time it is asked for: the pod dials what its name server said, and the
/// gateway asks for itself.
#[test]
fn raw_tcp_reaches_a_host_that_rotates_through_many_addresses() {
    const ADDRESSES: u8 = 40;
    let port = plan::TCP_PORTS[1];
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    testbed.apply_mesh(&mesh("")).unwrap();
    let addresses: Vec<String> =
        (0..ADDRESSES).map(|number| format!("203.0.113.{}", 100 + number)).collect();
    for address in &addresses {
        testbed.outside().ns.ip(&["addr", "add", address, "dev", "lo"]).unwrap();
    }
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let policy = format!(
        "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\n\
         metadata: {{name: db, namespace: shop}}\nspec:\n  podSelector: {{matchLabels: {{app: web}}}}\n  \
         rules:\n  - hosts: [{}]\n    ports: [{{port: {port}, protocol: TCP}}]\n",
        plan::MOVING
    );
    testbed.apply(POLICY, &policy).unwrap();
    let asks = |from: &Place, addr: &str, port: u16| {
        egress_tests::cluster::ask(from, "tcp", addr, port, &[]).unwrap().ok()
    };
    let (pod, neighbour) = (testbed.pod(), &cluster.neighbour);
    let turn = |address: &str| testbed.point(plan::MOVING, address).unwrap();
    turn(&addresses[0]);
    until_is(SOON, "the host to answer", || asks(pod, &addresses[0], port), |seen| *seen).unwrap();
    let capture = testbed.capture().unwrap();
    for (number, address) in addresses.iter().enumerate() {
        turn(address);
        assert!(asks(pod, address, port), "{address}, number {number}: {}", gateway.stdout());
        // Another port of the same address, and another pod, are refused as ever.
        if number % 10 == 0 {
            assert!(!asks(pod, address, plan::TCP_PORTS[0]) && !asks(neighbour, address, port));
        }
    }
    assert_eq!(capture.take(), Vec::<String>::new(), "all went through the gateway");
    // A turn to an address inside, which no name opens.
    turn(plan::CLUSTER_DNS);
    let inside = || asks(pod, plan::CLUSTER_DNS, port) || asks(pod, &addresses[0], port);
    until_is(SOON, "the address inside to be refused", inside, |seen| !*seen).unwrap();
    turn(&addresses[1]);
    until_is(SOON, "the host to answer again", || asks(pod, &addresses[1], port), |seen| *seen)
        .unwrap();
}

/// Two names on one port, for a pod each: whatever address one dials that the node does not know, it reaches its own
/// name and no other.
#[test]
fn raw_tcp_of_two_names_on_a_port_reaches_the_one_that_the_pod_is_allowed() {
    const ROTATING: [&str; 4] =
        ["203.0.113.101", "203.0.113.102", "203.0.113.103", "203.0.113.104"];
    const OTHER: &str = "tcp.example.com";
    let port = plan::TCP_PORTS[1];
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    testbed.apply_mesh(&mesh("accessLogEncoding: JSON\n")).unwrap();
    for address in ROTATING {
        testbed.outside().ns.ip(&["addr", "add", address, "dev", "lo"]).unwrap();
    }
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let policy = |name: &str, app: &str, host: &str| {
        let text = format!(
            "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\n\
             metadata: {{name: {name}, namespace: shop}}\nspec:\n  podSelector: {{matchLabels: {{app: {app}}}}}\n  \
             rules:\n  - hosts: [{host}]\n    ports: [{{port: {port}, protocol: TCP}}]\n"
        );
        testbed.apply(&format!("{name}.yaml"), &text).unwrap();
    };
    // Each pod's answers come from the name that it is allowed.
    let (pod, neighbour) = ((testbed.pod(), Cell::new(0)), (&cluster.neighbour, Cell::new(0)));
    let asks = |(from, answered): &(&Place, Cell<usize>), addr: &str| {
        let is_answered = egress_tests::cluster::ask(from, "tcp", addr, port, &[]).unwrap().ok();
        answered.set(answered.get() + usize::from(is_answered));
        is_answered
    };
    let reached = |host: &str| {
        let cluster = format!("outbound|{port}||{host}");
        let text = gateway.stdout();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["upstream_cluster"] == *cluster).count()
    };
    testbed.point(plan::MOVING, ROTATING[0]).unwrap();
    policy("moving", "web", plan::MOVING);
    policy("other", "job", OTHER);
    let by_now = |from: &(&Place, Cell<usize>), address: &str, answered: bool| {
        let what = format!("{address}: {answered}");
        until_is(SOON, &what, || asks(from, address), |seen| *seen == answered)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.stdout()));
    };
    // Lines follow their connections.
    let in_the_log = |what: &str| {
        let seen = || [reached(plan::MOVING), reached(OTHER)];
        let answered = [pod.1.get(), neighbour.1.get()];
        until_is(SOON, what, seen, |seen| *seen == answered)
            .unwrap_or_else(|error| panic!("{error:#}, not {answered:?}\n{}", gateway.stdout()));
    };
    by_now(&pod, ROTATING[0], true);
    by_now(&neighbour, plan::TCP_SERVICE, true);
    // What the node knows to be the other's is refused, as soon as it knows it.
    by_now(&neighbour, ROTATING[0], false);
    by_now(&pod, plan::TCP_SERVICE, false);
    let capture = testbed.capture().unwrap();
    in_the_log("the first connections of each");
    for address in ROTATING.into_iter().cycle().skip(1).take(12) {
        testbed.point(plan::MOVING, address).unwrap();
        assert!(asks(&pod, address), "{address}: {}", gateway.stdout());
    }
    in_the_log("the connections to the moving host");
    assert!(asks(&neighbour, plan::ATTACKER), "{}", gateway.stdout());
    in_the_log("the connection to the other host");
    // A pod that is allowed both reaches each by the addresses that the node knows, and neither by another.
    policy("both", "web", OTHER);
    by_now(&pod, plan::TCP_SERVICE, true);
    by_now(&pod, plan::ATTACKER, false);
    assert_eq!(capture.take(), Vec::<String>::new(), "all went through the gateway");
}

/// One host by two ways: by Istio's resources for one workload, by a policy for another. The node sees no workloads, so
/// the gateway tells them apart.
#[test]
fn raw_tcp_to_one_host_goes_the_way_of_each_workload() {
    const HOST: &str = "tcp.example.com";
    let [other, port] = [plan::TCP_PORTS[0], plan::TCP_PORTS[1]];
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    testbed.apply_mesh(&mesh("accessLogEncoding: JSON\n")).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let capture = testbed.capture().unwrap();
    let (pod, neighbour) = (testbed.pod(), &cluster.neighbour);
    let asks = |from: &Place| {
        egress_tests::cluster::ask(from, "tcp", plan::TCP_SERVICE, port, &[]).unwrap().ok()
    };
    let by_now = |from: &Place, answered: bool| {
        let what = format!("an answer: {answered}");
        until_is(SOON, &what, || asks(from), |seen| *seen == answered)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.stdout()));
    };
    let istio = |kind: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: tcp, namespace: shop}}\n\
             spec: {spec}\n---\n"
        )
    };
    let service = "istio-egressgateway.istio-system.svc.cluster.local";
    let resources = [
        istio(
            "ServiceEntry",
            &format!(
                "{{hosts: [{HOST}], resolution: DNS, ports: [{{number: {port}, name: tcp-a, protocol: TCP}}, \
                 {{number: {other}, name: tcp-b, protocol: TCP}}]}}"
            ),
        ),
        istio(
            "Gateway",
            &format!(
                "{{selector: {{istio: egressgateway}}, servers: [{{port: {{number: 15432, name: tcp, protocol: TCP}}, \
                 hosts: [{HOST}]}}]}}"
            ),
        ),
        istio(
            "VirtualService",
            &format!(
                "{{hosts: [{HOST}], gateways: [mesh, tcp], tcp: [{{match: [{{gateways: [mesh], port: {port}, \
                 sourceLabels: {{app: web}}}}], route: [{{destination: {{host: {service}, port: {{number: 15432}}}}}}]}}, \
                 {{match: [{{gateways: [tcp], port: 15432}}], route: [{{destination: {{host: {HOST}, \
                 port: {{number: {other}}}}}}}]}}]}}"
            ),
        ),
    ];
    testbed.apply("tcp.yaml", &resources.concat()).unwrap();
    by_now(pod, true);
    by_now(neighbour, false);
    let policy = format!(
        "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\nmetadata: {{name: job, namespace: shop}}\n\
         spec:\n  podSelector: {{matchLabels: {{app: job}}}}\n  \
         rules:\n  - hosts: [{HOST}]\n    ports: [{{port: {port}, protocol: TCP}}]\n"
    );
    testbed.apply(POLICY, &policy).unwrap();
    by_now(neighbour, true);
    by_now(pod, true);
    // Each by its own way: the route leads to another port than the policy.
    for (app, to) in [("web", other), ("job", port)] {
        let to = format!("{}:{to}", plan::TCP_SERVICE);
        logged(&gateway, app, |line| line["workload"] == app && line["upstream_host"] == *to);
        let strays = |line: &Value| {
            line["workload"] == app
                && !line["upstream_host"].is_null()
                && line["upstream_host"] != *to
        };
        let text = gateway.stdout();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        assert_eq!(lines.filter(strays).count(), 0, "{text}");
    }
    testbed.delete(POLICY).unwrap();
    by_now(neighbour, false);
    by_now(pod, true);
    testbed.delete("tcp.yaml").unwrap();
    by_now(pod, false);
    assert_eq!(capture.take(), Vec::<String>::new(), "all went through the gateway");
}
