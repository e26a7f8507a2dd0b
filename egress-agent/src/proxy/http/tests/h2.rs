//! HTTP/2 on either side.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::harness::{Authority, Seen, Setup, answer_all, answering, head, local, upstream};
use crate::telemetry::ClusterCounter;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CLUSTER: &str = "outbound|80||a.example";

/// Echoes bodies, ends with a trailer, and writes down what it was asked for.
pub(super) async fn echo(io: impl AsyncRead + AsyncWrite + Unpin, seen: Seen) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let seen = seen.clone();
        tokio::task::spawn_local(async move {
            let (parts, mut body) = request.into_parts();
            let asked = format!("{} {} {:?}", parts.method, parts.uri, parts.headers);
            if parts.uri.path() == "/reset" {
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                stream.send_data(Bytes::from_static(b"part"), false).unwrap();
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
                return;
            }
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            let mut received = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                received.extend_from_slice(&data);
                stream.send_data(data, false).unwrap();
            }
            let mut trailers = body.trailers().await.unwrap().unwrap_or_default();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            stream.send_trailers(trailers).unwrap();
            seen.requests.borrow_mut().push((asked, received));
        });
    }
}

pub(super) async fn read(response: Response<RecvStream>) -> (StatusCode, Vec<u8>, HeaderMap) {
    let status = response.status();
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    (status, bytes, body.trailers().await.unwrap().unwrap_or_default())
}

pub(super) fn ask(uri: &str) -> Request<()> {
    Request::builder().uri(uri).body(()).unwrap()
}

pub(super) async fn get(
    client: &SendRequest<Bytes>,
    uri: &str,
) -> (StatusCode, Vec<u8>, HeaderMap) {
    let mut client = client.clone().ready().await.unwrap();
    let (response, _) = client.send_request(ask(uri), true).unwrap();
    read(response.await.unwrap()).await
}

pub(super) async fn post(
    client: &SendRequest<Bytes>,
    uri: &str,
    body: &[u8],
    trailers: Option<HeaderMap>,
) -> (StatusCode, Vec<u8>, HeaderMap) {
    let mut client = client.clone().ready().await.unwrap();
    let request = Request::post(uri).header("te", "trailers").body(()).unwrap();
    let (response, mut stream) = client.send_request(request, false).unwrap();
    stream.send_data(Bytes::copy_from_slice(body), trailers.is_none()).unwrap();
    if let Some(trailers) = trailers {
        stream.send_trailers(trailers).unwrap();
    }
    read(response.await.unwrap()).await
}

#[test]
fn http2_from_the_pod_to_an_http1_upstream() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let client = gateway.connect_h2().await;
        let (status, body, _) = get(&client, "http://a.example/x?y").await;
        assert_eq!((status, body.as_slice()), (StatusCode::OK, &b"hello"[..]));
        assert!(seen.heads()[0].starts_with("GET /x?y HTTP/1.1\r\nhost: a.example\r\n"));
        // Every stream has its own verdict.
        let (status, body, _) = get(&client, "http://b.example/").await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(String::from_utf8(body).unwrap().contains("b.example"));
        assert_eq!(post(&client, "http://a.example/", b"body", None).await.0, StatusCode::OK);
        assert!(seen.requests.borrow()[1].0.contains("transfer-encoding: chunked"));
        let log = gateway.log(3).await;
        assert_eq!(log[0]["protocol"], "HTTP/2");
        assert_eq!(log[1]["response_flags"], "NR");
        assert_eq!(log[2]["bytes_received"], 4);
    });
}

/// END_STREAM came with the head: where a body is usual its absence is said (RFC 9110 §8.6), elsewhere nothing is.
#[test]
fn a_request_without_a_body_is_one_in_http1_too() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let client = gateway.connect_h2().await;
        for (method, stated) in
            [("POST", true), ("GET", false), ("PUT", true), ("DELETE", false), ("PATCH", true)]
        {
            let request = Request::builder().method(method).uri("http://a.example/");
            let mut client = client.clone().ready().await.unwrap();
            let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
            assert_eq!(read(response.await.unwrap()).await.0, StatusCode::OK, "{method}");
            let (head, body) = seen.requests.borrow_mut().pop().unwrap();
            assert!(head.starts_with(&format!("{method} / HTTP/1.1\r\n")) && body.is_empty());
            let of = |name: &str| -> Vec<_> {
                head.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
            };
            let expected: &[&str] = if stated { &["content-length: 0"] } else { &[] };
            assert_eq!(of("content-length"), expected, "{head}");
            assert!(of("transfer-encoding").is_empty(), "{head}");
        }
        // Both sides agree where each ended.
        assert_eq!(seen.connections.get(), 1);
    });
}

#[test]
fn contradictions_are_refused_in_http2_too() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let client = gateway.connect_h2().await;
        for request in [
            Request::get("http://a.example/").header("host", "b.example"),
            Request::get("http://a.example:81/"),
            Request::get("https://a.example/"),
            Request::get("http://a.example/").header("expect", "more"),
            Request::post("http://a.example/").header("content-length", "+3"),
        ] {
            let mut client = client.clone().ready().await.unwrap();
            let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
            match response.await {
                Ok(response) => assert!(response.status().is_client_error(), "{response:?}"),
                // What isn't HTTP/2 at all is reset.
                Err(error) => assert!(error.is_reset(), "{error}"),
            }
        }
        let many = (0..101).fold(Request::get("http://a.example/"), |request, number| {
            request.header(format!("x-{number}"), "y")
        });
        let mut sender = client.clone().ready().await.unwrap();
        let (response, _) = sender.send_request(many.body(()).unwrap(), true).unwrap();
        let status = response.await.unwrap().status();
        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        let mut sender = client.clone().ready().await.unwrap();
        let connect = Request::connect("a.example:80").body(()).unwrap();
        let (response, _) = sender.send_request(connect, false).unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::FORBIDDEN);
        assert_eq!(seen.connections.get(), 0);
    });
}

#[test]
fn http2_on_both_sides_carries_bodies_and_trailers() {
    local(async {
        let (addr, seen) = upstream(|io, _, seen| echo(io, seen)).await;
        let gateway = Setup::new().service("a.example", "GRPC", Some(addr), "").start().await;
        let client = gateway.connect_h2().await;
        let body = vec![7; 1_000_000];
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        let uri = "http://a.example/pkg.Service/Method";
        let (status, echoed, trailers) = post(&client, uri, &body, Some(trailers)).await;
        assert_eq!(status, StatusCode::OK);
        assert!(echoed == body, "{} bytes", echoed.len());
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-sum"], "1");
        assert!(seen.requests.borrow()[0].0.contains("\"te\": \"trailers\""));
        // Many at a time, on one connection.
        let requests = (0..20).map(|_| post(&client, uri, b"small", None));
        for (status, body, _) in futures_util::future::join_all(requests).await {
            assert_eq!((status, body.as_slice()), (StatusCode::OK, &b"small"[..]));
        }
        assert_eq!(seen.connections.get(), 1);
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::CxTotal), 1);
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::RqTotal), 21);
    });
}

#[test]
fn http1_from_the_pod_to_an_http2_upstream() {
    local(async {
        let (addr, seen) = upstream(|io, _, seen| echo(io, seen)).await;
        let gateway = Setup::new().service("a.example", "HTTP2", Some(addr), "").start().await;
        let mut client = gateway.connect().await;
        client.send("POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\nbody").await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "body"));
        assert!(seen.requests.borrow()[0].0.starts_with("POST http://a.example/x "));
        // A reset in the middle of the body.
        let mut client = gateway.connect().await;
        client.send("GET /reset HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        // Whether the head made it before the reset or not, it is no success.
        assert!(!client.answer().await.is_ok_and(|answer| answer.status == 200));
    });
}

/// Serves what ALPN settles on.
async fn settled(config: Arc<ServerConfig>) -> (SocketAddr, Seen) {
    upstream(move |io, _, seen| {
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        async move {
            let io = acceptor.accept(io).await.unwrap();
            match io.get_ref().1.alpn_protocol() {
                Some(b"h2") => echo(io, seen).await,
                _ => answer_all(io, seen, OK).await,
            }
        }
    })
    .await
}

/// What a client of HTTP/1 may send and a client of HTTP/2 may not reaches an HTTP/2 upstream percent-encoded.
#[test]
fn everyday_targets_of_http1_reach_an_http2_upstream() {
    local(async {
        let (addr, seen) = upstream(|io, _, seen| echo(io, seen)).await;
        let gateway = Setup::new().service("a.example", "HTTP2", Some(addr), "").start().await;
        for (target, sent) in [
            ("/q?a={\"<>\\`|^}", "/q?a={%22%3C%3E\\%60|^} "),
            ("/{\"<>`|^}", "/{%22%3C%3E%60|^} "),
            ("/plain?a=b", "/plain?a=b "),
        ] {
            let mut client = gateway.connect().await;
            client.send(&format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
            assert_eq!(client.answer().await.unwrap().status, 200, "{target}");
            let asked = seen.heads().pop().unwrap();
            assert!(asked.contains(&format!("a.example{sent}")), "{target}: {asked}");
        }
        // The twin: what has no meaning in any version goes nowhere.
        let mut client = gateway.connect().await;
        client.send("GET /q?a=\x01 HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, 400);
        assert_eq!(seen.heads().len(), 3);
    });
}

#[test]
fn an_upstream_is_spoken_to_in_http1_unless_a_rule_or_the_request_asks_for_http2() {
    local(async {
        let authority = Authority::new("the authority");
        for (upgrade, kind, expected) in [
            ("", "text/plain", "GET / HTTP/1.1"),
            ("", "application/grpc-web+proto", "GET / HTTP/1.1"),
            ("", "application/grpc", "GET https://a.example/ "),
            ("", "application/grpc+proto", "GET https://a.example/ "),
            ("UPGRADE", "text/plain", "GET https://a.example/ "),
        ] {
            let config = authority.server("a.example", [2020, 2100], &["h2", "http/1.1"]);
            let (addr, seen) = settled(config).await;
            let rule = match upgrade {
                "" => String::new(),
                policy => format!("}}, connectionPool: {{http: {{h2UpgradePolicy: {policy}}}"),
            };
            let mut setup = Setup::new().origination("a.example", addr, &rule);
            setup.roots = authority.roots.clone();
            let gateway = setup.start().await;
            for _ in 0..3 {
                let mut client = gateway.connect().await;
                let head = format!("Host: a.example\r\nContent-Type: {kind}\r\n\r\n");
                client.send(&format!("GET / HTTP/1.1\r\n{head}")).await;
                assert_eq!(client.answer().await.unwrap().status, 200, "{upgrade} {kind}");
            }
            assert_eq!(seen.connections.get(), 1, "{upgrade} {kind}");
            let asked = seen.requests.borrow()[0].0.clone();
            assert!(asked.starts_with(expected), "{upgrade} {kind}: {asked}");
        }
    });
}

#[test]
fn an_upstream_that_must_speak_http2_and_does_not() {
    local(async {
        let (addr, _) = upstream(|mut io, _, _| async move {
            // The preface looks like a head.
            let mut read = Vec::new();
            if head(&mut io, &mut read).await.is_ok() {
                let _sent = io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        })
        .await;
        let gateway = Setup::new().service("a.example", "HTTP2", Some(addr), "").start().await;
        let answer = gateway.get("a.example").await;
        assert_eq!(answer.status, 503, "{}", answer.text());
    });
}

#[test]
fn a_short_response_is_a_reset_stream() {
    local(async {
        let (addr, _) = upstream(|mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            io.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
                .await
                .unwrap();
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let client = gateway.connect_h2().await;
        let mut sender = client.ready().await.unwrap();
        let (response, _) = sender.send_request(ask("http://a.example/"), true).unwrap();
        // The reset may overtake what was queued before it.
        let mut failed = false;
        match response.await {
            Ok(response) => {
                let mut body = response.into_body();
                while let Some(data) = body.data().await {
                    // It is said again and again.
                    failed = data.is_err();
                    if failed {
                        break;
                    }
                }
            }
            Err(error) => failed = error.is_reset(),
        }
        assert!(failed, "a short body must not look whole");
    });
}
