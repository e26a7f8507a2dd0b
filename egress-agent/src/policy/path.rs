//! One spelling for each path: normalisation as Istio's `pathNormalization` defines it, and the
//! comparison of a path with a rule.
//!
//! A rule is written for the resource that a server finds behind a path, and servers read one text
//! in several ways. Three answers to that:
//! - spellings that every server reads alike (`/%61` and `/a`, `%C3` and `%c3`) are compared as one;
//! - spellings that some servers read otherwise and others take as they are (`//`, `;parameters`)
//!   are compared in all their readings, which must agree;
//! - spellings that have no meaning but to be read twice (encoded slashes, double encoding, dot
//!   segments that survive normalisation, NUL, overlong UTF-8, broken escapes) are ambiguous.

use std::borrow::Cow;

use super::TextMatch;

/// `pathNormalization.normalization` of Istio's mesh configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PathNormalization {
    /// The path stays as it was received.
    None,
    /// RFC 3986 §6.2.2: escapes of unreserved characters are decoded, dot segments are resolved.
    /// Backslashes become slashes.
    #[default]
    Base,
    /// Besides, repeated slashes become one.
    MergeSlashes,
    /// Besides, encoded slashes and backslashes are decoded first.
    DecodeAndMergeSlashes,
}

/// A path that two servers could read as two different ones, so no condition on it can be decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AmbiguousPath;

/// The normal form of a path with its query, where it differs. The query is never touched.
///
/// A path with a broken escape stays as it is: decoding what is around the broken part could make a
/// new escape of it.
#[must_use]
pub fn normalise(path_and_query: &str, how: PathNormalization) -> Option<String> {
    let (decode_slashes, merge) = match how {
        PathNormalization::None => return None,
        PathNormalization::Base => (false, false),
        PathNormalization::MergeSlashes => (false, true),
        PathNormalization::DecodeAndMergeSlashes => (true, true),
    };
    let (path, query) = split_query(path_and_query);
    if !path.starts_with('/') || escapes(path).any(|(_, code)| code.is_none()) {
        return None;
    }
    let decoded = recode(path, |byte| {
        is_unreserved(byte) || (decode_slashes && matches!(byte, b'/' | b'\\'))
    });
    let slashes = if decoded.contains('\\') { decoded.replace('\\', "/").into() } else { decoded };
    let resolved = without_dot_segments(slashes);
    let merged = if merge { merged_slashes(resolved) } else { resolved };
    (*merged != *path).then(|| match query {
        Some(query) => format!("{merged}?{query}"),
        None => merged.into_owned(),
    })
}

/// Path and query, the query without its `?`.
pub(super) fn split_query(path_and_query: &str) -> (&str, Option<&str>) {
    match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    }
}

/// Whether the path is as wanted, whatever server reads it.
///
/// # Errors
/// [`AmbiguousPath`]: servers would disagree.
pub(super) fn matches(
    wanted: &TextMatch,
    path: &str,
    ignore_case: bool,
) -> Result<bool, AmbiguousPath> {
    check(path)?;
    let holds = |path: &str| reading_matches(wanted, path, ignore_case);
    let first = holds(path)?;
    // Java's servers drop parameters of segments, most servers merge slashes.
    let bare = without_parameters(path);
    let others = [
        path.contains("//").then(|| merged_slashes(path.into())),
        bare.as_deref().map(Cow::Borrowed),
        bare.as_deref().map(|bare| merged_slashes(bare.into())),
    ];
    for other in others.into_iter().flatten() {
        if holds(&other)? != first {
            return Err(AmbiguousPath);
        }
    }
    Ok(first)
}

/// Refuses a path that has no single meaning, whatever it is compared with.
///
/// # Errors
/// [`AmbiguousPath`].
pub(super) fn check(path: &str) -> Result<(), AmbiguousPath> {
    if is_ambiguous(path) { Err(AmbiguousPath) } else { Ok(()) }
}

fn is_ambiguous(path: &str) -> bool {
    // `*` has no segments; nothing else begins without a slash.
    if !path.starts_with('/') {
        return path != "*";
    }
    let mut bytes = path.as_bytes();
    let decoded;
    if path.contains('%') {
        if escapes(path).any(|(_, code)| matches!(code, None | Some(0 | b'/' | b'\\'))) {
            return true;
        }
        decoded = decode_all(path);
        bytes = &decoded;
    }
    is_encoded(bytes) || bytes.contains(&b'\\') || is_overlong(bytes) || has_dot_segment(bytes)
}

/// Whether a segment is `.` or `..`, its parameters aside.
fn has_dot_segment(decoded: &[u8]) -> bool {
    decoded.split(|b| *b == b'/').any(|segment| {
        let name = segment.split(|b| *b == b';').next().unwrap_or_default();
        matches!(name, b"." | b"..")
    })
}

/// Whether a path that was put together climbs out of what it was put into.
pub(super) fn climbs(path: &str) -> bool {
    has_dot_segment(&decode_all(&path.replace('\\', "/")))
}

/// Whether what was decoded once could be decoded again.
fn is_encoded(decoded: &[u8]) -> bool {
    decoded
        .windows(3)
        .any(|code| matches!(code, [b'%', a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

/// Bytes that a lenient decoder takes for a character that they must not stand for (RFC 3629 §3).
fn is_overlong(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| {
        matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f])
    })
}

/// One reading of a path against a condition, in every encoding that means the same.
fn reading_matches(
    wanted: &TextMatch,
    path: &str,
    ignore_case: bool,
) -> Result<bool, AmbiguousPath> {
    let cased = |text: Cow<'_, str>| -> String {
        let text = text.into_owned();
        if ignore_case { text.to_ascii_lowercase() } else { text }
    };
    // The usual path and rule have one spelling.
    let plain = !ignore_case && is_canonical(path);
    match wanted {
        TextMatch::Present => Ok(true),
        TextMatch::Exact(exact) | TextMatch::Prefix(exact) if plain && is_canonical(exact) => {
            Ok(wanted.matches(path))
        }
        TextMatch::Exact(exact) => Ok(cased(canonical(path)) == cased(canonical(exact))),
        TextMatch::Prefix(prefix) => {
            Ok(cased(canonical(path)).starts_with(&cased(canonical(prefix))))
        }
        TextMatch::Regex(regex) => {
            // Istio's `ignoreUriCase` is not for expressions, which say so themselves.
            let holds = regex.is_match(path);
            if is_canonical(path) {
                return Ok(holds);
            }
            // Who writes `%` means the encoded text.
            let decoded = if regex.as_str().contains('%') { None } else { Some(readable(path)) };
            let others = [Some(canonical(path)), decoded];
            let agree = others.into_iter().flatten().all(|other| regex.is_match(&other) == holds);
            if agree { Ok(holds) } else { Err(AmbiguousPath) }
        }
    }
}

/// The rest of a path behind a prefix that it matched, in the path's own spelling if it can be.
pub(super) fn after_prefix(path: &str, prefix: &str, ignore_case: bool) -> String {
    let same = |text: &str, prefix: &str| match text.get(..prefix.len()) {
        Some(start) if ignore_case => start.eq_ignore_ascii_case(prefix),
        Some(start) => start == prefix,
        None => false,
    };
    if same(path, prefix) {
        return path.get(prefix.len()..).unwrap_or_default().to_owned();
    }
    let prefix = canonical(prefix);
    canonical(path).get(prefix.len()..).unwrap_or_default().to_owned()
}

/// Characters that mean the same encoded and not (RFC 3986 §2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Characters that a path may hold as they are (RFC 3986 §3.3), without `;`, which begins a
/// parameter only where it isn't encoded.
fn is_literal(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b'='
                | b':'
                | b'@'
        )
}

fn is_canonical(text: &str) -> bool {
    text.bytes().all(|byte| is_literal(byte) || byte == b';')
}

/// The one spelling of a text in which each character is encoded exactly if a path can't hold it.
fn canonical(text: &str) -> Cow<'_, str> {
    if is_canonical(text) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at).copied() {
        let code = code_at(bytes, at).filter(|_| byte == b'%');
        at += if code.is_some() { 3 } else { 1 };
        match code {
            Some(code) if code != b'/' && is_literal(code) => out.push(char::from(code)),
            Some(code) => escape(code, &mut out),
            None if is_literal(byte) || matches!(byte, b';' | b'%') => out.push(char::from(byte)),
            None => escape(byte, &mut out),
        }
    }
    Cow::Owned(out)
}

/// The spelling that a person would read: all printable ASCII decoded, but what would change the
/// structure.
fn readable(text: &str) -> Cow<'_, str> {
    recode(text, |byte| {
        matches!(byte, b' '..=b'~') && !matches!(byte, b'/' | b'\\' | b'%' | b'?' | b'#' | b';')
    })
}

fn escape(byte: u8, out: &mut String) {
    const HEX: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    out.push('%');
    for digit in [byte >> 4, byte & 15] {
        out.push(HEX.get(usize::from(digit)).copied().unwrap_or('0'));
    }
}

/// Every `%` with the byte that it stands for; `None` where no two hexadecimal digits follow.
fn escapes(text: &str) -> impl Iterator<Item = (usize, Option<u8>)> {
    text.match_indices('%').map(|(at, _)| (at, code_at(text.as_bytes(), at)))
}

fn code_at(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let value = (digit(at + 1)? << 4) | digit(at + 2)?;
    u8::try_from(value).ok()
}

/// Decodes the escapes of ASCII bytes that `wanted` names, once.
fn recode(text: &str, wanted: impl Fn(u8) -> bool) -> Cow<'_, str> {
    let mut out: Option<String> = None;
    let mut done = 0;
    for (at, code) in escapes(text) {
        let Some(code) = code.filter(|code| code.is_ascii() && wanted(*code)) else { continue };
        let out = out.get_or_insert_with(|| String::with_capacity(text.len()));
        out.push_str(text.get(done..at).unwrap_or_default());
        out.push(char::from(code));
        done = at + 3;
    }
    match out {
        None => Cow::Borrowed(text),
        Some(mut out) => {
            out.push_str(text.get(done..).unwrap_or_default());
            Cow::Owned(out)
        }
    }
}

/// All escapes decoded, once.
fn decode_all(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match code_at(bytes, at).filter(|_| *byte == b'%') {
            Some(code) => {
                out.push(code);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

/// RFC 3986 §5.2.4.
fn without_dot_segments(path: Cow<'_, str>) -> Cow<'_, str> {
    if !path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return path;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            segment => {
                kept.push(segment);
                continue;
            }
        }
        if last {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/")).into()
}

fn merged_slashes(path: Cow<'_, str>) -> Cow<'_, str> {
    if !path.contains("//") {
        return path;
    }
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out.into()
}

/// The path without `;name=value` behind its segments; `None` where there is nothing of the kind. A
/// server may look for them before it decodes or afterwards.
fn without_parameters(path: &str) -> Option<String> {
    const MARKS: [&str; 3] = [";", "%3b", "%3B"];
    let end = |text: &str| MARKS.iter().filter_map(|mark| text.find(mark)).min();
    end(path)?;
    let name = |segment: &str| {
        let end = end(segment).unwrap_or(segment.len());
        segment.get(..end).unwrap_or_default().to_owned()
    };
    Some(path.split('/').map(name).collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests;
