//! Header fields: those of one hop only are taken out, those that a route asks for are put in.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry},
};

use super::spare_buffers;
use crate::{
    policy::{HeaderOps, HeaderText, is_claim},
    telemetry::{AccessLogEntry, Heads, header_text},
    types::Text,
};

/// Fields of one hop, whether `Connection` names them or not (RFC 9110 §7.6.1 and what senders do
/// in practice).
static HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("http2-settings"),
    header::UPGRADE,
    header::TRANSFER_ENCODING,
];

/// What the fields of one hop said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct HopByHopFields {
    /// `Connection: close`.
    pub(super) close: bool,
    /// `Connection: keep-alive`.
    pub(super) keep_alive: bool,
    /// `Upgrade`, if `Connection` names it. An `Upgrade` that isn't named is dropped.
    pub(super) upgrade: Option<HeaderValue>,
}

/// Takes out the fields of one hop; `TE: trailers` may stay, which says that the end can read
/// trailers (gRPC asks for it).
pub(super) fn take_hop_by_hop(headers: &mut HeaderMap) -> HopByHopFields {
    let mut hop = HopByHopFields::default();
    let mut named = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        for token in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                hop.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                hop.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                hop.upgrade = headers.get(header::UPGRADE).cloned();
            } else if !token.eq_ignore_ascii_case(b"te")
                && let Ok(name) = HeaderName::from_bytes(token)
            {
                named.push(name);
            }
        }
    }
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    if headers.contains_key(header::TE) {
        let asks = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"trailers");
        let trailers = headers.get_all(header::TE).iter().any(asks);
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    hop
}

/// Takes all claims out, and returns the last `trusted` addresses of `X-Forwarded-For`: those that
/// trusted proxies in front of the gateway have written.
pub(super) fn take_claims(headers: &mut HeaderMap, trusted: usize) -> Option<String> {
    let claims: Vec<_> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
    if claims.is_empty() {
        return None;
    }
    let all: Vec<String> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .map(|address| String::from_utf8_lossy(address.trim_ascii()).into_owned())
        .collect();
    for name in claims {
        headers.remove(name);
    }
    let kept = all.get(all.len().saturating_sub(trusted)..).unwrap_or_default();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// The original client: the first of the addresses that trusted proxies have written, or the
/// connection's own where there are fewer than proxies, as in Envoy. `None` if it is no address.
pub(super) fn remote(forwarded: Option<&str>, trusted: usize, peer: IpAddr) -> Option<IpAddr> {
    let all: Vec<&str> = forwarded.map(|all| all.split(',').collect()).unwrap_or_default();
    match all.first() {
        Some(first) if trusted > 0 && all.len() == trusted => first.parse().ok(),
        _ => Some(peer),
    }
}

/// The part of `Upgrade` that asks for something: HTTP/2 in clear and TLS are answered in HTTP/1.1,
/// as any server may (RFC 9110 §7.8).
pub(super) fn wanted_upgrade(upgrade: &HeaderValue) -> Option<HeaderValue> {
    let ignored = |protocol: &[u8]| {
        let name = protocol.split(|b| *b == b'/').next().unwrap_or_default();
        protocol.is_empty()
            || [&b"h2c"[..], b"h2", b"tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    let protocols = || upgrade.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
    if !protocols().any(ignored) {
        return Some(upgrade.clone());
    }
    let wanted: Vec<_> = protocols().filter(|protocol| !ignored(protocol)).collect();
    if wanted.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&wanted.join(&b", "[..])).ok()
}

/// Carries out a route's changes of a request. `entry` is what is known of it so far.
pub(super) fn apply_to_request(headers: &mut HeaderMap, ops: &HeaderOps, entry: &AccessLogEntry) {
    apply(headers, ops, |text, headers| {
        value(text, entry, Heads { request: headers, response: None })
    });
}

/// The same of a response, to the request that was sent with the headers `request`.
pub(super) fn apply_to_response(
    headers: &mut HeaderMap,
    ops: &HeaderOps,
    entry: &AccessLogEntry,
    request: &HeaderMap,
) {
    apply(headers, ops, |text, headers| {
        value(text, entry, Heads { request, response: Some(headers) })
    });
}

/// As Envoy does it: what is removed goes first, and all values are made before the first is written.
fn apply(
    headers: &mut HeaderMap,
    ops: &HeaderOps,
    value: impl Fn(&HeaderText, &HeaderMap) -> Option<HeaderValue>,
) {
    let HeaderOps { set, add, remove } = ops;
    for name in remove {
        headers.remove(name);
    }
    let made = |all: &[(HeaderName, HeaderText)], headers: &HeaderMap| -> Vec<_> {
        let all = all.iter().filter(|(name, _)| is_changeable(name));
        all.filter_map(|(name, text)| Some((name.clone(), value(text, headers)?))).collect()
    };
    let (set, add) = (made(set, headers), made(add, headers));
    for (name, value) in set {
        headers.insert(name, value);
    }
    for (name, value) in add {
        headers.append(name, value);
    }
}

/// The value for this request, unless nothing of it is set.
fn value(text: &HeaderText, entry: &AccessLogEntry, heads: Heads<'_>) -> Option<HeaderValue> {
    match text {
        HeaderText::Fixed(value) => Some(value.clone()),
        HeaderText::Format(segments) => {
            let text = header_text(segments, entry, heads);
            HeaderValue::from_str(&text).ok().filter(|value| !value.is_empty())
        }
    }
}

/// What frames and routes a message is not a route's to change.
fn is_changeable(name: &HeaderName) -> bool {
    *name != header::HOST && *name != header::CONTENT_LENGTH && !HOP_BY_HOP.contains(name)
}

/// `x-request-id`.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `x-forwarded-for`.
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Makes an `X-Request-Id` (UUID v4) where there is none; the one that it made.
pub(super) fn ensure_request_id(headers: &mut HeaderMap) -> Option<Text> {
    let Entry::Vacant(place) = headers.entry(REQUEST_ID) else { return None };
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text =
        spare_buffers::small(uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text).as_bytes());
    // A UUID is hexadecimal digits and dashes.
    let value = HeaderValue::from_maybe_shared(text.clone());
    place.insert(value.unwrap_or(HeaderValue::from_static("-")));
    Some(Text::part_of(&text, &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn fields_of_one_hop_go_and_the_others_stay() {
        let mut headers = map(&[
            ("connection", "close, X-Secret ,keep-alive"),
            ("connection", "x-more"),
            ("x-secret", "1"),
            ("x-more", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "basic abc"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
            ("accept", "*/*"),
            ("x-forwarded-proto", "https"),
        ]);
        let hop = take_hop_by_hop(&mut headers);
        assert_eq!(hop, HopByHopFields { close: true, keep_alive: true, upgrade: None });
        assert_eq!(headers, map(&[("accept", "*/*"), ("x-forwarded-proto", "https")]));
    }

    #[test]
    fn te_trailers_stays_and_upgrade_is_told() {
        let mut headers =
            map(&[("connection", "Upgrade, TE"), ("upgrade", "websocket"), ("te", "trailers")]);
        let hop = take_hop_by_hop(&mut headers);
        assert_eq!(hop.upgrade, Some(HeaderValue::from_static("websocket")));
        assert_eq!(headers, map(&[("te", "trailers")]));
    }

    #[test]
    fn routes_never_change_framing() {
        for name in [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            assert!(!is_changeable(&name), "{name}");
        }
        assert!(is_changeable(&header::ACCEPT));
    }

    #[test]
    fn a_request_id_is_made_once() {
        let mut headers = HeaderMap::new();
        ensure_request_id(&mut headers);
        let id = headers[REQUEST_ID].to_str().unwrap().to_owned();
        let parsed = uuid::Uuid::parse_str(&id).unwrap();
        assert_eq!(parsed.get_version_num(), 4);
        ensure_request_id(&mut headers);
        assert_eq!(headers[REQUEST_ID], id.as_str());
    }
}
