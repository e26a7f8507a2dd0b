use super::*;
use crate::proxy::http::{
    framing::{self, Framing},
    request::{Origin, Request},
    response::Response,
};
use crate::types::{OriginalPort, Port};
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, headers: 100 };

fn origin() -> Origin {
    Origin { port: OriginalPort(Port::new(80).unwrap()), scheme: "http" }
}

/// What a connection would make of these bytes.
fn request(bytes: &[u8]) -> Result<Option<Request>, BadMessage> {
    let Some(length) = EndOfHead::default().find(bytes, LIMITS.bytes, Sender::Client)? else {
        return Ok(None);
    };
    let head = Bytes::copy_from_slice(&bytes[..length]);
    Request::from_h1(parse_request(&head, LIMITS)?, origin(), None).map(Some)
}

fn response(bytes: &str, method: &Method) -> Result<Response, BadMessage> {
    let head = Bytes::copy_from_slice(bytes.as_bytes());
    Response::from_h1(parse_response(&head, LIMITS)?, method)
}

#[test]
fn a_request_is_taken_apart() {
    let request = request(
        b"POST /a?b=c HTTP/1.1\r\nHost: Example.com:80\r\nContent-Length: 3\r\n\
          Connection: x-hop\r\nX-Hop: 1\r\nX-Empty:\r\nAccept:  */* \r\n\r\n",
    )
    .unwrap()
    .unwrap();
    assert_eq!(request.method, Method::POST);
    assert_eq!(request.path, "/a?b=c");
    assert_eq!(request.authority.host.to_string(), "example.com");
    assert_eq!(request.framing, Framing::Length(3));
    assert!(request.keep_alive);
    let headers: Vec<_> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(headers, [("x-empty", ""), ("accept", "*/*")]);
}

#[test]
fn every_prefix_is_incomplete() {
    let whole = b"GET / HTTP/1.1\r\nHost: a.example\r\nX: y\r\n\r\n";
    for end in 0..whole.len() {
        assert!(request(&whole[..end]).unwrap().is_none(), "{end}");
    }
    assert!(request(whole).unwrap().is_some());
}

#[test]
fn every_split_finds_the_same_end() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\nGET /next";
    for split in 0..bytes.len() {
        let mut end = EndOfHead::default();
        let mut find = |bytes: &[u8]| end.find(bytes, LIMITS.bytes, Sender::Client).unwrap();
        let found = find(&bytes[..split]).or_else(|| find(bytes));
        assert_eq!(found, Some(35), "{split}");
    }
}

/// Where the head ends that an upstream sends in these pieces.
fn end_of(pieces: &[&[u8]]) -> Result<Option<usize>, BadMessage> {
    let (mut end, mut all) = (EndOfHead::default(), Vec::new());
    for piece in pieces {
        all.extend_from_slice(piece);
        if let Some(length) = end.find(&all, LIMITS.bytes, Sender::Upstream)? {
            return Ok(Some(length));
        }
    }
    Ok(None)
}

#[test]
fn an_upstreams_lines_may_end_with_lf_alone_from_the_first_one_on() {
    for head in [
        "HTTP/1.1 200 OK\nX: y\n\n",
        "HTTP/1.1 200 OK\nX: y\r\n\r\n",
        "HTTP/1.1 200 OK\nX: y\r\n\n",
        "HTTP/1.1 200 OK\nX: y\n\r\n",
        "HTTP/1.1 200 OK\n\n",
    ] {
        let longer = format!("{head}\nrest\r\n\r\n");
        for split in 0..longer.len() {
            let (a, b) = longer.as_bytes().split_at(split);
            assert_eq!(end_of(&[a, b]), Ok(Some(head.len())), "{head:?} {split}");
        }
        for end in 0..head.len() {
            assert_eq!(end_of(&[&head.as_bytes()[..end]]), Ok(None), "{head:?} {end}");
        }
        let client = EndOfHead::default().find(head.as_bytes(), LIMITS.bytes, Sender::Client);
        assert_eq!(client, Err(BadMessage::LineEnding), "of a client: {head:?}");
        assert!(response(head, &Method::GET).unwrap().normalized.contains(Normalized::BareLf));
    }
    // Some take what follows for the value's rest, and others for a header.
    for head in [
        "HTTP/1.1 200 OK\r\nX: y\nZ: w\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\n\n",
        "\n\n",
        "\nX: y\n\n",
    ] {
        let found = end_of(&[head.as_bytes()]);
        assert_eq!(found, Err(BadMessage::LineEnding), "{head:?}");
    }
    let endless = format!("HTTP/1.1 200 OK\nX: {}", "y".repeat(LIMITS.bytes));
    let limit = LIMITS.bytes;
    assert_eq!(end_of(&[endless.as_bytes()]), Err(BadMessage::HeadTooLarge { limit }));
}

/// Some readers take a CR that no LF follows for the end of a line, and others for a part of a value.
#[test]
fn a_lone_cr_is_refused_whatever_the_other_line_ends_are() {
    // A head of these lines with every combination of line ends.
    let with_all_ends = |lines: &[&str]| -> Vec<String> {
        let end = |bits: u32, at: usize| if bits >> at & 1 == 1 { "\n" } else { "\r\n" };
        let line = |bits, (at, line): (usize, &&str)| format!("{line}{}", end(bits, at));
        let head = |bits| lines.iter().enumerate().map(|one| line(bits, one)).collect();
        (0..1 << lines.len()).map(head).collect()
    };
    let (status, length) = ("HTTP/1.1 200 OK", "Content-Length: 5");
    for line in ["X: a\rb", "X\r: y", "\rX: y", "X: \ry", "X: y\r\r\nZ: w", "\r\r\nZ: w"] {
        for head in with_all_ends(&[status, line, length, ""]) {
            let found = response(&head, &Method::GET);
            assert!(found.is_err(), "{head:?}: {found:?}");
        }
    }
    for status in ["HTTP/1.1 200 O\rK", "HTTP/1.1 200 OK\r\r\nX: y", "HTTP/1.1\r200 OK"] {
        for head in with_all_ends(&[status, length, ""]) {
            assert!(response(&head, &Method::GET).is_err(), "{head:?}");
        }
    }
}

#[test]
fn blanks_before_the_status_code_are_one() {
    for (line, odd) in [
        ("HTTP/1.1 200 OK", false),
        ("HTTP/1.1 200", false),
        ("HTTP/1.1 200 ", false),
        ("HTTP/1.1 200   OK  ", false),
        ("HTTP/1.1  200 OK", true),
        ("HTTP/1.1    200", true),
    ] {
        let read = response(&format!("{line}\r\n\r\n"), &Method::GET).unwrap();
        assert_eq!(read.status, StatusCode::OK, "{line:?}");
        assert_eq!(read.normalized.contains(Normalized::StatusBlanks), odd, "{line:?}");
    }
    for line in ["HTTP/1.1\t200 OK", "HTTP/1.1 \t200 OK", "HTTP/1.1  2000 OK", "HTTP/1.1  OK"] {
        assert!(response(&format!("{line}\r\n\r\n"), &Method::GET).is_err(), "{line:?}");
    }
}

/// Requests that two parsers could read differently, each with its harmless twin in
/// [`what_is_clear_is_accepted`].
#[test]
fn smuggling_vectors_are_refused() {
    use BadMessage as Bad;
    let table: &[(&str, BadMessage)] = &[
        (
            "Host: a.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            Bad::LengthAndEncoding,
        ),
        (
            "Host: a.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            Bad::LengthAndEncoding,
        ),
        ("Host: a.example\r\nContent-Length: 5\r\nContent-Length: 5\r\n", Bad::ContentLength),
        ("Host: a.example\r\nContent-Length: 5\r\nContent-Length: 6\r\n", Bad::ContentLength),
        ("Host: a.example\r\nContent-Length: 3,3\r\n", Bad::ContentLength),
        ("Host: a.example\r\nContent-Length: +3\r\n", Bad::ContentLength),
        ("Host: a.example\r\nContent-Length: -3\r\n", Bad::ContentLength),
        ("Host: a.example\r\nContent-Length: 0x3\r\n", Bad::ContentLength),
        ("Host: a.example\r\nContent-Length: 3 3\r\n", Bad::ContentLength),
        ("Host: a.example\r\nContent-Length:\r\n", Bad::ContentLength),
        ("Host: a.example\r\nContent-Length: 18446744073709551616\r\n", Bad::ContentLength),
        ("Host: a.example\r\nTransfer-Encoding: gzip, chunked\r\n", Bad::TransferEncoding),
        ("Host: a.example\r\nTransfer-Encoding: xchunked\r\n", Bad::TransferEncoding),
        ("Host: a.example\r\nTransfer-Encoding: chunked, chunked\r\n", Bad::TransferEncoding),
        ("Host: a.example\r\nTransfer-Encoding: chunked;q=1\r\n", Bad::TransferEncoding),
        ("Host: a.example\r\nTransfer-Encoding: identity\r\n", Bad::TransferEncoding),
        ("Host: a.example\r\nTransfer-Encoding:\r\n", Bad::TransferEncoding),
        ("Host: a.example\r\nTransfer-Encoding: \"chunked\"\r\n", Bad::TransferEncoding),
        (
            "Host: a.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            Bad::TransferEncoding,
        ),
        (
            "Host: a.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            Bad::TransferEncoding,
        ),
        (
            "Host: a.example\r\nTransfer-Encoding: \x0bchunked\r\n",
            Bad::Syntax(httparse::Error::HeaderValue),
        ),
        (
            "Host: a.example\r\nTransfer-Encoding : chunked\r\n",
            Bad::Syntax(httparse::Error::HeaderName),
        ),
        ("Host: a.example\r\nX: a\r\n b\r\n", Bad::Syntax(httparse::Error::HeaderName)),
        (
            "Host: a.example\r\nX: a\r\n\tTransfer-Encoding: chunked\r\n",
            Bad::Syntax(httparse::Error::HeaderName),
        ),
        (" Host: a.example\r\n", Bad::Syntax(httparse::Error::HeaderName)),
        ("Host: a.example\nX: y\r\n", Bad::LineEnding),
        ("Host: a.example\r\nX: y\rZ: w\r\n", Bad::Syntax(httparse::Error::HeaderValue)),
        ("Host: a.example\r\nX: y\0\r\n", Bad::Syntax(httparse::Error::HeaderValue)),
        ("Host: a.example\r\nX\0: y\r\n", Bad::Syntax(httparse::Error::HeaderName)),
        ("Host: a.example\r\nno colon\r\n", Bad::Syntax(httparse::Error::HeaderName)),
        ("Host: a.example\r\n: y\r\n", Bad::Syntax(httparse::Error::HeaderName)),
        ("Host: a.example\r\nHost: b.example\r\n", Bad::DuplicateHost),
        ("Host: a.example\r\nHost: a.example\r\n", Bad::DuplicateHost),
        ("Host: a.example, b.example\r\n", Bad::Authority),
        ("Host: user@a.example\r\n", Bad::Authority),
        ("Host: a.example:443\r\n", Bad::PortContradiction),
        ("Host: a.example:99999\r\n", Bad::Authority),
        ("Host: a.example/\r\n", Bad::Authority),
        ("Host:\r\n", Bad::NoHost),
        ("X: y\r\n", Bad::NoHost),
        ("Host: a.example\r\nExpect: 200-ok\r\n", Bad::Expectation),
    ];
    for (headers, expected) in table {
        let bytes = format!("POST / HTTP/1.1\r\n{headers}\r\n");
        let found = request(bytes.as_bytes()).map(|_| ()).unwrap_err();
        assert_eq!(found, *expected, "{headers:?}");
        assert!(found.status().is_some_and(|status| status.is_client_error()));
    }
}

#[test]
fn bad_request_lines_are_refused() {
    for line in [
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / http/1.1",
        "GET /",
        "GET",
        "G\0T / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /#fragment HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET a.example HTTP/1.1",
        "GET http://b.example/ HTTP/1.1",
        "GET http://a.example:8080/ HTTP/1.1",
        "GET http://user@a.example/ HTTP/1.1",
        "GET https://a.example/ HTTP/1.1",
        "GET http:/a.example/ HTTP/1.1",
        "GET * HTTP/1.1",
        " GET / HTTP/1.1",
        "\tGET / HTTP/1.1",
    ] {
        let bytes = format!("{line}\r\nHost: a.example\r\n\r\n");
        let found = request(bytes.as_bytes());
        assert!(found.is_err(), "{line:?}: {found:?}");
    }
    assert_eq!(request(b"\r\n\r\n").unwrap_err(), BadMessage::Syntax(httparse::Error::Token));
    let old = "POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(request(old.as_bytes()).unwrap_err(), BadMessage::EncodingInHttp10);
    assert_eq!(request(b"GET / HTTP/1.0\r\n\r\n").unwrap_err(), BadMessage::NoHost);
}

#[test]
fn what_is_clear_is_accepted() {
    for (line, headers, framing) in [
        ("POST / HTTP/1.1", "Host: a.example\r\nTransfer-Encoding: chunked\r\n", Framing::Chunked),
        ("POST / HTTP/1.1", "Host: a.example\r\nContent-Length: 0\r\n", Framing::Length(0)),
        ("GET / HTTP/1.1", "Host: a.example\r\n", Framing::None),
        ("GET / HTTP/1.0", "Host: a.example\r\n", Framing::None),
        ("GET http://A.example/ HTTP/1.1", "Host: a.example\r\n", Framing::None),
        ("GET http://a.example/ HTTP/1.0", "", Framing::None),
        ("OPTIONS * HTTP/1.1", "Host: a.example\r\n", Framing::None),
        ("GET /?a=[1]|{2} HTTP/1.1", "Host: a.example:80\r\n", Framing::None),
        ("CONNECT a.example:443 HTTP/1.1", "Host: a.example:443\r\n", Framing::None),
    ] {
        let bytes = format!("{line}\r\n{headers}\r\n");
        let request = request(bytes.as_bytes()).unwrap_or_else(|bad| panic!("{line}: {bad}"));
        assert_eq!(request.unwrap().framing, framing, "{line}");
    }
}

#[test]
fn limits_hold() {
    let long = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {}\r\n\r\n", "y".repeat(65536));
    let limit = LIMITS.bytes;
    assert_eq!(request(long.as_bytes()).unwrap_err(), BadMessage::HeadTooLarge { limit });
    // Without an end in sight too.
    let endless = &long.as_bytes()[..limit];
    assert_eq!(request(endless).unwrap_err(), BadMessage::HeadTooLarge { limit });
    for (count, ok) in [(99, true), (100, false), (200, false)] {
        let many = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{}\r\n", "X: y\r\n".repeat(count));
        let found = request(many.as_bytes());
        assert_eq!(found.is_ok(), ok, "{count}");
        if let Err(bad) = found {
            assert_eq!(bad.status(), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        }
    }
}

#[test]
fn more_headers_than_usual_are_a_matter_of_the_limit() {
    let of = |count: usize, headers: usize| {
        let limits = HeadLimits { headers, ..LIMITS };
        let fields = "X: y\r\n".repeat(count);
        let request = Bytes::from(format!("GET / HTTP/1.1\r\n{fields}\r\n"));
        let request = parse_request(&request, limits).map(|head| head.headers.len());
        let response = Bytes::from(format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
        let response = parse_response(&response, limits).map(|head| head.headers.len());
        assert_eq!(request, response);
        request
    };
    for limit in [50, USUAL_HEADERS - 1, USUAL_HEADERS, USUAL_HEADERS + 1, 1000] {
        assert_eq!(of(limit, limit), Ok(limit));
        assert_eq!(of(limit + 1, limit), Err(BadMessage::TooManyHeaders { limit }));
        assert_eq!(of(5000, limit), Err(BadMessage::TooManyHeaders { limit }));
    }
}

#[test]
fn responses_end_where_the_standard_says() {
    let get = &Method::GET;
    let of = |text, method| response(text, method).map(|r| (r.framing, r.length, r.keep_alive));
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(of(head, get), Ok((Framing::Length(5), None, true)));
    assert_eq!(of(head, &Method::HEAD), Ok((Framing::None, Some(5), true)));
    let close = (Framing::UntilClose, None, false);
    assert_eq!(of("HTTP/1.1 200 OK\r\n\r\n", get), Ok(close));
    assert_eq!(of("HTTP/1.0 200 OK\r\n\r\n", get), Ok(close));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(of(chunked, get), Ok((Framing::Chunked, None, true)));
    let not_modified = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(of(not_modified, get), Ok((Framing::None, Some(5), true)));
    let no_content = "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(of(no_content, get), Ok((Framing::None, None, true)));
    let old = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(of(old, get), Ok((Framing::Length(5), None, false)));
    let closing = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
    assert_eq!(of(closing, get), Ok((Framing::Length(5), None, false)));
}

#[test]
fn ambiguous_responses_are_refused() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked, x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 05\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 No\r\nContent-Length: 5, 6\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding\t: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX y: z\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\x0b: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\n X: y\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/3 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
    ] {
        assert!(response(text, &Method::GET).is_err(), "{text:?}");
    }
}

#[test]
fn an_upstreams_folded_headers_are_joined() {
    let head = Bytes::from("HTTP/1.1 200 OK\r\nX: a;\r\n\t b\r\n  c\r\nY: d\r\n\r\n");
    let parsed = parse_response(&head, LIMITS).unwrap();
    assert!(parsed.normalized.iter().eq([Normalized::FoldedHeader]));
    assert_eq!(parsed.headers["x"], "a; b c");
    assert_eq!(parsed.headers["y"], "d");
    let head = Bytes::from("HTTP/1.1 200 OK\nX: a;\n\t b\nY: d\n\n");
    let parsed = parse_response(&head, LIMITS).unwrap();
    assert!(parsed.normalized.iter().eq([Normalized::FoldedHeader, Normalized::BareLf]));
    assert_eq!(parsed.headers["x"], "a; b");
    let head = Bytes::from("HTTP/1.1 200 OK\r\nX: a; b c\r\n\r\n");
    assert!(parse_response(&head, LIMITS).unwrap().normalized == NormalizedKinds::default());
}

#[test]
fn an_upstreams_heads_are_put_right_where_they_have_one_meaning() {
    use Normalized as Kind;
    let get = &Method::GET;
    for (fields, method, framing, length, kinds, again) in [
        (
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            get,
            Framing::Length(5),
            None,
            &[Kind::RepeatedLength][..],
            true,
        ),
        (
            "Content-Length: 5,5 , 5\r\n",
            get,
            Framing::Length(5),
            None,
            &[Kind::RepeatedLength],
            true,
        ),
        (
            "Content-Length: 5, 5\r\n",
            &Method::HEAD,
            Framing::None,
            Some(5),
            &[Kind::RepeatedLength],
            true,
        ),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            get,
            Framing::Chunked,
            None,
            &[Kind::LengthAndEncoding],
            false,
        ),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            &Method::HEAD,
            Framing::None,
            None,
            &[Kind::LengthAndEncoding],
            false,
        ),
        (
            "X : y\r\nContent-Length: 5\r\n",
            get,
            Framing::Length(5),
            None,
            &[Kind::HeaderBlanks],
            true,
        ),
        ("Content-Length: 5\r\n", get, Framing::Length(5), None, &[], true),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let Response { framing: found, length: stated, keep_alive, normalized, headers, .. } =
            response(&text, method).unwrap();
        assert_eq!((found, stated, keep_alive), (framing, length, again), "{fields:?}");
        assert!(normalized.iter().eq(kinds.iter().copied()), "{fields:?}: {normalized:?}");
        assert!(!headers.contains_key("content-length"), "{fields:?}");
        assert!(!headers.contains_key("transfer-encoding"), "{fields:?}");
        assert!(!fields.starts_with("X :") || headers["x"] == "y");
        // Whatever is put right here is refused of a client.
        let of_a_client = format!("POST / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
        assert_eq!(request(of_a_client.as_bytes()).is_err(), !kinds.is_empty(), "{fields:?}");
    }
}

proptest! {
    /// No input panics, whatever is accepted has one framing, and a longer buffer doesn't change
    /// what a head says.
    #[test]
    fn hostile_heads(
        method in "[A-Z ]{0,5}",
        target in "[ -~]{0,20}",
        fields in proptest::collection::vec(("[ -~\\t]{0,20}", "[ -~\\r\\n\\x00\\x80]{0,20}"), 0..6),
        rest in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: a.example\r\n");
        for (name, value) in &fields {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str("\r\n");
        let whole = request(bytes.as_bytes());
        let mut longer = bytes.into_bytes();
        longer.extend_from_slice(&rest);
        let again = request(&longer);
        prop_assert_eq!(format!("{whole:?}"), format!("{again:?}"));
        if let Ok(Some(request)) = whole {
            let framed = framing::content_length(&request.headers);
            prop_assert_eq!(framed, Ok(None), "framing must be taken out of the headers");
            prop_assert!(!request.headers.contains_key("transfer-encoding"));
            prop_assert!(!request.headers.contains_key("connection"));
        }
    }

    /// Heads of upstreams with odd blanks and line ends: whatever is accepted says what it would say if it were
    /// written by the letter, and every prefix of it is incomplete.
    #[test]
    fn what_is_put_right_says_the_same_as_what_is_right(
        fields in proptest::collection::vec(("[a-z]{1,8}", "[ \t]{0,2}", "[!-~]{0,10}"), 0..6),
        ends in proptest::collection::vec(prop_oneof![Just("\n"), Just("\r\n")], 8),
        rest in "[ -~\r\n]{0,20}",
    ) {
        let (mut odd, mut right) = ("HTTP/1.1 200 OK".to_owned(), "HTTP/1.1 200 OK\r\n".to_owned());
        odd.push_str(ends[0]);
        for ((name, blanks, value), end) in fields.iter().zip(&ends[1..]) {
            odd.push_str(&format!("{name}{blanks}: {value}{end}"));
            right.push_str(&format!("{name}: {value}\r\n"));
        }
        odd.push_str(ends[7]);
        right.push_str("\r\n");
        let whole = odd.clone() + &rest;
        // A bare LF is a line's end where the first line ends with one.
        let mut later = ends[1..=fields.len()].iter().chain([&ends[7]]);
        let mixed = ends[0] == "\r\n" && later.any(|end| *end == "\n");
        let expected = if mixed { Err(BadMessage::LineEnding) } else { Ok(Some(odd.len())) };
        prop_assert_eq!(end_of(&[whole.as_bytes()]), expected);
        if !mixed {
            for end in 0..odd.len() {
                prop_assert_eq!(end_of(&[&odd.as_bytes()[..end]]), Ok(None));
            }
            let odd = parse_response(&Bytes::from(odd), LIMITS).unwrap();
            let right = parse_response(&Bytes::from(right), LIMITS).unwrap();
            prop_assert_eq!(odd.headers, right.headers);
            prop_assert!(right.normalized == NormalizedKinds::default());
            let mut expected = NormalizedKinds::default();
            if fields.iter().any(|field| !field.1.is_empty()) {
                expected.insert(Normalized::HeaderBlanks);
            }
            if ends[0] == "\n" {
                expected.insert(Normalized::BareLf);
            }
            prop_assert_eq!(odd.normalized, expected);
        }
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ignored = request(&bytes);
        let head = Bytes::from(bytes);
        let _ignored = parse_response(&head, LIMITS);
        let _ignored = parse_trailers(&head, LIMITS, Sender::Client);
    }
}
