//! Whole connections through a worker, on loopback: real sockets, real TLS, real configuration.

use std::{
    collections::HashSet,
    fs,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use egress_ebpf::reason::Reason;
use rcgen::{Certificate, CertificateParams, KeyPair};
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinHandle as Task, yield_now},
    time::{Instant, sleep},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    super::{
        accept::{AT_ONCE, downstream},
        connection,
        transport::Transport,
    },
    *,
};
use crate::{
    config::{RawFile, compile},
    net::testing::Outside,
    policy::{ClusterName, GatewayPolicy, MeshConfig},
    sys::allocations::Allocations,
    telemetry::{ClusterCounter, Resource},
    types::{GatewayIdentity, Labels, Namespace},
};

/// The address outside that the allowed host has.
const OUTSIDE: &str = "198.51.100.7";
/// The port that the raw TCP service has there.
const TCP_PORT: u16 = 5432;
const SOON: Duration = Duration::from_secs(20);

/// The walkthrough's HTTPS form for `a.example` on `port`, and a raw TCP service on `tcp`.
fn resources(port: u16, tcp: u16) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: a, namespace: default}}
spec:
  hosts: [a.example]
  ports: [{{number: {port}, name: tls, protocol: TLS}}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: db, namespace: default}}
spec:
  hosts: [db.example]
  addresses: [{OUTSIDE}]
  ports: [{{number: {TCP_PORT}, name: tcp, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: {OUTSIDE}}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: egress, namespace: default}}
spec:
  selector: {{istio: egressgateway}}
  servers:
  - port: {{number: {port}, name: tls, protocol: TLS}}
    hosts: [a.example]
    tls: {{mode: PASSTHROUGH}}
  - port: {{number: {tcp}, name: tcp, protocol: TCP}}
    hosts: [db.example]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: a, namespace: default}}
spec:
  hosts: [a.example]
  gateways: [mesh, egress]
  tls:
  - match: [{{gateways: [mesh], port: {port}, sniHosts: [a.example]}}]
    route:
    - destination:
        host: istio-egressgateway.istio-system.svc.cluster.local
        port: {{number: {port}}}
  - match: [{{gateways: [egress], port: {port}, sniHosts: [a.example]}}]
    route:
    - destination: {{host: a.example, port: {{number: {port}}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: db, namespace: default}}
spec:
  hosts: [db.example]
  gateways: [mesh, egress]
  tcp:
  - match: [{{gateways: [mesh], port: {TCP_PORT}, destinationSubnets: [{OUTSIDE}/32]}}]
    route:
    - destination:
        host: istio-egressgateway.istio-system.svc.cluster.local
        port: {{number: {tcp}}}
  - match: [{{gateways: [egress], port: {tcp}}}]
    route:
    - destination: {{host: db.example, port: {{number: {TCP_PORT}}}}}
"
    )
}

fn policy(resources: String, more_mesh: &str) -> Arc<GatewayPolicy> {
    let mesh = "gateways:
- service: istio-egressgateway.istio-system.svc.cluster.local
  labels: {istio: egressgateway}
  endpoints: [192.0.2.10]
";
    let file = |path: &str, text: String| RawFile { path: path.into(), text };
    let mesh = file("mesh.yaml", format!("{mesh}{more_mesh}"));
    let compiled = compile(&[file("test.yaml", resources)], Some(&mesh));
    let compiled = compiled.unwrap_or_else(|problems| panic!("{problems}"));
    let identity = GatewayIdentity {
        labels: Labels::from([("istio".into(), "egressgateway".into())]),
        namespace: Namespace("istio-system".into()),
        addresses: Vec::new(),
    };
    Arc::new(GatewayPolicy::new(compiled.snapshot.into(), &identity))
}

/// A worker that runs in the test's own thread.
struct Gateway {
    worker: Rc<Worker>,
    /// Where TLS and HTTP are detected.
    addr: SocketAddr,
    /// Where the raw TCP service is.
    tcp: SocketAddr,
    /// Where nothing is routed.
    closed: SocketAddr,
    outside: Outside,
    running: Task<()>,
    dir: TempDir,
}

impl Gateway {
    /// In front of `upstream`, which is where both services are.
    fn start(upstream: SocketAddr, limits: Limits) -> Self {
        Self::start_before(upstream, &[], limits)
    }

    /// The same, with more places at the ports of both services.
    fn start_before(upstream: SocketAddr, more: &[(&str, SocketAddr)], limits: Limits) -> Self {
        let listen = || crate::sys::socket::listeners(([127, 0, 0, 1], 0).into(), 1).unwrap();
        let listeners: Vec<StdListener> = (0..3).flat_map(|_| listen()).collect();
        let [addr, tcp, closed] = [0, 1, 2].map(|i: usize| listeners[i].local_addr().unwrap());
        let outside = Outside::default()
            .name("a.example", &[OUTSIDE])
            .route(&format!("{OUTSIDE}:{}", addr.port()), upstream)
            .route(&format!("{OUTSIDE}:{TCP_PORT}"), upstream);
        let outside = more.iter().fold(outside, |outside, (address, upstream)| {
            let outside = outside.route(&format!("{address}:{TCP_PORT}"), *upstream);
            outside.route(&format!("{address}:{}", addr.port()), *upstream)
        });
        let dir = TempDir::new().unwrap();
        let telemetry = Arc::<Telemetry>::default();
        let mesh = MeshConfig {
            access_log_file: Some(dir.path().join("log").display().to_string()),
            access_log_format: Some("istio".into()),
            ..MeshConfig::default()
        };
        telemetry.access_log.configure(&mesh).unwrap();
        let cell = PolicyCell::default();
        cell.store(Some(policy(resources(addr.port(), tcp.port()), "")));
        let stats = Arc::clone(telemetry.stats.limits());
        let dialer = outside.clone().dialer();
        let worker = Rc::new(Worker {
            http: http::Shared::new(limits.idle_upstreams, &cell, &dialer),
            policy: cell,
            telemetry,
            dialer,
            originator: Originator::new(TrustRoots::new(RootCertStore::empty()))
                .with_credentials(Some(dir.path().into())),
            credentials: Arc::default(),
            buffers: Buffers::new(limits.pipes),
            limits,
            rates: Arc::default(),
            limiter: Limiter::new(limits, stats),
            drain: Drain::default(),
        });
        let running = spawn_local(work(
            Rc::clone(&worker),
            Listeners { captured: listeners, ..Listeners::default() },
        ));
        Self { worker, addr, tcp, closed, outside, running, dir }
    }

    /// From here on with more settings of the mesh, and one of the server for TLS.
    fn configure(&self, mesh: &str, server: &str) {
        let resources = resources(self.addr.port(), self.tcp.port());
        let resources =
            resources.replace("mode: PASSTHROUGH", &format!("mode: PASSTHROUGH{server}"));
        self.worker.policy.store(Some(policy(resources, mesh)));
    }

    /// From here on with this traffic policy for a host.
    fn rule(&self, host: &str, policy: &str) {
        self.rule_with(host, "", policy);
    }

    /// The same with annotations.
    fn rule_with(&self, host: &str, annotations: &str, policy: &str) {
        let mut resources = resources(self.addr.port(), self.tcp.port());
        resources += &format!(
            "
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: rule, namespace: default, annotations: {{{annotations}}}}}
spec: {{host: {host}, trafficPolicy: {policy}}}
"
        );
        self.worker.policy.store(Some(self::policy(resources, "")));
    }

    /// From here on the service entry `name` has this rate limit.
    fn annotate(&self, name: &str, limit: &str) {
        let resources = resources(self.addr.port(), self.tcp.port());
        let before = format!("kind: ServiceEntry\nmetadata: {{name: {name},");
        assert!(resources.contains(&before));
        let annotations = format!("annotations: {{egress-enforcer.io/rate-limit: '{limit}'}},");
        let resources = resources.replace(&before, &format!("{before} {annotations}"));
        self.worker.policy.store(Some(policy(resources, "")));
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Says a name where TLS is passed through, or something where the raw TCP service is.
    async fn say(&self, is_tls: bool) -> TcpStream {
        let mut client = match is_tls {
            true => self.connect().await,
            false => TcpStream::connect(self.tcp).await.unwrap(),
        };
        let first = if is_tls { hello("a.example") } else { b"request".to_vec() };
        client.write_all(&first).await.unwrap();
        client
    }

    fn cluster(&self, counter: ClusterCounter) -> u64 {
        let name = format!("outbound|{}||a.example", self.addr.port());
        self.worker.telemetry.stats.cluster(&ClusterName(name.into())).get(counter)
    }

    fn black_hole(&self) -> u64 {
        self.worker.telemetry.stats.black_hole().get(ClusterCounter::CxTotal)
    }

    fn denied(&self, reason: Reason) -> u64 {
        self.worker.telemetry.stats.denied_total(reason)
    }

    /// Ends it in order, and returns the access log's lines.
    async fn end(self) -> Vec<String> {
        self.worker.drain.start();
        timeout(SOON, self.running).await.expect("the worker ends").unwrap();
        self.worker.telemetry.access_log.shutdown();
        let text = fs::read_to_string(self.dir.path().join("log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// Runs a test whose tasks aren't `Send`.
fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(
        LocalSet::new().run_until(async { timeout(3 * SOON, test).await.expect("the test ends") }),
    )
}

/// Waits until `what` holds: for effects that no connection shows.
async fn until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !what() {
        assert!(Instant::now() < deadline, "not in time");
        sleep(Duration::from_millis(2)).await;
    }
}

/// A listener, and how many connections it took.
struct Upstream {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Upstream {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        Self { listener, addr }
    }

    async fn accept(&self) -> TcpStream {
        timeout(SOON, self.listener.accept()).await.expect("a connection").unwrap().0
    }

    /// Whether nobody has connected.
    async fn is_untouched(&self) -> bool {
        timeout(Duration::from_millis(20), self.listener.accept()).await.is_err()
    }
}

fn client_config(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A ClientHello for this name as a real client writes it.
fn hello(name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let config = client_config(RootCertStore::empty());
    let mut bytes = Vec::new();
    ClientConnection::new(config, name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

async fn read_all(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("an end")?;
    Ok(bytes)
}

async fn is_reset(stream: &mut TcpStream) -> bool {
    let error = read_all(stream).await.expect_err("a reset");
    error.kind() == io::ErrorKind::ConnectionReset
}

/// A fatal alert, and then an orderly end.
async fn alert(stream: &mut TcpStream) -> u8 {
    let bytes = read_all(stream).await.expect("an alert, not a reset");
    let [21, 3, 3, 0, 2, 2, alert] = bytes[..] else { panic!("{bytes:?}") };
    alert
}

/// A server of TLS with a certificate of its own for this name.
fn server(name: &str) -> (TlsAcceptor, Certificate) {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), cert)
}

/// What a rule for raw TCP asks for is spoken, with a verified certificate, or nothing is sent.
#[test]
fn raw_tcp_leaves_in_tls_where_a_rule_asks_for_it_or_not_at_all() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let roots = gateway.dir.path().join("ca.pem");
        let policy = format!("{{tls: {{mode: SIMPLE, caCertificates: '{}'}}}}", roots.display());
        gateway.rule("db.example", &policy);
        let connect = async || {
            let mut client = TcpStream::connect(gateway.tcp).await.unwrap();
            client.write_all(b"request").await.unwrap();
            client
        };
        // Without the roots no connection is opened.
        assert!(is_reset(&mut connect().await).await);
        assert!(upstream.is_untouched().await);
        let (acceptor, certificate) = server("db.example");
        fs::write(&roots, certificate.pem()).unwrap();
        // Another server's certificate is refused, and so is one that speaks no TLS.
        let (another, _) = server("db.example");
        let mut client = connect().await;
        assert!(another.accept(upstream.accept().await).await.is_err());
        assert!(is_reset(&mut client).await);
        let mut client = connect().await;
        let mut plain = upstream.accept().await;
        plain.write_all(b"hello in clear\r\n").await.unwrap();
        let mut said = Vec::new();
        plain.read_to_end(&mut said).await.ok();
        assert_eq!(said.first(), Some(&22), "the first byte is of a handshake");
        assert!(!said.windows(7).any(|part| part == b"request"));
        assert!(is_reset(&mut client).await);
        let mut client = connect().await;
        let mut stream = acceptor.accept(upstream.accept().await).await.unwrap();
        let mut heard = [0; 7];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"request");
        stream.write_all(b"answer").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await.unwrap(), b"answer");
        drop((client, stream));
        let lines = gateway.end().await;
        let of = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        assert_eq!((lines.len(), of("] \"- - -\" 0 UF ")), (4, 3), "{lines:#?}");
        assert_eq!(of("ca.pem: the file does not exist"), 1, "{lines:#?}");
        assert_eq!(of("db.example does not speak TLS on this port"), 1, "{lines:#?}");
    });
}

#[test]
fn tls_passes_untouched_by_its_name_and_no_other() {
    local(async {
        let (acceptor, cert) = server("a.example");
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let seen = Rc::new(AtomicUsize::new(0));
        let count = Rc::clone(&seen);
        spawn_local(async move {
            loop {
                let stream = upstream.accept().await;
                count.fetch_add(1, Ordering::Relaxed);
                let mut stream = acceptor.accept(stream).await.unwrap();
                stream.write_all(b"hello from outside").await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(cert.der().to_vec())).unwrap();
        let connector = TlsConnector::from(client_config(roots));
        for round in 1..=3 {
            let name = ServerName::try_from("a.example").unwrap();
            let mut stream = connector.connect(name, gateway.connect().await).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "hello from outside");
            assert_eq!(gateway.cluster(ClusterCounter::CxTotal), round);
        }
        for name in ["b.example", "sub.a.example", "example"] {
            let name = ServerName::try_from(name).unwrap();
            let error = connector.connect(name, gateway.connect().await).await.unwrap_err();
            let alert = rustls::Error::AlertReceived(AlertDescription::UnrecognisedName);
            assert_eq!(error.get_ref().unwrap().to_string(), alert.to_string());
        }
        assert_eq!(seen.load(Ordering::Relaxed), 3);
        assert_eq!(gateway.black_hole(), 3);
        assert_eq!(gateway.denied(Reason::HostNotInRegistry), 3);
        until(|| gateway.cluster(ClusterCounter::CxActive) == 0).await;
        let port = gateway.addr.port();
        let lines = gateway.end().await;
        assert_eq!(lines.len(), 6, "{lines:#?}");
        let of = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        assert_eq!(of("] \"- - -\" 0 - "), 3, "{lines:#?}");
        assert_eq!(of(&format!("\"{OUTSIDE}:{port}\" outbound|{port}||a.example ")), 3);
        assert_eq!(of(" a.example -"), 3, "{lines:#?}");
        assert_eq!(
            of("] \"- - -\" 0 NR filter_chain_not_found")
                + of("] \"- - -\" 0 NR - filter_chain_not_found"),
            3,
            "{lines:#?}"
        );
        assert_eq!(of(" BlackHoleCluster "), 3);
    });
}

#[test]
fn a_hello_in_pieces_reaches_the_upstream_as_it_was() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let whole = hello("a.example");
        // The same message in records of one byte each.
        let split: Vec<u8> = whole[5..].iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
        for (bytes, step) in [(&whole, 1), (&whole, 100), (&split, 700)] {
            let mut client = gateway.connect().await;
            client.set_nodelay(true).unwrap();
            for part in bytes.chunks(step) {
                client.write_all(part).await.unwrap();
                yield_now().await;
            }
            let mut server = upstream.accept().await;
            let mut received = vec![0; bytes.len()];
            server.read_exact(&mut received).await.unwrap();
            assert!(received == *bytes);
        }
        assert_eq!(gateway.denied(Reason::BadRequest), 0);
    });
}

#[test]
fn hellos_that_hide_their_name_are_refused_with_an_alert() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        // An address is not sent as SNI.
        let mut client = gateway.connect().await;
        client.write_all(&hello("192.0.2.1")).await.unwrap();
        assert_eq!(alert(&mut client).await, 112);
        assert_eq!(gateway.denied(Reason::NoServerName), 1);
        gateway.configure("encryptedClientHello: deny\n", "");
        let mut client = gateway.connect().await;
        client.write_all(&encrypted("a.example")).await.unwrap();
        assert_eq!(alert(&mut client).await, 112);
        assert_eq!(gateway.denied(Reason::EncryptedClientHello), 1);
        // More than the gateway reads may follow: the alert arrives all the same.
        let mut client = gateway.connect().await;
        let mut flood = hello("b.example");
        flood.extend([23, 3, 3, 0x3f, 0xff]);
        flood.resize(flood.len() + 100_000, 7);
        client.write_all(&flood).await.unwrap();
        assert_eq!(alert(&mut client).await, 112);
        // Garbage inside a handshake record.
        let mut client = gateway.connect().await;
        client.write_all(&[22, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3]).await.unwrap();
        assert_eq!(alert(&mut client).await, 50);
        assert_eq!(gateway.denied(Reason::BadRequest), 1);
        assert_eq!(gateway.black_hole(), 4);
        assert!(upstream.is_untouched().await);
    });
}

#[test]
fn an_encrypted_hello_goes_where_its_outer_name_says_and_is_marked() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let hello = encrypted("a.example");
        // By default; and where the server allows what the mesh denies.
        for (mesh, server) in
            [("", ""), ("encryptedClientHello: deny\n", ", encryptedClientHello: allow")]
        {
            gateway.configure(mesh, server);
            let mut client = gateway.connect().await;
            client.write_all(&hello).await.unwrap();
            let mut io = upstream.accept().await;
            let mut read = vec![0; hello.len()];
            io.read_exact(&mut read).await.unwrap();
            assert_eq!(read, hello, "it arrives as it was sent");
        }
        // Another outer name is refused as ever, and so is a server that denies what the mesh allows.
        let mut client = gateway.connect().await;
        client.write_all(&encrypted("b.example")).await.unwrap();
        assert_eq!(alert(&mut client).await, 112);
        assert_eq!(gateway.denied(Reason::HostNotInRegistry), 1);
        gateway.configure("", ", encryptedClientHello: deny");
        let mut client = gateway.connect().await;
        client.write_all(&encrypted("a.example")).await.unwrap();
        assert_eq!(alert(&mut client).await, 112);
        assert_eq!(gateway.denied(Reason::EncryptedClientHello), 1);
    });
}

/// A ClientHello with an empty extension of Encrypted Client Hello at its end.
fn encrypted(name: &str) -> Vec<u8> {
    let mut bytes = hello(name);
    bytes.extend([0xfe, 0x0d, 0, 0]);
    // Record, message and extension list are each four bytes longer then.
    let extensions = extensions_at(&bytes);
    for at in [3, 7, extensions] {
        let len = u16::from_be_bytes([bytes[at], bytes[at + 1]]) + 4;
        bytes[at..at + 2].copy_from_slice(&len.to_be_bytes());
    }
    bytes
}

/// Where a ClientHello's list of extensions has its length.
fn extensions_at(hello: &[u8]) -> usize {
    let session = 5 + 4 + 2 + 32;
    let suites = session + 1 + usize::from(hello[session]);
    let suites_len = usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
    let compression = suites + 2 + suites_len;
    compression + 1 + usize::from(hello[compression])
}

#[test]
fn other_protocols_and_closed_ports_are_reset() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let mut client = gateway.connect().await;
        client.write_all(b"\0\x01garbage").await.unwrap();
        assert!(is_reset(&mut client).await);
        assert_eq!(gateway.denied(Reason::WrongProtocol), 1);
        let mut client = TcpStream::connect(gateway.closed).await.unwrap();
        assert!(is_reset(&mut client).await);
        assert_eq!(gateway.denied(Reason::NoRoute), 1);
        // Who says nothing and leaves was a health check.
        let mut client = gateway.connect().await;
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await.unwrap(), b"");
        assert_eq!(gateway.black_hole(), 2);
        let lines = gateway.end().await;
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines.iter().all(|line| line.contains("\"- - -\" 0 NR ")), "{lines:#?}");
    });
}

#[test]
fn raw_tcp_is_routed_by_its_port_and_the_server_may_speak_first() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let mut client = TcpStream::connect(gateway.tcp).await.unwrap();
        let mut server = upstream.accept().await;
        server.write_all(b"220 ready").await.unwrap();
        let mut text = [0; 9];
        client.read_exact(&mut text).await.unwrap();
        client.write_all(b"request").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut server).await.unwrap(), b"request");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        assert_eq!(read_all(&mut client).await.unwrap(), b"answer");
        let lines = gateway.end().await;
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("\"- - -\" 0 - "), "{lines:#?}");
        assert!(lines[0].contains(&format!("\"{OUTSIDE}:{TCP_PORT}\"")), "{lines:#?}");
        assert!(lines[0].contains(" 7 15 "), "{lines:#?}");
    });
}

/// A ClientHello with a share of the hybrid group: longer than a segment.
fn long_hello(name: &str) -> Vec<u8> {
    use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519];
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_hello_of_several_segments_passes_in_pieces_of_any_size() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let hello = long_hello("a.example");
        assert!(hello.len() > 1460, "{}", hello.len());
        for size in [1, 536, 1460] {
            let mut client = gateway.connect().await;
            client.set_nodelay(true).unwrap();
            for piece in hello.chunks(size) {
                client.write_all(piece).await.unwrap();
                // So that each is read by itself.
                yield_now().await;
            }
            let mut server = upstream.accept().await;
            let mut read = vec![0; hello.len()];
            server.read_exact(&mut read).await.unwrap();
            assert!(read == hello, "{size}: as it was sent");
        }
        // The name decides here as well.
        let mut client = gateway.connect().await;
        for piece in long_hello("b.example").chunks(1) {
            client.write_all(piece).await.unwrap();
        }
        assert_eq!(alert(&mut client).await, u8::from(AlertDescription::UnrecognisedName));
        assert!(upstream.is_untouched().await);
    });
}

#[test]
fn a_relayed_connection_may_be_idle_as_long_as_its_rule_says() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        // Raw TCP, and TLS by its name.
        for host in ["db.example", "a.example"] {
            let open = || async {
                let mut client = match host {
                    "db.example" => TcpStream::connect(gateway.tcp).await.unwrap(),
                    _ => gateway.connect().await,
                };
                client.write_all(&hello("a.example")).await.unwrap();
                let mut server = upstream.accept().await;
                server.read_exact(&mut [0; 8]).await.unwrap();
                (client, server)
            };
            gateway.rule(host, "{connectionPool: {tcp: {idleTimeout: 100ms}}}");
            let (mut client, mut server) = open().await;
            assert!(is_reset(&mut client).await, "{host}");
            read_all(&mut server).await.unwrap_err();
            // Without a limit, and with a long one, it stays.
            for timeout in ["0s", "1h"] {
                let policy = format!("{{connectionPool: {{tcp: {{idleTimeout: {timeout}}}}}}}");
                gateway.rule(host, &policy);
                let (mut client, mut server) = open().await;
                let silent = timeout_of(&mut client, Duration::from_millis(300)).await;
                assert!(silent, "{host} {timeout}");
                server.write_all(b"still here").await.unwrap();
                client.read_exact(&mut [0; 10]).await.unwrap();
            }
        }
    });
}

#[test]
fn a_relayed_connection_may_be_as_old_as_its_rule_says() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let open = || async {
            let mut client = gateway.connect().await;
            client.write_all(&hello("a.example")).await.unwrap();
            let mut server = upstream.accept().await;
            server.read_exact(&mut [0; 8]).await.unwrap();
            (client, server)
        };
        gateway.rule("a.example", "{connectionPool: {tcp: {maxConnectionDuration: 300ms}}}");
        let (mut client, mut server) = open().await;
        // However busy it is.
        let mut beats = 0;
        while server.write_all(b"x").await.is_ok() && client.read_exact(&mut [0]).await.is_ok() {
            beats += 1;
            sleep(Duration::from_millis(10)).await;
        }
        assert!(beats > 0);
        gateway.rule("a.example", "{connectionPool: {tcp: {maxConnectionDuration: 1h}}}");
        let (mut client, mut server) = open().await;
        assert!(timeout_of(&mut client, Duration::from_millis(600)).await);
        server.write_all(b"still here").await.unwrap();
        client.read_exact(&mut [0; 10]).await.unwrap();
        drop((client, server));
        let log = gateway.end().await;
        assert!(log[0].contains("\"- - -\" 0 DT - max_connection_duration "), "{log:?}");
        assert!(!log[1].contains(" DT "), "{log:?}");
    });
}

#[test]
fn an_upstream_is_told_whose_the_connection_is() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        gateway.rule("db.example", "{proxyProtocol: {version: V1}}");
        let mut client = TcpStream::connect(gateway.tcp).await.unwrap();
        let (near, far) = (client.local_addr().unwrap(), gateway.tcp);
        let mut server = upstream.accept().await;
        // Before the application has said anything.
        let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", near.port(), far.port());
        let mut found = vec![0; line.len()];
        server.read_exact(&mut found).await.unwrap();
        assert_eq!(String::from_utf8(found).unwrap(), line);
        client.write_all(b"request").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut server).await.unwrap(), b"request");
        // TLS that is passed through comes after it, too; without the rule there is none.
        let first = hello("a.example");
        for (policy, has_header) in [("{proxyProtocol: {version: V2}}", true), ("{}", false)] {
            gateway.rule("a.example", policy);
            let mut client = gateway.connect().await;
            let (near, far) = (client.local_addr().unwrap(), gateway.addr);
            client.write_all(&first).await.unwrap();
            let mut server = upstream.accept().await;
            // The signature, version 2 and PROXY, TCP over IPv4, and 12 bytes of addresses and ports.
            let header = [
                &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01"[..],
                &near.port().to_be_bytes(),
                &far.port().to_be_bytes(),
            ]
            .concat();
            let expected = if has_header { [&header, &first[..]].concat() } else { first.clone() };
            let mut found = vec![0; expected.len()];
            server.read_exact(&mut found).await.unwrap();
            assert_eq!(found, expected, "{policy}");
        }
    });
}

/// Connections of one source go to one endpoint where a rule says so, and anywhere where none does.
#[test]
fn raw_tcp_of_one_source_has_one_endpoint() {
    const MORE: [&str; 2] = ["198.51.100.8", "198.51.100.9"];
    const SOURCES: u8 = 24;
    local(async {
        // Each says who it is.
        let mut addrs = Vec::new();
        for number in 0..3_u8 {
            let upstream = Upstream::new().await;
            addrs.push(upstream.addr);
            spawn_local(async move {
                loop {
                    upstream.accept().await.write_all(&[number]).await.unwrap();
                }
            });
        }
        let [first, second, third] = addrs[..] else { unreachable!("there are three") };
        let more = [(MORE[0], second), (MORE[1], third)];
        let gateway = Gateway::start_before(first, &more, Limits::default());
        let places = [OUTSIDE, MORE[0], MORE[1]].map(|place| format!("{{address: {place}}}"));
        for (policy, keeps) in
            [("{consistentHash: {useSourceIp: true}}", true), ("{simple: ROUND_ROBIN}", false)]
        {
            let rule = format!(
                "
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: rule, namespace: default}}
spec: {{host: db.example, trafficPolicy: {{loadBalancer: {policy}}}}}
"
            );
            let resources = resources(gateway.addr.port(), gateway.tcp.port()) + &rule;
            let one = format!("endpoints: [{}]", places[0]);
            let all = format!("endpoints: [{}]", places.join(", "));
            assert!(resources.contains(&one));
            gateway.worker.policy.store(Some(self::policy(resources.replace(&one, &all), "")));
            let mut of_all = HashSet::new();
            for source in 1..=SOURCES {
                let mut of_source = HashSet::new();
                for _ in 0..3 {
                    let mut client = connect_from(source, gateway.tcp).await;
                    of_source.insert(client.read_u8().await.unwrap());
                }
                assert_eq!(of_source.len() == 1, keeps, "source {source}: {of_source:?}");
                of_all.extend(of_source);
            }
            assert_eq!(of_all.len(), 3, "{policy}: {of_all:?}");
        }
    });
}

/// Whether the gateway refused, as it refuses TLS and other connections; else the upstream said `!`.
async fn is_refused(mut client: TcpStream, is_tls: bool) -> bool {
    let mut first = [0];
    match timeout(SOON, client.read_exact(&mut first)).await.expect("an answer or an end") {
        Ok(_) if first == *b"!" => false,
        Ok(_) => {
            // The rest of the alert: fatal, `internal_error`.
            let rest = read_all(&mut client).await.unwrap();
            assert_eq!((is_tls, first[0], &rest[..]), (true, 21, &[3, 3, 0, 2, 2, 80][..]));
            true
        }
        Err(error) => {
            assert!(!is_tls && error.kind() == io::ErrorKind::ConnectionReset, "{error}");
            true
        }
    }
}

/// The annotation of a service entry counts connections of TLS that is passed through.
#[test]
fn connections_beyond_an_annotated_rate_are_refused() {
    const COUNT: usize = 30;
    const BURST: usize = 2;
    local(async {
        let (name, is_tls) = ("a", true);
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let taken = Rc::new(AtomicUsize::new(0));
        let count = Rc::clone(&taken);
        spawn_local(async move {
            loop {
                let mut stream = upstream.accept().await;
                count.fetch_add(1, Ordering::Relaxed);
                stream.write_all(b"!").await.unwrap();
            }
        });
        let refused = async || {
            let mut refused = 0;
            for _ in 0..COUNT {
                refused += usize::from(is_refused(gateway.say(is_tls).await, is_tls).await);
            }
            refused
        };
        // Its twin, without a limit.
        assert_eq!((refused().await, taken.swap(0, Ordering::Relaxed)), (0, COUNT), "{name}");
        gateway.annotate(name, &format!("{{connections: {{perSecond: 1, burst: {BURST}}}}}"));
        let began = Instant::now();
        let beyond = refused().await;
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
        let within = COUNT - beyond;
        assert!((BURST..=BURST + seconds + 1).contains(&within), "{within} in {seconds} s");
        assert!(beyond > 0, "{name}: {within} in {seconds} s");
        assert_eq!(taken.load(Ordering::Relaxed), within, "{name}");
        let denied = gateway.denied(Reason::RateLimited);
        assert_eq!(usize::try_from(denied).unwrap(), beyond, "{name}");
        let lines = gateway.end().await;
        let flagged = |line: &&String| {
            line.contains("] \"- - -\" 0 RL ") && line.contains("local_rate_limited")
        };
        assert_eq!(lines.iter().filter(flagged).count(), beyond, "{lines:#?}");
        assert_eq!(lines.len(), 2 * COUNT, "{lines:#?}");
    });
}

/// The annotation of a service entry counts bytes of raw TCP: they wait, and arrive whole.
#[test]
fn bytes_beyond_an_annotated_rate_wait() {
    const BYTES: usize = 105;
    const LEAST: Duration = Duration::from_secs(2);
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        spawn_local(async move {
            loop {
                upstream.accept().await.write_all(&[b'x'; BYTES]).await.unwrap();
            }
        });
        let mut took = Vec::new();
        for is_limited in [true, false] {
            if is_limited {
                gateway.annotate("db", "{bytes: {perSecond: 50, burst: 5}}");
            } else {
                gateway.configure("", "");
            }
            let mut client = TcpStream::connect(gateway.tcp).await.unwrap();
            let began = Instant::now();
            client.read_exact(&mut [0; BYTES]).await.unwrap();
            took.push(began.elapsed());
        }
        // What is beyond the burst, at 50 a second.
        assert!(took[0] >= LEAST && took[1] < took[0], "{took:?}");
        let lines = gateway.end().await;
        assert!(lines.iter().all(|line| line.contains("] \"- - -\" 0 - ")), "{lines:#?}");
    });
}

/// `maxConnections` is for connections that are relayed, too: what is beyond it has `UO`, which is not the flag of a
/// rate.
#[test]
fn connections_beyond_the_pools_limit_are_flagged_as_its_overflow() {
    local(async {
        for (host, is_tls) in [("a.example", true), ("db.example", false)] {
            let upstream = Upstream::new().await;
            let gateway = Gateway::start(upstream.addr, Limits::default());
            gateway.rule(host, "{connectionPool: {tcp: {maxConnections: 1}}}");
            let first = gateway.say(is_tls).await;
            let mut held = upstream.accept().await;
            assert!(is_refused(gateway.say(is_tls).await, is_tls).await, "{host}");
            assert!(upstream.is_untouched().await, "{host}");
            assert_eq!(gateway.denied(Reason::Overflow), 1, "{host}");
            // The one that stands is not disturbed; once it is gone there is a place again.
            held.write_all(b"!").await.unwrap();
            assert!(!is_refused(first, is_tls).await, "{host}");
            drop(held);
            until(|| gateway.worker.telemetry.stats.limits().used(Resource::Connections) == 0)
                .await;
            let next = gateway.say(is_tls).await;
            upstream.accept().await.write_all(b"!").await.unwrap();
            assert!(!is_refused(next, is_tls).await, "{host}");
            let lines = gateway.end().await;
            let overflows = lines.iter().filter(|line| line.contains("] \"- - -\" 0 UO "));
            assert_eq!((lines.len(), overflows.count()), (3, 1), "{lines:#?}");
        }
    });
}

/// TLS that is passed through and raw TCP come from the address that an annotation names, of a route or of a Gateway,
/// and to a server of IPv6 from one of IPv6. One that the machine lacks, or a pool without one of the server's family,
/// is refused, and nothing is sent from another address.
#[test]
fn relayed_connections_leave_from_the_annotated_address_or_not_at_all() {
    const MESH: &str = "egressAddresses:\n- {name: tenant, addresses: [127.0.0.77]}\n\
        - {name: both, addresses: [127.0.0.77, '::1']}\n- {name: absent, addresses: [192.0.2.77]}\n\
        - {name: six, addresses: ['::1']}\n";
    const V6: &str = "2001:db8::7";
    local(async {
        let v4 = Upstream::new().await;
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let v6 = Upstream { addr: listener.local_addr().unwrap(), listener };
        let place = format!("[{V6}]");
        let gateway =
            Gateway::start_before(v4.addr, &[(place.as_str(), v6.addr)], Limits::default());
        let routed = "kind: VirtualService\nmetadata: {name: ";
        let (of_a, of_db) = (format!("{routed}a,"), format!("{routed}db,"));
        let of_gateway = "kind: Gateway\nmetadata: {name: egress,".to_owned();
        let mut refused = 0;
        for (is_tls, is_v6, annotated, from) in [
            (true, false, None, Some("127.0.0.1")),
            (true, false, Some((&of_a, "tenant")), Some("127.0.0.77")),
            (true, false, Some((&of_gateway, "tenant")), Some("127.0.0.77")),
            (true, false, Some((&of_a, "absent")), None),
            (true, false, Some((&of_a, "six")), None),
            (false, false, None, Some("127.0.0.1")),
            (false, false, Some((&of_db, "tenant")), Some("127.0.0.77")),
            (false, false, Some((&of_db, "both")), Some("127.0.0.77")),
            (false, false, Some((&of_gateway, "tenant")), Some("127.0.0.77")),
            (false, false, Some((&of_db, "absent")), None),
            (false, false, Some((&of_gateway, "six")), None),
            (false, true, Some((&of_db, "both")), Some("::1")),
            (false, true, Some((&of_db, "six")), Some("::1")),
            (false, true, Some((&of_db, "tenant")), None),
        ] {
            let mut resources = resources(gateway.addr.port(), gateway.tcp.port());
            if let Some((resource, name)) = annotated {
                assert!(resources.contains(resource));
                let text = format!(
                    "{resource} annotations: {{egress-enforcer.io/egress-address: {name}}},"
                );
                resources = resources.replace(resource, &text);
            }
            if is_v6 {
                let list = format!("endpoints: [{{address: {OUTSIDE}}}]");
                assert!(resources.contains(&list));
                resources = resources.replace(&list, &format!("endpoints: [{{address: '{V6}'}}]"));
            }
            gateway.worker.policy.store(Some(policy(resources, MESH)));
            let upstream = if is_v6 { &v6 } else { &v4 };
            let client = gateway.say(is_tls).await;
            let Some(from) = from else {
                assert!(is_refused(client, is_tls).await, "{annotated:?}");
                assert!(upstream.is_untouched().await, "{annotated:?}");
                refused += 1;
                assert_eq!(gateway.denied(Reason::EgressAddressUnavailable), refused);
                continue;
            };
            let mut server = upstream.accept().await;
            let seen = server.peer_addr().unwrap().ip().to_string();
            assert_eq!(seen, from, "{annotated:?}");
            server.write_all(b"!").await.unwrap();
            assert!(!is_refused(client, is_tls).await, "{annotated:?}");
        }
        let lines = gateway.end().await;
        let flagged = lines.iter().filter(|line| line.contains("] \"- - -\" 0 UF "));
        assert_eq!(u64::try_from(flagged.count()).unwrap(), refused, "{lines:#?}");
    });
}

/// The old spelling of `sniHosts`, which a current API server refuses, draws a warning and is in force.
#[test]
fn the_old_spelling_of_sni_hosts_routes_by_name() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let resources = resources(gateway.addr.port(), gateway.tcp.port());
        let file = RawFile { path: "a".into(), text: resources.replace("sniHosts", "sni_hosts") };
        let told = |text: String| {
            let file = RawFile { path: "a".into(), text };
            let told = compile(&[file], None).unwrap().warnings.into_iter();
            told.filter(|told| told.message.starts_with("old spelling of a field")).count()
        };
        assert_eq!((told(file.text.clone()), told(resources)), (2, 0));
        gateway.worker.policy.store(Some(policy(file.text, "")));
        let passed = gateway.say(true).await;
        upstream.accept().await.write_all(b"!").await.unwrap();
        assert!(!is_refused(passed, true).await);
        let mut other = gateway.connect().await;
        other.write_all(&hello("b.example")).await.unwrap();
        assert_eq!(alert(&mut other).await, u8::from(AlertDescription::UnrecognisedName));
        assert!(upstream.is_untouched().await);
    });
}

#[test]
fn a_proxy_is_asked_for_the_target_and_then_carries_the_connection() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let tunnel = "{tunnel: {protocol: CONNECT, targetHost: target.example, targetPort: 443}}";
        let question = "CONNECT target.example:443 HTTP/1.1\r\nHost: target.example:443\r\n\r\n";
        for (host, is_tls) in [("db.example", false), ("a.example", true)] {
            gateway.rule(host, tunnel);
            for answer in ["200 OK", "403 Forbidden"] {
                let mut client = match is_tls {
                    true => gateway.connect().await,
                    false => TcpStream::connect(gateway.tcp).await.unwrap(),
                };
                let said = if is_tls { hello(host) } else { b"request".to_vec() };
                client.write_all(&said).await.unwrap();
                let mut proxy = upstream.accept().await;
                let mut asked = vec![0; question.len()];
                proxy.read_exact(&mut asked).await.unwrap();
                assert_eq!(String::from_utf8(asked).unwrap(), question);
                let head = format!("HTTP/1.1 {answer}\r\nVia: 1.1 proxy\r\n\r\nhello");
                proxy.write_all(head.as_bytes()).await.unwrap();
                if answer == "200 OK" {
                    let mut heard = vec![0; said.len()];
                    proxy.read_exact(&mut heard).await.unwrap();
                    assert_eq!(heard, said);
                    // What the target says first arrives, and nothing of the proxy's own answer.
                    let mut greeting = [0; 5];
                    client.read_exact(&mut greeting).await.unwrap();
                    assert_eq!(&greeting, b"hello");
                } else {
                    // Nothing of the application's is sent to a proxy that refuses.
                    assert_eq!(read_all(&mut proxy).await.unwrap_or_default(), b"");
                    let heard = read_all(&mut client).await.unwrap_or_default();
                    assert!(!heard.starts_with(b"hello"), "{heard:?}");
                }
            }
        }
        // What it is shown, it is shown in the question; without its files no connection is opened.
        let annotation = "egress-enforcer.io/tunnel-credential: default.proxy";
        gateway.rule_with("db.example", annotation, tunnel);
        let own = gateway.dir.path().join("default.proxy");
        for known in [false, true] {
            if known {
                fs::create_dir(&own).unwrap();
                fs::write(own.join("username"), "Aladdin").unwrap();
                fs::write(own.join("password"), "open sesame").unwrap();
            }
            let mut client = TcpStream::connect(gateway.tcp).await.unwrap();
            client.write_all(b"request").await.unwrap();
            if known {
                let mut proxy = upstream.accept().await;
                let shown = "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n";
                let mut asked = vec![0; question.len() - 2 + shown.len()];
                proxy.read_exact(&mut asked).await.unwrap();
                let expected = format!("{}{shown}", question.strip_suffix("\r\n").unwrap());
                assert_eq!(String::from_utf8(asked).unwrap(), expected);
                proxy.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                proxy.read_exact(&mut [0; 7]).await.unwrap();
            } else {
                assert!(is_reset(&mut client).await);
                assert!(upstream.is_untouched().await);
            }
        }
        let log = gateway.end().await;
        let unreadable: Vec<_> =
            log.iter().filter(|line| line.contains("credential default.proxy")).collect();
        assert_eq!(unreadable.len(), 1, "{log:#?}");
        let refused: Vec<_> = log.iter().filter(|line| line.contains("answered 403")).collect();
        assert_eq!((log.len(), refused.len()), (6, 2), "{log:#?}");
        for line in refused {
            assert!(line.contains(" UF "), "{line}");
            assert!(
                line.contains("the proxy answered 403 to CONNECT target.example:443"),
                "{line}"
            );
        }
    });
}

/// What a proxy is shown is shown to the right one: in TLS, after its certificate was verified.
#[test]
fn a_proxy_is_asked_in_tls_where_its_rule_says_so_or_not_at_all() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let own = gateway.dir.path().join("default.proxy");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("username"), "Aladdin").unwrap();
        fs::write(own.join("password"), "open sesame").unwrap();
        let (acceptor, certificate) = server("db.example");
        let roots = gateway.dir.path().join("ca.pem");
        fs::write(&roots, certificate.pem()).unwrap();
        let policy = format!(
            "{{tunnel: {{protocol: CONNECT, targetHost: target.example, targetPort: 443}}, \
             tls: {{mode: SIMPLE, caCertificates: '{}'}}}}",
            roots.display()
        );
        let annotation = "egress-enforcer.io/tunnel-credential: default.proxy";
        gateway.rule_with("db.example", annotation, &policy);
        let connect = async || {
            let mut client = TcpStream::connect(gateway.tcp).await.unwrap();
            client.write_all(b"request").await.unwrap();
            client
        };
        // Another server's certificate: the handshake does not end, so that nothing is said within.
        let (another, _) = server("db.example");
        let mut client = connect().await;
        assert!(another.accept(upstream.accept().await).await.is_err());
        assert!(is_reset(&mut client).await);
        // Nor is anything said to one that speaks no TLS.
        let mut client = connect().await;
        let mut plain = upstream.accept().await;
        plain.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut said = Vec::new();
        plain.read_to_end(&mut said).await.ok();
        assert_eq!(said.first(), Some(&22), "the first byte is of a handshake");
        for part in ["CONNECT", "Proxy-Authorization", "request"] {
            assert!(!said.windows(part.len()).any(|said| said == part.as_bytes()), "{part}");
        }
        assert!(is_reset(&mut client).await);
        // The right one is asked, and carries the connection.
        let mut client = connect().await;
        let mut proxy = acceptor.accept(upstream.accept().await).await.unwrap();
        let question = "CONNECT target.example:443 HTTP/1.1\r\nHost: target.example:443\r\n\
                        Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n";
        let mut asked = vec![0; question.len()];
        proxy.read_exact(&mut asked).await.unwrap();
        assert_eq!(String::from_utf8(asked).unwrap(), question);
        proxy.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut heard = [0; 7];
        proxy.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"request");
        proxy.write_all(b"answer").await.unwrap();
        proxy.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await.unwrap(), b"answer");
        drop((client, proxy));
        let lines = gateway.end().await;
        let refused = lines.iter().filter(|line| line.contains(" UF ")).count();
        assert_eq!((lines.len(), refused), (3, 2), "{lines:#?}");
    });
}

/// Raw TCP has no statuses: connections that fail count for both fields.
#[test]
fn raw_tcp_that_fails_sets_its_endpoint_aside() {
    for (errors, expected) in [
        ("consecutive5xxErrors: 0, consecutiveGatewayErrors: 2", 2),
        ("consecutive5xxErrors: 3", 3),
        ("consecutiveGatewayErrors: 0", 5),
        ("consecutive5xxErrors: 0, consecutiveGatewayErrors: 0", 8),
        (
            "consecutive5xxErrors: 1, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 4",
            4,
        ),
    ] {
        local(async {
            // Nothing listens there any more.
            let Upstream { listener, addr } = Upstream::new().await;
            drop(listener);
            let gateway = Gateway::start(addr, Limits::default());
            let policy = format!("{{outlierDetection: {{{errors}, baseEjectionTime: 1h}}}}");
            gateway.rule("db.example", &policy);
            for _ in 0..8 {
                let mut client = TcpStream::connect(gateway.tcp).await.unwrap();
                assert!(is_reset(&mut client).await);
            }
            let lines = gateway.end().await;
            let of = |flag: &str| lines.iter().filter(|line| line.contains(flag)).count();
            assert_eq!((of(" UF "), of(" UH ")), (expected, 8 - expected), "{errors}: {lines:#?}");
        });
    }
}

#[test]
fn a_proxy_that_is_asked_with_post_carries_the_connection_in_bodies() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let tunnel = "{tunnel: {protocol: POST, targetHost: target.example, targetPort: 443}}";
        let question = "POST / HTTP/1.1\r\nHost: target.example:443\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
        gateway.rule("db.example", tunnel);
        for answer in [
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "405 Method Not Allowed\r\nContent-Length: 5\r\n\r\nhello",
        ] {
            let mut client = TcpStream::connect(gateway.tcp).await.unwrap();
            client.write_all(b"request").await.unwrap();
            client.shutdown().await.unwrap();
            let mut proxy = upstream.accept().await;
            let mut asked = vec![0; question.len()];
            proxy.read_exact(&mut asked).await.unwrap();
            assert_eq!(String::from_utf8(asked).unwrap(), question);
            proxy.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await.unwrap();
            if answer.starts_with("200") && !answer.contains("Length: 6") {
                let body = b"7\r\nrequest\r\n0\r\n\r\n";
                let mut sent = vec![0; body.len()];
                proxy.read_exact(&mut sent).await.unwrap();
                assert_eq!(sent, body, "{answer}");
                assert_eq!(read_all(&mut client).await.unwrap(), b"hello", "{answer}");
            } else {
                // Nothing of the application's is sent, and nothing of the proxy's own arrives.
                assert_eq!(read_all(&mut proxy).await.unwrap_or_default(), b"", "{answer}");
                assert_ne!(read_all(&mut client).await.unwrap_or_default(), b"hello", "{answer}");
            }
        }
        let log = gateway.end().await;
        let says = |what: &str| log.iter().filter(|line| line.contains(what)).count();
        assert_eq!(says("the proxy answered 405 to POST target.example:443"), 1, "{log:#?}");
        assert_eq!(says("answer to POST ends is not clear"), 1, "{log:#?}");
    });
}

/// Whether nothing comes and nothing ends for so long.
async fn timeout_of(stream: &mut TcpStream, time: Duration) -> bool {
    timeout(time, stream.read(&mut [0])).await.is_err()
}

#[test]
fn a_broken_upstream_breaks_the_client_and_is_flagged() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let mut client = gateway.connect().await;
        client.write_all(&hello("a.example")).await.unwrap();
        let mut server = upstream.accept().await;
        server.write_all(&[7; 1000]).await.unwrap();
        let mut part = [0; 1000];
        client.read_exact(&mut part).await.unwrap();
        server.set_zero_linger().unwrap();
        drop(server);
        assert!(is_reset(&mut client).await);
        // Nobody there any more.
        drop(upstream);
        let mut client = gateway.connect().await;
        client.write_all(&hello("a.example")).await.unwrap();
        assert_eq!(alert(&mut client).await, 80);
        assert_eq!(gateway.denied(Reason::ConnectFailed), 1);
        assert_eq!(gateway.cluster(ClusterCounter::CxConnectFail), 1);
        assert_eq!(gateway.cluster(ClusterCounter::CxTotal), 1);
        assert_eq!(gateway.black_hole(), 0);
        let lines = gateway.end().await;
        let has = |what: &str| lines.iter().any(|line| line.contains(what));
        assert!(has("\"- - -\" 0 UC "), "{lines:#?}");
        assert!(has("\"- - -\" 0 UF ") && has("refused"), "{lines:#?}");
    });
}

/// A few bytes arrive on the other side.
async fn says(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"still there").await.unwrap();
    let mut heard = [0; 11];
    timeout(SOON, to.read_exact(&mut heard)).await.expect("what was said").unwrap();
    assert_eq!(&heard, b"still there");
}

#[test]
fn a_relayed_connection_goes_on_when_its_hosts_address_changes() {
    local(async {
        let (first, second) = (Upstream::new().await, Upstream::new().await);
        let more = [("198.51.100.8", second.addr)];
        let gateway = Gateway::start_before(first.addr, &more, Limits::default());
        gateway.configure("addressDrainTime: 0s\n", "");
        let bytes = hello("a.example");
        let heard = async |upstream: &Upstream| {
            let mut client = gateway.connect().await;
            client.write_all(&bytes).await.unwrap();
            let mut server = upstream.accept().await;
            let mut heard = vec![0; bytes.len()];
            server.read_exact(&mut heard).await.unwrap();
            assert!(heard == bytes);
            (client, server)
        };
        let (mut client, mut server) = heard(&first).await;
        gateway.outside.rename("a.example", &["198.51.100.8"]);
        let (mut other, mut new) = heard(&second).await;
        assert!(first.is_untouched().await);
        // Longer than a connection that waits for requests would have.
        sleep(Duration::from_millis(2500)).await;
        for (client, server) in [(&mut client, &mut server), (&mut other, &mut new)] {
            says(client, server).await;
            says(server, client).await;
        }
        assert_eq!(gateway.cluster(ClusterCounter::CxActive), 2);
    });
}

#[test]
fn a_client_that_resets_resets_the_upstream() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let mut client = gateway.connect().await;
        let bytes = hello("a.example");
        client.write_all(&bytes).await.unwrap();
        let mut server = upstream.accept().await;
        server.read_exact(&mut vec![0; bytes.len()]).await.unwrap();
        client.set_zero_linger().unwrap();
        drop(client);
        assert!(is_reset(&mut server).await);
        let lines = gateway.end().await;
        assert!(lines[0].contains("\"- - -\" 0 DC "), "{lines:#?}");
    });
}

#[test]
fn slow_clients_meet_their_deadline_and_prompt_ones_do_not() {
    local(async {
        let limits = Limits {
            first_byte: Duration::from_millis(60),
            client_hello: Duration::from_millis(60),
            ..Limits::default()
        };
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, limits);
        let start = Instant::now();
        let mut silent = gateway.connect().await;
        let mut slow = gateway.connect().await;
        let bytes = hello("a.example");
        slow.write_all(&bytes[..40]).await.unwrap();
        let mut prompt = gateway.connect().await;
        prompt.write_all(&bytes).await.unwrap();
        let server = upstream.accept().await;
        assert!(is_reset(&mut silent).await);
        assert!(is_reset(&mut slow).await);
        assert!(start.elapsed() >= Duration::from_millis(60));
        assert_eq!(gateway.denied(Reason::Timeout), 2);
        // Once decided, those deadlines are over.
        drop(server);
        read_all(&mut prompt).await.ok();
        assert_eq!(gateway.cluster(ClusterCounter::CxTotal), 1);
    });
}

#[test]
fn half_a_hello_and_an_end_is_told() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let mut client = gateway.connect().await;
        client.write_all(&hello("a.example")[..100]).await.unwrap();
        client.shutdown().await.unwrap();
        assert!(is_reset(&mut client).await);
        assert!(upstream.is_untouched().await);
        let lines = gateway.end().await;
        assert!(lines[0].contains("\"- - -\" 0 DC ") && lines[0].contains(" 100 0 "), "{lines:#?}");
    });
}

#[test]
fn too_many_connections_of_one_source_are_reset() {
    local(async {
        let limits = Limits { connections_per_source: 1, ..Limits::default() };
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, limits);
        let first = TcpStream::connect(gateway.tcp).await.unwrap();
        let server = upstream.accept().await;
        let mut second = TcpStream::connect(gateway.tcp).await.unwrap();
        assert!(is_reset(&mut second).await);
        assert_eq!(gateway.denied(Reason::Overflow), 1);
        // Its place is free again once it has ended.
        drop((first, server));
        let lines = gateway.end().await;
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains("\"- - -\" 0 LR "), "{lines:#?}");
    });
}

#[test]
fn refusing_one_sources_connections_gives_others_their_turns() {
    const WAITING: u64 = 100;
    local(async {
        let limits = Limits { connections_per_source: 0, ..Limits::default() };
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, limits);
        // The gateway has no turn before all of them wait in its queue.
        let connect = |_| std::net::TcpStream::connect(gateway.addr).unwrap();
        let _waiting: Vec<_> = (0..WAITING).map(connect).collect();
        let mut refused = 0;
        while refused < WAITING {
            yield_now().await;
            let before = std::mem::replace(&mut refused, gateway.denied(Reason::Overflow));
            assert!(refused - before <= 2 * u64::from(AT_ONCE), "{before}, then {refused}");
        }
    });
}

/// A connection from this loopback address.
async fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

#[test]
fn where_all_is_taken_another_source_gets_room_from_the_one_with_the_most() {
    local(async {
        let limits = Limits { connections: 3, connections_per_source: 3, ..Limits::default() };
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, limits);
        let mut carried = TcpStream::connect(gateway.tcp).await.unwrap();
        let mut server = upstream.accept().await;
        let mut waiting = [gateway.connect().await, gateway.connect().await];
        until(|| gateway.worker.telemetry.stats.limits().used(Resource::Connections) == 3).await;
        // Two others come: what waits gives way first, the oldest of it.
        let _second = connect_from(2, gateway.tcp).await;
        let _its_server = upstream.accept().await;
        assert!(is_reset(&mut waiting[0]).await);
        let _third = connect_from(3, gateway.tcp).await;
        let _its_server_too = upstream.accept().await;
        assert!(is_reset(&mut waiting[1]).await);
        // Everybody has the same: a newcomer is refused.
        let mut fourth = connect_from(4, gateway.tcp).await;
        assert!(is_reset(&mut fourth).await);
        carried.write_all(b"still here").await.unwrap();
        let mut read = [0; 10];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"still here");
        assert_eq!(gateway.denied(Reason::Overflow), 3);
    });
}

#[test]
fn a_connection_that_gives_way_is_reset_on_both_sides_and_told() {
    local(async {
        let limits = Limits { connections: 2, connections_per_source: 2, ..Limits::default() };
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, limits);
        let mut first = TcpStream::connect(gateway.tcp).await.unwrap();
        let mut server = upstream.accept().await;
        let second = TcpStream::connect(gateway.tcp).await.unwrap();
        let its_server = upstream.accept().await;
        let other = connect_from(2, gateway.tcp).await;
        let others_server = upstream.accept().await;
        assert!(is_reset(&mut first).await && is_reset(&mut server).await);
        drop((second, its_server, other, others_server));
        let lines = gateway.end().await;
        assert_eq!(lines.len(), 3, "{lines:#?}");
        let told = lines.iter().filter(|line| line.contains("source_overflow")).count();
        assert_eq!(told, 1, "{lines:#?}");
    });
}

#[test]
fn without_a_configuration_everything_is_reset() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        gateway.worker.policy.store(None);
        for addr in [gateway.addr, gateway.tcp, gateway.closed] {
            let mut client = TcpStream::connect(addr).await.unwrap();
            assert!(is_reset(&mut client).await);
        }
        assert_eq!(gateway.denied(Reason::NotConfigured), 3);
        assert!(upstream.is_untouched().await);
    });
}

#[test]
fn a_new_policy_holds_for_the_next_connection() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let mut before = gateway.connect().await;
        before.write_all(&hello("a.example")).await.unwrap();
        let mut server = upstream.accept().await;
        // Deleted: what was allowed is refused.
        gateway.worker.policy.store(Some(policy(String::new(), "")));
        let mut after = gateway.connect().await;
        after.write_all(&hello("a.example")).await.ok();
        assert!(is_reset(&mut after).await, "no port is routed any more");
        assert!(upstream.is_untouched().await);
        // What runs goes on.
        server.write_all(b"still here").await.unwrap();
        let mut text = [0; 10];
        before.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"still here");
    });
}

#[test]
fn draining_finishes_what_runs_and_takes_nothing_new() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let mut client = TcpStream::connect(gateway.tcp).await.unwrap();
        let mut server = upstream.accept().await;
        gateway.worker.drain.start();
        until(|| std::net::TcpStream::connect(gateway.addr).is_err()).await;
        assert!(!gateway.running.is_finished());
        server.write_all(b"the rest").await.unwrap();
        drop(server);
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await.unwrap(), b"the rest");
        let lines = gateway.end().await;
        assert!(lines[0].contains("\"- - -\" 0 - "), "{lines:#?}");
    });
}

#[test]
fn after_the_drains_deadline_connections_are_reset() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let mut client = TcpStream::connect(gateway.tcp).await.unwrap();
        let mut server = upstream.accept().await;
        // One in each phase: relayed, waiting for the first byte, half a hello.
        let mut silent = gateway.connect().await;
        let mut half = gateway.connect().await;
        half.write_all(&hello("a.example")[..50]).await.unwrap();
        until(|| {
            gateway.worker.telemetry.stats.series().iter().any(|s| s.connections_opened() == 1)
        })
        .await;
        gateway.worker.drain.start();
        gateway.worker.drain.expire();
        assert!(is_reset(&mut client).await, "a cut download must not look whole");
        assert!(is_reset(&mut server).await);
        read_all(&mut silent).await.ok();
        read_all(&mut half).await.ok();
        let lines = gateway.end().await;
        assert!(lines.iter().any(|line| line.contains("\"- - -\" 0 LR ")), "{lines:#?}");
    });
}

#[test]
fn an_idle_passthrough_connection_holds_little() {
    const IDLE: usize = 100;
    let held = local(async {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let upstream = listener.local_addr().unwrap();
        // On a thread of its own, so that only the gateway's memory counts.
        thread::spawn(move || {
            let mut open = Vec::new();
            for io in listener.incoming() {
                let mut io = io.unwrap();
                io::Write::write_all(&mut io, b"x").unwrap();
                open.push(io);
            }
        });
        let gateway = Gateway::start(upstream, Limits::default());
        let open = async || {
            let mut clients = Vec::new();
            for _ in 0..IDLE {
                let client = std::net::TcpStream::connect(gateway.tcp).unwrap();
                client.set_nonblocking(true).unwrap();
                until(|| client.peek(&mut [0]).is_ok_and(|read| read == 1)).await;
                clients.push(client);
            }
            clients
        };
        let _first = open().await;
        let before = Allocations::here();
        let _clients = open().await;
        (Allocations::here() - before).held / i64::try_from(IDLE).unwrap()
    });
    println!("an idle passthrough connection: {held} bytes");
    assert!(held <= 2400, "{held}");
}

#[test]
fn an_idle_passthrough_connection_is_small() {
    local(async {
        let upstream = Upstream::new().await;
        let gateway = Gateway::start(upstream.addr, Limits::default());
        let stream = gateway.connect().await;
        let peer = stream.peer_addr().unwrap();
        let downstream = downstream(&gateway.worker, &stream, peer).unwrap();
        let serving =
            connection::serve(Rc::clone(&gateway.worker), downstream, Transport::Plain(stream));
        let size = size_of_val(&serving);
        assert!(size <= 160, "{size} bytes a connection");
    });
}
