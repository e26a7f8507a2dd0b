//! The words of the HBONE protocol: HTTP/2 CONNECT over mutual TLS, as Istio's ztunnel and waypoints
//! speak it. `:authority` is the original destination, `baggage` says whom the connection is from
//! (W3C Baggage), `forwarded` at which address (RFC 7239).

use std::{
    fmt::Write as _,
    net::{AddrParseError, IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderName, HeaderValue};
use thiserror::Error;

pub use crate::types::AssertedWorkload;
use crate::types::{ClientAddr, Namespace, OriginalDst, Port};

/// The port that gateways listen on for tunnels.
pub const PORT: u16 = 15008;
/// The only protocol of ALPN that is spoken.
pub const ALPN: &[u8] = b"h2";
/// The header with the [`AssertedWorkload`].
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// The header with the address.
pub const FORWARDED: HeaderName = http::header::FORWARDED;

/// Bytes of `baggage` and `forwarded` that are read; W3C asks for as many.
const LONGEST: usize = 8192;

const CLUSTER: &str = "k8s.cluster.name";
const NAMESPACE: &str = "k8s.namespace.name";
const POD: &str = "k8s.pod.name";
const ACCOUNT: &str = "k8s.serviceaccount.name";
const SERVICE: &str = "service.name";
/// Names of a workload, by its kind; ztunnel sends one of them.
const NAMES: [&str; 7] = [
    POD,
    "k8s.deployment.name",
    "k8s.statefulset.name",
    "k8s.daemonset.name",
    "k8s.replicaset.name",
    "k8s.cronjob.name",
    "k8s.job.name",
];

/// Why a header of a tunnel can't be read.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum HboneError {
    /// Over the limit.
    #[error("{what} has {found} bytes, expected at most {LONGEST}")]
    TooLong {
        /// Which header.
        what: &'static str,
        /// Its bytes.
        found: usize,
    },
    /// Not `key=value`.
    #[error("found {0:?} in baggage, expected key=value")]
    Member(String),
    /// Two values for one key.
    #[error("baggage has {0} twice, with different values")]
    Twice(String),
    /// A percent sign without two digits, or bytes that aren't UTF-8.
    #[error("found {0:?} in baggage, which isn't percent-encoded UTF-8")]
    Encoding(String),
    /// A workload has a namespace and a name.
    #[error("baggage names no {0}")]
    Missing(&'static str),
    /// A value without a byte.
    #[error("baggage has an empty {0}")]
    Empty(&'static str),
    /// Not an address.
    #[error("found {0:?} in forwarded, expected for=ADDRESS")]
    Forwarded(String),
    /// A name, no port, or something else that was never dialled.
    #[error("found the authority {0:?}, expected the address and port that were dialled")]
    Authority(String),
}

/// The value of `baggage` for a workload.
#[must_use]
pub fn baggage(claim: &AssertedWorkload) -> HeaderValue {
    let AssertedWorkload { cluster, namespace, name, service_account } = claim;
    let mut text = String::new();
    let mut member = |key: &str, value: &str| {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(key);
        text.push('=');
        encode(value, &mut text);
    };
    if let Some(cluster) = cluster {
        member(CLUSTER, cluster);
    }
    member(NAMESPACE, &namespace.0);
    member(POD, name);
    if let Some(account) = service_account {
        member(ACCOUNT, account);
    }
    member(SERVICE, name);
    // Percent-encoding leaves visible ASCII alone.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What `baggage` says. Members that say nothing of the workload are left out; two that
/// contradict each other are refused, for two readers could choose differently.
///
/// # Errors
/// [`HboneError`] says what can't be read.
pub fn read_baggage(text: &str) -> Result<AssertedWorkload, HboneError> {
    limit("baggage", text)?;
    let mut read: Vec<(&str, String)> = Vec::new();
    for member in text.split(',').map(trimmed) {
        if member.is_empty() {
            continue;
        }
        // What follows a semicolon are properties, which say nothing here.
        let pair = member.split(';').next().unwrap_or_default();
        let bad = || HboneError::Member(shortened(member));
        let (key, value) = pair.split_once('=').ok_or_else(bad)?;
        let key = trimmed(key);
        if key.is_empty() || !key.bytes().all(is_token) {
            return Err(bad());
        }
        let value = decode(trimmed(value))?;
        match read.iter().find(|(known, _)| *known == key) {
            Some((_, known)) if *known == value => {}
            Some(_) => return Err(HboneError::Twice(shortened(key))),
            None => read.push((key, value)),
        }
    }
    let found = |key: &'static str| -> Result<Option<Arc<str>>, HboneError> {
        let value = read.iter().find(|(known, _)| *known == key).map(|(_, value)| value);
        match value {
            Some(value) if value.is_empty() => Err(HboneError::Empty(key)),
            value => Ok(value.map(|value| value.as_str().into())),
        }
    };
    let mut name = None;
    for key in NAMES {
        if let Some(value) = found(key)? {
            name.get_or_insert(value);
        }
    }
    // ztunnel leaves an unknown cluster empty.
    let cluster = found(CLUSTER).unwrap_or_default();
    Ok(AssertedWorkload {
        cluster,
        namespace: Namespace(found(NAMESPACE)?.ok_or(HboneError::Missing(NAMESPACE))?),
        name: name.ok_or(HboneError::Missing(POD))?,
        service_account: found(ACCOUNT)?,
    })
}

/// The value of `forwarded` for a connection from this address.
#[must_use]
pub fn forwarded(client: ClientAddr) -> HeaderValue {
    // Quoted, for a colon isn't a token's (RFC 7239 §4).
    let text = format!("for=\"{client}\"");
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The address of the first `for` of `forwarded`; the port is zero where there is none.
///
/// # Errors
/// [`HboneError::Forwarded`] or [`HboneError::TooLong`].
pub fn read_forwarded(text: &str) -> Result<ClientAddr, HboneError> {
    limit("forwarded", text)?;
    let bad = || HboneError::Forwarded(shortened(text));
    // An address has neither comma nor semicolon, quoted or not.
    let first = text.split(',').next().unwrap_or_default();
    let mut pairs = first.split(';').filter_map(|pair| trimmed(pair).split_once('='));
    let node = pairs.find(|(key, _)| trimmed(key).eq_ignore_ascii_case("for")).ok_or_else(bad)?.1;
    let node = trimmed(node);
    let node = match node.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').ok_or_else(bad)?,
        None => node,
    };
    let bare = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let addr = node
        .parse::<SocketAddr>()
        .or_else(|_| Ok(SocketAddr::new(bare.unwrap_or(node).parse::<IpAddr>()?, 0)))
        .map_err(|_: AddrParseError| bad())?;
    Ok(ClientAddr(SocketAddr::new(addr.ip().to_canonical(), addr.port())))
}

/// The `:authority` for an original destination.
#[must_use]
pub fn authority(dialled: OriginalDst) -> String {
    dialled.to_string()
}

/// The original destination that an `:authority` names. A host name is refused: what was dialled is
/// an address, and a name here would be resolved by somebody who doesn't ask the policy.
///
/// # Errors
/// [`HboneError::Authority`].
pub fn read_authority(text: &str) -> Result<OriginalDst, HboneError> {
    let bad = || HboneError::Authority(shortened(text));
    let addr: SocketAddr = text.parse().map_err(|_| bad())?;
    // A zone means something to the node alone, and a port zero to nobody.
    if text.contains('%') || Port::new(addr.port()).is_none() {
        return Err(bad());
    }
    Ok(OriginalDst(SocketAddr::new(addr.ip().to_canonical(), addr.port())))
}

fn limit(what: &'static str, text: &str) -> Result<(), HboneError> {
    if text.len() > LONGEST {
        return Err(HboneError::TooLong { what, found: text.len() });
    }
    Ok(())
}

/// Without the optional whitespace of HTTP.
fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// For an error: what somebody else sent is not repeated without end.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// `tchar` (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3).
fn encode(value: &str, into: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a string doesn't fail.
            let _written = write!(into, "%{byte:02X}");
        }
    }
}

fn decode(value: &str) -> Result<String, HboneError> {
    let bad = || HboneError::Encoding(shortened(value));
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = char::from(rest.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
        bytes.push(high * 16 + low);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests;
