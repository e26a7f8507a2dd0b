//! Responses that could be read in two ways, made by a grammar, against readers of many habits.

use std::{cell::Cell, future::poll_fn, net::SocketAddr};

use http::Method;
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestCaseError, TestRunner},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    runtime,
};

use super::{
    super::super::{
        framing::Framing,
        lenient::{self, number},
    },
    *,
};
use crate::telemetry::Normalized;

const CASES: u32 = 3000;
const LIMITS: HeadLimits = HeadLimits { bytes: 8 * 1024, headers: 100 };

/// A response as one reader reads it: status, body, and where it ends.
type Reading = (u16, Vec<u8>, usize);

/// A reader that takes liberties that readers in use take.
#[derive(Clone, Copy, Debug)]
struct Reader {
    /// A line ends with LF alone.
    bare_lf: bool,
    /// Of several lengths the last one counts.
    last_length: bool,
    /// The length counts where both are given.
    length_wins: bool,
    /// `chunked` anywhere in `Transfer-Encoding` is enough.
    any_chunked: bool,
    /// A number is what its first digits say.
    numbers: bool,
    /// Blanks before a header's colon are overlooked.
    spaced_names: bool,
}

impl Reader {
    fn all() -> impl Iterator<Item = Self> {
        (0_u8..64).map(|bits| {
            let bit = |at: u8| bits >> at & 1 == 1;
            Self {
                bare_lf: bit(0),
                last_length: bit(1),
                length_wins: bit(2),
                any_chunked: bit(3),
                numbers: bit(4),
                spaced_names: bit(5),
            }
        })
    }

    /// The next line without its end.
    fn line<'a>(self, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let end = if self.bare_lf {
            bytes.iter().position(|b| *b == b'\n')? + 1
        } else {
            bytes.windows(2).position(|pair| pair == b"\r\n")? + 2
        };
        let (line, rest) = bytes.split_at(end);
        *bytes = rest;
        let line = line.strip_suffix(b"\n")?;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// The first response of `bytes` that is none in between, in answer to a `method` request.
    fn read(self, method: &Method, bytes: &[u8]) -> Option<Reading> {
        let mut rest = bytes;
        loop {
            let line = std::str::from_utf8(self.line(&mut rest)?).ok()?;
            // Whoever takes LF for a part of a value does not take it for one of a status line.
            if line.contains('\n') {
                return None;
            }
            // Whoever overlooks blanks elsewhere does so here.
            let mut words =
                line.split(' ').skip(1).skip_while(|w| self.spaced_names && w.is_empty());
            let status: u16 = words.next()?.parse().ok()?;
            let (mut lengths, mut encodings): (Vec<&[u8]>, Vec<Vec<u8>>) = Default::default();
            loop {
                let line = self.line(&mut rest)?;
                if line.is_empty() {
                    break;
                }
                if line.starts_with(b" ") || line.starts_with(b"\t") {
                    continue;
                }
                let at = line.iter().position(|b| *b == b':')?;
                let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
                let trimmed = name.trim_ascii_end();
                if name != trimmed && !self.spaced_names {
                    return None;
                }
                match trimmed.to_ascii_lowercase().as_slice() {
                    b"content-length" => lengths.extend(value.split(|b| *b == b',')),
                    b"transfer-encoding" => encodings.push(value.to_ascii_lowercase()),
                    _ => {}
                }
            }
            if (100..200).contains(&status) {
                continue;
            }
            if matches!(status, 204 | 304) || *method == Method::HEAD {
                return Some((status, Vec::new(), bytes.len() - rest.len()));
            }
            let length = if self.last_length { lengths.last() } else { lengths.first() };
            if let Some(length) = length.filter(|_| encodings.is_empty() || self.length_wins) {
                let (body, rest) =
                    rest.split_at_checked(number(length.trim_ascii(), 10, self.numbers)?)?;
                return Some((status, body.to_vec(), bytes.len() - rest.len()));
            }
            if encodings.is_empty() {
                return Some((status, rest.to_vec(), bytes.len()));
            }
            let chunked = encodings.iter().any(|encoding| {
                encoding == b"chunked"
                    || (self.any_chunked && encoding.windows(7).any(|part| part == b"chunked"))
            });
            if !chunked {
                return self.any_chunked.then(|| (status, rest.to_vec(), bytes.len()));
            }
            let (body, rest) = lenient::chunks(rest, self.numbers, |bytes| self.line(bytes))?;
            return Some((status, body, bytes.len() - rest.len()));
        }
    }
}

/// What the gateway makes of it.
struct Read {
    status: u16,
    body: Vec<u8>,
    /// The body ends with the connection.
    until_close: bool,
    /// The connection would be used again.
    again: bool,
    /// A length was overridden by chunks.
    overridden: bool,
}

/// The way the gateway reads it, a few bytes at a time. `None` where it refuses it, or not all of it has
/// come.
async fn gateway(method: &Method, bytes: &[u8], step: usize, closed: bool) -> Option<Read> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(any).await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    // So many connections would leave no ports.
    near.set_zero_linger().unwrap();
    far.write_all(bytes).await.unwrap();
    if closed {
        far.shutdown().await.unwrap();
    }
    let mut up = H1Outbound::new(UpstreamIo::Plain(near));
    up.begin(method.clone());
    let mut scratch = vec![0; step];
    let head = loop {
        let head = poll_fn(|cx| up.poll_head(cx, &mut scratch, LIMITS)).await.ok()?;
        if !head.status.is_informational() {
            break head;
        }
    };
    let mut body = Vec::new();
    loop {
        match poll_fn(|cx| up.poll_recv(cx, &mut scratch)).await.ok()? {
            BodyPiece::Scratch(at) => body.extend_from_slice(&scratch[at]),
            BodyPiece::Owned(piece) => body.extend_from_slice(&piece),
            BodyPiece::End(_) => break,
        }
    }
    let until_close = head.framing == Framing::UntilClose;
    let again = up.is_reusable() && up.is_alive(&mut scratch);
    let overridden = head.normalized.contains(Normalized::LengthAndEncoding);
    Some(Read { status: head.status.as_u16(), body, until_close, again, overridden })
}

fn line_end() -> impl Strategy<Value = &'static str> {
    prop_oneof![20 => Just("\r\n"), 1 => select(vec!["\n", "\r", "\r\r\n", "\n\r"])]
}

fn header() -> impl Strategy<Value = &'static str> {
    let odd = [
        "Content-Length: 6",
        "Content-Length: 0",
        "Content-Length: +5",
        "Content-Length: 5, 5",
        "Content-Length: 5,6",
        "Content-Length: 5x",
        "Content-Length: 05",
        "Content-Length:\t5 ",
        "Content-Length : 5",
        "Content-Length\t: 3",
        "Content-Length:",
        "Content-Length: 5\r\n 6",
        "content-LENGTH: 4",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: CHUNKED",
        "Transfer-Encoding:\r\n chunked",
        "X : y",
        "X",
        "X: a\rTransfer-Encoding: chunked",
        "X: a\nContent-Length: 3",
        " X: y",
        ": y",
    ];
    let plain = ["X: y", "X: a\r\n b", "Connection: close", "Set-Cookie: a=b"];
    prop_oneof![
        4 => Just("Content-Length: 5"),
        4 => Just("Transfer-Encoding: chunked"),
        3 => select(plain.to_vec()),
        3 => select(odd.to_vec()),
    ]
}

fn chunks() -> impl Strategy<Value = String> {
    let odd =
        ["5 ", "05", "5;a=b", "5 ;a", "0x5", "+5", "-5", "5,5", " 5", "5\r", "5\n", "", "4", "6"];
    let size = prop_oneof![6 => Just("5"), 2 => select(odd.to_vec())];
    let chunk = (size, line_end(), line_end());
    let trailers = ["", "", "X: y\r\n", "Content-Length: 3\r\n", "X: y\n", "X\r\n"];
    let last =
        (select(vec!["0", "0", "0", "00", "0 ", "0;a"]), line_end(), select(trailers.to_vec()));
    (prop::collection::vec(chunk, 0..3), last, line_end()).prop_map(|(chunks, last, end)| {
        let mut text = String::new();
        for (size, first, second) in chunks {
            text += &format!("{size}{first}hello{second}");
        }
        let (size, first, trailers) = last;
        text + &format!("{size}{first}{trailers}{end}")
    })
}

fn response() -> impl Strategy<Value = String> {
    let interim = [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\n",
    ];
    let odd = [
        "HTTP/1.0 200 OK",
        "HTTP/1.1 204 No",
        "HTTP/1.1 304 No",
        "HTTP/1.1 200",
        "HTTP/1.1  200 OK",
        "HTTP/1.2 200 OK",
    ];
    let status = prop_oneof![4 => Just("HTTP/1.1 200 OK"), 1 => select(odd.to_vec())];
    let body = prop_oneof![3 => Just("hello".to_owned()), 4 => chunks(), 1 => Just(String::new())];
    // The whole head's lines, most often.
    let bare = prop_oneof![4 => Just(false), 1 => Just(true)];
    let next = ["", "", "", "\r\n", "x", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"];
    (
        prop::collection::vec(select(interim.to_vec()), 0..2),
        (status, line_end()),
        prop::collection::vec((header(), line_end()), 0..4),
        line_end(),
        body,
        (select(next.to_vec()), bare),
    )
        .prop_map(|(interim, (status, first), headers, end, body, (next, bare))| {
            let headers: String = headers.iter().map(|(h, end)| format!("{h}{end}")).collect();
            let head = format!("{status}{first}{headers}{end}");
            let head = if bare { head.replace("\r\n", "\n") } else { head };
            format!("{}{head}{body}{next}", interim.concat())
        })
}

#[test]
fn what_is_accepted_is_read_in_one_way_by_all_and_no_left_over_byte_is_used() {
    let (accepted, reused) = (Cell::new(0_u32), Cell::new(0_usize));
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let methods = select(vec![Method::GET, Method::GET, Method::GET, Method::HEAD]);
    let mut runner = TestRunner::new(Config::with_cases(CASES));
    let ran = runner.run(&(response(), methods, 1_usize..300), |(text, method, step)| {
        let bytes = text.as_bytes();
        let Some(read) = runtime.block_on(gateway(&method, bytes, step, true)) else {
            return Ok(());
        };
        prop_assert!(!read.again, "it is closed");
        accepted.set(accepted.get() + 1);
        let mut end = None;
        // Chunks override a length (RFC 9112 §6.3). Whoever reads it otherwise would see another end, so the
        // connection is not used again.
        for reader in Reader::all().filter(|reader| !(read.overridden && reader.length_wins)) {
            let Some((status, body, ends)) = reader.read(&method, bytes) else { continue };
            prop_assert_eq!((status, &body), (read.status, &read.body), "{:?}", reader);
            prop_assert_eq!(*end.get_or_insert(ends), ends, "{:?}", reader);
        }
        prop_assert!(end.is_some(), "no reader takes it");
        if !read.until_close {
            let open = runtime.block_on(gateway(&method, bytes, step, false));
            let open = open.ok_or_else(|| TestCaseError::fail("only when it is closed"))?;
            prop_assert_eq!(open.body, read.body);
            prop_assert!(!open.again || end == Some(bytes.len()), "what was left over is used");
            prop_assert!(!open.again || !read.overridden, "the end is in doubt");
            reused.set(reused.get() + usize::from(open.again));
        }
        Ok(())
    });
    ran.unwrap();
    println!("{} of {CASES} accepted, {} connections used again", accepted.get(), reused.get());
    // Whoever refuses everything passes as well.
    assert!(accepted.get() > CASES / 10 && reused.get() > 50, "{accepted:?} {reused:?}");
}
