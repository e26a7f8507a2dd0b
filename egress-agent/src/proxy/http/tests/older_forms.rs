//! What a current API server refuses and older ones took: whoever writes it is warned, and on traffic it is in force as
//! the warning says.

use tokio::io::AsyncWriteExt as _;

use super::harness::{Client, Gateway, Setup, answering, head, local, upstream};
use crate::config::Severity;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const SHORT: &str = "a current API server refuses durations below 1ms";
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

/// A limit for each try, of none.
#[test]
fn a_try_of_no_time_is_not_limited() {
    local(async {
        let (addr, _) = upstream(|mut io, _, _| async move {
            let mut read = Vec::new();
            while head(&mut io, &mut read).await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                // A client whose time is over has closed.
                io.write_all(OK.as_bytes()).await.ok();
            }
        })
        .await;
        for (time, warning, expected) in [("0s", Some(SHORT), 200), ("20ms", None, 504)] {
            let rule = format!("    retries: {{attempts: 1, perTryTimeout: {time}}}\n{ROUTE}");
            let setup = Setup::new().http("a.example", addr).route("a.example", &rule);
            let gateway = started(setup, warning).await;
            assert_eq!(status(&gateway, "a.example").await, expected, "{time}");
        }
    });
}

#[test]
fn a_delay_of_nothing_delays_nothing() {
    local(async {
        let (addr, _) = answering(OK).await;
        for (time, warning, delays) in [("0s", Some(SHORT), false), ("2s", None, true)] {
            let fault = format!("{{delay: {{fixedDelay: {time}, percentage: {{value: 100}}}}}}");
            let rule = format!("    fault: {fault}\n{ROUTE}");
            let setup = Setup::new().http("a.example", addr).route("a.example", &rule);
            let gateway = started(setup, warning).await;
            assert_eq!(status(&gateway, "a.example").await, 200, "{time}");
            let line = &gateway.log(1).await[0];
            assert_eq!(line["duration"].as_u64().unwrap() >= 2000, delays, "{time}: {line}");
        }
    });
}

/// The share of an abort in the form that only a delay still has.
#[test]
fn the_old_share_of_an_abort_is_in_force() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let warning = "the current API has no such field here, and an API server drops it";
        for (share, warning, expected) in [
            ("percent: 100", Some(warning), 418),
            ("percent: 0", Some(warning), 200),
            ("percentage: {value: 100}", None, 418),
            ("percentage: {value: 0}", None, 200),
        ] {
            let rule = format!("    fault: {{abort: {{httpStatus: 418, {share}}}}}\n{ROUTE}");
            let setup = Setup::new().http("a.example", addr).route("a.example", &rule);
            let gateway = started(setup, warning).await;
            let before = seen.requests.borrow().len();
            assert_eq!(status(&gateway, "a.example").await, expected, "{share}");
            let reached = seen.requests.borrow().len() - before;
            assert_eq!(reached, usize::from(expected == 200), "{share}");
        }
    });
}

/// Set aside for no time, an endpoint is asked in its turn again.
#[test]
fn an_ejection_of_no_time_sets_nothing_aside() {
    const ERROR: &str = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n";
    local(async {
        for (time, warning, errors) in [("0s", Some(SHORT), 5), ("1h", None, 1)] {
            let ((bad, at_bad), (good, _)) = (answering(ERROR).await, answering(OK).await);
            let policy = format!(
                "{{loadBalancer: {{simple: ROUND_ROBIN}}, outlierDetection: {{consecutive5xxErrors: 1, maxEjectionPercent: 100, baseEjectionTime: {time}}}}}"
            );
            let setup =
                Setup::new().endpoints("a.example", "HTTP", &[(bad, 1), (good, 1)], &policy);
            let gateway = started(setup, warning).await;
            for _ in 0..10 {
                status(&gateway, "a.example").await;
            }
            assert_eq!(at_bad.requests.borrow().len(), errors, "{time}");
        }
    });
}

/// No connection waits for another request for no time.
#[test]
fn a_connection_that_may_be_idle_for_no_time_is_not_kept() {
    local(async {
        for (time, warning, connections) in [("0s", Some(SHORT), 2), ("1h", None, 1)] {
            let (addr, seen) = answering(OK).await;
            let policy = format!("{{connectionPool: {{http: {{idleTimeout: {time}}}}}}}");
            let setup = Setup::new().service("a.example", "HTTP", Some(addr), &policy);
            let gateway = started(setup, warning).await;
            assert_eq!(status(&gateway, "a.example").await, 200);
            // What is kept is kept once the request is over, as its line says.
            gateway.log(1).await;
            assert_eq!(status(&gateway, "a.example").await, 200);
            assert_eq!(seen.connections.get(), connections, "{time}");
        }
    });
}

/// Both are served.
#[test]
fn two_ports_of_a_gateway_with_one_name_are_served() {
    local(async {
        let ((a, at_a), (b, at_b)) = (answering(OK).await, answering(OK).await);
        let warning = "a current API server refuses two ports of one name";
        for (name, warning) in [("http", Some(warning)), ("other", None)] {
            let server = |number: u16, name: &str, host: &str| {
                format!(
                    "{{port: {{number: {number}, name: {name}, protocol: HTTP}}, hosts: [{host}]}}"
                )
            };
            let (first, second) = (server(80, "http", "a.example"), server(81, name, "b.example"));
            let gateway =
                format!("{{selector: {{istio: egressgateway}}, servers: [{first}, {second}]}}");
            let through = |host: &str, port: u16| {
                format!(
                    "{{hosts: [{host}], gateways: [mesh, egress], http: [{{match: [{{gateways: [mesh], port: 80}}], route: [{{destination: {{host: istio-egressgateway.istio-system.svc.cluster.local, port: {{number: {port}}}}}}}]}}, {{match: [{{gateways: [egress], port: {port}}}], route: [{{destination: {{host: {host}, port: {{number: 80}}}}}}]}}]}}"
                )
            };
            let setup = Setup::new()
                .http("a.example", a)
                .http("b.example", b)
                .resource("Gateway", "egress", &gateway)
                .resource("VirtualService", "a", &through("a.example", 80))
                .resource("VirtualService", "b", &through("b.example", 81));
            let gateway = started(setup, warning).await;
            for (host, seen) in [("a.example", &at_a), ("b.example", &at_b)] {
                let before = seen.requests.borrow().len();
                assert_eq!(status(&gateway, host).await, 200, "{name} {host}");
                assert_eq!(seen.requests.borrow().len(), before + 1, "{name} {host}");
            }
            assert_eq!(status(&gateway, "c.example").await, 403, "{name}");
        }
    });
}

#[test]
fn a_gateway_without_servers_serves_nothing() {
    local(async {
        let (a, at_a) = answering(OK).await;
        let servers = "  servers:\n  - port: {number: 80, name: http, protocol: HTTP}\n    hosts: [a.example]\n";
        for (servers_now, code, count) in [("  servers: []\n", 403, 0), (servers, 200, 1)] {
            let setup = Setup::new().http("a.example", a).route("a.example", ROUTE);
            let setup = setup.edit(servers, servers_now);
            let told: Vec<_> = setup.told().into_iter().map(|told| told.message).collect();
            let warned = told.iter().any(|told| told.contains("a Gateway without servers"));
            assert_eq!(warned, code == 403, "{told:?}");
            let gateway = setup.start().await;
            assert_eq!(status(&gateway, "a.example").await, code, "{servers_now}");
            assert_eq!(at_a.requests.borrow().len(), count, "{servers_now}");
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
