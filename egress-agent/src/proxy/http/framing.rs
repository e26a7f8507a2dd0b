//! How a body ends.

use http::{HeaderMap, Method, StatusCode, Version, header};

use super::bad::BadMessage;

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
    let digits = value.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadMessage::ContentLength);
    }
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or(BadMessage::ContentLength)
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
    if headers.contains_key(header::CONTENT_LENGTH) {
        return Err(BadMessage::LengthAndEncoding);
    }
    Ok(true)
}

/// The framing of an HTTP/1 request.
///
/// # Errors
/// Where RFC 9112 §6.3 leaves a choice or asks for a repair.
pub(super) fn of_request(version: Version, headers: &HeaderMap) -> Result<Framing, BadMessage> {
    if chunked(version, headers)? {
        return Ok(Framing::Chunked);
    }
    Ok(content_length(headers)?.map_or(Framing::None, Framing::Length))
}

/// The framing of an HTTP/1 response to a `method` request.
///
/// # Errors
/// As for requests; bad framing is an error even where there is no body.
pub(super) fn of_response(
    version: Version,
    status: StatusCode,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Framing, BadMessage> {
    let chunked = chunked(version, headers)?;
    let length = content_length(headers)?;
    if has_no_body(status, method) {
        return Ok(Framing::None);
    }
    if chunked {
        return Ok(Framing::Chunked);
    }
    Ok(length.map_or(Framing::UntilClose, Framing::Length))
}

/// Whether a response never has a body (RFC 9110 §6.4.1).
pub(super) fn has_no_body(status: StatusCode, method: &Method) -> bool {
    method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}
