//! Heads of HTTP/1 messages: found, tokenised by `httparse`, and held to the strict grammar.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use std::mem::MaybeUninit;

use super::{
    super::{bad::BadMessage, spare_buffers::Headers},
    names,
    sender::Sender,
};
use crate::{
    policy::is_claim,
    telemetry::{Normalized, NormalizedKinds},
};

/// Headers of a head for which no memory is asked for.
const USUAL_HEADERS: usize = 128;

/// Sizes that a head must keep.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct HeadLimits {
    /// Bytes, the empty line included.
    pub(in super::super) bytes: usize,
    /// Header fields.
    pub(in super::super) headers: usize,
}

/// Looks for the empty line, without looking at any byte twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in super::super) struct EndOfHead {
    seen: usize,
    /// The first line ended with LF alone.
    bare: bool,
}

impl EndOfHead {
    /// The head's length with its empty line, or `None` while it is incomplete. `buf` is what was
    /// read so far, the bytes of earlier calls included.
    ///
    /// The lines of an upstream's head may end with LF alone from the status line on: whoever wants CR LF
    /// finds no status line there. Later, a LF alone may be one that got into a value: some end the line there
    /// and others do not.
    ///
    /// # Errors
    /// A bare line feed elsewhere, an empty first line, or more than `limit` bytes.
    pub(in super::super) fn find(
        &mut self,
        buf: &[u8],
        limit: usize,
        from: Sender,
    ) -> Result<Option<usize>, BadMessage> {
        let seen = self.seen;
        let fresh = buf.get(seen..).unwrap_or_default();
        for at in memchr::memchr_iter(b'\n', fresh).map(|at| at + seen) {
            match buf.get(..at).unwrap_or_default() {
                [.., b'\r', b'\n', b'\r'] if at < limit => return Ok(Some(at + 1)),
                [.., b'\n'] | [.., b'\n', b'\r'] if self.bare && at < limit => {
                    return Ok(Some(at + 1));
                }
                [b'\r'] => return Err(BadMessage::Syntax(httparse::Error::Token)),
                [.., b'\r'] => {}
                line => self.bare_line_feed(line, from)?,
            }
        }
        self.seen = buf.len();
        if buf.len() >= limit { Err(BadMessage::HeadTooLarge { limit }) } else { Ok(None) }
    }

    fn bare_line_feed(&mut self, before: &[u8], from: Sender) -> Result<(), BadMessage> {
        let is_first = || !before.is_empty() && memchr::memchr(b'\n', before).is_none();
        match from {
            Sender::Upstream if self.bare || is_first() => self.bare = true,
            Sender::Client | Sender::Upstream => return Err(BadMessage::LineEnding),
        }
        Ok(())
    }
}

/// A request's head, as sent.
#[derive(Debug)]
pub(in super::super) struct RequestHead {
    pub(in super::super) method: Method,
    /// Visible ASCII, in one of the forms of RFC 9112 §3.2.
    pub(in super::super) target: Bytes,
    pub(in super::super) version: Version,
    pub(in super::super) headers: Headers,
    /// All of it.
    pub(in super::super) head: Bytes,
}

/// A response's head, as sent.
#[derive(Debug)]
pub(in super::super) struct ResponseHead {
    pub(in super::super) status: StatusCode,
    pub(in super::super) version: Version,
    pub(in super::super) headers: Headers,
    /// What was put right.
    pub(in super::super) normalized: NormalizedKinds,
}

/// Parses a whole request head, the empty line included.
///
/// # Errors
/// [`BadMessage`]; framing and host are judged later.
pub(in super::super) fn parse_request(
    head: &Bytes,
    limits: HeadLimits,
) -> Result<RequestHead, BadMessage> {
    with_fields(limits, |fields| {
        let mut parsed = httparse::Request::new(&mut []);
        let done = parsed.parse_with_uninit_headers(head, fields).map_err(|e| syntax(e, limits))?;
        let (Some(method), Some(target), Some(version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(BadMessage::Syntax(httparse::Error::Token));
        };
        if done != httparse::Status::Complete(head.len()) {
            return Err(BadMessage::Syntax(httparse::Error::NewLine));
        }
        // A fragment never belongs in a target (RFC 9112 §3.2); what isn't ASCII no URI.
        if target.bytes().any(|b| !b.is_ascii_graphic() || b == b'#') {
            return Err(BadMessage::Target);
        }
        Ok(RequestHead {
            method: Method::from_bytes(method.as_bytes())
                .map_err(|_| BadMessage::Syntax(httparse::Error::Token))?,
            target: head.slice_ref(target.as_bytes()),
            version: version_of(version),
            headers: header_map(head, parsed.headers, limits)?,
            head: head.clone(),
        })
    })
}

/// Parses a whole response head, the empty line included.
///
/// # Errors
/// [`BadMessage`]; framing is judged later.
pub(in super::super) fn parse_response(
    head: &Bytes,
    limits: HeadLimits,
) -> Result<ResponseHead, BadMessage> {
    let mut normalized = NormalizedKinds::default();
    if has_folds(head)? {
        normalized.insert(Normalized::FoldedHeader);
    }
    let first = head.split(|b| *b == b'\n').next().unwrap_or_default();
    if !first.ends_with(b"\r") {
        normalized.insert(Normalized::BareLf);
    }
    if head.get(STATUS_AT) == Some(&b' ') {
        normalized.insert(Normalized::StatusBlanks);
    }
    let mut config = httparse::ParserConfig::default();
    config.allow_multiple_spaces_in_response_status_delimiters(true);
    config.allow_obsolete_multiline_headers_in_responses(true);
    config.allow_spaces_after_header_name_in_responses(true);
    with_fields(limits, |fields| {
        let mut parsed = httparse::Response::new(&mut []);
        let done = config
            .parse_response_with_uninit_headers(&mut parsed, head, fields)
            .map_err(|error| syntax(error, limits))?;
        let (Some(code), Some(version)) = (parsed.code, parsed.version) else {
            return Err(BadMessage::Syntax(httparse::Error::Status));
        };
        if done != httparse::Status::Complete(head.len()) {
            return Err(BadMessage::Syntax(httparse::Error::NewLine));
        }
        if has_blanks(head, parsed.headers)? {
            normalized.insert(Normalized::HeaderBlanks);
        }
        Ok(ResponseHead {
            status: StatusCode::from_u16(code)
                .map_err(|_| BadMessage::Syntax(httparse::Error::Status))?,
            version: version_of(version),
            headers: header_map(head, parsed.headers, limits)?,
            normalized,
        })
    })
}

/// Calls `parse` with room for the usual number of headers, and where there are more, with room for as many
/// as there may be.
fn with_fields<'b, T>(
    limits: HeadLimits,
    mut parse: impl FnMut(&mut [MaybeUninit<httparse::Header<'b>>]) -> Result<T, BadMessage>,
) -> Result<T, BadMessage> {
    let mut usual = [const { MaybeUninit::uninit() }; USUAL_HEADERS];
    let parsed = parse(&mut usual);
    if limits.headers > USUAL_HEADERS && matches!(parsed, Err(BadMessage::TooManyHeaders { .. })) {
        let mut many = Vec::new();
        many.resize_with(limits.headers, MaybeUninit::uninit);
        return parse(&mut many);
    }
    parsed
}

/// Where the status code is: behind the version and one blank.
const STATUS_AT: usize = "HTTP/1.1 ".len();

/// Fields that frame or route: what is odd about one is never put right, because others do not know it for one.
const FRAMING: [&[u8]; 5] =
    [b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"host"];

fn is_framing(name: &[u8]) -> bool {
    FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name))
}

/// Whether blanks stand between a header's name and its colon (RFC 9112 §5.1).
///
/// # Errors
/// It is one that frames or routes: many readers, curl for one, know no such name.
fn has_blanks(head: &[u8], fields: &[httparse::Header<'_>]) -> Result<bool, BadMessage> {
    let mut blanks = false;
    for field in fields {
        let end = field.name.as_ptr().addr() - head.as_ptr().addr() + field.name.len();
        if head.get(end) != Some(&b':') {
            if is_framing(field.name.as_bytes()) {
                return Err(BadMessage::Syntax(httparse::Error::HeaderName));
            }
            blanks = true;
        }
    }
    Ok(blanks)
}

/// Whether a header goes over several lines (RFC 9112 §5.2).
///
/// # Errors
/// It is one that frames or routes: what it says is never guessed at.
fn has_folds(head: &[u8]) -> Result<bool, BadMessage> {
    if !head.windows(2).any(|pair| matches!(pair, b"\n " | b"\n\t")) {
        return Ok(false);
    }
    let mut name: &[u8] = b"";
    for line in head.split(|b| *b == b'\n') {
        match line {
            [b' ' | b'\t', ..] if is_framing(name) => {
                return Err(BadMessage::Syntax(httparse::Error::HeaderValue));
            }
            [b' ' | b'\t', ..] => {}
            line => name = line.split(|b| *b == b':').next().unwrap_or_default().trim_ascii(),
        }
    }
    Ok(true)
}

/// Whether the value's lines are to be joined.
fn is_folded(value: &[u8]) -> bool {
    memchr::memchr2(b'\r', b'\n', value).is_some()
}

/// The value in one line.
fn unfold(value: &[u8]) -> Result<HeaderValue, BadMessage> {
    let lines = value.split(|b| matches!(b, b'\r' | b'\n')).map(<[u8]>::trim_ascii);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    HeaderValue::from_bytes(&lines.join(&b' '))
        .map_err(|_| BadMessage::Syntax(httparse::Error::HeaderValue))
}

/// Parses a trailer section, the empty line included. Fields that frame, route or authenticate a
/// message don't belong there (RFC 9110 §6.5.1); an upstream's are left out and counted.
///
/// # Errors
/// [`BadMessage::Trailers`] or bad syntax.
pub(in super::super) fn parse_trailers(
    section: &Bytes,
    limits: HeadLimits,
    from: Sender,
) -> Result<(HeaderMap, bool), BadMessage> {
    let mut fields = [httparse::EMPTY_HEADER; USUAL_HEADERS];
    let parsed = httparse::parse_headers(section, &mut fields);
    let most = HeadLimits { headers: limits.headers.min(USUAL_HEADERS), ..limits };
    let headers = match parsed.map_err(|error| syntax(error, most))? {
        httparse::Status::Complete((length, headers)) if length == section.len() => headers,
        httparse::Status::Complete(_) | httparse::Status::Partial => {
            return Err(BadMessage::Trailers);
        }
    };
    let fields = header_map(section, headers, limits).map_err(|_| BadMessage::Trailers)?;
    let mut map = HeaderMap::clone(&fields);
    let claims: Vec<_> = map.keys().filter(|name| is_claim(name)).cloned().collect();
    for name in claims {
        map.remove(name);
    }
    let forbidden: Vec<_> = map.keys().filter(|name| is_forbidden_trailer(name)).cloned().collect();
    match from {
        Sender::Client if !forbidden.is_empty() => return Err(BadMessage::Trailers),
        Sender::Client | Sender::Upstream => {}
    }
    for name in &forbidden {
        map.remove(name);
    }
    Ok((map, !forbidden.is_empty()))
}

/// Whether a field must not be a trailer.
pub(in super::super) fn is_forbidden_trailer(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-length"
            | "transfer-encoding"
            | "host"
            | "connection"
            | "upgrade"
            | "te"
            | "trailer"
            | "content-encoding"
            | "content-type"
            | "content-range"
            | "authorization"
            | "cookie"
            | "set-cookie"
            | "expect"
    )
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn syntax(error: httparse::Error, limits: HeadLimits) -> BadMessage {
    match error {
        httparse::Error::TooManyHeaders => BadMessage::TooManyHeaders { limit: limits.headers },
        httparse::Error::Version => BadMessage::Version,
        error => BadMessage::Syntax(error),
    }
}

fn version_of(minor: u8) -> Version {
    if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 }
}

/// The values share `head`: nothing but the map itself is allocated.
fn header_map(
    head: &Bytes,
    fields: &[httparse::Header<'_>],
    limits: HeadLimits,
) -> Result<Headers, BadMessage> {
    if fields.len() > limits.headers {
        return Err(BadMessage::TooManyHeaders { limit: limits.headers });
    }
    let mut map = Headers::with_room(fields.len() + 4);
    for field in fields {
        let name = names::name(field.name.as_bytes())
            .map_err(|_| BadMessage::Syntax(httparse::Error::HeaderName))?;
        let value = if field.value.is_empty() {
            HeaderValue::from_static("")
        } else if is_folded(field.value) {
            unfold(field.value)?
        } else {
            HeaderValue::from_maybe_shared(head.slice_ref(field.value))
                .map_err(|_| BadMessage::Syntax(httparse::Error::HeaderValue))?
        };
        map.append(name, value);
    }
    Ok(map)
}

#[cfg(test)]
mod tests;
