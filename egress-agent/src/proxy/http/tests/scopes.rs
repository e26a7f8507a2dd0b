//! TLS that a rule asks for is spoken, or nothing is sent; and what no rule matches is not found.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use super::harness::{Authority, Setup, answer_all, answering, local, upstream};
use crate::telemetry::ClusterCounter;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
/// A name as services in a cluster have, of a service outside.
const HOST: &str = "my-nginx.mesh-external.svc.cluster.local";

#[test]
fn a_host_outside_is_reached_over_tls_whatever_its_name() {
    local(async {
        let authority = Authority::new("the authority");
        let config = authority.server(HOST, [2020, 2100], &["http/1.1"]);
        let (addr, seen) = upstream(move |io, _, seen| {
            let acceptor = TlsAcceptor::from(Arc::clone(&config));
            async move {
                if let Ok(io) = acceptor.accept(io).await {
                    answer_all(io, seen, OK).await;
                }
            }
        })
        .await;
        let mut setup = Setup::new().origination(HOST, addr, "");
        setup.roots = authority.roots;
        let gateway = setup.start().await;
        assert_eq!(gateway.get(HOST).await.text(), "hello");
        assert_eq!(seen.requests.borrow().len(), 1);
        let cluster = format!("outbound|80||{HOST}");
        assert_eq!(gateway.cluster(&cluster, ClusterCounter::SslHandshake), 1);
    });
}

#[test]
fn tls_that_cannot_be_had_is_no_clear_text() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let policy = "{tls: {mode: ISTIO_MUTUAL}}";
        let setup = Setup::new().service(HOST, "HTTP", Some(addr), policy);
        let gateway = setup.http("plain.example", addr).start().await;
        let answer = gateway.get(HOST).await;
        assert_eq!(answer.status, 403);
        assert!(answer.text().contains("tls_policy_unavailable"), "{}", answer.text());
        assert!(answer.text().contains("DestinationRule default/my-nginx"), "{}", answer.text());
        assert_eq!(seen.connections.get(), 0);
        let log = gateway.log(1).await;
        assert_eq!(log[0]["reason"], "tls_policy_unavailable");
        assert_eq!(gateway.get("plain.example").await.text(), "hello");
    });
}

/// Without the roots that a rule names no connection is opened, and nothing counts against the upstream.
#[test]
fn tls_without_its_files_dials_nobody() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let setup = Setup::new().origination(HOST, addr, ", caCertificates: /nowhere/ca.pem");
        let gateway = setup.http("plain.example", addr).start().await;
        let answer = gateway.get(HOST).await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("/nowhere/ca.pem: the file does not exist"));
        let log = gateway.log(1).await;
        assert_eq!(log[0]["reason"], "tls_policy_unavailable");
        assert_eq!(log[0]["response_flags"], "UF");
        assert_eq!(log[0]["upstream_host"], serde_json::Value::Null);
        let cluster = format!("outbound|80||{HOST}");
        for counter in [ClusterCounter::CxConnectFail, ClusterCounter::CxTotal] {
            assert_eq!(gateway.cluster(&cluster, counter), 0, "{counter:?}");
        }
        // Connections are accepted in their order, so an earlier one would be seen.
        assert_eq!(gateway.get("plain.example").await.text(), "hello");
        assert_eq!(seen.connections.get(), 1);
    });
}

#[test]
fn what_no_rule_matches_is_not_found_and_an_unknown_host_is_forbidden() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let setup = Setup::new().http("a.example", addr);
        let rule = "    route: [{destination: {host: a.example, port: {number: 80}}}]\n";
        let mut setup = setup.route("a.example", rule);
        setup.only("uri: {prefix: /known}");
        let gateway = setup.start().await;
        let mut client = gateway.connect().await;
        for (path, host, status) in [
            ("/known/x", "a.example", 200),
            ("/other", "a.example", 404),
            ("/known/x", "b.example", 403),
        ] {
            client.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert_eq!(client.answer().await.unwrap().status, status, "{host}{path}");
        }
        assert_eq!(seen.requests.borrow().len(), 1);
        // Refusals have a place of their own in the log's queue: not in the requests' order.
        let log = gateway.log(3).await;
        let answered = |status: u16| log.iter().find(|line| line["response_code"] == status);
        let unmatched = answered(404).unwrap();
        assert_eq!(unmatched["response_flags"], "NR");
        assert_eq!(unmatched["response_code_details"], "route_not_found");
        assert_eq!(unmatched["reason"], "no_matching_rule");
        assert_eq!(answered(403).unwrap()["reason"], "host_not_in_registry");
    });
}

#[test]
fn the_operators_words_follow_a_refusal_and_no_failure() {
    local(async {
        let (addr, _) = answering(OK).await;
        let mut setup = Setup::new().http("a.example", addr).unknown("gone.example");
        setup.mesh = "refusals: {message: Ask the platform team., link: 'https://wiki.example.com/egress'}\n"
            .into();
        let gateway = setup.start().await;
        let refused = gateway.get("other.example").await;
        assert_eq!(refused.status, 403);
        let words = ")\nAsk the platform team.\nhttps://wiki.example.com/egress\n";
        assert!(refused.text().ends_with(words), "{}", refused.text());
        let failed = gateway.get("gone.example").await;
        assert_eq!(failed.status, 503);
        assert!(!failed.text().contains("platform team"), "{}", failed.text());
        assert_eq!(gateway.get("a.example").await.text(), "hello");
    });
}
