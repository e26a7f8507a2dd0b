//! Somebody who knows none of the code finds out why a connection was refused: by `status`, `flows`
//! and `reasons` alone.

use std::{fmt::Write as _, path::Path, time::Duration};

use egress_tests::{
    cgroup,
    manifests::Walkthrough,
    plan,
    process::{Finished, Place, Process},
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, START, until, until_is},
};
use rustix::process::Signal;
use serde_json::Value;

/// A port that nothing routes, and another one.
const PORT: &str = "22";
const OTHER_PORT: &str = "8443";
/// How long a dropped dial may go on.
const DIAL: Duration = Duration::from_secs(4);

/// `mesh.yaml` that knows the pod as shop/web, by all that there is to know it by.
fn mesh(testbed: &Testbed) -> String {
    let mount = cgroup::mount_point().expect("cgroup2");
    let below =
        testbed.pod().cgroup.strip_prefix(mount).expect("below the mount").display().to_string();
    format!(
        "{}workloads:\n- name: web\n  namespace: shop\n  labels: {{app: web}}\n  \
         addresses: [{}]\n  cgroups: [/{below}]\n  interface: {}\n",
        mesh_yaml(1),
        plan::POD,
        plan::POD_INTERFACE
    )
}

/// A testbed with the walkthrough's passthrough.
fn testbed() -> Testbed {
    let testbed = Testbed::test(1).expect("a testbed");
    testbed.apply_mesh(&mesh(&testbed)).expect("a mesh.yaml");
    let files = Walkthrough::example().expect("the walkthrough");
    files.passthrough.apply(&testbed).expect("its passthrough");
    testbed
}

/// A command of the agent on the app node.
fn agent(testbed: &Testbed, args: &[&str]) -> Finished {
    testbed.app().run(&testbed.agent().to_string_lossy(), args).expect("a command")
}

/// `status` of the node.
fn status(testbed: &Testbed, args: &[&str]) -> Finished {
    let (control, pins) = (testbed.node_control(), testbed.pins());
    let mut all = vec!["status", "--control", control.to_str().expect("UTF-8")];
    all.extend(["--bpffs", pins.to_str().expect("UTF-8")]);
    all.extend(args);
    agent(testbed, &all)
}

/// `flows` of whoever listens there, as objects; what was lost is left out.
fn flows(testbed: &Testbed, control: &Path, args: &[&str]) -> Vec<Value> {
    let mut flows = all_flows(testbed, control, args);
    flows.retain(|flow| flow["lost"].is_null());
    flows
}

/// The same with what was lost.
fn all_flows(testbed: &Testbed, control: &Path, args: &[&str]) -> Vec<Value> {
    let pins = testbed.pins();
    let mut all = vec!["flows", "--control", control.to_str().expect("UTF-8")];
    all.extend(["--bpffs", pins.to_str().expect("UTF-8"), "-o", "json"]);
    all.extend(args);
    let done = agent(testbed, &all);
    assert!(done.ok(), "{args:?}: {done:?}");
    done.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The flows of the node, once there are any that match.
fn some_flows(testbed: &Testbed, args: &[&str]) -> Vec<Value> {
    let ask = || flows(testbed, &testbed.node_control(), args);
    until_is(SOON, &format!("flows with {args:?}"), ask, |flows| !flows.is_empty()).expect("flows")
}

/// Whether a connection can be made from there.
fn connects(place: &Place, addr: &str, port: &str) -> bool {
    let dial = format!("exec 3<>/dev/tcp/{addr}/{port}");
    place.run_for(DIAL, "bash", &["-c", &dial]).expect("bash").ok()
}

/// Whether this kernel asks BPF among its security modules.
fn active_lsm() -> bool {
    let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    modules.trim().split(',').any(|module| module == "bpf")
}

/// Whether all is well but for what this kernel can't enforce.
fn in_order(status: &Finished) -> bool {
    status.code == if active_lsm() { 0 } else { 4 }
}

fn refused_connect(testbed: &Testbed, port: &str) {
    assert!(!connects(testbed.pod(), plan::ATTACKER, port), "port {port} must be refused");
}

/// Whether the node says that it is ready, and what it says.
fn readiness(testbed: &Testbed) -> (String, String) {
    let url = "http://127.0.0.1:15020/healthz/ready";
    let done = testbed.app().run("curl", &["-s", "-w", "%{http_code}", url]).expect("curl");
    let (text, code) = done.stdout.split_at(done.stdout.len().saturating_sub(3));
    (code.to_owned(), text.to_owned())
}

#[test]
fn every_verdict_is_found_with_its_workload_and_reason() {
    let testbed = testbed();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let served = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    refused_connect(&testbed, PORT);
    // In the pod's network, but no cgroup's hook sees it: the enforcement point drops its packets.
    let elsewhere = testbed.outside_cgroup();
    assert!(!connects(&elsewhere, plan::WEB, "443"));

    // A refused connect: the hook sees no source address, and it has its workload all the same.
    let denied = some_flows(&testbed, &["--reason", "no_route"]);
    for flow in &denied {
        assert_eq!((&flow["verdict"], &flow["hook"]), (&"deny".into(), &"connect".into()));
        assert_eq!((&flow["namespace"], &flow["workload"]), (&"shop".into(), &"web".into()));
        assert_eq!(flow["destination_address"], plan::ATTACKER);
        assert_eq!(flow["destination_port"], 22);
        // The hook sees none; the agent finds it by the process, if that is still there.
        assert!([Value::Null, plan::POD.into()].contains(&flow["source_address"]), "{flow}");
    }
    // A packet that was dropped.
    let dropped = some_flows(&testbed, &["--reason", "not_redirected", "--address", plan::WEB]);
    for flow in &dropped {
        assert_eq!((&flow["verdict"], &flow["hook"]), (&"deny".into(), &"pod".into()));
        assert_eq!((&flow["workload"], &flow["interface"]), (&"web".into(), &"pod0".into()));
        assert_eq!(flow["source_address"], plan::POD);
    }
    // A redirect.
    let redirected = some_flows(&testbed, &["--verdict", "redirected"]);
    for flow in &redirected {
        assert_eq!((&flow["reason"], &flow["workload"]), (&"routed".into(), &"web".into()));
        assert_eq!(flow["destination_port"], 443);
        assert_eq!(flow["source_address"], plan::POD);
        assert_eq!(flow["gateway"], format!("{}:443", plan::GATEWAYS[0]));
    }

    // Filters keep out what they don't name.
    let node = testbed.node_control();
    let count = |args: &[&str]| flows(&testbed, &node, args).len();
    assert_eq!(count(&["--verdict", "denied", "--reason", "routed"]), 0);
    assert_eq!(count(&["--reason", "no_route", "--pod", "shop/web"]), denied.len());
    assert_eq!(count(&["--reason", "no_route", "--pod", "other/web"]), 0);
    assert_eq!(count(&["--reason", "no_route", "--label", "app=web"]), denied.len());
    assert_eq!(count(&["--reason", "no_route", "--label", "app=other"]), 0);
    assert_eq!(count(&["--reason", "no_route", "--port", "23"]), 0);
    assert_eq!(count(&["--reason", "no_route", "--address", plan::WEB]), 0);
    assert_eq!(count(&["--reason", "no_route", "--since", "1h"]), denied.len());
    assert_eq!(count(&["--last", "1"]), 1);
    assert_eq!(count(&["--last", "0"]), 0);
    // Typos are answered.
    for (args, nearest) in
        [(["--reason", "no_rote"], "no_route"), (["--verdict", "denid"], "denied")]
    {
        let done = agent(&testbed, &[&["flows"], &args[..]].concat());
        assert_eq!(done.code, 2);
        assert!(done.stderr.contains(nearest), "{}", done.stderr);
    }

    // The line for people, and where it sends them.
    let control = node.to_str().unwrap();
    let args = ["flows", "--control", control, "--reason", "no_route", "--last", "1", "-o", "wide"];
    let line = agent(&testbed, &args).stdout;
    let expected = format!(" -> {}:22 TCP DENIED (no_route) at connect", plan::ATTACKER);
    assert!(line.contains(&expected), "{line}");
    let explained = agent(&testbed, &["reasons", "no_route"]).stdout;
    let meaning = line.trim().rsplit(" | ").next().unwrap();
    assert!(explained.replace('\n', " ").contains(meaning), "{line}\n{explained}");
    assert!(explained.contains("VirtualService"), "{explained}");

    // What the gateway refuses has a host.
    testbed.curl(&["https://www.example.com/"]).unwrap();
    let gateway = testbed.gateway_control(0);
    let ask = || flows(&testbed, &gateway, &["--verdict", "denied", "--host", "www.example.com"]);
    let refused = until_is(SOON, "the gateway's refusal", ask, |flows| !flows.is_empty()).unwrap();
    assert_eq!(refused[0]["reason"], "host_not_in_registry");
    assert_eq!((&refused[0]["hook"], &refused[0]["workload"]), (&"gateway".into(), &"web".into()));
    assert_eq!(refused[0]["source_address"], plan::POD);
    assert_eq!(
        (&refused[0]["protocol"], &refused[0]["response_flags"]),
        (&"TLS".into(), &"NR".into())
    );
    let detail = refused[0]["detail"].as_str().unwrap();
    assert!(detail.contains("www.example.com"), "{detail}");
    // The node's event of the same connection is found by its trace id, and no other.
    let trace = refused[0]["trace_id"].as_str().unwrap();
    let same = some_flows(&testbed, &["--trace", trace]);
    assert_eq!(same.len(), 1, "{same:#?}");
    assert_eq!(same[0]["verdict"], "redirect");
    assert_eq!(same[0]["source_port"], refused[0]["source_port"]);
    assert_eq!(count(&["--trace", "0000000000000000"]), 0);
    assert_eq!(flows(&testbed, &gateway, &["--trace", trace]), refused);
    // What it served is not remembered while nobody follows.
    assert_eq!(flows(&testbed, &gateway, &["--verdict", "allowed"]), Vec::<Value>::new());
}

/// A process that stays: the agent finds its program, as Tetragon does, and of a packet it finds none.
#[test]
fn a_connect_names_its_process_and_several_hosts_are_shown_by_time() {
    let testbed = testbed();
    let group = "--control-group=65534".to_owned();
    let _gateway = testbed.start_gateway_with(0, std::slice::from_ref(&group)).unwrap();
    let _node = testbed.start_node_with(&[testbed.node_args(), vec![group]].concat()).unwrap();
    let dial = format!("true 3<>/dev/tcp/{}/{PORT}; echo tried; sleep 600; true", plan::ATTACKER);
    let process = testbed.pod().start(&testbed.dir(), "dialler", "bash", &["-c", &dial]).unwrap();
    until(SOON, "the dial", || process.stdout().contains("tried").then_some(())).unwrap();
    let denied = some_flows(&testbed, &["--reason", "no_route"]);
    assert_eq!(denied[0]["pid"], process.pid(), "{denied:?}");
    let executable = denied[0]["executable"].as_str().unwrap();
    assert!(executable.ends_with("/bash"), "{executable}");
    let elsewhere = testbed.outside_cgroup();
    assert!(!connects(&elsewhere, plan::WEB, "443"));
    let dropped = some_flows(&testbed, &["--reason", "not_redirected"]);
    assert!(dropped[0]["pid"].is_null() && dropped[0]["executable"].is_null(), "{dropped:?}");

    // By the gateway's socket, by a file, and by a remote shell that stands for SSH.
    testbed.curl(&["https://www.example.com/"]).unwrap();
    let (node, gateway) = (testbed.node_control(), testbed.gateway_control(0));
    let refused = || flows(&testbed, &gateway, &["--verdict", "denied"]);
    until_is(SOON, "the gateway's refusal", refused, |flows| !flows.is_empty()).unwrap();
    let saved = testbed.dir().join("flows.json");
    std::fs::write(&saved, format!("{}\n", denied[0])).unwrap();
    let program = testbed.agent();
    let shell = testbed.dir().join("shell");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = gw-1 ] || exit 7\nshift\nexec {} \"$@\" --control {}\n",
        program.display(),
        gateway.display()
    );
    std::fs::write(&shell, script).unwrap();
    let remote = format!("sh {} {{}}", shell.display());
    let places = [format!("node-1={}", node.display()), format!("old={}", saved.display())];
    let servers = ["--server", &*places[0], "--server", &*places[1], "--server", "gw-1"];
    let command = [&["flows", "--remote-shell", &*remote][..], &servers[..]].concat();
    let done = agent(&testbed, &[&command[..], &["--verdict", "denied", "-o", "json"]].concat());
    assert!(done.ok(), "{done:?}");
    let all: Vec<Value> =
        done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (server, reason) in
        [("node-1", "no_route"), ("old", "no_route"), ("gw-1", "host_not_in_registry")]
    {
        let has = |flow: &Value| flow["server"] == server && flow["reason"] == reason;
        assert!(all.iter().any(has), "{server}: {}", done.stdout);
    }
    let time =
        |flow: &Value| flow["time"].as_str().map(|time| time.trim_end_matches('Z').to_owned());
    let times: Vec<String> = all.iter().filter_map(time).collect();
    assert!(times.is_sorted(), "{times:?}");
    let text = agent(&testbed, &[&command[..], &["--verdict", "denied"]].concat()).stdout;
    assert!(text.lines().any(|line| line.starts_with("gw-1    ")), "{text}");
    // One that can't be asked is reported, and the others are shown.
    let some = agent(&testbed, &[&command[..], &["--server", "gw-2"]].concat());
    assert_eq!(some.code, 1, "{some:?}");
    assert!(some.stderr.contains("gw-2: ") && some.stdout.contains("node-1"), "{some:?}");

    // The group may ask, and change nothing; others may not even ask.
    let as_user = |group: &str, program: &str, args: &[&str]| {
        let group = format!("--regid={group}");
        let user = ["--reuid=12345", &*group, "--clear-groups", program];
        testbed.app().run("setpriv", &[&user[..], args].concat()).unwrap()
    };
    let url = "http://localhost/flows";
    let ask = ["-sS", "--unix-socket", node.to_str().unwrap(), url];
    let (member, other) = ("65534", "12345");
    let (asked, refused) = (as_user(member, "curl", &ask), as_user(other, "curl", &ask));
    assert!(asked.ok() && asked.stdout.contains("no_route"), "{asked:?}");
    assert!(!refused.ok() && refused.stdout.is_empty(), "{refused:?}");
    let post = ["-s", "-X", "POST", "--unix-socket", node.to_str().unwrap(), url];
    let posted = as_user(member, "curl", &post);
    assert_eq!(posted.stdout, "not allowed for this user\n", "{posted:?}");
    assert!(testbed.app().run("curl", &post).unwrap().stdout.contains("only GET"));
}

/// Whether a connect is refused, redirected or goes straight to its destination, its event names the process, its
/// program and its container; and of a process that has ended, what the kernel's event itself says.
#[test]
fn every_connect_names_its_process_and_its_container() {
    let testbed = testbed();
    let _gateway = testbed.start_gateway(0).unwrap();
    let mut node = testbed.start_node().unwrap();
    let ask = || testbed.curl_status(&["https://edition.cnn.com/politics"]).unwrap();
    until_is(SOON, "the passthrough", ask, |seen| seen == "200").unwrap();
    let id = "aa0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd";
    let name = format!("kubepods/pod0f3f1c1e-7a5b-4c3d-9e8f-0123456789ab/{id}");
    let container = testbed.below_pod(&name).unwrap();
    let control = testbed.node_control();
    let of = |pid: u32, reason: &str| {
        let ask = || {
            let all = flows(&testbed, &control, &["--reason", reason]);
            all.into_iter().find(|flow| flow["pid"] == pid)
        };
        until(SOON, &format!("{reason} of process {pid}"), ask).unwrap()
    };
    let dials = [
        ("deny", "no_route", plan::ATTACKER, PORT),
        ("redirect", "routed", plan::WEB, "443"),
        ("allow", "internal", plan::APP, "22"),
    ];
    for (verdict, reason, addr, port) in dials {
        let dial = format!("true 3<>/dev/tcp/{addr}/{port}; echo tried; sleep 600; true");
        let process = container.start(&testbed.dir(), reason, "bash", &["-c", &dial]).unwrap();
        until(SOON, "the dial", || process.stdout().contains("tried").then_some(())).unwrap();
        let flow = of(process.pid(), reason);
        assert_eq!(flow["verdict"], verdict, "{flow:#}");
        assert_eq!(
            (&flow["container"], &flow["command"]),
            (&id.into(), &"bash".into()),
            "{flow:#}"
        );
        let executable = flow["executable"].as_str().unwrap_or_default();
        assert!(executable.ends_with("/bash"), "{flow:#}");
    }

    // The agent reads the events once their processes have ended.
    node.signal(Signal::STOP);
    let ended = dials.map(|(_, reason, addr, port)| {
        let (name, dial) = (format!("{reason}-ended"), format!("exec 3<>/dev/tcp/{addr}/{port}"));
        let mut process = container.start(&testbed.dir(), &name, "bash", &["-c", &dial]).unwrap();
        process.wait(SOON).unwrap();
        (reason, process.pid())
    });
    node.signal(Signal::CONT);
    for (reason, pid) in ended {
        let flow = of(pid, reason);
        assert_eq!(
            (&flow["container"], &flow["command"]),
            (&id.into(), &"bash".into()),
            "{flow:#}"
        );
        assert!(flow["executable"].is_null(), "{flow:#}");
        let args = ["flows", "--control", control.to_str().unwrap(), "--reason", reason];
        let text = agent(&testbed, &args).stdout;
        assert!(text.contains(&format!(", process {pid} (bash)")), "{text}");
    }
}

#[test]
fn flows_are_followed_as_they_happen() {
    let testbed = testbed();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let served = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    refused_connect(&testbed, PORT);

    let follow = |name: &str, control: &Path, filter: &[&str]| {
        let mut args = vec!["flows".to_owned(), "--follow".into(), "--control".into()];
        args.push(control.to_string_lossy().into_owned());
        args.extend(filter.iter().map(|arg| (*arg).to_owned()));
        testbed.start_agent(testbed.app(), name, &args).unwrap()
    };
    let node = follow("follow-node", &testbed.node_control(), &["--verdict", "denied"]);
    // The history comes first. When it is there, the follower follows.
    until(SOON, "the history", || node.stdout().contains(":22 TCP DENIED").then_some(())).unwrap();
    refused_connect(&testbed, OTHER_PORT);
    let seen = || node.stdout().contains(":8443 TCP DENIED (no_route)").then_some(());
    until(SOON, "the new refusal", seen).unwrap();
    assert_eq!(served(), "200");
    // Flows are printed in their order: the connection that was served would come before this one.
    refused_connect(&testbed, "2222");
    let last = || node.stdout().contains(":2222 TCP DENIED").then_some(());
    until(SOON, "the refusal after it", last).unwrap();
    assert!(!node.stdout().contains("REDIRECTED"), "{}", node.stdout());

    // A gateway tells of what it serves as long as somebody listens.
    testbed.curl(&["https://www.example.com/"]).unwrap();
    let gateway = follow("follow-gateway", &testbed.gateway_control(0), &[]);
    let refusal = || gateway.stdout().contains("www.example.com").then_some(());
    until(SOON, "the gateway's history", refusal).unwrap();
    assert_eq!(served(), "200");
    until(SOON, "the served connection", || {
        let served = |line: &&str| line.contains("edition.cnn.com:443 TLS ALLOWED");
        gateway.stdout().lines().find(served).map(str::to_owned)
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.stdout()));
}

/// What `clusterCidrs` names counts as inside, also where it leaves with the default route.
#[test]
fn status_tells_which_networks_inside_leave_by_the_default_route() {
    let testbed = testbed();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let told = |seen: &Finished| seen.stdout.contains("no route covers 10.244.0.0/16 but");
    let seen = until_is(SOON, "the network", || status(&testbed, &[]), told).unwrap();
    // The twin: the network between the nodes has a route of its own.
    assert!(!seen.stdout.contains("no route covers 10.10.0.0/24"), "{}", seen.stdout);
}

#[test]
fn status_tells_a_living_agent_from_a_dead_one_and_from_none() {
    let testbed = testbed();
    let none = status(&testbed, &[]);
    assert_eq!(none.code, 3, "{none:?}");
    assert!(none.stdout.starts_with("NOTHING IS ATTACHED"), "{none:?}");

    let _gateway = testbed.start_gateway(0).unwrap();
    let mut node = testbed.start_node().unwrap();
    let alive = until_is(SOON, "a node in order", || status(&testbed, &[]), in_order).unwrap();
    let pid = format!("running (pid {}", node.pid());
    let (word, verdict, code) = match active_lsm() {
        true => ("HEALTHY", "healthy", 0),
        false => ("DEGRADED", "degraded", 4),
    };
    for part in [word, &pid, "default: enforce", "connect4", "pod_ingress", "interface pod0"] {
        assert!(alive.stdout.contains(part), "{part}:\n{}", alive.stdout);
    }
    let alive = status(&testbed, &["-o", "json"]);
    let value: Value = serde_json::from_str(&alive.stdout).unwrap();
    assert_eq!((alive.code, &value["verdict"]), (code, &verdict.into()), "{value:#}");
    assert_eq!(value["node"]["agent"]["process"]["pid"], node.pid());
    assert_eq!(value["node"]["agent"]["gateways"][0]["address"], plan::GATEWAYS[0]);
    let programs = value["node"]["programs"].as_array().unwrap();
    assert!(programs.iter().all(|program| program["id"].as_u64() > Some(0)), "{programs:#?}");
    // Every map whose entries can be counted has been: none is of a size that isn't known here.
    let maps = value["node"]["maps"].as_array().unwrap();
    for name in ["ROUTES", "GATEWAYS", "INTERNAL", "DENIED", "POD_ADDRESSES", "MOVED_SLOTS"]
        .into_iter()
        .chain(["WORKLOADS", "ORIGINAL_DST", "FLOWS", "TUNNELED"])
    {
        let map = maps.iter().find(|map| map["name"] == name).unwrap_or_else(|| panic!("{name}"));
        assert!(map["entries"].is_u64(), "{map}");
    }
    let (ready, text) = readiness(&testbed);
    assert_eq!((&*ready, text.lines().next()), ("200", Some("ready")));
    assert_eq!(text.contains("exposed: "), !active_lsm(), "{text}");

    // A configuration that is refused is shown with what is wrong with it.
    testbed.apply("broken.yaml", "apiVersion: networking.istio.io/v1\nkind: Nonsense\n").unwrap();
    let ask = || status(&testbed, &[]);
    let refused = until_is(SOON, "the refused configuration", ask, |seen| seen.code == 1).unwrap();
    assert!(refused.stdout.contains("REJECTED") && refused.stdout.contains("broken.yaml"));
    assert_eq!(readiness(&testbed).0, "200", "the last good one works on");
    testbed.delete("broken.yaml").unwrap();
    until_is(SOON, "the repaired configuration", ask, in_order).unwrap();

    // Dead: the pins still tell, and so do the events that nobody has read.
    node.kill();
    let dead = status(&testbed, &[]);
    assert_eq!(dead.code, 1, "{dead:?}");
    for part in ["no agent is running; enforcement is in force as it was left", "pod_ingress"] {
        assert!(dead.stdout.contains(part), "{part}:\n{}", dead.stdout);
    }
    refused_connect(&testbed, PORT);
    let control = testbed.node_control();
    let left = flows(&testbed, &control, &["--reason", "no_route"]);
    assert!(!left.is_empty());
    assert_eq!(flows(&testbed, &control, &["--reason", "no_route"]), Vec::<Value>::new());

    // Detached: nothing is in force, and nothing is said to be.
    let pins = testbed.pins();
    let detached = agent(&testbed, &["detach", "--bpffs", pins.to_str().unwrap()]);
    assert!(detached.ok(), "{detached:?}");
    let gone = status(&testbed, &["-o", "json"]);
    let value: Value = serde_json::from_str(&gone.stdout).unwrap();
    assert_eq!((gone.code, &value["verdict"]), (3, &"not_attached".into()), "{value:#}");
    let control = control.to_str().unwrap();
    let nobody =
        agent(&testbed, &["flows", "--control", control, "--bpffs", pins.to_str().unwrap()]);
    assert_eq!(nobody.code, 1, "{nobody:?}");
    assert!(nobody.stderr.contains("nothing is enforced"), "{nobody:?}");
}

#[test]
fn a_gateways_status_is_its_own() {
    let testbed = testbed();
    let mut gateway = testbed.start_gateway(0).unwrap();
    let control = testbed.gateway_control(0);
    let control = control.to_str().unwrap();
    let alive = agent(&testbed, &["status", "--control", control]);
    assert_eq!(alive.code, 0, "{alive:?}");
    for part in ["HEALTHY", "LIVE", "sk-lookup", "in force; 1 accepted"] {
        assert!(alive.stdout.contains(part), "{part}:\n{}", alive.stdout);
    }
    assert!(gateway.end().unwrap().success());
    assert!(!testbed.gateway_control(0).exists(), "it takes its socket away");
}

#[test]
fn a_full_map_makes_the_node_unready_until_it_fits() {
    /// More prefixes than the map of denied ones takes.
    const TOO_MANY: u32 = 20_000;
    let testbed = testbed();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let healthy = || status(&testbed, &[]);
    until_is(SOON, "a node in order", healthy, in_order).unwrap();
    let fits = mesh(&testbed);
    let mut prefixes = String::new();
    for number in 0..TOO_MANY {
        let [_, a, b, c] = (number << 1).to_be_bytes();
        write!(prefixes, "\"100.{a}.{b}.{c}/32\", ").unwrap();
    }
    testbed.apply_mesh(&format!("{fits}deniedCidrs: [{prefixes}]\n")).unwrap();
    let seen = |(code, _): &(String, String)| code == "503";
    let (_, causes) = until_is(SOON * 2, "not ready", || readiness(&testbed), seen).unwrap();
    assert!(causes.contains("map DENIED is full"), "{causes}");
    let full = status(&testbed, &[]);
    assert_eq!(full.code, 1, "{full:?}");
    assert!(full.stdout.contains("map DENIED is full") && full.stdout.contains("deniedCidrs"));
    assert!(full.stdout.contains("16384     FULL"), "{}", full.stdout);
    // The twin: what fits is taken, and all is well again.
    testbed.apply_mesh(&format!("{fits}deniedCidrs: [\"100.0.0.0/32\"]\n")).unwrap();
    until_is(SOON * 2, "ready", || readiness(&testbed).0, |code| code == "200").unwrap();
    until_is(SOON, "a node in order", healthy, in_order).unwrap();
}

#[test]
fn lost_events_are_counted_and_said() {
    let testbed = testbed();
    let _gateway = testbed.start_gateway(0).unwrap();
    let mut args = testbed.node_args();
    args.extend(["--events-per-second".into(), "0".into()]);
    let node = testbed.start_agent(testbed.app(), "node", &args).unwrap();
    let ready = || node.stderr().lines().any(|line| line.ends_with(" ready")).then_some(());
    until(START, "the node agent to enforce", ready).unwrap();

    let control = testbed.node_control().to_string_lossy().into_owned();
    let follow = ["flows", "--follow", "--control", &control].map(str::to_owned);
    let follower = testbed.start_agent(testbed.app(), "follow", &follow).unwrap();
    // Each attempt loses one event; the follower is there at one of them.
    until(SOON, "the loss to be said", || {
        refused_connect(&testbed, PORT);
        follower.stdout().lines().any(is_loss).then_some(())
    })
    .unwrap();
    let lost = all_flows(&testbed, &testbed.node_control(), &[]);
    assert!(lost[0]["lost"].as_u64() > Some(0), "{lost:?}");
    let status = status(&testbed, &[]);
    // 4 where the kernel has no BPF security modules: that is degraded, and lost events are not.
    assert!([0, 4].contains(&status.code), "a warning, no problem: {status:?}");
    assert!(status.stdout.contains("events were lost over the limit"), "{}", status.stdout);
}

/// `lost 12 events`, without more.
fn is_loss(line: &str) -> bool {
    let count = line.strip_prefix("lost ").and_then(|rest| rest.strip_suffix(" events"));
    count.is_some_and(|count| count.parse::<u64>().is_ok())
}

#[test]
fn without_a_configuration_the_cause_is_found_too() {
    let testbed = testbed();
    testbed.apply_mesh("outboundTrafficPolicy: {mode: SOMETIMES}\n").unwrap();
    let _node = testbed.start_agent(testbed.app(), "node", &testbed.node_args()).unwrap();
    let ask = || status(&testbed, &[]);
    // It is rejected first, and then what runs comes under enforcement.
    let parts = ["REJECTED", "no configuration is in force", "SOMETIMES", "mesh.yaml"];
    let rejected = |seen: &Finished| parts.iter().all(|part| seen.stdout.contains(part));
    let status = until_is(START, "the rejected configuration", ask, rejected).unwrap();
    assert_eq!(status.code, 1, "{status:?}");
    let (code, cause) = readiness(&testbed);
    assert_eq!(code, "503");
    assert!(cause.contains("no configuration has been accepted yet"), "{cause}");
    refused_connect(&testbed, PORT);
    let denied = some_flows(&testbed, &["--verdict", "denied", "--port", PORT]);
    assert_eq!(denied[0]["reason"], "no_policy");
}

#[test]
fn audit_is_shouted_and_its_verdicts_are_found() {
    let testbed = testbed();
    let _gateway = testbed.start_gateway(0).unwrap();
    let audit = mesh(&testbed).replace("enforcement: enforce", "enforcement: audit");
    testbed.apply_mesh(&audit).unwrap();
    let _node = testbed.start_node().unwrap();
    assert!(connects(testbed.pod(), plan::ATTACKER, PORT), "audit lets it pass");
    let audited = some_flows(&testbed, &["--verdict", "audited", "--reason", "no_route"]);
    assert_eq!((&audited[0]["audit"], &audited[0]["verdict"]), (&true.into(), &"deny".into()));
    assert_eq!(audited[0]["workload"], "web");
    // They are refusals all the same, and marked.
    let denied = some_flows(&testbed, &["--verdict", "denied", "--reason", "no_route"]);
    assert!(denied.iter().all(|flow| flow["audit"] == true), "{denied:?}");
    let status = status(&testbed, &[]);
    assert_eq!(status.code, 1, "{status:?}");
    assert!(status.stdout.contains("AUDIT mode is on"), "{}", status.stdout);
}

/// No `cgroups` and no `interface` name it: only the command line's `--pod-interface` says which
/// address is behind the interface, and `workloads` whose address that is.
#[test]
fn a_refused_connect_names_the_pod_that_only_its_interface_tells() {
    let testbed = testbed();
    let workloads = format!(
        "{}workloads:\n- name: web\n  namespace: shop\n  addresses: [{}]\n",
        mesh_yaml(1),
        plan::POD
    );
    testbed.apply_mesh(&workloads).unwrap();
    let _node = testbed.start_node().unwrap();
    // As a container's first process is.
    let _first = testbed.pod().start(&testbed.dir(), "first", "sleep", &["600"]).unwrap();
    refused_connect(&testbed, PORT);
    let ask = ["--pod", "shop/web", "--verdict", "denied", "--port", PORT];
    for flow in some_flows(&testbed, &ask) {
        assert_eq!(
            (&flow["hook"], &flow["source_address"]),
            (&"connect".into(), &plan::POD.into())
        );
    }
    // The twin: a workload on the host's network is behind no interface.
    assert!(!connects(&testbed.host_network(), plan::ATTACKER, "23"));
    let flow = &some_flows(&testbed, &["--verdict", "denied", "--port", "23"])[0];
    assert_eq!(flow["hook"], "connect");
}

/// Names what it may do, and waits.
const SLEEPER: &str = r#"
import ctypes, sys, time
libc = ctypes.CDLL(None, use_errno=True)
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, CLONE_NEWUSER = 24, 38, 0x10000000
for capability in range(64):
    if str(capability) not in sys.argv[2].split(","):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
mask = sum(1 << int(number) for number in sys.argv[2].split(",") if number)
low, high = mask & 0xffffffff, mask >> 32
libc.capset(header, (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0))
if sys.argv[1] == "users" and libc.unshare(CLONE_NEWUSER) != 0:
    sys.exit("no user namespace: %d" % ctypes.get_errno())
print("there", flush=True)
time.sleep(600)
"#;

/// A process of the pod that has these capabilities and no others.
fn sleeper(
    testbed: &Testbed,
    place: &Place,
    name: &str,
    kind: &str,
    capabilities: &str,
) -> Process {
    let args = ["-c", SLEEPER, kind, capabilities];
    let process = place.start(&testbed.dir(), name, "/usr/bin/python3", &args).expect("a process");
    until(SOON, "the process", || process.stdout().contains("there").then_some(()))
        .unwrap_or_else(|error| panic!("{error:#}: {}", process.stderr()));
    process
}

#[test]
fn status_tells_which_promises_do_not_hold_and_for_whom() {
    let testbed = testbed();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let exposed = |promise: &str| -> Option<Value> {
        let told = status(&testbed, &["-o", "json"]);
        let value: Value = serde_json::from_str(&told.stdout).unwrap();
        let all = value["exposures"].as_array().unwrap().clone();
        assert_eq!(value["verdict"] == "healthy", all.is_empty() && told.code == 0, "{value:#}");
        all.into_iter().find(|exposure| exposure["promise"] == promise)
    };
    let (pod, host) = (testbed.pod().clone(), testbed.host_network());
    // NET_ADMIN (12) in the pod, NET_RAW (13) on the host's network: for those without a BPF LSM.
    // NET_ADMIN on the host's network and SYS_ADMIN (21) whatever the kernel asks.
    for (promise, place, capabilities, always) in [
        ("net_admin", &pod, "12,13", false),
        ("net_raw_on_host", &host, "13", false),
        ("net_admin_on_host", &host, "12", true),
        ("privileged", &pod, "21", true),
    ] {
        // The agent looks every few seconds.
        until_is(SOON * 2, "none", || exposed(promise), Option::is_none).unwrap();
        let process = sleeper(&testbed, place, promise, "plain", capabilities);
        if always || !active_lsm() {
            let found = until(SOON * 2, promise, || exposed(promise)).unwrap();
            assert_eq!(found["workloads"], serde_json::json!(["shop/web"]), "{found}");
            let (code, text) = readiness(&testbed);
            assert!(code == "200" && text.contains("shop/web"), "{text}");
            let series = format!("egress_exposed_workloads{{promise=\"{promise}\"}}");
            assert_eq!(testbed.node_metric(&series).unwrap(), 1);
        }
        drop(process);
    }
    // The twin: in a user namespace of its own it has them over nothing of the node's.
    until_is(SOON * 2, "none", || exposed("privileged"), Option::is_none).unwrap();
    let looks = || testbed.node_metric("egress_process_looks_total").unwrap();
    let _process = sleeper(&testbed, &pod, "users", "users", "12,13,21");
    let before = looks();
    until_is(SOON * 2, "two looks", looks, |now| *now >= before + 2).unwrap();
    for promise in ["net_admin", "privileged"] {
        assert_eq!(exposed(promise), None);
    }
}

/// Both roles' metrics, and what `promtool` has to say about them.
#[test]
fn metrics_are_as_prometheus_wants_them() {
    let testbed = testbed();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let url = "https://edition.cnn.com/politics";
    let ask = || testbed.curl_status(&[url]).unwrap();
    until_is(SOON, "the walkthrough's passthrough", ask, |seen| seen == "200").unwrap();
    refused_connect(&testbed, PORT);

    let scrape = |place: &Place, url: &str| place.run("curl", &["-s", url]).unwrap().stdout;
    let gateway = scrape(testbed.gateway(0), "http://127.0.0.1:15090/stats/prometheus");
    let node = testbed.node_metrics().unwrap();
    for (role, text) in [("gateway", &gateway), ("node", &node)] {
        let series = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            found.unwrap_or_else(|| panic!("{name} in\n{text}")).parse::<f64>().expect(name)
        };
        let abi = egress_ebpf::abi::ABI_VERSION;
        let version = env!("CARGO_PKG_VERSION");
        let build = format!("{{version=\"{version}\",role=\"{role}\",map_abi=\"{abi}\"}}");
        assert!((series(&format!("egress_build_info{build}")) - 1.0).abs() < f64::EPSILON);
        assert!(series("process_resident_memory_bytes") > 1e6, "{role}");
        assert!(series("process_open_fds") > 3.0, "{role}");
        assert!(series("process_cpu_seconds_total") > 0.0, "{role}");
        assert!(series("process_start_time_seconds") > 1.6e9, "{role}");
        assert!(series("egress_config_reloads_total{result=\"accepted\"}") > 0.0, "{role}");
        complaints(text);
    }
    let entries = |map: &str| format!("egress_map_entries{{map=\"{map}\"}} ");
    assert!(node.contains(&entries("ROUTES")), "{node}");
    assert!(node.contains(&entries("DENIED")), "{node}");
    assert!(node.contains("egress_map_capacity{map=\"ROUTES\"} "), "{node}");
}

/// `promtool check metrics` complains of nothing but names that are Envoy's and Istio's.
fn complaints(text: &str) {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut promtool = promtool.stderr(Stdio::piped()).spawn().expect("promtool");
    promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    for line in said.lines() {
        let borrowed = line.starts_with("envoy_") || line.starts_with("istio_");
        assert!(borrowed && !line.contains("help text"), "{line}\n{text}");
    }
    // 3 says that it only complained.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
}

/// From audit mode to a policy: what was seen is allowed, everything else is refused.
#[test]
fn a_suggestion_allows_what_was_seen_and_nothing_else() {
    let testbed = Testbed::test(1).unwrap();
    testbed.apply_mesh(&mesh(&testbed)).unwrap();
    let audit = "\
apiVersion: egress-enforcer.io/v1alpha1
kind: EgressPolicy
metadata: {name: audit, namespace: shop}
spec:
  mode: Audit
  rules:
  - hosts: [nothing.invalid]
    ports: [{port: 443, protocol: TLS}, {port: 80, protocol: HTTP}]
";
    testbed.apply("policy.yaml", audit).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let (url, other) = ("https://edition.cnn.com/politics", "http://edition.cnn.com/politics");
    let sees = |url: &str, expected: &str| {
        let ask = || testbed.curl_status(&[url]).unwrap();
        until_is(SOON, &format!("{url} to be {expected}"), ask, |seen| seen == expected).unwrap();
    };
    sees(url, "200");

    let control = testbed.gateway_control(0);
    let control = control.to_str().unwrap();
    let suggest = || {
        let done = agent(&testbed, &["suggest", "--control", control, "--namespace", "shop"]);
        assert!(done.ok(), "{done:?}");
        done.stdout
    };
    let text = until_is(SOON, "a suggestion", suggest, |text| text.contains("kind:")).unwrap();
    assert!(text.contains("    - edition.cnn.com\n"), "{text}");
    assert!(text.contains("      app: web\n"), "{text}");
    // Nobody asked for the host in clear yet, nor for any other.
    assert_eq!(text.matches("- port: ").count(), 1, "{text}");
    let istio = ["suggest", "--control", control, "-n", "shop", "-o", "istio"];
    let first = agent(&testbed, &istio).stdout;
    assert!(first.contains("kind: VirtualService"), "{first}");
    let kept = testbed.dir().join("kept.json");
    let seen = agent(&testbed, &["flows", "--control", control, "-o", "json"]).stdout;
    std::fs::write(&kept, seen).unwrap();

    // Unchanged, in the place of audit mode.
    testbed.apply("policy.yaml", &text).unwrap();
    let (config, mesh) = (testbed.config(), testbed.mesh());
    let paths = [config.to_str().unwrap(), "--mesh", mesh.to_str().unwrap()];
    let check = agent(&testbed, &[&["check"], &paths[..]].concat());
    assert_eq!(check.code, 0, "{check:?}");
    let refused = || testbed.curl_status(&["https://www.example.com/"]).unwrap();
    until_is(SOON, "others to be refused", refused, |seen| seen.starts_with("curl: ")).unwrap();
    sees(url, "200");
    let is_refused = |seen: &str| seen == "403" || seen.starts_with("curl: ");
    let clear = testbed.curl_status(&[other]).unwrap();
    assert!(is_refused(&clear), "{clear}");

    // The same as Istio's resources, in two runs into the configuration: the second one keeps what the first one
    // allows, in the same file.
    testbed.apply("policy.yaml", audit).unwrap();
    let into = |args: &[&str]| {
        let done = agent(&testbed, &[args, &["--into", config.to_str().unwrap()]].concat());
        assert!(done.ok(), "{done:?}");
        let written = done.stdout.lines().filter_map(|line| line.strip_prefix("written: "));
        written.map(str::to_owned).collect::<Vec<_>>()
    };
    let file = config.join("shop.suggested.edition.cnn.com.yaml").display().to_string();
    assert_eq!(into(&[&istio[..], &["--flows", kept.to_str().unwrap()]].concat()), [&*file]);
    sees(other, "301");
    let of_port = [&istio[..], &["--port", "80"]].concat();
    let again = || agent(&testbed, &of_port).stdout;
    let second =
        until_is(SOON, "clear text to be suggested", again, |text| text.contains("kind:")).unwrap();
    assert!(
        second.contains("# Takes the place of VirtualService shop/suggested.edition.cnn.com"),
        "{second}"
    );
    assert!(second.contains("    # suggested before\n"), "{second}");
    assert_eq!(into(&of_port), [&*file]);
    testbed.delete("policy.yaml").unwrap();
    let check = agent(&testbed, &[&["check"], &paths[..]].concat());
    assert_eq!(check.code, 0, "{check:?}\n{second}");
    let seen = || testbed.curl_status(&["https://www.example.com/"]).unwrap();
    until_is(SOON, "others to be refused again", seen, |seen| is_refused(seen)).unwrap();
    sees(url, "200");
    sees(other, "301");
    for url in ["http://www.example.com/", "http://edition.cnn.com:8080/politics"] {
        let seen = testbed.curl_status(&[url]).unwrap();
        assert!(is_refused(&seen), "{url}: {seen}");
    }
}

/// What the admin port changes: the answer to health checks, and whether anything new is accepted.
#[test]
fn a_gateway_is_taken_out_of_service_and_drained_over_its_admin_port() {
    let testbed = testbed();
    let _gateway = testbed.start_gateway_with(0, &["--admin-ui".into()]).unwrap();
    let _node = testbed.start_node().unwrap();
    let url = "https://edition.cnn.com/politics";
    let ask = || testbed.curl_status(&[url]).unwrap();
    until_is(SOON, "the passthrough", ask, |seen| seen == "200").unwrap();
    let admin = |args: &[&str], page: &str| {
        let url = format!("http://127.0.0.1:15000{page}");
        let all = [&["-s", "-g"], args, &[&*url]].concat();
        testbed.gateway(0).run("curl", &all).unwrap().stdout
    };
    // The page for a browser has seen it.
    let page = admin(&["-i"], "/ui");
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
    let summary: Value = serde_json::from_str(&admin(&[], "/ui/summary")).unwrap();
    assert_eq!(summary["talks"][0]["service"], "edition.cnn.com:443", "{summary:#}");
    assert_eq!(summary["talks"][0]["workload"], "shop/web", "{summary:#}");
    let healthy = || {
        let text = testbed.node_metrics().unwrap();
        let line = text.lines().find(|line| line.starts_with("egress_gateway_healthy{"));
        line.is_some_and(|line| line.ends_with(" 1"))
    };
    assert!(admin(&[], "/healthcheck/fail").contains("use POST"));
    assert_eq!(admin(&["-X", "POST"], "/healthcheck/fail"), "OK\n");
    until(SOON, "the node to notice", || (!healthy()).then_some(())).unwrap();
    assert_eq!(admin(&["-X", "POST"], "/healthcheck/ok"), "OK\n");
    until(SOON, "the node to notice again", || healthy().then_some(())).unwrap();
    until_is(SOON, "the passthrough again", ask, |seen| seen == "200").unwrap();

    assert!(admin(&["-X", "POST"], "/logging?level=debug").contains("egress_agent=debug"));
    assert_eq!(admin(&["-X", "POST"], "/drain_listeners?graceful"), "OK\n");
    until_is(SOON, "nothing new to be accepted", ask, |seen| seen.starts_with("curl: ")).unwrap();
    // The process stays until it gets a signal.
    assert!(admin(&[], "/server_info").contains("\"state\": \"DRAINING\""));
    assert!(admin(&[], "/listeners").contains("admin::127.0.0.1:15000\n"));
}
