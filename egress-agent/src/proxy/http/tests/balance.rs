//! Load balancing while connections are kept alive: each request has its own endpoint.

use std::net::SocketAddr;

use http::{Response, StatusCode};

use super::{
    h2::{ask as request, echo, get},
    harness::{Client, Gateway, Seen, Setup, answering, head, local, until, upstream},
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

/// A server of HTTP/2 that answers each request with this status, or none of them ever.
async fn over_http2(status: Option<StatusCode>) -> (SocketAddr, Seen) {
    upstream(move |io, _, seen| async move {
        let mut connection = h2::server::handshake(io).await.unwrap();
        let mut unanswered = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let (parts, _) = request.into_parts();
            seen.requests.borrow_mut().push((parts.uri.to_string(), Vec::new()));
            match status {
                Some(status) => {
                    let answer = Response::builder().status(status).body(()).unwrap();
                    respond.send_response(answer, true).unwrap();
                }
                None => unanswered.push(respond),
            }
        }
    })
    .await
}

async fn start_http2(upstreams: &[(SocketAddr, u32)], policy: &str) -> Gateway {
    Setup::new().endpoints("a.example", "HTTP2", upstreams, policy).start().await
}

#[test]
fn weights_hold_for_requests_of_http2() {
    // In turns it is so many exactly; of two at random, the ninth part of four hundred, about.
    for (method, count, few) in
        [("ROUND_ROBIN", 40, 4..=4), ("LEAST_REQUEST", 400, 15..=75), ("RANDOM", 400, 15..=75)]
    {
        local(async {
            let (a, at_a) = over_http2(Some(StatusCode::OK)).await;
            let (b, at_b) = over_http2(Some(StatusCode::OK)).await;
            let policy = format!("{{loadBalancer: {{simple: {method}}}}}");
            let gateway = start_http2(&[(a, 9), (b, 1)], &policy).await;
            let client = gateway.connect_h2().await;
            for _ in 0..count {
                assert_eq!(get(&client, "http://a.example/").await.0, 200);
            }
            let (many, less) = (requests(&at_a), requests(&at_b));
            assert!(many + less == count && few.contains(&less), "{method}: {many} to {less}");
            // Each request had its choice: the connections are those of the first ones.
            assert_eq!((at_a.connections.get(), at_b.connections.get()), (1, 1), "{method}");
        });
    }
}

/// An endpoint that answers nothing is asked only where both of two that are drawn are that one: a quarter of the
/// times. In turns it is asked half of the times.
#[test]
fn least_request_counts_the_streams_of_http2() {
    const COUNT: usize = 240;
    for (method, few) in [("LEAST_REQUEST", 20..=90), ("ROUND_ROBIN", COUNT / 2..=COUNT / 2)] {
        local(async {
            let ((a, at_a), (b, at_b)) =
                (over_http2(None).await, over_http2(Some(StatusCode::OK)).await);
            let policy = format!("{{loadBalancer: {{simple: {method}}}}}");
            let gateway = start_http2(&[(a, 1), (b, 1)], &policy).await;
            let client = gateway.connect_h2().await;
            let mut unanswered = Vec::new();
            for number in 1..=COUNT {
                let before = requests(&at_b);
                let mut client = client.clone().ready().await.unwrap();
                let (response, _) =
                    client.send_request(request("http://a.example/"), true).unwrap();
                until(|| requests(&at_a) + requests(&at_b) == number).await;
                if requests(&at_b) > before {
                    assert_eq!(response.await.unwrap().status(), 200);
                } else {
                    unanswered.push(response);
                }
            }
            assert!(few.contains(&requests(&at_a)), "{method}: {}", requests(&at_a));
            assert_eq!((at_a.connections.get(), at_b.connections.get()), (1, 1), "{method}");
        });
    }
}

#[test]
fn an_endpoint_of_http2_that_errs_is_set_aside_at_once() {
    const EJECTS: &str = ", outlierDetection: {consecutive5xxErrors: 2, maxEjectionPercent: 100, baseEjectionTime: 1h}";
    // Its twin is without outlier detection.
    for (more, expected) in [(EJECTS, 2), ("", 7)] {
        local(async {
            let (bad, at_bad) = over_http2(Some(StatusCode::INTERNAL_SERVER_ERROR)).await;
            let (good, at_good) = over_http2(Some(StatusCode::OK)).await;
            let policy = format!("{{loadBalancer: {{simple: ROUND_ROBIN}}{more}}}");
            let gateway = start_http2(&[(bad, 1), (good, 1)], &policy).await;
            let client = gateway.connect_h2().await;
            let mut statuses = Vec::new();
            for _ in 0..14 {
                statuses.push(get(&client, "http://a.example/").await.0.as_u16());
            }
            assert_eq!(statuses[..4], [500, 200, 500, 200]);
            let errors = statuses.iter().filter(|status| **status == 500).count();
            assert_eq!(
                (errors, requests(&at_bad), requests(&at_good)),
                (expected, expected, 14 - expected)
            );
            assert_eq!((at_bad.connections.get(), at_good.connections.get()), (1, 1));
        });
    }
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

/// How often the first of two endpoints is asked in turns before it is set aside; `None` where it never is.
async fn before_ejection(
    bad: SocketAddr,
    at_bad: impl Fn() -> usize,
    errors: &str,
) -> Option<usize> {
    const TURNS: usize = 9;
    let (good, _) = answering(OK).await;
    let policy = format!(
        "{{loadBalancer: {{simple: ROUND_ROBIN}}, outlierDetection: {{{errors}maxEjectionPercent: 100, baseEjectionTime: 1h}}}}"
    );
    let gateway = start(&[(bad, 1), (good, 1)], &policy).await;
    ask(&mut gateway.connect().await, 2 * TURNS).await;
    Some(at_bad()).filter(|asked| *asked < TURNS)
}

fn limits(all: Option<u32>, gateways: Option<u32>) -> String {
    let field = |name: &str, value: Option<u32>| {
        value.map(|value| format!("{name}: {value}, ")).unwrap_or_default()
    };
    field("consecutive5xxErrors", all) + &field("consecutiveGatewayErrors", gateways)
}

/// Errors of gateways count by themselves and among all, as Istio documents both fields.
#[test]
fn errors_of_gateways_count_by_themselves_and_among_all() {
    const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    for (all, gateways, answer, expected) in [
        (Some(0), Some(2), UNAVAILABLE, Some(2)),
        (Some(0), Some(2), ERROR, None),
        (None, Some(2), ERROR, Some(5)),
        (None, Some(2), UNAVAILABLE, Some(2)),
        (Some(5), Some(2), UNAVAILABLE, Some(2)),
        (Some(5), Some(0), UNAVAILABLE, Some(5)),
        (Some(3), Some(8), UNAVAILABLE, Some(3)),
        (None, None, UNAVAILABLE, Some(5)),
        (Some(0), Some(0), UNAVAILABLE, None),
    ] {
        local(async {
            let (bad, seen) = answering(answer).await;
            let asked = before_ejection(bad, || requests(&seen), &limits(all, gateways)).await;
            assert_eq!(asked, expected, "{all:?} {gateways:?} {answer}");
        });
    }
}

/// The old name counts where the current one is absent.
#[test]
fn errors_by_their_old_name_count() {
    for (fields, expected) in [
        ("consecutiveErrors: 3, ", 3),
        ("consecutiveErrors: 3, consecutive5xxErrors: 2, ", 2),
        ("consecutiveErrors: 0, ", 5),
        ("", 5),
    ] {
        local(async {
            let (bad, seen) = answering(ERROR).await;
            let asked = before_ejection(bad, || requests(&seen), fields).await;
            assert_eq!(asked, Some(expected), "{fields}");
        });
    }
}

/// A connection that ends without an answer is both, unless such failures count by themselves.
#[test]
fn connections_that_fail_count_as_errors_of_gateways() {
    let split = "splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 3, ";
    for (errors, expected) in [
        (limits(Some(0), Some(2)), Some(2)),
        (limits(Some(4), Some(0)), Some(4)),
        (limits(None, None), Some(5)),
        (limits(Some(0), Some(0)), None),
        (limits(Some(1), Some(1)) + split, Some(3)),
    ] {
        local(async {
            let (bad, seen) = upstream(|mut io, _, seen| async move {
                let mut read = Vec::new();
                let head = head(&mut io, &mut read).await.unwrap();
                seen.requests.borrow_mut().push((head, Vec::new()));
            })
            .await;
            let asked = before_ejection(bad, || requests(&seen), &errors).await;
            assert_eq!(asked, expected, "{errors}");
        });
    }
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
