//! A well-behaved pod beside one that floods with every processor of the machine: each of its requests is
//! answered, nearly as soon as on an idle machine, and has its line in the gateway's log; each of its
//! connections and refusals has its flow event.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use egress_tests::{
    cluster::Cluster,
    flood, plan,
    process::{Place, Process},
    resources::{good_and_flood, routed_host},
    testbed::Testbed,
    wait::{SOON, until, until_is},
};
use serde_json::{Value, json};

/// Requests of the well-behaved pod in one measurement. The second worst of a hundred is their p99.
const REQUESTS: usize = 300;
/// Its refused datagrams in one measurement.
const REFUSALS: u16 = 20;
/// A flood may make the p99 so many times longer.
const FACTOR: f64 = 3.0;
/// What the p99 may be in any case, in milliseconds: on a machine with two processors, of which a flood
/// keeps both busy, each of the five processes that a request passes (client, gateway, server, and the
/// two that wake them) waits for its time slice. Scheduling alone has been seen to cost a third of this;
/// what the test is for (a queue that is not fair, a table that is full) costs seconds.
const FLOOR: f64 = 1000.0;
/// Where an upstream takes connections and never answers.
const SILENT: u16 = 8091;

/// A host over plain HTTP; one whose server never answers; and every name below a wildcard, with a name
/// server that does not answer for some.
fn routes() -> String {
    let silent = format!("resolution: STATIC\n  endpoints: [{{address: {}}}]", plan::WEB);
    routed_host("web", "www.example.com", "resolution: DNS", 80)
        + &routed_host("silent", "silent.example.com", &silent, SILENT)
        + &routed_host("wild", "*.wild.example.com", "resolution: DYNAMIC_DNS", 80)
}

/// One measurement at a time: another one would be a flood of its own.
static ALONE: Mutex<()> = Mutex::new(());

/// Of what `steady.py` saw, in milliseconds.
fn p99(seen: &Value) -> f64 {
    seen["p99"].as_f64().unwrap()
}

struct Site {
    testbed: Testbed,
    cluster: Cluster,
    node: Process,
    gateway: Process,
    /// The status of a request that is served.
    served: String,
    /// Its p99 while nobody else asks for anything, in milliseconds.
    idle: f64,
    measured: u16,
    _alone: MutexGuard<'static, ()>,
}

impl Site {
    fn new(more: &[&str]) -> Self {
        // A measurement that failed leaves nothing behind.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let testbed = Testbed::test(1).unwrap();
        let cluster = Cluster::grow(&testbed).unwrap();
        testbed.apply_mesh(&good_and_flood()).unwrap();
        testbed.apply("routes.yaml", &routes()).unwrap();
        let more: Vec<String> = more.iter().map(|arg| (*arg).to_owned()).collect();
        let gateway = testbed.start_gateway_with(0, &more).unwrap();
        let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
        let status = || testbed.curl_status(&["http://www.example.com/first"]).unwrap();
        let served = until_is(SOON, "the allowed way", status, |seen| seen == "301").unwrap();
        let (idle, measured, _alone) = (0.0, 0, alone);
        let mut site = Self { testbed, cluster, node, gateway, served, idle, measured, _alone };
        site.idle = p99(&site.measure("alone"));
        site
    }

    /// One measurement: everything is served and recorded, and this is how long it took.
    fn measure(&mut self, name: &str) -> Value {
        let from = 20_000 + self.measured * REFUSALS;
        self.measured += 1;
        let ports = from..from + REFUSALS;
        let redirected = self.redirected();
        let (count, port) = (REQUESTS.to_string(), "80");
        let (script, range) =
            (include_str!("../src/steady.py"), format!("{from}-{}", ports.end - 1));
        let args = [
            "-c",
            script,
            plan::WEB,
            port,
            "www.example.com",
            &count,
            name,
            plan::ATTACKER,
            &range,
        ];
        let done = self.testbed.pod().run("/usr/bin/python3", &args).unwrap();
        let seen: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
        eprintln!("{name}: {seen}");
        assert_eq!(seen["statuses"], json!({ self.served.clone(): REQUESTS }), "{}", self.logs());
        assert_eq!(seen["refusals"], json!({ "refused": REFUSALS }), "{}", self.logs());
        self.recorded(name);
        for port in ports {
            let what = format!("the flow event of the refusal at port {port}");
            let to = format!("-> {}:{port} ", plan::ATTACKER);
            until(SOON, &what, || {
                let log = self.node.stdout();
                log.lines().any(|line| line.contains(&to) && line.contains("DENIED")).then_some(())
            })
            .unwrap();
        }
        let more = || self.redirected() - redirected;
        until_is(SOON, "the flow event of every connection", more, |more| *more == REQUESTS)
            .unwrap();
        seen
    }

    /// Flow events of connections of the well-behaved pod that were redirected to the gateway.
    fn redirected(&self) -> usize {
        let to = format!("-> {}:80 TCP REDIRECTED", plan::WEB);
        let log = self.node.stdout();
        log.lines().filter(|line| line.contains("a/good ") && line.contains(&to)).count()
    }

    /// Every request of the measurement has one line.
    fn recorded(&self, name: &str) {
        let lines = || {
            let mut lines = BTreeMap::<usize, usize>::new();
            let start = format!("\"GET /{name}/");
            for line in self.gateway.stdout().lines() {
                let number = line.split_once(&start).and_then(|(_, rest)| rest.split_once(' '));
                if let Some(number) = number.and_then(|(number, _)| number.parse().ok()) {
                    *lines.entry(number).or_default() += 1;
                }
            }
            lines
        };
        let expected: BTreeMap<usize, usize> = (0..REQUESTS).map(|number| (number, 1)).collect();
        until_is(SOON, "a line of every request", lines, |lines| *lines == expected).unwrap();
    }

    /// Measures while the neighbour floods.
    fn beside(&mut self, name: &str, args: &[&str]) {
        let running = self.flood(&self.cluster.neighbour.clone(), name, args);
        let seen = self.measure(name);
        let bound = (FACTOR * self.idle).max(FLOOR);
        assert!(
            p99(&seen) <= bound,
            "{name}: {seen}; the p99 is {} ms on the idle machine, so {bound} ms are allowed",
            self.idle
        );
        drop(running);
    }

    fn flood(&self, from: &Place, name: &str, args: &[&str]) -> Process {
        flood::start(&self.testbed, from, name, args).unwrap()
    }

    fn stat(&self, name: &str) -> u64 {
        self.testbed.stat(0, name).unwrap()
    }

    fn logs(&self) -> String {
        format!("gateway:\n{}\nnode:\n{}", self.gateway.stderr(), self.node.stderr())
    }
}

#[test]
fn connections_that_say_nothing_delay_no_other_pod() {
    let mut site = Site::new(&["--max-connections", "400"]);
    site.beside("idle", &["idle", plan::WEB, "80", "800"]);
    assert!(site.stat("egress.limit.connections.refused") > 0, "the flood was no flood");
}

#[test]
fn large_heads_without_end_delay_no_other_pod() {
    let mut site = Site::new(&["--memory-limit", "256MiB"]);
    let port = SILENT.to_string();
    let _silent = site.flood(site.testbed.outside(), "silent", &["silent", plan::WEB, &port]);
    let name = format!("silent.example.com:{port}");
    site.beside("heads", &["waves", plan::WEB, &port, &name, "30", "128", "50000"]);
    assert!(site.stat("egress.limit.request_bytes.refused") > 0, "the flood was no flood");
}

#[test]
fn names_without_an_answer_delay_no_other_pod() {
    // A source alone has an eighth of the look-ups: 8 under way and 32 that wait.
    let mut site = Site::new(&["--max-lookups", "64", "--max-pending-lookups", "256"]);
    site.beside("names", &["asks", plan::WEB, "80", "*.dead.wild.example.com", "50"]);
    assert!(site.stat("egress.denied.resolve_overflow") > 0, "the flood was no flood");
}

#[test]
fn refused_requests_without_end_delay_no_other_pod() {
    let mut site = Site::new(&[]);
    let before = site.stat("egress.denied.host_not_in_registry");
    site.beside("refused", &["asks", plan::WEB, "80", "unknown-*.example", "50"]);
    let refused = site.stat("egress.denied.host_not_in_registry") - before;
    assert!(refused > 10_000, "the flood was no flood: {refused}");
}

#[test]
fn refused_packets_without_end_delay_no_other_pod() {
    let mut site = Site::new(&[]);
    site.beside("packets", &["refused", plan::ATTACKER, "9"]);
}

#[test]
fn connects_from_a_stolen_address_delay_no_other_pod() {
    let mut site = Site::new(&[]);
    let own = format!("{}/32", plan::POD);
    site.cluster.neighbour.ns.ip(&["address", "add", &own, "dev", "lo"]).unwrap();
    site.beside("stolen", &["steals", plan::WEB, "80", plan::POD]);
}
