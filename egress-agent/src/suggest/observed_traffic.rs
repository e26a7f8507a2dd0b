//! What was seen: which workloads asked for what, how often and when.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use crate::{
    telemetry::{FlowRecord, FlowVerdict},
    types::{Host, Labels, Port},
};

/// Labels that differ between the pods of one workload, so that no selector may ask for them.
const OF_ONE_POD: [&str; 6] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "controller-revision-hash",
    "controller-uid",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// Subdomains of one domain that a wildcard takes the place of, where wildcards are wanted.
const MANY: usize = 3;

/// Reasons for which a resource is missing. For others none helps.
const MISSING: [&str; 7] = [
    "egress_policy_denied",
    "host_not_in_registry",
    "host_not_served",
    "no_gateway_route",
    "no_matching_rule",
    "no_route",
    "not_redirected",
];

/// A workload's labels, for who knows them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Labelled {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
}

/// Workloads that one selector selects.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Group {
    pub(super) namespace: String,
    /// Empty for every pod of the namespace.
    pub(super) labels: Labels,
}

/// What a resource allows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SuggestedProtocol {
    Http,
    Tls,
    Tcp,
}

impl SuggestedProtocol {
    /// As resources have it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
        }
    }
}

/// A destination.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SuggestedDestination {
    pub(super) port: u16,
    pub(super) spoken: SuggestedProtocol,
    /// A name, an address, or `*.` and a name.
    pub(super) host: String,
}

/// How often and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Evidence {
    pub(super) count: u64,
    pub(super) first: SystemTime,
    pub(super) last: SystemTime,
}

impl Evidence {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// Everything that was seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObservedTraffic {
    pub(super) groups: BTreeMap<Group, BTreeMap<SuggestedDestination, Evidence>>,
    /// Names of the workloads of each group.
    pub(super) names: BTreeMap<Group, BTreeSet<String>>,
    /// Flows that no resource could allow, by why.
    pub(super) left_out: BTreeMap<&'static str, u64>,
}

impl ObservedTraffic {
    /// Of these flows. Workloads whose labels are not known are told apart by namespace alone.
    #[must_use]
    pub fn of(flows: &[FlowRecord], known: &[Labelled]) -> Self {
        let mut seen = Self::default();
        for flow in flows.iter().filter(|flow| is_missing(flow)) {
            match (wanted(flow), &flow.namespace, &flow.workload) {
                (Ok(wanted), Some(namespace), Some(name)) => {
                    let group = group(namespace, name, known);
                    seen.names.entry(group.clone()).or_default().insert(name.clone());
                    let evidence = Evidence { count: 1, first: flow.time, last: flow.time };
                    seen.add(group, wanted, evidence);
                }
                (Err(why), ..) => *seen.left_out.entry(why).or_default() += 1,
                (Ok(_), ..) => {
                    *seen.left_out.entry("of workloads that are not known").or_default() += 1;
                }
            }
        }
        seen
    }

    /// The same with wildcards: three hosts or more below one domain become all below it.
    #[must_use]
    pub fn with_wildcards(self) -> Self {
        let Self { groups, names, left_out } = self;
        let mut seen = Self { names, left_out, ..Self::default() };
        for (group, all) in groups {
            let mut siblings: BTreeMap<(u16, SuggestedProtocol, &str), usize> = BTreeMap::new();
            for wanted in all.keys() {
                if let Some(parent) = parent(wanted) {
                    *siblings.entry((wanted.port, wanted.spoken, parent)).or_default() += 1;
                }
            }
            for (wanted, evidence) in &all {
                let many = parent(wanted).filter(|parent| {
                    siblings.get(&(wanted.port, wanted.spoken, *parent)).is_some_and(|n| *n >= MANY)
                });
                let host = many.map_or_else(|| wanted.host.clone(), |parent| format!("*.{parent}"));
                seen.add(group.clone(), SuggestedDestination { host, ..wanted.clone() }, *evidence);
            }
        }
        seen
    }

    /// Whether there is nothing to suggest.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    fn add(&mut self, group: Group, wanted: SuggestedDestination, evidence: Evidence) {
        let known = self.groups.entry(group).or_default();
        known.entry(wanted).and_modify(|known| known.add(evidence)).or_insert(evidence);
    }
}

/// Whether a resource is missing for it.
fn is_missing(flow: &FlowRecord) -> bool {
    let reason = flow.reason.as_deref().unwrap_or_default();
    flow.verdict == FlowVerdict::Deny && MISSING.contains(&reason)
}

/// The domain above a name, if a wildcard below it may be suggested.
fn parent(wanted: &SuggestedDestination) -> Option<&str> {
    if wanted.spoken == SuggestedProtocol::Tcp || wanted.host.parse::<IpAddr>().is_ok() {
        return None;
    }
    let (_, parent) = wanted.host.split_once('.')?;
    is_of_one_owner(parent).then_some(parent)
}

/// Whether a domain is no top-level domain, nor looks like what a country registers below:
/// `co.uk`, `com.au`. A list of all public suffixes would be out of date; suggestions are to be read.
fn is_of_one_owner(domain: &str) -> bool {
    match domain.split_once('.') {
        None => false,
        Some((short, country)) => country.len() != 2 || short.len() > 3,
    }
}

fn wanted(flow: &FlowRecord) -> Result<SuggestedDestination, &'static str> {
    let protocol = flow.protocol.to_ascii_uppercase();
    let spoken = match &*protocol {
        "TLS" => SuggestedProtocol::Tls,
        "TCP" => SuggestedProtocol::Tcp,
        http if http.starts_with("HTTP/") => SuggestedProtocol::Http,
        _ => return Err("of other protocols than TCP"),
    };
    let port = flow.destination_port.and_then(Port::new).ok_or("without a port")?.get();
    // A node may know several names of an address; none of them is the one that was meant.
    let name = flow.host.as_deref().filter(|host| !host.contains(','));
    let host = match (name, flow.destination_address) {
        (Some(host), _) => {
            let bare = match host.rsplit_once(':') {
                Some((bare, port)) if port.bytes().all(|b| b.is_ascii_digit()) => bare,
                _ => host,
            };
            Host::parse(bare).map_err(|_| "for hosts that are no names")?
        }
        (None, Some(address)) => Host::Ip(address.to_canonical()),
        (None, None) => return Err("without a host"),
    };
    if spoken != SuggestedProtocol::Tcp && host.as_name().is_none() {
        return Err("for an address instead of a name");
    }
    Ok(SuggestedDestination { port, spoken, host: host.to_string() })
}

fn group(namespace: &str, name: &str, known: &[Labelled]) -> Group {
    let found = known.iter().find(|known| known.namespace == namespace && known.name == name);
    let mut labels = found.map(|found| found.labels.clone()).unwrap_or_default();
    labels.retain(|key, _| !OF_ONE_POD.contains(&key.as_str()));
    Group { namespace: namespace.to_owned(), labels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wildcard_is_below_a_public_suffix() {
        let parent_of = |host: &str, spoken| {
            let wanted = SuggestedDestination { port: 443, spoken, host: host.to_owned() };
            parent(&wanted).map(str::to_owned)
        };
        for host in [
            "a",
            "example.com",
            "a.co.uk",
            "a.com.au",
            "a.gov.br",
            "a.ac.jp",
            "a.edu.cn",
            "10.0.0.1",
        ] {
            assert_eq!(parent_of(host, SuggestedProtocol::Tls), None, "{host}");
        }
        for (host, parent) in [
            ("a.example.com", "example.com"),
            ("a.ibm.com", "ibm.com"),
            ("a.example.de", "example.de"),
            ("a.example.co.uk", "example.co.uk"),
            ("a.b.example.com", "b.example.com"),
        ] {
            assert_eq!(parent_of(host, SuggestedProtocol::Http).as_deref(), Some(parent));
            assert_eq!(parent_of(host, SuggestedProtocol::Tcp), None);
        }
    }

    #[test]
    fn hosts_below_a_public_suffix_stay_as_they_are() {
        let evidence =
            Evidence { count: 1, first: SystemTime::UNIX_EPOCH, last: SystemTime::UNIX_EPOCH };
        let group = Group { namespace: "shop".into(), labels: Labels::default() };
        let wildcards = |hosts: &[&str]| {
            let mut seen = ObservedTraffic::default();
            for host in hosts {
                let host = (*host).to_owned();
                seen.add(
                    group.clone(),
                    SuggestedDestination { port: 443, spoken: SuggestedProtocol::Tls, host },
                    evidence,
                );
            }
            let all = seen.with_wildcards().groups.into_values().flatten();
            all.map(|(wanted, _)| wanted.host).collect::<Vec<_>>()
        };
        assert_eq!(
            wildcards(&["a.co.uk", "b.co.uk", "c.co.uk"]),
            ["a.co.uk", "b.co.uk", "c.co.uk"]
        );
        assert_eq!(wildcards(&["a.x.co.uk", "b.x.co.uk", "c.x.co.uk"]), ["*.x.co.uk"]);
    }
}
