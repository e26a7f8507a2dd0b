//! What changes under running agents: the configuration, with editors' habits and mistakes; and the
//! gateway's own program.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use egress_tests::{
    copy_program,
    manifests::Walkthrough,
    pair,
    process::{Finished, Process},
    sh,
    testbed::Testbed,
    wait::{SOON, START, until, until_is},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Within this a machine that is busy with other things serves the whole load.
const LONG: Duration = Duration::from_secs(300);

#[test]
fn changes_are_followed_and_mistakes_leave_the_last_good_configuration() {
    let testbed = Testbed::test(1).unwrap();
    let files = Walkthrough::example().unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    let status = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    let served = |how: &str| {
        until_is(SOON, &format!("served after {how}"), status, |seen| seen == "200").unwrap();
    };
    let refused = |how: &str| {
        until_is(SOON, &format!("refused after {how}"), status, |seen| seen != "200").unwrap();
    };
    let text: String =
        files.passthrough.files.iter().map(|(_, text)| format!("---\n{text}")).collect();
    let path = testbed.config().join("all.yaml");

    // Written beside and renamed over (vim, kubectl, ansible).
    testbed.apply("all.yaml", &text).unwrap();
    served("a rename");
    // Written in place.
    fs::write(&path, "# nothing\n").unwrap();
    refused("a write in place");
    fs::write(&path, &text).unwrap();
    served("a write in place");
    // Moved away as a backup, then a new file under the old name (emacs, vim with `backupcopy=no`).
    fs::rename(&path, testbed.config().join("all.yaml~")).unwrap();
    refused("a backup");
    fs::write(&path, &text).unwrap();
    served("a new file under the old name");
    // A symbolic link that is turned elsewhere, as the kubelet does with config maps.
    fs::remove_file(&path).unwrap();
    fs::remove_file(testbed.config().join("all.yaml~")).unwrap();
    refused("a deletion");
    for version in ["..1", "..2"] {
        fs::create_dir(testbed.config().join(version)).unwrap();
    }
    fs::write(testbed.config().join("..1/all.yaml"), "# nothing\n").unwrap();
    fs::write(testbed.config().join("..2/all.yaml"), &text).unwrap();
    symlink("..1", testbed.config().join("..data")).unwrap();
    symlink("..data/all.yaml", &path).unwrap();
    let turn = testbed.config().join("..data_tmp");
    symlink("..2", &turn).unwrap();
    fs::rename(&turn, testbed.config().join("..data")).unwrap();
    served("a turned link");

    // A mistake: said by both, with file and field, and nothing changes.
    let broken = files.passthrough.files[0].1.replace("name: cnn", "name: broken");
    let broken = broken.replace("edition.cnn.com", "broken.example.com").replace("443", "0");
    testbed.apply("broken.yaml", &broken).unwrap();
    for (who, agent) in [("gateway", &gateway), ("node", &node)] {
        until(SOON, &format!("the {who} to report the mistake"), || {
            let said = agent.stderr();
            (said.contains("broken.yaml") && said.contains("port")).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error:#}:\n{}", agent.stderr()));
    }
    for _ in 0..3 {
        assert_eq!(status(), "200", "the last good configuration stays in force");
    }
    // Repaired, by taking it away: changes are followed again.
    testbed.delete("broken.yaml").unwrap();
    fs::remove_file(&path).unwrap();
    refused("the mistake was repaired");
}

/// A process that took over. It has no parent left once the process before it has ended.
struct Successor(Pid);

impl Successor {
    /// Whether it runs: what nobody has reaped yet has ended.
    fn runs(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.as_raw_nonzero()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        kill_process(self.0, Signal::KILL).ok();
        until(SOON, "the successor's end", || (!self.runs()).then_some(())).ok();
    }
}

/// A gateway that is started from a path of the test's own, where other programs are put in the course of it.
struct Upgraded<'a> {
    testbed: &'a Testbed,
    program: PathBuf,
    gateway: Process,
}

impl<'a> Upgraded<'a> {
    fn start(testbed: &'a Testbed, more: &[String]) -> Self {
        let program = testbed.dir().join("egress-agent");
        copy_program(testbed.agent(), &program).unwrap();
        let gateway = testbed.start_gateway_from(&program, 0, more).unwrap();
        Self { testbed, program, gateway }
    }

    /// Puts another program in the place of the one that runs.
    fn install(&self, make: impl FnOnce(&Path)) {
        let new = self.program.with_extension("new");
        make(&new);
        fs::rename(&new, &self.program).unwrap();
    }

    fn agent(&self, args: &[&str]) -> Finished {
        let control = self.testbed.gateway_control(0).to_string_lossy().into_owned();
        let mut all = vec![args[0], "--control", &control];
        all.extend(&args[1..]);
        let agent = self.testbed.agent().to_string_lossy();
        self.testbed.gateway(0).run(&agent, &all).unwrap()
    }

    /// The process that answers.
    fn pid(&self) -> u64 {
        let status = self.agent(&["status", "-o", "json"]).stdout;
        let status: Value = serde_json::from_str(&status).unwrap();
        status["gateway"]["process"]["pid"].as_u64().unwrap()
    }

    fn upgrade(&self) -> Successor {
        let done = self.agent(&["upgrade", "-o", "json"]);
        assert!(done.ok(), "{done:?}\n{}", self.gateway.stderr());
        let report: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(report["replaced"], self.gateway.pid());
        let pid = i32::try_from(report["pid"].as_i64().unwrap()).unwrap();
        Successor(Pid::from_raw(pid).unwrap())
    }

    /// Clients in the pod, whose connections are open now.
    fn clients(&self, names: &[&str], downloads: usize) -> Clients {
        let go = self.testbed.dir().join("go");
        let (go_text, downloads) = (go.to_string_lossy().into_owned(), downloads.to_string());
        let script = include_str!("../src/upgrade.py");
        let mut args = vec!["-c", script, &go_text, &downloads];
        args.extend(names);
        let (pod, dir) = (self.testbed.pod(), self.testbed.dir());
        // Others may have written to the same file.
        let earlier = fs::read(dir.join("clients.out")).map_or(0, |text| text.len());
        let process = pod.start(&dir, "clients", "/usr/bin/python3", &args).unwrap();
        let says = || process.stdout()[earlier..].contains("open").then_some(());
        until(SOON, "open connections", says).unwrap_or_else(|error| {
            panic!("{error:#}: {}{}", process.stderr(), self.gateway.stderr())
        });
        Clients { process, go }
    }
}

struct Clients {
    process: Process,
    go: PathBuf,
}

impl Clients {
    /// Lets them go on to their end, at which all must have been served.
    fn end(mut self, kinds: usize) {
        fs::write(&self.go, "").unwrap();
        let ended = self.process.wait(START).unwrap();
        fs::remove_file(&self.go).unwrap();
        assert!(ended.success(), "{}", self.process.stderr());
        let text = self.process.stdout();
        let seen: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(seen["failures"], Value::Array(Vec::new()), "{seen:#}");
        assert_eq!(seen["served"].as_object().unwrap().len(), kinds, "{seen:#}");
    }
}

#[test]
fn another_process_takes_over_under_load_and_no_request_fails() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    testbed.apply("routes.yaml", &pair::routes()).unwrap();
    let mut upgraded = Upgraded::start(&testbed, &[]);
    let _node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    let served = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    let denied = || testbed.curl_status(&["https://www.example.com/"]).unwrap();
    assert_ne!(denied(), "200");
    let first = u64::from(upgraded.gateway.pid());

    let names = ["http://www.example.com", "https://edition.cnn.com"];
    let clients = upgraded.clients(&names, 3);
    // Programs and files that can't serve change nothing.
    upgraded.install(|path| {
        let script = "printf '#!/bin/sh\\nexit 7\\n' >\"$0\" && chmod 755 \"$0\"";
        sh("sh", &["-c", script, &path.to_string_lossy()]).map(drop).unwrap();
    });
    let failed = upgraded.agent(&["upgrade"]);
    assert_eq!((failed.code, upgraded.pid()), (1, first), "{failed:?}");
    assert!(failed.stderr.contains("exit status: 7"), "{failed:?}");
    upgraded.install(|path| copy_program(testbed.agent(), path).unwrap());
    testbed.apply("broken.yaml", "apiVersion: networking.istio.io/v1\nkind: Gateway\n").unwrap();
    let failed = upgraded.agent(&["upgrade"]);
    assert_eq!((failed.code, upgraded.pid()), (1, first), "{failed:?}");
    assert!(failed.stderr.contains("the configuration is refused"), "{failed:?}");
    assert!(failed.stderr.contains("broken.yaml"), "{failed:?}");
    testbed.delete("broken.yaml").unwrap();

    let successor = upgraded.upgrade();
    assert_ne!(upgraded.pid(), first);
    assert!(upgraded.gateway.ended().is_none(), "downloads are open");
    // Not a third one, as long as the first drains.
    let refused = upgraded.agent(&["upgrade"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains(&format!("process {first}")), "{refused:?}");
    assert!(upgraded.agent(&["status"]).stdout.contains("still drains"));
    clients.end(8);

    // The first one has nothing left to do; the second one serves, and refuses what is not allowed.
    let ended = upgraded.gateway.wait(SOON).unwrap();
    assert!(ended.success(), "{}", upgraded.gateway.stderr());
    assert_eq!(served(), "200");
    assert_ne!(denied(), "200");
    assert!(!upgraded.agent(&["status"]).stdout.contains("still drains"));
    assert!(successor.runs());
    assert_eq!(capture.frames(), Vec::<String>::new(), "nothing went past the gateway");
}

/// The offered load does not depend on how fast it is served, so what is counted is whether all of it was.
#[test]
fn at_two_thousand_requests_a_second_beside_five_hundred_downloads_none_fails() {
    const DOWNLOADS: u64 = 500;
    const EACH_SECOND: u64 = 2000;
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    testbed.apply("routes.yaml", &pair::routes()).unwrap();
    let mut upgraded = Upgraded::start(&testbed, &[]);
    let _node = testbed.start_node().unwrap();
    let served = || testbed.curl_status(&["http://www.example.com/plain"]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();

    let (downloads, rate) = (DOWNLOADS.to_string(), EACH_SECOND.to_string());
    let go = testbed.dir().join("enough");
    let (script, go_text) = (include_str!("../src/offered.py"), go.to_string_lossy());
    let args = ["-c", script, "www.example.com", &downloads, &rate, &go_text];
    let pod = testbed.pod();
    let mut clients = pod.start(&testbed.dir(), "offered", "/usr/bin/python3", &args).unwrap();
    let under_way = || clients.stdout().contains("under way").then_some(());
    until(LONG, "the load to be under way", under_way).unwrap_or_else(|error| {
        let seen = [clients.stdout(), clients.stderr(), upgraded.gateway.stderr()].concat();
        panic!("{error:#}: {seen}")
    });
    let _successor = upgraded.upgrade();
    assert!(upgraded.gateway.ended().is_none(), "downloads are open");
    fs::write(&go, "").unwrap();
    let ended = clients.wait(LONG).unwrap();
    assert!(ended.success(), "{}", clients.stderr());
    let text = clients.stdout();
    let seen: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    eprintln!("{seen}");
    assert_eq!(seen["failures"], Value::Array(Vec::new()), "{seen:#}");
    assert_eq!(seen["answered"], seen["offered"], "{seen:#}");
    assert!(seen["offered"].as_u64().unwrap() > EACH_SECOND, "{seen:#}");
    assert_eq!(seen["downloads"], DOWNLOADS, "{seen:#}");
    assert!(
        seen["reopened"].as_u64().unwrap() > 0,
        "no connection moved to the new process: {seen:#}"
    );
    assert!(upgraded.gateway.wait(SOON).unwrap().success(), "{}", upgraded.gateway.stderr());
    assert_eq!(served(), "200");
}

#[test]
fn tunnels_move_to_the_process_that_takes_over_and_no_connection_in_them_breaks() {
    let testbed = Testbed::test(1).unwrap();
    testbed.prepare_mtls(1).unwrap();
    let step = Walkthrough::example_mtls().unwrap().passthrough;
    step.with_certificates(&testbed.dir().join("gateway")).as_one().apply(&testbed).unwrap();
    let mut upgraded = Upgraded::start(&testbed, &testbed.identity_args("gateway"));
    let drain = ["--drain-timeout", "60s"].map(str::to_owned);
    let args = [testbed.node_args(), testbed.identity_args("node"), Testbed::tunnel_args()];
    let mut node = testbed.start_node_with(&[args.concat(), drain.to_vec()].concat()).unwrap();
    let served = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    until_is(SOON, "the way through the tunnel", served, |seen| seen == "200").unwrap();
    let handshakes = || testbed.node_metric("egress_tunnel_handshakes_total").unwrap();

    let clients = upgraded.clients(&["https://edition.cnn.com"], 4);
    let before = handshakes();
    let _successor = upgraded.upgrade();
    until_is(SOON, "a tunnel to the new process", handshakes, |now| *now > before).unwrap();
    clients.end(4);
    assert!(upgraded.gateway.wait(SOON).unwrap().success(), "{}", upgraded.gateway.stderr());
    assert_eq!(served(), "200");

    // The other end: a node agent that is asked to end waits for what runs in its tunnels.
    let clients = upgraded.clients(&["https://edition.cnn.com"], 1);
    node.signal(Signal::TERM);
    let drains = || node.stderr().contains("connections in tunnels for at most");
    until_is(SOON, "the node agent to drain", drains, |drains| *drains).unwrap();
    clients.end(4);
    assert!(node.wait(SOON).unwrap().success(), "{}", node.stderr());
    assert!(!node.stderr().contains("are reset"), "{}", node.stderr());
    assert_ne!(served(), "200", "there is no tunnel");
}
