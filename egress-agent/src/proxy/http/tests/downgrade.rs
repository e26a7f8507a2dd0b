//! Requests of HTTP/2 whose parts HTTP/1 would read as framing, or as another request, in raw frames.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, fields, frame, opening},
    harness::{Gateway, SOON, Setup, local, until, upstream},
};

/// `:status: 200` in HPACK.
const OK: u8 = 0x88;

/// The pseudo-headers of a request, of which some are others, and more fields.
fn request(method: &str, changed: &[(&str, &str)]) -> Vec<u8> {
    let usual =
        [(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", "/x")];
    let other = |name: &str| changed.iter().find(|(changed, _)| *changed == name).copied();
    let pseudo = usual.map(|(name, value)| other(name).unwrap_or((name, value)));
    let more = changed.iter().filter(|(name, _)| usual.iter().all(|(usual, _)| usual != name));
    fields(&pseudo.iter().chain(more).copied().collect::<Vec<_>>())
}

/// What a client got for its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Ok,
    Error,
    Reset,
    /// The connection ended.
    Ended,
}

/// Sends these frames on a connection of its own, and reads until the stream or the connection ends.
async fn answer(gateway: &Gateway, frames: &[Vec<u8>]) -> Answer {
    let mut io = gateway.raw_h2().await;
    io.write_all(&opening()).await.unwrap();
    for frame in frames {
        // It may have ended before the last of them.
        if io.write_all(frame).await.is_err() {
            break;
        }
    }
    timeout(SOON, read(&mut io)).await.expect("an answer")
}

/// The first frame that says it.
async fn read(io: &mut TcpStream) -> Answer {
    loop {
        let mut header = [0; 9];
        if io.read_exact(&mut header).await.is_err() {
            return Answer::Ended;
        }
        let [a, b, c, kind, ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]).try_into().unwrap()];
        if io.read_exact(&mut payload).await.is_err() {
            return Answer::Ended;
        }
        match kind {
            HEADERS if payload[0] == OK => return Answer::Ok,
            HEADERS => return Answer::Error,
            RST_STREAM => return Answer::Reset,
            GOAWAY => return Answer::Ended,
            _ => {}
        }
    }
}

/// What reached the upstream.
#[derive(Clone, Default)]
struct Reached {
    connections: Rc<Cell<usize>>,
    /// Of all connections.
    bytes: Rc<RefCell<Vec<u8>>>,
    open: Rc<Cell<usize>>,
}

/// A gateway before an upstream that keeps what comes, and answers every end of a head once.
async fn gateway() -> (Gateway, Reached) {
    let reached = Reached::default();
    let its = reached.clone();
    let (addr, _) = upstream(move |mut io, _, _| {
        let its = its.clone();
        its.connections.set(its.connections.get() + 1);
        its.open.set(its.open.get() + 1);
        async move {
            let (mut buffer, mut own) = ([0; 4096], Vec::new());
            while let Ok(count @ 1..) = io.read(&mut buffer).await {
                its.bytes.borrow_mut().extend_from_slice(&buffer[..count]);
                own.extend_from_slice(&buffer[..count]);
                while let Some(end) = own.windows(4).position(|four| four == b"\r\n\r\n") {
                    let head = String::from_utf8(own.drain(..end + 4).collect()).unwrap();
                    // A body is not waited for where it would not come.
                    if !head.contains("content-length: 3") {
                        io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                            .await
                            .unwrap();
                    }
                }
            }
            its.open.set(its.open.get() - 1);
        }
    })
    .await;
    (Setup::new().http("a.example", addr).start().await, reached)
}

/// The status, the reason and the flags of each of so many log lines are those of a bad request.
async fn all_are_logged(gateway: &Gateway, count: usize) {
    for line in gateway.log(count).await {
        assert_eq!(
            (&line["reason"], &line["protocol"], &line["response_flags"]),
            (&"bad_request".into(), &"HTTP/2".into(), &"DPE".into()),
            "{line:#}"
        );
    }
}

#[test]
fn heads_that_http1_would_read_otherwise_go_nowhere_and_are_logged() {
    const MANY: &str = "GET /smuggled HTTP/1.1\r\nHost: b.example\r\n\r\n";
    local(async {
        let (gateway, reached) = gateway().await;
        let rows: &[(&str, &[(&str, &str)])] = &[
            ("POST", &[("transfer-encoding", "chunked")]),
            ("POST", &[("transfer-encoding", "identity")]),
            ("POST", &[("content-length", "0"), ("transfer-encoding", "chunked")]),
            ("POST", &[("content-length", "3"), ("content-length", "5")]),
            ("POST", &[("content-length", "0"), ("content-length", "0")]),
            ("POST", &[("content-length", "0,0")]),
            ("POST", &[("content-length", "+0")]),
            ("POST", &[("content-length", "")]),
            ("GET", &[("x", "a\r\nTransfer-Encoding: chunked")]),
            ("GET", &[("x", "a\nTransfer-Encoding: chunked")]),
            ("GET", &[("x", "a\rTransfer-Encoding: chunked")]),
            ("GET", &[("x", "a\0b")]),
            ("GET", &[("x", MANY)]),
            ("GET", &[("x: y\r\ntransfer-encoding", "chunked")]),
            ("GET", &[("transfer-encoding ", "chunked")]),
            ("GET", &[("transfer-encoding:", "chunked")]),
            ("GET", &[("Transfer-Encoding", "chunked")]),
            ("GET", &[("", "chunked")]),
            ("GET", &[("connection", "close")]),
            ("GET", &[("connection", "x-secret"), ("x-secret", "1")]),
            ("GET", &[("keep-alive", "timeout=5")]),
            ("GET", &[("proxy-connection", "close")]),
            ("GET", &[("connection", "upgrade"), ("upgrade", "websocket")]),
            ("GET", &[("upgrade", "websocket")]),
            ("GET", &[("te", "gzip")]),
            ("GET", &[("host", "b.example")]),
            ("GET", &[("host", "a.example"), ("host", "a.example")]),
            ("GET", &[(":path", "/x HTTP/1.1")]),
            ("GET", &[(":path", "/x y")]),
            ("GET", &[(":path", "/x HTTP/1.1\r\nHost: b.example\r\n\r\n")]),
            ("GET", &[(":path", "/x\r\nx: y")]),
            ("GET", &[(":path", "/x\0")]),
            ("GET", &[(":path", "")]),
            ("GET", &[(":path", "*")]),
            ("GET / HTTP/1.1\r\nHost: b.example\r\n\r\nGET", &[]),
            ("GET /y", &[]),
            ("", &[]),
            ("GET", &[(":authority", "a.example\r\nx: y")]),
            ("GET", &[(":authority", "a.example b.example")]),
            ("GET", &[(":authority", "b.example@a.example")]),
            ("GET", &[(":authority", "a.example:81")]),
            ("GET", &[(":scheme", "https")]),
            ("GET", &[(":scheme", "http://b.example/?")]),
            ("GET", &[(":status", "200")]),
            ("GET", &[("x", "y"), (":extra", "z")]),
            ("GET", &[("expect", "200-ok")]),
        ];
        for (at, (method, changed)) in rows.iter().enumerate() {
            let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &request(method, changed));
            let got = answer(&gateway, &[head]).await;
            println!("{method:?} {changed:?}: {got:?}");
            assert_ne!(got, Answer::Ok, "{method:?} {changed:?}");
            all_are_logged(&gateway, at + 1).await;
        }
        assert_eq!(reached.connections.get(), 0);
        // The twin, in the same frames.
        for (method, changed) in [
            ("POST", &[("content-length", "0")][..]),
            ("GET", &[("x", "a b\tc")]),
            ("GET", &[("te", "trailers")]),
            ("GET", &[("host", "A.example")]),
            ("GET", &[(":path", "/x%20y?z=%0d%0a")]),
            ("OPTIONS", &[(":path", "*")]),
            // The library cuts off what is no part of a target: it is neither judged nor sent.
            ("GET", &[(":path", "/cut#off")]),
        ] {
            let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &request(method, changed));
            assert_eq!(answer(&gateway, &[head]).await, Answer::Ok, "{method} {changed:?}");
        }
        let said = String::from_utf8(reached.bytes.borrow().clone()).unwrap();
        assert!(said.contains("GET /cut HTTP/1.1\r\n") && !said.contains("off"), "{said}");
    });
}

#[test]
fn a_body_of_another_length_than_its_head_says_is_never_a_whole_request() {
    local(async {
        for bodies in [
            // Longer, in one frame and in two.
            &[(&b"abcSM"[..], END_STREAM)][..],
            &[(b"abcSM", 0)],
            &[(b"abc", 0), (b"SM", END_STREAM)],
            &[(b"ab", 0), (b"cSM", END_STREAM)],
            // Shorter.
            &[(b"a", END_STREAM)],
            &[(b"a", 0), (b"", END_STREAM)],
            &[(b"", END_STREAM)],
        ] {
            let (gateway, reached) = gateway().await;
            let mut frames =
                vec![frame(HEADERS, END_HEADERS, 1, &request("POST", &[("content-length", "3")]))];
            frames.extend(bodies.iter().map(|(data, flags)| frame(DATA, *flags, 1, data)));
            let got = answer(&gateway, &frames).await;
            println!("{bodies:?}: {got:?}");
            assert_ne!(got, Answer::Ok, "{bodies:?}");
            // One line of the library's, and perhaps one of the request's own.
            until(|| gateway.lines().iter().any(|line| line["reason"] == "bad_request")).await;
            // No byte beyond the length goes out, and none goes behind what was begun.
            until(|| reached.open.get() == 0).await;
            let said = String::from_utf8(reached.bytes.borrow().clone()).unwrap();
            assert!(!said.contains("SM"), "{bodies:?}: {said:?}");
            let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", &[]));
            assert_eq!(answer(&gateway, &[head]).await, Answer::Ok);
            let said = String::from_utf8(reached.bytes.borrow().clone()).unwrap();
            let next = said.split("GET /x HTTP/1.1\r\n").count() - 1;
            assert_eq!(next, 1, "{bodies:?}: {said:?}");
        }
        // The twin.
        let (gateway, reached) = gateway().await;
        let head = frame(HEADERS, END_HEADERS, 1, &request("PUT", &[("content-length", "4")]));
        let frames = [head, frame(DATA, 0, 1, b"ab"), frame(DATA, END_STREAM, 1, b"cd")];
        assert_eq!(answer(&gateway, &frames).await, Answer::Ok);
        until(|| reached.bytes.borrow().ends_with(b"\r\n\r\nabcd")).await;
    });
}
