//! Values of the options.

use std::{
    net::IpAddr,
    str::FromStr,
    time::{Duration, SystemTime},
};

use clap::ValueEnum;
use jiff::Timestamp;

use crate::{
    telemetry::{FlowRecord, FlowVerdict},
    types::{Port, duration_within, parse_duration},
};

/// `--verdict`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Verdict {
    #[value(alias = "dropped")]
    Denied,
    #[value(alias = "forwarded")]
    Allowed,
    Redirected,
    #[value(alias = "audit")]
    Audited,
    #[value(alias = "error")]
    Failed,
}

impl Verdict {
    pub(super) fn is_of(self, flow: &FlowRecord) -> bool {
        match self {
            Self::Audited => flow.audit,
            Self::Denied => flow.verdict == FlowVerdict::Deny,
            Self::Allowed => flow.verdict == FlowVerdict::Allow && !flow.audit,
            Self::Redirected => flow.verdict == FlowVerdict::Redirect && !flow.audit,
            Self::Failed => flow.verdict == FlowVerdict::Fail && !flow.audit,
        }
    }
}

/// `--pod`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PodName {
    namespace: Option<String>,
    name: String,
}

impl FromStr for PodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') || namespace == Some("") {
            return Err(format!("found `{text}`, expected NAME or NAMESPACE/NAME"));
        }
        Ok(Self { namespace: namespace.map(Into::into), name: name.into() })
    }
}

impl PodName {
    pub(super) fn is_of(&self, flow: &FlowRecord) -> bool {
        flow.workload.as_ref() == Some(&self.name)
            && (self.namespace.is_none() || self.namespace == flow.namespace)
    }
}

/// `--label`: keys, each with its value or with any. All of them have to be there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LabelSelector(Vec<(String, Option<String>)>);

impl FromStr for LabelSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let one = |part: &str| {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (part, None),
            };
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
            if key.is_empty() || !key.bytes().all(plain) {
                return Err(format!("found `{text}`, expected KEY or KEY=VALUE, as in app=web"));
            }
            Ok((key.to_owned(), value))
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }
}

impl LabelSelector {
    pub(super) fn is_of(&self, flow: &FlowRecord) -> bool {
        self.0.iter().all(|(key, value)| match (flow.labels.get(key), value) {
            (Some(found), Some(wanted)) => found == wanted,
            (Some(_), None) => true,
            (None, _) => false,
        })
    }
}

/// `--port` and the like.
pub(super) fn port(text: &str) -> Result<Port, String> {
    let port = text.parse().ok().and_then(Port::new);
    port.ok_or_else(|| format!("found `{text}`, expected a port from 1 to 65535"))
}

/// `--address` and the like.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("found `{text}`, expected an IP address"))
}

/// `--protocol`, in upper case as flows have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Protocol(String);

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = match text.to_ascii_uppercase() {
            // As people write it.
            name if name == "HTTP/2" => "HTTP/2.0".into(),
            name => name,
        };
        // Those that have no name have a number.
        let is_numbered = ["PROTOCOL ", "ETHERTYPE 0X"].iter().any(|kind| {
            name.strip_prefix(kind).is_some_and(|number| {
                !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
        });
        if PROTOCOLS.contains(&&*name) || is_numbered {
            return Ok(Self(name));
        }
        let like = |known: &&&str| strsim::damerau_levenshtein(&name, known);
        let near = PROTOCOLS.iter().min_by_key(like).filter(|near| like(near) < 2);
        let hint = near.map(|near| format!("; did you mean {}?", near.to_ascii_lowercase()));
        let hint = hint.unwrap_or_default();
        Err(format!("found `{text}`, expected tcp, udp, icmp, icmpv6, tls or http{hint}"))
    }
}

/// The names of protocols that flows have, and `HTTP` for all of its versions.
const PROTOCOLS: [&str; 18] = [
    "TCP", "UDP", "ICMP", "ICMPV6", "TLS", "HTTP", "HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "ARP",
    "DCCP", "ESP", "GRE", "IGMP", "IPIP", "SCTP", "SIT", "UDP-LITE",
];

impl Protocol {
    /// HTTP is meant in every version, and TCP carries TLS and HTTP.
    pub(super) fn is_of(&self, flow: &FlowRecord) -> bool {
        let found = flow.protocol.to_ascii_uppercase();
        let carried = || found == "TLS" || found.starts_with("HTTP/");
        match &*self.0 {
            "HTTP" => found.starts_with("HTTP/"),
            "TCP" => found == "TCP" || carried(),
            wanted => found == wanted,
        }
    }
}

/// `--since` and `--until`: a time, or how long ago it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moment {
    Ago(Duration),
    At(SystemTime),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(ago) = parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        match text.parse::<Timestamp>() {
            Ok(time) => Ok(Self::At(time.into())),
            Err(_) => {
                let forms = "in days, such as 2d, or a time such as 2026-11-29T12:00:00Z";
                duration_within(text, Duration::ZERO..=Duration::MAX, forms).map(Self::Ago)
            }
        }
    }
}

impl Moment {
    /// The time that is meant.
    pub(super) fn time(self, now: SystemTime) -> SystemTime {
        match self {
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
            Self::At(time) => time,
        }
    }

    /// Whether it is not after this time. A flow of the future isn't old.
    pub(super) fn is_before(self, time: SystemTime, now: SystemTime) -> bool {
        match self {
            Self::Ago(ago) => now.duration_since(time).map_or(true, |age| age <= ago),
            Self::At(moment) => moment <= time,
        }
    }

    /// Whether it is not before this time.
    pub(super) fn is_after(self, time: SystemTime, now: SystemTime) -> bool {
        match self {
            Self::Ago(ago) => now.duration_since(time).is_ok_and(|age| age >= ago),
            Self::At(moment) => time <= moment,
        }
    }
}
