//! Clients of one host that stall, trickle and work, and what becomes of those that work.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::spawn_local,
    time::timeout,
};

use super::{
    h2::get,
    harness::{Client, Gateway, SOON, Seen, Setup, local, request, until, upstream},
};

/// More than sockets and windows on the way take.
static LARGE: [u8; 16 << 20] = [0; 16 << 20];
const EACH: usize = 50;
/// Of a working client, in bytes.
const BODY: usize = 4096;
const FRAME: usize = 20;
const FRAMES: usize = 20_000;

/// `/large` is long, `/frames` is long and in tiny frames, `/empty` has empty frames, `/hang` takes no
/// body, all else echoes.
async fn serve_h2(io: TcpStream, seen: Seen) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let seen = seen.clone();
        spawn_local(async move {
            let (parts, mut body) = request.into_parts();
            seen.requests.borrow_mut().push((parts.uri.to_string(), Vec::new()));
            let path = parts.uri.path().to_owned();
            if path == "/hang" {
                // Its data is never taken, and its stream never ends.
                std::future::pending::<()>().await;
            }
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            match path.as_str() {
                "/large" => stream.send_data(Bytes::from_static(&LARGE), true).unwrap(),
                "/frames" => {
                    for _ in 0..FRAMES {
                        stream.send_data(Bytes::from_static(&[0; FRAME]), false).unwrap();
                    }
                    stream.send_data(Bytes::new(), true).unwrap();
                }
                "/empty" => {
                    for _ in 0..500 {
                        stream.send_data(Bytes::new(), false).unwrap();
                    }
                    stream.send_data(Bytes::from_static(b"end"), true).unwrap();
                }
                _ => {
                    while let Some(Ok(data)) = body.data().await {
                        body.flow_control().release_capacity(data.len()).unwrap();
                        stream.send_data(data, false).unwrap();
                    }
                    stream.send_data(Bytes::new(), true).unwrap();
                }
            }
        });
    }
}

/// The same in HTTP/1, without frames.
async fn serve_h1(mut io: TcpStream, seen: Seen) {
    let mut read = Vec::new();
    while let Ok((head, body)) = request(&mut io, &mut read).await {
        let large = head.starts_with("GET /large ");
        seen.requests.borrow_mut().push((head, Vec::new()));
        let body = if large { &LARGE[..] } else { &body };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        if io.write_all(head.as_bytes()).await.is_err() || io.write_all(body).await.is_err() {
            return;
        }
    }
}

async fn ask(gateway: &Gateway, path: &str) -> Client {
    let mut client = gateway.connect().await;
    client.send(&format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
    client
}

/// Sends bodies and has them echoed, one after the other.
async fn work(gateway: &Gateway, times: usize) {
    let mut client = gateway.connect().await;
    for _ in 0..times {
        let head = format!("POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: {BODY}");
        client.send(&format!("{head}\r\n\r\n{}", "x".repeat(BODY))).await;
        let answer = timeout(SOON, client.answer()).await.expect("it is not held up").unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, BODY));
        // The echo begins before the whole body is there: where its end is not known then, the
        // connection takes no other request.
        if answer.head.contains("connection: close") {
            client = gateway.connect().await;
        }
    }
}

/// Stalled and trickling readers, and clients that work meanwhile.
async fn readers(addr: SocketAddr, seen: Seen, protocol: &str) {
    let gateway = Setup::new().service("a.example", protocol, Some(addr), "").start().await;
    let mut stalled = join_all((0..EACH).map(|_| ask(&gateway, "/large"))).await;
    let trickling: Vec<_> = join_all((0..EACH).map(|_| ask(&gateway, "/large"))).await;
    let trickling: Vec<_> = trickling
        .into_iter()
        .map(|mut client| {
            spawn_local(async move {
                let mut some = [0; 512];
                while client.io.read(&mut some).await.is_ok_and(|read| read > 0) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        })
        .collect();
    until(|| seen.requests.borrow().len() == 2 * EACH).await;
    join_all((0..EACH).map(|_| work(&gateway, 20))).await;
    assert!(trickling.iter().all(|task| !task.is_finished()), "none was ended");
    // One that reads again gets all of it.
    let mut client = stalled.pop().unwrap();
    let answer = timeout(3 * SOON, client.answer()).await.expect("it goes on").unwrap();
    assert_eq!(answer.body.len(), LARGE.len());
    trickling.iter().for_each(tokio::task::JoinHandle::abort);
}

#[test]
fn readers_that_stall_hold_up_nobody_over_http1() {
    local(async {
        let (addr, seen) = upstream(|io, _, seen| serve_h1(io, seen)).await;
        readers(addr, seen, "HTTP").await;
    });
}

#[test]
fn readers_that_stall_hold_up_nobody_over_http2() {
    local(async {
        let (addr, seen) = upstream(|io, _, seen| serve_h2(io, seen)).await;
        readers(addr, seen.clone(), "HTTP2").await;
        let connections = seen.connections.get();
        assert!(connections <= 10, "{connections} connections for {} requests", 3 * EACH);
    });
}

#[test]
fn bodies_that_an_upstream_does_not_take_hold_up_nobody() {
    local(async {
        let (addr, seen) = upstream(|io, _, seen| serve_h2(io, seen)).await;
        let gateway = Setup::new().service("a.example", "HTTP2", Some(addr), "").start().await;
        let hang = async || {
            let mut client = gateway.connect().await;
            let head = "POST /hang HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\n";
            client.send(&format!("{head}{}", "x".repeat(200_000))).await;
            client
        };
        let stalled = join_all((0..EACH).map(|_| hang())).await;
        until(|| seen.requests.borrow().len() == EACH).await;
        join_all((0..EACH).map(|_| work(&gateway, 20))).await;
        drop(stalled);
    });
}

#[test]
fn small_frames_of_one_stream_end_no_other() {
    local(async {
        let (addr, seen) = upstream(|io, _, seen| serve_h2(io, seen)).await;
        let gateway = Setup::new().service("a.example", "HTTP2", Some(addr), "").start().await;
        // A client that takes nothing beyond its window of 64 KiB.
        let paused = gateway.connect_h2().await;
        let mut sender = paused.clone().ready().await.unwrap();
        let asked = Request::builder().uri("http://a.example/frames").body(()).unwrap();
        let (response, _) = sender.send_request(asked, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        until(|| gateway.held() >= 200_000).await;
        // Meanwhile others use the connection, and it serves further ones with empty frames.
        let others = gateway.connect_h2().await;
        for _ in 0..3 {
            let (status, answer, _) = get(&others, "http://a.example/empty").await;
            assert_eq!((status.as_u16(), answer.as_slice()), (200, &b"end"[..]));
        }
        assert_eq!(seen.connections.get(), 1, "all that on one connection");
        let mut got = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            got += data.len();
        }
        assert_eq!(got, FRAME * FRAMES);
        until(|| gateway.held() == 0).await;
    });
}

#[test]
fn many_small_frames_of_a_client_end_nothing() {
    local(async {
        let (addr, seen) = upstream(|io, _, seen| serve_h2(io, seen)).await;
        let gateway = Setup::new().service("a.example", "HTTP2", Some(addr), "").start().await;
        let client = gateway.connect_h2().await;
        let mut sender = client.clone().ready().await.unwrap();
        let asked = Request::post("http://a.example/hang").body(()).unwrap();
        let (_response, mut stream) = sender.send_request(asked, false).unwrap();
        // Four times what the library takes from one connection, and empty ones in between.
        for _ in 0..10_000 {
            stream.send_data(Bytes::from_static(&[0; FRAME]), false).unwrap();
            stream.send_data(Bytes::new(), false).unwrap();
        }
        until(|| seen.requests.borrow().len() == 1).await;
        for _ in 0..3 {
            let (status, _, _) = get(&client, "http://a.example/echo").await;
            assert_eq!(status.as_u16(), 200);
        }
    });
}
