//! Messages that can't be read, or could be read in two ways: they are refused. What an upstream says against the
//! standard in one way only is put right instead ([`crate::telemetry::Normalized`]).

use http::StatusCode;
use thiserror::Error;

/// What is wrong with a message. Whose fault it is depends on who sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum BadMessage {
    /// A line feed without carriage return.
    #[error("a line of the message does not end with CR LF")]
    LineEnding,
    /// Not HTTP's grammar.
    #[error("malformed message head: {0}")]
    Syntax(httparse::Error),
    /// The head's size.
    #[error("the message head is larger than {limit} bytes")]
    HeadTooLarge { limit: usize },
    /// The number of headers.
    #[error("the message has more than {limit} headers")]
    TooManyHeaders { limit: usize },
    /// Neither 1.0 nor 1.1.
    #[error("HTTP version not supported: expected HTTP/1.0 or HTTP/1.1")]
    Version,
    /// The request target is none of the forms of RFC 9112 §3.2.
    #[error("invalid request target")]
    Target,
    /// An absolute target of another scheme than the connection's.
    #[error("the request target names another scheme than the connection carries")]
    Scheme,
    /// `Content-Length` isn't one plain number.
    #[error("Content-Length is given more than once or is not a plain decimal number")]
    ContentLength,
    /// `Content-Length` and `Transfer-Encoding`.
    #[error("Content-Length and Transfer-Encoding together")]
    LengthAndEncoding,
    /// `Transfer-Encoding` isn't `chunked`.
    #[error("Transfer-Encoding is given more than once or is not exactly `chunked`")]
    TransferEncoding,
    /// `Transfer-Encoding` in HTTP/1.0 (RFC 9112 §6.1).
    #[error("Transfer-Encoding in an HTTP/1.0 message")]
    EncodingInHttp10,
    /// No `Host`, or an empty one.
    #[error("the request names no host")]
    NoHost,
    /// `Host` twice.
    #[error("more than one Host header")]
    DuplicateHost,
    /// User information, bad characters, an empty port.
    #[error("the request's host is not a valid host name or address with an optional port")]
    Authority,
    /// Absolute target or `:authority` against `Host`.
    #[error("the request target and the Host header name different hosts")]
    HostContradiction,
    /// `Host`'s port isn't the one that was dialled.
    #[error("the request's host names another port than the one that was dialled")]
    PortContradiction,
    /// An expectation other than `100-continue`.
    #[error("unknown expectation: only `100-continue` can be met")]
    Expectation,
    /// The chunk's size isn't 1 to 16 hexadecimal digits.
    #[error("invalid chunk size")]
    ChunkSize,
    /// A chunk extension with control characters, or too long.
    #[error("invalid or too long chunk extension")]
    ChunkExtension,
    /// No CR LF after a chunk.
    #[error("a chunk does not end with CR LF")]
    ChunkEnd,
    /// A trailer that frames or routes, or too many of them.
    #[error("invalid, forbidden or too many trailers")]
    Trailers,
    /// A `101` that nobody asked for.
    #[error("it switches to another protocol without being asked")]
    Switch,
    /// The size of the interim responses (1xx) to one request.
    #[error("its interim responses are larger than {limit} bytes together")]
    Interim { limit: usize },
    /// A header field that HTTP/2 does not know, or a missing pseudo-header.
    #[error("header field not allowed in HTTP/2")]
    Http2Field,
    /// A request that the library took for none, and reset.
    #[error("malformed HTTP/2 request: its target, pseudo-headers, headers or length")]
    Http2Malformed,
    /// A body that the library did not take, and reset.
    #[error(
        "malformed HTTP/2 request: its body has another length than announced, or its frames are wrong"
    )]
    Http2Body,
    /// A head of many times the size that is allowed, for which the library ends the connection.
    #[error(
        "the message head is far larger than {limit} bytes, so its HTTP/2 connection was closed"
    )]
    Http2HugeHead { limit: usize },
    /// The same of a head in many small frames.
    #[error(
        "the message head came in too many CONTINUATION frames, so its HTTP/2 connection was closed"
    )]
    Http2Continuations,
    /// More than the library puts up with.
    #[error("too many resets or small frames, so the HTTP/2 connection was closed")]
    Http2Flood,
    /// A violation that ends the connection.
    #[error("the HTTP/2 connection was closed for a violation of its protocol: {0}")]
    Http2Connection(h2::Reason),
    /// A response that the library took for none.
    #[error("malformed HTTP/2 response: its status, pseudo-headers or length")]
    Http2Response,
}

impl BadMessage {
    /// The status of the answer, if a client sent it; `None` where nothing can be answered, because the
    /// HTTP/2 library has reset the stream or ended the connection.
    pub(super) fn status(self) -> Option<StatusCode> {
        Some(match self {
            Self::HeadTooLarge { .. }
            | Self::TooManyHeaders { .. }
            | Self::Syntax(httparse::Error::TooManyHeaders) => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::LineEnding
            | Self::Syntax(_)
            | Self::Target
            | Self::Scheme
            | Self::ContentLength
            | Self::LengthAndEncoding
            | Self::TransferEncoding
            | Self::EncodingInHttp10
            | Self::NoHost
            | Self::DuplicateHost
            | Self::Authority
            | Self::HostContradiction
            | Self::PortContradiction
            | Self::ChunkSize
            | Self::ChunkExtension
            | Self::ChunkEnd
            | Self::Trailers
            | Self::Switch
            | Self::Interim { .. }
            | Self::Http2Field
            | Self::Http2Response => StatusCode::BAD_REQUEST,
            Self::Http2Malformed
            | Self::Http2Body
            | Self::Http2HugeHead { .. }
            | Self::Http2Continuations
            | Self::Http2Flood
            | Self::Http2Connection(_) => return None,
        })
    }

    /// In Envoy's words, for the access log.
    pub(super) fn details(self) -> &'static str {
        match self {
            Self::HeadTooLarge { .. }
            | Self::TooManyHeaders { .. }
            | Self::Syntax(httparse::Error::TooManyHeaders)
            | Self::Http2HugeHead { .. } => "request_headers_too_large",
            Self::NoHost => "missing_host_header",
            Self::LineEnding
            | Self::Syntax(_)
            | Self::Version
            | Self::Target
            | Self::Scheme
            | Self::ContentLength
            | Self::LengthAndEncoding
            | Self::TransferEncoding
            | Self::EncodingInHttp10
            | Self::DuplicateHost
            | Self::Authority
            | Self::HostContradiction
            | Self::PortContradiction
            | Self::Expectation
            | Self::ChunkSize
            | Self::ChunkExtension
            | Self::ChunkEnd
            | Self::Trailers
            | Self::Switch
            | Self::Interim { .. } => "http1.codec_error",
            Self::Http2Field | Self::Http2Malformed | Self::Http2Body | Self::Http2Response => {
                "http2.violation.of.messaging.rule"
            }
            Self::Http2Continuations => "http2.too_many_continuations",
            Self::Http2Flood => "http2.inbound_flood",
            Self::Http2Connection(_) => "http2.protocol_violation",
        }
    }
}
