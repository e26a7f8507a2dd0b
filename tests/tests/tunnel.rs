//! The way from node to gateway through mutual TLS, with real curl: the walkthrough in that form,
//! what the wire shows, and what becomes of it when the agent is killed.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{net::IpAddr, time::Duration};

use egress_tests::{
    between::{Between, is_tls13},
    cgroup::below_mount,
    manifests::{Step, Walkthrough},
    mtls::{self, LISTENER, NODE_ID, POD_ID, TUNNEL},
    outside::{PAGE_BYTES, Seen},
    plan,
    process::{Place, Process},
    testbed::Testbed,
    wait::{SOON, until, until_is},
};
use rustix::process::Signal;
use serde_json::Value;

const URL: &str = "http://edition.cnn.com/politics";
const SECURE_URL: &str = "https://edition.cnn.com/politics";
const DOWNLOAD: &str = "https://edition.cnn.com/download";
/// The gateways' health checks, which aren't traffic of workloads.
const HEALTH: u16 = 15021;

/// The identity of what runs in the pod's cgroup, on the node's network.
const DAEMON_ID: &str = "spiffe://cluster.local/ns/default/sa/daemon";

const HANDSHAKES: &str = "egress_tunnel_handshakes_total";
const STREAMS: &str = "egress_tunnel_streams_total";

/// The walkthrough's steps, with the gateway's certificates.
fn steps(testbed: &Testbed) -> Walkthrough {
    with_certificates(testbed, Walkthrough::example_mtls().unwrap())
}

fn with_certificates(testbed: &Testbed, files: Walkthrough) -> Walkthrough {
    let dir = testbed.dir().join("gateway");
    let with = |step: Step| step.with_certificates(&dir).as_one();
    Walkthrough {
        service_entry: with(files.service_entry),
        http: with(files.http),
        tls_origination: with(files.tls_origination),
        passthrough: with(files.passthrough),
    }
}

/// Waits until curl sees this.
fn sees(testbed: &Testbed, node: &Process, gateway: &Process, args: &[&str], expected: &str) {
    let ask = || testbed.curl_status(args).unwrap();
    let what = format!("curl {args:?} to see {expected}");
    until_is(SOON, &what, ask, |seen| seen == expected).unwrap_or_else(|error| {
        panic!(
            "{error:#}\nnode:\n{}\n{}\ngateway:\n{}\n{}",
            node.stderr(),
            node.stdout(),
            gateway.stderr(),
            gateway.stdout()
        )
    });
}

fn refused(testbed: &Testbed, url: &str) {
    let ask = || testbed.curl_status(&[url]).unwrap();
    let refused = |seen: &String| seen == "403" || seen.starts_with("curl: ");
    until_is(SOON, &format!("{url} to be refused"), ask, refused).unwrap();
}

#[test]
fn the_walkthrough_goes_through_mutual_tls() {
    walk(Walkthrough::example_mtls().unwrap());
}

/// In the walkthrough's own version; or another directory's files, unchanged but for the paths of
/// certificates.
#[test]
fn the_walkthrough_in_v1alpha3_or_as_given_goes_through_mutual_tls() {
    let given = Walkthrough::given_mtls().unwrap();
    walk(given.unwrap_or_else(|| Walkthrough::example_mtls().unwrap().in_version("v1alpha3")));
}

/// Makes a change, and waits until the node has taken it. What is dialled before that goes where the
/// step before says: with TLS origination, port 443 is that of a server of the gateway itself, which
/// applications reach outside of the tunnel.
fn taken(testbed: &Testbed, change: impl FnOnce()) {
    let accepted = || {
        let series = "egress_config_reloads_total{result=\"accepted\"}";
        testbed.node_metric(series).unwrap()
    };
    let before = accepted();
    change();
    until(SOON, "the node to take the change", || (accepted() > before).then_some(())).unwrap();
}

fn walk(files: Walkthrough) {
    let testbed = Testbed::test(1).unwrap();
    testbed.prepare_mtls(1).unwrap();
    let files = with_certificates(&testbed, files);
    let gateway = testbed.start_gateway_mtls(0).unwrap();
    let node = testbed.start_node_mtls().unwrap();
    let wire = Between::start(&testbed.gateway(0).ns).unwrap();
    let capture = testbed.capture().unwrap();
    refused(&testbed, URL);
    refused(&testbed, SECURE_URL);

    // HTTP through the gateway, led to its port 80.
    taken(&testbed, || files.http.apply(&testbed).unwrap());
    sees(&testbed, &node, &gateway, &[URL], "301");
    let line = logged(&gateway, "\"response_code\":301");
    assert!(line.contains(POD_ID), "{line}");
    assert!(line.contains(NODE_ID), "{line}");
    taken(&testbed, || files.http.delete(&testbed).unwrap());
    refused(&testbed, URL);

    // TLS origination, led to its port 443.
    taken(&testbed, || files.tls_origination.apply(&testbed).unwrap());
    sees(&testbed, &node, &gateway, &[URL], "200");
    assert_eq!(testbed.curl(&[URL]).unwrap().stdout.len(), PAGE_BYTES);
    testbed.record().take();
    sees(&testbed, &node, &gateway, &[URL], "200");
    let over_tls = Seen::Https {
        server_name: Some(plan::HOST.into()),
        host: plan::HOST.into(),
        path: "/politics".into(),
    };
    assert_eq!(testbed.record().take(), [over_tls]);
    taken(&testbed, || files.tls_origination.delete(&testbed).unwrap());
    refused(&testbed, URL);

    // The application's own TLS, inside.
    taken(&testbed, || files.passthrough.apply(&testbed).unwrap());
    sees(&testbed, &node, &gateway, &[SECURE_URL], "200");
    // A warm tunnel: connections without a handshake.
    let (handshakes, streams) =
        (testbed.node_metric(HANDSHAKES).unwrap(), testbed.node_metric(STREAMS).unwrap());
    for _ in 0..5 {
        // Of one family: where the first one is slow, curl tries the other one beside it.
        assert_eq!(testbed.curl_status(&["-4", SECURE_URL]).unwrap(), "200");
    }
    assert_eq!(testbed.node_metric(HANDSHAKES).unwrap(), handshakes);
    assert_eq!(testbed.node_metric(STREAMS).unwrap(), streams + 5);
    let download = testbed.curl(&["-o", "/dev/null", "-w", "%{size_download}", DOWNLOAD]);
    let size: u64 = download.unwrap().stdout.parse().unwrap();
    assert!(size > 1 << 20, "{size} bytes");
    taken(&testbed, || files.passthrough.delete(&testbed).unwrap());
    refused(&testbed, SECURE_URL);

    assert_eq!(capture.take(), Vec::<String>::new(), "all of it went through the gateway");
    only_tls13(&wire, 1 << 20);
}

/// Between node and gateway nothing but TLS 1.3 on the tunnel's port, at least so many bytes of it,
/// and the health check.
fn only_tls13(wire: &Between, at_least: usize) {
    let node: [IpAddr; 2] = [plan::APP.parse().unwrap(), plan::APP_V6.parse().unwrap()];
    let pods: [IpAddr; 2] = [plan::POD.parse().unwrap(), plan::POD_V6.parse().unwrap()];
    let is_ours = |addr: IpAddr| node.contains(&addr) || pods.contains(&addr);
    let mut checked = 0;
    for (flow, bytes) in wire.streams() {
        let (there, port) = match (is_ours(flow.from.ip()), is_ours(flow.to.ip())) {
            (true, _) => (flow.from.ip(), flow.to.port()),
            (_, true) => (flow.to.ip(), flow.from.port()),
            // The gateway's own way to the outside.
            (false, false) => continue,
        };
        assert!(node.contains(&there), "a pod's own packets: {flow:?}");
        if port == HEALTH {
            continue;
        }
        assert_eq!(port, TUNNEL, "{flow:?}");
        is_tls13(&bytes).unwrap_or_else(|error| panic!("{flow:?}: {error:#}"));
        let host = plan::HOST.as_bytes();
        assert!(
            !bytes.windows(host.len()).any(|part| part == host),
            "the host's name in the clear"
        );
        checked += bytes.len();
    }
    assert!(checked > at_least, "{checked} bytes were seen");
}

/// The last line of the gateway's log with this text.
fn logged(gateway: &Process, text: &str) -> String {
    let last = || gateway.stdout().lines().rfind(|line| line.contains(text)).map(str::to_owned);
    until(SOON, &format!("{text} in the log"), last)
        .unwrap_or_else(|error| panic!("{error:#}:\n{}", gateway.stdout()))
}

/// The pod's IPv6, and a workload on the node's network, which is known by its cgroup.
#[test]
fn ipv6_and_workloads_on_the_nodes_network_go_through_it() {
    let testbed = Testbed::test(1).unwrap();
    testbed.prepare_mtls(1).unwrap();
    let cgroup = below_mount(&testbed.pod().cgroup).unwrap();
    let more = format!(
        "- name: daemon\n  namespace: default\n  node: app\n  serviceAccount: daemon\n  cgroups: \
         [{cgroup}]\naccessLogFormat: istio\n"
    );
    testbed.apply_mesh(&format!("{}{more}", mtls::mesh(1))).unwrap();
    steps(&testbed).passthrough.apply(&testbed).unwrap();
    let gateway = testbed.start_gateway_mtls(0).unwrap();
    let node = testbed.start_node_mtls().unwrap();
    let wire = Between::start(&testbed.gateway(0).ns).unwrap();
    let capture = testbed.capture().unwrap();
    sees(&testbed, &node, &gateway, &[SECURE_URL], "200");

    let curl = |place: &Place, args: &[&str]| {
        let common =
            ["-s", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code} %{remote_ip}"];
        place.run("curl", &[&common, args].concat()).unwrap()
    };
    let (pod, host) = (testbed.pod(), testbed.host_network());
    for (place, family, to, from, id) in [
        (pod, "-6", plan::WEB_V6, plan::POD_V6, POD_ID),
        (&host, "-4", plan::WEB, plan::APP, DAEMON_ID),
        (&host, "-6", plan::WEB_V6, plan::APP_V6, DAEMON_ID),
    ] {
        let streams = testbed.node_metric(STREAMS).unwrap();
        let seen = curl(place, &[family, SECURE_URL]);
        assert_eq!(seen.stdout, format!("200 {to}"), "{seen:?}\n{}", node.stderr());
        assert_eq!(testbed.node_metric(STREAMS).unwrap(), streams + 1, "from {from}");
        let from = match family {
            "-6" => format!("\"downstream_remote_address\":\"[{from}]:"),
            _ => format!("\"downstream_remote_address\":\"{from}:"),
        };
        let line = logged(&gateway, &from);
        assert!(line.contains(id) && line.contains(NODE_ID), "{line}");
        // Its refused twins: a host that isn't in the registry, by the gateway for that reason; and a
        // port that no rule leads anywhere, at connect.
        let other = if family == "-6" { "v6.example.com" } else { "www.example.com" };
        let seen = curl(place, &[family, &format!("https://{other}/")]);
        assert!(!seen.ok(), "{other} from {from}: {seen:?}");
        let line = logged(&gateway, &format!("\"requested_server_name\":\"{other}\""));
        assert!(line.contains("\"reason\":\"host_not_in_registry\""), "{line}");
        let seen = curl(place, &[family, "https://edition.cnn.com:8443/"]);
        assert_eq!(seen.code, 7, "from {from}: {seen:?}");
    }
    assert_eq!(capture.take(), Vec::<String>::new(), "all of it went through the gateway");
    only_tls13(&wire, 1 << 10);
}

#[test]
fn a_killed_agent_ends_what_runs_and_nothing_goes_past_the_gateway() {
    let testbed = Testbed::test(1).unwrap();
    testbed.prepare_mtls(1).unwrap();
    steps(&testbed).passthrough.apply(&testbed).unwrap();
    let gateway = testbed.start_gateway_mtls(0).unwrap();
    let mut node = testbed.start_node_mtls().unwrap();
    let capture = testbed.capture().unwrap();
    sees(&testbed, &node, &gateway, &[SECURE_URL], "200");

    let file = testbed.dir().join("download").to_string_lossy().into_owned();
    let args = ["-s", "--max-time", "60", "--limit-rate", "1M", "-o", &file, DOWNLOAD];
    let mut download = testbed.pod().start(&testbed.dir(), "download", "curl", &args).unwrap();
    until(SOON, "the download to be under way", || {
        std::fs::metadata(&file).ok().filter(|meta| meta.len() > 1 << 18)
    })
    .unwrap();
    assert!(download.ended().is_none(), "it must be running when the agent is killed");
    node.kill();
    let ended = download.wait(Duration::from_secs(30)).unwrap();
    assert!(!ended.success(), "a short download must not look whole");
    // Curl's words for a reset: 35 or 56 in TLS, never the end of the data.
    assert!(matches!(ended.code(), Some(35 | 56)), "{ended}");
    for url in [URL, SECURE_URL] {
        let seen = testbed.curl_status(&[url]).unwrap();
        assert!(seen.starts_with("curl: ("), "{url}: {seen}");
    }
    assert_eq!(capture.take(), Vec::<String>::new(), "nothing went directly");

    let node = testbed.start_node_mtls().unwrap();
    sees(&testbed, &node, &gateway, &[SECURE_URL], "200");
    assert_eq!(capture.take(), Vec::<String>::new());
}

/// Nothing of a tunnel passes between node and gateway, and neither end says so.
const SILENCE: &str = "table inet silence {
  chain in { type filter hook input priority 0; tcp sport 15008 drop; }
  chain out { type filter hook output priority 0; tcp dport 15008 drop; }
}";

#[test]
fn a_tunnel_that_falls_silent_is_given_up_at_both_ends() {
    let testbed = Testbed::test(1).unwrap();
    testbed.prepare_mtls(1).unwrap();
    steps(&testbed).passthrough.apply(&testbed).unwrap();
    let gateway = testbed.start_gateway_mtls(0).unwrap();
    let node = testbed.start_node_mtls().unwrap();
    let capture = testbed.capture().unwrap();
    sees(&testbed, &node, &gateway, &[SECURE_URL], "200");
    let file = testbed.dir().join("download").to_string_lossy().into_owned();
    let args = ["-s", "--max-time", "300", "--limit-rate", "100k", "-o", &file, DOWNLOAD];
    let mut download = testbed.pod().start(&testbed.dir(), "download", "curl", &args).unwrap();
    until(SOON, "the download to be under way", || {
        std::fs::metadata(&file).ok().filter(|meta| meta.len() > 1 << 14)
    })
    .unwrap();
    let open = || {
        let metrics = testbed.admin(0, "stats/prometheus").unwrap();
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix("egress_tunnel_connections ")?.parse().ok())
    };
    let silent = || testbed.node_metric("egress_tunnel_closed_total{cause=\"silent\"}").unwrap();
    assert!(open() > Some(0_u64) && silent() == 0, "{:?}", open());
    assert!(testbed.app().run("nft", &[SILENCE]).unwrap().ok());
    // The pod learns it by a reset, long before its own patience ends.
    let ended = download.wait(4 * SOON).unwrap();
    assert!(matches!(ended.code(), Some(35 | 56)), "{ended}");
    until_is(SOON, "the silence to be counted", silent, |count| *count > 0).unwrap();
    until_is(4 * SOON, "the gateway's end of it to be closed", open, |open| *open == Some(0))
        .unwrap();
    assert!(testbed.app().run("nft", &["delete table inet silence"]).unwrap().ok());
    sees(&testbed, &node, &gateway, &[SECURE_URL], "200");
    assert_eq!(capture.take(), Vec::<String>::new(), "nothing went past the gateway");
}

#[test]
fn only_what_the_kernel_led_there_gets_into_the_tunnel() {
    let testbed = Testbed::test(1).unwrap();
    testbed.prepare_mtls(1).unwrap();
    steps(&testbed).passthrough.apply(&testbed).unwrap();
    let gateway = testbed.start_gateway_mtls(0).unwrap();
    let node = testbed.start_node_mtls().unwrap();
    sees(&testbed, &node, &gateway, &[SECURE_URL], "200");

    let refused =
        || testbed.node_metric("egress_tunnel_refused_total{reason=\"no_record\"}").unwrap();
    let streams = testbed.node_metric(STREAMS).unwrap();
    let before = refused();
    let url = format!("http://{}:{LISTENER}/", plan::APP);
    let seen = testbed.curl_status(&[&url]).unwrap();
    // Reset: at the first byte, or before it, while curl reads or while it writes.
    let reset = ["curl: (56)", "curl: (55)", "curl: (52)", "curl: (7)"];
    assert!(reset.contains(&&*seen), "{seen}");
    until_is(SOON, "the direct dial to be counted", refused, |now| *now == before + 1).unwrap();
    assert_eq!(testbed.node_metric(STREAMS).unwrap(), streams);
    let (agent, control) = (testbed.agent(), testbed.node_control());
    let (agent, control) = (agent.to_string_lossy(), control.to_string_lossy());
    let flows = || testbed.app().run(&agent, &["flows", "--control", &control]).unwrap().stdout;
    let is_told = |text: &String| text.contains("DENIED (no_record) at tunnel");
    until_is(SOON, "the refusal in the flows", flows, is_told).unwrap();
    sees(&testbed, &node, &gateway, &[SECURE_URL], "200");
}

/// The connect hook saw who connects, and the listener's refusals say so; of a process that has ended, its name. Of
/// whoever dials the listener past the hook, nothing is known.
#[test]
fn a_refusal_of_the_tunnel_names_the_process_and_its_container() {
    let testbed = Testbed::test(1).unwrap();
    testbed.prepare_mtls(1).unwrap();
    steps(&testbed).passthrough.apply(&testbed).unwrap();
    let gateway = testbed.start_gateway_mtls(0).unwrap();
    let mut node = testbed.start_node_mtls().unwrap();
    sees(&testbed, &node, &gateway, &[SECURE_URL], "200");
    // The gateway no longer takes the node's word for whose connections these are.
    let other = mtls::mesh(1).replace(NODE_ID, "spiffe://cluster.local/ns/istio-system/sa/other");
    testbed.apply_mesh(&other).unwrap();
    refused(&testbed, SECURE_URL);

    let id = "aa0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd";
    let name = format!("kubepods/pod0f3f1c1e-7a5b-4c3d-9e8f-0123456789ab/{id}");
    let container = testbed.below_pod(&name).unwrap();
    let (program, control) = (testbed.agent(), testbed.node_control());
    let (program, control) = (program.to_string_lossy(), control.to_string_lossy());
    let flows = |reason: &str| -> Vec<Value> {
        let args = ["flows", "--control", &control, "--reason", reason, "-o", "json"];
        let shown = testbed.app().run(&program, &args).unwrap().stdout;
        let flows = shown.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        flows.filter(|flow| flow["hook"] == "tunnel").collect()
    };
    let of = |pid: u32| {
        let ask = || flows("gateway_refused").into_iter().find(|flow| flow["pid"] == pid);
        until(SOON, &format!("the refusal of process {pid}"), ask)
            .unwrap_or_else(|error| panic!("{error:#}: {:#?}", flows("gateway_refused")))
    };
    let start = |name: &str, more: &str| {
        let dial = format!("exec 3<>/dev/tcp/{}/443; echo tried{more}", plan::WEB);
        container.start(&testbed.dir(), name, "bash", &["-c", &dial]).unwrap()
    };
    let stays = start("stays", "; sleep 600; true");
    let flow = of(stays.pid());
    assert_eq!(flow["verdict"], "deny", "{flow:#}");
    let named = (&flow["container"], &flow["command"], &flow["workload"]);
    assert_eq!(named, (&id.into(), &"bash".into(), &"sleep".into()), "{flow:#}");
    assert!(flow["executable"].as_str().unwrap_or_default().ends_with("/bash"), "{flow:#}");
    let shown = ["flows", "--control", &control, "--reason", "gateway_refused"];
    let shown = testbed.app().run(&program, &shown).unwrap().stdout;
    assert!(shown.contains(&format!(", process {} /", stays.pid())), "{shown}");

    // The agent accepts the connection once its process has ended.
    node.signal(Signal::STOP);
    let mut ends = start("ends", "");
    ends.wait(SOON).unwrap();
    node.signal(Signal::CONT);
    let flow = of(ends.pid());
    assert_eq!((&flow["container"], &flow["command"]), (&id.into(), &"bash".into()), "{flow:#}");
    assert!(flow["executable"].is_null(), "{flow:#}");

    let direct = format!("http://{}:{LISTENER}/", plan::APP);
    testbed.curl_status(&[&direct]).unwrap();
    let direct = until(SOON, "the direct dial", || flows("no_record").pop()).unwrap();
    for field in ["pid", "executable", "command", "container"] {
        assert!(direct[field].is_null(), "{direct:#}");
    }
}

#[test]
fn a_gateway_that_dies_leaves_its_tunnels_to_the_other() {
    let testbed = Testbed::test(2).unwrap();
    testbed.prepare_mtls(2).unwrap();
    steps(&testbed).passthrough.apply(&testbed).unwrap();
    let mut gateways =
        [testbed.start_gateway_mtls(0).unwrap(), testbed.start_gateway_mtls(1).unwrap()];
    let node = testbed.start_node_mtls().unwrap();
    let capture = testbed.capture().unwrap();
    sees(&testbed, &node, &gateways[0], &[SECURE_URL], "200");
    // Both take part.
    until(SOON, "a tunnel to each gateway", || {
        assert_eq!(testbed.curl_status(&[SECURE_URL]).unwrap(), "200");
        (testbed.node_metric(HANDSHAKES).unwrap() >= 2).then_some(())
    })
    .unwrap();
    gateways[0].kill();
    // Even before the health check says so: what fails is tried at the other one.
    for _ in 0..10 {
        sees(&testbed, &node, &gateways[1], &[SECURE_URL], "200");
    }
    gateways[1].kill();
    until_is(
        SOON,
        "connects to be refused",
        || testbed.probe(&["tcp", plan::WEB, "443"]).unwrap(),
        |probe| probe.stdout.contains("ECONNREFUSED"),
    )
    .unwrap();
    let back = testbed.start_gateway_mtls(0).unwrap();
    sees(&testbed, &node, &back, &[SECURE_URL], "200");
    assert_eq!(capture.frames(), Vec::<String>::new());
}

/// In a network of its own that has the neighbour's address and the listener's, dials the outside from
/// every port, again and again: `claiming` once it has done so for the first time.
const CLAIM: &str = r#"
import ctypes, fcntl, os, resource, socket, struct, subprocess, sys
neighbour, listener, port, outside = sys.argv[1:]
if ctypes.CDLL(None).unshare(0x40000000) != 0:
    sys.exit("no network namespace")
for command in ["link set lo up", "address add %s/32 dev lo" % neighbour, "address add %s/32 dev lo" % listener]:
    subprocess.run(["ip"] + command.split())
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
server = socket.create_server((listener, int(port)), backlog=1024)
rounds = 0
while True:
    for source in range(32768, 61000):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            s.bind((neighbour, source))
            s.connect((outside, 443))
            server.accept()[0].close()
        except OSError as error:
            print(error, flush=True)
        s.close()
    print("claiming", flush=True)
"#;

/// Whoever has a network of his own can have any address there. That spoils no connection: not
/// the pod's, whose interface sees whose they are, nor those of a workload on the node's network.
#[test]
fn what_another_network_claims_spoils_no_connection() {
    let testbed = Testbed::test(1).unwrap();
    testbed.prepare_mtls(1).unwrap();
    let cgroup = below_mount(&testbed.pod().cgroup).unwrap();
    let more = format!(
        "- name: daemon\n  namespace: default\n  node: app\n  serviceAccount: daemon\n  cgroups: \
         [{cgroup}]\n"
    );
    testbed.apply_mesh(&format!("{}{more}", mtls::mesh(1))).unwrap();
    steps(&testbed).passthrough.apply(&testbed).unwrap();
    let gateway = testbed.start_gateway_mtls(0).unwrap();
    let node = testbed.start_node_mtls().unwrap();
    sees(&testbed, &node, &gateway, &[SECURE_URL], "200");
    let host = testbed.host_network();
    let refused =
        || testbed.node_metric("egress_tunnel_refused_total{reason=\"no_record\"}").unwrap();
    let before = refused();
    for (place, neighbour) in [(testbed.pod(), plan::POD), (&host, plan::APP)] {
        let port = LISTENER.to_string();
        let args = ["-c", CLAIM, neighbour, plan::APP, &port, plan::WEB];
        let name = format!("claim-{neighbour}");
        let claim = testbed.pod().start(&testbed.dir(), &name, "/usr/bin/python3", &args).unwrap();
        until(SOON * 4, "all ports to be claimed", || {
            claim.stdout().contains("claiming").then_some(())
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}{}", claim.stdout(), claim.stderr()));
        for _ in 0..20 {
            let args = ["-s", "-4", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"];
            let seen = place.run("curl", &[&args[..], &[SECURE_URL]].concat()).unwrap();
            assert_eq!(seen.stdout, "200", "{neighbour}: {seen:?}\n{}", node.stderr());
        }
    }
    assert_eq!(refused(), before, "not one was reset");
}
