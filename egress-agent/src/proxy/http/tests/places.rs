//! Places under `maxConnections` and `http2MaxRequests`: those that idle connections hold, and sources' shares.

use std::rc::Rc;

use tokio::sync::Notify;

use super::harness::{Setup, answer_all, answering, local, until, upstream};
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

/// One source has the only place; another one gets the next, and is not refused.
#[test]
fn a_source_with_less_than_its_share_gets_the_next_place() {
    const ONE_REQUEST: &str = "{connectionPool: {http: {http2MaxRequests: 1}}}";
    for policy in [ONE, ONE_REQUEST] {
        local(async {
            let go = Rc::new(Notify::new());
            let held = Rc::clone(&go);
            let (addr, _) = upstream(move |io, number, seen| {
                let held = Rc::clone(&held);
                async move {
                    if number == 0 {
                        held.notified().await;
                    }
                    answer_all(io, seen, OK).await;
                }
            })
            .await;
            let gateway =
                Setup::new().service("a.example", "HTTP", Some(addr), policy).start().await;
            let ask = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
            let mut first = gateway.connect().await;
            first.send(ask).await;
            let active = || gateway.cluster("outbound|80||a.example", ClusterCounter::CxActive);
            until(|| active() == 1).await;
            let mut other = gateway.connect_from([127, 0, 0, 2]).await;
            other.send(ask).await;
            // Who has its share is refused at once.
            assert_eq!(gateway.get("a.example").await.status, 503, "{policy}");
            go.notify_one();
            assert_eq!(first.answer().await.unwrap().status, 200, "{policy}");
            assert_eq!(other.answer().await.unwrap().status, 200, "{policy}");
        });
    }
}

/// Nobody waits for a place for longer than `connectTimeout`.
#[test]
fn a_place_that_does_not_come_is_not_waited_for_any_longer() {
    local(async {
        let (addr, _) = upstream(|io, _, _| async move {
            std::future::pending::<()>().await;
            drop(io);
        })
        .await;
        let policy = "{connectionPool: {tcp: {maxConnections: 1, connectTimeout: 0.1s}}}";
        let gateway = Setup::new().service("a.example", "HTTP", Some(addr), policy).start().await;
        let ask = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
        let mut first = gateway.connect().await;
        first.send(ask).await;
        let active = || gateway.cluster("outbound|80||a.example", ClusterCounter::CxActive);
        until(|| active() == 1).await;
        let mut other = gateway.connect_from([127, 0, 0, 2]).await;
        other.send(ask).await;
        assert_eq!(other.answer().await.unwrap().status, 503);
    });
}
