//! gRPC through the gateway by a route of the Gateway API: HTTP/2 with trailers on both sides.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};

use super::{
    h2::{echo, read},
    harness::{Gateway, Seen, Setup, local, until, upstream},
};

const HOST: &str = "grpc.example";
const CLUSTER: &str = "outbound|80||grpc.example";
/// A message of gRPC: not compressed, five bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";

/// A gateway whose route is for these methods.
async fn start(matches: &str) -> (Gateway, Seen) {
    let (addr, seen) = upstream(|io, _, seen| echo(io, seen)).await;
    let routes = format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: grpc}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: grpc, hostname: {HOST}, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {{from: Same}}}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: to-the-gateway}}
spec:
  parentRefs: [{{kind: ServiceEntry, group: networking.istio.io, name: grpc-example}}]
  rules: [{{backendRefs: [{{name: grpc-istio, port: 80}}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: from-the-gateway}}
spec:
  parentRefs: [{{name: grpc}}]
  hostnames: [{HOST}]
  rules:
  - matches: [{matches}]
    backendRefs: [{{kind: Hostname, group: networking.istio.io, name: {HOST}, port: 80}}]
"
    );
    let setup = Setup::new().service(HOST, "GRPC", Some(addr), "").manifest(&routes);
    (setup.start().await, seen)
}

/// Calls a method with the message: the status, `grpc-status` of the trailers, and the message that came back.
async fn call(gateway: &Gateway, method: &str) -> (StatusCode, Option<String>, Vec<u8>) {
    let mut client = gateway.connect_h2().await.ready().await.unwrap();
    let request = Request::post(format!("http://{HOST}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let (response, mut stream) = client.send_request(request.body(()).unwrap(), false).unwrap();
    stream.send_data(Bytes::from_static(MESSAGE), true).unwrap();
    let response = response.await.unwrap();
    let head = response.headers().clone();
    let (status, body, trailers) = read(response).await;
    let code = trailers.get("grpc-status").or_else(|| head.get("grpc-status"));
    (status, code.map(|code| code.to_str().unwrap().to_owned()), body)
}

/// What a client of gRPC hears of a request that the gateway answers by itself.
#[derive(PartialEq, Eq, Debug)]
struct Heard {
    status: u16,
    kind: Option<String>,
    code: Option<String>,
    message: Option<String>,
    body: Vec<u8>,
}

impl Heard {
    fn new(status: u16, head: &HeaderMap, body: Vec<u8>) -> Self {
        let text = |name: &str| head.get(name).map(|value| value.to_str().unwrap().to_owned());
        let (kind, code) = (text("content-type"), text("grpc-status"));
        Self { status, kind, code, message: text("grpc-message"), body }
    }
}

async fn over_h2(gateway: &Gateway, host: &str, kind: &str) -> Heard {
    let mut client = gateway.connect_h2().await.ready().await.unwrap();
    let request = Request::post(format!("http://{host}/shop.Orders/Get"));
    let request = request.header("content-type", kind).header("te", "trailers");
    let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
    let response = response.await.unwrap();
    let head = response.headers().clone();
    let (status, body, trailers) = read(response).await;
    assert!(trailers.is_empty(), "{trailers:?}");
    Heard::new(status.as_u16(), &head, body)
}

async fn over_h1(gateway: &Gateway, host: &str, kind: &str) -> Heard {
    let mut client = gateway.connect().await;
    let request = format!(
        "POST /shop.Orders/Get HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: 0\r\n\r\n"
    );
    client.send(&request).await;
    let answer = client.answer().await.unwrap();
    let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
    let head = lines.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    Heard::new(answer.status, &HeaderMap::from_iter(head.collect::<Vec<_>>()), answer.body)
}

/// A rule, or a service without one, and what comes of it.
struct Case {
    rule: &'static str,
    /// Of HTTP, for whoever does not speak gRPC.
    status: u16,
    /// Of gRPC.
    code: &'static str,
    /// What the message begins with.
    message: &'static str,
    flags: &'static str,
}

const TO_HOST: &str = "    route: [{destination: {host: grpc.example, port: {number: 80}}}]\n";
const ROUTE: &str = "    route: [{destination: {host: a.example, port: {number: 80}}}]\n";

/// Envoy's mapping: `doc/http-grpc-status-mapping.md` of grpc/grpc.
const CASES: [Case; 6] = [
    Case { rule: "", status: 403, code: "7", message: "other.example is refused by", flags: "NR" },
    Case {
        rule: "unmatched",
        status: 404,
        code: "12",
        message: "a.example is refused by",
        flags: "NR",
    },
    Case {
        rule: "unreachable",
        status: 503,
        code: "14",
        message: "a.example can't be reached",
        flags: "UF",
    },
    Case {
        rule: "    timeout: 50ms\n",
        status: 504,
        code: "14",
        message: "a.example can't be reached",
        flags: "UT",
    },
    Case {
        rule: "    fault: {abort: {httpStatus: 401, percentage: {value: 100}}}\n",
        status: 401,
        code: "16",
        message: "fault filter abort",
        flags: "FI",
    },
    Case {
        rule: "    directResponse: {status: 400, body: {string: \"50% \\u00fc\\n\"}}\n",
        status: 400,
        code: "13",
        message: "50%25 %C3%BC",
        flags: "FI",
    },
];

impl Case {
    async fn gateway(&self) -> (Gateway, &'static str) {
        // Takes requests, and answers none.
        let (silent, _) = upstream(|io, _, _| async move {
            let _open = io;
            std::future::pending::<()>().await;
        })
        .await;
        let rule = format!("{}{ROUTE}", self.rule);
        let setup = Setup::new();
        match self.rule {
            "" => (setup.http("a.example", silent).start().await, "other.example"),
            "unmatched" => {
                let setup = setup.http("a.example", silent);
                (
                    setup.route_on("a.example", ", uri: {exact: /none}", ROUTE).start().await,
                    "a.example",
                )
            }
            "unreachable" => {
                let setup = setup.service("a.example", "HTTP", None, "");
                (setup.route("a.example", ROUTE).start().await, "a.example")
            }
            own if own.contains("directResponse") => {
                (setup.http("a.example", silent).route("a.example", own).start().await, "a.example")
            }
            _ => (
                setup.http("a.example", silent).route("a.example", &rule).start().await,
                "a.example",
            ),
        }
    }
}

#[test]
fn what_the_gateway_answers_by_itself_is_an_answer_of_grpc() {
    for case in &CASES {
        local(async {
            let Case { rule, status, code, message, flags } = *case;
            let (gateway, host) = case.gateway().await;
            for kind in ["application/grpc", "application/grpc+proto"] {
                for heard in
                    [over_h2(&gateway, host, kind).await, over_h1(&gateway, host, kind).await]
                {
                    assert_eq!(heard.status, 200, "{rule:?}: {heard:?}");
                    assert_eq!(heard.kind.as_deref(), Some("application/grpc"), "{rule:?}");
                    assert_eq!(heard.code.as_deref(), Some(code), "{rule:?}: {heard:?}");
                    assert!(heard.message.unwrap().starts_with(message), "{rule:?}");
                    assert!(heard.body.is_empty(), "{rule:?}");
                }
            }
            // Everybody else hears it in HTTP.
            for kind in ["application/grpc-web", "text/plain"] {
                for heard in
                    [over_h2(&gateway, host, kind).await, over_h1(&gateway, host, kind).await]
                {
                    assert_eq!((heard.status, heard.code), (status, None), "{rule:?}");
                    assert!(!heard.body.is_empty(), "{rule:?}");
                }
            }
            let log = gateway.log(8).await;
            let shown = |code: u16| log.iter().filter(|line| line["response_code"] == code).count();
            assert_eq!((shown(200), shown(status)), (4, 4), "{rule:?}: {log:?}");
            for line in &log {
                // Beside a flag that no retry was left.
                let shown = line["response_flags"].as_str().unwrap();
                assert!(shown.starts_with(flags), "{rule:?}: {line}");
                assert!(line["reason"].is_string(), "{rule:?}: {line}");
            }
        });
    }
}

/// In HTTP/2 as in HTTP/1, and to a client of gRPC in the message: percent-encoded, as its lines are.
#[test]
fn the_operators_words_follow_a_refusal_in_every_protocol() {
    const WORDS: &str = "\nAsk the platform team.\nhttps://wiki.example.com/egress\n";
    local(async {
        let (addr, _) = upstream(|io, _, seen| echo(io, seen)).await;
        let mut setup = Setup::new().http("a.example", addr).unknown("gone.example");
        setup.mesh = "refusals: {message: Ask the platform team., link: 'https://wiki.example.com/egress'}\n"
            .into();
        let gateway = setup.start().await;
        for (host, status, has_words) in
            [("other.example", 403, true), ("gone.example", 503, false)]
        {
            for heard in [
                over_h1(&gateway, host, "text/plain").await,
                over_h2(&gateway, host, "text/plain").await,
            ] {
                assert_eq!((heard.status, &heard.message), (status, &None), "{heard:?}");
                let body = String::from_utf8(heard.body).unwrap();
                assert_eq!(body.ends_with(WORDS), has_words, "{body}");
                assert_eq!(body.contains("platform"), has_words, "{body}");
            }
            for heard in [
                over_h1(&gateway, host, "application/grpc").await,
                over_h2(&gateway, host, "application/grpc").await,
            ] {
                assert_eq!((heard.status, &*heard.body), (200, &b""[..]), "{heard:?}");
                let message = heard.message.unwrap();
                assert_eq!(message.contains("platform"), has_words, "{message}");
                let words = WORDS.trim_end().replace('\n', "%0A");
                assert_eq!(message.ends_with(&words), has_words, "{message}");
            }
        }
    });
}

#[test]
fn a_call_beyond_a_limit_is_unavailable() {
    local(async {
        let (addr, _) = upstream(|io, _, seen| echo(io, seen)).await;
        let mut setup = Setup::new().http("a.example", addr);
        setup.annotate("a.example", "{requests: {perSecond: 1, burst: 1}}");
        let gateway = setup.route("a.example", "    directResponse: {status: 200}\n").start().await;
        // One each second is answered by the rule, which names no status of gRPC.
        let mut codes = BTreeSet::new();
        while !codes.contains("14") {
            let heard = over_h2(&gateway, "a.example", "application/grpc").await;
            assert_eq!(heard.status, 200);
            codes.insert(heard.code.unwrap());
        }
        assert_eq!(codes.into_iter().collect::<Vec<_>>(), ["14", "2"]);
    });
}

#[test]
fn a_call_for_which_there_is_no_room_is_unavailable() {
    local(async {
        // Takes requests, and answers none.
        let (silent, seen) = upstream(|io, _, seen| async move {
            let _open = io;
            seen.requests.borrow_mut().push(Default::default());
            std::future::pending::<()>().await;
        })
        .await;
        let policy = "{connectionPool: {http: {http2MaxRequests: 1}}}";
        let setup = Setup::new().service("a.example", "HTTP", Some(silent), policy);
        let gateway = setup.route("a.example", ROUTE).start().await;
        let mut first = gateway.connect().await;
        first.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        until(|| !seen.requests.borrow().is_empty()).await;
        for heard in [
            over_h2(&gateway, "a.example", "application/grpc").await,
            over_h1(&gateway, "a.example", "application/grpc").await,
        ] {
            assert_eq!((heard.status, heard.code.as_deref()), (200, Some("14")), "{heard:?}");
            assert!(heard.message.unwrap().contains("has its limit of 1 requests under way"));
        }
        let heard = over_h2(&gateway, "a.example", "text/plain").await;
        assert_eq!((heard.status, heard.code), (503, None));
        for line in gateway.log(3).await {
            assert_eq!(line["response_flags"], "UO", "{line}");
            assert_eq!(line["reason"], "overflow", "{line}");
        }
    });
}

#[test]
fn the_log_has_the_status_of_grpc() {
    local(async {
        let (addr, _) = upstream(|io, _, seen| echo(io, seen)).await;
        let mut setup = Setup::new().service(HOST, "GRPC", Some(addr), "").route(HOST, TO_HOST);
        setup.log_format = r#"{"name": "%GRPC_STATUS%", "number": "%GRPC_STATUS_NUMBER%"}"#;
        let gateway = setup.start().await;
        // In trailers of the upstream, in the gateway's own head, and nowhere.
        let (status, code, _) = call(&gateway, "/shop.Orders/Get").await;
        assert_eq!((status, code.as_deref()), (StatusCode::OK, Some("0")));
        assert_eq!(over_h2(&gateway, "other.example", "application/grpc").await.status, 200);
        assert_eq!(over_h2(&gateway, "other.example", "text/plain").await.status, 403);
        let log = gateway.log(3).await;
        let shown = log.iter().map(|line| format!("{} {}", line["name"], line["number"]));
        let shown: BTreeSet<String> = shown.collect();
        let expected = ["\"OK\" 0", "\"PermissionDenied\" 7", "null null"];
        assert_eq!(shown, expected.map(String::from).into());
    });
}

#[test]
fn methods_that_a_route_names_are_called_and_no_others() {
    const GET: &str = "/shop.Orders/Get";
    const DELETE: &str = "/shop.Orders/Delete";
    const OTHER: &str = "/shop.OrdersOfAll/Get";
    for (matches, served, refused) in [
        ("{method: {service: shop.Orders, method: Get}}", &[GET][..], &[DELETE, OTHER][..]),
        ("{method: {service: shop.Orders}}", &[GET, DELETE], &[OTHER]),
        ("{method: {method: Get}}", &[GET, OTHER], &[DELETE]),
        ("{headers: [{name: content-type, value: application/grpc}]}", &[GET, DELETE, OTHER], &[]),
    ] {
        local(async {
            let (gateway, seen) = start(matches).await;
            for method in served {
                let answer = call(&gateway, method).await;
                assert_eq!(
                    answer,
                    (StatusCode::OK, Some("0".into()), MESSAGE.to_vec()),
                    "{matches}"
                );
            }
            // UNIMPLEMENTED is gRPC's word for 404.
            for method in refused {
                let (status, code, _) = call(&gateway, method).await;
                assert_eq!(
                    (status, code.as_deref()),
                    (StatusCode::OK, Some("12")),
                    "{matches} {method}"
                );
            }
            let asked = seen.requests.borrow().clone();
            assert_eq!(asked.len(), served.len(), "{matches}: {asked:?}");
            for ((asked, body), method) in asked.iter().zip(served) {
                let expected = format!("POST http://{HOST}{method} ");
                assert!(asked.starts_with(&expected), "{asked}");
                assert_eq!(body, MESSAGE);
            }
            let log = gateway.log(served.len() + refused.len()).await;
            // Refusals have a place of their own in the log's queue: not in the requests' order.
            for method in served.iter().chain(refused) {
                let line = log.iter().find(|line| line["path"] == *method).unwrap();
                let is_served = served.contains(method);
                let expected = if is_served { ("-", "-") } else { ("NR", "no_matching_rule") };
                let text = |name: &str| line[name].as_str().unwrap_or("-");
                assert_eq!((text("response_flags"), text("reason")), expected, "{line}");
                assert_eq!(text("upstream_cluster") == CLUSTER, is_served, "{line}");
            }
        });
    }
}
