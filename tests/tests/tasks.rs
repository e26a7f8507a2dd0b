//! Istio's egress tasks, with real curl: each in the words of Istio's resources and of the Gateway API where the task
//! has both. The walkthrough's own (a service entry alone, a gateway for HTTP, for HTTPS, with TLS origination) are in
//! `walkthrough`.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

use egress_tests::{
    access_log,
    ca::{Authority, Subject, Time, issue_mutual, issue_pem, revocation_list},
    manifests::Walkthrough,
    mtls::{NODE_ID, POD_ID},
    outside::{PAGE_BYTES, Seen},
    plan,
    process::Process,
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until, until_is},
};

/// The host of the tasks that ask for client certificates.
const NGINX: &str = "my-nginx.mesh-external.svc.cluster.local";
/// Where it listens: port 443 of its address leads there.
const NGINX_PORT: &str = "18443";
/// The host of the task that controls egress.
const HTTPBIN: &str = "httpbin.org";
/// Where it listens: port 80 of the same address leads there.
const HTTPBIN_PORT: &str = "18080";
/// The address of both.
const SAMPLES: &str = plan::LEDGER;
const WELCOME: &str = "Welcome to nginx!";
/// The company's proxy.
const PROXY_PORT: &str = "3128";

/// HTTPS that asks for a certificate: port, certificate, key, roots.
const NGINX_SERVER: &str = "
import http.server, ssl, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'Welcome to nginx!'
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
port, certificate, key, roots = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.load_verify_locations(roots)
context.verify_mode = ssl.CERT_REQUIRED
server = http.server.ThreadingHTTPServer(('0.0.0.0', int(port)), Page)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";

/// `/delay/N` answers after N seconds, everything else at once: the port.
const HTTPBIN_SERVER: &str = "
import http.server, sys, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith('/delay/'):
            time.sleep(int(self.path.split('/')[2]))
        body = b'{}'
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('0.0.0.0', int(sys.argv[1])), Answer).serve_forever()
";

/// A proxy that takes CONNECT, and prints what it is asked: port, and where it leads.
const PROXY_SERVER: &str = "
import socket, sys, threading
def pipe(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass
def serve(client, address):
    head = b''
    while not head.endswith(b'\\r\\n\\r\\n'):
        byte = client.recv(1)
        if not byte:
            return
        head += byte
    line = head.split(b'\\r\\n')[0].decode()
    print(line, flush=True)
    upstream = socket.create_connection((address, int(line.split()[1].rsplit(':', 1)[1])))
    client.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n')
    threading.Thread(target=pipe, args=(client, upstream), daemon=True).start()
    pipe(upstream, client)
port, address = sys.argv[1:]
server = socket.create_server(('0.0.0.0', int(port)))
while True:
    client, _ = server.accept()
    threading.Thread(target=serve, args=(client, address), daemon=True).start()
";

/// The company's authority, and the arguments of a gateway with the credential `client-credential` of it.
fn credentials(testbed: &Testbed) -> (Authority, Vec<String>) {
    let authority = Authority::new("The company's authority").unwrap();
    let subject = Subject {
        name: "client.example.com",
        uri: "spiffe://example.com/client",
        serial: 7,
        time: Time::Now,
    };
    let (certificate, key) = issue_mutual(&authority, &subject).unwrap();
    let dir = testbed.dir().join("credentials/client-credential");
    fs::create_dir_all(&dir).unwrap();
    for (name, text) in [("tls.crt", certificate), ("tls.key", key), ("ca.crt", authority.pem())] {
        fs::write(dir.join(name), text).unwrap();
    }
    let credentials = testbed.dir().join("credentials").display().to_string();
    (authority, vec!["--credentials-dir".into(), credentials])
}

/// With the pod `curl` of the default namespace, and this mode of `outboundTrafficPolicy`.
fn mesh(outbound: &str) -> String {
    let workload = format!(
        "workloads:\n- name: curl\n  namespace: default\n  labels: {{app: curl}}\n  \
         addresses: [{}]\n  interface: {}\n",
        plan::POD,
        plan::POD_INTERFACE
    );
    format!("{}{workload}", mesh_yaml(1).replace("REGISTRY_ONLY", outbound))
}

/// Pages that were asked for by a name of their own.
static PAGES: AtomicUsize = AtomicUsize::new(0);

struct Site {
    gateway: Process,
    node: Process,
    testbed: Testbed,
}

impl Site {
    /// The pod is `curl` of the default namespace; the gateway has the credential `client-credential`.
    fn new() -> (Self, Authority) {
        let testbed = Testbed::test(1).unwrap();
        let (authority, credentials) = credentials(&testbed);
        testbed.apply_mesh(&mesh("REGISTRY_ONLY")).unwrap();
        let gateway = testbed.start_gateway_with(0, &credentials).unwrap();
        let node = testbed.start_node().unwrap();
        (Self { gateway, node, testbed }, authority)
    }

    /// Pod and gateway speak mutual TLS; the pod is `sleep`. Nothing is served past the gateway.
    fn with_mutual_tls() -> (Self, Authority) {
        let testbed = Testbed::test(1).unwrap();
        let (authority, credentials) = credentials(&testbed);
        testbed.prepare_mtls(1).unwrap();
        let args = [testbed.identity_args("gateway"), credentials].concat();
        let gateway = testbed.start_gateway_with(0, &args).unwrap();
        let node = testbed.start_node_mtls().unwrap();
        (Self { gateway, node, testbed }, authority)
    }

    /// Asks until the gateway records a page that a pod was given through mutual TLS.
    fn page_through_mutual_tls(&self, url: &str) {
        let host = url.split('/').nth(2).unwrap();
        // Of this page alone: lines of others may still come.
        let page = format!("{url}?page={}", PAGES.fetch_add(1, Ordering::Relaxed));
        let path = format!("/{}\"", page.splitn(4, '/').last().unwrap());
        let count = || {
            let text = self.gateway.stdout();
            let is_wanted = |line: &&str| {
                let parts = [host, &path, POD_ID, NODE_ID, "\"response_code\":200"];
                parts.iter().all(|part| line.contains(part))
            };
            text.lines().filter(is_wanted).count()
        };
        self.status(&["-L", &page], "200");
        until_is(SOON, "the gateway's line", count, |now| *now > 0)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.gateway.stdout()));
    }

    /// No page comes, whoever refuses.
    fn no_page(&self, url: &str) {
        let seen = || self.testbed.curl_status(&["-L", url]).unwrap();
        until_is(SOON, &format!("no page of {url}"), seen, |seen| !seen.contains("200")).unwrap();
    }

    fn status(&self, args: &[&str], expected: &str) {
        let seen = || self.testbed.curl_status(args).unwrap();
        until_is(SOON, &format!("{args:?} to give {expected}"), seen, |seen| seen == expected)
            .unwrap_or_else(|error| {
                panic!("{error:#}\n{}\n{}", self.gateway.stdout(), self.gateway.stderr())
            });
    }

    /// Curl fails, whichever side refuses.
    fn refused(&self, args: &[&str]) {
        let seen = || self.testbed.curl_status(args).unwrap();
        until_is(SOON, &format!("{args:?} to fail"), seen, |seen| seen.starts_with("curl: ("))
            .unwrap();
    }

    /// Makes a change, and waits until both agents have taken it.
    fn changed(&self, change: impl FnOnce()) {
        let accepted = || {
            let of_node = "egress_config_reloads_total{result=\"accepted\"}";
            [
                self.testbed.node_metric(of_node).unwrap(),
                self.testbed.stat(0, "egress.config.accepted").unwrap(),
            ]
        };
        let before = accepted();
        change();
        let both = |now: &[u64; 2]| now.iter().zip(&before).all(|(now, before)| now > before);
        until_is(SOON, "both agents to take the change", accepted, both).unwrap_or_else(|error| {
            panic!("{error:#}\n{}\n{}", self.node.stderr(), self.gateway.stderr())
        });
    }

    /// Puts resources in the place of those before, which are others.
    fn apply(&self, text: &str) {
        self.changed(|| self.testbed.apply("task.yaml", text).unwrap());
    }

    fn apply_mesh(&self, text: &str) {
        self.changed(|| self.testbed.apply_mesh(text).unwrap());
    }

    fn delete(&self) {
        self.changed(|| self.testbed.delete("task.yaml").unwrap());
    }

    fn python(&self, name: &str, script: &str, args: &[&str]) -> Process {
        self.testbed.serve_python(name, script, args).unwrap()
    }

    /// Gives a host the samples' address, whose port leads to where its server listens.
    fn sample(&self, host: &'static str, port: u16, to: &str) {
        self.testbed.point(host, SAMPLES).unwrap();
        let rules = format!(
            "table ip sample-{port} {{ chain dial {{ type nat hook prerouting priority -100; \
             ip daddr {SAMPLES} tcp dport {port} redirect to :{to}; }}; }}"
        );
        let done = self.testbed.outside().run("nft", &[&rules]).unwrap();
        assert!(done.ok(), "{}", done.stderr);
    }

    /// The server that asks for client certificates of the authority.
    fn nginx(&self, authority: &Authority) -> Process {
        self.sample(NGINX, 443, NGINX_PORT);
        let dir = self.testbed.dir();
        let (certificate, key) = issue_pem(authority, NGINX).unwrap();
        let file = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let certificate = file("nginx.crt", certificate);
        let (key, roots) = (file("nginx.key", key), file("nginx-ca.crt", authority.pem()));
        self.python("nginx", NGINX_SERVER, &[NGINX_PORT, &certificate, &key, &roots])
    }

    /// The page with a client certificate; without it the server ends the handshake.
    fn asks_for_a_certificate(&self, resources: &str) {
        let url = format!("http://{NGINX}/");
        self.apply(resources);
        self.status(&[&url], "200");
        assert_eq!(self.testbed.curl(&[&url]).unwrap().stdout, WELCOME);
        assert!(resources.contains("mode: MUTUAL"));
        self.apply(&resources.replace("mode: MUTUAL", "mode: SIMPLE"));
        self.status(&[&url], "503");
        self.apply(resources);
        self.status(&[&url], "200");
    }
}

/// A service entry of the tasks: its ports as one line of YAML each.
fn entry(name: &str, host: &str, ports: &[&str], more: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: {name}\nspec:\n  hosts:\n  \
         - '{host}'\n  ports:\n  - {}\n{more}---\n",
        ports.join("\n  - ")
    )
}

const HTTP: &str = "{number: 80, name: http, protocol: HTTP}";
const HTTP_TO_TLS: &str = "{number: 80, name: http-port, protocol: HTTP, targetPort: 443}";
const HTTPS: &str = "{number: 443, name: https, protocol: HTTPS}";

fn rule(name: &str, host: &str, port: u16, tls: &str, more: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: {name}\nspec:\n{more}  \
         host: {host}\n  trafficPolicy:\n    loadBalancer:\n      simple: ROUND_ROBIN\n    portLevelSettings:\n    \
         - port:\n        number: {port}\n      tls: {{{tls}}}\n---\n"
    )
}

/// Without any gateway: as a sidecar would start TLS.
#[test]
fn tls_origination_simple_and_mutual() {
    let (site, authority) = Site::new();
    let host = plan::HOST;
    let plain = format!("http://{host}/politics");
    site.apply(&entry("edition-cnn-com", host, &[HTTP, HTTPS], "  resolution: DNS\n"));
    site.status(&["-L", &plain], "301 200");
    let simple = entry("edition-cnn-com", host, &[HTTP_TO_TLS, HTTPS], "  resolution: DNS\n")
        + &rule("edition-cnn-com", host, 80, "mode: SIMPLE", "");
    site.apply(&simple);
    site.status(&["-L", &plain], "200");
    assert_eq!(site.testbed.curl(&[&plain]).unwrap().stdout.len(), PAGE_BYTES);
    site.status(&[&format!("https://{host}/politics")], "200");

    let _nginx = site.nginx(&authority);
    let tls = format!("mode: MUTUAL, credentialName: client-credential, sni: {NGINX}");
    let selects = "  workloadSelector:\n    matchLabels:\n      app: curl\n";
    let mutual =
        entry("originate-mtls-for-nginx", NGINX, &[HTTP_TO_TLS, HTTPS], "  resolution: DNS\n")
            + &rule("originate-mtls-for-nginx", NGINX, 80, &tls, selects);
    site.asks_for_a_certificate(&mutual);
    // The rule is for others: what is sent in clear is no TLS to the server.
    site.apply(&mutual.replace("app: curl", "app: other"));
    site.no_page(&format!("http://{NGINX}/"));
}

/// `caCrl` of a rule: a server whose certificate is in the list is refused, and its twin is served. Without the list
/// both are.
#[test]
fn a_server_with_a_revoked_certificate_is_refused() {
    let (site, authority) = Site::new();
    let dir = site.testbed.dir();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let list = file("servers.crl", &revocation_list(&authority, &[66]).unwrap());
    let roots = file("servers-ca.crt", &authority.pem());
    let own = dir.join("credentials/client-credential");
    let own = own.display();
    let servers = [("gone", 66, "18443"), ("good", 65, "18444")];
    let mut running = Vec::new();
    let mut entries = String::new();
    let mut rules = String::new();
    for (name, serial, port) in servers {
        let host = format!("{name}.wild.example.com");
        let subject =
            Subject { name: &host, uri: "spiffe://example.com/server", serial, time: Time::Now };
        let (certificate, key) = issue_mutual(&authority, &subject).unwrap();
        let certificate = file(&format!("{name}.crt"), &certificate);
        let key = file(&format!("{name}.key"), &key);
        running.push(site.python(name, NGINX_SERVER, &[port, &certificate, &key, &roots]));
        let endpoint = format!("{{address: {SAMPLES}, ports: {{http-port: {port}}}}}");
        let more = format!("  resolution: STATIC\n  endpoints:\n  - {endpoint}\n");
        entries += &entry(name, &host, &[HTTP_TO_TLS], &more);
        let tls = format!(
            "mode: MUTUAL, clientCertificate: {own}/tls.crt, privateKey: {own}/tls.key, \
             caCertificates: {roots}, sni: {host}LIST"
        );
        rules += &rule(name, &host, 80, &tls, "");
    }
    let with = |list: &str| format!("{entries}{}", rules.replace("LIST", list));
    let [gone, good] = servers.map(|(name, ..)| format!("http://{name}.wild.example.com/"));
    site.apply(&with(""));
    site.status(&[&gone], "200");
    site.status(&[&good], "200");
    site.apply(&with(&format!(", caCrl: {list}")));
    site.status(&[&gone], "503");
    site.status(&[&good], "200");
    assert_eq!(site.testbed.curl(&[&good]).unwrap().stdout, WELCOME);
    let refused = || {
        let mut lines = access_log::lines(&site.gateway.stdout()).into_iter();
        lines.find(|line| line.authority == "gone.wild.example.com" && line.code == 503)
    };
    let line = until(SOON, "the gateway's line", refused).unwrap();
    assert_eq!(line.flags, "UF", "{}", line.text);
    assert_eq!(line.upstream_cluster, "outbound|80||gone.wild.example.com");
    assert!(line.text.contains("revoked"), "{}", line.text);
}

/// The names of ports are those of the service's; an endpoint has numbers of its own for them.
#[test]
fn an_endpoint_gives_a_named_port_another_number() {
    let (site, _) = Site::new();
    // Nothing listens on that port.
    let port = "{number: 80, name: web, protocol: HTTP, targetPort: 81}";
    let at = |ports: &str| {
        let endpoint = format!("  - {{address: {}{ports}}}\n", plan::WEB);
        let more = format!("  resolution: STATIC\n  endpoints:\n{endpoint}");
        entry("edition-cnn-com", plan::HOST, &[port, HTTPS], &more)
    };
    let url = format!("http://{}/politics", plan::HOST);
    site.apply(&at(", ports: {web: 80}"));
    site.status(&[&url], "301");
    site.apply(&at(""));
    site.status(&[&url], "503");
    // The number is this port's alone.
    site.apply(&at(", ports: {https: 80}"));
    site.status(&[&url], "503");
    site.apply(&at(", ports: {https: 443, web: 80}"));
    site.status(&[&url], "301");
}

/// A Gateway and a VirtualService that lead a host's port 80 through the gateway to its port 443.
fn through_the_gateway(name: &str, host: &str) -> String {
    let service = "istio-egressgateway.istio-system.svc.cluster.local";
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  name: istio-egressgateway
spec:
  selector:
    istio: egressgateway
  servers:
  - port: {{number: 80, name: http, protocol: HTTP}}
    hosts:
    - {host}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: egressgateway-for-{name}
spec:
  host: {service}
  subsets:
  - name: {name}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: direct-{name}-through-egress-gateway
spec:
  hosts:
  - {host}
  gateways:
  - istio-egressgateway
  - mesh
  http:
  - match:
    - gateways:
      - mesh
      port: 80
    route:
    - destination:
        host: {service}
        subset: {name}
        port:
          number: 80
      weight: 100
  - match:
    - gateways:
      - istio-egressgateway
      port: 80
    route:
    - destination:
        host: {host}
        port:
          number: 443
      weight: 100
---
"
    )
}

/// The same in the Gateway API.
fn through_the_gateway_api(name: &str, host: &str, entry: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: {name}-egress-gateway
  annotations:
    networking.istio.io/service-type: ClusterIP
spec:
  gatewayClassName: istio
  listeners:
  - name: http
    hostname: {host}
    port: 80
    protocol: HTTP
    allowedRoutes:
      namespaces:
        from: Same
---
"
    ) + &routes_by_gateway_api(name, host, entry)
}

/// From a host's service entry to the gateway, and from there to the host's port 443.
fn routes_by_gateway_api(name: &str, host: &str, entry: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: direct-{name}-to-egress-gateway
spec:
  parentRefs:
  - kind: ServiceEntry
    group: networking.istio.io
    name: {entry}
  rules:
  - backendRefs:
    - name: {name}-egress-gateway-istio
      port: 80
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: forward-{name}-from-egress-gateway
spec:
  parentRefs:
  - name: {name}-egress-gateway
  hostnames:
  - {host}
  rules:
  - backendRefs:
    - kind: Hostname
      group: networking.istio.io
      name: {host}
      port: 443
---
"
    )
}

#[test]
fn a_gateway_with_tls_origination_simple_and_mutual_in_both_forms() {
    let (site, authority) = Site::new();
    let host = plan::HOST;
    let cnn = entry("cnn", host, &[HTTP, HTTPS], "  resolution: DNS\n");
    let simple = format!("mode: SIMPLE, sni: {host}");
    let rule_for_cnn = rule("originate-tls-for-edition-cnn-com", host, 443, &simple, "");
    for routes in [through_the_gateway("cnn", host), through_the_gateway_api("cnn", host, "cnn")] {
        site.apply(&format!("{cnn}{routes}{rule_for_cnn}"));
        site.status(&["-L", &format!("http://{host}/politics")], "200");
        // Without the rule the gateway would send HTTP to a port of HTTPS.
        site.apply(&format!("{cnn}{routes}"));
        site.no_page(&format!("http://{host}/politics"));
    }
    let _nginx = site.nginx(&authority);
    let nginx = entry("nginx", NGINX, &[HTTP, HTTPS], "  resolution: DNS\n");
    let mutual = format!("mode: MUTUAL, credentialName: client-credential, sni: {NGINX}");
    let rule_for_nginx = rule("originate-mtls-for-nginx", NGINX, 443, &mutual, "");
    for routes in
        [through_the_gateway("nginx", NGINX), through_the_gateway_api("nginx", NGINX, "nginx")]
    {
        site.asks_for_a_certificate(&format!("{nginx}{routes}{rule_for_nginx}"));
    }
}

/// A Gateway and a VirtualService as above, with mutual TLS between pod and gateway: HTTP of port 80 is routed to the
/// gateway's port.
fn through_the_gateway_with_mutual_tls(name: &str, host: &str, port: u16) -> String {
    let service = "istio-egressgateway.istio-system.svc.cluster.local";
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  name: istio-egressgateway
spec:
  selector:
    istio: egressgateway
  servers:
  - port: {{number: {port}, name: https, protocol: HTTPS}}
    hosts:
    - {host}
    tls:
      mode: ISTIO_MUTUAL
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: egressgateway-for-{name}
spec:
  host: {service}
  subsets:
  - name: {name}
    trafficPolicy:
      loadBalancer:
        simple: ROUND_ROBIN
      portLevelSettings:
      - port:
          number: {port}
        tls: {{mode: ISTIO_MUTUAL, sni: {host}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: direct-{name}-through-egress-gateway
spec:
  hosts:
  - {host}
  gateways:
  - istio-egressgateway
  - mesh
  http:
  - match:
    - gateways:
      - mesh
      port: 80
    route:
    - destination: {{host: {service}, subset: {name}, port: {{number: {port}}}}}
      weight: 100
  - match:
    - gateways:
      - istio-egressgateway
      port: {port}
    route:
    - destination: {{host: {host}, port: {{number: 443}}}}
      weight: 100
---
"
    )
}

/// The gateway of the same in the Gateway API, and the rule for its service.
fn gateway_api_with_mutual_tls(name: &str, rule_for: &str, host: &str, port: u16) -> String {
    let tls = format!("mode: ISTIO_MUTUAL, sni: {host}");
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: {name}
  annotations:
    networking.istio.io/service-type: ClusterIP
spec:
  gatewayClassName: istio
  listeners:
  - name: https
    hostname: {host}
    port: {port}
    protocol: HTTPS
    tls:
      mode: Terminate
      options:
        gateway.istio.io/tls-terminate-mode: ISTIO_MUTUAL
    allowedRoutes:
      namespaces:
        from: Same
---
"
    ) + &rule(rule_for, &format!("{name}-istio.default.svc.cluster.local"), port, &tls, "")
}

/// As Istio publishes the task today: the gateway verifies the pod, and starts TLS to the host.
#[test]
fn a_gateway_with_mutual_tls_originates_tls_in_both_forms() {
    let (site, _) = Site::with_mutual_tls();
    let host = plan::HOST;
    let url = format!("http://{host}/politics");
    let cnn = entry("cnn", host, &[HTTP, HTTPS], "  resolution: DNS\n");
    let originate = rule("originate-tls-for-edition-cnn-com", host, 443, "mode: SIMPLE", "");
    let istio = through_the_gateway_with_mutual_tls("cnn", host, 80);
    let api_routes = routes_by_gateway_api("cnn", host, "cnn");
    let api_gateway =
        gateway_api_with_mutual_tls("cnn-egress-gateway", "egressgateway-for-cnn", host, 80);
    for routes in [istio, api_gateway + &api_routes] {
        site.no_page(&url);
        site.apply(&format!("{cnn}{routes}{originate}"));
        site.page_through_mutual_tls(&url);
        site.testbed.record().take();
        assert_eq!(site.testbed.curl(&[&url]).unwrap().stdout.len(), PAGE_BYTES);
        let over_tls = Seen::Https {
            server_name: Some(host.into()),
            host: host.into(),
            path: "/politics".into(),
        };
        assert_eq!(site.testbed.record().take(), [over_tls]);
        site.no_page("http://www.example.com/");
        // Without the rule for the host the gateway would send HTTP to a port of HTTPS; without the rule for the
        // gateway the pod would speak HTTP to a port of mutual TLS.
        site.apply(&format!("{cnn}{routes}"));
        site.no_page(&url);
        site.apply(
            &format!("{cnn}{routes}{originate}").replace("ISTIO_MUTUAL, sni", "DISABLE, sni"),
        );
        site.no_page(&url);
        site.delete();
    }
}

/// The same with a client certificate for the host. In the Gateway API the host is a Service of another namespace,
/// which grants it, and the way from the mesh is a VirtualService, as Istio publishes it. A service entry stands for
/// what a cluster knows of the Service.
#[test]
fn a_gateway_with_mutual_tls_originates_mutual_tls_in_both_forms() {
    let (site, authority) = Site::with_mutual_tls();
    let _nginx = site.nginx(&authority);
    let service = entry("my-nginx", NGINX, &[HTTP, HTTPS], "  resolution: DNS\n");
    let tls = format!("mode: MUTUAL, credentialName: client-credential, sni: {NGINX}");
    let originate = rule("originate-mtls-for-nginx", NGINX, 443, &tls, "");
    let istio = through_the_gateway_with_mutual_tls("nginx", NGINX, 443)
        + &originate.replace("metadata:\n", "metadata:\n  namespace: istio-system\n");
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata:
  name: my-nginx-reference-grant
  namespace: mesh-external
spec:
  from:
  - group: gateway.networking.k8s.io
    kind: HTTPRoute
    namespace: default
  to:
  - group: \"\"
    kind: Service
    name: my-nginx
---
";
    let api = format!(
        "{}apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: direct-nginx-to-egress-gateway
spec:
  hosts:
  - {NGINX}
  gateways:
  - mesh
  http:
  - match:
    - port: 80
    route:
    - destination:
        host: nginx-egressgateway-istio.default.svc.cluster.local
        port:
          number: 443
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: forward-nginx-from-egress-gateway
spec:
  parentRefs:
  - name: nginx-egressgateway
  hostnames:
  - {NGINX}
  rules:
  - backendRefs:
    - name: my-nginx
      namespace: mesh-external
      port: 443
---
{originate}",
        gateway_api_with_mutual_tls("nginx-egressgateway", "egressgateway-for-nginx", NGINX, 443)
    );
    let url = format!("http://{NGINX}/");
    site.asks_for_a_certificate(&format!("{service}{istio}"));
    site.page_through_mutual_tls(&url);
    // Without the grant the Service is not referred to.
    site.apply(&format!("{service}{api}"));
    site.no_page(&url);
    site.asks_for_a_certificate(&format!("{service}{api}{grant}"));
    site.page_through_mutual_tls(&url);
    site.delete();
    site.no_page(&url);
}

/// Everything passes, then hosts are blocked and opened by a service entry each; a rule cuts requests off that take
/// longer than 3 seconds.
#[test]
fn control_of_egress_traffic_in_both_forms() {
    let (site, _) = Site::new();
    site.sample(HTTPBIN, 80, HTTPBIN_PORT);
    let _httpbin = site.python("httpbin", HTTPBIN_SERVER, &[HTTPBIN_PORT]);
    let secure = format!("https://{}/politics", plan::HOST);
    let (headers, delay) =
        (format!("http://{HTTPBIN}/headers"), format!("http://{HTTPBIN}/delay/5"));
    // As Istio is installed: what nobody declared passes, by the gateway.
    site.apply_mesh(&mesh("ALLOW_ANY"));
    site.status(&[&headers], "200");
    site.status(&[&secure], "200");
    let passed = || site.gateway.stdout().matches(" PassthroughCluster ").count();
    until_is(SOON, "both in the gateway's log", passed, |passed| *passed >= 2).unwrap();
    site.apply_mesh(&mesh("REGISTRY_ONLY"));
    site.refused(&[&headers]);
    site.refused(&[&secure]);
    let more = "  resolution: DNS\n  location: MESH_EXTERNAL\n";
    let http = entry("httpbin-ext", HTTPBIN, &[HTTP], more);
    site.apply(&http);
    site.status(&[&headers], "200");
    site.refused(&[&secure]);
    let entries = http + &entry("google", plan::HOST, &[HTTPS], more);
    site.apply(&entries);
    site.status(&[&secure], "200");
    let istio = format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: httpbin-ext
spec:
  hosts:
  - {HTTPBIN}
  http:
  - timeout: 3s
    route:
    - destination:
        host: {HTTPBIN}
      weight: 100
"
    );
    let api = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: httpbin-ext
spec:
  parentRefs:
  - kind: ServiceEntry
    group: networking.istio.io
    name: httpbin-ext
  hostnames:
  - {HTTPBIN}
  rules:
  - timeouts:
      request: 3s
    backendRefs:
    - kind: Hostname
      group: networking.istio.io
      name: {HTTPBIN}
      port: 80
"
    );
    for rule in [istio, api] {
        site.status(&[&delay], "200");
        site.apply(&format!("{entries}{rule}"));
        site.status(&[&delay], "504");
        // Before the answer, which takes 5 s, and not before the time is up.
        let args = ["-s", "-o", "/dev/null", "-w", "%{http_code} %{time_total}", delay.as_str()];
        let told = site.testbed.pod().run("curl", &args).unwrap().stdout;
        let (status, seconds) = told.split_once(' ').unwrap();
        assert!(status == "504" && seconds.parse::<f64>().unwrap() >= 3.0, "{told}");
        site.status(&[&headers], "200");
        site.apply(&entries);
    }
}

const WILD: &str = "*.wild.example.com";
/// The server of all of them.
const WILD_SERVER: &str = "www.wild.example.com";

/// Every name below one through the gateway to this host, in Istio's words and in those of the Gateway API.
fn wildcard_through_the_gateway(to: &str) -> [String; 2] {
    let service = "istio-egressgateway.istio-system.svc.cluster.local";
    let istio = format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  name: istio-egressgateway
spec:
  selector:
    istio: egressgateway
  servers:
  - port: {{number: 443, name: https, protocol: HTTPS}}
    hosts:
    - '{WILD}'
    tls:
      mode: PASSTHROUGH
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: egressgateway-for-wikipedia
spec:
  host: {service}
  subsets:
  - name: wikipedia
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: direct-wikipedia-through-egress-gateway
spec:
  hosts:
  - '{WILD}'
  gateways:
  - mesh
  - istio-egressgateway
  tls:
  - match:
    - gateways: [mesh]
      port: 443
      sniHosts: ['{WILD}']
    route:
    - destination: {{host: {service}, subset: wikipedia, port: {{number: 443}}}}
      weight: 100
  - match:
    - gateways: [istio-egressgateway]
      port: 443
      sniHosts: ['{WILD}']
    route:
    - destination: {{host: '{to}', port: {{number: 443}}}}
      weight: 100
---
"
    );
    let api = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: wikipedia-egress-gateway
  annotations:
    networking.istio.io/service-type: ClusterIP
spec:
  gatewayClassName: istio
  listeners:
  - name: tls
    hostname: '{WILD}'
    port: 443
    protocol: TLS
    tls:
      mode: Passthrough
    allowedRoutes:
      namespaces:
        from: Same
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata:
  name: direct-wikipedia-to-egress-gateway
spec:
  parentRefs:
  - kind: ServiceEntry
    group: networking.istio.io
    name: wikipedia
  rules:
  - backendRefs:
    - name: wikipedia-egress-gateway-istio
      port: 443
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata:
  name: forward-wikipedia-from-egress-gateway
spec:
  parentRefs:
  - name: wikipedia-egress-gateway
  hostnames:
  - '{WILD}'
  rules:
  - backendRefs:
    - kind: Hostname
      group: networking.istio.io
      name: '{to}'
      port: 443
---
"
    );
    [istio, api]
}

/// HTTPS to every name below one, passed through the gateway.
#[test]
fn wildcard_hosts_in_both_forms() {
    let (site, _) = Site::new();
    let (en, de) = ("https://en.wild.example.com/", "https://de.wild.example.com/");
    // Without a route, as by a sidecar.
    site.apply(&entry("wikipedia", WILD, &[HTTPS], ""));
    site.status(&[en], "200");
    site.refused(&["https://www.example.com/"]);
    for routes in wildcard_through_the_gateway(WILD) {
        let logged = || {
            let name = |line: &&str| line.contains("en.wild.example.com");
            site.gateway.stdout().lines().filter(name).count()
        };
        let before = logged();
        let known = entry("wikipedia", WILD, &[HTTPS], "  resolution: DYNAMIC_DNS\n");
        site.apply(&format!("{known}{routes}"));
        until_is(
            SOON,
            "the gateway's line",
            || {
                assert!(site.testbed.curl(&[en]).is_ok());
                logged()
            },
            |now| *now > before,
        )
        .unwrap();
        site.status(&[en], "200");
        site.status(&[de], "200");
        site.refused(&["https://www.example.com/"]);
        site.testbed.record().take();
        site.status(&[en], "200");
        let seen = site.testbed.record().take();
        let expected = Some("en.wild.example.com".to_owned());
        let is_wanted = |seen: &Seen| matches!(seen, Seen::Https { server_name, .. } if *server_name == expected);
        assert!(!seen.is_empty() && seen.iter().all(is_wanted), "{seen:?}");
        // What the next ones give is theirs.
        site.delete();
        site.refused(&[en]);
    }
}

/// HTTPS to one host through the gateway, in the words in which the task has the Gateway API's form: `v1alpha2`, and a
/// route from the mesh without names of its own, which has those of the service entry.
#[test]
fn https_through_the_gateway_as_the_task_has_it_for_the_gateway_api() {
    let (site, _) = Site::new();
    let [_, routes] = wildcard_through_the_gateway(plan::HOST);
    let routes = routes.replace(&format!("'{WILD}'"), plan::HOST).replace("wikipedia", "cnn");
    let known = entry("cnn", plan::HOST, &[HTTPS], "  resolution: DNS\n");
    let url = format!("https://{}/politics", plan::HOST);
    let logged = || site.gateway.stdout().lines().filter(|line| line.contains(plan::HOST)).count();
    site.apply(&format!("{known}{routes}"));
    site.status(&[&url], "200");
    until(SOON, "the gateway's line", || (logged() > 0).then_some(())).unwrap();
    site.refused(&["https://www.example.com/"]);
    site.refused(&[
        "-k",
        "--resolve",
        "other.example.net:443:198.51.100.10",
        "https://other.example.net/",
    ]);
    // Without the route from the gateway on, the host is refused there.
    let (from_mesh, _) = routes.split_at(routes.rfind("apiVersion:").unwrap());
    site.apply(&format!("{known}{from_mesh}"));
    site.refused(&[&url]);
}

/// The task's last part: a pod of a namespace that has a rule of its own for the gateway, `test-egress`.
#[test]
fn a_pod_of_another_namespace_with_a_rule_of_its_own_for_the_gateway() {
    let testbed = Testbed::test(1).unwrap();
    let mesh = mesh("REGISTRY_ONLY").replace("default", "test-egress");
    testbed.apply_mesh(&format!("{mesh}accessLogEncoding: JSON\n")).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    let site = Site { gateway, node, testbed };
    site.apply(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: egressgateway-for-cnn
  namespace: test-egress
spec:
  host: istio-egressgateway.istio-system.svc.cluster.local
  subsets:
  - name: cnn
",
    );
    let url = format!("https://{}/politics", plan::HOST);
    site.status(&[&url], "200");
    let is_wanted = |line: &str| {
        line.contains(plan::HOST) && line.contains("\"workload_namespace\":\"test-egress\"")
    };
    until(SOON, "the gateway's line, with the namespace", || {
        site.gateway.stdout().lines().any(is_wanted).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", site.gateway.stdout()));
    site.refused(&["https://www.example.com/"]);
}

/// The same where one server has all names: the gateway resolves that server's name alone. Istio's rule for the mesh
/// is enough; in the Gateway API a route for the mesh has a service entry as its parent.
#[test]
fn wildcard_hosts_of_one_server_in_both_forms() {
    let (site, _) = Site::new();
    site.testbed.point(WILD_SERVER, plan::TCP_SERVICE).unwrap();
    let server = entry("www-wikipedia", WILD_SERVER, &[HTTPS], "  resolution: DNS\n");
    let all = entry("wikipedia", WILD, &[HTTPS], "");
    for (routes, known) in
        wildcard_through_the_gateway(WILD_SERVER).into_iter().zip(["", all.as_str()])
    {
        for url in ["https://en.wild.example.com/", "https://de.wild.example.com/"] {
            site.refused(&[url]);
        }
        // Without a rule for them, the names are not known.
        site.apply(&server);
        site.status(&[&format!("https://{WILD_SERVER}/")], "200");
        site.refused(&["https://en.wild.example.com/"]);
        site.apply(&format!("{known}{server}{routes}"));
        for name in ["en.wild.example.com", "de.wild.example.com"] {
            let url = format!("https://{name}/");
            let cluster = format!("cluster.outbound|443||{WILD_SERVER}.upstream_cx_total");
            let count = || site.testbed.stat(0, &cluster).unwrap();
            // It goes past the gateway as long as the service entries alone are in force.
            let counts = || {
                let before = count();
                let seen = site.testbed.curl_status(&[&url]).unwrap();
                (seen, count() - before)
            };
            until_is(SOON, &url, counts, |seen| *seen == ("200".to_owned(), 1)).unwrap();
            let led = |line: &&str| {
                line.contains(name) && line.contains(&format!("{}:443", plan::TCP_SERVICE))
            };
            let find = || site.gateway.stdout().lines().any(|line| led(&line)).then_some(());
            until(SOON, "the gateway's line", find).unwrap();
        }
        site.refused(&["https://www.example.com/"]);
        site.delete();
    }
}

/// Names below one through servers for mutual TLS: requests, to which the gateway starts TLS, and connections of TLS,
/// which it passes on. Each name is asked for at the host as the pod asks for it.
#[test]
fn wildcard_hosts_through_mutual_tls() {
    let (site, _) = Site::with_mutual_tls();
    let known = entry("wikipedia", WILD, &[HTTP, HTTPS], "  resolution: DYNAMIC_DNS\n");
    let quoted = format!("'{WILD}'");
    let [sni_of_all, sni] = [&quoted, WILD_SERVER].map(|name| format!("sni: {name}}}"));
    let requests = through_the_gateway_with_mutual_tls("wikipedia", &quoted, 80)
        .replace(&sni_of_all, &sni)
        + &rule("originate", &quoted, 443, "mode: SIMPLE", "");
    let tls =
        "trafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: ISTIO_MUTUAL, ";
    let [istio, _] = wildcard_through_the_gateway(WILD);
    let connections = istio
        .replace("protocol: HTTPS}", "protocol: TLS}")
        .replace("mode: PASSTHROUGH", "mode: ISTIO_MUTUAL")
        .replace(
            "  - name: wikipedia\n---",
            &format!("  - name: wikipedia\n    {tls}{sni}}}]}}\n---"),
        )
        .replace(
            "  - match:\n    - gateways: [istio-egressgateway]",
            "  tcp:\n  - match:\n    - gateways: [istio-egressgateway]",
        );
    // What the server ends is no TLS any more: its route has no server name.
    let (before, after) = connections.split_once("  tcp:\n").unwrap();
    let connections =
        format!("{before}  tcp:\n{}", after.replace(&format!("      sniHosts: [{quoted}]\n"), ""));
    for (scheme, resources, code) in [("http", requests, 200), ("https", connections, 0)] {
        let urls = ["en", "de"].map(|name| format!("{scheme}://{name}.wild.example.com/politics"));
        site.no_page(&urls[0]);
        site.apply(&format!("{known}{resources}"));
        for url in &urls {
            let name = url.split('/').nth(2).unwrap();
            site.status(&[url], "200");
            site.testbed.record().take();
            assert_eq!(site.testbed.curl(&[url]).unwrap().stdout.len(), PAGE_BYTES);
            let over_tls = Seen::Https {
                server_name: Some(name.into()),
                host: name.into(),
                path: "/politics".into(),
            };
            assert_eq!(site.testbed.record().take(), [over_tls]);
            let cluster = format!("\"outbound|443||{WILD}\"");
            let code = format!("\"response_code\":{code},");
            let parts = [name, POD_ID, NODE_ID, &cluster, &code];
            let led = || {
                let is_wanted = |line: &str| parts.iter().all(|part| line.contains(part));
                site.gateway.stdout().lines().any(is_wanted).then_some(())
            };
            until(SOON, "the gateway's line", led)
                .unwrap_or_else(|error| panic!("{error:#}\n{}", site.gateway.stdout()));
        }
        site.no_page(&format!("{scheme}://www.example.com/"));
        // Without mutual TLS to its server there is no way.
        let clear = resources.replace("mode: ISTIO_MUTUAL, sni", "mode: DISABLE, sni");
        site.apply(&format!("{known}{clear}"));
        urls.iter().for_each(|url| site.no_page(url));
        site.delete();
    }
}

/// `*-a.example.com`, which Istio takes for service entries and virtual services, and for rules.
#[test]
fn a_wildcard_within_a_label() {
    let (site, _) = Site::new();
    let host = "*-a.wild.example.com";
    site.apply(&entry("some", host, &[HTTPS, HTTP], "  resolution: DYNAMIC_DNS\n"));
    for name in ["en-a.wild.example.com", "de-a.wild.example.com"] {
        site.status(&[&format!("http://{name}/")], "301");
    }
    for name in ["en-b.wild.example.com", "a.wild.example.com"] {
        site.status(&[&format!("http://{name}/")], "403");
    }
    // The rule and the route are for the names of the one entry alone.
    let all = "  resolution: DYNAMIC_DNS\n";
    let both = entry("some", host, &[HTTP_TO_TLS], all)
        + &entry("others", "*-b.wild.example.com", &[HTTP], all)
        + &rule("some", &format!("'{host}'"), 80, "mode: SIMPLE", "");
    let route = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: some}}\nspec:\n  \
         hosts: ['{host}']\n  http:\n  - rewrite: {{uri: /new/}}\n    \
         route: [{{destination: {{host: '{host}', port: {{number: 80}}}}}}]\n"
    );
    let asked = |name: &str| {
        site.testbed.record().take();
        site.testbed.curl(&[&format!("http://{name}.wild.example.com/x")]).unwrap();
        site.testbed.record().take()
    };
    for (resources, path) in [(both.clone(), "/x"), (both + &route, "/new/x")] {
        site.apply(&resources);
        for name in ["en-a", "de-a"] {
            let host = format!("{name}.wild.example.com");
            let over_tls = Seen::Https { server_name: Some(host.clone()), host, path: path.into() };
            until_is(SOON, path, || asked(name), |seen| *seen == [over_tls.clone()]).unwrap();
        }
        let plain = Seen::Http { host: "en-b.wild.example.com".into(), path: "/x".into() };
        assert_eq!(asked("en-b"), [plain]);
        assert_eq!(asked("en-c"), []);
    }
}

/// The pod asks a proxy outside for HTTPS; only the proxy is opened.
#[test]
fn an_external_proxy() {
    let (site, _) = Site::new();
    let proxy = site.python("proxy", PROXY_SERVER, &[PROXY_PORT, plan::WEB]);
    let url = format!("https://{}/politics", plan::HOST);
    let by_proxy = format!("http://{}:{PROXY_PORT}", plan::TCP_SERVICE);
    let asked = ["-x", &by_proxy, &url];
    site.refused(&asked);
    let more = format!(
        "  addresses:\n  - {}/32\n  location: MESH_EXTERNAL\n  resolution: NONE\n",
        plan::TCP_SERVICE
    );
    let port = format!("{{number: {PROXY_PORT}, name: tcp, protocol: TCP}}");
    site.apply(&entry("proxy", "my-company-proxy.com", &[&port], &more));
    // Of the proxy and of the host.
    site.status(&asked, "200 200");
    let line = format!("CONNECT {}:443 HTTP/1.1", plan::HOST);
    until(SOON, "the proxy's question", || proxy.stdout().contains(&line).then_some(())).unwrap();
    // Past the proxy there is no way.
    site.refused(&[&url]);
    site.delete();
    site.refused(&asked);
}

/// Raw TCP through the gateway, and what the gateway counts of it.
#[test]
fn tcp_through_the_gateway_in_both_forms_and_its_metrics() {
    let (site, _) = Site::new();
    let service = "istio-egressgateway.istio-system.svc.cluster.local";
    let more = format!("  addresses:\n  - {}\n  resolution: DNS\n", plan::TCP_SERVICE);
    let known =
        entry("tcp", "tcp.example.com", &["{number: 5432, name: tcp, protocol: TCP}"], &more);
    let istio = format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  name: istio-egressgateway
spec:
  selector:
    istio: egressgateway
  servers:
  - port: {{number: 5432, name: tcp, protocol: TCP}}
    hosts:
    - tcp.example.com
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: direct-tcp-through-egress-gateway
spec:
  hosts:
  - tcp.example.com
  gateways:
  - mesh
  - istio-egressgateway
  tcp:
  - match:
    - gateways: [mesh]
      destinationSubnets: [{}/32]
      port: 5432
    route:
    - destination: {{host: {service}, port: {{number: 5432}}}}
  - match:
    - gateways: [istio-egressgateway]
      port: 5432
    route:
    - destination: {{host: tcp.example.com, port: {{number: 5432}}}}
      weight: 100
",
        plan::TCP_SERVICE
    );
    let api = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: tcp-egress-gateway
spec:
  gatewayClassName: istio
  listeners:
  - name: tcp
    port: 5432
    protocol: TCP
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata:
  name: direct-tcp-to-egress-gateway
spec:
  parentRefs:
  - kind: ServiceEntry
    group: networking.istio.io
    name: tcp
  rules:
  - backendRefs:
    - name: tcp-egress-gateway-istio
      port: 5432
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata:
  name: forward-tcp-from-egress-gateway
spec:
  parentRefs:
  - name: tcp-egress-gateway
  rules:
  - backendRefs:
    - kind: Hostname
      group: networking.istio.io
      name: tcp.example.com
      port: 5432
";
    let echoed = |port: &str| {
        let script = "import socket, sys
stream = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
stream.sendall(b'hello')
print(stream.recv(5).decode())";
        let args = ["-c", script, plan::TCP_SERVICE, port];
        site.testbed.pod().run("python3", &args).unwrap().stdout.trim().to_owned()
    };
    let cluster = "cluster.outbound|5432||tcp.example.com.upstream_cx_total";
    let count = || site.testbed.stat(0, cluster).unwrap();
    for routes in [istio.as_str(), api] {
        until_is(SOON, "no echo", || echoed("5432"), String::is_empty).unwrap();
        site.apply(&format!("{known}{routes}"));
        // Through the gateway, which counts it.
        let led = || {
            let before = count();
            (echoed("5432"), count() - before)
        };
        until_is(SOON, "an echo", led, |seen| *seen == ("hello".to_owned(), 1)).unwrap();
        assert_eq!(echoed("8443"), "", "another port of the host");
        site.delete();
    }
    // Monitoring: what Istio's dashboards ask for.
    let metrics = || site.testbed.admin(0, "stats/prometheus").unwrap();
    until(SOON, "the metric", || {
        let counted = |line: &str| {
            line.starts_with("istio_tcp_connections_opened_total{")
                && line.contains("destination_service=\"tcp.example.com\"")
                && !line.ends_with(" 0")
        };
        metrics().lines().any(counted).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", metrics()));
}
