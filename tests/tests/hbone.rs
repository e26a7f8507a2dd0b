//! The gateway's side of the tunnel, asked by a client that was written from the description of HBONE
//! alone: mutual TLS 1.3, HTTP/2, CONNECT, the original destination as authority, `baggage` and
//! `forwarded`. Who is served, and who is refused and why.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    fs,
    future::poll_fn,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use egress_tests::{
    ca::{Authority, Subject, Time, issue_mutual, revocation_list},
    plan::{APP, GATEWAYS, HOST, NEIGHBOUR, POD, TCP_SERVICE, WEB},
    process::Process,
    resources::web_service,
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, patiently, until, until_is},
};
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{Method, Request, StatusCode};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::TcpStream,
    task::JoinSet,
    time::{Duration, timeout},
};
use tokio_rustls::TlsConnector;

const GATEWAY_ID: &str =
    "spiffe://cluster.local/ns/istio-system/sa/istio-egressgateway-service-account";
const NODE: &str = "spiffe://cluster.local/ns/kube-system/sa/node-1";
const OTHER_NODE: &str = "spiffe://cluster.local/ns/kube-system/sa/node-2";
const WORKLOAD: &str = "spiffe://cluster.local/ns/apps/sa/sleeper";
const BAGGAGE: &str = "k8s.cluster.name=Kubernetes,k8s.namespace.name=apps,\
                       k8s.deployment.name=sleep,service.name=sleep,service.version=latest";
const PORT: u16 = 15008;
/// TLS as it is to be spoken, and as it was.
static NEW: &[&SupportedProtocolVersion] = &[&version::TLS13];
static OLD: &[&SupportedProtocolVersion] = &[&version::TLS12];
const PATIENCE: Duration = Duration::from_secs(20);
/// What the outside's long download has, in bytes.
const DOWNLOAD: usize = 40 << 20;

/// A gateway alone: no node's agent leads anything to it.
struct Site {
    gateway: Process,
    testbed: Testbed,
    root: Authority,
}

/// What a client shows, and how it speaks.
#[derive(Clone)]
struct Client {
    certificate: Option<(String, String)>,
    roots: String,
    versions: &'static [&'static SupportedProtocolVersion],
    alpn: &'static [u8],
}

impl Site {
    fn new() -> Self {
        let testbed = Testbed::test(1).unwrap();
        let root = Authority::new("Mesh authority").unwrap();
        let identity = testbed.dir().join("identity");
        fs::create_dir(&identity).unwrap();
        let subject = Subject { name: HOST, uri: GATEWAY_ID, serial: 1, time: Time::Now };
        let (certificate, key) = issue_mutual(&root, &subject).unwrap();
        for (name, text) in [
            ("tls.crt", &certificate),
            ("tls.key", &key),
            ("ca.crt", &root.pem()),
            ("ca.crl", &revocation_list(&root, &[66]).unwrap()),
        ] {
            fs::write(identity.join(name), text).unwrap();
        }
        let mesh = format!(
            "{}accessLogEncoding: JSON
accessLogFormat: istio
nodes:
- {{name: node-1, principal: {NODE}}}
- {{name: node-2, principal: {OTHER_NODE}, addresses: [{APP}]}}
workloads:
- {{name: sleep, namespace: apps, serviceAccount: sleeper, addresses: [{POD}], node: node-1}}
- {{name: other, namespace: apps, addresses: [{NEIGHBOUR}], node: node-2}}
- {{name: lost, namespace: apps, addresses: [10.244.9.9]}}
",
            mesh_yaml(1)
        );
        testbed.apply_mesh(&mesh).unwrap();
        testbed.apply("tunnel.yaml", &resources()).unwrap();
        let gateway = testbed
            .start_gateway_with(0, &["--identity-dir".into(), identity.display().to_string()]);
        Self { gateway: gateway.unwrap(), testbed, root }
    }

    fn identity(&self, name: &str) -> PathBuf {
        self.testbed.dir().join("identity").join(name)
    }

    fn client(&self, root: &Authority, subject: &Subject<'_>) -> Client {
        Client {
            certificate: Some(issue_mutual(root, subject).unwrap()),
            roots: self.root.pem(),
            versions: NEW,
            alpn: b"h2",
        }
    }

    fn node(&self) -> Client {
        self.client(&self.root, &subject(NODE))
    }

    /// Runs a client on the application's node.
    fn on_node<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        self.on_node_for(PATIENCE, work)
    }

    /// The same, at most so long.
    fn on_node_for<T: Send>(&self, limit: Duration, work: impl AsyncFnOnce() -> T + Send) -> T {
        let inside = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async { timeout(patiently(limit), work()).await.unwrap() })
        };
        self.testbed.app().ns.enter(inside).unwrap()
    }

    fn metrics(&self) -> String {
        let url = "http://localhost:15090/stats/prometheus";
        self.testbed.gateway(0).run("curl", &["-s", url]).unwrap().stdout
    }

    fn denied_total(&self, reason: &str) -> u64 {
        let metric = format!("egress_denied_total{{reason=\"{reason}\"}} ");
        let text = self.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(&metric));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    fn logged(&self, reason: &str) -> usize {
        let quoted = format!("\"reason\":\"{reason}\"");
        self.gateway.stdout().lines().filter(|line| line.contains(&quoted)).count()
    }

    fn in_flows(&self, reason: &str) -> usize {
        let (agent, control) = (self.testbed.agent(), self.testbed.gateway_control(0));
        let (agent, control) = (agent.to_string_lossy(), control.to_string_lossy());
        let args = ["flows", "--control", &control, "-o", "json"];
        let done = self.testbed.gateway(0).run(&agent, &args).unwrap();
        assert!(done.ok(), "{done:?}");
        done.stdout.matches(&format!("\"reason\":\"{reason}\"")).count()
    }

    /// What went out to any upstream.
    fn sent(&self) -> u64 {
        let text = self.metrics();
        let counted = text.lines().filter(|line| {
            line.starts_with("envoy_cluster_upstream_cx_total{cluster_name=\"outbound|")
        });
        counted.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// What `attempt` does is refused for this reason: in the log, in the metric and in `flows`.
    fn denied<T: Send + std::fmt::Debug>(
        &self,
        reason: &str,
        attempt: impl AsyncFnOnce() -> Result<T> + Send,
    ) {
        let (counted, logged) = (self.denied_total(reason), self.logged(reason));
        let (flows, sent) = (self.in_flows(reason), self.sent());
        let outcome = self.on_node(attempt);
        assert!(outcome.is_err(), "{reason}: {outcome:?} was served");
        until(SOON, &format!("{reason} in metric, log and flows"), || {
            let told = self.denied_total(reason) > counted
                && self.logged(reason) > logged
                && self.in_flows(reason) > flows;
            told.then_some(())
        })
        .unwrap_or_else(|error| panic!("{error:#}:\n{}", self.gateway.stdout()));
        assert_eq!(self.sent(), sent, "something was sent on, although it was refused: {reason}");
    }
}

fn subject(uri: &str) -> Subject<'_> {
    Subject { name: "node.example", uri, serial: 65, time: Time::Now }
}

/// HTTP, TLS and raw TCP, each led to a server of the gateway that asks for mutual TLS.
fn resources() -> String {
    let service = "istio-egressgateway.istio-system.svc.cluster.local";
    let web = web_service("outside", HOST);
    format!(
        "{web}apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: raw}}
spec:
  hosts: [tcp.example.com]
  addresses: [{TCP_SERVICE}]
  ports: [{{number: 5432, name: tcp, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: {TCP_SERVICE}}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: egress}}
spec:
  selector: {{istio: egressgateway}}
  servers:
  - port: {{number: 80, name: https, protocol: HTTPS}}
    hosts: [{HOST}]
    tls: {{mode: ISTIO_MUTUAL}}
  - port: {{number: 443, name: tls, protocol: TLS}}
    hosts: [{HOST}]
    tls: {{mode: ISTIO_MUTUAL}}
  - port: {{number: 15432, name: tcp, protocol: TLS}}
    hosts: [tcp.example.com]
    tls: {{mode: ISTIO_MUTUAL}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: hop}}
spec:
  host: {service}
  trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: outside}}
spec:
  hosts: [{HOST}]
  gateways: [mesh, egress]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route: [{{destination: {{host: {service}, port: {{number: 80}}}}}}]
  - match: [{{gateways: [egress], port: 80, sourceNamespace: apps}}]
    route: [{{destination: {{host: {HOST}, port: {{number: 80}}}}}}]
  tls:
  - match: [{{gateways: [mesh], port: 443, sniHosts: [{HOST}]}}]
    route: [{{destination: {{host: {service}, port: {{number: 443}}}}}}]
  tcp:
  - match: [{{gateways: [egress], port: 443}}]
    route: [{{destination: {{host: {HOST}, port: {{number: 443}}}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: raw}}
spec:
  hosts: [tcp.example.com]
  gateways: [mesh, egress]
  tcp:
  - match: [{{gateways: [mesh], port: 5432}}]
    route: [{{destination: {{host: {service}, port: {{number: 15432}}}}}}]
  - match: [{{gateways: [egress], port: 15432}}]
    route: [{{destination: {{host: tcp.example.com, port: {{number: 5432}}}}}}]
"
    )
}

impl Client {
    async fn tls(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.roots.as_bytes()) {
            roots.add(certificate?)?;
        }
        let builder = ClientConfig::builder_with_protocol_versions(self.versions)
            .with_root_certificates(roots);
        let mut config = match &self.certificate {
            Some((chain, key)) => builder.with_client_auth_cert(
                CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>()?,
                PrivateKeyDer::from_pem_slice(key.as_bytes())?,
            )?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![self.alpn.to_vec()];
        let stream = TcpStream::connect((GATEWAYS[0], PORT)).await?;
        let name = ServerName::try_from(HOST)?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }

    /// Opens a tunnel.
    async fn open(&self) -> Result<SendRequest<Bytes>> {
        let (client, connection) = h2::client::handshake(self.tls().await?).await?;
        tokio::spawn(connection);
        Ok(client.ready().await?)
    }

    /// A connection in a tunnel of its own.
    async fn dial(&self, to: &str, headers: &[(&str, &str)]) -> Result<DuplexStream> {
        let mut tunnel = self.open().await?;
        dial(&mut tunnel, to, headers).await
    }
}

/// The answer to a CONNECT.
async fn ask(
    tunnel: &mut SendRequest<Bytes>,
    method: Method,
    to: &str,
    headers: &[(&str, &str)],
) -> Result<(StatusCode, SendStream<Bytes>, RecvStream)> {
    let mut request = Request::builder().method(method).uri(to);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    poll_fn(|cx| tunnel.poll_ready(cx)).await?;
    let (response, send) = tunnel.send_request(request.body(())?, false)?;
    let response = response.await?;
    Ok((response.status(), send, response.into_body()))
}

/// A connection in the tunnel, as bytes.
async fn dial(
    tunnel: &mut SendRequest<Bytes>,
    to: &str,
    headers: &[(&str, &str)],
) -> Result<DuplexStream> {
    let (status, send, receive) = ask(tunnel, Method::CONNECT, to, headers).await?;
    if status != StatusCode::OK {
        bail!("{to}: {status}");
    }
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (read, write) = tokio::io::split(far);
    tokio::spawn(upload(read, send));
    tokio::spawn(download(receive, write));
    Ok(near)
}

async fn upload(mut from: impl AsyncRead + Unpin, mut to: SendStream<Bytes>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        let last = read == 0;
        if to.send_data(Bytes::copy_from_slice(&buffer[..read]), last).is_err() || last {
            return;
        }
    }
}

async fn download(mut from: RecvStream, mut to: impl AsyncWrite + Unpin) {
    while let Some(Ok(bytes)) = from.data().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        from.flow_control().release_capacity(bytes.len()).unwrap();
    }
    to.shutdown().await.ok();
}

const FROM: (&str, &str) = ("baggage", BAGGAGE);

fn forwarded() -> String {
    format!("for=\"{POD}:41234\"")
}

/// One request, and the first line of its answer.
async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<String> {
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    Ok(answer.lines().next().context("no answer")?.to_owned())
}

#[test]
fn a_client_written_from_the_description_is_served() {
    let site = Site::new();
    let node = site.node();
    let outside = fs::read_to_string(site.testbed.dir().join("ca.pem")).unwrap();
    let forwarded = forwarded();
    let from = [FROM, ("forwarded", &forwarded)];
    let (http, tls, echo) = site.on_node(async || {
        // All of them in one tunnel, at the same time.
        let mut tunnel = node.open().await.unwrap();
        let http = dial(&mut tunnel, &format!("{WEB}:80"), &from).await.unwrap();
        let secure = dial(&mut tunnel, &format!("{WEB}:443"), &from).await.unwrap();
        let mut raw = dial(&mut tunnel, &format!("{TCP_SERVICE}:5432"), &from).await.unwrap();
        raw.write_all(b"one").await.unwrap();
        let mut echo = vec![0; 3];
        raw.read_exact(&mut echo).await.unwrap();
        let http = get(http).await.unwrap();
        // TLS of the application inside, with the outside's own certificate.
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(outside.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(HOST).unwrap();
        let tls = get(connector.connect(name, secure).await.unwrap()).await.unwrap();
        // The end of one direction isn't the end of the other.
        raw.write_all(b"two").await.unwrap();
        raw.shutdown().await.unwrap();
        raw.read_to_end(&mut echo).await.unwrap();
        (http, tls, echo)
    });
    assert_eq!(http, "HTTP/1.1 301 Moved Permanently", "{}", site.gateway.stdout());
    assert_eq!(tls, "HTTP/1.1 200 OK");
    assert_eq!(echo, b"onetwo");
    // Who it was: the workload, as its node vouches for it.
    let line = |wanted: &str| {
        until(SOON, wanted, || {
            let text = site.gateway.stdout();
            text.lines().find(|line| line.contains(wanted)).map(str::to_owned)
        })
        .unwrap()
    };
    for cluster in [
        format!("outbound|80||{HOST}"),
        format!("outbound|443||{HOST}"),
        "outbound|5432||tcp.example.com".to_owned(),
    ] {
        let line = line(&format!("\"upstream_cluster\":\"{cluster}\""));
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["workload"], "sleep", "{line}");
        assert_eq!(json["workload_namespace"], "apps", "{line}");
        assert_eq!(json["source_principal"], WORKLOAD, "{line}");
        assert_eq!(json["tunnel_principal"], NODE, "{line}");
        assert_eq!(json["downstream_remote_address"], format!("{POD}:41234"), "{line}");
    }
    let metrics = site.metrics();
    for metric in ["istio_requests_total{", "istio_tcp_connections_opened_total{"] {
        let counted = metrics.lines().any(|line| {
            line.starts_with(metric)
                && line.contains(&format!("source_principal=\"{WORKLOAD}\""))
                && line.contains("connection_security_policy=\"mutual_tls\"")
        });
        assert!(counted, "{metric}\n{metrics}");
    }
}

#[test]
fn everybody_else_is_refused() {
    let site = Site::new();
    let node = site.node();
    let web = format!("{WEB}:80");
    let serve = async |client: &Client| get(client.dial(&web, &[FROM]).await?).await;
    assert!(site.on_node(async || serve(&node).await.is_ok()), "{}", site.gateway.stdout());

    // Whose certificate isn't good, or isn't there.
    let stranger = Authority::new("Unknown authority").unwrap();
    let with = |time, serial| site.client(&site.root, &Subject { time, serial, ..subject(NODE) });
    let cases = [
        ("no_client_certificate", Client { certificate: None, ..node.clone() }),
        ("untrusted_client_certificate", site.client(&stranger, &subject(NODE))),
        (
            "client_identity",
            site.client(&site.root, &subject("spiffe://other.example/ns/kube-system/sa/node-1")),
        ),
        ("client_identity", site.client(&site.root, &subject("https://node-1.example/"))),
        ("expired_client_certificate", with(Time::Over, 67)),
        ("expired_client_certificate", with(Time::ToCome, 68)),
        ("revoked_client_certificate", with(Time::Now, 66)),
        ("downstream_tls", Client { versions: OLD, ..node.clone() }),
        ("downstream_tls", Client { alpn: b"http/1.1", ..node.clone() }),
    ];
    for (reason, client) in &cases {
        site.denied(reason, async || serve(client).await);
    }
    // No TLS at all: HTTP/2 in clear.
    site.denied("downstream_tls", async || {
        let stream = TcpStream::connect((GATEWAYS[0], PORT)).await?;
        let (mut client, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        get(dial(&mut client, &web, &[FROM]).await?).await
    });

    // Who speaks for a workload that isn't theirs.
    let other = site.client(&site.root, &subject(OTHER_NODE));
    let stolen = site.client(&site.root, &subject("spiffe://cluster.local/ns/apps/sa/default"));
    let claim = |name: &str| format!("k8s.namespace.name=apps,k8s.pod.name={name}");
    let (nobody, lost, theirs) = (claim("nobody"), claim("lost"), claim("other"));
    for (client, headers) in [
        (&other, &[FROM][..]),
        (&stolen, &[FROM]),
        (&node, &[("baggage", &*nobody)]),
        (&node, &[("baggage", &*lost)]),
        (&node, &[("baggage", &*theirs)]),
        (&node, &[FROM, ("forwarded", "for=10.244.9.9")]),
        (&node, &[]),
    ] {
        site.denied("claimed_workload", async || get(client.dial(&web, headers).await?).await);
    }
    assert!(site.on_node(async || {
        get(other.dial(&web, &[("baggage", &*theirs)]).await.unwrap()).await.is_ok()
    }));

    // Nothing is served in clear instead.
    let direct = format!("{HOST}:80:{}", GATEWAYS[0]);
    let (counted, logged) = (site.denied_total("plaintext_hop"), site.logged("plaintext_hop"));
    let args = ["-s", "--resolve", &direct, &format!("http://{HOST}/")];
    let body = site.testbed.app().run("curl", &args).unwrap().stdout;
    assert!(body.contains("mutual TLS"), "{body}");
    until(SOON, "plaintext_hop", || {
        let told = site.denied_total("plaintext_hop") > counted
            && site.logged("plaintext_hop") > logged
            && site.in_flows("plaintext_hop") > 0;
        told.then_some(())
    })
    .unwrap();
}

/// Method, authority, headers; status and reason of the answer.
type Case<'a> = (Method, &'a str, &'a [(&'a str, &'a str)], u16, &'a str);

#[test]
fn what_is_asked_wrongly_is_answered_with_a_status() {
    let site = Site::new();
    let node = site.node();
    let web = format!("{WEB}:80");
    let get = Method::GET;
    let connect = Method::CONNECT;
    let name = format!("{HOST}:80");
    let url = format!("https://{HOST}/");
    let twice = [FROM, ("baggage", "k8s.namespace.name=other")];
    let unrouted = format!("{WEB}:8443");
    let cases: [Case<'_>; 6] = [
        (connect.clone(), &name, &[FROM], 400, "bad_request"),
        (connect.clone(), &web, &twice, 400, "bad_request"),
        (connect.clone(), &web, &[("forwarded", "for=unknown")], 400, "bad_request"),
        (get, &url, &[FROM], 405, "bad_request"),
        (connect.clone(), &unrouted, &[FROM], 403, "no_route"),
        (connect, &web, &[], 403, "claimed_workload"),
    ];
    // One tunnel for all: a refusal ends its stream alone.
    let statuses: Vec<u16> = site.on_node(async || {
        let mut tunnel = node.open().await.unwrap();
        let mut statuses = Vec::new();
        for (method, to, headers, ..) in &cases {
            let asked = ask(&mut tunnel, method.clone(), to, headers).await.unwrap();
            statuses.push(asked.0.as_u16());
        }
        statuses.push(ask(&mut tunnel, Method::CONNECT, &web, &[FROM]).await.unwrap().0.as_u16());
        statuses
    });
    let wanted: Vec<u16> = cases.iter().map(|(.., status, _)| *status).chain([200]).collect();
    assert_eq!(statuses, wanted, "{}", site.gateway.stdout());
    // Each of them is reported.
    for (.., reason) in &cases {
        let all = cases.iter().filter(|(.., other)| other == reason).count();
        let told = || {
            let counted = usize::try_from(site.denied_total(reason)).unwrap();
            [site.logged(reason), counted, site.in_flows(reason)]
        };
        until_is(SOON, reason, told, |told| told.iter().all(|told| *told >= all)).unwrap();
    }
}

/// A connection that has served some bytes and now waits for more.
async fn echoing(client: &Client) -> DuplexStream {
    let mut raw = client.dial(&format!("{TCP_SERVICE}:5432"), &[FROM]).await.unwrap();
    raw.write_all(b"one").await.unwrap();
    raw.read_exact(&mut [0; 3]).await.unwrap();
    raw
}

#[test]
fn a_revoked_certificate_ends_a_live_tunnel() {
    let site = Site::new();
    let node = site.node();
    let (crl, more) = (site.identity("ca.crl"), revocation_list(&site.root, &[65, 66]).unwrap());
    let beside = site.identity(".crl.new");
    let broke = site.on_node(async || {
        let mut raw = echoing(&node).await;
        // A request in a tunnel of its own, in the middle of its response.
        let mut http = node.dial(&format!("{WEB}:80"), &[FROM]).await.unwrap();
        let request = format!("GET /download HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        http.write_all(request.as_bytes()).await.unwrap();
        http.read_exact(&mut [0; 1024]).await.unwrap();
        fs::write(&beside, &more).unwrap();
        fs::rename(&beside, &crl).unwrap();
        // Both end by themselves, without another byte to them.
        let mut rest = Vec::new();
        http.read_to_end(&mut rest).await.ok();
        raw.read(&mut [0; 3]).await.unwrap_or(0) == 0 && rest.len() < DOWNLOAD
    });
    assert!(broke);
    let reason = "revoked_client_certificate";
    // The request is accounted for as the connection is: by what ended it.
    let request = until(SOON, "the request in the log", || {
        let log = site.gateway.stdout();
        log.lines().find(|line| line.contains("\"path\":\"/download\"")).map(str::to_owned)
    })
    .unwrap();
    let request: serde_json::Value = serde_json::from_str(&request).unwrap();
    assert_eq!(request["reason"], reason, "{request}");
    assert_eq!(request["response_flags"], "LR", "{request}");
    assert_eq!(request["response_code"], 200, "{request}");
    // Two tunnels, the connection in one and the request in the other.
    until(SOON, reason, || (site.logged(reason) == 4).then_some(())).unwrap();
    assert_eq!(site.denied_total(reason), 4);
    site.denied(reason, async || {
        let raw = node.dial(&format!("{TCP_SERVICE}:5432"), &[FROM]).await?;
        drop(raw);
        Ok(())
    });
}

#[test]
fn an_expired_certificate_ends_a_live_tunnel() {
    let site = Site::new();
    // Certificates tell time in whole seconds.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs() + 20);
    let brief = Subject { time: Time::Until(end), serial: 70, ..subject(NODE) };
    let brief = site.client(&site.root, &brief);
    let broke = site.on_node_for(SOON * 2, async || {
        echoing(&brief).await.read(&mut [0; 3]).await.unwrap_or(0) == 0
    });
    assert!(broke);
    assert!(SystemTime::now() >= end, "not before it expired");
    let reason = "expired_client_certificate";
    // The tunnel, and the connection in it.
    until(SOON, reason, || (site.logged(reason) == 2).then_some(()))
        .unwrap_or_else(|error| panic!("{error:#}:\n{}", site.gateway.stdout()));
    site.denied(reason, async || get(brief.dial(&format!("{WEB}:80"), &[FROM]).await?).await);
    // Whose certificate is good is served on.
    let node = site.node();
    let answer = site.on_node(async || get(node.dial(&format!("{WEB}:80"), &[FROM]).await?).await);
    assert_eq!(answer.unwrap(), "HTTP/1.1 301 Moved Permanently", "{}", site.gateway.stdout());
}

/// A tunnel of a client whose own windows hold up nobody.
async fn open_wide(client: &Client) -> SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 30);
    let (client, connection) = builder.handshake(client.tls().await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

/// Sends and has it echoed, some times. Gives the time that each took.
async fn echoed(
    mut stream: DuplexStream,
    size: usize,
    times: usize,
    pause: Duration,
) -> Vec<Duration> {
    let (sent, mut got) = (vec![7; size], vec![0; size]);
    let mut took = Vec::new();
    for _ in 0..times {
        let start = Instant::now();
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let (written, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        assert!(sent == got);
        took.push(start.elapsed());
        tokio::time::sleep(pause).await;
    }
    took
}

/// So many at once send and have it echoed: the p99 of how long that took.
async fn worked(tunnel: &mut SendRequest<Bytes>, echo: &str, count: usize) -> Duration {
    let forwarded = forwarded();
    let from = [FROM, ("forwarded", &forwarded)];
    let mut working = JoinSet::new();
    for _ in 0..count {
        let stream = dial(tunnel, echo, &from).await.unwrap();
        working.spawn(echoed(stream, 32 * 1024, 20, Duration::ZERO));
    }
    let mut took = working.join_all().await.concat();
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Fifty that neither read nor are read from, fifty that trickle, four that send tiny frames which
/// nobody takes, and fifty that work, in one tunnel.
#[test]
fn streams_that_stall_hold_up_no_others_of_their_tunnel() {
    const EACH: usize = 50;
    // Those that work wait at most twice as long as without the others, or as long as a busy machine lets any
    // process wait. Whoever is held up waits for tens of seconds.
    const FLOOR: Duration = Duration::from_secs(1);
    const ROUNDS: usize = 5;
    // Ends a test that hangs: a busy machine takes its time for all the rounds.
    const LIMIT: Duration = Duration::from_secs(300);
    let site = Site::new();
    let node = site.node();
    let forwarded = forwarded();
    let from = [FROM, ("forwarded", &forwarded)];
    let echo = format!("{TCP_SERVICE}:5432");
    // Memory of the gateway that no file backs, in KiB.
    let memory = || {
        let status = fs::read_to_string(format!("/proc/{}/status", site.gateway.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = memory();
    let held = || site.testbed.stat(0, "egress.limit.queued_bytes.used").unwrap();
    let tunnel = site.on_node_for(LIMIT, async || {
        let mut tunnel = open_wide(&node).await;
        let idle = worked(&mut tunnel, &echo, EACH).await;
        let mut stalled = Vec::new();
        // 400,000 frames of ten bytes each: the library counts one as 256 bytes against what it bears of a peer.
        let tiny = std::iter::repeat_n((10, 100_000), 4);
        let large = std::iter::repeat_n((16 * 1024, (8 << 20) / 16 / (16 * 1024)), EACH);
        for (size, frames) in large.chain(tiny) {
            let (status, mut send, receive) =
                ask(&mut tunnel, Method::CONNECT, &echo, &from).await.unwrap();
            assert_eq!(status, StatusCode::OK);
            // More than all windows and sockets on the way take; what they don't waits here.
            for _ in 0..frames {
                send.send_data(Bytes::from(vec![1; size]), false).unwrap();
            }
            stalled.push((send, receive));
        }
        let mut trickling = JoinSet::new();
        for _ in 0..EACH {
            let stream = dial(&mut tunnel, &echo, &from).await.unwrap();
            trickling.spawn(echoed(stream, 1, 1_000_000, Duration::from_millis(10)));
        }
        // Once what the others send has filled all buffers: until then it keeps the machine busy.
        let (bound, mut seen) = ((2 * idle).max(FLOOR), Vec::new());
        while seen.last().is_none_or(|p99| *p99 > bound) {
            assert!(seen.len() < ROUNDS, "{seen:?}, {idle:?} without others");
            seen.push(worked(&mut tunnel, &echo, EACH).await);
        }
        println!("p99 {seen:?}, without others {idle:?}");
        assert_eq!(trickling.len(), EACH);
        assert!(trickling.try_join_next().is_none(), "none was ended");
        (tunnel, stalled.len())
    });
    assert_eq!(tunnel.1, EACH + 4);
    let most = memory();
    assert!(most < before + 160 * 1024, "{most} KiB, {before} before");
    // The client's runtime has ended, and its streams with it.
    drop(tunnel);
    let fallen = until(SOON, "the memory to be given back", || {
        (held() == 0 && memory() < before + 96 * 1024).then_some(())
    });
    fallen.unwrap();
}

#[test]
fn an_idle_tunnel_does_not_hold_up_the_end() {
    let mut site = Site::new();
    let node = site.node();
    let web = format!("{WEB}:80");
    let (told, asked) = std::sync::mpsc::channel();
    let ns = &site.testbed.app().ns;
    // The tunnel stays open in a thread of its own until the gateway says that it goes.
    let client = ns
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let (mut client, connection) =
                    h2::client::handshake(node.tls().await.unwrap()).await.unwrap();
                let connection = tokio::spawn(connection);
                let stream = dial(&mut client, &web, &[FROM]).await.unwrap();
                told.send(get(stream).await.unwrap()).unwrap();
                // A graceful end: no error.
                connection.await.unwrap().unwrap();
            });
        })
        .unwrap();
    assert_eq!(asked.recv().unwrap(), "HTTP/1.1 301 Moved Permanently");
    let status = site.gateway.end().unwrap();
    assert!(status.success(), "{status}");
    client.join().unwrap();
}
