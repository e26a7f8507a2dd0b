//! Heads of requests count for their source before anything else is done with them.

use std::future::pending;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, HeaderValue, Request};
use tokio::io::AsyncWriteExt as _;

use super::{
    frames::{PREFACE, frame},
    harness::{Gateway, Setup, answering, head, local, until, upstream},
};
use crate::{proxy::Limits, telemetry::Resource};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
/// A large header, which comes in one frame. With it a request is counted as about 28 kB.
const LARGE: usize = 10_000;

/// A gateway whose sources may have so many bytes of heads, before an upstream that never answers.
async fn silent(bytes: usize) -> Gateway {
    let (addr, _) = upstream(|mut io, _, _| async move {
        head(&mut io, &mut Vec::new()).await.ok();
        pending::<()>().await;
    })
    .await;
    let mut setup = Setup::new().http("a.example", addr);
    setup.limits =
        Limits { request_bytes: 2 * bytes, request_bytes_per_source: bytes, ..setup.limits };
    setup.start().await
}

impl Gateway {
    fn of_heads(&self) -> u64 {
        self.worker.telemetry.stats.limits().used(Resource::RequestBytes)
    }

    fn refused_heads(&self) -> u64 {
        self.worker.telemetry.stats.limits().refused_total(Resource::RequestBytes)
    }
}

fn large(client: &mut SendRequest<Bytes>) -> ResponseFuture {
    let value = HeaderValue::from_bytes(&vec![b'a'; LARGE]).unwrap();
    let request = Request::get("http://a.example/").header("x-large", value).body(()).unwrap();
    client.send_request(request, true).unwrap().0
}

/// 48 of them, on six connections that are told that they may have some each.
async fn many(gateway: &Gateway) -> (Vec<SendRequest<Bytes>>, FuturesUnordered<ResponseFuture>) {
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(gateway.connect_h2().await);
    }
    until(|| clients.iter().all(|client| (8..100).contains(&client.current_max_send_streams())))
        .await;
    let responses = FuturesUnordered::new();
    for client in &mut clients {
        for _ in 0..8 {
            *client = client.clone().ready().await.unwrap();
            responses.push(large(client));
        }
    }
    (clients, responses)
}

#[test]
fn requests_of_http2_beyond_the_share_are_refused_as_they_come() {
    local(async {
        let gateway = silent(1_150_000).await;
        let (clients, mut responses) = many(&gateway).await;
        // 40 have room; the others get a head alone, which no window holds up.
        for _ in 40..48 {
            let response = responses.next().await.unwrap().unwrap();
            assert_eq!(response.status(), 503);
            assert!(response.body().is_end_stream());
        }
        assert_eq!(gateway.refused_heads(), 8);
        let held = gateway.of_heads();
        assert!(held > 40 * 2 * LARGE as u64 && held <= 1_150_000, "{held}");
        for line in gateway.log(8).await {
            assert_eq!(
                (&line["response_flags"], &line["reason"], &line["path"]),
                (&"UO".into(), &"overflow".into(), &"/".into())
            );
        }
        drop((clients, responses));
        until(|| gateway.of_heads() == 0).await;
    });
}

#[test]
fn where_there_is_room_all_of_them_are_served() {
    local(async {
        let gateway = silent(2_400_000).await;
        let (_clients, _responses) = many(&gateway).await;
        until(|| gateway.of_heads() > 48 * 2 * LARGE as u64).await;
        assert_eq!(gateway.refused_heads(), 0);
    });
}

/// `GET http://a.example/`: the bytes up to the middle of its head, and the rest.
fn halves() -> (Vec<u8>, Vec<u8>) {
    let mut first = PREFACE.to_vec();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    first.extend(settings);
    first.extend(frame(1, 1, 1, &[0x82, 0x86, 0x84]));
    let mut authority = vec![1, 9];
    authority.extend(b"a.example");
    (first, frame(9, 4, 1, &authority))
}

#[test]
fn a_head_that_has_not_come_whole_counts_as_much_as_one_may_have() {
    local(async {
        let gateway = silent(100_000).await;
        let (first, rest) = halves();
        let mut io = gateway.raw_h2().await;
        io.write_all(&first).await.unwrap();
        until(|| gateway.of_heads() == 64 * 1024).await;
        // A second one has no room, and its connection ends.
        let mut other = gateway.raw_h2().await;
        other.write_all(&first).await.unwrap();
        let line = &gateway.log(1).await[0];
        assert_eq!((&line["response_flags"], &line["reason"]), (&"UO".into(), &"overflow".into()));
        // With its end it is a request like others, which counts for less.
        io.write_all(&rest).await.unwrap();
        until(|| (1..64 * 1024).contains(&gateway.of_heads())).await;
        assert_eq!(gateway.refused_heads(), 1);
    });
}

#[test]
fn a_long_head_of_http1_counts_before_it_is_whole() {
    local(async {
        let (addr, _) = answering(OK).await;
        let mut setup = Setup::new().http("a.example", addr);
        setup.limits = Limits { request_bytes_per_source: 100_000, ..setup.limits };
        let gateway = setup.start().await;
        let begin = format!("GET / HTTP/1.1\r\nHost: a.example\r\nx: {}", "a".repeat(20_000));
        let mut client = gateway.connect().await;
        client.send(&begin).await;
        until(|| gateway.of_heads() == 64 * 1024).await;
        let mut other = gateway.connect().await;
        other.send(&begin).await;
        let answer = other.answer().await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.text());
        client.send("\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().text(), "hello");
        until(|| gateway.of_heads() == 0).await;
        assert_eq!(gateway.refused_heads(), 1);
    });
}

#[test]
fn trailers_that_nobody_reads_count_as_unread() {
    local(async {
        let (addr, _) = answering(OK).await;
        let rule = "    fault: {delay: {fixedDelay: 3h, percentage: {value: 100}}}\n    \
                    route: [{destination: {host: a.example, port: {number: 80}}}]\n";
        let gateway = Setup::new().http("a.example", addr).route("a.example", rule).start().await;
        let client = gateway.connect_h2().await;
        let mut client = client.ready().await.unwrap();
        let mut responses = Vec::new();
        let mut post = async |trailers: bool| {
            client = client.clone().ready().await.unwrap();
            let request = Request::post("http://a.example/").body(()).unwrap();
            let (response, mut stream) = client.send_request(request, false).unwrap();
            stream.send_data(Bytes::from(vec![0; 1000]), !trailers).unwrap();
            if trailers {
                let mut trailers = HeaderMap::new();
                let value = HeaderValue::from_bytes(&[b'a'; 10_000]).unwrap();
                trailers.insert("x-sum", value);
                stream.send_trailers(trailers).unwrap();
            }
            responses.push(response);
        };
        post(false).await;
        until(|| gateway.held() == 1000).await;
        // RFC 9113 counts 32 bytes for each field besides its text.
        post(true).await;
        until(|| gateway.held() == 2000 + 5 + 10_000 + 32).await;
        drop((responses, client));
    });
}
