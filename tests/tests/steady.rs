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
    flood, mtls,
    pair::{self, SILENT, WEB_HOST},
    plan,
    process::{Place, Process},
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
/// What the p99 may be in any case, in milliseconds: half of what a SYN costs that was lost for a queue that is full. A
/// flood takes what is left of each processor, but other work of the machine is no part of the product.
const FLOOR: f64 = 500.0;

/// One measurement at a time: another one would be a flood of its own.
static ALONE: Mutex<()> = Mutex::new(());

/// Of what `steady.py` saw, in milliseconds.
fn p99(seen: &Value) -> f64 {
    seen["p99"].as_f64().unwrap()
}

/// How often each port occurs.
fn counted(ports: impl Iterator<Item = u64>) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for port in ports {
        *counts.entry(port).or_default() += 1;
    }
    counts
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
        Self::with(more, false, None)
    }

    /// The same, where so many connections can wait at a listener of the gateway.
    fn with_queues_of(length: &str) -> Self {
        Self::with(&[], false, Some(length))
    }

    /// The same with mutual TLS between node and gateway.
    fn tunnelled() -> Self {
        Self::with(&[], true, None)
    }

    fn with(more: &[&str], mtls: bool, queue: Option<&str>) -> Self {
        // A measurement that failed leaves nothing behind.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let testbed = Testbed::test(1).unwrap();
        let cluster = Cluster::grow(&testbed).unwrap();
        let mut for_gateway: Vec<String> = more.iter().map(|arg| (*arg).to_owned()).collect();
        let mut for_node = cluster.node_args(&testbed);
        let (mesh, routes) = if mtls {
            testbed.prepare_mtls(1).unwrap();
            for_gateway.extend(testbed.identity_args("gateway"));
            for_node.extend([testbed.identity_args("node"), Testbed::tunnel_args()].concat());
            (pair::mesh_mtls(), pair::routes_mtls())
        } else {
            (pair::mesh(), pair::routes())
        };
        testbed.apply_mesh(&mesh).unwrap();
        testbed.apply("routes.yaml", &routes).unwrap();
        if let Some(length) = queue {
            testbed.gateway(0).ns.sysctl("core/somaxconn", length).unwrap();
        }
        let gateway = testbed.start_gateway_with(0, &for_gateway).unwrap();
        let node = testbed.start_node_with(&for_node).unwrap();
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
        let before = self.redirected();
        let (count, port) = (REQUESTS.to_string(), "80");
        let (script, range) =
            (include_str!("../src/steady.py"), format!("{from}-{}", ports.end - 1));
        let args = ["-c", script, plan::WEB, port, WEB_HOST, &count, name, plan::ATTACKER, &range];
        let done = self.testbed.pod().run("/usr/bin/python3", &args).unwrap();
        let mut seen: Value =
            serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
        let connections =
            counted(seen["ports"].take().as_array().unwrap().iter().filter_map(Value::as_u64));
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
        // An event of an earlier connection may still have been on its way: events are matched by port.
        let missing = || {
            let now = self.redirected();
            let events = |port| now.get(port).unwrap_or(&0) - before.get(port).unwrap_or(&0);
            connections.iter().filter(|(port, count)| events(port) != **count).count()
        };
        until_is(SOON, "one flow event of every connection", missing, |missing| *missing == 0)
            .unwrap();
        seen
    }

    /// How many connections of the well-behaved pod were led to the gateway, by their local port, as the
    /// flow events say it.
    fn redirected(&self) -> BTreeMap<u64, usize> {
        let to = format!(" -> {}:80 TCP REDIRECTED", plan::WEB);
        let log = self.node.stdout();
        let lines = log.lines().filter(|line| line.contains("a/good "));
        let ends = lines.filter_map(|line| Some(line.split_once(&to)?.0.rsplit_once(':')?.1));
        counted(ends.map(|port| port.parse().unwrap()))
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
        let neighbour = self.cluster.neighbour.clone();
        self.beside_all(name, &neighbour, &[args]);
    }

    /// Measures while all of these run on a host.
    fn beside_all(&mut self, name: &str, from: &Place, floods: &[&[&str]]) {
        let running: Vec<_> = (0..)
            .zip(floods)
            .map(|(number, args): (u32, _)| self.flood(from, &format!("{name}{number}"), args))
            .collect();
        let seen = self.measure(name);
        let bound = (FACTOR * self.idle).max(FLOOR);
        assert!(
            p99(&seen) <= bound,
            "{name}: {seen}; the p99 is {} ms on the idle machine, so {bound} ms are allowed",
            self.idle
        );
        drop(running);
    }

    /// How many connections the gateway's kernel had no room for in the queue of a listener.
    fn turned_away(&self) -> u64 {
        let done = self.testbed.gateway(0).run("cat", &["/proc/net/netstat"]).unwrap();
        let mut lines = done.stdout.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut all = names.split(' ').zip(values.split(' '));
        let (_, value) = all.find(|(name, _)| *name == "ListenOverflows").unwrap();
        value.parse().unwrap()
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

/// Connections wait in a queue of their source until the gateway takes them. The kernel turns away what a full one
/// has no room for, which costs its client a second.
#[test]
fn connections_that_are_opened_without_end_delay_no_other_pod() {
    let mut site = Site::with_queues_of("16");
    let before = site.turned_away();
    site.beside("opens", &["opens", plan::WEB, "80"]);
    assert!(site.turned_away() > before + 100, "the flood filled no queue");
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
    let least = u64::try_from(10 * REQUESTS).unwrap();
    assert!(refused > least, "the flood was no flood: {refused}");
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

/// Whoever is no workload may ask whether the gateway is healthy. It takes the gateway from nobody, and the node
/// never takes it for unhealthy.
#[test]
fn connections_to_the_health_port_without_end_delay_no_other_pod() {
    let mut site = Site::new(&[]);
    let from = site.cluster.remote.clone();
    let (to, port) = (plan::GATEWAYS[0], "15021");
    let floods: [&[&str]; 2] =
        [&["idle", to, port, "200"], &["asks", to, port, "health-*.example", "50"]];
    site.beside_all("health", &from, &floods);
    let metrics = site.testbed.admin(0, "stats/prometheus").unwrap();
    let name = "egress_admin_refused_total{endpoint=\"health\",cause=\"overflow\"} ";
    let refused: Option<u64> =
        metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
    assert!(refused.unwrap() > 100, "the flood was no flood: {refused:?}");
    assert!(!site.node.stderr().contains("unhealthy"), "{}", site.logs());
}

/// Records of who a connection belongs to are made where its SYN passes, so what a pod connects from an address
/// that is its neighbour's makes none that could be taken for the neighbour's.
#[test]
fn records_of_a_stolen_address_delay_no_connection_in_the_tunnel() {
    let mut site = Site::tunnelled();
    let own = format!("{}/32", plan::POD);
    site.cluster.neighbour.ns.ip(&["address", "add", &own, "dev", "lo"]).unwrap();
    let refused = |site: &Site| {
        site.testbed.node_metric("egress_tunnel_refused_total{reason=\"no_record\"}").unwrap()
    };
    let before = refused(&site);
    let listener = mtls::LISTENER.to_string();
    let neighbour = site.cluster.neighbour.clone();
    let floods: [&[&str]; 2] = [
        // To the host, which the connect is redirected from, and to the tunnel's own end.
        &["steals", plan::WEB, "80", plan::POD],
        &["steals", plan::APP, &listener, plan::POD],
    ];
    site.beside_all("records", &neighbour, &floods);
    assert_eq!(refused(&site), before, "not one connection was reset");
    assert!(site.testbed.node_metric("egress_tunnel_streams_total").unwrap() > 0, "no tunnel");
}
