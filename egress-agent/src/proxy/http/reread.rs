//! A client's HTTP/1 bytes as an upstream would get them, and an upstream's as a client would, without I/O and
//! without a policy: so that what must hold of any bytes can be tried on any bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    body::{Relay, Sink as _},
    framing::Framing,
    h1::{self, Decoder, H1Inbound, H1Outbound, HeadLimits, Sender, Step, Stream},
    inbound::Inbound as _,
    request::{Origin, Request},
    response::Response,
};
use crate::types::{OriginalPort, Port};

/// The gateway's own limits.
const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, headers: 100 };

/// Every whole request at the beginning of a connection to port 80, as it would be sent to an HTTP/1
/// upstream if policy allowed it; none after the first that would be refused.
#[must_use]
pub fn forwarded(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    while let Some((request, rest)) = first(bytes) {
        requests.push(request);
        bytes = rest;
    }
    requests
}

fn first(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    // One empty line before a request is overlooked (RFC 9112 §2.2).
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let length =
        h1::EndOfHead::default().find(bytes, LIMITS.bytes, Sender::Client).ok().flatten()?;
    let (head, mut rest) = bytes.split_at_checked(length)?;
    let head = h1::parse_request(&Bytes::copy_from_slice(head), LIMITS).ok()?;
    let origin = Origin { port: OriginalPort(Port::new(80)?), scheme: "http" };
    let request = Request::from_h1(head, origin, None).ok()?;
    // It has no form in which it is forwarded.
    if request.method == Method::CONNECT {
        return None;
    }
    let mut out = Vec::new();
    let host = request.authority.to_header();
    let upgrade = request.upgrade.as_ref();
    h1::encode_request(&mut out, &request, &request.path, &host, &request.headers, upgrade);
    let mut decoder = Decoder::new(request.framing, Sender::Client);
    let mut body = Vec::new();
    loop {
        match decoder.decode(rest).ok()? {
            Step::Need => return None,
            Step::Data { at, consumed } => {
                body.extend_from_slice(rest.get(at)?);
                rest = rest.get(consumed..)?;
            }
            Step::End { trailers, consumed } => {
                h1::encode_body(&mut out, request.framing, &body, trailers.as_ref());
                return Some((out, rest.get(consumed..)?));
            }
        }
    }
}

/// What a client of HTTP/1.1 gets for an upstream's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answered {
    /// The interim responses, and the response, unless it is refused.
    pub bytes: Vec<u8>,
    /// Nothing is missing. Otherwise the gateway answers itself, or breaks off.
    pub whole: bool,
    /// The upstream's connection would be used again.
    pub reusable: bool,
}

/// What a client gets for `bytes`, which an upstream sends in pieces of at most `step` bytes in answer to a
/// `method` request before it closes the connection.
#[must_use]
pub fn answered(method: &Method, bytes: &[u8], step: usize) -> Answered {
    let mut down = H1Inbound::new(Stream::new(Pieces::default(), BytesMut::new(), Sender::Client));
    down.begin(Version::HTTP_11, Framing::None, true);
    let from = Pieces { input: Bytes::copy_from_slice(bytes), step, output: Vec::new() };
    let mut up = H1Outbound::new(from);
    up.begin(method.clone());
    let mut scratch = vec![0; step.max(1)];
    let whole = head(&mut up, &mut down, &mut scratch).is_some_and(|response| {
        down.respond(&response, false).is_ok() && body(&mut up, &mut down, &mut scratch)
    });
    // What was queued before it broke off arrives, too.
    let flushed = down.poll_flush(&mut Context::from_waker(Waker::noop()));
    debug_assert!(flushed.is_ready(), "memory takes everything");
    let reusable = whole && up.is_reusable() && up.stream.io.input.is_empty();
    Answered { bytes: down.stream.io.output, whole, reusable }
}

/// The response's head, the interim ones being handed on.
fn head(
    up: &mut H1Outbound<Pieces>,
    down: &mut H1Inbound<Pieces>,
    scratch: &mut [u8],
) -> Option<Response> {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let Poll::Ready(Ok(response)) = up.poll_head(&mut cx, scratch, LIMITS) else { return None };
        match response.status {
            // Nobody asked for them.
            StatusCode::CONTINUE => {}
            StatusCode::SWITCHING_PROTOCOLS => return None,
            status if status.is_informational() => down.interim(status, &response.headers),
            _ => return Some(response),
        }
    }
}

/// Hands the body on. Whether it is whole.
fn body(up: &mut H1Outbound<Pieces>, down: &mut H1Inbound<Pieces>, scratch: &mut [u8]) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let mut relay = Relay::new();
    loop {
        // Memory is always ready: it only lets others have their turn.
        if let Poll::Ready(done) = relay.poll(&mut cx, up, down, scratch) {
            return done.is_ok();
        }
    }
}

/// A connection in memory whose other side has sent everything and closed it.
#[derive(Debug, Default)]
struct Pieces {
    input: Bytes,
    /// Bytes of one read at most, and at least one.
    step: usize,
    output: Vec<u8>,
}

impl AsyncRead for Pieces {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let length = this.step.max(1).min(this.input.len()).min(buf.remaining());
        buf.put_slice(this.input.get(..length).unwrap_or_default());
        this.input.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
