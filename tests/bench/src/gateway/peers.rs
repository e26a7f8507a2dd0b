//! The proxies, each set up for the same work: two hosts by `Host` on port 80, one in clear and one with TLS
//! originated, and two by SNI on port 443.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use egress_tests::process::{Place, Process};

use super::plan::{HTTP, HTTPS, PASS, PASS_BULK, PROXY, WORLD, hosts};

/// Where `cargo xtask bench` says that Envoy is.
const ENVOY: &str = "EGRESS_BENCH_ENVOY";

/// A proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::enum_variant_names, reason = "one of them is named so")]
pub(super) enum Proxy {
    Nginx,
    HaProxy,
    Envoy,
    Ours,
}

impl Proxy {
    pub(super) const ALL: [Self; 4] = [Self::Nginx, Self::HaProxy, Self::Envoy, Self::Ours];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Ours => "this gateway",
        }
    }

    /// The program, if it is on this machine.
    fn program(self) -> Option<PathBuf> {
        let found = match self {
            Self::Nginx => PathBuf::from("/usr/sbin/nginx"),
            Self::HaProxy => PathBuf::from("/usr/sbin/haproxy"),
            Self::Envoy => PathBuf::from(env::var_os(ENVOY)?),
            Self::Ours => egress_tests::agent::built().ok()?.to_owned(),
        };
        let has_stream = || Path::new(NGINX_STREAM).is_file();
        (found.is_file() && (self != Self::Nginx || has_stream())).then_some(found)
    }

    /// Its name and version, if it is on this machine.
    pub(super) fn version(self) -> Option<String> {
        let program = self.program()?;
        let flag = match self {
            Self::Nginx | Self::HaProxy => "-v",
            Self::Envoy | Self::Ours => "--version",
        };
        let output = egress_tests::command(&program.to_string_lossy()).arg(flag).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let number = |word: &&str| {
            word.split('.').count() >= 3 && word.starts_with(|c: char| c.is_ascii_digit())
        };
        let words = text.split([' ', '/', '\n']).find(number).unwrap_or_default().to_owned();
        Some(format!("{} {words}", self.name()))
    }

    /// Starts it on one processor, with its files in `dir`.
    pub(super) fn start(self, place: &Place, dir: &Path, core: usize) -> Result<Process> {
        let program = self.program().with_context(|| format!("no {}", self.name()))?;
        let program = program.to_string_lossy().into_owned();
        let file = |name: &str, text: String| -> Result<String> {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            Ok(path.to_string_lossy().into_owned())
        };
        let ca = dir.join("ca.pem").to_string_lossy().into_owned();
        let mut args: Vec<String> = vec!["-c".into(), core.to_string(), program];
        let mut add = |more: &[&str]| args.extend(more.iter().map(|arg| (*arg).to_owned()));
        match self {
            Self::Nginx => add(&["-c", &file("nginx.conf", nginx(&ca, dir))?]),
            Self::HaProxy => add(&["-db", "-f", &file("haproxy.cfg", haproxy(&ca))?]),
            Self::Envoy => {
                let config = file("envoy.yaml", envoy(&ca))?;
                let flags = ["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"];
                add(&flags);
                add(&[&config]);
            }
            Self::Ours => {
                let mesh = file("mesh.yaml", MESH.into())?;
                let config = dir.join("resources");
                fs::create_dir_all(&config)?;
                fs::write(config.join("resources.yaml"), ours())?;
                let config = config.to_string_lossy().into_owned();
                add(&["gateway", "--config", &config, "--mesh", &mesh, "--control", "off"]);
                add(&["--labels", "istio=egressgateway", "--namespace", "istio-system"]);
                add(&["--capture", "bind:80,443", "--tunnel-port", "off", "--workers", "1"]);
                add(&["--resolver", "198.51.100.1"]);
            }
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        place.start(dir, self.name(), "taskset", &args)
    }
}

const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

fn nginx(ca: &str, dir: &Path) -> String {
    let dir = dir.display();
    let [plain, tls, pass, bulk] = hosts();
    format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.log crit;
load_module {NGINX_STREAM};
events {{ worker_connections 8000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;
  upstream plain {{ server {WORLD}:{HTTP}; keepalive 128; keepalive_requests 1000000000; }}
  upstream tls {{ server {WORLD}:{HTTPS}; keepalive 128; keepalive_requests 1000000000; }}
  proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
  server {{ listen {PROXY}:80 default_server; return 403; }}
  server {{ listen {PROXY}:80; server_name {plain}; location / {{ proxy_pass http://plain; }} }}
  server {{ listen {PROXY}:80; server_name {tls}; location / {{
    proxy_pass https://tls; proxy_ssl_name {tls}; proxy_ssl_server_name on; proxy_ssl_verify on;
    proxy_ssl_protocols TLSv1.3; proxy_ssl_trusted_certificate {ca}; }} }}
}}
stream {{
  map $ssl_preread_server_name $to {{ {pass} {WORLD}:{PASS}; {bulk} {WORLD}:{PASS_BULK}; }}
  server {{ listen {PROXY}:443; ssl_preread on; proxy_pass $to; proxy_timeout 3600s; }}
}}
"
    )
}

fn haproxy(ca: &str) -> String {
    let [plain, tls, pass, bulk] = hosts();
    format!(
        "global
  nbthread 1
  maxconn 6000
defaults
  maxconn 6000
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-request 15s
  timeout http-keep-alive 1h
  http-reuse always
frontend web
  mode http
  bind {PROXY}:80
  use_backend plain if {{ hdr(host) -i {plain} }}
  use_backend tls if {{ hdr(host) -i {tls} }}
backend plain
  mode http
  server origin {WORLD}:{HTTP}
backend tls
  mode http
  server origin {WORLD}:{HTTPS} ssl verify required ca-file {ca} sni str({tls}) verifyhost {tls}
frontend passthrough
  mode tcp
  option splice-request
  option splice-response
  bind {PROXY}:443
  tcp-request inspect-delay 15s
  tcp-request content accept if {{ req_ssl_hello_type 1 }}
  use_backend pass if {{ req_ssl_sni -i {pass} }}
  use_backend bulk if {{ req_ssl_sni -i {bulk} }}
backend pass
  mode tcp
  option splice-request
  option splice-response
  server origin {WORLD}:{PASS}
backend bulk
  mode tcp
  option splice-request
  option splice-response
  server origin {WORLD}:{PASS_BULK}
"
    )
}

fn envoy(ca: &str) -> String {
    let [plain, tls, pass, bulk] = hosts();
    let kind = "type.googleapis.com/envoy.extensions";
    let address = |host: &str, port: u16| {
        format!("{{socket_address: {{address: {host}, port_value: {port}}}}}")
    };
    let cluster = |name: &str, port: u16, more: &str| {
        let address = address(WORLD, port);
        format!(
            "  - name: {name}
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: {name}
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {address}}}}}]}}]
{more}"
        )
    };
    let upstream_tls = format!(
        "    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        '@type': {kind}.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {tls}
        common_tls_context:
          validation_context:
            trusted_ca: {{filename: {ca}}}
            match_typed_subject_alt_names:
            - {{san_type: DNS, matcher: {{exact: {tls}}}}}
"
    );
    let chain = |host: &str, cluster: &str| {
        format!(
            "    - filter_chain_match: {{server_names: [{host}]}}
      filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          '@type': {kind}.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: {cluster}
          cluster: {cluster}
"
        )
    };
    let (web, passthrough) = (address(PROXY, 80), address(PROXY, 443));
    let chains = chain(pass, "pass") + &chain(bulk, "bulk");
    let clusters = cluster("plain", HTTP, "")
        + &cluster("tls", HTTPS, &upstream_tls)
        + &cluster("pass", PASS, "")
        + &cluster("bulk", PASS_BULK, "");
    format!(
        "static_resources:
  listeners:
  - name: web
    address: {web}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': {kind}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{'@type': {kind}.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - {{name: plain, domains: [{plain}], routes: [{{match: {{prefix: /}}, route: {{cluster: plain}}}}]}}
            - {{name: tls, domains: [{tls}], routes: [{{match: {{prefix: /}}, route: {{cluster: tls}}}}]}}
  - name: passthrough
    address: {passthrough}
    listener_filters:
    - name: envoy.filters.listener.tls_inspector
      typed_config: {{'@type': {kind}.filters.listener.tls_inspector.v3.TlsInspector}}
    filter_chains:
{chains}  clusters:
{clusters}"
    )
}

const MESH: &str = "accessLogFile: ''
direct: registry
gateways:
- service: istio-egressgateway.istio-system.svc.cluster.local
  labels: {istio: egressgateway}
  endpoints: [192.0.2.10]
";

fn ours() -> String {
    let [plain, tls, pass, bulk] = hosts();
    let entry = |host: &str, port: u16, protocol: &str, target: u16| {
        let name = host.replace('.', "-");
        format!(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [{host}]
  ports: [{{number: {port}, name: p, protocol: {protocol}, targetPort: {target}}}]
  resolution: STATIC
  endpoints: [{{address: {WORLD}}}]
---
"
        )
    };
    [
        entry(plain, 80, "HTTP", HTTP),
        entry(tls, 80, "HTTP", HTTPS),
        entry(pass, 443, "TLS", PASS),
        entry(bulk, 443, "TLS", PASS_BULK),
        format!(
            "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: originated, namespace: default}}
spec:
  host: {tls}
  trafficPolicy: {{tls: {{mode: SIMPLE}}}}
"
        ),
    ]
    .concat()
}
