//! An agent that starts on a node whose pods run: their probes and their names go on, and from then on none
//! of them has egress past the gateway.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{fs, time::Duration};

use serde_json::{Value, json};

use egress_tests::{
    cluster::{Cluster, ask},
    denied::Wall,
    kubernetes::{
        ApiServer, Crowd, CrowdPod, EmptyPod, KubeletPod, Mood, Resource, config_map,
        endpoint_slice, node, pod, routes, service,
    },
    manifests::Walkthrough,
    plan,
    process::Process,
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, START, patiently, until, until_is},
};
use rustix::process::Signal;

/// The pods that run.
const PODS: u8 = 50;
/// Of these, those that the API server does not know yet.
const UNKNOWN: usize = 5;
const URL: &str = "https://edition.cnn.com/politics";
const MESH: &str = "\
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
clusterCidrs: [10.96.0.0/12]
gateways:
- service: istio-egressgateway.istio-system.svc.cluster.local
";

fn api_server(testbed: &Testbed) -> ApiServer {
    let addr = format!("{}:6443", plan::APP).parse().unwrap();
    let api = ApiServer::start(&testbed.app().ns, addr, &testbed.dir()).unwrap();
    let selector = json!({"istio": "egressgateway"});
    for object in [
        node("app", plan::APP, "10.244.0.0/16"),
        node("gateway", plan::GATEWAYS[0], "10.245.9.0/24"),
        service("istio-system", "istio-egressgateway", "10.96.0.20", selector),
        endpoint_slice("istio-system", "istio-egressgateway", &[plan::GATEWAYS[0]]),
        config_map("istio-system", "egress-enforcer", "mesh.yaml", MESH),
    ] {
        api.apply(object);
    }
    for (_, text) in &Walkthrough::example().unwrap().passthrough.files {
        api.apply_yaml(text).unwrap();
    }
    api
}

/// What the testbed starts an agent with, but from the API server.
fn args(of: Vec<String>, api: &ApiServer) -> Vec<String> {
    let mut given = of.into_iter();
    let mut args = Vec::new();
    while let Some(arg) = given.next() {
        if ["--config", "--mesh"].contains(&&*arg) {
            given.next();
        } else {
            args.push(arg);
        }
    }
    args.extend(["--source".into(), "kubernetes".into(), "--kubeconfig".into(), api.kubeconfig()]);
    args
}

fn node_args(testbed: &Testbed, api: &ApiServer) -> Vec<String> {
    let mut args = args(testbed.node_args(), api);
    let pod = args.iter().position(|arg| arg.starts_with(plan::POD_INTERFACE)).unwrap();
    args[pod] = "pod*".into();
    let cgroup = args.iter().position(|arg| arg == "--cgroup").unwrap();
    args[cgroup + 1] = KubeletPod::root(testbed).unwrap().to_string_lossy().into_owned();
    args.extend(["--node-name".into(), "app".into()]);
    args
}

/// Puts a pod into the API server, with its address.
fn announce(api: &ApiServer, of: &CrowdPod) {
    let name = format!("web-{}", of.uid);
    api.apply(pod("shop", &name, &of.uid, "app", json!({"app": "web"})));
}

fn start_gateway(testbed: &Testbed, api: &ApiServer) -> Process {
    let place = testbed.gateway(0);
    let args = args(testbed.gateway_args(), api);
    let mut gateway = testbed.start_agent(place, "gateway1", &args).unwrap();
    until(START, "the gateway to be ready", || {
        assert!(gateway.ended().is_none(), "{}", gateway.stderr());
        let ready = place.run("curl", &["-sf", "http://localhost:15021/healthz/ready"]);
        ready.is_ok_and(|ready| ready.ok()).then_some(())
    })
    .unwrap();
    gateway
}

/// Everything that the node's programs refused so far.
fn refused(testbed: &Testbed) -> u64 {
    let metrics = testbed.node_metrics().unwrap();
    let of = metrics.lines().filter(|line| line.contains("action=\"deny\""));
    of.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn unknown(testbed: &Testbed) -> Option<u64> {
    let metrics = testbed.node_metrics().ok()?;
    let mut lines = metrics.lines();
    lines.find_map(|line| line.strip_prefix("egress_unknown_interfaces ")?.parse().ok())
}

fn status(of: &CrowdPod) -> String {
    let args = ["-s", "-o", "/dev/null", "-m", "5", "-w", "%{http_code}", URL];
    of.place.run("curl", &args).unwrap().stdout
}

#[test]
fn a_first_start_and_a_restart_without_the_api_server_disturb_no_pod_that_runs() {
    let testbed = Testbed::test(1).unwrap();
    let api = api_server(&testbed);
    // Of the testbed's own pod the kernel would speak, too.
    testbed.app().ns.ip(&["link", "del", plan::POD_INTERFACE]).unwrap();
    let crowd = Crowd::start(&testbed, PODS).unwrap();
    let (strangers, known) = crowd.pods.split_at(UNKNOWN);
    known.iter().for_each(|of| announce(&api, of));
    let (first, stranger) = (&known[0], &strangers[0]);
    let dials = |of: &CrowdPod| ask(&of.place, "tcp", plan::ATTACKER, plan::TCP_PORTS[0], &[]);
    assert!(dials(first).unwrap().ok() && dials(stranger).unwrap().ok(), "nothing is enforced yet");
    let _gateway = start_gateway(&testbed, &api);
    let capture = testbed.capture().unwrap();

    let mut node = testbed.start_node_with(&node_args(&testbed, &api)).unwrap();
    crowd.served(10).unwrap();
    assert_eq!(crowd.failures(), Vec::<String>::new());
    assert_eq!(refused(&testbed), 0, "{}", node.stdout());
    assert_eq!(unknown(&testbed), Some(u64::try_from(UNKNOWN).unwrap()));

    // It is in force: for who is known with what is allowed, for who is not with nothing.
    let served = |of: &CrowdPod| {
        until_is(SOON, "the allowed host", || status(of), |seen| seen == "200").unwrap();
    };
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    served(first);
    wall.stops("a known pod's connection", &["no_route"], || dials(first)).unwrap();
    wall.stops("an unknown pod's", &["unknown_workload"], || dials(stranger)).unwrap();
    assert_ne!(status(stranger), "200");

    // The agent is killed, and starts again while there is no API server: all stays as it is.
    api.set_mood(Mood::Gone);
    let before = refused(&testbed);
    node.kill();
    let node = testbed.start_agent(testbed.app(), "restarted", &node_args(&testbed, &api)).unwrap();
    until(START, "the new agent to have taken over", || {
        node.stderr().contains("took over enforcement").then_some(())
    })
    .unwrap();
    crowd.served(10).unwrap();
    assert_eq!(crowd.failures(), Vec::<String>::new());
    // It counts on, from where the metrics of the new agent can be read.
    until_is(SOON, "the count as it was", || refused(&testbed), |count| *count == before)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", node.stdout()));
    served(first);
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    wall.stops("an unknown pod's", &["unknown_workload"], || dials(stranger)).unwrap();

    // Who is known in the end is served.
    api.set_mood(Mood::Serves);
    strangers.iter().for_each(|of| announce(&api, of));
    served(stranger);
    until_is(SOON, "all to be known", || unknown(&testbed), |count| *count == Some(0)).unwrap();
    wall.stops("the same pod's bypass", &["no_route"], || dials(stranger)).unwrap();
    assert_eq!(crowd.failures(), Vec::<String>::new());
}

/// Nothing is refused yet, so `status` must not say that everything is.
#[test]
fn status_says_while_what_runs_is_not_under_enforcement_yet() {
    const NOT_YET: &str = "what ran before the first start is not under enforcement until";
    const DENIED: &str = "everything external is denied";
    let testbed = Testbed::test(1).unwrap();
    let api = api_server(&testbed);
    testbed.app().ns.ip(&["link", "del", plan::POD_INTERFACE]).unwrap();
    let crowd = Crowd::start(&testbed, 1).unwrap();
    let runs = &crowd.pods[0];
    let dials = || ask(&runs.place, "tcp", plan::ATTACKER, plan::TCP_PORTS[0], &[]).unwrap();
    let control = testbed.node_control().to_string_lossy().into_owned();
    let pins = testbed.pins().to_string_lossy().into_owned();
    let status = || {
        let args = ["status", "--control", &control, "--bpffs", &pins];
        testbed.app().run(&testbed.agent().to_string_lossy(), &args).unwrap()
    };
    // Without an answer there is no configuration, and the agent waits for one, but not for long.
    api.set_mood(Mood::Silent);
    let mut node = testbed.start_agent(testbed.app(), "node", &node_args(&testbed, &api)).unwrap();
    let said = until(START, "the first start to be reported", || {
        assert!(node.ended().is_none(), "{}", node.stderr());
        Some(status()).filter(|status| status.stdout.contains(NOT_YET))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}\n{}", status().stdout, node.stderr()));
    assert!(dials().ok(), "what runs goes on: {}", said.stdout);
    assert!(said.code == 1 && !said.stdout.contains(DENIED), "{said:?}");

    // The twin: in force, without a configuration.
    let said = until(START, "enforcement to be reported", || {
        Some(status()).filter(|status| status.stdout.contains(DENIED))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}\n{}", status().stdout, node.stderr()));
    assert!(!dials().ok(), "what runs is cut: {}", said.stdout);
    assert!(said.code == 1 && !said.stdout.contains(NOT_YET), "{said:?}");
}

/// Pods that start, and the numbers of the first one.
const STARTED: u8 = 20;
const FIRST: u8 = 20;
/// Until a pod is served what it is allowed. A first segment that comes before the pod's interface is known is lost,
/// and is sent again after a second.
const SERVED: Duration = Duration::from_secs(5);
/// What a pod does first: it dials a forbidden address, and at the same time an allowed host until that answers.
const FIRST_ACT: &str = r#"
import socket, sys, threading, time

def dials(address, port, request):
    with socket.create_connection((address, int(port)), timeout=2) as client:
        client.sendall(request)
        return client.recv(64)

def forbidden():
    try:
        dials(attacker, port, b"x")
        print("reached the forbidden one", flush=True)
    except OSError:
        pass

_, attacker, port, web, host = sys.argv
request = f"GET /politics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
start = time.monotonic()
first = threading.Thread(target=forbidden)
first.start()
served = False
while not served and time.monotonic() < start + 30:
    try:
        served = dials(web, 80, request).startswith(b"HTTP/1.1 301")
    except OSError:
        # As clients do: without a pause it would be a flood.
        time.sleep(0.02)
waited = time.monotonic() - start
forbidden()
first.join()
print(f"served after {waited * 1000:.0f} ms" if served else "never served", flush=True)
"#;

/// Each pod is judged by its own policy from its first packet on: no forbidden connection succeeds, and what is
/// allowed is served within a moment.
#[test]
fn pods_that_start_dial_an_allowed_and_a_forbidden_host_first() {
    let testbed = Testbed::test(1).unwrap();
    let api = api_server(&testbed);
    api.add_crd(Resource::egress("egresspolicies", "EgressPolicy"));
    for (_, text) in &Walkthrough::example_policy().unwrap().http.files {
        api.apply_yaml(text).unwrap();
    }
    testbed.app().ns.ip(&["link", "del", plan::POD_INTERFACE]).unwrap();
    KubeletPod::root(&testbed).unwrap();
    routes(&testbed).unwrap();
    let _gateway = start_gateway(&testbed, &api);
    let node = testbed.start_node_with(&node_args(&testbed, &api)).unwrap();
    let script = testbed.dir().join("first.py");
    fs::write(&script, FIRST_ACT).unwrap();
    let (script, port) = (script.to_string_lossy(), plan::TCP_PORTS[0].to_string());
    let args = [&*script, plan::ATTACKER, &port, plan::WEB, plan::HOST];
    let started: Vec<Process> = (FIRST..FIRST + STARTED)
        .map(|number| {
            // The API server knows the pod before there is a sandbox. A gateway knows it by its address.
            let uid = EmptyPod::uid(number);
            let name = format!("web-{number}");
            let mut known = pod("shop", &name, &uid, "app", json!({"app": "web"}));
            let address = EmptyPod::address(number);
            known["status"] = json!({"phase": "Running", "podIPs": [{"ip": address}]});
            api.apply(known);
            let place = EmptyPod::create(&testbed, number).unwrap().place;
            place.start(&testbed.dir(), &name, "/usr/bin/python3", &args).unwrap()
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for of in &started {
        let line = || of.stdout().lines().last().map(str::to_owned);
        let said = until(START, "a pod's first act to end", line).unwrap();
        let text = of.stdout() + &of.stderr();
        assert!(!text.contains("reached"), "{text}\n{}", node.stdout());
        let after = said.strip_prefix("served after ").and_then(|rest| rest.strip_suffix(" ms"));
        let after = after.unwrap_or_else(|| panic!("{text}\n{}", node.stderr()));
        slowest = slowest.max(Duration::from_millis(after.parse().unwrap()));
    }
    assert!(slowest <= patiently(SERVED), "the slowest pod waited for {slowest:?}");
    // The count follows what the pods were served by.
    until_is(SOON, "no unknown pod", || unknown(&testbed), |count| *count == Some(0)).unwrap();
}

/// What a pod's process does before and while the node agent starts: it sends to echo servers without a break, to
/// two in the cluster and two outside of it.
struct Echoes(Process);

const IN_CLUSTER: [(&str, u16); 2] = [("tcp", plan::PEER_ECHO), ("udp", plan::PEER_ECHO)];
const EXTERNAL: [(&str, u16); 2] = [("tcp", plan::TCP_PORTS[0]), ("udp", plan::UDP_PORT)];

fn servers() -> Vec<String> {
    let at = |to: &'static str| move |(protocol, port)| format!("{protocol}:{to}:{port}");
    let inside = IN_CLUSTER.into_iter().map(at(plan::NEIGHBOUR));
    inside.chain(EXTERNAL.into_iter().map(at(plan::ATTACKER))).collect()
}

impl Echoes {
    fn start(testbed: &Testbed) -> Self {
        let script = testbed.dir().join("echoes.py");
        fs::write(&script, include_str!("../src/echoes.py")).unwrap();
        let (script, servers) = (script.to_string_lossy(), servers());
        let args: Vec<&str> =
            std::iter::once(&*script).chain(servers.iter().map(String::as_str)).collect();
        let process =
            testbed.pod().start(&testbed.dir(), "echoes", "/usr/bin/python3", &args).unwrap();
        let echoes = Self(process);
        echoes.goes_on(servers.len());
        echoes
    }

    /// Waits until the first so many servers have answered 200 times more.
    fn goes_on(&self, first: usize) {
        let counts = || {
            let text = self.0.stdout();
            let count = |server: &String| text.lines().filter(|line| line == server).count();
            servers()[..first].iter().map(count).collect::<Vec<_>>()
        };
        let before = counts();
        let more =
            |now: &Vec<usize>| now.iter().zip(&before).all(|(now, before)| *now > before + 1);
        until_is(SOON, "answers of echo servers", counts, more)
            .unwrap_or_else(|error| panic!("{error:#}: {}", self.0.stderr()));
    }

    /// Ends it. What it saw, in the order of [`servers`].
    fn end(mut self) -> Vec<Value> {
        self.0.signal(Signal::TERM);
        assert!(self.0.wait(SOON).unwrap().success(), "{}", self.0.stderr());
        let text = self.0.stdout();
        let seen: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        println!("{seen}");
        servers().iter().map(|server| seen[server].clone()).collect()
    }
}

fn lost_nothing(seen: &Value) -> bool {
    seen["lost"] == 0 && seen["sent_again"] == 0
}

/// Where the configuration comes from files, and names a pod or does not.
fn with_files(mode: &str, pod_is_named: bool) -> (Testbed, Cluster, Vec<String>) {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let in_mode = format!("enforcement: {mode}");
    testbed.apply_mesh(&mesh_yaml(1).replace("enforcement: enforce", &in_mode)).unwrap();
    let mut args = cluster.node_args(&testbed);
    if !pod_is_named {
        let pod = args.iter().position(|arg| arg.starts_with(plan::POD_INTERFACE)).unwrap();
        args[pod] = "po*".into();
    }
    (testbed, cluster, args)
}

#[test]
fn a_first_start_in_audit_mode_loses_nothing_of_what_runs() {
    for pod_is_named in [true, false] {
        for mode in ["audit", "audit\nredirect: true"] {
            let (testbed, _cluster, args) = with_files(mode, pod_is_named);
            let echoes = Echoes::start(&testbed);
            let node = testbed.start_node_with(&args).unwrap();
            echoes.goes_on(4);
            let seen = echoes.end();
            assert!(seen.iter().all(lost_nothing), "{mode}, {pod_is_named}: {seen:?}");
            assert!(!node.stdout().contains("DENIED"), "{}", node.stdout());
            // It is in force: what enforcement would refuse is reported.
            let dialled = ask(testbed.pod(), "tcp", plan::ATTACKER, plan::TCP_PORTS[0], &[]);
            assert!(dialled.unwrap().ok());
            until(SOON, "a refusal to be reported", || {
                node.stdout().contains("AUDIT would deny").then_some(())
            })
            .unwrap();
        }
    }
}

#[test]
fn a_first_start_that_enforces_cuts_what_is_external_and_nothing_in_the_cluster() {
    for pod_is_named in [true, false] {
        let (testbed, _cluster, args) = with_files("enforce", pod_is_named);
        let echoes = Echoes::start(&testbed);
        let node = testbed.start_node_with(&args).unwrap();
        // A datagram that comes from outside in that moment may be answered, until its socket is closed.
        let capture = testbed.capture().unwrap();
        let leaves = || {
            capture.take();
            echoes.goes_on(IN_CLUSTER.len());
            capture.take()
        };
        until_is(SOON, "external traffic to end", leaves, Vec::is_empty).unwrap();
        echoes.goes_on(IN_CLUSTER.len());
        let seen = echoes.end();
        let (inside, external) = seen.split_at(IN_CLUSTER.len());
        assert!(inside.iter().all(lost_nothing), "{pod_is_named}: {seen:?}\n{}", node.stdout());
        assert!(!external.iter().any(lost_nothing), "{pod_is_named}: {seen:?}");
        assert_eq!(capture.frames(), Vec::<String>::new());
    }
}

/// Nobody knows who is who, so that everything is denied, also where the configuration speaks of audit mode.
#[test]
fn a_first_start_with_a_broken_configuration_denies() {
    let (testbed, _cluster, args) = with_files("audit", true);
    testbed.apply("broken.yaml", "apiVersion: networking.istio.io/v1\nkind: Nonsense\n").unwrap();
    let pod = testbed.pod();
    let reaches = |to: &str, port| ask(pod, "udp", to, port, &[]).unwrap().ok();
    assert!(reaches(plan::NEIGHBOUR, plan::PEER_ECHO) && reaches(plan::ATTACKER, plan::UDP_PORT));
    let node = testbed.start_agent(testbed.app(), "node", &args).unwrap();
    until(START, "everything to be denied", || {
        node.stderr().contains("everything is denied until one is accepted").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", node.stderr()));
    let capture = testbed.capture().unwrap();
    assert!(!reaches(plan::ATTACKER, plan::UDP_PORT));
    assert!(!reaches(plan::NEIGHBOUR, plan::PEER_ECHO));
    assert_eq!(capture.take(), Vec::<String>::new());

    // What is repaired counts at once.
    testbed.delete("broken.yaml").unwrap();
    let both =
        || reaches(plan::NEIGHBOUR, plan::PEER_ECHO) && reaches(plan::ATTACKER, plan::UDP_PORT);
    until_is(SOON, "audit mode", both, |both| *both).unwrap();
}
