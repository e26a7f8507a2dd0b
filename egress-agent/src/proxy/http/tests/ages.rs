//! Limits of one connection to an upstream: its age, its streams, its version.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::{net::TcpStream, time::sleep};

use super::{
    h2::{echo, get},
    harness::{Gateway, Seen, Setup, answer_all, answering, local, upstream},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

async fn gateway(protocol: &str, policy: &str) -> (Gateway, Seen) {
    let (addr, seen) = match protocol {
        "HTTP" => answering(OK).await,
        _ => upstream(|io, _, seen| echo(io, seen)).await,
    };
    (Setup::new().service("a.example", protocol, Some(addr), policy).start().await, seen)
}

#[test]
fn a_connection_takes_requests_until_it_is_too_old() {
    local(async {
        for protocol in ["HTTP", "HTTP2"] {
            let (young, seen) = gateway(protocol, "").await;
            for _ in 0..3 {
                assert_eq!(young.get("a.example").await.status, 200);
                sleep(Duration::from_millis(120)).await;
            }
            assert_eq!(seen.connections.get(), 1, "{protocol}: there is no limit");
            let policy = "{connectionPool: {tcp: {maxConnectionDuration: 100ms}}}";
            let (old, seen) = gateway(protocol, policy).await;
            for _ in 0..3 {
                assert_eq!(old.get("a.example").await.status, 200);
                sleep(Duration::from_millis(120)).await;
            }
            assert_eq!(seen.connections.get(), 3, "{protocol}: each was too old for the next one");
        }
    });
}

#[test]
fn a_connection_has_as_many_streams_as_the_rule_says() {
    local(async {
        for (policy, connections) in
            [("", 1), ("{connectionPool: {http: {maxConcurrentStreams: 2}}}", 3)]
        {
            let (gateway, seen) = gateway("HTTP2", policy).await;
            let mut client = gateway.connect_h2().await;
            let mut under_way = Vec::new();
            for _ in 0..6 {
                client = client.ready().await.unwrap();
                let request = Request::post("http://a.example/").body(()).unwrap();
                let (response, stream) = client.send_request(request, false).unwrap();
                // The head of the answer is there, and the request goes on.
                under_way.push((response.await.unwrap(), stream));
            }
            assert_eq!(seen.connections.get(), connections, "{policy}");
            for (response, stream) in &mut under_way {
                assert_eq!(response.status(), 200);
                stream.send_data(Bytes::new(), true).unwrap();
                while let Some(data) = response.body_mut().data().await {
                    assert!(data.unwrap().is_empty());
                }
                assert!(response.body_mut().trailers().await.unwrap().is_some());
            }
        }
    });
}

/// HTTP/1.1 or HTTP/2, as the first bytes say.
async fn either(io: TcpStream, seen: Seen) {
    let mut first = [0; 3];
    while io.peek(&mut first).await.unwrap() < 3 {}
    match &first {
        b"PRI" => echo(io, seen).await,
        _ => answer_all(io, seen, OK).await,
    }
}

#[test]
fn the_upstream_is_spoken_to_as_the_client_speaks_where_the_rule_says_so() {
    local(async {
        for (policy, expected) in [
            ("{connectionPool: {http: {useClientProtocol: true}}}", "GET http://a.example/ "),
            ("", "GET / HTTP/1.1"),
        ] {
            let (addr, seen) = upstream(|io, _, seen| either(io, seen)).await;
            let setup = Setup::new().service("a.example", "HTTP", Some(addr), policy);
            let gateway = setup.start().await;
            let client = gateway.connect_h2().await;
            assert_eq!(get(&client, "http://a.example/").await.0, 200);
            let asked = seen.heads();
            assert!(asked[0].starts_with(expected), "{policy}: {asked:?}");
            assert_eq!(gateway.get("a.example").await.status, 200);
            let asked = seen.heads();
            assert!(asked[1].starts_with("GET / HTTP/1.1"), "{policy}: {asked:?}");
        }
    });
}
