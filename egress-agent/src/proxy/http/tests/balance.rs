//! Load balancing while connections are kept alive: each request has its own endpoint.

use std::net::SocketAddr;

use super::{
    h2::{echo, get},
    harness::{Client, Gateway, Seen, Setup, answering, local, upstream},
};
use crate::telemetry::ClusterCounter;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const ERROR: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
const CLUSTER: &str = "outbound|80||a.example";

/// The statuses of so many requests, one after the other on one connection of the client.
async fn ask(client: &mut Client, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        statuses.push(client.answer().await.unwrap().status);
    }
    statuses
}

fn requests(seen: &Seen) -> usize {
    seen.requests.borrow().len()
}

async fn start(upstreams: &[(SocketAddr, u32)], policy: &str) -> Gateway {
    Setup::new().endpoints("a.example", "HTTP", upstreams, policy).start().await
}

#[test]
fn round_robin_is_by_request() {
    local(async {
        let ((a, at_a), (b, at_b)) = (answering(OK).await, answering(OK).await);
        let policy = "{loadBalancer: {simple: ROUND_ROBIN}}";
        let gateway = start(&[(a, 1), (b, 1)], policy).await;
        assert_eq!(ask(&mut gateway.connect().await, 20).await, [200; 20]);
        assert_eq!((requests(&at_a), requests(&at_b)), (10, 10));
        // Both connections are kept.
        assert_eq!((at_a.connections.get(), at_b.connections.get()), (1, 1));
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::CxTotal), 2);
    });
}

#[test]
fn weights_hold_for_requests() {
    local(async {
        let ((a, at_a), (b, at_b)) = (answering(OK).await, answering(OK).await);
        let policy = "{loadBalancer: {simple: ROUND_ROBIN}}";
        let gateway = start(&[(a, 9), (b, 1)], policy).await;
        assert_eq!(ask(&mut gateway.connect().await, 40).await, [200; 40]);
        assert_eq!((requests(&at_a), requests(&at_b)), (36, 4));
    });
}

#[test]
fn http2_requests_are_balanced_too() {
    local(async {
        let (a, at_a) = upstream(|io, _, seen| echo(io, seen)).await;
        let (b, at_b) = upstream(|io, _, seen| echo(io, seen)).await;
        let policy = "{loadBalancer: {simple: ROUND_ROBIN}}";
        let setup = Setup::new().endpoints("a.example", "HTTP2", &[(a, 1), (b, 1)], policy);
        let gateway = setup.start().await;
        let client = gateway.connect_h2().await;
        for _ in 0..10 {
            assert_eq!(get(&client, "http://a.example/").await.0, 200);
        }
        assert_eq!((requests(&at_a), requests(&at_b)), (5, 5));
        assert_eq!((at_a.connections.get(), at_b.connections.get()), (1, 1));
    });
}

#[test]
fn an_endpoint_that_errs_is_set_aside_at_once() {
    local(async {
        let ((bad, at_bad), (good, at_good)) = (answering(ERROR).await, answering(OK).await);
        let policy = "{loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 2, maxEjectionPercent: 100, baseEjectionTime: 1h}}";
        let gateway = start(&[(bad, 1), (good, 1)], policy).await;
        let statuses = ask(&mut gateway.connect().await, 14).await;
        assert_eq!(statuses[..4], [500, 200, 500, 200]);
        assert_eq!(statuses[4..], [200; 10]);
        assert_eq!((requests(&at_bad), requests(&at_good)), (2, 12));
        // Its twin without outlier detection.
        let ((bad, at_bad), (good, _)) = (answering(ERROR).await, answering(OK).await);
        let policy = "{loadBalancer: {simple: ROUND_ROBIN}}";
        let gateway = start(&[(bad, 1), (good, 1)], policy).await;
        ask(&mut gateway.connect().await, 14).await;
        assert_eq!(requests(&at_bad), 7);
    });
}

#[test]
fn where_no_connection_may_be_added_one_that_waits_is_taken() {
    local(async {
        let ((a, at_a), (b, at_b)) = (answering(OK).await, answering(OK).await);
        let policy =
            "{loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {tcp: {maxConnections: 1}}}";
        let gateway = start(&[(a, 1), (b, 1)], policy).await;
        assert_eq!(ask(&mut gateway.connect().await, 6).await, [200; 6]);
        assert_eq!((requests(&at_a), requests(&at_b)), (6, 0));
    });
}
