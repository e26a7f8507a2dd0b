//! Istio's egress tasks, with real curl: each in the words of Istio's resources and of the Gateway API where the task has
//! both. The walkthrough's own (a service entry alone, a gateway for HTTP, for HTTPS, with TLS origination) are in
//! `walkthrough`.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::fs;

use egress_tests::{
    ca::{Authority, Subject, Time, issue_mutual, issue_pem},
    outside::{PAGE_BYTES, Seen},
    plan,
    process::Process,
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until, until_is},
};

/// The host of the tasks that ask for client certificates.
const NGINX: &str = "my-nginx.mesh-external.svc.cluster.local";
/// Where it listens; 443 is the web server's here.
const NGINX_PORT: &str = "18443";
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

struct Site {
    gateway: Process,
    _node: Process,
    testbed: Testbed,
}

impl Site {
    /// The pod is `curl` of the default namespace; the gateway has the credential `client-credential`.
    fn new() -> (Self, Authority) {
        let testbed = Testbed::test(1).unwrap();
        let workload = format!(
            "workloads:\n- name: curl\n  namespace: default\n  labels: {{app: curl}}\n  \
             addresses: [{}]\n  interface: {}\n",
            plan::POD,
            plan::POD_INTERFACE
        );
        testbed.apply_mesh(&format!("{}{workload}", mesh_yaml(1))).unwrap();
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
        for (name, text) in
            [("tls.crt", certificate), ("tls.key", key), ("ca.crt", authority.pem())]
        {
            fs::write(dir.join(name), text).unwrap();
        }
        let credentials = testbed.dir().join("credentials").display().to_string();
        let gateway =
            testbed.start_gateway_with(0, &["--credentials-dir".into(), credentials]).unwrap();
        let node = testbed.start_node().unwrap();
        (Self { gateway, _node: node, testbed }, authority)
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

    fn apply(&self, text: &str) {
        self.testbed.apply("task.yaml", text).unwrap();
    }

    fn python(&self, name: &str, script: &str, args: &[&str]) -> Process {
        self.testbed.serve_python(name, script, args).unwrap()
    }

    /// The server that asks for client certificates of the authority.
    fn nginx(&self, authority: &Authority) -> Process {
        self.testbed.point(NGINX, plan::WEB).unwrap();
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
    let port = format!("{{number: 80, name: http, protocol: HTTP, targetPort: {NGINX_PORT}}}");
    let tls = format!("mode: MUTUAL, credentialName: client-credential, sni: {NGINX}");
    let selects = "  workloadSelector:\n    matchLabels:\n      app: curl\n";
    let mutual = entry("originate-mtls-for-nginx", NGINX, &[&port, HTTPS], "  resolution: DNS\n")
        + &rule("originate-mtls-for-nginx", NGINX, 80, &tls, selects);
    site.asks_for_a_certificate(&mutual);
    // The rule is for others: what is sent in clear is no TLS to the server.
    site.apply(&mutual.replace("app: curl", "app: other"));
    let url = format!("http://{NGINX}/");
    let seen = || site.testbed.curl_status(&[&url]).unwrap();
    until_is(SOON, "no page for others", seen, |seen| seen != "200").unwrap();
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
apiVersion: gateway.networking.k8s.io/v1
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
        let plain = format!("http://{host}/politics");
        let seen = || site.testbed.curl_status(&["-L", &plain]).unwrap();
        until_is(SOON, "no page", seen, |seen| !seen.contains("200")).unwrap();
    }
    let _nginx = site.nginx(&authority);
    let port = format!("{{number: 443, name: https, protocol: HTTPS, targetPort: {NGINX_PORT}}}");
    let nginx = entry("nginx", NGINX, &[HTTP, &port], "  resolution: DNS\n");
    let mutual = format!("mode: MUTUAL, credentialName: client-credential, sni: {NGINX}");
    let rule_for_nginx = rule("originate-mtls-for-nginx", NGINX, 443, &mutual, "");
    for routes in
        [through_the_gateway("nginx", NGINX), through_the_gateway_api("nginx", NGINX, "nginx")]
    {
        site.asks_for_a_certificate(&format!("{nginx}{routes}{rule_for_nginx}"));
    }
}

const WILD: &str = "*.wild.example.com";

/// HTTPS to every name below one, passed through the gateway.
#[test]
fn wildcard_hosts_in_both_forms() {
    let (site, _) = Site::new();
    let (en, de) = ("https://en.wild.example.com/", "https://de.wild.example.com/");
    // Without a route, as by a sidecar.
    site.apply(&entry("wikipedia", WILD, &[HTTPS], ""));
    site.status(&[en], "200");
    site.refused(&["https://www.example.com/"]);
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
    - destination: {{host: '{WILD}', port: {{number: 443}}}}
      weight: 100
---
"
    );
    let api = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: wikipedia-egress-gateway
spec:
  gatewayClassName: istio
  listeners:
  - name: tls
    hostname: '{WILD}'
    port: 443
    protocol: TLS
    tls:
      mode: Passthrough
---
apiVersion: gateway.networking.k8s.io/v1
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
apiVersion: gateway.networking.k8s.io/v1
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
      name: '{WILD}'
      port: 443
---
"
    );
    for routes in [istio, api] {
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
    }
}

/// `*-a.example.com`, which Istio takes for service entries and virtual services.
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
    site.testbed.delete("task.yaml").unwrap();
    site.refused(&asked);
}

/// Raw TCP through the gateway, and what the gateway counts of it.
#[test]
fn tcp_through_the_gateway_and_its_metrics() {
    let (site, _) = Site::new();
    let service = "istio-egressgateway.istio-system.svc.cluster.local";
    let more = format!("  addresses:\n  - {}\n  resolution: DNS\n", plan::TCP_SERVICE);
    let tcp = entry("tcp", "tcp.example.com", &["{number: 5432, name: tcp, protocol: TCP}"], &more)
        + &format!(
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
    let echoed = |port: &str| {
        let script = "import socket, sys
stream = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
stream.sendall(b'hello')
print(stream.recv(5).decode())";
        let args = ["-c", script, plan::TCP_SERVICE, port];
        site.testbed.pod().run("python3", &args).unwrap().stdout.trim().to_owned()
    };
    assert_eq!(echoed("5432"), "");
    site.apply(&tcp);
    until_is(SOON, "an echo", || echoed("5432"), |seen| seen == "hello").unwrap();
    assert_eq!(echoed("8443"), "", "another port of the host");
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
    let cluster = "cluster.outbound|5432||tcp.example.com.upstream_cx_total";
    assert!(site.testbed.stat(0, cluster).unwrap() >= 1);
}
