//! One condition of an authorization policy, and whether it holds.

use std::{borrow::Cow, sync::Arc};

use ipnet::IpNet;

use super::subject::{RequestFacts, Subject};
use crate::{
    policy::{TextMatch, path},
    types::{Namespace, Port, TrustDomain},
};

/// Whether a condition holds. The order is that of certainty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Truth {
    /// It does not.
    No,
    /// It is unknown.
    Unknown,
    /// It does.
    Yes,
}

impl Truth {
    /// All of them; yes where there are none.
    pub fn all(each: impl Iterator<Item = Self>) -> Self {
        each.min().unwrap_or(Self::Yes)
    }

    /// Any of them; no where there are none.
    pub fn any(each: impl Iterator<Item = Self>) -> Self {
        each.max().unwrap_or(Self::No)
    }
}

impl std::ops::Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// An attribute with some of these values, or with none of them.
#[derive(Clone, Debug)]
pub struct Condition {
    /// What is looked at.
    pub attribute: Attribute,
    /// Any of these is enough.
    pub values: Vec<ValuePattern>,
    /// None of the values may match.
    pub negated: bool,
}

/// What a condition looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Attribute {
    /// `source.namespace`: of the workload, as its certificate or its address says.
    Namespace,
    /// `source.principal`: as a certificate proves it.
    Principal,
    /// `source.trustDomain`: of the principal, as a certificate proves it.
    TrustDomain,
    /// `source.serviceAccount`: of the workload, as its certificate or its address says.
    ServiceAccount,
    /// `source.ip`: the address of the connection's client.
    Address,
    /// `remote.ip`: the original client.
    RemoteAddress,
    /// `hosts`.
    Host,
    /// `destination.port`.
    Port,
    /// `methods`.
    Method,
    /// `paths`, without the query.
    Path,
    /// `request.headers[NAME]`.
    Header(http::HeaderName),
    /// `connection.sni`; empty where there is none.
    ServerName,
    /// An attribute that does not exist here.
    Unsupported(Arc<str>),
}

/// A value that a condition asks for.
#[derive(Clone, Debug)]
pub enum ValuePattern {
    /// A text.
    Text(TextPattern),
    /// A path, compared in all readings that servers have of it.
    Path(TextMatch),
    /// A network.
    Net(IpNet),
    /// A port.
    Port(Port),
    /// A service account of a namespace.
    ServiceAccount(Namespace, Arc<str>),
    /// It cannot be understood.
    Unknown,
}

/// Istio's patterns: `*` is any text but the empty one, `*x` an end, `x*` a beginning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TextPattern {
    /// Any text but the empty one.
    Present,
    /// The whole text.
    Exact(Box<str>),
    /// Its beginning.
    Prefix(Box<str>),
    /// Its end.
    Suffix(Box<str>),
}

impl TextPattern {
    /// Reads a pattern; `None` if it is empty.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // As Istio: a star at the beginning comes first, and any other but the last is a character.
        Some(match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
            ("", ..) => return None,
            ("*", ..) => Self::Present,
            (_, Some(suffix), _) => Self::Suffix(suffix.into()),
            (_, None, Some(prefix)) => Self::Prefix(prefix.into()),
            (exact, None, None) => Self::Exact(exact.into()),
        })
    }

    /// Whether the text is as wanted.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Present => !text.is_empty(),
            Self::Exact(exact) => **exact == *text,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
        }
    }
}

impl Condition {
    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, subject: &Subject<'_>, trust_domain: &TrustDomain) -> Truth {
        let each = self.values.iter();
        let any = Truth::any(each.map(|value| self.value_holds(value, subject, trust_domain)));
        if self.negated { !any } else { any }
    }

    fn value_holds(
        &self,
        value: &ValuePattern,
        subject: &Subject<'_>,
        trust_domain: &TrustDomain,
    ) -> Truth {
        let Subject { source, remote, port, server_name, http } = subject;
        match (&self.attribute, value) {
            (Attribute::Namespace, ValuePattern::Text(wanted)) => {
                known(source.namespace(), |namespace| wanted.matches(&namespace.0))
            }
            (Attribute::Principal, ValuePattern::Text(wanted)) => proven(
                source.principal.as_ref().map(identity),
                source.workload.as_ref().map(|w| identity(&w.principal(trust_domain))),
                wanted,
            ),
            (Attribute::TrustDomain, ValuePattern::Text(wanted)) => proven(
                source.principal.as_ref().map(|id| id.trust_domain.to_string()),
                source.workload.as_ref().map(|_| trust_domain.to_string()),
                wanted,
            ),
            (Attribute::ServiceAccount, ValuePattern::ServiceAccount(namespace, account)) => {
                let proven = source.principal.as_ref();
                let proven =
                    proven.map(|id| (id.namespace.clone(), Arc::clone(&id.service_account)));
                let told = source.workload.as_ref();
                let told = told.map(|w| (w.namespace.clone(), Arc::clone(&w.service_account)));
                known(proven.or(told), |found| (&found.0, &found.1) == (namespace, account))
            }
            (Attribute::Address, ValuePattern::Net(net)) => {
                net.contains(&source.addr.to_canonical()).into()
            }
            (Attribute::RemoteAddress, ValuePattern::Net(net)) => {
                known(*remote, |remote| net.contains(&remote.to_canonical()))
            }
            (Attribute::Port, ValuePattern::Port(wanted)) => (port == wanted).into(),
            (Attribute::ServerName, ValuePattern::Text(wanted)) => {
                let name = server_name.map(ToString::to_string).unwrap_or_default();
                wanted.matches(&name).into()
            }
            (Attribute::Host, ValuePattern::Text(wanted)) => known(*http, |http| {
                wanted.matches(&http.host.to_string())
                    || wanted.matches(&http.authority.to_ascii_lowercase())
            }),
            (Attribute::Method, ValuePattern::Text(wanted)) => {
                known(*http, |http| wanted.matches(http.method.as_str()))
            }
            (Attribute::Path, ValuePattern::Path(wanted)) => {
                let Some(http) = http else { return Truth::Unknown };
                let (path, _) = path::split_query(http.path_and_query);
                path::matches(wanted, path, false).map_or(Truth::Unknown, Truth::from)
            }
            (Attribute::Header(name), ValuePattern::Text(wanted)) => {
                http.as_ref().map_or(Truth::Unknown, |http| header(http, name, wanted))
            }
            // Attributes that do not exist here, and values of another kind than the attribute.
            (Attribute::Unsupported(_), _) | (_, _) => Truth::Unknown,
        }
    }
}

/// Whether what a certificate proves is as wanted. What the address says instead is not proven: it rules out, and
/// never confirms.
fn proven(proven: Option<String>, told: Option<String>, wanted: &TextPattern) -> Truth {
    match (proven, told) {
        (Some(proven), _) => wanted.matches(&proven).into(),
        (None, Some(told)) if !wanted.matches(&told) => Truth::No,
        (None, _) => Truth::Unknown,
    }
}

fn known<T>(value: Option<T>, holds: impl FnOnce(T) -> bool) -> Truth {
    value.map_or(Truth::Unknown, |value| holds(value).into())
}

/// A SPIFFE ID as Istio writes principals: without `spiffe://`.
fn identity(id: &impl ToString) -> String {
    let text = id.to_string();
    text.strip_prefix("spiffe://").map_or(text.clone(), Into::into)
}

/// Several lines of one header count as one, joined by commas, as in Envoy.
fn header(http: &RequestFacts<'_>, name: &http::HeaderName, wanted: &TextPattern) -> Truth {
    let mut joined: Option<Cow<'_, str>> = None;
    for value in http.headers.get_all(name) {
        let Ok(value) = value.to_str() else { return Truth::Unknown };
        joined = Some(match joined {
            None => value.into(),
            Some(before) => format!("{before},{value}").into(),
        });
    }
    joined.is_some_and(|text| wanted.matches(&text)).into()
}
