//! A client's HTTP/1 bytes as an upstream would get them, without I/O and without a policy: so that what
//! must hold of any bytes can be tried on any bytes.

use bytes::Bytes;
use http::Method;

use super::{
    h1::{self, Decoder, HeadLimits, Sender, Step},
    request::{Origin, Request},
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
