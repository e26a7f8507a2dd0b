//! How a body ends.

use http::{HeaderMap, Method, StatusCode, Version, header};

use super::bad::BadMessage;
use crate::telemetry::{Normalized, NormalizedKinds};

/// How the end of a message's body is known (RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// After this many bytes.
    Length(u64),
    /// By the last chunk; in HTTP/2 by END_STREAM.
    Chunked,
    /// By the end of the connection (responses only).
    UntilClose,
}

/// The one value of `Content-Length`.
///
/// # Errors
/// Anything but a single field of decimal digits: a list, a sign, a space inside, two fields even
/// if they agree, a number over 64 bits.
pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, BadMessage> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(BadMessage::ContentLength);
    }
    number(value.as_bytes()).map(Some)
}

/// The one value of an upstream's `Content-Length`, and whether it is there more than once, in one field or
/// in several (RFC 9110 §8.6).
///
/// # Errors
/// As for [`content_length`], or what is there more than once is not spelled in the same way.
fn repeated_length(headers: &HeaderMap) -> Result<Option<(u64, bool)>, BadMessage> {
    let fields = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut values = fields.flat_map(|field| field.as_bytes().split(|b| *b == b','));
    let Some(first) = values.next().map(<[u8]>::trim_ascii) else { return Ok(None) };
    let mut repeated = false;
    for value in values {
        if value.trim_ascii() != first {
            return Err(BadMessage::ContentLength);
        }
        repeated = true;
    }
    Ok(Some((number(first)?, repeated)))
}

/// A number of 64 bits in decimal digits.
fn number(digits: &[u8]) -> Result<u64, BadMessage> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadMessage::ContentLength);
    }
    let text = std::str::from_utf8(digits).ok();
    text.and_then(|text| text.parse().ok()).ok_or(BadMessage::ContentLength)
}

/// Whether the body is chunked.
fn chunked(version: Version, headers: &HeaderMap) -> Result<bool, BadMessage> {
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(false) };
    if version != Version::HTTP_11 {
        return Err(BadMessage::EncodingInHttp10);
    }
    if values.next().is_some() || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(BadMessage::TransferEncoding);
    }
    Ok(true)
}

/// The framing of an HTTP/1 request.
///
/// # Errors
/// Where RFC 9112 §6.3 leaves a choice or asks for a repair.
pub(super) fn of_request(version: Version, headers: &HeaderMap) -> Result<Framing, BadMessage> {
    if chunked(version, headers)? {
        let both = headers.contains_key(header::CONTENT_LENGTH);
        return if both { Err(BadMessage::LengthAndEncoding) } else { Ok(Framing::Chunked) };
    }
    Ok(content_length(headers)?.map_or(Framing::None, Framing::Length))
}

/// The framing of an HTTP/1 response to a `method` request, and the length that it states. What has one meaning
/// is put right and noted: lengths that agree, and a length beside chunks, which chunks override (RFC 9112 §6.3).
///
/// # Errors
/// Framing that could be read in two ways; also where there is no body.
pub(super) fn of_response(
    version: Version,
    status: StatusCode,
    method: &Method,
    headers: &HeaderMap,
    normalized: &mut NormalizedKinds,
) -> Result<(Framing, Option<u64>), BadMessage> {
    let chunked = chunked(version, headers)?;
    let mut length = None;
    if let Some((value, repeated)) = repeated_length(headers)? {
        if repeated {
            normalized.insert(Normalized::RepeatedLength);
        }
        if chunked {
            normalized.insert(Normalized::LengthAndEncoding);
        } else {
            length = Some(value);
        }
    }
    let framing = match length {
        _ if has_no_body(status, method) => Framing::None,
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    };
    Ok((framing, length))
}

/// Whether a response never has a body (RFC 9110 §6.4.1).
pub(super) fn has_no_body(status: StatusCode, method: &Method) -> bool {
    method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}
