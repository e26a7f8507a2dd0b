//! A response in the one form that is sent on, whatever version it came in.

use http::{HeaderValue, Method, StatusCode, Version, header};

use super::{
    bad::BadMessage,
    framing::{self, Framing},
    h1::ResponseHead,
    headers::{self, HopByHopFields},
    spare_buffers::Headers,
};
use crate::telemetry::{Normalized, NormalizedKinds};

/// A response's head; its headers are end-to-end ones only, without framing.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: Headers,
    pub(super) framing: Framing,
    /// The length that is stated although there is no body (HEAD, 304).
    pub(super) length: Option<u64>,
    /// The upstream keeps the connection.
    pub(super) keep_alive: bool,
    /// The protocol that a `101` switches to.
    pub(super) upgrade: Option<HeaderValue>,
    /// What of the head was put right.
    pub(super) normalized: NormalizedKinds,
}

impl Response {
    /// From an HTTP/1 head in answer to a `method` request.
    ///
    /// # Errors
    /// Framing that could be read in two ways.
    pub(super) fn from_h1(head: ResponseHead, method: &Method) -> Result<Self, BadMessage> {
        let ResponseHead { status, version, mut headers, mut normalized } = head;
        let (framing, length) =
            framing::of_response(version, status, method, &headers, &mut normalized)?;
        let length = stated_length(status, framing, length);
        let HopByHopFields { close, keep_alive, upgrade } = headers::take_hop_by_hop(&mut headers);
        headers.remove(header::CONTENT_LENGTH);
        Ok(Self {
            status,
            headers,
            framing,
            length,
            keep_alive: !close
                && (version == Version::HTTP_11 || keep_alive)
                && framing != Framing::UntilClose
                && !normalized.iter().any(ends_connection),
            upgrade,
            normalized,
        })
    }

    /// From an HTTP/2 head; `ended` if END_STREAM came with it.
    ///
    /// # Errors
    /// As above.
    pub(super) fn from_h2(
        parts: http::response::Parts,
        ended: bool,
        method: &Method,
    ) -> Result<Self, BadMessage> {
        let http::response::Parts { status, mut headers, .. } = parts;
        let length = framing::content_length(&headers)?;
        let framing = match length {
            _ if framing::has_no_body(status, method) => Framing::None,
            Some(length) => Framing::Length(length),
            None if ended => Framing::Length(0),
            None => Framing::Chunked,
        };
        let length = stated_length(status, framing, length);
        headers::take_hop_by_hop(&mut headers);
        headers.remove(header::CONTENT_LENGTH);
        Ok(Self {
            status,
            headers: headers.into(),
            framing,
            length,
            keep_alive: true,
            upgrade: None,
            normalized: NormalizedKinds::default(),
        })
    }

    /// The gateway's own answer, of one line of text.
    pub(super) fn text(status: StatusCode, length: u64) -> Self {
        let mut headers = Headers::with_room(4);
        if length > 0 {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        Self {
            status,
            headers,
            framing: Framing::Length(length),
            length: Some(length),
            keep_alive: true,
            upgrade: None,
            normalized: NormalizedKinds::default(),
        }
    }
}

/// Whether what was put right leaves a doubt about where the response ends in the eyes of its sender: its
/// connection is not used again, so that what comes after it is never taken for another response.
fn ends_connection(kind: Normalized) -> bool {
    match kind {
        Normalized::BareLf | Normalized::LengthAndEncoding => true,
        Normalized::ChunkBlanks
        | Normalized::ChunkExtension
        | Normalized::Trailer
        | Normalized::FoldedHeader
        | Normalized::HeaderBlanks
        | Normalized::StatusBlanks
        | Normalized::RepeatedLength
        | Normalized::NoCloseNotify => false,
    }
}

/// The length that is stated where there is no body. A `204` never states one (RFC 9110 §8.6).
fn stated_length(status: StatusCode, framing: Framing, length: Option<u64>) -> Option<u64> {
    match framing {
        Framing::None if status != StatusCode::NO_CONTENT && !status.is_informational() => length,
        Framing::None | Framing::Length(_) | Framing::Chunked | Framing::UntilClose => None,
    }
}
