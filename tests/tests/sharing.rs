//! Clients of one origin that stall, trickle and work, through the gateway to nginx: what becomes of those that
//! work. `hbone.rs` has the same for streams of one tunnel.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    fs::File,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use egress_tests::{
    plan,
    process::{Place, Process},
    testbed::Testbed,
    wait::{SOON, until_is},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime,
    task::JoinSet,
};

const HTTP1: u16 = 8080;
const HTTP2: u16 = 8081;
/// Of each kind.
const EACH: usize = 50;
const TIMES: usize = 20;
/// Rounds alone and beside the others: at least and at most.
const LEAST_ROUNDS: usize = 3;
const MOST_ROUNDS: usize = 10;
/// Rounds that are not counted, while buffers fill.
const FILLING: usize = 2;
/// What a working client gets, and more than all windows and sockets on the way take, in bytes.
const SMALL: u64 = 32 << 10;
const LARGE: u64 = 64 << 20;

/// One measurement at a time: another one would keep the machine busy.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // A measurement that failed leaves nothing behind.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn registry() -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: www}}
spec:
  hosts: [www.example.com]
  ports:
  - {{number: {HTTP1}, name: http, protocol: HTTP}}
  - {{number: {HTTP2}, name: http2, protocol: HTTP2}}
  resolution: DNS
"
    )
}

/// The same host on one port, which the node leads to the gateway in a tunnel.
fn tunnelled(certificates: &Path, port: u16) -> String {
    let certificates = certificates.display();
    let gateway = "istio-egressgateway.istio-system.svc.cluster.local";
    format!(
        "{entry}---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: www}}
spec:
  selector: {{istio: egressgateway}}
  servers:
  - port: {{number: {port}, name: https, protocol: HTTPS}}
    hosts: [www.example.com]
    tls: {{mode: MUTUAL, serverCertificate: {certificates}/cert-chain.pem,
      privateKey: {certificates}/key.pem, caCertificates: {certificates}/root-cert.pem}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: gateway}}
spec:
  host: {gateway}
  subsets:
  - name: www
    trafficPolicy:
      portLevelSettings:
      - port: {{number: {port}}}
        tls: {{mode: ISTIO_MUTUAL, sni: www.example.com}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: www}}
spec:
  hosts: [www.example.com]
  gateways: [mesh, www]
  http:
  - match: [{{gateways: [mesh], port: {port}}}]
    route: [{{destination: {{host: {gateway}, subset: www, port: {{number: {port}}}}}}}]
  - match: [{{gateways: [www], port: {port}}}]
    route: [{{destination: {{host: www.example.com, port: {{number: {port}}}}}}}]
",
        entry = registry()
    )
}

/// HTTP/1.1 on one port, HTTP/2 in clear on another. By itself it gives up whoever takes nothing for a minute, which
/// would also end those that stall directly: on a busy machine a round takes longer.
fn nginx_conf(dir: &str) -> String {
    format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr notice;
events {{ worker_connections 1024; }}
http {{
  access_log off; root {dir}/files; send_timeout 600s;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{ listen {WEB}:{HTTP1}; }}
  server {{ listen {WEB}:{HTTP2} http2; }}
}}
",
        WEB = plan::WEB,
    )
}

struct World {
    testbed: Testbed,
    _nginx: Process,
    _gateway: Process,
    _alone: MutexGuard<'static, ()>,
}

/// The origin.
fn nginx(testbed: &Testbed) -> Process {
    let dir = testbed.dir();
    std::fs::create_dir(dir.join("files")).unwrap();
    for (name, size) in [("small", SMALL), ("large", LARGE)] {
        File::create(dir.join("files").join(name)).unwrap().set_len(size).unwrap();
    }
    let path = dir.join("nginx.conf");
    std::fs::write(&path, nginx_conf(&dir.to_string_lossy())).unwrap();
    let args = ["-e", "stderr", "-c", &path.to_string_lossy()];
    testbed.outside().start(&dir, "nginx", "nginx", &args).unwrap()
}

impl World {
    fn new() -> Self {
        let alone = alone();
        let testbed = Testbed::test(1).unwrap();
        let nginx = nginx(&testbed);
        testbed.apply("www.yaml", &registry()).unwrap();
        let gateway = testbed.start_gateway(0).unwrap();
        let world = Self { testbed, _nginx: nginx, _gateway: gateway, _alone: alone };
        for port in [HTTP1, HTTP2] {
            let to = format!("::{}:{port}", plan::GATEWAYS[0]);
            let url = format!("http://www.example.com:{port}/small");
            let ask = || world.testbed.curl_status(&["--connect-to", &to, &url]).unwrap();
            until_is(SOON, &url, ask, |seen| seen == "200").unwrap();
        }
        world
    }

    /// What clients in the pod do with the gateway.
    fn in_pod<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        let inside = || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work())
        };
        self.testbed.pod().ns.enter(inside).unwrap()
    }
}

/// A connection on which a file was asked for.
async fn ask(port: u16, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect((plan::GATEWAYS[0], port)).await.unwrap();
    send(&mut stream, port, path).await;
    stream
}

async fn send(stream: &mut TcpStream, port: u16, path: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nHost: www.example.com:{port}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// Reads a response whole. Gives the length of its body, if it is a good one.
async fn read(stream: &mut TcpStream) -> Option<u64> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.filter(|_| head.starts_with("http/1.1 200 "))?.parse().ok()?;
    let read = tokio::io::copy(&mut stream.take(length), &mut tokio::io::sink()).await.ok()?;
    (read == length).then_some(length)
}

/// The time that each request took, of one client after the other on a connection of its own.
async fn work(port: u16) -> Vec<Duration> {
    let mut stream = TcpStream::connect((plan::GATEWAYS[0], port)).await.unwrap();
    let mut took = Vec::new();
    for _ in 0..TIMES {
        let start = Instant::now();
        send(&mut stream, port, "/small").await;
        assert_eq!(read(&mut stream).await, Some(SMALL), "every request is served");
        took.push(start.elapsed());
    }
    took
}

/// The p99 of all of them at once.
async fn worked(port: u16) -> Duration {
    let mut working = JoinSet::new();
    for _ in 0..EACH {
        working.spawn(work(port));
    }
    let mut took = working.join_all().await.concat();
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Takes a little of what comes, again and again.
async fn trickle(mut stream: TcpStream) {
    let mut some = [0; 512];
    while stream.read(&mut some).await.is_ok_and(|read| read > 0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The p99 of those that work, alone and beside the others, by turns: the machine is as busy for the one as for
/// the other.
#[derive(Default, Debug)]
struct Rounds {
    alone: Vec<Duration>,
    beside: Vec<Duration>,
}

impl Rounds {
    /// Whether they take at most twice as long beside the others, by the medians of some rounds.
    fn hold_up_nobody(&self) -> bool {
        let median = |rounds: &[Duration]| {
            let mut rounds = rounds.to_vec();
            rounds.sort_unstable();
            rounds[rounds.len() / 2]
        };
        self.beside.len() >= LEAST_ROUNDS && median(&self.beside) <= 2 * median(&self.alone)
    }
}

/// Those that work are served, all of them, while the others wait: at most twice as slowly as without them.
/// Whoever is held up waits for as long as those that stall.
async fn share(port: u16) {
    let mut rounds = Rounds::default();
    while !rounds.hold_up_nobody() {
        assert!(rounds.beside.len() < MOST_ROUNDS, "{rounds:?}");
        rounds.alone.push(worked(port).await);
        let (mut stalled, mut trickling) = (Vec::new(), JoinSet::new());
        for _ in 0..EACH {
            stalled.push(ask(port, "/large").await);
            trickling.spawn(trickle(ask(port, "/large").await));
        }
        // Until all buffers are full, what the others are sent keeps the machine busy.
        for _ in 0..FILLING {
            worked(port).await;
        }
        rounds.beside.push(worked(port).await);
        assert!(trickling.try_join_next().is_none(), "none was ended");
        // One that reads again gets all of it.
        assert_eq!(read(&mut stalled.pop().unwrap()).await, Some(LARGE));
    }
    println!("port {port}: p99 {rounds:?}");
}

/// The same work by a process of the pod's own.
fn shared_by(pod: &Place, port: u16) -> Rounds {
    let numbers = [port.into(), EACH, TIMES, LEAST_ROUNDS, MOST_ROUNDS, FILLING];
    let numbers = numbers.map(|number| number.to_string());
    let sizes = [SMALL, LARGE].map(|size| size.to_string());
    let mut args = vec!["-c", include_str!("../src/sharing.py"), plan::WEB];
    args.extend(numbers.iter().chain(&sizes).map(String::as_str));
    let done = pod.run_for(Duration::from_secs(300), "/usr/bin/python3", &args).unwrap();
    assert!(done.ok(), "{done:?}");
    let found: Value = serde_json::from_str(&done.stdout).unwrap();
    let rounds = |name: &str| {
        let seconds = found[name].as_array().unwrap().iter();
        seconds.map(|p99| Duration::from_secs_f64(p99.as_f64().unwrap())).collect()
    };
    Rounds { alone: rounds("alone"), beside: rounds("beside") }
}

/// Clients whose node leads them to the gateway in a tunnel.
fn share_in_a_tunnel(port: u16) {
    let _alone = alone();
    let testbed = Testbed::test(1).unwrap();
    let _root = testbed.prepare_mtls(1).unwrap();
    let _nginx = nginx(&testbed);
    testbed.apply("www.yaml", &tunnelled(&testbed.dir().join("gateway"), port)).unwrap();
    let gateway = testbed.start_gateway_mtls(0).unwrap();
    let node = testbed.start_node_mtls().unwrap();
    let url = format!("http://www.example.com:{port}/small");
    let ask = || testbed.curl_status(&[&url]).unwrap();
    until_is(SOON, &url, ask, |seen| seen == "200")
        .unwrap_or_else(|error| panic!("{error:#}\n{}{}", node.stderr(), gateway.stderr()));
    let before = testbed.node_metric("egress_tunnel_streams_total").unwrap();
    let rounds = shared_by(testbed.pod(), port);
    println!("in a tunnel: p99 {rounds:?}");
    let streams = testbed.node_metric("egress_tunnel_streams_total").unwrap() - before;
    assert!(streams >= 3 * EACH as u64, "all of it was in the tunnel: {streams}");
    assert!(rounds.hold_up_nobody(), "{rounds:?}");
    // The forbidden twin: a host that no rule leads there.
    let refused = testbed.curl_status(&[&format!("http://evil.example.net:{port}/")]).unwrap();
    assert!(refused == "403" || refused.starts_with("curl: "), "{refused}");
}

#[test]
fn who_stalls_or_trickles_holds_up_nobody_in_a_tunnel_to_an_http1_origin() {
    share_in_a_tunnel(HTTP1);
}

/// Both at once: many streams of a tunnel, and few connections of HTTP/2 to the origin.
#[test]
fn who_stalls_or_trickles_holds_up_nobody_in_a_tunnel_to_an_http2_origin() {
    share_in_a_tunnel(HTTP2);
}

#[test]
fn who_stalls_or_trickles_holds_up_nobody_of_an_http1_origin() {
    World::new().in_pod(async || share(HTTP1).await);
}

#[test]
fn who_stalls_or_trickles_holds_up_nobody_of_an_http2_origin() {
    World::new().in_pod(async || share(HTTP2).await);
}
