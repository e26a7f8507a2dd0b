//! Places under `maxConnections` that idle connections hold.

use super::harness::{Setup, answering, local, until, upstream};
use crate::telemetry::ClusterCounter;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const ONE: &str = "{connectionPool: {tcp: {maxConnections: 1}}}";

#[test]
fn an_idle_connection_to_one_host_gives_its_place_to_another() {
    local(async {
        let (first, seen) = answering(OK).await;
        let (second, other) = answering(OK).await;
        let gateway = Setup::new()
            .wildcard("*.example", &[("a.example", first), ("b.example", second)], ONE)
            .start()
            .await;
        for host in ["a.example", "b.example", "a.example", "b.example", "b.example"] {
            assert_eq!(gateway.get(host).await.status, 200, "{host}");
        }
        assert_eq!((seen.connections.get(), other.connections.get()), (2, 2));
    });
}

#[test]
fn a_connection_that_carries_something_keeps_its_place() {
    local(async {
        let (first, _) = upstream(|io, _, _| async move {
            // It never answers.
            std::future::pending::<()>().await;
            drop(io);
        })
        .await;
        let (second, other) = answering(OK).await;
        let gateway = Setup::new()
            .wildcard("*.example", &[("a.example", first), ("b.example", second)], ONE)
            .start()
            .await;
        let mut busy = gateway.connect().await;
        busy.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        until(|| gateway.cluster("outbound|80||*.example", ClusterCounter::CxActive) == 1).await;
        let answer = gateway.get("b.example").await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(other.connections.get(), 0);
        drop(busy);
    });
}

#[test]
fn connections_of_a_rule_that_was_replaced_hold_no_places() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let setup = Setup::new().service("a.example", "HTTP", Some(addr), ONE);
        let replaced =
            setup.policy_with("maxConnections: 1}", "maxConnections: 1, connectTimeout: 9s}");
        let gateway = setup.start().await;
        assert_eq!(gateway.get("a.example").await.status, 200);
        assert_eq!(gateway.get("a.example").await.status, 200);
        assert_eq!(seen.connections.get(), 1);
        gateway.worker.policy.store(Some(replaced));
        // At once, and with the rule's own connection from there on.
        assert_eq!(gateway.get("a.example").await.status, 200);
        assert_eq!(gateway.get("a.example").await.status, 200);
        assert_eq!(seen.connections.get(), 2);
    });
}
