//! What the HTTP/2 library refuses by itself: each request has its line, which says why, and is counted.

use egress_ebpf::reason::Reason;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM,
        WINDOW_UPDATE, field, fields, frame, opening,
    },
    harness::{Gateway, Setup, answering, local, until},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// The flags of a frame that ends the stream and the head.
const BOTH: u8 = END_STREAM | END_HEADERS;
/// Streams of a connection.
const STREAMS: u32 = 10;
/// Bytes of a head; a larger one still fits into one frame.
const HEAD: usize = 12_000;

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const HOST: (&str, &str) = (":authority", "a.example");
const PATH: (&str, &str) = (":path", "/");

/// The head of a request with more fields.
fn head(more: &[(&str, &str)]) -> Vec<u8> {
    [fields(&[METHOD, SCHEME, HOST, PATH]), fields(more)].concat()
}

/// A request without a body.
fn get(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, BOTH, stream, block)
}

/// A head that a table makes large: a field of 2000 bytes goes into it, and is referred to so many times.
fn bomb(times: usize) -> Vec<u8> {
    let mut block = head(&[]);
    let mut entry = field("x", &"y".repeat(2000));
    entry[0] = 0x40;
    block.extend(entry);
    block.extend(vec![0xbe; times]);
    block
}

/// A head in pieces of so many bytes.
fn split(stream: u32, block: &[u8], piece: usize) -> Vec<u8> {
    let (first, rest) = block.split_at(piece);
    let mut bytes = frame(HEADERS, END_STREAM, stream, first);
    let count = rest.chunks(piece).count();
    for (number, part) in (1..).zip(rest.chunks(piece)) {
        let flags = if number == count { END_HEADERS } else { 0 };
        bytes.extend(frame(CONTINUATION, flags, stream, part));
    }
    bytes
}

/// A client that writes its frames by itself.
struct Raw {
    io: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    async fn connect(gateway: &Gateway) -> Self {
        let mut io = gateway.raw_h2().await;
        io.write_all(&opening()).await.unwrap();
        Self { io, read: Vec::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        // It may have been closed in the middle.
        let _sent = self.io.write_all(bytes).await;
    }

    /// The next frame's kind, stream and payload; `None` at the end.
    async fn frame(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        loop {
            if let Some((header, rest)) = self.read.split_first_chunk::<9>() {
                let [a, b, c, kind, _, stream @ ..] = *header;
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if let Some(payload) = rest.get(..length) {
                    let frame = (kind, u32::from_be_bytes(stream), payload.to_vec());
                    self.read.drain(..9 + length);
                    return Some(frame);
                }
            }
            if !matches!(self.io.read_buf(&mut self.read).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// What is said of a stream, or of the connection: a status, the code of a reset or of the end.
    async fn answer(&mut self, to: u32) -> String {
        while let Some((kind, stream, payload)) = self.frame().await {
            match (kind, payload.as_slice()) {
                // Its status is the first field: of the static table, or a literal, whose three digits take
                // two to three bytes in Huffman's code.
                (HEADERS, [0x88, ..]) if stream == to => return "200".into(),
                (HEADERS, [_, ..]) if stream == to => return "error".into(),
                (RST_STREAM, [.., code]) if stream == to => return format!("reset {code}"),
                (GOAWAY, [_, _, _, _, _, _, _, code, ..]) => return format!("end {code}"),
                _ => {}
            }
        }
        "closed".into()
    }
}

/// The code, flags, details and reason of a line.
type Line = (u16, &'static str, &'static str, &'static str);

const MALFORMED: Line = (0, "DPE", "http2.violation.of.messaging.rule", "bad_request");
const LARGE: Line = (431, "DPE", "request_headers_too_large", "bad_request");
const HUGE: Line = (0, "DPE", "request_headers_too_large", "bad_request");
const VIOLATION: Line = (0, "DPE", "http2.protocol_violation", "bad_request");
const SERVED: (u16, &str) = (200, "-");

fn assert_line(line: &Value, (code, flags, details, reason): Line, name: &str) {
    let found = [&line["response_code"], &line["response_flags"], &line["response_code_details"]];
    let expected: [Value; 3] = [code.into(), flags.into(), details.into()];
    assert_eq!(found, expected.each_ref(), "{name}: {line}");
    assert_eq!((&line["reason"], &line["protocol"]), (&reason.into(), &"HTTP/2".into()), "{name}");
}

async fn gateway() -> Gateway {
    let (addr, _) = answering(OK).await;
    let mut setup = Setup::new().http("a.example", addr);
    setup.limits.http2_streams = STREAMS;
    setup.limits.request_head_bytes = HEAD;
    setup.start().await
}

/// What goes wrong with stream 1, what is answered, and its line. Other streams carry on unless the connection
/// ends.
fn cases() -> Vec<(&'static str, Vec<u8>, &'static str, Line)> {
    let large = "y".repeat(HEAD);
    let with = |more: &[(&str, &str)]| get(1, &head(more));
    let of = |list: &[(&str, &str)]| get(1, &fields(list));
    let post = |more: &[(&str, &str)]| frame(HEADERS, END_HEADERS, 1, &head(more));
    let and = |mut first: Vec<u8>, next: &[u8]| {
        first.extend(next);
        first
    };
    let malformed = |name, frames| (name, frames, "reset 1", MALFORMED);
    let ended = |name, frames| (name, frames, "end 1", VIOLATION);
    let continued = "http2.too_many_continuations";
    vec![
        malformed("a path that no URI may hold", of(&[METHOD, SCHEME, HOST, (":path", "/a<b> c")])),
        malformed("no method", of(&[SCHEME, HOST, PATH])),
        malformed("no scheme", of(&[METHOD, HOST, PATH])),
        malformed("a bad authority", of(&[METHOD, SCHEME, PATH, (":authority", "a b")])),
        malformed("two paths", with(&[PATH])),
        malformed("two methods", with(&[METHOD])),
        malformed("a pseudo-header behind others", and_pseudo()),
        malformed("the status of a response", with(&[(":status", "200")])),
        malformed("a protocol that nobody offered", with(&[(":protocol", "websocket")])),
        malformed("Connection", with(&[("connection", "close")])),
        malformed("Keep-Alive", with(&[("keep-alive", "1")])),
        malformed("Proxy-Connection", with(&[("proxy-connection", "close")])),
        malformed("Transfer-Encoding", with(&[("transfer-encoding", "chunked")])),
        malformed("Upgrade", with(&[("upgrade", "websocket")])),
        malformed("TE other than trailers", with(&[("te", "gzip")])),
        malformed("a length that is no number", with(&[("content-length", "x")])),
        malformed("two lengths", post(&[("content-length", "1"), ("content-length", "2")])),
        malformed("a length without a body", with(&[("content-length", "5")])),
        malformed("malformed behind a CONTINUATION", split(1, &head(&[("te", "gzip")]), 20)),
        ended("an upper-case name", with(&[("X-Upper", "y")])),
        ended("a name that is none", with(&[("a b", "y")])),
        ended("a value that is none", with(&[("x", "a\r\nb")])),
        ended("an unknown pseudo-header", with(&[(":host", "a.example")])),
        ended("an entry that no table has", get(1, &[0xff, 0xff, 0x03])),
        ended("a head of stream 0", get(0, &head(&[]))),
        ended("a head of an even stream", get(2, &head(&[]))),
        ended(
            "another frame in a head",
            and(frame(HEADERS, 0, 1, &head(&[])), &frame(PING, 0, 0, &[0; 8])),
        ),
        ended("data before a head", frame(DATA, 0, 1, b"x")),
        ended("a frame that is too short", frame(PRIORITY, 0, 0, &[])),
        ("a large head", with(&[("x-large", &large)]), "error", LARGE),
        ("a large head before a body", post(&[("x-large", &large)]), "error", LARGE),
        ("a large head in pieces", split(1, &head(&[("x-large", &large)]), 9000), "error", LARGE),
        (
            "a large path",
            of(&[METHOD, SCHEME, HOST, (":path", &format!("/{large}"))]),
            "error",
            LARGE,
        ),
        ("a head that a table makes large", get(1, &bomb(20)), "error", LARGE),
        ("the same in pieces", split(1, &bomb(20), 700), "error", LARGE),
        ("many headers", get(1, &head(&[("x", "y"); 101])), "error", LARGE),
        ("a bomb", get(1, &bomb(2000)), "end 11", HUGE),
        (
            "many CONTINUATIONs",
            split(1, &head(&[("x", "y"); 100]), 10),
            "end 11",
            (0, "DPE", continued, "bad_request"),
        ),
        (
            "more body than announced",
            and(post(&[("content-length", "1")]), &frame(DATA, END_STREAM, 1, b"xy")),
            "reset 1",
            MALFORMED,
        ),
        (
            "less body than announced",
            and(post(&[("content-length", "3")]), &frame(DATA, END_STREAM, 1, b"xy")),
            "reset 1",
            MALFORMED,
        ),
        (
            "trailers that do not end it",
            and(post(&[]), &frame(HEADERS, END_HEADERS, 1, &field("x", "y"))),
            "reset 1",
            MALFORMED,
        ),
        ended(
            "a window that opens by nothing",
            and(post(&[]), &frame(WINDOW_UPDATE, 0, 1, &[0; 4])),
        ),
    ]
}

fn and_pseudo() -> Vec<u8> {
    get(1, &fields(&[METHOD, SCHEME, HOST, ("x", "y"), PATH]))
}

#[test]
fn every_request_that_the_library_refuses_has_a_line_that_says_why() {
    for (name, frames, answer, expected) in cases() {
        local(async {
            let gateway = gateway().await;
            let mut client = Raw::connect(&gateway).await;
            client.send(&frames).await;
            assert_eq!(client.answer(1).await, answer, "{name}");
            let mut count = 1;
            if answer.starts_with("end") {
                assert!(client.frame().await.is_none(), "{name}: it is open");
            } else {
                // The connection serves others.
                client.send(&get(3, &head(&[]))).await;
                assert_eq!(client.answer(3).await, "200", "{name}");
                count = 2;
            }
            let log = gateway.log(count).await;
            let is_refusal = |line: &&Value| line["reason"] == "bad_request";
            let refusals: Vec<_> = log.iter().filter(is_refusal).collect();
            assert_eq!(refusals.len(), 1, "{name}: {log:#?}");
            assert_line(refusals[0], expected, name);
            assert_eq!(
                gateway.worker.telemetry.stats.denied_total(Reason::BadRequest),
                1,
                "{name}"
            );
            if let Some(served) = log.iter().find(|line| !is_refusal(line)) {
                let found = (&served["response_code"], &served["response_flags"]);
                assert_eq!(found, (&SERVED.0.into(), &SERVED.1.into()), "{name}");
            }
        });
    }
}

/// What HTTP/1 could not say either: the gateway would forward it in a line that is none. The library itself takes only
/// some of these for no path.
#[test]
fn a_target_that_is_no_path_is_refused() {
    for (path, answer, code) in [
        ("?id=1", "error", 400),
        ("*", "error", 400),
        ("a", "reset 1", 0),
        ("a?b=/", "reset 1", 0),
        ("//", "200", 200),
        ("/?id=1", "200", 200),
    ] {
        local(async {
            let gateway = gateway().await;
            let mut client = Raw::connect(&gateway).await;
            client.send(&get(1, &fields(&[METHOD, SCHEME, HOST, (":path", path)]))).await;
            let answered = client.answer(1).await;
            let line = gateway.log(1).await.remove(0);
            assert_eq!(
                (&*answered, &line["response_code"]),
                (answer, &code.into()),
                "{path}: {line}"
            );
            assert!(code == 200 || line["reason"] == "bad_request", "{path}: {line}");
        });
    }
}

#[test]
fn a_connection_may_send_many_heads_that_are_too_large() {
    local(async {
        let gateway = gateway().await;
        let mut client = Raw::connect(&gateway).await;
        let large = head(&[("x-large", &"y".repeat(HEAD))]);
        for number in 0..60 {
            // Of some a body would follow.
            let flags = if number % 2 == 0 { BOTH } else { END_HEADERS };
            client.send(&frame(HEADERS, flags, 4 * number + 1, &large)).await;
            assert_eq!(client.answer(4 * number + 1).await, "error");
            client.send(&get(4 * number + 3, &head(&[]))).await;
            assert_eq!(client.answer(4 * number + 3).await, "200");
        }
        let log = gateway.log(120).await;
        let (served, refused): (Vec<_>, Vec<_>) =
            log.iter().partition(|line| line["response_code"] == 200);
        assert_eq!((served.len(), refused.len()), (60, 60));
        refused.iter().for_each(|line| assert_line(line, LARGE, "one of many"));
        assert_eq!(gateway.worker.telemetry.stats.denied_total(Reason::BadRequest), 60);
    });
}

#[test]
fn streams_over_the_limit_are_refused_and_logged() {
    local(async {
        let (addr, _) = super::harness::upstream(|mut io, _, _| async move {
            super::harness::head(&mut io, &mut Vec::new()).await.ok();
            std::future::pending::<()>().await;
        })
        .await;
        let mut setup = Setup::new().http("a.example", addr);
        setup.limits.http2_streams = STREAMS;
        let gateway = setup.start().await;
        let mut client = Raw::connect(&gateway).await;
        let streams = (0..STREAMS + 3).map(|number| 2 * number + 1);
        let all: Vec<u8> = streams.flat_map(|stream| get(stream, &head(&[]))).collect();
        client.send(&all).await;
        for refused in STREAMS..STREAMS + 3 {
            assert_eq!(client.answer(2 * refused + 1).await, "reset 7");
        }
        let expected = (0, "UO", "http2.refused_stream", "overflow");
        for line in gateway.log(3).await {
            assert_line(&line, expected, "one too many");
        }
        let denied = || gateway.worker.telemetry.stats.denied_total(Reason::Overflow);
        until(|| denied() == 3).await;
    });
}

/// A client that others wrote: a head that is too large, and one that is not.
#[test]
fn curl_gets_the_answer() {
    local(async {
        let gateway = gateway().await;
        let to = format!("a.example:80:{}", gateway.h2);
        for (header, expected) in
            [(format!("x-large: {}", "y".repeat(HEAD)), "2 431"), ("x: y".into(), "2 200")]
        {
            let form = "%{http_version} %{http_code}";
            let words = ["-sS", "-o", "/dev/null", "-w", form, "--http2-prior-knowledge"];
            let more = ["--connect-to", &to, "-H", &header, "http://a.example/"];
            let words: Vec<_> = words.iter().chain(&more).map(ToString::to_string).collect();
            let run = move || std::process::Command::new("curl").args(words).output();
            let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
        }
        let log = gateway.log(2).await;
        let refused = log.iter().find(|line| line["response_code"] == 431);
        assert_line(refused.unwrap(), LARGE, "curl");
        assert_eq!(gateway.worker.telemetry.stats.denied_total(Reason::BadRequest), 1);
    });
}
