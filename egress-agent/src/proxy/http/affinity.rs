//! What of a request consistent hashing goes by, and the cookie that a client gets for it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use uuid::Uuid;

use super::request::Request;
use crate::policy::{Cluster, HashCookie, HashKey, hash_of, hash_of_address, hash_with};

/// A request's part in consistent hashing.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    /// `None` where it has nothing to hash.
    pub(super) hash: Option<u64>,
    /// What the response sets.
    pub(super) cookie: Option<HeaderValue>,
}

impl Affinity {
    /// Of a request from `source` to this cluster.
    pub(super) fn of(cluster: &Cluster, request: &Request, source: IpAddr) -> Self {
        let Some(key) = cluster.hash.as_ref().and_then(|hash| hash.key.as_ref()) else {
            return Self::default();
        };
        let hash = match key {
            HashKey::Header(name) => of_header(&request.headers, name),
            HashKey::Authority => Some(hash_of(request.authority.text.as_bytes())),
            HashKey::Path => Some(hash_of(request.path.as_bytes())),
            HashKey::Method => Some(hash_of(request.method.as_str().as_bytes())),
            HashKey::SourceIp => Some(hash_of_address(source)),
            HashKey::Query(name) => parameter(&request.path, name).map(|v| hash_of(v.as_bytes())),
            HashKey::Cookie(cookie) => match found(&request.headers, &cookie.name) {
                Some(value) => Some(hash_of(value)),
                None => return Self::generated(cookie),
            },
        };
        Self { hash, cookie: None }
    }

    /// For a client without the cookie. Its value says nothing, least of all where the client is.
    fn generated(cookie: &HashCookie) -> Self {
        let Some(ttl) = cookie.ttl else { return Self::default() };
        let value = Uuid::new_v4().simple().to_string();
        let lifetime = match ttl.as_secs() {
            // It ends with the client's session.
            0 => String::new(),
            seconds => format!("; Max-Age={seconds}"),
        };
        let text = format!("{}=\"{value}\"{lifetime}{}", cookie.name, cookie.attributes);
        Self { hash: Some(hash_of(value.as_bytes())), cookie: HeaderValue::from_str(&text).ok() }
    }
}

/// Of all values, in an order that does not depend on theirs.
fn of_header(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let mut values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    values.sort_unstable();
    values.into_iter().fold(None, |before, value| Some(hash_with(before.unwrap_or(0), value)))
}

/// The value of a cookie, without quotes (RFC 6265 §5.4).
fn found<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let pairs = cookies.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    let mut values = pairs.filter_map(|pair| {
        let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        let value = rest.strip_prefix(b"=")?;
        let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        Some(quoted.unwrap_or(value))
    });
    // An empty one says no more than none.
    values.next().filter(|value| !value.is_empty())
}

/// The first value of a query parameter, as it was sent.
fn parameter<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    let (_, query) = path.split_once('?')?;
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("xuser=1; user=\"two\";user=3"));
        headers.append(header::COOKIE, HeaderValue::from_static("other=4; none="));
        for (name, expected) in [
            ("user", Some(&b"two"[..])),
            ("xuser", Some(b"1")),
            ("other", Some(b"4")),
            ("none", None),
            ("use", None),
            ("User", None),
        ] {
            assert_eq!(found(&headers, name), expected, "{name}");
        }
    }

    #[test]
    fn a_parameter_is_found_by_its_whole_name() {
        for (path, expected) in [
            ("/?user=1", Some("1")),
            ("/a?x=2&user=3&user=4", Some("3")),
            ("/?user", Some("")),
            ("/?xuser=1", None),
            ("/user=1", None),
        ] {
            assert_eq!(parameter(path, "user"), expected, "{path}");
        }
    }

    #[test]
    fn values_of_a_header_count_in_any_order() {
        let name = HeaderName::from_static("x-user");
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&name, HeaderValue::from_static(value));
            }
            of_header(&headers, &name)
        };
        assert_eq!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["a", "b"]), of(&["ab"]));
        assert_eq!(of(&["a"]), Some(hash_of(b"a")));
        assert_eq!(of(&[]), None);
    }
}
