//! gRPC, as far as the gateway's own answers speak it. They are those of Envoy's local replies: status
//! 200, and gRPC's own status and message in the head, which is the response's end as well.

use http::{HeaderMap, HeaderValue, StatusCode, header};

/// `application/grpc`.
pub(super) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// The header or trailer with gRPC's status.
pub(super) const STATUS: &str = "grpc-status";
/// The header with the sentence about it.
pub(super) const MESSAGE: &str = "grpc-message";

/// Whether a message with these headers is gRPC, in whatever version of HTTP.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The status that stands for one of HTTP (`doc/http-grpc-status-mapping.md` of grpc/grpc). A time-out
/// is UNAVAILABLE too.
pub(super) fn of_http(status: StatusCode) -> u8 {
    match status.as_u16() {
        // INTERNAL
        400 => 13,
        // UNAUTHENTICATED
        401 => 16,
        // PERMISSION_DENIED
        403 => 7,
        // UNIMPLEMENTED
        404 => 12,
        // UNAVAILABLE
        429 | 502..=504 => 14,
        // UNKNOWN
        _ => 2,
    }
}

/// The status in a head or in trailers.
pub(super) fn status(headers: &HeaderMap) -> Option<u8> {
    headers.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// A sentence as `grpc-message` holds it: percent-encoded but for visible ASCII and blanks (`Percent-Encoded`
/// in `doc/PROTOCOL-HTTP2.md` of grpc/grpc).
pub(super) fn message(text: &[u8]) -> Option<HeaderValue> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(text.len());
    for byte in text.trim_ascii_end() {
        match byte {
            b'%' | 0..b' ' | 0x7f.. => {
                let digit = |half: u8| HEX.get(usize::from(half)).copied().unwrap_or(b'0');
                encoded.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
            }
            byte => encoded.push(*byte),
        }
    }
    HeaderValue::from_bytes(&encoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_header_holds_is_encoded() {
        for (text, expected) in [
            ("a b~", "a b~"),
            ("50% of\nthem\n", "50%25 of%0Athem"),
            ("Zürich", "Z%C3%BCrich"),
            ("\u{7f}\t", "%7F"),
            ("", ""),
        ] {
            assert_eq!(message(text.as_bytes()).unwrap(), expected);
        }
    }

    #[test]
    fn other_kinds_of_content_are_not_grpc() {
        let asks = |kind: &'static str| {
            let value = HeaderValue::from_static(kind);
            is_grpc(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)]))
        };
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc; a=b"] {
            assert!(asks(kind), "{kind}");
        }
        for kind in ["application/grpc-web", "application/json", "text/application/grpc", ""] {
            assert!(!asks(kind), "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
