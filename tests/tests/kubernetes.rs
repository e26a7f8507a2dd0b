//! Configuration and pods from an API server: the walkthrough for a pod that is laid out as kubelet and
//! containerd lay it out, with the double in every mood that a real server has.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::time::Duration;

use egress_tests::{
    capture::Capture,
    denied::Wall,
    kubernetes::{
        ApiServer, KubeletPod, Mood, Resource, config_map, documents, endpoint_slice, node, pod,
        service,
    },
    manifests::{Step, Walkthrough},
    plan,
    process::{Place, Process},
    testbed::Testbed,
    wait::{SOON, START, until, until_is},
};
use serde_json::{Value, json};

/// Longer than a kind is missing until an agent asks for its definition.
const LONG: Duration = Duration::from_secs(30);
const UID: &str = "0f3f1c1e-7a5b-4c3d-9e8f-0123456789ab";
const URL: &str = "https://edition.cnn.com/politics";
const MESH: &str = "\
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
accessLogFile: /dev/stdout
# The Services' network; those of pods and nodes are found.
clusterCidrs: [10.96.0.0/12]
gateways:
- service: istio-egressgateway.istio-system.svc.cluster.local
";

/// A cluster of an app node and a gateway node, with an API server.
struct Kubernetes {
    api: ApiServer,
    pod: KubeletPod,
    testbed: Testbed,
}

impl Kubernetes {
    fn new() -> Self {
        let testbed = Testbed::test(1).unwrap();
        let addr = format!("{}:6443", plan::APP).parse().unwrap();
        let api = ApiServer::start(&testbed.app().ns, addr, &testbed.dir()).unwrap();
        let selector = json!({"istio": "egressgateway"});
        for object in [
            node("app", plan::APP, "10.244.1.0/24"),
            node("gateway", plan::GATEWAYS[0], "10.244.9.0/24"),
            service("istio-system", "istio-egressgateway", "10.96.0.20", selector),
            endpoint_slice("istio-system", "istio-egressgateway", &[plan::GATEWAYS[0]]),
            config_map("istio-system", "egress-enforcer", "mesh.yaml", MESH),
        ] {
            api.apply(object);
        }
        KubeletPod::root(&testbed).unwrap();
        let pod = KubeletPod::create(&testbed, UID).unwrap();
        Self { api, pod, testbed }
    }

    fn apply(&self, step: &Step) {
        for (_, text) in &step.files {
            self.api.apply_yaml(text).unwrap();
        }
    }

    fn remove(&self, step: &Step) {
        for (_, text) in &step.files {
            for object in documents(text).unwrap() {
                let text = |value: &Value| value.as_str().unwrap_or("default").to_owned();
                let (kind, metadata) = (text(&object["kind"]), &object["metadata"]);
                let plural = match &*kind {
                    "ServiceEntry" => "serviceentries".into(),
                    kind => format!("{}s", kind.to_lowercase()),
                };
                self.api.delete(&plural, &text(&metadata["namespace"]), &text(&metadata["name"]));
            }
        }
    }

    fn source(&self) -> Vec<String> {
        let more = ["--source", "kubernetes", "--watch-silence", "3s", "--kubeconfig"];
        more.into_iter().map(str::to_owned).chain([self.api.kubeconfig()]).collect()
    }

    /// Arguments without a directory of files.
    fn args(&self, of: Vec<String>) -> Vec<String> {
        let mut args = Vec::new();
        let mut given = of.into_iter();
        while let Some(arg) = given.next() {
            if arg == "--config" || arg == "--mesh" {
                given.next();
            } else {
                args.push(arg);
            }
        }
        args.extend(self.source());
        args
    }

    fn node_args(&self) -> Vec<String> {
        let mut args = self.args(self.testbed.node_args());
        let pod = args.iter().position(|arg| arg.starts_with(plan::POD_INTERFACE)).unwrap();
        args[pod] = "pod*".into();
        let cgroup = args.iter().position(|arg| arg == "--cgroup").unwrap();
        args[cgroup + 1] = KubeletPod::root(&self.testbed).unwrap().to_string_lossy().into_owned();
        args.extend(["--node-name".into(), "app".into()]);
        args
    }

    fn start_gateway(&self) -> Process {
        let place = self.testbed.gateway(0);
        let args = self.args(self.testbed.gateway_args());
        let mut gateway = self.testbed.start_agent(place, "gateway1", &args).unwrap();
        until(START, "the gateway to be ready", || {
            assert!(gateway.ended().is_none(), "{}", gateway.stderr());
            let ready = place.run("curl", &["-sf", "http://localhost:15021/healthz/ready"]);
            ready.is_ok_and(|ready| ready.ok()).then_some(())
        })
        .unwrap();
        gateway
    }

    fn start_node(&self) -> Process {
        self.testbed.start_node_with(&self.node_args()).unwrap()
    }

    /// The pod as the API server has it.
    fn announce(&self) {
        self.api.apply(pod("shop", "web-0", UID, "app", json!({"app": "web"})));
    }

    fn announce_address(&self) {
        let mut running = pod("shop", "web-0", UID, "app", json!({"app": "web"}));
        running["status"] =
            json!({"phase": "Running", "podIP": plan::POD, "podIPs": [{"ip": plan::POD}]});
        self.api.apply(running);
    }
}

/// What curl sees from a place.
fn curl(place: &Place, url: &str) -> String {
    let args = ["-s", "-o", "/dev/null", "-m", "20", "-w", "%{http_code}", url];
    let done = place.run("curl", &args).unwrap();
    if done.ok() { done.stdout } else { format!("curl: ({})", done.code) }
}

fn sees(place: &Place, url: &str, expected: &str) {
    let what = format!("{url} to be {expected}");
    until_is(SOON, &what, || curl(place, url), |seen| seen == expected).unwrap();
}

fn is_refused(place: &Place, url: &str) {
    let refused = |seen: &String| seen.starts_with("curl: ") || seen == "403" || seen == "404";
    until_is(SOON, "the host to be refused", || curl(place, url), refused).unwrap();
}

fn metric(testbed: &Testbed, name: &str) -> Option<u64> {
    let metrics = testbed.node_metrics().ok()?;
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn bypass(testbed: &Testbed, node: &Process, capture: &Capture, place: &Place) {
    let wall = Wall { testbed, node, capture };
    let denied =
        || place.run("curl", &["-s", "-m", "3", &format!("http://{}:22/", plan::ATTACKER)]);
    wall.stops("a connection past the gateway", &["no_route"], denied).unwrap();
    let datagram = || testbed.probe(&["packet", plan::ATTACKER, "9999"]);
    wall.stops("a packet past the gateway", &["protocol"], datagram).unwrap();
}

#[test]
fn a_pod_is_served_once_it_is_known_and_reaches_only_the_inside_before() {
    let mut cluster = Kubernetes::new();
    cluster.apply(&Walkthrough::example().unwrap().passthrough);
    let _gateway = cluster.start_gateway();
    let node = cluster.start_node();
    let capture = cluster.testbed.capture().unwrap();
    cluster.pod.run(&cluster.testbed).unwrap();
    let (testbed, place) = (&cluster.testbed, cluster.pod.place.clone());

    // Unknown: the inside is open, names included, and nothing else; and it is reported.
    let unknown = || metric(testbed, "egress_unknown_interfaces");
    until_is(SOON, "the interface to be unknown", unknown, |count| *count == Some(1)).unwrap();
    let inside = || place.run("ping", &["-c1", "-W1", plan::APP]).unwrap().ok();
    until_is(SOON, "the inside", inside, |reached| *reached).unwrap();
    let name = || curl(&place, URL);
    until_is(SOON, "the name to be found", name, |seen| seen != "curl: (6)").unwrap();
    let wall = Wall { testbed, node: &node, capture: &capture };
    let routed = || place.run("curl", &["-sf", "-m", "3", URL]);
    wall.stops_at(&["connect"], "a routed host", &["unknown_workload"], routed).unwrap();
    let packet = || testbed.probe(&["packet", plan::ATTACKER, "9999"]);
    wall.stops_at(&["pod"], "a packet of an unknown pod", &["unknown_workload"], packet).unwrap();
    let direct = format!("https://{}/politics", plan::GATEWAYS[0]);
    let gateway = || testbed.pod().run("curl", &["-sk", "-m", "3", &direct]);
    wall.stops_at(&["pod"], "the gateway itself", &["unknown_workload"], gateway).unwrap();
    let other = "10.244.1.99/24";
    assert!(place.run("ip", &["addr", "add", other, "dev", "eth0"]).unwrap().ok());
    let spoofed = || place.run("ping", &["-c1", "-W1", "-I", "10.244.1.99", plan::APP]);
    wall.stops_at(&["pod"], "another source", &["spoofed_source"], spoofed).unwrap();
    let ready = || {
        testbed.app().run("curl", &["-s", "http://127.0.0.1:15020/healthz/ready"]).unwrap().stdout
    };
    let reported = |text: &String| {
        text.starts_with("ready\n")
            && text.contains(&format!("unknown: interface {}", plan::POD_INTERFACE))
    };
    until_is(SOON, "readiness to name the interface", ready, reported).unwrap();

    // Known: what is allowed is served, by its identity alone, before the API server has its address.
    cluster.announce();
    sees(&place, URL, "200");
    assert_eq!(metric(testbed, "egress_unknown_interfaces"), Some(0));
    bypass(testbed, &node, &capture, &place);
    until(SOON, "the pod's name in an event", || {
        node.stdout().contains("shop/web-0 ").then_some(())
    })
    .unwrap();

    // Deleted by force it goes on, until its cgroup is gone.
    assert!(cluster.api.delete("pods", "shop", "web-0"));
    sees(&place, URL, "200");
    capture.take();
    cluster.pod.end().unwrap();
    let unknown = || metric(&cluster.testbed, "egress_unknown_interfaces");
    until_is(SOON, "the interface to be unknown again", unknown, |count| *count == Some(1))
        .unwrap();
    let packet = || cluster.testbed.probe(&["packet", plan::ATTACKER, "9999"]);
    let wall = Wall { testbed: &cluster.testbed, node: &node, capture: &capture };
    wall.stops("a packet after the pod's end", &["unknown_workload"], packet).unwrap();
}

/// The walkthrough in this product's own kinds, which are installed while the agents run.
#[test]
fn egress_policies_from_an_api_server() {
    let mut cluster = Kubernetes::new();
    let example = Walkthrough::example_policy().unwrap();
    cluster.announce_address();
    let gateway = cluster.start_gateway();
    let mut of_gateway = node("gateway", plan::GATEWAYS[0], "10.244.9.0/24");
    of_gateway["metadata"]["labels"] = json!({"egress-enforcer.io/gateway": "true"});
    cluster.api.apply(of_gateway);
    let mut node = cluster.start_node();
    let capture = cluster.testbed.capture().unwrap();
    cluster.pod.run(&cluster.testbed).unwrap();
    let place = cluster.pod.place.clone();
    let plain = "http://edition.cnn.com/politics";
    is_refused(&place, plain);
    cluster.api.add_crd(Resource::egress("egresspolicies", "EgressPolicy"));
    cluster.apply(&example.tls_origination);
    sees(&place, plain, "200");
    sees(&place, "http://edition.cnn.com/sport", "403");
    is_refused(&place, URL);
    cluster.apply(&example.passthrough);
    sees(&place, URL, "200");
    is_refused(&place, plain);
    bypass(&cluster.testbed, &node, &capture, &place);
    // One that is not valid allows nothing, and holds nothing back.
    let mut broken = documents(&example.passthrough.files[0].1).unwrap().remove(0);
    broken["spec"]["rules"][0]["port"] = json!(443);
    cluster.api.apply(broken);
    is_refused(&place, URL);
    until(SOON, "the refusal to be reported", || {
        gateway.stderr().contains("EgressPolicy shop/news, spec.rules[0][\"port\"]").then_some(())
    })
    .unwrap();
    // It shows what became of it, and so does one that is.
    let condition = |kind: &str| {
        let policy = cluster.api.get("egresspolicies", "v1alpha1", "shop", "news").unwrap();
        let generation = policy["metadata"]["generation"].clone();
        let mut all = policy["status"]["conditions"].as_array().into_iter().flatten();
        let shown = all.find(|shown| shown["type"] == kind)?.clone();
        (shown["observedGeneration"] == generation).then_some(shown)
    };
    let accepted = || condition("Accepted");
    let programmed = |reason: &str| {
        let shown = || condition("Programmed").filter(|shown| shown["reason"] == reason);
        until(SOON, &format!("the policy to be {reason}"), shown).unwrap()
    };
    let shown = until(SOON, "the condition of the policy with an error", accepted).unwrap();
    assert_eq!(programmed("NotAccepted")["status"], "False");
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("False"), &json!("Invalid")));
    let message = shown["message"].as_str().unwrap();
    assert!(message.starts_with("spec.rules[0][\"port\"]: unknown field"), "{message}");
    cluster.apply(&example.passthrough);
    let shown = until(SOON, "the condition of the repaired policy", accepted).unwrap();
    assert_eq!(
        (&shown["status"], &shown["message"]),
        (&json!("True"), &json!("gateways decide by it"))
    );
    // In force everywhere: on the node and the gateway, and where an agent is behind, it does not say so.
    let everywhere = "in force on 1 of 1 nodes and 1 of 1 gateways";
    let shown = programmed("Programmed");
    assert_eq!((&shown["status"], &shown["message"]), (&json!("True"), &json!(everywhere)));
    // From the pod: what is enforced where, what is allowed, and that nothing else is.
    let agent = cluster.testbed.agent().to_string_lossy().into_owned();
    let kubeconfig = cluster.api.kubeconfig();
    // Without capabilities, as most pods are.
    let verify = ["--inh-caps=-all", "--bounding-set=-all", &agent, "verify", "--kubernetes"];
    let verifies = |pod: &str| {
        let of = ["--kubeconfig", &kubeconfig, "--namespace", "shop", "--pod", pod];
        place.run("setpriv", &[&verify[..], &of].concat()).unwrap()
    };
    let done = verifies("web-0");
    let text = done.stdout.clone() + &done.stderr;
    assert_eq!(done.code, 0, "{text}");
    for part in [
        "web-0  app   enforce  EgressPolicy shop/news",
        "ok    allowed  tls://edition.cnn.com:443: a TLS server answers",
        "ok    denied   tls://not-allowed.invalid:443 at 198.51.100.10: refused",
        "what is allowed works, and nothing else does",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(verifies("other").code, 2);
    node.kill();
    let mut again = documents(&example.passthrough.files[0].1).unwrap().remove(0);
    again["spec"]["rules"][0]["hosts"] = json!(["edition.cnn.com", "another.example.org"]);
    cluster.api.apply(again);
    let shown = programmed("Pending");
    let behind = "in force on 0 of 1 nodes and 1 of 1 gateways; waiting for app";
    assert_eq!((&shown["status"], &shown["message"]), (&json!("False"), &json!(behind)));
    let node = cluster.start_node();
    assert_eq!(programmed("Programmed")["message"], everywhere);
    // Nothing is written that is shown already, though more changes.
    let version = |name: &str| {
        let object = cluster.api.get("egresspolicies", "v1alpha1", "shop", name).unwrap();
        object["metadata"]["resourceVersion"].clone()
    };
    let before = version("news");
    let mut other = documents(&example.http.files[0].1).unwrap().remove(0);
    other["metadata"]["name"] = json!("other");
    cluster.api.apply(other);
    let shown = || {
        let other = cluster.api.get("egresspolicies", "v1alpha1", "shop", "other").unwrap();
        let conditions = other["status"]["conditions"].as_array()?;
        (!conditions.is_empty()).then_some(())
    };
    until(SOON, "the condition of another policy", shown).unwrap();
    assert_eq!(version("news"), before);
    assert!(cluster.api.delete("egresspolicies", "shop", "other"));
    assert!(cluster.api.delete("egresspolicies", "shop", "news"));

    // A policy for the cluster, by the labels of the pod's namespace.
    cluster.api.add_crd(Resource::egress("clusteregresspolicies", "ClusterEgressPolicy"));
    cluster.api.apply(json!({
        "kind": "ClusterEgressPolicy", "metadata": {"name": "front"},
        "spec": {
            "namespaceSelector": {"matchLabels": {"tier": "front"}},
            "rules": [{"hosts": ["edition.cnn.com"], "ports": [{"port": 443, "protocol": "TLS"}]}],
        },
    }));
    let namespace = |labels: Value| json!({"kind": "Namespace", "metadata": {"name": "shop", "labels": labels}});
    is_refused(&place, URL);
    let shown = || {
        let policy = cluster.api.get("clusteregresspolicies", "v1alpha1", "", "front")?;
        (policy["status"]["conditions"][0]["status"] == "True").then_some(())
    };
    until(SOON, "the condition of the policy for the cluster", shown).unwrap();
    cluster.api.apply(namespace(json!({"tier": "front"})));
    sees(&place, URL, "200");
    cluster.api.apply(namespace(json!({"tier": "back"})));
    is_refused(&place, URL);
    // Without enforcement it says so.
    drop(node);
    let pins = cluster.testbed.pins().to_string_lossy().into_owned();
    let detached = cluster.testbed.app().run(&agent, &["detach", "--bpffs", &pins]).unwrap();
    assert!(detached.ok(), "{}", detached.stderr);
    let done = verifies("web-0");
    let text = done.stdout.clone() + &done.stderr;
    assert_eq!(done.code, 1, "{text}");
    assert!(text.contains("a direct TCP connection is not refused"), "{text}");
}

/// The walkthrough's steps one after the other, and back: what is allowed is served, its twin is not.
#[test]
fn the_walkthrough_from_an_api_server() {
    let mut cluster = Kubernetes::new();
    let walkthrough = Walkthrough::example().unwrap();
    cluster.announce_address();
    let _gateway = cluster.start_gateway();
    let node = cluster.start_node();
    let capture = cluster.testbed.capture().unwrap();
    cluster.pod.run(&cluster.testbed).unwrap();
    let place = cluster.pod.place.clone();
    let plain = "http://edition.cnn.com/politics";
    is_refused(&place, plain);
    // HTTP to the gateway, redirected by the server to HTTPS.
    cluster.apply(&walkthrough.http);
    sees(&place, plain, "301");
    is_refused(&place, URL);
    cluster.remove(&walkthrough.http);
    is_refused(&place, plain);
    // The gateway originates TLS.
    cluster.apply(&walkthrough.tls_origination);
    sees(&place, plain, "200");
    is_refused(&place, URL);
    cluster.remove(&walkthrough.tls_origination);
    is_refused(&place, plain);
    // HTTPS passes through.
    cluster.apply(&walkthrough.passthrough);
    sees(&place, URL, "200");
    is_refused(&place, plain);
    bypass(&cluster.testbed, &node, &capture, &place);
    // A kind that is installed later restricts from then on.
    cluster.api.add_crd(Resource {
        group: "security.istio.io",
        versions: &["v1", "v1beta1"],
        plural: "authorizationpolicies",
        kind: "AuthorizationPolicy",
    });
    cluster.api.apply(json!({
        "kind": "AuthorizationPolicy", "metadata": {"name": "closed", "namespace": "istio-system"},
        "spec": {
            "selector": {"matchLabels": {"istio": "egressgateway"}},
            "action": "DENY",
            "rules": [{"from": [{"source": {"namespaces": ["shop"]}}]}],
        },
    }));
    is_refused(&place, URL);
    // While the kind is not served, as by a server that starts, its policies deny on.
    drop(cluster.api.take_requests());
    cluster.api.hide_crd("authorizationpolicies");
    let asked_about = |requests: Vec<String>| {
        requests
            .iter()
            .filter(|path| path.ends_with("/authorizationpolicies.security.istio.io"))
            .count()
    };
    let mut count = 0;
    // Both agents have learnt that the definition is there.
    until(LONG, "both agents to ask for the definition", || {
        count += asked_about(cluster.api.take_requests());
        (count >= 2).then_some(())
    })
    .unwrap();
    is_refused(&place, URL);
    cluster.api.show_crd("authorizationpolicies");
    is_refused(&place, URL);
    assert!(cluster.api.delete("authorizationpolicies", "istio-system", "closed"));
    sees(&place, URL, "200");
    // An object that is not valid changes nothing for any other one.
    cluster.api.apply(json!({
        "kind": "VirtualService", "metadata": {"name": "broken", "namespace": "istio-system"},
        "spec": {"hosts": [], "tls": [{"match": [{"port": 70000}]}]},
    }));
    until(SOON, "the refusal to be reported", || {
        node.stderr().contains("VirtualService istio-system/broken").then_some(())
    })
    .unwrap();
    assert_eq!(curl(&place, URL), "200");
    // One Event says so, whatever else changes.
    let events = || cluster.api.events("broken");
    let event = until(SOON, "an Event about it", || events().into_iter().next()).unwrap();
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("NotAccepted")));
    assert!(event["note"].as_str().unwrap().contains("without hosts"), "{event}");
    let kind = &event["regarding"]["kind"];
    assert_eq!(
        (kind, &event["metadata"]["namespace"]),
        (&json!("VirtualService"), &json!("istio-system"))
    );
    cluster.api.apply(json!({
        "kind": "VirtualService", "metadata": {"name": "broken-too", "namespace": "istio-system"},
        "spec": {"hosts": ["a.example"], "tls": [{"match": [{"port": 70001}]}]},
    }));
    let other = || cluster.api.events("broken-too").into_iter().next();
    until(SOON, "an Event about another object", other).unwrap();
    assert_eq!(events().len(), 1);
    // A change of another object is in force all the same, and so is its end.
    cluster.api.apply(json!({
        "kind": "AuthorizationPolicy", "metadata": {"name": "closed", "namespace": "istio-system"},
        "spec": {},
    }));
    is_refused(&place, URL);
    assert!(cluster.api.delete("authorizationpolicies", "istio-system", "closed"));
    sees(&place, URL, "200");
    assert!(cluster.api.delete("virtualservices", "istio-system", "broken-too"));
    assert!(cluster.api.delete("virtualservices", "istio-system", "broken"));
    cluster.remove(&walkthrough.passthrough);
    is_refused(&place, URL);
}

#[test]
fn what_the_api_server_says_is_in_force_and_stays_while_it_is_away() {
    let mut cluster = Kubernetes::new();
    let walkthrough = Walkthrough::example().unwrap();
    cluster.announce_address();
    let _gateway = cluster.start_gateway();
    let mut node = cluster.start_node();
    let capture = cluster.testbed.capture().unwrap();
    cluster.pod.run(&cluster.testbed).unwrap();
    let place = cluster.pod.place.clone();
    is_refused(&place, URL);
    cluster.apply(&walkthrough.passthrough);
    sees(&place, URL, "200");

    // Gone, with everything going on; what changes meanwhile is applied after.
    cluster.api.set_mood(Mood::Gone);
    assert_eq!(curl(&place, URL), "200");
    bypass(&cluster.testbed, &node, &capture, &place);
    // An agent that starts without it keeps what is in force.
    node.kill();
    let restarted =
        cluster.testbed.start_agent(cluster.testbed.app(), "restarted", &cluster.node_args());
    let restarted = restarted.unwrap();
    until(START, "the new agent to have taken over", || {
        restarted.stderr().contains("took over enforcement").then_some(())
    })
    .unwrap();
    assert_eq!(curl(&place, URL), "200");
    cluster.remove(&walkthrough.passthrough);
    cluster.api.compact();
    assert_eq!(curl(&place, URL), "200");
    for code in [403, 503, 429, 404] {
        cluster.api.set_mood(Mood::Starts(code));
        until(SOON, "a request while it starts", || {
            (!cluster.api.take_requests().is_empty()).then_some(())
        })
        .unwrap();
        assert_eq!(curl(&place, URL), "200", "{code}");
    }
    cluster.api.set_mood(Mood::Serves);
    is_refused(&place, URL);

    // Silent: watches are open, and nothing comes. The agents ask again by themselves.
    cluster.api.set_mood(Mood::Silent);
    cluster.apply(&walkthrough.passthrough);
    drop(cluster.api.take_requests());
    until(SOON, "to be asked again", || (!cluster.api.take_requests().is_empty()).then_some(()))
        .unwrap();
    is_refused(&place, URL);
    cluster.api.set_mood(Mood::Serves);
    sees(&place, URL, "200");

    // A kind that goes takes its objects along, and comes again.
    cluster.api.remove_crd("virtualservices");
    is_refused(&place, URL);
    cluster.api.add_crd(Resource {
        versions: &["v1beta1"],
        ..Resource::istio("virtualservices", "VirtualService")
    });
    cluster.apply(&walkthrough.passthrough);
    sees(&place, URL, "200");
    capture.take();
}

/// The chained CNI plug-in holds a pod until its policy is in force, and fails where that does not come: then no
/// connection of the pod fails that is allowed, from its first one on.
#[test]
fn the_cni_plug_in_holds_a_pod_until_enforcement_stands() {
    let mut cluster = Kubernetes::new();
    cluster.apply(&Walkthrough::example().unwrap().passthrough);
    let _gateway = cluster.start_gateway();
    let mut node = cluster.start_node();
    let capture = cluster.testbed.capture().unwrap();
    let agent = cluster.testbed.agent().to_string_lossy().into_owned();
    let control = cluster.testbed.node_control().to_string_lossy().into_owned();
    let previous =
        json!({"cniVersion": "1.1.0", "ips": [{"address": "10.244.1.10/24", "interface": 1}]});
    let namespace = cluster.pod.place.ns.path();
    let app = cluster.testbed.app().clone();
    let call = |command: &str, seconds: u32| {
        let config = json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "egress-agent-cni",
            "controlSocket": control, "timeoutSeconds": seconds, "prevResult": previous,
        });
        let script = format!(
            "printf '%s' '{config}' | CNI_COMMAND={command} CNI_CONTAINERID=x CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin \
             CNI_NETNS={namespace} CNI_ARGS='IgnoreUnknown=1;K8S_POD_UID={UID}' {agent} cni"
        );
        let done = app.run("sh", &["-c", &script]).unwrap();
        let answer = serde_json::from_str::<Value>(&done.stdout).unwrap_or(Value::Null);
        (done.code, answer, done.stderr)
    };
    // The API server does not know the pod: it does not start, and the runtime is told why.
    let (code, answer, _) = call("ADD", 1);
    assert_eq!((code, &answer["code"]), (1, &json!(100)), "{answer}");
    let why = answer["details"].as_str().unwrap();
    assert!(why.contains("the API server does not know the pod"), "{why}");
    assert_eq!(call("CHECK", 1).1["code"], 100);
    // It becomes known while the plug-in waits. The result before is passed on.
    cluster.announce();
    let (code, answer, error) = call("ADD", 30);
    assert_eq!((code, &answer), (0, &previous), "{error}");
    assert_eq!(call("CHECK", 1), (0, Value::Null, String::new()));
    assert_eq!(call("STATUS", 1), (0, Value::Null, String::new()));
    // The first connections: the allowed one works at once, and the other one never.
    cluster.pod.run(&cluster.testbed).unwrap();
    let place = cluster.pod.place.clone();
    assert_eq!(curl(&place, URL), "200");
    bypass(&cluster.testbed, &node, &capture, &place);
    // Without an agent no pod starts, and every pod can end.
    node.kill();
    assert_eq!(call("ADD", 1).1["code"], 100);
    assert_eq!(call("STATUS", 1).1["code"], 50);
    for command in ["DEL", "GC"] {
        assert_eq!(call(command, 1), (0, Value::Null, String::new()));
    }
    let (code, answer, _) = call("VERSION", 1);
    assert_eq!((code, &answer["cniVersion"]), (0, &json!("1.1.0")));
    assert_eq!(call("UPDATE", 1).1["code"], 4);
}
