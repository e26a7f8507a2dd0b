//! Heads and chunks of HTTP/1 messages as bytes.

use std::io::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use super::super::{framing::Framing, request::Request};

/// Appends a request head. `path` is `*`, or a path with its query.
#[expect(clippy::too_many_arguments, reason = "the parts of one head")]
pub(in super::super) fn request(
    out: &mut Vec<u8>,
    method: &Method,
    path: &str,
    host: &HeaderValue,
    headers: &HeaderMap,
    framing: Framing,
    upgrade: Option<&HeaderValue>,
    expects_continue: bool,
) {
    for part in [method.as_str().as_bytes(), b" ", path.as_bytes(), b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    field(out, &header::HOST, host);
    let trailers = announced(framing, Version::HTTP_11);
    fields_with(out, headers, trailers);
    // Where a body is usual, its absence is said (RFC 9110 §8.6).
    let usual = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    body(out, framing, usual.then_some(0));
    if expects_continue {
        out.extend_from_slice(b"expect: 100-continue\r\n");
    }
    match upgrade {
        Some(protocol) => {
            out.extend_from_slice(b"connection: upgrade\r\n");
            field(out, &header::UPGRADE, protocol);
        }
        // `TE` is a matter of this hop and must be named as such (RFC 9110 §10.1.4).
        None if headers.contains_key(header::TE) => out.extend_from_slice(b"connection: te\r\n"),
        None => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// What follows the response on the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Persistence {
    /// More requests, which is HTTP/1.1's default.
    KeepAlive,
    /// More requests, which an HTTP/1.0 client must be told.
    KeepAliveSaid,
    /// Nothing.
    Close,
}

/// Appends a response head for a client that speaks `version`. `length` is the length that is stated where there is
/// no body (HEAD, 304).
pub(in super::super) fn response(
    out: &mut Vec<u8>,
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
    framing: Framing,
    length: Option<u64>,
    persistence: Persistence,
) {
    status_line(out, status);
    fields_with(out, headers, announced(framing, version));
    body(out, framing, length);
    match persistence {
        Persistence::KeepAlive => {}
        Persistence::KeepAliveSaid => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Persistence::Close => out.extend_from_slice(b"connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends an interim response (1xx); of `101` with the protocol that was agreed on.
pub(in super::super) fn interim(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    upgrade: Option<&HeaderValue>,
) {
    status_line(out, status);
    fields(out, headers);
    if let Some(protocol) = upgrade {
        out.extend_from_slice(b"connection: upgrade\r\n");
        field(out, &header::UPGRADE, protocol);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a request as it is sent to an upstream.
pub(in super::super) fn whole_request(
    out: &mut Vec<u8>,
    asked: &Request,
    path: &str,
    host: &HeaderValue,
    headers: &HeaderMap,
    upgrade: Option<&HeaderValue>,
) {
    let (method, framing, expects) = (&asked.method, asked.framing, asked.expects_continue);
    request(out, method, path, host, headers, framing, upgrade, expects);
}

/// Appends a whole body, in one chunk where it is chunked.
pub(in super::super) fn whole_body(
    out: &mut Vec<u8>,
    framing: Framing,
    body: &[u8],
    trailers: Option<&HeaderMap>,
) {
    match framing {
        Framing::Chunked => {
            if !body.is_empty() {
                chunk_size(out, body.len());
                out.extend_from_slice(body);
                out.extend_from_slice(b"\r\n");
            }
            last_chunk(out, trailers);
        }
        Framing::None | Framing::Length(_) | Framing::UntilClose => out.extend_from_slice(body),
    }
}

/// Appends a chunk's size line.
pub(in super::super) fn chunk_size(out: &mut Vec<u8>, size: usize) {
    write_to(out, format_args!("{size:x}\r\n"));
}

/// Appends the last chunk with its trailers.
pub(in super::super) fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        fields(out, trailers);
    }
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    for part in [
        &b"HTTP/1.1 "[..],
        status.as_str().as_bytes(),
        b" ",
        status.canonical_reason().unwrap_or_default().as_bytes(),
        b"\r\n",
    ] {
        out.extend_from_slice(part);
    }
}

fn body(out: &mut Vec<u8>, framing: Framing, stated: Option<u64>) {
    match (framing, stated) {
        (Framing::Length(length), _) | (Framing::None, Some(length)) => {
            write_to(out, format_args!("content-length: {length}\r\n"));
        }
        (Framing::Chunked, _) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        (Framing::None, None) | (Framing::UntilClose, _) => {}
    }
}

fn fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    fields_with(out, headers, Announced::Kept);
}

fn fields_with(out: &mut Vec<u8>, headers: &HeaderMap, trailers: Announced) {
    for (name, value) in headers {
        if trailers == Announced::Kept || name != header::TRAILER {
            field(out, name, value);
        }
    }
}

/// What becomes of `Trailer`, which announces trailers (RFC 9110 §6.6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Announced {
    Kept,
    /// None can follow: only chunks have a place for them (RFC 9112 §7.1.2).
    Dropped,
}

/// The head of a message without a body says what it would say with one.
fn announced(framing: Framing, version: Version) -> Announced {
    match framing {
        Framing::Chunked | Framing::None if knows_chunks(version) => Announced::Kept,
        Framing::Chunked | Framing::None | Framing::Length(_) | Framing::UntilClose => {
            Announced::Dropped
        }
    }
}

fn field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
}

fn write_to(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec can't fail.
    out.write_fmt(text).unwrap_or_default();
}

/// Whether the version that a client speaks knows chunks.
pub(in super::super) fn knows_chunks(version: Version) -> bool {
    version == Version::HTTP_11
}
