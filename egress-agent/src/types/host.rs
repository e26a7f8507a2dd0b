//! A destination's name, in one normal form.

use std::{fmt, net::IpAddr, sync::Arc};

use thiserror::Error;

/// A DNS name or an IP address, as HTTP authority, SNI and configuration name it: lower case,
/// without trailing dot or brackets, so that two spellings of one host compare equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Host {
    /// A DNS name of LDH labels and underscores (RFC 1123 §2.1, RFC 2181 §11), at most 253 bytes.
    Name(Arc<str>),
    /// An IP address; IPv4-mapped IPv6 is held as IPv4.
    Ip(IpAddr),
}

/// Why a text isn't a [`Host`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HostError {
    /// Nothing there.
    #[error("empty host")]
    Empty,
    /// Over 253 bytes, or a label over 63.
    #[error("host name too long")]
    TooLong,
    /// A byte that no host name holds, or an empty label.
    #[error("invalid character or empty label in host name")]
    Invalid,
}

impl Host {
    /// Parses a host without port: a name, an IPv4 address, or an IPv6 address with or without
    /// brackets. One trailing dot is dropped.
    ///
    /// # Errors
    /// [`HostError`] says what is wrong. Numbers that only some resolvers read as an address
    /// (`0x7f.1`, `127.1`, `2130706433`) are invalid: the last label of a name must not be numeric.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let v6 = inner.strip_suffix(']').and_then(|v6| v6.parse().ok());
            return v6.map(Self::ip).ok_or(HostError::Invalid);
        }
        if let Ok(ip) = text.parse() {
            return Ok(Self::ip(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() > 253 {
            return Err(HostError::TooLong);
        }
        let mut last = "";
        for label in name.split('.') {
            check_label(label)?;
            last = label;
        }
        let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
        if last.bytes().all(|b| b.is_ascii_digit())
            || hex.is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Err(HostError::Invalid);
        }
        let is_lower = !name.bytes().any(|b| b.is_ascii_uppercase());
        Ok(Self::Name(if is_lower { name.into() } else { name.to_ascii_lowercase().into() }))
    }

    fn ip(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }

    /// Its normal form.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        match self {
            Self::Name(name) => Arc::clone(name),
            Self::Ip(ip) => ip.to_string().into(),
        }
    }

    /// The DNS name, if it is one.
    #[must_use]
    pub fn as_name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Ip(_) => None,
        }
    }
}

fn check_label(label: &str) -> Result<(), HostError> {
    if label.len() > 63 {
        return Err(HostError::TooLong);
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if label.is_empty()
        || label.starts_with('-')
        || label.ends_with('-')
        || !label.bytes().all(allowed)
    {
        return Err(HostError::Invalid);
    }
    Ok(())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_host_are_equal() {
        let host = Host::parse("edition.cnn.com").unwrap();
        for text in ["EDITION.cnn.COM", "edition.cnn.com.", "Edition.Cnn.Com."] {
            assert_eq!(Host::parse(text), Ok(host.clone()), "{text}");
        }
        assert_eq!(Host::parse("[::ffff:192.0.2.1]"), Host::parse("192.0.2.1"));
        assert_eq!(Host::parse("2001:DB8::1"), Host::parse("[2001:db8:0::1]"));
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            "a b",
            "a\0b",
            "a/b",
            "a@b",
            "a:80",
            "-a.b",
            "a-.b",
            "127.1",
            "0x7f.1",
            "0x7f",
            "2130706433",
            "[::1",
            "::1]",
            "[192.0.2.1",
            "a.b..",
            "ü.example",
            "*.a",
        ] {
            assert!(Host::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Host::parse(&"a".repeat(64)), Err(HostError::TooLong));
        // 253 bytes and the root's dot are the most there may be (RFC 1035 §2.3.4).
        assert!(Host::parse(&"a.".repeat(127)).is_ok());
        assert_eq!(Host::parse(&"a.".repeat(128)), Err(HostError::TooLong));
    }
}
