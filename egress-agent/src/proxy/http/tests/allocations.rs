//! What a request and a piece of a body cost in memory that is asked for. Client and upstream run on
//! threads of their own, so that the gateway's is all that is counted.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
};

use tokio::{
    runtime,
    sync::{mpsc as unbounded, oneshot},
};

use super::harness::*;
use crate::sys::allocations::Allocations;

/// Requests before those that count: connections are made and tables filled.
const BEFORE: usize = 64;
/// Requests that count.
const COUNTED: usize = 256;
/// Lines of the access log, and lists of them, that are made larger meanwhile.
const LINES_GROWN: u64 = 64;
/// What may happen besides within so many requests: a timer's task, a table that grows.
const BESIDES: u64 = 16;

/// What a request of HTTP/2 may ask for: streams, their queues and their heads are the library's.
const HTTP2: u64 = 64;

const REQUEST: &str = "GET /path?q=1 HTTP/1.1\r\nHost: a.example\r\nUser-Agent: test/1\r\n\
    Accept: */*\r\nAccept-Encoding: gzip\r\n\r\n";
const SMALL: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: outside\r\n\
    Date: Sun, 29 Nov 2026 20:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello";

/// An upstream that answers every request, however many come on a connection, with `response`.
fn upstream(response: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for io in listener.incoming() {
            let (mut io, response) = (io.unwrap(), response.clone());
            thread::spawn(move || {
                let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
                loop {
                    match io.read(&mut buffer) {
                        Ok(0) | Err(_) => return,
                        Ok(length) => read.extend_from_slice(&buffer[..length]),
                    }
                    while let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
                        read.drain(..end + 4);
                        if io.write_all(&response).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    addr
}

/// A client on a thread of its own, which asks `count` times, in turn, whenever it is told to.
struct Client {
    go: mpsc::Sender<(usize, oneshot::Sender<()>)>,
}

impl Client {
    /// Of a gateway at `addr`, whose responses have bodies of `body` bytes.
    fn new(addr: SocketAddr, request: &'static str, body: usize) -> Self {
        let (go, told) = mpsc::channel::<(usize, oneshot::Sender<()>)>();
        thread::spawn(move || {
            let mut io = TcpStream::connect(addr).unwrap();
            let mut buffer = vec![0; 256 * 1024];
            for (count, done) in told {
                for _ in 0..count {
                    io.write_all(request.as_bytes()).unwrap();
                    let mut read = 0;
                    let mut whole = None;
                    while whole.is_none_or(|whole| read < whole) {
                        let at = if whole.is_some() { 0 } else { read };
                        let length = io.read(&mut buffer[at..]).unwrap();
                        assert!(length > 0, "an answer");
                        read += length;
                        if whole.is_none() {
                            let head = buffer[..read].windows(4).position(|w| w == b"\r\n\r\n");
                            assert!(buffer.starts_with(b"HTTP/1.1 200 OK\r\n"));
                            whole = head.map(|head| head + 4 + body);
                        }
                    }
                    assert_eq!(Some(read), whole);
                }
                done.send(()).unwrap();
            }
        });
        Self { go }
    }

    /// What this thread has asked for until so many requests were answered.
    async fn ask(&self, count: usize) -> Allocations {
        let (done, is_done) = oneshot::channel();
        self.go.send((count, done)).unwrap();
        let before = Allocations::here();
        is_done.await.unwrap();
        Allocations::here() - before
    }
}

/// What so many requests cost together, after others.
fn cost(setup: Setup, request: &'static str, body: usize, count: usize) -> Allocations {
    local(async {
        let gateway = setup.start().await;
        let client = Client::new(gateway.h1, request, body);
        client.ask(BEFORE.min(count)).await;
        client.ask(count).await
    })
}

fn small() -> Setup {
    Setup::new().http("a.example", upstream(SMALL.into()))
}

#[test]
fn a_request_on_kept_connections_asks_for_no_memory() {
    for logged in [false, true] {
        let mut setup = small();
        setup.logged = logged;
        let cost = cost(setup, REQUEST, 5, COUNTED);
        let each = |count: u64| count / COUNTED as u64;
        println!(
            "logged: {logged}; a request: {} allocations, {} reallocations, {} bytes",
            each(cost.made),
            each(cost.resized),
            each(cost.bytes)
        );
        // The log's thread frees the line of each request.
        let lines = if logged { COUNTED as u64 + LINES_GROWN } else { 0 };
        let asked = cost.made + cost.resized;
        assert!(asked <= BESIDES + lines, "logged: {logged}: {cost:?}");
    }
}

/// A client of HTTP/2 on a thread of its own, with one connection, which sends as many requests as each order says.
fn http2_client(addr: SocketAddr) -> unbounded::UnboundedSender<(usize, oneshot::Sender<()>)> {
    let (go, mut told) = unbounded::unbounded_channel::<(usize, oneshot::Sender<()>)>();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let io = tokio::net::TcpStream::connect(addr).await.unwrap();
            let (mut sender, connection) = h2::client::handshake(io).await.unwrap();
            tokio::spawn(connection);
            while let Some((count, done)) = told.recv().await {
                for _ in 0..count {
                    sender = sender.ready().await.unwrap();
                    let request = http::Request::get("http://a.example/path?q=1")
                        .header("user-agent", "test/1")
                        .header("accept", "*/*")
                        .body(())
                        .unwrap();
                    let (response, _) = sender.send_request(request, true).unwrap();
                    let response = response.await.unwrap();
                    assert_eq!(response.status(), 200);
                    let mut body = response.into_body();
                    while let Some(data) = body.data().await {
                        body.flow_control().release_capacity(data.unwrap().len()).unwrap();
                    }
                }
                done.send(()).unwrap();
            }
        });
    });
    go
}

#[test]
fn a_request_of_http2_asks_for_little_memory() {
    let cost = local(async {
        let mut setup = small();
        setup.logged = false;
        let gateway = setup.start().await;
        let client = http2_client(gateway.h2);
        let ask = async |count| {
            let (done, is_done) = oneshot::channel();
            client.send((count, done)).unwrap();
            let before = Allocations::here();
            is_done.await.unwrap();
            Allocations::here() - before
        };
        ask(BEFORE).await;
        ask(COUNTED).await
    });
    let each = |count: u64| count / COUNTED as u64;
    println!(
        "HTTP/2: a request: {} allocations, {} reallocations, {} bytes",
        each(cost.made),
        each(cost.resized),
        each(cost.bytes)
    );
    assert!(each(cost.made + cost.resized) <= HTTP2, "{cost:?}");
}

#[test]
fn an_idle_connection_holds_little() {
    const IDLE: usize = 200;
    let held = local(async {
        let mut setup = small();
        setup.logged = false;
        let gateway = setup.start().await;
        // Tables are as large as they get, and these stay.
        let _first = ask_once_on_each(gateway.h1, IDLE).await;
        let before = Allocations::here();
        let _idle = ask_once_on_each(gateway.h1, IDLE).await;
        let held = (Allocations::here() - before).held / i64::try_from(IDLE).unwrap();
        let future = gateway.connection_size().await;
        println!("an idle connection: {held} bytes, of them {future} of its future");
        held
    });
    assert!(held <= 2200, "{held}");
}

/// So many connections, each after one request.
async fn ask_once_on_each(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    let (done, are_idle) = oneshot::channel();
    thread::spawn(move || {
        let open = |_| {
            let mut io = TcpStream::connect(addr).unwrap();
            io.write_all(REQUEST.as_bytes()).unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"hello") {
                let mut buffer = [0; 1024];
                let length = io.read(&mut buffer).unwrap();
                assert!(length > 0, "an answer");
                read.extend_from_slice(&buffer[..length]);
            }
            io
        };
        done.send((0..count).map(open).collect::<Vec<_>>()).unwrap();
    });
    are_idle.await.unwrap()
}

#[test]
fn pieces_of_a_body_ask_for_none() {
    const BODY: usize = 4 << 20;
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n").into_bytes();
    response.resize(response.len() + BODY, b'x');
    let mut setup = Setup::new().http("a.example", upstream(response));
    setup.logged = false;
    let cost = cost(setup, REQUEST, BODY, 8);
    println!("8 bodies of {BODY} bytes: {cost:?}");
    // Of 64 pieces each at least; what a client that is slow for a moment did not take at once is kept.
    assert!(cost.made + cost.resized <= 8 * 16, "{cost:?}");
}
