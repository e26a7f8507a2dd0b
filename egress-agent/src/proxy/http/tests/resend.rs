//! What an HTTP/2 upstream has not processed is sent again, whatever its method; nothing else is.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    frames::{
        DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, frame,
    },
    h2::{echo, get, post},
    harness::{Gateway, Seen, Setup, local, upstream},
};
use crate::{proxy::http::replay, telemetry::ClusterCounter};

const CLUSTER: &str = "outbound|80||a.example";

/// GOAWAY after this stream, `NO_ERROR` (RFC 9113 §6.8).
fn goaway(last: u8) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0])
}

/// `REFUSED_STREAM` (RFC 9113 §7).
fn refused(stream: u8) -> Vec<u8> {
    frame(RST_STREAM, 0, stream.into(), &[0, 0, 0, 7])
}

/// Reads a request on stream 1 up to its end, or more bytes of its body than this, with a window that
/// holds all of them.
pub(super) async fn read_request(io: &mut TcpStream, bytes: usize) {
    let mut start = [0; 24];
    io.read_exact(&mut start).await.unwrap();
    assert_eq!(start, PREFACE);
    io.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    io.write_all(&frame(WINDOW_UPDATE, 0, 0, &[0, 16, 0, 0])).await.unwrap();
    let mut seen = 0;
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
        io.read_exact(&mut payload).await.unwrap();
        if kind == HEADERS {
            io.write_all(&frame(WINDOW_UPDATE, 0, 1, &[0, 16, 0, 0])).await.unwrap();
        }
        if kind == DATA {
            seen += payload.len();
        }
        if matches!(kind, DATA | HEADERS) && (flags & END_STREAM != 0 || seen > bytes) {
            return;
        }
    }
}

/// Reads a request and says `answer` to it on each of the first `times` connections, and then closes;
/// echoes on all others.
async fn unwilling(times: usize, answer: Vec<u8>) -> (SocketAddr, Seen) {
    upstream(move |mut io, number, seen| {
        let answer = answer.clone();
        async move {
            if number >= times {
                return echo(io, seen).await;
            }
            read_request(&mut io, replay::MOST).await;
            io.write_all(&answer).await.unwrap();
            // Until the gateway has read it and closes.
            while answer != goaway(1) && io.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
        }
    })
    .await
}

async fn gateway(addr: SocketAddr) -> Gateway {
    Setup::new().service("a.example", "HTTP2", Some(addr), "").start().await
}

#[test]
fn what_a_goaway_leaves_out_is_sent_again() {
    local(async {
        for answer in [goaway(0), refused(1)] {
            let (addr, seen) = unwilling(1, answer.clone()).await;
            let gateway = gateway(addr).await;
            let client = gateway.connect_h2().await;
            let (status, ..) = get(&client, "http://a.example/get").await;
            assert_eq!(status, 200, "{answer:?}");
            assert_eq!(seen.connections.get(), 2);
            assert_eq!(gateway.log(1).await[0]["response_flags"], "-");
        }
    });
}

#[test]
fn a_post_and_an_rpc_are_sent_again_with_body_and_trailers() {
    local(async {
        for answer in [goaway(0), refused(1)] {
            let (addr, seen) = unwilling(2, answer.clone()).await;
            let gateway = gateway(addr).await;
            let client = gateway.connect_h2().await;
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", HeaderValue::from_static("7"));
            let body = vec![b'x'; 20_000];
            let (status, echoed, came) =
                post(&client, "http://a.example/rpc", &body, Some(trailers)).await;
            assert_eq!((status, echoed.len()), (StatusCode::OK, 20_000), "{answer:?}");
            assert_eq!(
                (came["x-checksum"].as_bytes(), came["grpc-status"].as_bytes()),
                (&b"7"[..], &b"0"[..])
            );
            assert_eq!(seen.connections.get(), 3, "left out twice");
            let log = gateway.log(1).await;
            assert_eq!(log[0]["bytes_received"], 20_000);
            assert_eq!(
                gateway.cluster(CLUSTER, ClusterCounter::RqRetry),
                0,
                "no retry of the route's"
            );
        }
    });
}

/// Takes one request a connection.
async fn one_at_a_time() -> (SocketAddr, Seen) {
    /// `:status: 200` in HPACK's static table (RFC 7541 appendix A).
    const OK: u8 = 0x88;
    upstream(|mut io, _, _| async move {
        read_request(&mut io, 0).await;
        let mut answer = frame(HEADERS, END_STREAM | END_HEADERS, 1, &[OK]);
        answer.extend(goaway(1));
        io.write_all(&answer).await.unwrap();
        while io.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
    })
    .await
}

#[test]
fn a_server_that_takes_one_request_a_connection_loses_none_of_many() {
    local(async {
        let (addr, _) = one_at_a_time().await;
        let gateway = gateway(addr).await;
        let client = gateway.connect_h2().await;
        let posts = (0..60).map(|_| post(&client, "http://a.example/rpc", b"body", None));
        let statuses: Vec<_> =
            futures_util::future::join_all(posts).await.into_iter().map(|(s, ..)| s).collect();
        assert_eq!(statuses, [StatusCode::OK; 60]);
    });
}

#[test]
fn what_may_have_been_processed_is_not_sent_again() {
    local(async {
        // It says that it has taken stream 1, and closes.
        let (addr, seen) = unwilling(1, goaway(1)).await;
        let gateway = gateway(addr).await;
        let client = gateway.connect_h2().await;
        let (status, ..) = post(&client, "http://a.example/rpc", b"once", None).await;
        assert_eq!(status, 503);
        assert_eq!(seen.connections.get(), 1);
    });
}

#[test]
fn a_body_too_long_to_keep_is_sent_once() {
    local(async {
        let (addr, seen) = unwilling(1, goaway(0)).await;
        let gateway = gateway(addr).await;
        let client = gateway.connect_h2().await;
        let mut client = client.clone().ready().await.unwrap();
        let request = http::Request::post("http://a.example/rpc").body(()).unwrap();
        let (response, mut stream) = client.send_request(request, false).unwrap();
        stream.send_data(Bytes::from(vec![0; 2 * replay::MOST]), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 503);
        assert_eq!(seen.connections.get(), 1);
        assert_eq!(gateway.log(1).await[0]["response_flags"], "UC");
    });
}

#[test]
fn who_always_refuses_is_not_asked_for_ever() {
    local(async {
        let (addr, seen) = unwilling(usize::MAX, refused(1)).await;
        let gateway = gateway(addr).await;
        let client = gateway.connect_h2().await;
        let (status, ..) = post(&client, "http://a.example/rpc", b"body", None).await;
        assert_eq!(status, 503);
        assert!((2..=8).contains(&seen.connections.get()), "{}", seen.connections.get());
    });
}

/// What a route does not say about retries holds for streams that are refused each time: two more tries are the
/// route's. Every try of the route's is sent anew as often as the first one.
#[test]
fn a_refused_stream_is_retried_by_default() {
    local(async {
        let mut sends = Vec::new();
        for (retries, tries, flags) in [
            ("    retries: {attempts: 0}\n", 1, "UR"),
            ("    retries: {attempts: 2, retryOn: connect-failure}\n", 1, "UR"),
            ("", 3, "UR,URX"),
        ] {
            let (addr, seen) = unwilling(usize::MAX, refused(1)).await;
            let setup = Setup::new().service("a.example", "HTTP2", Some(addr), "");
            let destination = "    route: [{destination: {host: a.example, port: {number: 80}}}]\n";
            let gateway =
                setup.route("a.example", &format!("{retries}{destination}")).start().await;
            let client = gateway.connect_h2().await;
            let (status, ..) = get(&client, "http://a.example/get").await;
            assert_eq!(status, 503, "{retries}");
            let retried = gateway.cluster(CLUSTER, ClusterCounter::RqRetry);
            assert_eq!(retried, tries - 1, "{retries}");
            assert_eq!(gateway.log(1).await[0]["response_flags"], flags, "{retries}");
            sends.push(seen.connections.get());
        }
        assert_eq!(sends[1], sends[0]);
        assert_eq!(sends[2], sends[0] + 2, "{sends:?}");
    });
}
