//! Every kind of socket, from a real pod: each is refused, at the layer and with the reason that it
//! is to have, with an event and a counter; nothing arrives outside. `testbed.rs` shows that each
//! works without the agent.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    capture::Capture,
    manifests::Walkthrough,
    plan,
    probe::Canary,
    process::Process,
    testbed::Testbed,
    verdicts::{self, Before, Hooks},
    wait::{SOON, until, until_is},
    ways,
};

/// A testbed that enforces, with the allowed way working.
struct Enforced {
    node: Process,
    capture: Capture,
    canary: Canary,
    _gateway: Process,
    testbed: Testbed,
}

impl Enforced {
    fn new() -> Self {
        let testbed = Testbed::test(1).unwrap();
        let canary = testbed.canary().unwrap();
        Self::on(testbed, canary)
    }

    /// Enforces from now on.
    fn on(testbed: Testbed, canary: Canary) -> Self {
        Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
        let gateway = testbed.start_gateway(0).unwrap();
        let mut args = testbed.node_args();
        args.extend(["--events".into(), "json".into()]);
        let node = testbed.start_node_with(&args).unwrap();
        let capture = testbed.capture().unwrap();
        let enforced = Self { node, capture, canary, _gateway: gateway, testbed };
        until_is(SOON, "the allowed way", || enforced.served(), |seen| seen == "200").unwrap();
        assert_eq!(enforced.capture.frames(), Vec::<String>::new());
        enforced
    }

    fn served(&self) -> String {
        self.testbed.curl_status(&["https://edition.cnn.com/"]).unwrap()
    }

    fn before(&self) -> Before {
        Before::now(&self.testbed, &self.node).unwrap()
    }

    fn refused(&self, before: &Before, run: &egress_tests::probe::Run, hooks: Hooks) {
        let Self { testbed, node, canary, capture, .. } = self;
        let checked = verdicts::refused(testbed, node, before, (run, hooks), canary, capture);
        if let Err(error) = checked {
            panic!("{error:#}");
        }
        // What is allowed still is.
        assert_eq!(self.served(), "200");
    }
}

fn only(ways: &[ways::Way]) -> Vec<&'static str> {
    ways.iter().flat_map(|way| ["--only", way.name]).collect()
}

#[test]
fn no_kind_of_socket_gets_out_of_a_pod() {
    let site = Enforced::new();
    let before = site.before();
    let run = site.testbed.probe_all(site.testbed.pod(), &only(ways::SOCKETS)).unwrap();
    assert_eq!(run.code, 0);
    site.refused(&before, &run, Hooks::All);
}

/// A process in the pod's network, whose sockets belong to another cgroup: only the enforcement
/// point is left.
#[test]
fn the_wall_alone_holds_every_kind_of_socket() {
    let site = Enforced::new();
    let before = site.before();
    let elsewhere = site.testbed.outside_cgroup();
    let run = site.testbed.probe_all(&elsewhere, &only(ways::SOCKETS)).unwrap();
    assert_eq!(run.code, 0);
    site.refused(&before, &run, Hooks::WallOnly);
    // Not even to the port and address that the gateway would serve.
    for address in [plan::WEB, plan::WEB_V6] {
        let probe = site.testbed.probe_from(&elsewhere, &["tcp", address, "443"]).unwrap();
        assert_eq!(probe.code, 2, "{probe:?}");
    }
}

#[test]
fn sockets_from_before_and_from_elsewhere_are_held() {
    let testbed = Testbed::test(1).unwrap();
    let canary = testbed.canary().unwrap();
    // Opened while nothing enforced; and opened by a process of another cgroup.
    let held = testbed.hold(testbed.pod()).unwrap();
    let site = Enforced::on(testbed, canary);
    let testbed = &site.testbed;
    let before = site.before();
    let run = held.go().unwrap();
    assert_eq!((run.code, run.attempts.len()), (0, 10));
    site.refused(&before, &run, Hooks::All);

    // A process that moves into the pod's cgroup keeps its sockets, which don't move.
    let moved = testbed.hold(&testbed.outside_cgroup()).unwrap();
    std::fs::write(testbed.pod().cgroup.join("cgroup.procs"), moved.pid().to_string()).unwrap();
    let before = site.before();
    let mut run = moved.go().unwrap();
    // Nothing was connected from there, under enforcement: that is what the detail says.
    let connected = |name: &str| name.starts_with("held-connection");
    run.attempts.retain(|attempt| {
        let not_made = connected(&attempt.attempt) && attempt.result == "not_applicable";
        assert!(!connected(&attempt.attempt) || not_made, "{attempt:?}");
        !not_made
    });
    site.refused(&before, &run, Hooks::WallOnly);

    // A process of the pod is given sockets over a Unix socket.
    let path = testbed.dir().join("sockets");
    let path = path.to_string_lossy();
    let args = ["probe", "--pass-sockets", &*path].map(str::to_owned);
    let giver = testbed.start_agent(&testbed.outside_cgroup(), "giver", &args).unwrap();
    until(SOON, "sockets to be offered", || giver.stdout().contains("waiting").then_some(()))
        .unwrap();
    let before = site.before();
    let run = testbed.probe_all(testbed.pod(), &["--sockets-from", &path]).unwrap();
    assert_eq!((run.code, run.attempts.len()), (0, 6));
    site.refused(&before, &run, Hooks::WallOnly);
}

/// A workload on the host's network has no pod interface; its cgroup and the uplink judge it.
#[test]
fn a_workload_on_the_hosts_network_is_held() {
    let site = Enforced::new();
    let host = site.testbed.host_network();
    let before = site.before();
    let names = ["tcp", "tcp-mapped", "udp", "udplite", "raw-icmp", "packet", "packet-dgram"];
    let only: Vec<&str> = names.iter().flat_map(|name| ["--only", name]).collect();
    let run = site.testbed.probe_all(&host, &only).unwrap();
    assert_eq!(run.code, 0);
    for attempt in &run.attempts {
        let held = ["refused", "no_answer"].contains(&&*attempt.result);
        assert!(held, "{}", attempt.line());
    }
    // A packet socket isn't even made, where the kernel has BPF among its security modules.
    until(SOON, "the uplink's event, or the security module's", || {
        let events = site.node.stdout();
        let mut hooks = events.lines().filter(|line| {
            line.contains("\"hook\":\"uplink\"") || line.contains("\"hook\":\"socket\"")
        });
        hooks.next().map(drop)
    })
    .unwrap();
    drop(before);
    let allowed = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "https://edition.cnn.com/"];
    assert_eq!(host.run("curl", &allowed).unwrap().stdout, "200");
    assert_eq!(site.capture.frames(), Vec::<String>::new());
    assert_eq!(site.canary.arrived(&run.id).len(), 0);
    // The same frame of the node's own process leaves: it is the cgroup that makes the difference.
    let port = plan::UDP_PORT.to_string();
    site.testbed.probe_from(site.testbed.app(), &["packet", plan::ATTACKER, &port]).unwrap();
    until(SOON, "the node's own frame", || (!site.capture.take().is_empty()).then_some(()))
        .unwrap();
}
