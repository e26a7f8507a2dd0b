//! Gateway servers that end TLS, with real clients: who is served in each mode, who is refused and
//! why, and that nothing is lost while certificates are replaced.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    cell::Cell,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use egress_tests::{
    ca::{Authority, Subject, Time, issue_mutual, issue_rsa_pem, revocation_list},
    plan::{GATEWAYS, HOST},
    process::Process,
    resources::web_service,
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until},
};
use rustls::crypto::aws_lc_rs::kx_group;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

const GATEWAY_ID: &str =
    "spiffe://cluster.local/ns/istio-system/sa/istio-egressgateway-service-account";
const CLIENT_ID: &str = "spiffe://cluster.local/ns/default/sa/sleep";

const SIMPLE: u16 = 20443;
const MUTUAL: u16 = 21443;
const OPTIONAL: u16 = 22443;
const MESH: u16 = 23443;
const NEWEST: u16 = 24443;
const RAW: u16 = 25443;
const BROKEN: u16 = 26443;
const NAMED_PAIR: u16 = 27443;
const PAIR_OF_FILES: u16 = 28443;
const HALF_A_PAIR: u16 = 29443;
const FILES: u16 = 30443;
const BESIDE_FILES: u16 = 31443;

/// A gateway that terminates TLS in every mode, its CAs, and clients' certificates.
struct Site {
    /// Ended before the hosts are taken away.
    gateway: Process,
    _node: Process,
    testbed: Testbed,
    root: Authority,
    versions: Cell<u32>,
}

impl Site {
    fn new() -> Self {
        let testbed = Testbed::test(1).unwrap();
        let dir = testbed.dir();
        let root = Authority::new("Mesh authority").unwrap();
        let credentials = dir.join("credentials");
        fs::create_dir(&credentials).unwrap();
        fs::create_dir(dir.join("clients")).unwrap();
        fs::write(dir.join("mesh-ca.pem"), root.pem()).unwrap();
        let mesh = format!("{}accessLogEncoding: JSON\n", mesh_yaml(1));
        testbed.apply_mesh(&mesh).unwrap();
        let site = |gateway, node, testbed, root| Self {
            gateway,
            _node: node,
            testbed,
            root,
            versions: Cell::new(0),
        };
        publish(&credentials.join("web"), 0, &secret(&root, 1), &root.pem());
        let files = secret(&root, 2);
        fs::write(dir.join("server.crt"), &files.0).unwrap();
        fs::write(dir.join("server.key"), &files.1).unwrap();
        fs::write(dir.join("server.crl"), revocation_list(&root, &[66]).unwrap()).unwrap();
        testbed.apply("servers.yaml", &servers(&dir)).unwrap();
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let more = [
            "--credentials-dir".into(),
            text(credentials.clone()),
            "--identity-dir".into(),
            text(credentials.join("web")),
        ];
        let gateway = testbed.start_gateway_with(0, &more).unwrap();
        let node = testbed.start_node().unwrap();
        site(gateway, node, testbed, root)
    }

    /// Replaces the credential `web` as kubelet does.
    fn publish(&self, secret: &(String, String), roots: &str) {
        self.versions.set(self.versions.get() + 1);
        let dir = self.testbed.dir().join("credentials/web");
        publish(&dir, self.versions.get(), secret, roots);
    }

    /// Arguments of curl that show a certificate of this authority.
    fn client(&self, root: &Authority, name: &str, subject: &Subject<'_>) -> Vec<String> {
        let dir = self.testbed.dir().join("clients");
        let (certificate, key) = issue_mutual(root, subject).unwrap();
        let path = |suffix: &str| dir.join(format!("{name}.{suffix}")).display().to_string();
        fs::write(path("crt"), certificate).unwrap();
        fs::write(path("key"), key).unwrap();
        vec!["--cert".into(), path("crt"), "--key".into(), path("key")]
    }

    fn good(&self) -> Vec<String> {
        self.client(&self.root, "good", &subject())
    }

    /// The status of one request from the pod to the gateway itself, or curl's exit code.
    fn status(&self, port: u16, args: &[String]) -> String {
        let dir = self.testbed.dir();
        let mut all = vec!["--cacert".into(), dir.join("mesh-ca.pem").display().to_string()];
        all.extend(["--resolve".into(), format!("{HOST}:{port}:{}", GATEWAYS[0])]);
        all.extend_from_slice(args);
        all.push(format!("https://{HOST}:{port}/"));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        self.testbed.curl_status(&all).unwrap()
    }

    fn allowed(&self, port: u16, args: &[String]) {
        let status = self.status(port, args);
        assert_eq!(status, "301", "port {port}, {args:?}:\n{}", self.gateway.stderr());
    }

    /// Refused, and said so in log and metric.
    fn denied(&self, port: u16, args: &[String], reason: &str) {
        let metric = format!("egress_denied_total{{reason=\"{reason}\"}} ");
        let count = || {
            let url = "http://localhost:15090/stats/prometheus";
            let text = self.testbed.gateway(0).run("curl", &["-s", url]).unwrap().stdout;
            let line = text.lines().find_map(|line| line.strip_prefix(&metric));
            line.map_or(0, |value| value.trim().parse::<u64>().unwrap())
        };
        let logged = || {
            let quoted = format!("\"reason\":\"{reason}\"");
            self.gateway.stdout().lines().filter(|line| line.contains(&quoted)).count()
        };
        let name = format!("cluster.outbound|80||{HOST}.upstream_rq_total");
        let sent = || self.testbed.stat(0, &name).unwrap();
        let (counted, lines, before) = (count(), logged(), sent());
        let status = self.status(port, args);
        assert!(status.starts_with("curl: ("), "port {port} {reason}: {status}");
        until(SOON, &format!("{reason} in metric and log"), || {
            (count() > counted && logged() > lines).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error:#}:\n{}", self.gateway.stdout()));
        assert_eq!(sent(), before, "something was sent on, although it was refused: {reason}");
    }

    /// The reasons of all refusals that the gateway remembers.
    fn flows(&self) -> Vec<String> {
        let (agent, control) = (self.testbed.agent(), self.testbed.gateway_control(0));
        let (agent, control) = (agent.to_string_lossy(), control.to_string_lossy());
        let args = ["flows", "--control", &control, "-o", "json"];
        let done = self.testbed.gateway(0).run(&agent, &args).unwrap();
        assert!(done.ok(), "{done:?}");
        let lines = done.stdout.lines();
        let flows = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        flows.filter_map(|flow| flow["reason"].as_str().map(str::to_owned)).collect()
    }
}

fn subject() -> Subject<'static> {
    Subject { name: "sleep.example", uri: CLIENT_ID, serial: 65, time: Time::Now }
}

/// The gateway's own.
fn secret(root: &Authority, serial: u64) -> (String, String) {
    let subject = Subject { name: HOST, uri: GATEWAY_ID, serial, time: Time::Now };
    issue_mutual(root, &subject).unwrap()
}

/// What kubelet does on every change of a Secret: a new directory, and one rename.
fn publish(dir: &Path, version: u32, (certificate, key): &(String, String), roots: &str) {
    let data = dir.join(format!("..{version}"));
    fs::create_dir_all(&data).unwrap();
    for (name, text) in [("tls.crt", certificate.as_str()), ("tls.key", key), ("ca.crt", roots)] {
        fs::write(data.join(name), text).unwrap();
        symlink(format!("..data/{name}"), dir.join(name)).ok();
    }
    symlink(format!("..{version}"), dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
}

fn server(port: u16, protocol: &str, tls: &str) -> String {
    format!(
        "  - port: {{number: {port}, name: p{port}, protocol: {protocol}}}\n    hosts: [{HOST}]\n    tls: {{{tls}}}\n"
    )
}

fn gateway(name: &str, servers: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  selector: {{istio: egressgateway}}
  servers:
{servers}"
    )
}

/// One server a mode.
fn servers(dir: &Path) -> String {
    let dir = dir.display();
    let files = format!(
        "serverCertificate: {dir}/server.crt, privateKey: {dir}/server.key, \
         caCertificates: {dir}/mesh-ca.pem, caCrl: {dir}/server.crl"
    );
    let servers = [
        server(SIMPLE, "HTTPS", "mode: SIMPLE, credentialName: web"),
        server(MUTUAL, "HTTPS", &format!("mode: MUTUAL, {files}")),
        server(OPTIONAL, "HTTPS", "mode: OPTIONAL_MUTUAL, credentialName: web"),
        server(MESH, "HTTPS", "mode: ISTIO_MUTUAL"),
        server(NEWEST, "HTTPS", "mode: SIMPLE, credentialName: web, minProtocolVersion: TLSV1_3"),
        server(RAW, "TLS", "mode: MUTUAL, credentialName: web"),
        server(BROKEN, "HTTPS", "mode: SIMPLE, credentialName: gone"),
    ]
    .concat();
    let (web, gateway) = (web_service("outside", HOST), gateway("egress", &servers));
    format!(
        "{web}{gateway}---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: inside}}
spec:
  hosts: [{HOST}]
  gateways: [egress]
  http:
  - route: [{{destination: {{host: {HOST}, port: {{number: 80}}}}}}]
  tcp:
  - match: [{{port: {RAW}}}]
    route: [{{destination: {{host: {HOST}, port: {{number: 443}}}}}}]
"
    )
}

/// The pod's own TLS, with these groups of the key exchange, and the status of one request: `None` where the
/// handshake fails.
fn ask_with(
    site: &Site,
    groups: Vec<&'static dyn rustls::crypto::SupportedKxGroup>,
) -> Option<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(site.root.pem().as_bytes()).unwrap()).unwrap();
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = groups;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tls =
        rustls::ClientConnection::new(Arc::new(config), HOST.try_into().unwrap()).unwrap();
    let asking = site.testbed.pod().ns.enter(move || -> std::io::Result<String> {
        let mut tcp = TcpStream::connect((GATEWAYS[0], SIMPLE))?;
        let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
        write!(stream, "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(String::from_utf8_lossy(&status[9..]).into_owned())
    });
    asking.unwrap().ok()
}

#[test]
fn clients_of_a_server_use_the_hybrid_group_unless_it_is_switched_off() {
    let site = Site::new();
    site.allowed(SIMPLE, &[]);
    let (hybrid, plain) = (kx_group::X25519MLKEM768, kx_group::X25519);
    let metric = |group: &str| {
        let url = "http://localhost:15090/stats/prometheus";
        let text = site.testbed.gateway(0).run("curl", &["-s", url]).unwrap().stdout;
        let series =
            format!("egress_tls_handshakes_total{{peer=\"downstream\",group=\"{group}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&*series));
        value.unwrap_or_else(|| panic!("{series}: {text}")).parse::<u64>().unwrap()
    };
    let logged = |group: &str| {
        let text = site.gateway.stdout();
        let wanted = format!("\"downstream_tls_group\":\"{group}\"");
        text.lines().filter(|line| line.contains(&wanted)).count()
    };
    let is_logged = |group: &str| until(SOON, group, || (logged(group) > 0).then_some(())).unwrap();
    is_logged("X25519");
    assert_eq!((metric("X25519MLKEM768"), logged("X25519MLKEM768")), (0, 0), "curl has none of it");
    // As current clients offer it: before the others.
    for groups in [vec![hybrid, plain], vec![hybrid]] {
        assert_eq!(ask_with(&site, groups).as_deref(), Some("301"));
    }
    is_logged("X25519MLKEM768");
    assert_eq!(metric("X25519MLKEM768"), 2);

    let off = "tlsDefaults: {ecdhCurves: [X25519, P-256]}\n";
    site.testbed.apply_mesh(&format!("{}accessLogEncoding: JSON\n{off}", mesh_yaml(1))).unwrap();
    let refused = || ask_with(&site, vec![hybrid]).is_none();
    until(SOON, "the group to be refused", || refused().then_some(())).unwrap();
    let before = metric("X25519MLKEM768");
    let (others, lines) = (metric("X25519"), logged("X25519"));
    assert_eq!(ask_with(&site, vec![hybrid, plain]).as_deref(), Some("301"));
    assert_eq!((metric("X25519MLKEM768"), metric("X25519")), (before, others + 1));
    until(SOON, "its line", || (logged("X25519") > lines).then_some(())).unwrap();
}

#[test]
fn every_mode_serves_its_clients_and_refuses_the_others() {
    let site = Site::new();
    let none: &[String] = &[];
    let good = site.good();
    let stranger = Authority::new("Unknown authority").unwrap();
    let foreign = site.client(&stranger, "foreign", &subject());
    let with = |time, name: &str| site.client(&site.root, name, &Subject { time, ..subject() });
    let (old, early) = (with(Time::Over, "old"), with(Time::ToCome, "early"));

    site.allowed(SIMPLE, none);
    site.allowed(SIMPLE, &["--http1.1".into()]);
    site.allowed(OPTIONAL, none);
    for port in [MUTUAL, OPTIONAL, MESH] {
        site.allowed(port, &good);
        site.denied(port, &foreign, "untrusted_client_certificate");
        site.denied(port, &old, "expired_client_certificate");
        site.denied(port, &early, "expired_client_certificate");
    }
    for port in [MUTUAL, MESH] {
        site.denied(port, none, "no_client_certificate");
    }
    // Without a server name (an address has none) the request inside says which host it is for.
    let unnamed = |port: u16, args: &[String], host: &str| {
        let header = format!("Host: {host}:{port}");
        let url = format!("https://{}:{port}/", GATEWAYS[0]);
        let mut all = vec!["-k", "-H", &header];
        all.extend(args.iter().map(String::as_str));
        all.push(&url);
        site.testbed.curl_status(&all).unwrap()
    };
    assert_eq!(unnamed(SIMPLE, none, HOST), "301");
    assert_eq!(unnamed(MESH, &good, HOST), "301");
    assert!(unnamed(MESH, none, HOST).starts_with("curl: ("), "no certificate");
    assert_eq!(unnamed(SIMPLE, none, "other.example.com"), "403");
    // A trust domain that isn't ours, and none at all.
    for (name, uri) in
        [("other", "spiffe://other.example/ns/default/sa/sleep"), ("none", "https://a.example/")]
    {
        let client = site.client(&site.root, name, &Subject { uri, ..subject() });
        site.denied(MESH, &client, "client_identity");
        site.allowed(OPTIONAL, &client);
    }
    // Revoked.
    let revoked = site.client(&site.root, "revoked", &Subject { serial: 66, ..subject() });
    site.denied(MUTUAL, &revoked, "revoked_client_certificate");
    site.allowed(OPTIONAL, &revoked);

    // The client's identity is in the log and in the metrics.
    let line = until(SOON, "the identity in the log", || {
        let text = site.gateway.stdout();
        let line = text.lines().find(|line| {
            line.contains(&format!("\"downstream_peer_uri_san\":\"{CLIENT_ID}\""))
                && line.contains("\"response_code\":301")
        });
        line.map(str::to_owned)
    });
    line.unwrap();
    let url = "http://localhost:15090/stats/prometheus";
    let metrics = site.testbed.gateway(0).run("curl", &["-s", url]).unwrap().stdout;
    let counted = metrics.lines().any(|line| {
        line.starts_with("istio_requests_total{")
            && line.contains(&format!("source_principal=\"{CLIENT_ID}\""))
            && line.contains("connection_security_policy=\"mutual_tls\"")
    });
    assert!(counted, "{metrics}");
    assert!(metrics.contains("egress_certificate_days_left{certificate=\"web\"} "), "{metrics}");
    assert!(metrics.contains("egress_certificate_current{certificate=\"gone\"} 0"), "{metrics}");

    // Other refusals: an old version, another name, no certificate, and no TLS at all.
    site.allowed(NEWEST, none);
    site.denied(NEWEST, &["--tls-max".into(), "1.2".into()], "downstream_tls");
    site.denied(BROKEN, none, "no_server_certificate");
    let flows = site.flows();
    for reason in [
        "no_client_certificate",
        "untrusted_client_certificate",
        "expired_client_certificate",
        "revoked_client_certificate",
        "client_identity",
        "downstream_tls",
        "no_server_certificate",
    ] {
        assert!(flows.iter().any(|seen| seen == reason), "{reason}: {flows:?}");
    }
    let dir = site.testbed.dir();
    let roots = dir.join("mesh-ca.pem").display().to_string();
    let curl = |args: &[&str]| site.testbed.curl_status(args).unwrap();
    let other = format!("other.example.com:{SIMPLE}:{}", GATEWAYS[0]);
    let url = format!("https://other.example.com:{SIMPLE}/");
    let status = curl(&["-k", "--resolve", &other, &url]);
    assert_eq!(status, "curl: (35)", "an unknown name");
    let plain = format!("{HOST}:{MUTUAL}:{}", GATEWAYS[0]);
    let status = curl(&["--resolve", &plain, &format!("http://{HOST}:{MUTUAL}/")]);
    assert_eq!(status, "403", "clear text where TLS is asked for");
    // The gateway's own identity is what curl verifies, whichever way the pod got there.
    let status = curl(&["--cacert", &roots, &format!("https://{HOST}:{SIMPLE}/")]);
    assert_eq!(status, "301", "redirected by the node");
    let status = curl(&[
        "--resolve",
        &format!("{HOST}:{SIMPLE}:{}", GATEWAYS[0]),
        &format!("https://{HOST}:{SIMPLE}/"),
    ]);
    assert_eq!(status, "curl: (60)", "verified against other roots");
}

#[test]
fn any_bytes_inside_tls_are_forwarded() {
    let site = Site::new();
    let good = site.good();
    let dir = site.testbed.dir();
    let ca = dir.join("mesh-ca.pem").display().to_string();
    // TLS in TLS: openssl ends the outer one, and curl speaks the inner one through it.
    let relay = format!(
        "exec openssl s_client -quiet -verify_quiet -verify_return_error -CAfile {ca} -servername {HOST} \
         -connect {}:{RAW} $@",
        GATEWAYS[0]
    );
    let through = |certificate: &[String]| {
        let flags = match certificate {
            [_, cert, _, key] => format!("-cert {cert} -key {key}"),
            _ => String::new(),
        };
        // One request, and the half of the answer that matters.
        let script = format!(
            "printf 'x' | timeout 10 sh -c '{}' sh >/dev/null 2>&1; echo $?",
            relay.replace("$@", &flags)
        );
        site.testbed.pod().run("sh", &["-c", &script]).unwrap().stdout.trim().to_owned()
    };
    through(&good);
    let opened = || {
        site.testbed.stat(0, &format!("cluster.outbound|443||{HOST}.upstream_cx_total")).unwrap()
    };
    until(SOON, "the inner bytes to be forwarded", || (opened() == 1).then_some(())).unwrap();
    through(&[]);
    until(SOON, "the refusal", || {
        site.gateway.stdout().contains("\"reason\":\"no_client_certificate\"").then_some(())
    })
    .unwrap();
    assert_eq!(opened(), 1);
}

#[test]
fn what_is_open_ends_with_the_clients_certificate() {
    let site = Site::new();
    let dir = site.testbed.dir();
    let ca = dir.join("mesh-ca.pem").display().to_string();
    // Raw TCP inside TLS, for as long as it lasts.
    let [_, certificate, _, key] = &site.good()[..] else { panic!("a certificate and a key") };
    let script = format!(
        "sleep 120 | openssl s_client -quiet -verify_quiet -CAfile {ca} -cert {certificate} -key {key} \
         -servername {HOST} -connect {}:{RAW}",
        GATEWAYS[0]
    );
    let mut raw = site.testbed.pod().start(&dir, "raw", "sh", &["-c", &script]).unwrap();
    let active = || {
        let name = format!("cluster.outbound|443||{HOST}.upstream_cx_active");
        site.testbed.stat(0, &name).unwrap()
    };
    until(SOON, "the raw connection", || (active() == 1).then_some(())).unwrap();
    // A list with another certificate's number ends nothing.
    let list = |serial| revocation_list(&site.root, &[serial]).unwrap();
    let taken = || site.gateway.stderr().matches("certificate web is in use").count();
    let before = taken();
    fs::write(dir.join("credentials/web/ca.crl"), list(99)).unwrap();
    until(SOON, "the list to be read", || (taken() > before).then_some(())).unwrap();
    assert_eq!(active(), 1);
    fs::write(dir.join("credentials/web/ca.crl"), list(65)).unwrap();
    let line = until(SOON, "the end of the raw connection", || {
        let log = site.gateway.stdout();
        let ended = "\"reason\":\"revoked_client_certificate\"";
        log.lines().find(|line| line.contains(ended)).map(str::to_owned)
    });
    let line = line.unwrap_or_else(|error| {
        panic!("{error:#}:\n{}\n{}", site.gateway.stderr(), site.gateway.stdout())
    });
    assert!(line.contains("\"response_flags\":\"LR\""), "{line}");
    assert_eq!(active(), 0);
    raw.kill();

    // HTTP on one connection, whose client's certificate expires.
    // Certificates tell time in whole seconds.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs() + 20);
    let brief = Subject { serial: 70, time: Time::Until(end), ..subject() };
    let brief = site.client(&site.root, "brief", &brief).join(" ");
    let script = format!(
        "exec curl -s --rate 10/s --fail-early -o /dev/null -w '%{{stderr}}%{{http_code}}\\n' --cacert \
         {ca} {brief} --resolve {HOST}:{MUTUAL}:{} 'https://{HOST}:{MUTUAL}/?[1-2000]'",
        GATEWAYS[0]
    );
    let mut http = site.testbed.pod().start(&dir, "http", "sh", &["-c", &script]).unwrap();
    let served = || http.stderr().lines().filter(|line| *line == "301").count();
    until(SOON, "requests of the open connection", || (served() > 3).then_some(())).unwrap();
    until(SOON * 2, "the end of the HTTP connection", || {
        let log = site.gateway.stdout();
        log.contains("\"reason\":\"expired_client_certificate\"").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}:\n{}", site.gateway.stderr()));
    assert!(SystemTime::now() >= end, "not before it expired");
    let codes = http.stderr();
    assert!(!codes.contains("200"), "{codes}");
    http.wait(SOON).unwrap();
}

#[test]
fn certificates_are_replaced_under_load_and_nothing_is_lost() {
    let site = Site::new();
    let dir = site.testbed.dir();
    let good = site.good();
    let new = Authority::new("The next authority").unwrap();
    let both = format!("{}{}", site.root.pem(), new.pem());
    // The client trusts both all along.
    fs::write(dir.join("both.pem"), &both).unwrap();
    let common = format!(
        "--cacert {} {} --resolve {HOST}:{OPTIONAL}:{}",
        dir.join("both.pem").display(),
        good.join(" "),
        GATEWAYS[0]
    );
    let url = format!("https://{HOST}:{OPTIONAL}/");
    let stop = dir.join("stop");
    let (stop_path, out) = (stop.display(), "-s -o /dev/null -w '%{http_code}\\n' --max-time 20");
    // Connections of one request each, and one connection for as long as it lasts: that one tells on
    // standard error, which isn't held back.
    let short =
        format!("while [ ! -e {stop_path} ]; do curl {out} {common} {url} || echo failed; done");
    let many = format!("{url}?[1-2000]");
    let long = format!(
        "exec curl -s --rate 20/s --fail-early -o /dev/null -w '%{{stderr}}%{{http_code}} %{{num_connects}}\\n' {common} '{many}'"
    );
    let start = |name: &str, script: &str| {
        site.testbed.pod().start(&dir, name, "sh", &["-c", script]).unwrap()
    };
    let (mut short, mut long) = (start("short", &short), start("long", &long));
    let progress = |what: &str| {
        let seen = || (short.stdout().lines().count(), long.stderr().lines().count());
        let before = seen();
        until(SOON, &format!("requests after {what}"), || {
            let now = seen();
            (now.0 > before.0 + 3 && now.1 > before.1 + 3).then_some(())
        })
        .unwrap_or_else(|error| {
            let (short, long) = (short.stdout(), long.stderr());
            panic!("{error:#}: {short}\n{long}\n{}", site.gateway.stderr())
        });
    };
    let count = || site.gateway.stderr().matches("certificate web is in use").count();
    // It is told for servers that ask clients, and for those that don't.
    let publish = |secret: (String, String), roots: &str| {
        let before = count();
        site.publish(&secret, roots);
        until(SOON, "the new certificate to be in use", || (count() >= before + 2).then_some(()))
            .unwrap_or_else(|error| panic!("{error:#}: {}", site.gateway.stderr()));
    };
    progress("the start");
    // Leaves, one after the other.
    for round in 1..=3 {
        publish(secret(&site.root, 100 + round), &site.root.pem());
        progress("a new leaf");
    }
    // A mistake in between changes nothing.
    let (certificate, _) = secret(&site.root, 200);
    let (_, key) = secret(&site.root, 201);
    site.publish(&(certificate, key), &both);
    until(SOON, "the mistake to be told", || {
        site.gateway.stderr().contains("replace both together").then_some(())
    })
    .unwrap();
    progress("a mistake");
    // The root: both are trusted first, then the leaf is the new one's.
    for root in [&site.root, &new] {
        publish(secret(root, 300), &both);
        progress("a new root");
    }
    fs::write(&stop, "").unwrap();
    short.wait(SOON).unwrap();
    long.kill();
    let codes = short.stdout();
    assert!(codes.lines().all(|code| code == "301"), "{codes}");
    // The end cuts its last line off.
    let codes = long.stderr();
    let codes = codes.rsplit_once('\n').map_or("", |(whole, _)| whole);
    assert!(
        codes
            .lines()
            .enumerate()
            .all(|(index, line)| { line == if index == 0 { "301 1" } else { "301 0" } }),
        "one connection all along: {codes}"
    );
    // At the end the old root is dropped: its clients are refused, the new one's are served.
    publish(secret(&new, 301), &new.pem());
    let bundle = dir.join("both.pem").display().to_string();
    let with_bundle = |client: &[String]| [&["--cacert".into(), bundle.clone()], client].concat();
    let next = site.client(&new, "next", &subject());
    let status = site.status(OPTIONAL, &with_bundle(&next));
    assert_eq!(status, "301");
    site.denied(OPTIONAL, &with_bundle(&good), "untrusted_client_certificate");
}

#[test]
fn a_server_with_two_certificates_shows_each_client_the_one_that_fits_it() {
    let site = Site::new();
    let (dir, text) = (site.testbed.dir(), |path: &Path| path.display().to_string());
    // Which certificate came follows from the authority that verifies it.
    let of_rsa = Authority::new("Authority of RSA keys").unwrap();
    let rsa = issue_rsa_pem(&of_rsa, HOST).unwrap();
    let credential = dir.join("credentials/rsa");
    publish(&credential, 0, &rsa, &of_rsa.pem());
    for (name, content) in [("rsa.crt", &rsa.0), ("rsa.key", &rsa.1), ("rsa-ca.pem", &of_rsa.pem())]
    {
        fs::write(dir.join(name), content).unwrap();
    }
    let at = dir.display();
    let files = format!("serverCertificate: {at}/server.crt, privateKey: {at}/server.key");
    let servers = [
        server(NAMED_PAIR, "HTTPS", "mode: SIMPLE, credentialNames: [rsa, web]"),
        server(
            PAIR_OF_FILES,
            "HTTPS",
            &format!(
                "mode: SIMPLE, tlsCertificates: [{{serverCertificate: {at}/server.crt, privateKey: \
                 {at}/server.key}}, {{serverCertificate: {at}/rsa.crt, privateKey: {at}/rsa.key}}]"
            ),
        ),
        server(HALF_A_PAIR, "HTTPS", "mode: SIMPLE, credentialNames: [gone, web]"),
        server(FILES, "HTTPS", &format!("mode: SIMPLE, {files}")),
        server(BESIDE_FILES, "HTTPS", &format!("mode: SIMPLE, credentialName: rsa, {files}")),
    ]
    .concat();
    let route = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: \
                 of-pairs}\nspec:\n  hosts: [HOST]\n  gateways: [pairs]\n  http:\n  - route: \
                 [{destination: {host: HOST, port: {number: 80}}}]\n"
        .replace("HOST", HOST);
    site.testbed.apply("pairs.yaml", &format!("{}{route}", gateway("pairs", &servers))).unwrap();
    let rsa_ca = text(&dir.join("rsa-ca.pem"));
    let trusts_rsa = ["--cacert".to_owned(), rsa_ca];
    let kind = |suite: &str| ["--tls-max", "1.2", "--ciphers", suite].map(str::to_owned);
    let ecdsa = kind("ECDHE-ECDSA-AES128-GCM-SHA256").to_vec();
    let rsa_alone = kind("ECDHE-RSA-AES128-GCM-SHA256").to_vec();
    let with = |args: &[String]| [args, &trusts_rsa].concat();
    let served = || (site.status(NAMED_PAIR, &[]) == "301").then_some(());
    until(SOON, "the servers with two certificates", served).unwrap();
    for port in [NAMED_PAIR, PAIR_OF_FILES] {
        // Of both the one with the ECDSA key.
        site.allowed(port, &[]);
        site.allowed(port, &ecdsa);
        assert_eq!(site.status(port, &with(&ecdsa)), "curl: (60)", "port {port}");
        site.allowed(port, &with(&rsa_alone));
        assert_eq!(site.status(port, &rsa_alone), "curl: (60)", "port {port}");
    }
    // A credential stands for the files beside it.
    site.allowed(FILES, &[]);
    assert_eq!(site.status(FILES, &trusts_rsa), "curl: (60)");
    site.allowed(BESIDE_FILES, &trusts_rsa);
    assert_eq!(site.status(BESIDE_FILES, &[]), "curl: (60)");
    // Where the other one is missing, clients that it alone would fit are refused.
    site.allowed(HALF_A_PAIR, &ecdsa);
    site.denied(HALF_A_PAIR, &with(&rsa_alone), "downstream_tls");
    site.denied(SIMPLE, &with(&rsa_alone), "downstream_tls");
    // Both are watched, and reported by their names.
    let url = "http://localhost:15090/stats/prometheus";
    let text_of = || site.testbed.gateway(0).run("curl", &["-s", url]).unwrap().stdout;
    let metrics = text_of();
    let current = |name: &str, value: u8| {
        format!("egress_certificate_current{{certificate=\"{name}\"}} {value}\n")
    };
    let rsa_file = text(&dir.join("rsa.crt"));
    for line in [current("rsa", 1), current("web", 1), current("gone", 0), current(&rsa_file, 1)] {
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    assert!(metrics.contains("egress_certificate_days_left{certificate=\"rsa\"} "), "{metrics}");
    let (config, mesh) = (text(&site.testbed.config()), text(&site.testbed.mesh()));
    let credentials = text(&dir.join("credentials"));
    let agent = text(site.testbed.agent());
    let args = [
        ["certs", "show"],
        ["--config", &config],
        ["--mesh", &mesh],
        ["--credentials-dir", &credentials],
    ]
    .concat();
    let shown = site.testbed.gateway(0).run(&agent, &args).unwrap().stdout;
    let user = format!("rsa\n  used by  Gateway default/pairs port {NAMED_PAIR} (SIMPLE)\n");
    assert!(shown.contains(&user), "{shown}");
    // One is renewed while the other stays.
    publish(&credential, 1, &issue_rsa_pem(&site.root, HOST).unwrap(), &site.root.pem());
    let renewed = || (site.status(NAMED_PAIR, &rsa_alone) == "301").then_some(());
    until(SOON, "the renewed certificate", renewed).unwrap();
    site.allowed(NAMED_PAIR, &ecdsa);
}

#[test]
fn certificates_are_shown() {
    let site = Site::new();
    let dir = site.testbed.dir();
    let text = |path: &Path| path.display().to_string();
    let (config, mesh) = (text(&site.testbed.config()), text(&site.testbed.mesh()));
    let credentials = text(&dir.join("credentials"));
    let identity = text(&dir.join("credentials/web"));
    let agent = text(site.testbed.agent());
    let args = [
        "certs",
        "show",
        "--config",
        &config,
        "--mesh",
        &mesh,
        "--credentials-dir",
        &credentials,
        "--identity-dir",
        &identity,
    ];
    let shown = site.testbed.gateway(0).run(&agent, &args).unwrap();
    assert_eq!(shown.code, 1, "one is missing: {}", shown.stdout);
    assert!(shown.stdout.contains(&format!("URI:{GATEWAY_ID}")), "{}", shown.stdout);
    assert!(shown.stdout.contains("gone"), "{}", shown.stdout);
    let shown = site.testbed.gateway(0).run(&agent, &["certs", "show", "-o", "json", &identity]);
    let shown = shown.unwrap();
    assert!(shown.ok(), "{}", shown.stderr);
    let json: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(json["certificates"][0]["chain"][0]["spiffe_id"], GATEWAY_ID);
    // The walkthrough's way: openssl against the running gateway.
    let script = format!(
        "openssl s_client -connect {}:{MESH} -servername {HOST} </dev/null 2>/dev/null | \
         openssl x509 -noout -ext subjectAltName",
        GATEWAYS[0]
    );
    let seen = site.testbed.pod().run("sh", &["-c", &script]).unwrap().stdout;
    assert!(seen.contains(&format!("URI:{GATEWAY_ID}")), "{seen}");
}
