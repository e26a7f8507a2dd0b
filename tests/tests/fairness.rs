//! One workload's load against another's egress: names that nobody answers, refusals without end, and
//! hundreds of connections that ask without a pause.
//! Both pods ask the gateway directly, so that no node agent is needed.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    thread,
};

use egress_tests::{
    cluster::Cluster,
    flood, plan,
    process::{Place, Process},
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until_is},
};

/// Every name below the wildcard, on port 80. A look-up that takes longer than a connection may is a
/// failure.
const WILDCARD: &str = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild}
spec:
  hosts: ['*.wild.example.com']
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DYNAMIC_DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: wild}
spec:
  host: '*.wild.example.com'
  trafficPolicy: {connectionPool: {tcp: {connectTimeout: 3s}}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress}
spec:
  selector: {istio: egressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ['*.wild.example.com']
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wild}
spec:
  hosts: ['*.wild.example.com']
  gateways: [mesh, egress]
  http:
  - match: [{gateways: [mesh], port: 80}]
    route: [{destination: {host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 80}}}]
  - match: [{gateways: [egress], port: 80}]
    route: [{destination: {host: '*.wild.example.com', port: {number: 80}}}]
";

/// Arguments of curl: each status on a line of its own, straight to the gateway.
fn asking<'a>(to: &'a str, urls: &'a str) -> Vec<&'a str> {
    vec!["-s", "-o", "/dev/null", "-w", "%{http_code}\n", "--connect-to", to, urls]
}

fn gateway_address() -> String {
    format!("::{}:80", plan::GATEWAYS[0])
}

/// Many requests at once, in the background.
fn ask_all(testbed: &Testbed, from: &Place, name: &str, urls: &str) -> Process {
    let to = gateway_address();
    let mut args = vec!["--parallel", "--parallel-max", "300"];
    args.extend(asking(&to, urls));
    from.start(&testbed.dir(), name, "curl", &args).unwrap()
}

/// The statuses of requests that are made one after the other.
fn statuses(from: &Place, urls: &str) -> Vec<String> {
    let done = from.run("curl", &asking(&gateway_address(), urls)).unwrap();
    done.stdout.lines().map(str::to_owned).collect()
}

fn served(from: &Place) {
    let one = || statuses(from, "http://first.wild.example.com/");
    until_is(SOON, "a name to be served", one, |seen| *seen == ["301"]).unwrap();
}

#[test]
fn names_that_nobody_answers_delay_no_other_pod() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    testbed.apply("wild.yaml", WILDCARD).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    served(&cluster.neighbour);
    let mut floods: Vec<_> = (0..4)
        .map(|number| {
            let urls = format!("http://[1-20000].{number}.dead.wild.example.com/");
            ask_all(&testbed, testbed.pod(), &format!("flood{number}"), &urls)
        })
        .collect();
    let refused = || testbed.stat(0, "egress.denied.resolve_overflow").unwrap();
    until_is(SOON, "look-ups beyond the share to be refused", refused, |seen| *seen > 0).unwrap();
    let seen = statuses(&cluster.neighbour, "http://[1-100].wild.example.com/");
    assert_eq!(seen, vec!["301"; 100]);
    assert!(floods.iter_mut().any(|flood| flood.ended().is_none()), "the flood lasted");
    for flood in &mut floods {
        flood.kill();
    }
}

#[test]
fn a_name_without_an_answer_about_ipv6_is_reached_at_once() {
    let testbed = Testbed::test(1).unwrap();
    testbed.apply("wild.yaml", WILDCARD).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    served(testbed.pod());
    let seen = statuses(testbed.pod(), "http://[1-10].v4only.wild.example.com/");
    assert_eq!(seen, vec!["301"; 10]);
}

#[test]
fn refusals_without_end_take_no_line_of_another_pod() {
    const REFUSED: u64 = 20_000;
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    // A log that nobody reads while it is flooded.
    let pipe = testbed.dir().join("log");
    let path = pipe.to_string_lossy().into_owned();
    assert!(testbed.app().run("mkfifo", &[&path]).unwrap().ok());
    let end = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let mesh = mesh_yaml(1).replace("/dev/stdout", &path);
    testbed.apply_mesh(&mesh).unwrap();
    testbed.apply("wild.yaml", WILDCARD).unwrap();
    let mut gateway = testbed.start_gateway(0).unwrap();
    served(&cluster.neighbour);
    let urls = format!("http://unknown.example/[1-{REFUSED}]");
    let mut flood = ask_all(&testbed, testbed.pod(), "flood", &urls);
    let mut good = 0;
    while flood.ended().is_none() {
        good += 1;
        let url = format!("http://good.wild.example.com/good/{good}");
        assert_eq!(statuses(&cluster.neighbour, &url), ["301"]);
    }
    let lines = thread::spawn(move || {
        let lines = BufReader::new(end).lines().map(Result::unwrap);
        lines.take_while(|line| line != "the end").collect::<Vec<_>>()
    });
    gateway.end().unwrap();
    let mut log = fs::OpenOptions::new().append(true).open(&pipe).unwrap();
    log.write_all(b"the end\n").unwrap();
    let lines = lines.join().unwrap();
    for number in 1..=good {
        let path = format!("/good/{number} ");
        assert_eq!(lines.iter().filter(|line| line.contains(&path)).count(), 1, "{path}");
    }
    let single = lines.iter().filter(|line| line.contains("unknown.example")).count();
    let counts = lines.iter().filter_map(|line| line.split_once("aggregated="));
    let counts = counts.map(|(_, rest)| rest.split(' ').next().unwrap().parse::<u64>().unwrap());
    assert_eq!(u64::try_from(single).unwrap() + counts.sum::<u64>(), REFUSED);
}

/// Whoever has hundreds of requests at the gateway at any time waits for hundreds of turns. Another pod's
/// request waits for none of them: while it is answered, the gateway answers a part of those of the first.
#[test]
fn hundreds_of_connections_that_ask_without_a_pause_delay_no_other_pod() {
    const CONNECTIONS: usize = 800;
    const REQUESTS: usize = 50;
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    testbed.apply("wild.yaml", WILDCARD).unwrap();
    // It has one worker, which serves both pods.
    let _gateway = testbed.start_gateway(0).unwrap();
    served(&cluster.neighbour);
    let processors = thread::available_parallelism().unwrap().get();
    let each = CONNECTIONS.div_ceil(processors).to_string();
    let asks = ["asks", plan::GATEWAYS[0], "80", "unknown-*.example", &each];
    let mut running = flood::start(&testbed, testbed.pod(), "flood", &asks).unwrap();
    let answered = || testbed.stat(0, "egress.denied.host_not_in_registry").unwrap();
    let before = answered();
    let urls = format!("http://[1-{REQUESTS}].wild.example.com/");
    let seen = statuses(&cluster.neighbour, &urls);
    let meanwhile = usize::try_from(answered() - before).unwrap();
    assert_eq!(seen, vec!["301"; REQUESTS]);
    assert!(running.ended().is_none(), "the flood lasted");
    eprintln!("{} requests of the flood for one of the other pod", meanwhile / REQUESTS);
    assert!(meanwhile > REQUESTS, "the flood was no flood: {meanwhile}");
    assert!(
        meanwhile < REQUESTS * CONNECTIONS,
        "every connection of the flood had its answer before one request of the other pod had: {meanwhile}"
    );
}
