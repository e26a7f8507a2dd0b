//! A gateway on loopback in front of an outside world that a test makes up: real sockets, real
//! TLS, real configuration.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::BytesMut;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime,
    task::{LocalSet, spawn_local},
    time::timeout,
};

use crate::{
    config::{Compiled, Problem, Problems, RawFile, compile},
    net::{
        Buffers,
        testing::{Outside, Sockets},
    },
    policy::{AccessLogEncoding, ClusterName, GatewayPolicy, MeshConfig},
    proxy::{
        ConnectionOwner, Downstream, Drain, Limiter, Limits, PolicyCell, Worker,
        http::{self, Version},
    },
    telemetry::{ClusterCounter, Resource, Telemetry},
    tls::{Originator, TrustRoots},
    types::{ClientAddr, GatewayIdentity, Labels, LocalAddr, Namespace, OriginalPort, Port},
};

/// Longer than anything here takes; for what would hang otherwise.
pub(super) const SOON: Duration = Duration::from_secs(20);

const MESH: &str = "
direct: registry
gateways:
- service: istio-egressgateway.istio-system.svc.cluster.local
  labels: {istio: egressgateway}
  endpoints: [192.0.2.10]
";

/// Runs a test whose tasks aren't `Send`.
pub(super) fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(
        LocalSet::new().run_until(async { timeout(15 * SOON, test).await.expect("the test ends") }),
    )
}

/// Waits until `what` holds: for effects that no connection shows.
pub(super) async fn until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !what() {
        assert!(Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What is configured, and what there is outside.
pub(super) struct Setup {
    outside: Outside,
    yaml: String,
    hosts: u8,
    /// More of `mesh.yaml`.
    pub(super) mesh: String,
    pub(super) limits: Limits,
    pub(super) roots: RootCertStore,
    /// Whether there is an access log.
    pub(super) logged: bool,
    /// What its lines have, in JSON.
    pub(super) log_format: &'static str,
}

impl Setup {
    pub(super) fn new() -> Self {
        Self {
            outside: Outside::default(),
            yaml: String::new(),
            hosts: 0,
            mesh: String::new(),
            limits: Limits::default(),
            roots: RootCertStore::empty(),
            logged: true,
            log_format: "istio",
        }
    }

    /// An address of its own for `host`, of which this port leads to `upstream`.
    fn place(&mut self, host: &str, port: u16, upstream: Option<SocketAddr>) {
        self.hosts += 1;
        let ip = format!("198.51.100.{}", self.hosts);
        let mut outside = std::mem::take(&mut self.outside).name(host, &[&ip]);
        if let Some(upstream) = upstream {
            outside = outside.route(&format!("{ip}:{port}"), upstream);
        }
        self.outside = outside;
    }

    /// `host` speaks HTTP on port 80.
    pub(super) fn http(self, host: &str, upstream: SocketAddr) -> Self {
        self.service(host, "HTTP", Some(upstream), "")
    }

    /// `host` has port 80 with this protocol; without an upstream nothing listens there. `policy`
    /// is a `trafficPolicy`, as one line of YAML.
    pub(super) fn service(
        mut self,
        host: &str,
        protocol: &str,
        upstream: Option<SocketAddr>,
        policy: &str,
    ) -> Self {
        self.place(host, 80, upstream);
        self.entry(host, protocol, "", policy)
    }

    /// `host` is reached over TLS on its port 443; `tls` is more of the rule's `tls`.
    pub(super) fn origination(mut self, host: &str, upstream: SocketAddr, tls: &str) -> Self {
        self.place(host, 443, Some(upstream));
        let policy = format!("{{tls: {{mode: SIMPLE{tls}}}}}");
        self.entry(host, "HTTP", ", targetPort: 443", &policy)
    }

    /// `host` has these endpoints on its port 80, with their weights.
    pub(super) fn endpoints(
        mut self,
        host: &str,
        protocol: &str,
        upstreams: &[(SocketAddr, u32)],
        policy: &str,
    ) -> Self {
        let mut endpoints = String::new();
        for (upstream, weight) in upstreams {
            self.hosts += 1;
            let ip = format!("198.51.100.{}", self.hosts);
            self.outside = std::mem::take(&mut self.outside).route(&format!("{ip}:80"), *upstream);
            endpoints += &format!("{{address: {ip}, weight: {weight}}}, ");
        }
        let before = self.yaml.len();
        let mut setup = self.entry(host, protocol, "", policy);
        let own = setup.yaml.split_off(before);
        let list = format!("resolution: STATIC\n  endpoints: [{endpoints}]");
        setup.yaml += &own.replace("resolution: DNS", &list);
        setup
    }

    /// The endpoints so far are there, in their order.
    pub(super) fn localities(&mut self, places: &[&str]) {
        let mut parts = self.yaml.split("weight: ");
        let mut text = parts.next().unwrap_or_default().to_owned();
        let parts: Vec<_> = parts.collect();
        assert_eq!(parts.len(), places.len());
        for (part, place) in parts.into_iter().zip(places) {
            text += &format!("locality: {place}, weight: {part}");
        }
        self.yaml = text;
    }

    /// A wildcard, below which there are these hosts.
    pub(super) fn wildcard(
        mut self,
        wildcard: &str,
        hosts: &[(&str, SocketAddr)],
        policy: &str,
    ) -> Self {
        for (host, upstream) in hosts {
            self.place(host, 80, Some(*upstream));
        }
        let before = self.yaml.len();
        let mut setup = self.entry(wildcard, "HTTP", "", policy);
        let own = setup.yaml.split_off(before);
        setup.yaml += &own
            .replace("name: *-", "name: any-")
            .replace(&format!(" {wildcard}"), &format!(" '{wildcard}'"))
            .replace(&format!("[{wildcard}]"), &format!("['{wildcard}']"))
            .replace("resolution: DNS", "resolution: DYNAMIC_DNS");
        setup
    }

    /// The wildcards so far say nothing of how they are resolved.
    pub(super) fn unresolved(&mut self) {
        assert!(self.yaml.contains("resolution: DYNAMIC_DNS"));
        self.yaml = self.yaml.replace("resolution: DYNAMIC_DNS", "resolution: NONE");
    }

    /// The gateway's sockets to upstreams, from here on.
    pub(super) fn keep_sockets(&mut self) -> Sockets {
        self.outside.keep_sockets()
    }

    /// The policy that it would be with this changed.
    pub(super) fn policy_with(&self, from: &str, to: &str) -> Arc<GatewayPolicy> {
        assert!(self.yaml.contains(from));
        policy(self.yaml.replace(from, to), &self.mesh)
    }

    /// `host` has no address.
    pub(super) fn unknown(self, host: &str) -> Self {
        self.entry(host, "HTTP", "", "")
    }

    /// `host` resolves to this.
    pub(super) fn at(mut self, host: &str, addr: &str) -> Self {
        self.outside = std::mem::take(&mut self.outside).name(host, &[addr]);
        self.entry(host, "HTTP", "", "")
    }

    fn entry(mut self, host: &str, protocol: &str, port: &str, policy: &str) -> Self {
        self.yaml += &format!(
            "
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [{host}]
  ports: [{{number: 80, name: p, protocol: {protocol}{port}}}]
  resolution: DNS
",
            name = host.replace('.', "-"),
        );
        if !policy.is_empty() {
            self.yaml += &format!(
                "
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: default}}
spec:
  host: {host}
  trafficPolicy: {policy}
",
                name = host.replace('.', "-"),
            );
        }
        self
    }

    /// A route for `host` through the gateway; `rule` is more of its gateway stage, indented by
    /// four.
    pub(super) fn route(self, host: &str, rule: &str) -> Self {
        self.route_on(host, "", rule)
    }

    /// The same with more conditions on that stage.
    pub(super) fn route_on(mut self, host: &str, conditions: &str, rule: &str) -> Self {
        self.yaml += &format!(
            "
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: default}}
spec:
  selector: {{istio: egressgateway}}
  servers:
  - port: {{number: 80, name: http, protocol: HTTP}}
    hosts: [{host}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [{host}]
  gateways: [mesh, {name}]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route:
    - destination:
        host: istio-egressgateway.istio-system.svc.cluster.local
        port: {{number: 80}}
  - match: [{{gateways: [{name}], port: 80{conditions}}}]
{rule}
",
            name = host.replace('.', "-"),
        );
        self
    }

    /// Another resource, beside those of the hosts.
    pub(super) fn resource(mut self, kind: &str, name: &str, spec: &str) -> Self {
        self.yaml += &format!(
            "---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, \
             namespace: default}}\nspec: {spec}\n"
        );
        self
    }

    /// Resources as they are, such as those of the Gateway API.
    pub(super) fn manifest(mut self, text: &str) -> Self {
        self.yaml += "---\n";
        self.yaml += text;
        self
    }

    /// With another text in the place of one of the resources so far.
    pub(super) fn edit(mut self, from: &str, to: &str) -> Self {
        assert!(self.yaml.contains(from), "{from} in {}", self.yaml);
        self.yaml = self.yaml.replace(from, to);
        self
    }

    /// What a reader of these resources is told about them.
    pub(super) fn told(&self) -> Vec<Problem> {
        self.compiled().unwrap_or_else(|all| panic!("{all}")).warnings
    }

    /// What the resources come to.
    pub(super) fn compiled(&self) -> Result<Compiled, Problems> {
        let (resources, mesh) = files(self.yaml.clone(), &self.mesh);
        compile(&[resources], Some(&mesh))
    }

    /// The service entry of `host` has this rate limit.
    pub(super) fn annotate(&mut self, host: &str, limit: &str) {
        let before = format!("kind: ServiceEntry\nmetadata: {{name: {},", host.replace('.', "-"));
        assert!(self.yaml.contains(&before));
        let annotations = format!("annotations: {{egress-enforcer.io/rate-limit: '{limit}'}}");
        self.yaml = self.yaml.replace(&before, &format!("{before} {annotations},"));
    }

    /// The service entry of `host` is for all names below it instead.
    pub(super) fn below(&mut self, host: &str) {
        let hosts = format!("hosts: [{host}]");
        assert!(self.yaml.contains(&hosts));
        self.yaml = self.yaml.replace(&hosts, &format!("hosts: ['*.{host}']"));
    }

    /// The gateway's stages of all routes so far are for these requests only.
    pub(super) fn only(&mut self, condition: &str) {
        let before = "], port: 80}]\n    route: [{destination: {host: ";
        let narrowed = format!("], port: 80, {condition}}}]\n    route: [{{destination: {{host: ");
        assert!(self.yaml.contains(before));
        self.yaml = self.yaml.replace(before, &narrowed);
    }

    /// Puts the gateway in front of it all.
    pub(super) async fn start(self) -> Gateway {
        let dir = TempDir::new().unwrap();
        let telemetry = Arc::<Telemetry>::default();
        let mesh = MeshConfig {
            access_log_file: self.logged.then(|| dir.path().join("log").display().to_string()),
            access_log_format: Some(self.log_format.into()),
            access_log_encoding: AccessLogEncoding::Json,
            ..MeshConfig::default()
        };
        telemetry.access_log.configure(&mesh).unwrap();
        let cell = PolicyCell::default();
        cell.store(Some(policy(self.yaml, &self.mesh)));
        let limits = self.limits;
        let limiter = Limiter::new(limits, Arc::clone(telemetry.stats.limits()));
        let dialer = self.outside.clone().dialer();
        let worker = Rc::new(Worker {
            http: http::Shared::new(limits.idle_upstreams, &cell, &dialer),
            policy: cell,
            telemetry,
            dialer,
            originator: Originator::new(TrustRoots::new(self.roots)),
            credentials: Arc::default(),
            buffers: Buffers::new(limits.pipes),
            limits,
            rates: Arc::default(),
            limiter,
            drain: Drain::default(),
        });
        spawn_local(Rc::clone(&worker.limiter).rouse(worker.drain.clone()));
        let h1 = accept(Rc::clone(&worker), Version::H1).await;
        let h2 = accept(Rc::clone(&worker), Version::H2).await;
        Gateway { worker, h1, h2, outside: self.outside, dir }
    }
}

/// The file of resources, and the one of the mesh.
fn files(resources: String, more_mesh: &str) -> (RawFile, RawFile) {
    let file = |path: &str, text: String| RawFile { path: path.into(), text };
    (file("test.yaml", resources), file("mesh.yaml", format!("{MESH}{more_mesh}")))
}

fn policy(resources: String, more_mesh: &str) -> Arc<GatewayPolicy> {
    let (resources, mesh) = files(resources, more_mesh);
    let compiled = compile(&[resources], Some(&mesh));
    in_force(compiled.unwrap_or_else(|problems| panic!("{problems}")))
}

/// What the gateway does with it.
pub(super) fn in_force(compiled: Compiled) -> Arc<GatewayPolicy> {
    let identity = GatewayIdentity {
        labels: Labels::from([("istio".into(), "egressgateway".into())]),
        namespace: Namespace("istio-system".into()),
        addresses: vec!["192.0.2.10".parse().unwrap()],
    };
    Arc::new(GatewayPolicy::new(compiled.snapshot.into(), &identity))
}

/// Accepts as if port 80 had been dialled.
async fn accept(worker: Rc<Worker>, version: Version) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    spawn_local(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            let mut downstream = downstream(&worker, &io);
            let Some(permit) = worker.limiter.admit(&downstream.source) else { continue };
            downstream.holder = permit.holder();
            let serving = {
                let (worker, hop) = (Rc::clone(&worker), http::IncomingHop::Plain);
                http::serve(worker, downstream, hop, io, BytesMut::new(), version)
            };
            spawn_local(async move {
                serving.await;
                drop(permit);
            });
        }
    });
    addr
}

/// A connection as if port 80 had been dialled.
fn downstream(worker: &Worker, io: &TcpStream) -> Downstream {
    let peer = io.peer_addr().unwrap();
    Downstream {
        peer: ClientAddr(peer),
        local: LocalAddr(io.local_addr().unwrap()),
        port: OriginalPort(Port::new(80).unwrap()),
        source: worker.policy().unwrap().source(peer.ip()),
        hop: crate::policy::Hop::Plain,
        encrypted_hello: false,
        tls: None,
        ending: None,
        holder: ConnectionOwner::default(),
        start: Instant::now(),
        start_time: SystemTime::now(),
    }
}

/// A gateway in the test's own thread.
pub(super) struct Gateway {
    pub(super) worker: Rc<Worker>,
    /// Where HTTP/1 is spoken.
    pub(super) h1: SocketAddr,
    /// Where HTTP/2 is spoken.
    pub(super) h2: SocketAddr,
    pub(super) outside: Outside,
    dir: TempDir,
}

impl Gateway {
    pub(super) async fn connect(&self) -> Client {
        Client { io: TcpStream::connect(self.h1).await.unwrap(), read: Vec::new() }
    }

    /// A connection of another source on loopback.
    pub(super) async fn connect_from(&self, source: [u8; 4]) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        Client { io: socket.connect(self.h1).await.unwrap(), read: Vec::new() }
    }

    /// A connection to where HTTP/2 is spoken.
    pub(super) async fn raw_h2(&self) -> TcpStream {
        TcpStream::connect(self.h2).await.unwrap()
    }

    pub(super) async fn connect_h2(&self) -> h2::client::SendRequest<bytes::Bytes> {
        let io = TcpStream::connect(self.h2).await.unwrap();
        let (sender, connection) = h2::client::handshake(io).await.unwrap();
        spawn_local(async move {
            // Its end shows in the requests.
            let _ended = connection.await;
        });
        sender
    }

    /// One request on a connection of its own.
    pub(super) async fn get(&self, host: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        client.answer().await.unwrap()
    }

    /// Bytes of the task that serves a connection of a client.
    pub(super) async fn connection_size(&self) -> usize {
        let io = TcpStream::connect(self.h1).await.unwrap();
        let downstream = downstream(&self.worker, &io);
        let worker = Rc::clone(&self.worker);
        let hop = http::IncomingHop::Plain;
        size_of_val(&http::serve(worker, downstream, hop, io, BytesMut::new(), Version::H1))
    }

    /// Bytes that wait for readers.
    pub(super) fn held(&self) -> u64 {
        self.worker.telemetry.stats.limits().used(Resource::QueuedBytes)
    }

    pub(super) fn cluster(&self, name: &str, counter: ClusterCounter) -> u64 {
        self.worker.telemetry.stats.cluster(&ClusterName(name.into())).get(counter)
    }

    /// The access log's entries, once this many requests are over.
    pub(super) async fn log(&self, count: usize) -> Vec<serde_json::Value> {
        until(|| self.lines().len() >= count).await;
        let lines = self.lines();
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }

    /// Those that are there already.
    pub(super) fn lines(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        // A line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// A response as a client reads it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Lower case, as it was sent.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A client that says exactly what it is told to.
pub(super) struct Client {
    pub(super) io: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub(super) async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next response, of a request that isn't HEAD.
    ///
    /// # Errors
    /// The connection ended before the response did.
    pub(super) async fn answer(&mut self) -> io::Result<Answer> {
        let head = head(&mut self.io, &mut self.read).await?;
        let status = head[9..12].parse().unwrap();
        let mut body = Vec::new();
        if head.contains("transfer-encoding: chunked") {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(&line, 16).unwrap();
                let mut chunk = self.take(size + 2).await?;
                chunk.truncate(size);
                body.extend_from_slice(&chunk);
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = length(&head) {
            body = self.take(length).await?;
        } else if status >= 200 && status != 204 && status != 304 {
            timeout(SOON, self.io.read_to_end(&mut self.read)).await.expect("an end")?;
            body = std::mem::take(&mut self.read);
        }
        Ok(Answer { status, head, body })
    }

    /// Only the head.
    pub(super) async fn head(&mut self) -> io::Result<String> {
        head(&mut self.io, &mut self.read).await
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8(self.read.drain(..end + 2).collect()).unwrap();
                return Ok(line.trim_end().to_owned());
            }
            more(&mut self.io, &mut self.read).await?;
        }
    }

    pub(super) async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < length {
            more(&mut self.io, &mut self.read).await?;
        }
        Ok(self.read.drain(..length).collect())
    }

    /// Whether the connection ends here, in good order.
    pub(super) async fn is_closed(&mut self) -> bool {
        assert!(self.read.is_empty(), "{:?}", String::from_utf8_lossy(&self.read));
        matches!(timeout(SOON, self.io.read(&mut [0])).await.expect("an end"), Ok(0))
    }
}

async fn more(io: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> io::Result<()> {
    match timeout(SOON, io.read_buf(read)).await.expect("bytes")? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// A head, its empty line included.
pub(super) async fn head(
    io: &mut (impl AsyncRead + Unpin),
    read: &mut Vec<u8>,
) -> io::Result<String> {
    loop {
        if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            return Ok(String::from_utf8(read.drain(..end + 4).collect()).unwrap());
        }
        more(io, read).await?;
    }
}

fn length(head: &str) -> Option<usize> {
    let line = head.lines().find(|line| line.to_lowercase().starts_with("content-length:"))?;
    line.split_once(':').unwrap().1.trim().parse().ok()
}

/// A request's head and body.
type Request = (String, Vec<u8>);

/// What an upstream has seen.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) connections: Rc<Cell<usize>>,
    /// Head and body of each request.
    pub(super) requests: Rc<RefCell<Vec<Request>>>,
}

impl Seen {
    pub(super) fn heads(&self) -> Vec<String> {
        self.requests.borrow().iter().map(|(head, _)| head.clone()).collect()
    }
}

/// An upstream that treats each connection (numbered from 0) so.
pub(super) async fn upstream<F: Future<Output = ()> + 'static>(
    serve: impl Fn(TcpStream, usize, Seen) -> F + 'static,
) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seen = Seen::default();
    let shared = seen.clone();
    spawn_local(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            let number = shared.connections.get();
            shared.connections.set(number + 1);
            spawn_local(serve(io, number, shared.clone()));
        }
    });
    (addr, seen)
}

/// An upstream that answers every request with `response`.
pub(super) async fn answering(response: &'static str) -> (SocketAddr, Seen) {
    upstream(move |io, _, seen| answer_all(io, seen, response)).await
}

/// Answers every request on a connection.
pub(super) async fn answer_all(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    seen: Seen,
    response: &'static str,
) {
    let mut read = Vec::new();
    while let Ok(request) = request(&mut io, &mut read).await {
        seen.requests.borrow_mut().push(request);
        if io.write_all(response.as_bytes()).await.is_err() || io.flush().await.is_err() {
            return;
        }
    }
}

/// A whole request.
pub(super) async fn request(
    io: &mut (impl AsyncRead + Unpin),
    read: &mut Vec<u8>,
) -> io::Result<Request> {
    let head = head(io, read).await?;
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        // What tests send has no empty line before its end.
        while !read.windows(4).any(|w| w == b"\r\n\r\n") {
            more(io, read).await?;
        }
        body = std::mem::take(read);
    } else if let Some(length) = length(&head) {
        while read.len() < length {
            more(io, read).await?;
        }
        body = read.drain(..length).collect();
    }
    Ok((head, body))
}

/// A certificate authority made on the spot.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) roots: RootCertStore,
}

impl Authority {
    /// Of this name: two of the same name would be taken for each other's forgeries.
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        Self { issuer: Issuer::new(params, key), roots }
    }

    /// A server's settings for `name`, valid for the given years.
    pub(super) fn server(&self, name: &str, years: [i32; 2], alpn: &[&str]) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years[0], 1, 1);
        params.not_after = rcgen::date_time_ymd(years[1], 1, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![cert.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}
