//! A request's host: one normal form, and no contradiction.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use super::bad::BadMessage;
use crate::types::{Host, OriginalPort, Port, Text};

/// Host and port that a request names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Authority {
    /// The host in its normal form.
    pub(super) host: Host,
    /// The port, if it is named.
    pub(super) port: Option<Port>,
    /// As the client sent it, for `authority` matches and the log.
    pub(super) text: Text,
}

impl Authority {
    /// Parses `host[:port]`. User information, an empty port or port 0 are not part of it, and
    /// neither is anything that [`Host::parse`] refuses.
    ///
    /// # Errors
    /// [`BadMessage::NoHost`] or [`BadMessage::Authority`].
    pub(super) fn parse(text: &[u8]) -> Result<Self, BadMessage> {
        Self::parse_in(&Bytes::new(), text, None)
    }

    /// The same, of text that lies in `whole`. Who asks for the host that was asked for before, `last`,
    /// shares it.
    ///
    /// # Errors
    /// The same.
    pub(super) fn parse_in(
        whole: &Bytes,
        text: &[u8],
        last: Option<&Host>,
    ) -> Result<Self, BadMessage> {
        if text.is_empty() {
            return Err(BadMessage::NoHost);
        }
        let text = std::str::from_utf8(text).map_err(|_| BadMessage::Authority)?;
        let (host, port) = match text.rfind(':') {
            Some(colon) if !text.ends_with(']') => {
                let (host, port) = text.split_at(colon);
                (host, Some(parse_port(port.strip_prefix(':').unwrap_or(port))?))
            }
            _ => (text, None),
        };
        // A bare IPv6 address would make its last group look like a port.
        if host.contains(':') && !host.starts_with('[') {
            return Err(BadMessage::Authority);
        }
        let last = last.filter(|last| last.as_name() == Some(host));
        let host = match last {
            Some(last) => last.clone(),
            None => Host::parse(host).map_err(|_| BadMessage::Authority)?,
        };
        Ok(Self { host, port, text: Text::part_of(whole, text.as_bytes()) })
    }

    /// Checks the port against the one that was dialled: a request for `example.com:22` on port 80
    /// contradicts itself, and where the two differ policy could be asked about either.
    ///
    /// # Errors
    /// [`BadMessage::PortContradiction`].
    pub(super) fn on_port(self, dialled: OriginalPort) -> Result<Self, BadMessage> {
        match self.port {
            Some(port) if port != dialled.0 => Err(BadMessage::PortContradiction),
            Some(_) | None => Ok(self),
        }
    }

    fn same_as(&self, other: &Self, default: Option<Port>) -> bool {
        self.host == other.host && self.port.or(default) == other.port.or(default)
    }

    /// What is sent upstream: the normal form, with the port if the client named it.
    pub(super) fn to_header(&self) -> HeaderValue {
        if let Some(sent) = self.as_sent() {
            return sent;
        }
        let text = match (&self.host, self.port) {
            (Host::Ip(ip), port) if ip.is_ipv6() => match port {
                Some(port) => format!("[{ip}]:{port}"),
                None => format!("[{ip}]"),
            },
            (host, Some(port)) => format!("{host}:{port}"),
            (host, None) => host.to_string(),
        };
        // A host's normal form holds nothing but visible ASCII.
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("invalid"))
    }

    /// The client's own text, where that is the normal form.
    fn as_sent(&self) -> Option<HeaderValue> {
        let rest = self.text.strip_prefix(self.host.as_name()?)?;
        let is_normal = match (rest.strip_prefix(':'), self.port) {
            (None, None) => rest.is_empty(),
            // Without leading zeros.
            (Some(digits), Some(_)) => !digits.starts_with('0'),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !is_normal {
            return None;
        }
        HeaderValue::from_maybe_shared(self.text.bytes().clone()).ok()
    }
}

fn parse_port(digits: &str) -> Result<Port, BadMessage> {
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadMessage::Authority);
    }
    digits.parse().ok().and_then(Port::new).ok_or(BadMessage::Authority)
}

/// The `Host` header, which may be there once. It lies in `whole`; `last` is the host that was asked for
/// before.
///
/// # Errors
/// [`BadMessage::DuplicateHost`], or a bad authority.
pub(super) fn host_header(
    headers: &HeaderMap,
    whole: &Bytes,
    last: Option<&Host>,
) -> Result<Option<Authority>, BadMessage> {
    let mut values = headers.get_all(header::HOST).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(BadMessage::DuplicateHost);
    }
    Authority::parse_in(whole, value.as_bytes(), last).map(Some)
}

/// One host out of a target's or `:authority`'s and the `Host` header's. One without a port stands
/// for the scheme's, `default`.
///
/// # Errors
/// They differ, or there is none.
pub(super) fn reconcile(
    target: Option<Authority>,
    header: Option<Authority>,
    default: Option<Port>,
) -> Result<Authority, BadMessage> {
    match (target, header) {
        (Some(target), Some(header)) if !target.same_as(&header, default) => {
            Err(BadMessage::HostContradiction)
        }
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) => Err(BadMessage::NoHost),
    }
}

/// An HTTP/1 request target, taken apart (RFC 9112 §3.2).
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Target<'a> {
    /// Of the absolute and the authority form.
    pub(super) authority: Option<Authority>,
    /// Path and query; `*` for `OPTIONS *`; empty for CONNECT.
    pub(super) path: &'a str,
}

impl<'a> Target<'a> {
    /// Parses the target of a request with this method on a connection of this scheme.
    ///
    /// # Errors
    /// A form that the method doesn't allow, another scheme, a bad authority.
    pub(super) fn parse(
        method: &http::Method,
        target: &'a str,
        scheme: &str,
    ) -> Result<Self, BadMessage> {
        if method == http::Method::CONNECT {
            let authority = Authority::parse(target.as_bytes())?;
            return Ok(Self { authority: Some(authority), path: "" });
        }
        if target.starts_with('/') {
            return Ok(Self { authority: None, path: target });
        }
        if target == "*" {
            return if method == http::Method::OPTIONS {
                Ok(Self { authority: None, path: target })
            } else {
                Err(BadMessage::Target)
            };
        }
        let (named, rest) = target.split_once("://").ok_or(BadMessage::Target)?;
        if !named.eq_ignore_ascii_case(scheme) {
            return Err(BadMessage::Scheme);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let authority = Some(Authority::parse(authority.as_bytes())?);
        match path {
            "" if method == http::Method::OPTIONS => Ok(Self { authority, path: "*" }),
            "" => Ok(Self { authority, path: "/" }),
            // `http://host?query` has an empty path, which only some parsers turn into `/`.
            path if path.starts_with('?') => Err(BadMessage::Target),
            path => Ok(Self { authority, path }),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn one_host_has_one_form() {
        for (text, header) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("example.com:80", "example.com:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:DB8::1]:80", "[2001:db8::1]:80"),
            ("[::ffff:192.0.2.1]", "192.0.2.1"),
        ] {
            let authority = Authority::parse(text.as_bytes()).unwrap();
            assert_eq!(authority.to_header(), header, "{text}");
            assert_eq!(authority.text, text);
        }
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        for text in [
            "user@example.com",
            "user:pw@example.com",
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:+80",
            "example.com:080080",
            "example.com:80:80",
            "2001:db8::1",
            "[2001:db8::1",
            "[2001:db8::1]80",
            "exa mple.com",
            "example.com/",
            "example.com,other.com",
            "*.example.com",
            ":80",
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), Err(BadMessage::Authority), "{text}");
        }
        assert_eq!(Authority::parse(b""), Err(BadMessage::NoHost));
        assert_eq!(Authority::parse(b"\xff.example"), Err(BadMessage::Authority));
    }

    #[test]
    fn the_port_must_be_the_one_that_was_dialled() {
        let dialled = OriginalPort(Port::new(80).unwrap());
        let on = |text: &str| Authority::parse(text.as_bytes()).unwrap().on_port(dialled);
        assert!(on("example.com").is_ok());
        assert!(on("example.com:80").is_ok());
        assert_eq!(on("example.com:443").unwrap_err(), BadMessage::PortContradiction);
    }

    #[test]
    fn target_forms() {
        let parse = |method: Method, target| {
            Target::parse(&method, target, "http").map(|t| (t.authority.map(|a| a.text), t.path))
        };
        let host = || Some(Text::from("example.com"));
        assert_eq!(parse(Method::GET, "/a?b=c"), Ok((None, "/a?b=c")));
        assert_eq!(parse(Method::OPTIONS, "*"), Ok((None, "*")));
        assert_eq!(parse(Method::GET, "http://example.com/a"), Ok((host(), "/a")));
        assert_eq!(parse(Method::GET, "HTTP://example.com"), Ok((host(), "/")));
        assert_eq!(parse(Method::OPTIONS, "http://example.com"), Ok((host(), "*")));
        let port = Some(Text::from("example.com:80"));
        assert_eq!(parse(Method::CONNECT, "example.com:80"), Ok((port, "")));

        assert_eq!(parse(Method::GET, "*"), Err(BadMessage::Target));
        assert_eq!(parse(Method::GET, "example.com"), Err(BadMessage::Target));
        assert_eq!(parse(Method::GET, "http://example.com?x"), Err(BadMessage::Target));
        assert_eq!(parse(Method::GET, "https://example.com/"), Err(BadMessage::Scheme));
        assert_eq!(parse(Method::GET, "http://u@example.com/"), Err(BadMessage::Authority));
        assert_eq!(parse(Method::GET, "http:///a"), Err(BadMessage::NoHost));
        assert_eq!(parse(Method::CONNECT, "/a"), Err(BadMessage::Authority));
    }

    #[test]
    fn two_hosts_are_a_contradiction() {
        let authority = |text: &str| Some(Authority::parse(text.as_bytes()).unwrap());
        let reconcile = |a, b| reconcile(a, b, Port::new(80));
        assert!(reconcile(authority("example.com"), authority("EXAMPLE.com.")).is_ok());
        // The scheme's port may be named or not (RFC 9110 §4.2.3).
        assert!(reconcile(authority("a.example"), authority("a.example:80")).is_ok());
        assert!(reconcile(authority("a.example:80"), authority("a.example")).is_ok());
        for (a, b) in [
            ("a.example", "b.example"),
            ("a.example", "a.example:8080"),
            ("a.example:80", "a.example:443"),
        ] {
            let contradiction = Err(BadMessage::HostContradiction);
            assert_eq!(reconcile(authority(a), authority(b)), contradiction);
        }
        assert_eq!(reconcile(None, None), Err(BadMessage::NoHost));
    }
}
