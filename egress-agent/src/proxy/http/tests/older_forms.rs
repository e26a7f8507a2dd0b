//! What a current API server refuses and older ones took: whoever writes it is warned, and on traffic it is in force as
//! the warning says.

use tokio::io::AsyncWriteExt as _;

use super::harness::{Client, Gateway, Setup, answering, head, local, upstream};
use crate::config::Severity;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const ROUTE: &str = "    route: [{destination: {host: a.example, port: {number: 80}}}]\n";

/// Starts it, where this is the only thing that is said about it; `None` is nothing.
async fn started(setup: Setup, expected: Option<&str>) -> Gateway {
    let told = setup.told();
    let texts: Vec<_> = told.iter().map(|told| (told.severity, told.message.as_str())).collect();
    match (expected, &texts[..]) {
        (None, []) => {}
        (Some(expected), [(Severity::Warning, text)]) if text.contains(expected) => {}
        _ => panic!("{expected:?}: {texts:?}"),
    }
    setup.start().await
}

async fn status(gateway: &Gateway, host: &str) -> u16 {
    gateway.get(host).await.status
}

/// `true` allows what the mesh does not; without the field the mesh's setting counts.
#[test]
fn a_rule_of_the_old_form_allows_upgrades() {
    local(async {
        let (addr, seen) = upstream(|mut io, _, seen| async move {
            let mut read = Vec::new();
            let request = head(&mut io, &mut read).await.unwrap();
            seen.requests.borrow_mut().push((request, Vec::new()));
            let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            io.write_all(switch.as_bytes()).await.unwrap();
        })
        .await;
        let warning = "the current API has no such field, and an API server refuses it";
        for (field, warning, expected) in
            [("    websocketUpgrade: true\n", Some(warning), "101"), ("", None, "403")]
        {
            let mut setup =
                Setup::new().http("a.example", addr).route("a.example", &format!("{field}{ROUTE}"));
            setup.mesh = "webSocket: deny\n".into();
            let gateway = started(setup, warning).await;
            let before = seen.requests.borrow().len();
            let mut client: Client = gateway.connect().await;
            client
                .send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                .await;
            let answer = client.head().await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{answer}");
            let reached = seen.requests.borrow().len() - before;
            assert_eq!(reached, usize::from(expected == "101"), "{field}");
        }
    });
}

/// No time is no limit, as in Envoy.
#[test]
fn a_timeout_of_nothing_limits_nothing() {
    local(async {
        // Slower than the limit of the twin.
        let (addr, _) = upstream(|mut io, _, _| async move {
            let mut read = Vec::new();
            while head(&mut io, &mut read).await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                // A client whose time is over has closed.
                io.write_all(OK.as_bytes()).await.ok();
            }
        })
        .await;
        let zero = "a current API server refuses durations below 1ms; leave the field out";
        for (timeout, warning, expected) in
            [("0s", Some(zero), (200, "-")), ("20ms", None, (504, "UT"))]
        {
            let rule = format!("    timeout: {timeout}\n{ROUTE}");
            let setup = Setup::new().http("a.example", addr).route("a.example", &rule);
            let gateway = started(setup, warning).await;
            let code = status(&gateway, "a.example").await;
            let line = &gateway.log(1).await[0];
            assert_eq!((code, line["response_flags"].as_str().unwrap()), expected, "{timeout}");
        }
    });
}

#[test]
fn a_port_of_a_gateway_without_a_name_is_served() {
    local(async {
        let ((a, at_a), (b, at_b)) = (answering(OK).await, answering(OK).await);
        let warning = "a current API server refuses a port without a name";
        for (warning, name) in [(Some(warning), ""), (None, "name: http, ")] {
            let setup = Setup::new().http("a.example", a).http("b.example", b);
            let setup = setup.route("a.example", ROUTE).edit("name: http, ", name);
            let gateway = started(setup, warning).await;
            let before = at_a.requests.borrow().len();
            assert_eq!(status(&gateway, "a.example").await, 200, "{name}");
            assert_eq!(at_a.requests.borrow().len(), before + 1, "{name}");
            // What neither names is refused.
            assert_eq!(status(&gateway, "c.example").await, 403, "{name}");
        }
        assert!(at_b.requests.borrow().is_empty());
    });
}

/// A server that names no host serves none.
#[test]
fn a_server_without_hosts_serves_nothing() {
    local(async {
        let (a, at_a) = answering(OK).await;
        for (hosts, code, count) in [("[]", 403, 0), ("[a.example]", 200, 1)] {
            let setup = Setup::new().http("a.example", a).route("a.example", ROUTE);
            let setup = setup.edit("    hosts: [a.example]\n", &format!("    hosts: {hosts}\n"));
            let told: Vec<_> = setup.told().into_iter().map(|told| told.message).collect();
            let warned = told.iter().any(|told| told.contains("list without hosts"));
            assert_eq!(warned, hosts == "[]", "{told:?}");
            let gateway = setup.start().await;
            assert_eq!(status(&gateway, "a.example").await, code, "{hosts}");
            assert_eq!(at_a.requests.borrow().len(), count, "{hosts}");
        }
    });
}

/// The last of 257 hosts is served like the first, and what is not among them is not.
#[test]
fn more_hosts_than_a_list_may_have_are_served() {
    local(async {
        for (count, warned) in [(257, true), (256, false)] {
            let (addr, seen) = answering(OK).await;
            let (first, last) = ("h0.example".to_owned(), format!("h{}.example", count - 1));
            let all: Vec<_> = (0..count).map(|n| format!("h{n}.example")).collect();
            let server = format!(
                "{{selector: {{istio: egressgateway}}, servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{}]}}]}}",
                all.join(", ")
            );
            let routes = format!(
                "{{hosts: [{first}, {last}, other.example], gateways: [mesh, egress], http: [{{match: [{{gateways: [mesh]}}], route: [{{destination: {{host: istio-egressgateway.istio-system.svc.cluster.local, port: {{number: 80}}}}}}]}}, {{match: [{{gateways: [egress]}}], route: [{{destination: {{host: {first}, port: {{number: 80}}}}}}]}}]}}"
            );
            let setup = Setup::new()
                .http(&first, addr)
                .http(&last, addr)
                .http("other.example", addr)
                .resource("Gateway", "egress", &server)
                .resource("VirtualService", "all", &routes);
            let told: Vec<_> = setup.told().into_iter().map(|told| told.message).collect();
            let is_told = told.iter().any(|told| told.contains("more than 256 hosts"));
            assert_eq!(is_told, warned, "{told:?}");
            let gateway = setup.start().await;
            for (number, host) in [&first, &last].into_iter().enumerate() {
                assert_eq!(status(&gateway, host).await, 200, "{host}");
                assert_eq!(seen.requests.borrow().len(), number + 1, "{host}");
            }
            assert_eq!(status(&gateway, "other.example").await, 403);
            assert_eq!(seen.requests.borrow().len(), 2);
        }
    });
}

/// Of `port` and `derivePort` the former counts, as the warning says.
#[test]
fn the_port_of_a_redirect_counts_before_where_to_derive_one_from() {
    local(async {
        let (a, at_a) = answering(OK).await;
        let warning = "has no effect beside port; the current API takes one of the two";
        for (redirect, warning, expected) in [
            ("port: 8080, derivePort: FROM_REQUEST_PORT", Some(warning), ":8080"),
            ("port: 8080", None, ":8080"),
            ("derivePort: FROM_REQUEST_PORT, scheme: https", None, ":80"),
        ] {
            let rule = format!("    redirect: {{{redirect}}}\n");
            let setup = Setup::new().http("a.example", a).route("a.example", &rule);
            let gateway = started(setup, warning).await;
            let answer = gateway.get("a.example").await;
            assert_eq!(answer.status, 301, "{redirect}");
            let line = answer.head.lines().find(|line| line.starts_with("location: ")).unwrap();
            assert!(line.ends_with(&format!("://a.example{expected}/")), "{redirect}: {line}");
        }
        assert!(at_a.requests.borrow().is_empty());
    });
}
