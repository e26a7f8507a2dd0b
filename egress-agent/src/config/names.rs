//! Names as resources give them: relative to a namespace, with wildcards, as lists.

use std::net::IpAddr;

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

use super::{
    decode::{Cx, Dict, List, SourcePosition, Spanned},
    text::StringMatch,
};
use crate::{
    policy::{Exported, HostPattern, TextMatch},
    types::{Host, HostError, Labels, Namespace, TrustDomain},
};

/// The domain of services in the cluster.
const CLUSTER_DOMAIN: &str = "svc.cluster.local";
/// Bytes a compiled regular expression may take.
const REGEX_BYTES: usize = 256 << 10;

/// Completes the short name of a service: `name` → `name.namespace.svc.cluster.local`.
pub(super) fn expand(text: &str, namespace: &Namespace) -> String {
    if text.contains(['.', '*', ':']) || text.is_empty() {
        text.into()
    } else {
        format!("{text}.{}.{CLUSTER_DOMAIN}", namespace.0)
    }
}

/// Whether a name is of a service in the cluster.
pub(super) fn is_in_cluster(name: &str) -> bool {
    name.ends_with(CLUSTER_DOMAIN)
}

/// A host or wildcard; what is wrong with it is noted.
/// The namespace of a service, from its full name.
pub(super) fn namespace_of(service: &str) -> Option<Namespace> {
    let mut labels = service.split('.');
    let (_, namespace, kind) = (labels.next()?, labels.next()?, labels.next()?);
    (kind == "svc").then(|| Namespace(namespace.into()))
}

pub(super) fn pattern(text: &Spanned<String>, cx: &mut Cx<'_>) -> Option<HostPattern> {
    pattern_of(&text.value, text, cx)
}

/// The same for a text that was completed.
pub(super) fn pattern_of(
    full: &str,
    text: &Spanned<String>,
    cx: &mut Cx<'_>,
) -> Option<HostPattern> {
    match HostPattern::parse(full) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            bad_host(text, error, cx);
            None
        }
    }
}

fn bad_host(text: &Spanned<String>, error: HostError, cx: &mut Cx<'_>) {
    let expected = "a DNS name, or *. and a DNS name";
    cx.wrong(&text.at, format!("{:?}", text.value), expected, error.to_string());
}

/// `trustDomain`.
pub(super) fn trust_domain(text: &Spanned<String>, cx: &mut Cx<'_>) -> Option<TrustDomain> {
    let parsed = TrustDomain::parse(&text.value);
    let told = parsed.map_err(|error| {
        let expected = "a trust domain such as cluster.local";
        cx.wrong(&text.at, format!("{:?}", text.value), expected, error.to_string());
    });
    told.ok()
}

/// Hosts of one resource that an API server takes.
const MAX_HOSTS: usize = 256;

/// Warns of lists of hosts that a current API server refuses.
pub(super) fn host_count(hosts: &List<String>, at: &SourcePosition, cx: &mut Cx<'_>) {
    let field = at.field("hosts");
    if hosts.is_empty() && !cx.has_told(&field.path.to_string()) {
        let message = "a current API server refuses a list without hosts; this is for no host";
        cx.warn(&field, message);
    }
    if hosts.len() > MAX_HOSTS {
        let message = format!(
            "a current API server refuses more than {MAX_HOSTS} hosts; use several resources"
        );
        cx.warn(&field, message).found = Some(format!("{} hosts", hosts.len()));
    }
}

/// `exportTo`. To nobody (`~`) only service entries can be exported.
pub(super) fn exported(
    list: &List<String>,
    own: &Namespace,
    to_nobody: bool,
    cx: &mut Cx<'_>,
) -> Exported {
    let mut names: Vec<Namespace> = Vec::new();
    let (mut all, mut nobody) = (false, false);
    for entry in list {
        let found = format!("{:?}", entry.value);
        let name = match entry.value.as_str() {
            "*" | "~" if list.len() > 1 => {
                cx.wrong(&entry.at, found, "either * or ~ alone, or namespaces", "a contradiction");
                continue;
            }
            "*" => {
                all = true;
                continue;
            }
            "~" if to_nobody => {
                nobody = true;
                continue;
            }
            "~" => {
                let expected = "`.`, `*` or a namespace";
                cx.wrong(&entry.at, found, expected, "it would be in force for nobody");
                continue;
            }
            "." => own.clone(),
            name => Namespace(name.into()),
        };
        if names.contains(&name) {
            cx.error(&entry.at, format!("the namespace {} is listed twice", name.0));
        } else {
            names.push(name);
        }
    }
    if all || (names.is_empty() && !nobody) { Exported::All } else { Exported::To(names) }
}

/// Labels.
pub(super) fn labels(dict: &Dict<Spanned<String>>) -> Labels {
    dict.0.iter().map(|(key, value)| (key.value.clone(), value.value.clone())).collect()
}

/// An IP address or CIDR, as a network.
pub(super) fn network(text: &Spanned<String>, cx: &mut Cx<'_>) -> Option<IpNet> {
    let parsed = text.value.parse::<IpNet>();
    let parsed =
        parsed.map(|net| net.trunc()).or_else(|_| text.value.parse::<IpAddr>().map(IpNet::from));
    match parsed {
        Ok(net) => Some(net),
        Err(_) => {
            let found = format!("{:?}", text.value);
            cx.wrong(
                &text.at,
                found,
                "an IP address, or a network such as 192.0.2.0/24",
                "not an address",
            );
            None
        }
    }
}

/// A host that is one name or address.
pub(super) fn host(text: &Spanned<String>, cx: &mut Cx<'_>) -> Option<Host> {
    match Host::parse(&text.value) {
        Ok(host) => Some(host),
        Err(error) => {
            cx.wrong(
                &text.at,
                format!("{:?}", text.value),
                "a DNS name or an IP address",
                error.to_string(),
            );
            None
        }
    }
}

/// A condition on a text.
pub(super) fn text_match(wanted: &StringMatch, cx: &mut Cx<'_>) -> Option<TextMatch> {
    let StringMatch { at, exact, prefix, regex } = wanted;
    if let Some(empty) = [prefix, regex].into_iter().flatten().find(|text| text.value.is_empty()) {
        let expected = "a prefix or an expression, or {} where any value will do";
        cx.wrong(&empty.at, "\"\"", expected, "it would match everything");
        return None;
    }
    match (exact, prefix, regex) {
        (None, None, None) => Some(TextMatch::Present),
        (Some(exact), None, None) => Some(TextMatch::Exact(exact.value.as_str().into())),
        (None, Some(prefix), None) => Some(TextMatch::Prefix(prefix.value.as_str().into())),
        (None, None, Some(regex)) => anchored(regex, cx).map(TextMatch::Regex),
        _ => {
            cx.wrong(
                at,
                "several of exact, prefix and regex",
                "one of them",
                "only one condition can be given",
            );
            None
        }
    }
}

/// A regular expression for the whole of a text.
pub(super) fn anchored(text: &Spanned<String>, cx: &mut Cx<'_>) -> Option<Regex> {
    // Compiled on its own first, so that no bracket in it can close the group around it.
    regex(text, cx)?;
    build(&format!("^(?:{})$", text.value), text, cx)
}

/// A regular expression as it stands.
pub(super) fn regex(text: &Spanned<String>, cx: &mut Cx<'_>) -> Option<Regex> {
    build(&text.value, text, cx)
}

fn build(pattern: &str, text: &Spanned<String>, cx: &mut Cx<'_>) -> Option<Regex> {
    let built = RegexBuilder::new(pattern)
        .size_limit(REGEX_BYTES)
        .dfa_size_limit(REGEX_BYTES)
        .nest_limit(32)
        .dot_matches_new_line(true)
        .build();
    match built {
        Ok(regex) => Some(regex),
        Err(error) => {
            // The last line of the parser's drawing says what is wrong.
            let error = error.to_string();
            let reason =
                error.lines().last().unwrap_or("").trim_start_matches("error: ").to_owned();
            let found = format!("{:?}", super::yaml::shorten(&text.value));
            cx.wrong(&text.at, found, "a regular expression in RE2's syntax", reason);
            None
        }
    }
}

/// Header names; Envoy's pseudo-headers have fields of their own.
pub(super) fn header_name(text: &Spanned<String>, cx: &mut Cx<'_>) -> Option<http::HeaderName> {
    if text.value.starts_with(':') {
        cx.error(
            &text.at,
            "pseudo-headers have fields of their own: uri, method, authority, scheme",
        );
        return None;
    }
    match http::HeaderName::from_bytes(text.value.as_bytes()) {
        Ok(name) => Some(name),
        Err(_) => {
            cx.wrong(&text.at, format!("{:?}", text.value), "a header name", "not a header name");
            None
        }
    }
}

/// The addresses of a list that can be read; the others are noted.
pub(super) fn addresses(list: &List<String>, cx: &mut Cx<'_>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for text in list {
        match text.value.parse::<IpAddr>() {
            Ok(ip) => addresses.push(ip.to_canonical()),
            Err(_) => {
                cx.wrong(&text.at, format!("{:?}", text.value), "an IP address", "not an address")
            }
        }
    }
    addresses
}
