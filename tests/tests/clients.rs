//! Real clients, through node and gateway, to real servers: curl, nghttp2, the JDK, gRPC, requests and
//! httpx for Python; nginx, which ends each HTTP/2 connection after twenty requests. Their versions are printed.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{fs, time::Duration};

use egress_tests::{
    access_log,
    ca::{Authority, issue_pem, issue_rsa_pem},
    outside::Servers,
    plan,
    process::{Finished, Process},
    testbed::Testbed,
    wait::{SOON, until, until_is},
};

const HTTP1: u16 = 8080;
const HTTP2: u16 = 8081;
const GRPC: u16 = 50051;
/// HTTP from pods that reaches the server inside TLS, on the other port.
const ORIGINATED: u16 = 8082;
const SECURE: u16 = 8444;

/// `www.example.com` with these ports.
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
  - {{number: {GRPC}, name: grpc, protocol: GRPC}}
  resolution: DNS
"
    )
}

/// nginx: HTTP/1.1 on one port, HTTP/2 in clear on another, where it reads the bodies of requests for `/read`
/// before it answers. In one process, so that it ends with it.
fn nginx_conf(dir: &str) -> String {
    format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr notice;
events {{ worker_connections 512; }}
http {{
  access_log off; client_max_body_size 100m; root {dir}/files;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{ listen {WEB}:{HTTP1}; location / {{ return 200 \"$request_method $server_protocol\\n\"; }} location /large {{ }} }}
  server {{
    listen {WEB}:{HTTP2} http2; keepalive_requests 20;
    location / {{ return 200 \"$request_method $server_protocol\\n\"; }}
    location /read {{ proxy_pass http://{WEB}:{HTTP1}; }}
    location /large {{ }}
  }}
}}
",
        WEB = plan::WEB,
    )
}

struct World {
    testbed: Testbed,
    servers: Vec<Process>,
    _node: Process,
    gateway: Process,
}

impl World {
    fn new() -> Self {
        let testbed = Testbed::test(1).unwrap();
        let dir = testbed.dir();
        let path = dir.join("nginx.conf");
        fs::write(&path, nginx_conf(&dir.to_string_lossy())).unwrap();
        let path = path.to_string_lossy();
        let nginx = testbed
            .outside()
            .start(&dir, "nginx", "nginx", &["-e", "stderr", "-c", &path])
            .unwrap();
        let grpc = testbed
            .outside()
            .start(&dir, "grpc", "/usr/bin/python3", &["-c", PYTHON, "serve", plan::WEB])
            .unwrap();
        testbed.apply("www.yaml", &registry()).unwrap();
        let gateway = testbed.start_gateway(0).unwrap();
        let node = testbed.start_node().unwrap();
        let world = Self { testbed, servers: vec![nginx, grpc], _node: node, gateway };
        let answer = || world.curl(&[&url(HTTP1)]).stdout;
        until_is(SOON, "nginx, through the gateway", answer, |text| text.starts_with("GET"))
            .unwrap();
        world
    }

    fn curl(&self, args: &[&str]) -> Finished {
        self.testbed.curl(args).unwrap()
    }

    fn run(&self, program: &str, args: &[&str]) -> Finished {
        self.testbed.pod().run_for(Duration::from_secs(120), program, args).unwrap()
    }

    /// What the gateway and the servers said about requests that failed.
    fn failures(&self) -> String {
        let lines = access_log::lines(&self.gateway.stdout()).into_iter();
        let mut said: Vec<String> =
            lines.filter(|line| line.code >= 500).map(|line| line.text).collect();
        for server in &self.servers {
            let text = server.stderr();
            said.extend(text.lines().filter(|line| line.contains("[error]")).map(Into::into));
        }
        said.join("\n")
    }

    fn version(&self, program: &str, args: &[&str]) {
        let done = self.run(program, args);
        let text = format!("{}{}", done.stdout, done.stderr);
        println!("{}", text.lines().next().unwrap_or_default());
        assert!(done.ok(), "{program}: {text}");
    }
}

fn url(port: u16) -> String {
    format!("http://www.example.com:{port}/")
}

/// What curl 7.88 ends with when the answer in HTTP/2 comes before it has sent the body: nginx itself, without a gateway,
/// gets it from a third of such requests.
const ANSWERED_EARLY: i32 = 92;

#[test]
fn curl_in_every_version_of_http() {
    let world = World::new();
    world.version("curl", &["--version"]);
    let body = world.testbed.dir().join("payload");
    fs::write(&body, vec![b'x'; 1 << 20]).unwrap();
    let body = format!("@{}", body.display());
    for (args, port, expected) in [
        (&["--http1.1"][..], HTTP1, "GET HTTP/1.1\n"),
        (&["--http1.0"], HTTP1, "GET HTTP/1.1\n"),
        // An upgrade that the gateway ignores (RFC 9110 section 7.8).
        (&["--http2"], HTTP1, "GET HTTP/1.1\n"),
        (&["--http2-prior-knowledge"], HTTP1, "GET HTTP/1.1\n"),
        (&["--http1.1"], HTTP2, "GET HTTP/2.0\n"),
        (&["--http2-prior-knowledge"], HTTP2, "GET HTTP/2.0\n"),
        // With `Expect: 100-continue`, which curl sends with a body of this size.
        (&["--http1.1", "--data-binary", &body], HTTP1, "POST HTTP/1.1\n"),
        (&["--http1.1", "-T", &body[1..]], HTTP1, "PUT HTTP/1.1\n"),
        (&["--http2-prior-knowledge", "-d", "body"], HTTP2, "POST HTTP/2.0\n"),
        (&["-X", "POST"], HTTP1, "POST HTTP/1.1\n"),
    ] {
        let url = url(port);
        let ask = || world.curl(&[args, &[&url]].concat());
        let done = until_is(SOON, "curl", ask, |done| done.code != ANSWERED_EARLY).unwrap();
        assert_eq!((done.code, done.stdout.as_str()), (0, expected), "{args:?} {port}: {done:?}");
    }
    for args in [&["--http1.1"][..], &["--http2"], &["--http2-prior-knowledge"]] {
        let url = format!("http://evil.example.net:{HTTP1}/");
        let shown = [args, &["-o", "/dev/null", "-w", "%{http_code}", &url]].concat();
        assert_eq!(world.curl(&shown).stdout, "403", "{args:?}");
    }
}

/// More than the sockets on the way take, in bytes.
const LARGE: u64 = 32 << 20;

#[test]
fn a_download_counts_as_an_active_request_on_the_clusters_page_until_it_ends() {
    let world = World::new();
    let (testbed, dir) = (&world.testbed, world.testbed.dir());
    fs::create_dir(dir.join("files")).unwrap();
    fs::File::create(dir.join("files/large")).unwrap().set_len(LARGE).unwrap();
    for (name, version, port) in [
        ("one", "--http1.1", HTTP1),
        ("one-to-two", "--http1.1", HTTP2),
        ("two", "--http2-prior-knowledge", HTTP2),
    ] {
        let series = format!("outbound|{port}||www.example.com::{}:{port}::rq_active::", plan::WEB);
        let active = || {
            let page = testbed.admin(0, "clusters").unwrap();
            page.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok())
        };
        let url = url(port) + "large";
        // Some seconds.
        let args = ["-sf", version, "--limit-rate", "8M", "-o", "/dev/null", &url];
        let mut download = testbed.pod().start(&dir, name, "curl", &args).unwrap();
        until_is(SOON, &format!("{name}: a request"), active, |seen| *seen == Some(1)).unwrap();
        assert!(download.ended().is_none(), "{name}: it was under way");
        let ended = download.wait(Duration::from_secs(60)).unwrap();
        assert!(ended.success(), "{name}: {}", download.stderr());
        until_is(SOON, &format!("{name}: none"), active, |seen| *seen == Some(0)).unwrap();
    }
}

/// `requests: 400 total, 400 started, 400 done, 400 succeeded, 0 failed, …`
fn succeeded(done: &Finished) -> (u64, u64) {
    let line = done.stdout.lines().find(|line| line.starts_with("requests: "));
    let line = line.unwrap_or_else(|| panic!("{done:?}"));
    let number = |what: &str| -> u64 {
        let part = line.trim_start_matches("requests: ").split(", ").find(|p| p.ends_with(what));
        part.unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    (number(" total"), number(" succeeded"))
}

#[test]
fn nghttp2_loses_no_request_to_a_server_that_says_goaway() {
    let world = World::new();
    world.version("h2load", &["--version"]);
    let shown = world.run("nghttp", &["-v", "-t", "10", &url(HTTP2)]);
    assert!(shown.stdout.contains(":status: 200"), "{shown:?}");
    let body = world.testbed.dir().join("payload");
    fs::write(&body, vec![b'x'; 10_000]).unwrap();
    let body = body.to_string_lossy();
    for more in [&[][..], &["-d", &body]] {
        for port in [HTTP2, HTTP1] {
            let url = url(port) + if more.is_empty() { "" } else { "read" };
            let load = [&["-n", "1000", "-c", "4", "-m", "10", "-N", "20"], more, &[&url]].concat();
            let done = world.run("h2load", &load);
            let seen = || format!("{more:?} {port}\n{}\n{}", done.stdout, world.failures());
            assert_eq!(succeeded(&done), (1000, 1000), "{}", seen());
            assert!(done.stdout.contains("status codes: 1000 2xx"), "{}", done.stdout);
        }
    }
    let url = format!("http://evil.example.net:{HTTP2}/");
    let done = world.run("h2load", &["-n", "10", "-N", "20", &url]);
    assert!(done.stdout.contains("status codes: 0 2xx, 0 3xx, 10 4xx"), "{}", done.stdout);
}

const JAVA: &str = r#"
import java.net.URI;
import java.net.http.*;
import java.net.http.HttpResponse.BodyHandlers;

public class Client {
    public static void main(String[] urls) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (String url : urls) {
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url));
            for (HttpRequest one : new HttpRequest[] {
                request.GET().build(),
                request.POST(HttpRequest.BodyPublishers.ofString("body")).build(),
            }) {
                HttpResponse<String> answer = client.send(one, BodyHandlers.ofString());
                System.out.println(answer.statusCode() + " " + answer.body().trim());
            }
        }
    }
}
"#;

#[test]
fn the_jdk_with_its_default_client() {
    let world = World::new();
    world.version("java", &["-version"]);
    let program = world.testbed.dir().join("Client.java");
    fs::write(&program, JAVA).unwrap();
    let program = program.to_string_lossy();
    let refused = format!("http://evil.example.net:{HTTP1}/");
    let done = world.run("java", &[&program, &url(HTTP1), &url(HTTP2), &refused]);
    let lines: Vec<_> = done.stdout.lines().collect();
    let [a, b, c, d, e, f] = lines[..] else { panic!("{done:?}") };
    assert_eq!([a, b], ["200 GET HTTP/1.1", "200 POST HTTP/1.1"]);
    assert_eq!([c, d], ["200 GET HTTP/2.0", "200 POST HTTP/2.0"]);
    assert!(e.starts_with("403 ") && f.starts_with("403 "), "{done:?}");
}

/// `serve ADDRESS`, or `call TARGET COUNT`.
const PYTHON: &str = r#"
import concurrent.futures, sys, grpc

def echo(data, context):
    sent = dict(context.invocation_metadata())
    context.set_trailing_metadata((
        ("x-length", str(len(data))), ("x-large", sent["x-large"]), ("x-bytes-bin", sent["x-bytes-bin"]),
    ))
    return data

def count(data, context):
    for number in range(10):
        yield data + str(number).encode()

class Handler(grpc.GenericRpcHandler):
    def service(self, call):
        if call.method == "/test.Test/Echo":
            return grpc.unary_unary_rpc_method_handler(echo)
        if call.method == "/test.Test/Count":
            return grpc.unary_stream_rpc_method_handler(count)

if sys.argv[1] == "serve":
    age = [("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 20000)]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), options=age)
    server.add_generic_rpc_handlers((Handler(),))
    server.add_insecure_port(sys.argv[2] + ":50051")
    server.start()
    server.wait_for_termination()
print("gRPC for Python", grpc.__version__)
with grpc.insecure_channel(sys.argv[2], options=[("grpc.enable_retries", 0)]) as channel:
    unary = channel.unary_unary("/test.Test/Echo")
    stream = channel.unary_stream("/test.Test/Count")
    large = (("x-large", "y" * 6000), ("x-bytes-bin", bytes(range(256))))
    for number in range(int(sys.argv[3])):
        data = b"x" * (number * 100)
        answer, call = unary.with_call(data, timeout=20, wait_for_ready=True, metadata=large)
        assert answer == data
        trailing = [(k, v) for k, v in call.trailing_metadata()]
        for pair in (("x-length", str(len(data))), *large):
            assert pair in trailing, (pair, trailing)
        assert len(list(stream(b"n", timeout=20))) == 10
print("ok")
"#;

/// `URL URL REFUSED`: HTTP/1.1, HTTP/2, and a host that is refused.
const SESSIONS: &str = r#"
import sys, httpx, requests

one, two, refused = sys.argv[1:]

def pieces():
    for _ in range(100):
        yield b"x" * 1000

print("requests", requests.__version__, "and httpx", httpx.__version__)
with requests.Session() as session:
    for _ in range(30):
        assert session.get(one).text == "GET HTTP/1.1\n"
    assert session.post(one, data=pieces()).text == "POST HTTP/1.1\n"
    assert session.head(one).headers["content-length"] == "14"
    assert session.get(refused).status_code == 403
for client, url, version in [
    (httpx.Client(), one, "HTTP/1.1"),
    (httpx.Client(http1=False, http2=True), two, "HTTP/2.0"),
]:
    with client:
        for _ in range(30):
            assert client.get(url).text == f"GET {version}\n"
        assert client.post(url, content=pieces()).text == f"POST {version}\n"
        assert client.get(refused).status_code == 403
print("ok")
"#;

#[test]
fn python_with_requests_httpx_and_grpc() {
    let world = World::new();
    let refused = format!("http://evil.example.net:{HTTP1}/");
    let all = ["-c", SESSIONS, &url(HTTP1), &url(HTTP2), &refused];
    let done = world.run("/usr/bin/python3", &all);
    println!("{}", done.stdout.lines().next().unwrap_or_default());
    assert!(done.stdout.ends_with("ok\n"), "{done:?}");
    let call = |target: &str, count: &str| {
        world.run("/usr/bin/python3", &["-c", PYTHON, "call", target, count])
    };
    let done = call(&format!("www.example.com:{GRPC}"), "200");
    println!("{}", done.stdout.lines().next().unwrap_or_default());
    assert!(done.stdout.ends_with("ok\n"), "{done:?}\n{}", world.failures());
    // Meanwhile the server ended its connections by their age, with GOAWAY: what that left out was sent again, for the
    // client itself tries nothing twice.
    let opened = format!("cluster.outbound|{GRPC}||www.example.com.upstream_cx_total");
    let opened = world.testbed.stat(0, &opened).unwrap();
    assert!(opened >= 3, "{opened} connections");
    let done = call(&format!("evil.example.net:{GRPC}"), "1");
    // The client has the gateway's own sentence, and no word of its own about a status of HTTP.
    for said in ["StatusCode.PERMISSION_DENIED", "is refused by the egress gateway"] {
        assert!(!done.ok() && done.stderr.contains(said), "{said}: {done:?}");
    }
}

/// `TARGET METHOD`: one call, and what came of it.
const CALL: &str = r#"
import grpc, sys

with grpc.insecure_channel(sys.argv[1]) as channel:
    call = channel.unary_unary(sys.argv[2])
    large = (("x-large", "y"), ("x-bytes-bin", b"z"))
    try:
        print("answer", call(b"hello", timeout=20, wait_for_ready=True, metadata=large).decode())
    except grpc.RpcError as error:
        print(error.code().name, error.details())
"#;

/// The Gateway API's form of a route for gRPC: from the service entry to the gateway, and from there to the host for
/// these methods.
fn grpc_routes(methods: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: www}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: grpc, hostname: www.example.com, port: {GRPC}, protocol: HTTP, allowedRoutes: {{namespaces: {{from: Same}}}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: to-the-gateway}}
spec:
  parentRefs: [{{kind: ServiceEntry, group: networking.istio.io, name: www, port: {GRPC}}}]
  rules: [{{backendRefs: [{{name: www-istio, port: {GRPC}}}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: from-the-gateway}}
spec:
  parentRefs: [{{name: www}}]
  hostnames: [www.example.com]
  rules:
  - matches: [{methods}]
    backendRefs: [{{kind: Hostname, group: networking.istio.io, name: www.example.com, port: {GRPC}}}]
"
    )
}

/// A call of gRPC is matched by its service and method; one that no rule matches is an error of gRPC, and never
/// reaches the server.
#[test]
fn a_route_for_grpc_carries_the_methods_that_it_names() {
    let world = World::new();
    let call = |host: &str, method: &str| {
        let target = format!("{host}:{GRPC}");
        let done = world.run("/usr/bin/python3", &["-c", CALL, &target, method]);
        assert!(done.ok(), "{done:?}");
        done.stdout.trim().to_owned()
    };
    let (echo, count) = ("/test.Test/Echo", "/test.Test/Count");
    let name = |method: &str| format!("{{method: {{service: test.Test, method: {method}}}}}");
    let seen = |wanted: &'static str, method: &'static str| {
        let answer = || call("www.example.com", method);
        until_is(SOON, wanted, answer, |answer| answer.starts_with(wanted)).unwrap()
    };
    // The service entry alone.
    seen("answer hello", echo);
    let by_the_gateway = |answer: &str| {
        answer.starts_with("UNIMPLEMENTED") && answer.contains("is refused by the egress gateway")
    };
    world.testbed.apply("routes.yaml", &grpc_routes(&name("Echo"))).unwrap();
    // A method that the server lacks, too: only the sentence tells who refused.
    let nothing = || call("www.example.com", "/test.Test/Nothing");
    until_is(SOON, "the gateway's refusal", nothing, |answer| by_the_gateway(answer)).unwrap();
    // The server would stream its answers to this one.
    let refused = call("www.example.com", count);
    assert!(by_the_gateway(&refused), "{refused}");
    assert_eq!(call("www.example.com", echo), "answer hello");
    world.testbed.apply("routes.yaml", &grpc_routes(&name("Count"))).unwrap();
    let refused = seen("UNIMPLEMENTED", echo);
    assert!(refused.contains("is refused by the egress gateway"), "{refused}");
    // A whole service; a host that nobody named is refused as before.
    world.testbed.apply("routes.yaml", &grpc_routes("{method: {service: test.Test}}")).unwrap();
    seen("answer hello", echo);
    let other = call("evil.example.net", echo);
    assert!(other.starts_with("PERMISSION_DENIED"), "{other}");
    // The log has what was called, and who refused.
    let lines = || access_log::lines(&world.gateway.stdout());
    let has_all = |lines: &Vec<access_log::Line>| {
        [(echo, "-"), (echo, "NR"), (count, "NR")].iter().all(|(path, flags)| {
            let request = format!("POST {path} HTTP/2");
            lines.iter().any(|line| line.request == request && line.flags == *flags)
        })
    };
    until_is(SOON, "a line for each kind of call", lines, has_all).unwrap();
}

/// `ADDRESS PORT TLS_PORT CERTIFICATE`, and responses as they are sent in answer to `/0`, `/1` and so on, in clear
/// and inside TLS.
const ODD_SERVER: &str = r#"
import socketserver, ssl, sys, threading

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            while self.rfile.readline().strip():
                pass
            self.wfile.write(sys.argv[5 + int(line.split()[1][1:])].encode("latin-1"))

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[4])
secure = Server((sys.argv[1], int(sys.argv[3])), Handler)
secure.socket = context.wrap_socket(secure.socket, server_side=True)
threading.Thread(target=secure.serve_forever, daemon=True).start()
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"#;

/// `www.example.com` in clear on one port, and with TLS of the gateway's own on another.
fn odd_registry(roots: &str) -> String {
    format!(
        "{}---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: secure}}
spec:
  hosts: [payments.example.com]
  ports: [{{number: {ORIGINATED}, name: http, protocol: HTTP, targetPort: {SECURE}}}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: secure}}
spec:
  host: payments.example.com
  trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: {roots}, sni: payments.example.com}}}}
",
        registry()
    )
}

/// A server that has only what TLS 1.2 had before forward secrecy and authenticated ciphers, which curl reaches by
/// itself, cannot be reached through the gateway, and the log says why; with a current cipher it can.
#[test]
fn a_server_with_outdated_ciphers_alone_is_refused_with_the_cause() {
    let testbed = Testbed::test(1).unwrap();
    let authority = Authority::new("outdated").unwrap();
    let file = |name: &str, text: &str| {
        let path = testbed.dir().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = issue_rsa_pem(&authority, "payments.example.com").unwrap();
    let certificate = file("outdated.pem", &format!("{certificate}{key}"));
    let roots = file("outdated-roots.pem", &authority.pem());
    testbed.apply("www.yaml", &odd_registry(&roots)).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let url = format!("http://payments.example.com:{ORIGINATED}/");
    let ciphers = [
        ("AES128-GCM-SHA256", false),
        ("AES128-SHA", false),
        ("DHE-RSA-AES128-GCM-SHA256", false),
        ("ECDHE-RSA-AES128-SHA", false),
        ("ECDHE-RSA-AES128-GCM-SHA256", true),
    ];
    for (cipher, is_served) in ciphers {
        let at = format!("{}:{SECURE}", plan::WEB);
        let args = [
            "s_server",
            "-accept",
            &at,
            "-cert",
            &certificate,
            "-tls1_2",
            "-cipher",
            cipher,
            "-www",
            "-quiet",
        ];
        let server = testbed.outside().start(&testbed.dir(), "s_server", "openssl", &args).unwrap();
        // Whoever has the cipher is answered.
        let to = format!("payments.example.com:{SECURE}:{}", plan::WEB);
        let direct = format!("https://payments.example.com:{SECURE}/");
        let words = ["--resolve", &to, "--cacert", &roots, "--tls-max", "1.2", "--ciphers", cipher];
        let shown = ["-s", "-o", "/dev/null", "-m", "10", "-w", "%{http_code}", &direct];
        let by_itself = || testbed.outside().run("curl", &[&words[..], &shown].concat()).unwrap();
        until_is(SOON, cipher, by_itself, |done| done.stdout == "200").unwrap();
        let wanted = if is_served { "200" } else { "503" };
        let (before, ask) =
            (access_log::lines(&gateway.stdout()).len(), || testbed.curl_status(&[&url]).unwrap());
        until_is(SOON, cipher, ask, |seen| seen == wanted).unwrap();
        let told = || {
            let lines = access_log::lines(&gateway.stdout());
            let mut lines = lines.into_iter().skip(before).filter(|line| line.code == 503);
            lines.any(|line| line.text.contains("none with CBC, DHE or RSA key exchange"))
        };
        if !is_served {
            until(SOON, "the cause in the log", || told().then_some(()))
                .unwrap_or_else(|error| panic!("{cipher}: {error:#}\n{}", gateway.stdout()));
        }
        drop(server);
    }
}

/// What curl reads from a server that breaks the standard, it reads through the gateway too, if it has one
/// meaning, whether the server speaks in clear or inside TLS; and the gateway refuses what has two, though curl makes
/// up its mind.
#[test]
fn curl_reads_through_the_gateway_what_it_reads_directly() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    const LENGTH: &str = "Content-Length: 5\r\n\r\nhello";
    const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";
    let many: String = (0..600).map(|number| format!("X-{number}: {number}\r\n")).collect();
    let length = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let clear = [
        ("repeated_length", format!("{OK}{length}{LENGTH}")),
        ("length_and_encoding", format!("{OK}Content-Length: 3\r\n{chunked}\r\n{CHUNKS}")),
        ("header_blanks", format!("{OK}X-Odd : y\r\n{LENGTH}")),
        ("bare_lf", format!("{OK}X-Odd: y\r\n{LENGTH}").replace("\r\n", "\n")),
        // The status line, and some lines behind it.
        ("bare_lf", format!("HTTP/1.1 200 OK\nX-Odd: y\r\n{LENGTH}")),
        ("folded_header", format!("{OK}X-Odd: y\r\n z\r\n{LENGTH}")),
        ("status_blanks", format!("HTTP/1.1  200 OK\r\n{LENGTH}")),
        ("chunk_blanks", format!("{OK}{chunked}\r\n5 \r\nhello\r\n0\r\n\r\n")),
        // What the standard allows, and some servers alone say.
        ("", format!("{OK}{many}{LENGTH}")),
        ("", format!("HTTP/1.1 200\r\n{LENGTH}")),
        ("", format!("HTTP/1.1 200   \r\nX-Odd:\r\n{LENGTH}")),
        ("", format!("HTTP/1.1 200 D\u{e9}j\u{e0} vu  \r\nX-Odd: \u{e9}\r\n{LENGTH}")),
        ("", format!("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n{LENGTH}")),
        ("", format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}{LENGTH}")),
    ];
    let ambiguous = [
        format!("{OK}{chunked}{chunked}\r\n{CHUNKS}"),
        format!("{OK}Content-Length: 5, 6\r\n{chunked}\r\n{CHUNKS}"),
        format!("{OK}X-Odd: y\n{LENGTH}"),
        format!("{OK}Content-Length: 5\n\nhello"),
        format!("{OK}X-Odd: a\rb\r\n{LENGTH}"),
        format!("{OK}X-Odd: a\r\r\n{LENGTH}"),
        format!("HTTP/1.0 200 OK\r\n{chunked}\r\n{CHUNKS}"),
        format!("{OK}Transfer-Encoding: identity\r\n{LENGTH}"),
        format!("{OK}Transfer-Encoding: identity, chunked\r\n\r\n{CHUNKS}"),
    ];
    let testbed = Testbed::test(1).unwrap();
    let authority = Authority::new("odd").unwrap();
    let file = |name: &str, text: &str| {
        let path = testbed.dir().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = issue_pem(&authority, "payments.example.com").unwrap();
    let certificate = file("odd.pem", &format!("{certificate}{key}"));
    let roots = file("odd-roots.pem", &authority.pem());
    testbed.apply("www.yaml", &odd_registry(&roots)).unwrap();
    let ports = [HTTP1, SECURE].map(|port| port.to_string());
    let mut args = vec!["-c", ODD_SERVER, plan::WEB, &ports[0], &ports[1], &certificate];
    args.extend(clear.iter().map(|(_, answer)| answer.as_str()));
    args.extend(ambiguous.iter().map(String::as_str));
    let outside = testbed.outside();
    let _server = outside.start(&testbed.dir(), "odd", "/usr/bin/python3", &args).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let shown = ["--http1.1", "-w", " %{http_code} %header{x-599}"];
    let secure = format!("http://payments.example.com:{ORIGINATED}/");
    let through = |base: &str, number: usize| {
        let url = format!("{base}{number}");
        testbed.curl(&[&shown[..], &[&url]].concat()).unwrap()
    };
    let direct = |number: usize| {
        let url = format!("http://{}:{HTTP1}/{number}", plan::WEB);
        outside.run("curl", &[&["-s", "--max-time", "10"], &shown[..], &[&url]].concat()).unwrap()
    };
    for base in [&url(HTTP1), &secure] {
        let first = || through(base, 0).stdout;
        until_is(SOON, "the server", first, |text| text.starts_with("hello 200")).unwrap();
        let count = |kind: &str| {
            let metrics = testbed.admin(0, "stats/prometheus").unwrap();
            let series = format!("egress_upstream_normalized_total{{kind=\"{kind}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok())
        };
        for (number, (kind, answer)) in clear.iter().enumerate() {
            let before = count(kind);
            let (through, direct) = (through(base, number), direct(number));
            assert!(direct.ok() && direct.stdout.starts_with("hello 200"), "{answer}: {direct:?}");
            assert_eq!((through.code, through.stdout), (0, direct.stdout), "{base}: {answer}");
            let more = before.map(|before| before + 1);
            assert_eq!((count(kind), more.is_some()), (more, !kind.is_empty()), "{answer}");
        }
        for (number, answer) in (clear.len()..).zip(&ambiguous) {
            assert!(direct(number).stdout.starts_with("hello 200"), "{answer}");
            let through = through(base, number).stdout;
            let refused = through.contains(" 502 ") && !through.starts_with("hello");
            assert!(refused, "{base}: {answer}: {through}");
        }
    }
    let blanks = testbed.curl(&["-w", "%header{x-odd}", &format!("{}2", url(HTTP1))]).unwrap();
    assert_eq!(blanks.stdout, "helloy");
    let refused = format!("http://evil.example.net:{HTTP1}/0");
    assert_eq!(testbed.curl_status(&[&refused]).unwrap(), "403");
}

/// `ADDRESS PORT`: ends the connection behind the head of a response, which for `/broken` is malformed.
const ABRUPT_SERVER: &str = r#"
import socketserver, sys

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        line = self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        head = b"HTTP/1.1 200 OK\r\nX-Odd: y\r\nContent-Length: 9\r\n\r\n"
        self.wfile.write(head.replace(b"y", b"y\r") if b" /broken " in line else head)

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"#;

#[test]
fn curl_and_nghttp_get_the_head_of_a_response_that_breaks_off_behind_it() {
    let testbed = Testbed::test(1).unwrap();
    testbed.apply("www.yaml", &registry()).unwrap();
    let args = ["-c", ABRUPT_SERVER, plan::WEB, &HTTP1.to_string()];
    let outside = testbed.outside();
    let _server = outside.start(&testbed.dir(), "abrupt", "/usr/bin/python3", &args).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let (whole, broken) = (url(HTTP1), url(HTTP1) + "broken");
    let fetch = |version: &str, url: &str| testbed.curl(&["-D", "-", version, url]).unwrap();
    let first = || fetch("--http1.1", &whole).stdout.to_ascii_lowercase();
    until_is(SOON, "the server", first, |text| text.contains("x-odd: y")).unwrap();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let done = fetch(version, &whole);
        let head = done.stdout.to_ascii_lowercase();
        // In HTTP/2 curl shows no head that it reads together with the stream's reset: below, nghttp does.
        let shown = head.contains(" 200") && head.contains("x-odd: y");
        assert!(shown || version != "--http1.1" && head.is_empty(), "{version}: {done:?}");
        assert!(!done.ok(), "{version}: a head is not taken for the whole: {done:?}");
        // The twin: what is no head is not passed on as one.
        let done = fetch(version, &broken);
        let head = done.stdout.to_ascii_lowercase();
        assert!(done.ok() && head.contains(" 502"), "{version}: {done:?}");
        assert!(!head.contains("x-odd"), "{version}: {done:?}");
    }
    let shown = |url: &str| {
        let args = ["-v", "-t", "10", "-m", "50", url];
        testbed.pod().run("nghttp", &args).unwrap().stdout
    };
    // Many at once: each by itself may get its head in time by chance.
    let seen = shown(&whole);
    for part in [":status: 200", "x-odd: y", "recv RST_STREAM"] {
        assert_eq!(seen.matches(part).count(), 50, "{part}: {seen}");
    }
    let seen = shown(&broken);
    assert_eq!(seen.matches(":status: 502").count(), 50, "{seen}");
    assert!(!seen.contains("x-odd"), "{seen}");
}

/// `ADDRESS PORT`: says what arrived of a request, in a response of the kind that the path names.
const ECHO_SERVER: &str = r#"
import socketserver, sys

class Handler(socketserver.StreamRequestHandler):
    def fields(self):
        found = []
        while line := self.rfile.readline().strip():
            name, value = line.decode("latin-1").split(":", 1)
            found.append((name.lower(), value.strip()))
        return found

    def body(self, values):
        if "transfer-encoding" not in values:
            return self.rfile.read(int(values.get("content-length", 0))), []
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body, self.fields()

    def handle(self):
        while line := self.rfile.readline():
            method, target, version = line.decode("latin-1").split()
            fields = self.fields()
            values = dict(fields)
            if "expect" in values:
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body, trailers = self.body(values)
            kept = [field for field in fields if field[0] in ("cookie", "range", "x-own", "x-hop")]
            seen = f"{method} {target[:20]} {len(target)} {len(body)} {kept} {trailers}\n".encode("latin-1")
            path = target.split("?")[0]
            length = b"Content-Length: %d\r\n\r\n" % len(seen)
            whole = b"HTTP/1.1 200 OK\r\n" + length + seen
            answer = {
                "/hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + whole,
                "/trailers": b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
                    + b"%x\r\n%s\r\n0\r\nX-Sum: 7\r\n\r\n" % (len(seen), seen),
                "/close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + length + seen,
                "/end": b"HTTP/1.1 200 OK\r\n\r\n" + seen,
                "/part": b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/9\r\n" + length + seen,
                "/none": b"HTTP/1.1 204 No Content\r\n\r\n",
                "/same": b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 9\r\n\r\n",
                "/needs": b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
                    + length + seen,
            }.get(path, whole)
            if method == "HEAD":
                answer = answer.split(b"\r\n\r\n")[0] + b"\r\n\r\n"
            self.wfile.write(answer)
            if path in ("/close", "/end"):
                return

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"#;

/// What curl asks for with options that few use arrives at the server as it does directly, and so does the answer.
#[test]
fn curl_with_unusual_options_sends_and_gets_what_it_does_directly() {
    let testbed = Testbed::test(1).unwrap();
    testbed.apply("www.yaml", &registry()).unwrap();
    let outside = testbed.outside();
    let args = ["-c", ECHO_SERVER, plan::WEB, &HTTP1.to_string()];
    let _server = outside.start(&testbed.dir(), "echo", "/usr/bin/python3", &args).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let body = testbed.dir().join("body");
    fs::write(&body, vec![b'x'; 100_000]).unwrap();
    let body = body.to_string_lossy();
    let at_body = format!("@{body}");
    let long = format!("?{}", "x".repeat(30_000));
    let both = |args: &[&str], path: &str, direct: &[&str]| {
        let shown = ["-w", "%{http_code} %{num_connects}", "-D", "-"];
        let place = if direct.is_empty() { testbed.pod() } else { outside };
        let host = if direct.is_empty() { "www.example.com" } else { plan::WEB };
        let url = format!("http://{host}:{HTTP1}/{path}");
        let limit = ["-s", "--max-time", "20"];
        let done =
            place.run("curl", &[&limit, &shown[..], args, direct, &[&url]].concat()).unwrap();
        // Of the headers, those that are not of a hop alone, in an order of their own.
        let (mut headers, mut rest) = (Vec::new(), Vec::new());
        for line in done.stdout.split("\r\n") {
            let lower = line.to_ascii_lowercase();
            let own = ["http/", "connection:", "content-length:", "transfer-encoding:", "trailer:"];
            match lower.split_once(": ") {
                Some((name, _)) if !name.contains([' ', '\n']) => {
                    if !own.iter().any(|own| lower.starts_with(own)) && name != "upgrade" {
                        headers.push(lower);
                    }
                }
                _ if lower.starts_with("http/") || line.is_empty() => {}
                _ => rest.push(lower),
            }
        }
        headers.sort();
        (done.code, headers, rest)
    };
    let first = || both(&[], "", &[]).2;
    until_is(SOON, "the server", first, |rest| rest.concat().contains("get / ")).unwrap();
    // What HTTP/1.0, HTTP/1.1 and HTTP/2 can say, and what HTTP/2 cannot.
    let any: &[(&[&str], &str)] = &[
        (&[], &long),
        (&["-d", "body"], "post"),
        (&["-d", "body", "-H", "Expect:"], "post"),
        (&["-T", &body], "put"),
        (&["-F", "name=value"], "form"),
        (&["-I"], "head"),
        (&["-I"], "trailers"),
        (&["-I"], "end"),
        (&["-r", "0-3"], "part"),
        (&["-r", "0-1,5-"], "part"),
        (&["-X", "PURGE"], "purge"),
        (&["-X", "M-SEARCH"], "search"),
        (&["-X", "DELETE", "-d", "body"], "delete"),
        (&["-X", "POST"], "empty"),
        (&["-b", "a=1; b=2"], "cookies"),
        (&["-H", "X-Own;"], "no-value"),
        (&["-H", "X-Own: \u{e9}"], "obs-text"),
        (&["--compressed", "--tr-encoding"], "codings"),
        (&[], "close"),
        (&[], "end"),
        (&[], "none"),
        (&[], "same"),
        (&[], "hints"),
        (&[], "needs"),
    ];
    let only_1: &[(&[&str], &str)] = &[
        (&[], "trailers"),
        (&["-d", "body", "-H", "Expect: 100-continue"], "expect"),
        (&["-d", &at_body, "-H", "Expect: 100-continue"], "expect"),
        (&["-H", "Transfer-Encoding: chunked", "-d", &at_body], "chunks"),
        (&["-H", "Connection: close"], "closing"),
        (&["-H", "Connection: Keep-Alive"], "keeping"),
        (&["-H", "Cookie: a=1", "-H", "Cookie: b=2"], "cookies"),
        (&["-X", "OPTIONS", "--request-target", "*"], "all"),
        (&["-H", "Upgrade: TLS/1.2", "-H", "Connection: Upgrade"], "tls"),
    ];
    let old: &[(&[&str], &str)] = &[
        (&[], "old"),
        (&["-d", "body"], "old"),
        (&["-d", "body", "-H", "Expect: 100-continue"], "old"),
        (&["-H", "Connection: keep-alive"], "old"),
        (&["-I"], "old"),
        (&[], "end"),
        (&[], "close"),
    ];
    for (version, lists) in [
        ("--http1.1", &[any, only_1][..]),
        ("--http2-prior-knowledge", &[any]),
        ("--http1.0", &[old]),
    ] {
        let direct = if version == "--http1.0" { version } else { "--http1.1" };
        for (args, path) in lists.iter().copied().flatten() {
            let seen = both(&[args, &[version][..]].concat(), path, &[]);
            let expected = both(args, path, &[direct]);
            assert_eq!(expected.0, 0, "{direct} {args:?} {path}: {expected:?}");
            assert_eq!(seen, expected, "{version} {args:?} {path}");
        }
    }
    // A field of one hop goes no further.
    let hop = ["-H", "Connection: X-Hop", "-H", "X-Hop: 1", "-H", "X-Own: 1"];
    let seen = both(&hop, "hop", &[]).2.concat();
    assert!(seen.contains("x-own") && !seen.contains("x-hop"), "{seen}");
    // Cookies that HTTP/2 has split are one field in HTTP/1 (RFC 9113 section 8.2.3).
    let url = url(HTTP1) + "cookies";
    let split =
        testbed.pod().run("nghttp", &["-H", "cookie: a=1", "-H", "cookie: b=2", &url]).unwrap();
    assert!(split.stdout.contains("('cookie', 'a=1; b=2')"), "{split:?}");
    let refused = format!("http://evil.example.net:{HTTP1}/");
    assert_eq!(testbed.curl_status(&[&refused]).unwrap(), "403");
}

#[test]
fn a_name_server_on_the_gateways_own_address_answers_the_gateway_over_tcp_and_nobody_else() {
    let testbed = Testbed::test(1).unwrap();
    let _dns = Servers::dns(&testbed.gateway(0).ns, plan::GATEWAYS[0]).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let server = format!("@{}", plan::GATEWAYS[0]);
    let ask = ["+tcp", "+short", "+time=10", "+tries=1", &server, "www.example.com"];
    let own = testbed.gateway(0).run("dig", &ask).unwrap();
    assert_eq!(own.stdout.trim(), plan::WEB, "{own:?}");
    let others = testbed.app().run("dig", &ask).unwrap();
    assert!(!others.ok() && !others.stdout.contains(plan::WEB), "{others:?}");
}
