//! As Istio's resources: a `Gateway`, a `ServiceEntry` and a `VirtualService` for each destination of each
//! namespace. Their names are of the host, so a later suggestion replaces them, and has what they allow.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde::{Deserialize, Serialize};

use super::{
    EarlierRoutes, InForce, Part, Suggestion,
    names::name,
    observed_traffic::{Evidence, Group, ObservedTraffic, SuggestedDestination, SuggestedProtocol},
    yaml::{comment, evidence, head, labels, quoted},
};
use crate::types::Labels;

/// The gateway that traffic goes through.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GatewayPlace {
    /// Its service's full name.
    pub service: String,
    /// The namespace of its processes.
    pub namespace: String,
    /// Their labels.
    pub labels: Labels,
}

/// The ports of a host, and who wants each: with evidence, or by an earlier suggestion.
type Ports = BTreeMap<(u16, SuggestedProtocol), Vec<(Group, Option<Evidence>)>>;

/// Hosts as the workloads of one namespace want them.
type Hosts = BTreeMap<(String, String), Ports>;

/// The resources, in parts of one host. Raw TCP is left out: the service behind an address is not known. `earlier` is
/// what earlier suggestions allow that are in force: what of it is replaced is repeated.
#[must_use]
pub fn istio(
    seen: &ObservedTraffic,
    gateway: &GatewayPlace,
    earlier: &[EarlierRoutes],
) -> Suggestion {
    let mut text = head(seen);
    let mut before: Hosts = BTreeMap::new();
    for (group, wanted) in earlier.iter().flat_map(EarlierRoutes::wanted) {
        add(&mut before, group, wanted, None);
    }
    let mut hosts = before.clone();
    let mut raw: BTreeSet<(&str, &SuggestedDestination)> = BTreeSet::new();
    for (group, all) in &seen.groups {
        for (wanted, evidence) in all {
            if wanted.spoken == SuggestedProtocol::Tcp {
                raw.insert((&group.namespace, wanted));
            } else {
                add(&mut hosts, group.clone(), wanted.clone(), Some(*evidence));
            }
        }
    }
    repeat_wildcards(&mut hosts);
    // What is as before stays where it is.
    hosts.retain(|host, ports| before.get(host) != Some(ports));
    for (namespace, SuggestedDestination { host, port, .. }) in raw {
        text += &comment("", &format!("Left out: raw TCP of {namespace} to {host} port {port}."));
    }
    let mut replaced = BTreeMap::new();
    for EarlierRoutes { namespace, host, place, routes } in earlier {
        let key = (namespace.clone(), host.clone());
        if !hosts.contains_key(&key) {
            continue;
        }
        let resource = format!("VirtualService {namespace}/{}", name(host));
        let there = InForce { resource, place: place.clone() };
        if routes.is_some() {
            replaced.insert(key, there);
        } else {
            hosts.remove(&key);
            let why = format!("{there} was changed since: add to it.");
            text += &comment("", &format!("Left out: {host} of {namespace}. {why}"));
        }
    }
    let part = |((namespace, host), ports): (&(String, String), &Ports)| {
        let all = [
            server(namespace, host, ports, gateway),
            entry(namespace, host, ports),
            routes(namespace, host, ports, gateway),
        ];
        let replaces = replaced.remove(&(namespace.clone(), host.clone()));
        Part { replaces, ..Part::new(namespace, &name(host), all.concat()) }
    };
    let parts = hosts.iter().map(part).collect();
    Suggestion { head: text, parts }
}

/// Adds what a group wants. Evidence counts more than an earlier suggestion.
fn add(hosts: &mut Hosts, group: Group, wanted: SuggestedDestination, evidence: Option<Evidence>) {
    let SuggestedDestination { port, spoken, host } = wanted;
    let ports = hosts.entry((group.namespace.clone(), host)).or_default();
    let groups = ports.entry((port, spoken)).or_default();
    match groups.iter_mut().find(|(known, _)| *known == group) {
        Some((_, known)) => *known = evidence.or(*known),
        None => groups.push((group, evidence)),
    }
    groups.sort_by(|(one, _), (other, _)| one.cmp(other));
}

/// A name hides what a wildcard of its namespace says about it, at either stage. So it says the same itself.
fn repeat_wildcards(hosts: &mut Hosts) {
    let wildcards = hosts.iter().filter(|((_, host), _)| host.starts_with("*."));
    let wildcards: Vec<_> = wildcards.map(|(key, ports)| (key.clone(), ports.clone())).collect();
    for ((namespace, wildcard), wanted) in wildcards {
        let suffix = wildcard.trim_start_matches('*');
        let names: Vec<String> = hosts
            .keys()
            .filter(|(of, host)| {
                *of == namespace && !host.starts_with('*') && host.ends_with(suffix)
            })
            .map(|(_, host)| host.clone())
            .collect();
        for host in names {
            for ((port, spoken), groups) in &wanted {
                let known = hosts.get(&(namespace.clone(), host.clone()));
                let known = known.and_then(|ports| ports.get(&(*port, *spoken))).cloned();
                for (group, evidence) in groups {
                    if known.iter().flatten().all(|(known, _)| known != group) {
                        let wanted = SuggestedDestination {
                            port: *port,
                            spoken: *spoken,
                            host: host.clone(),
                        };
                        add(hosts, group.clone(), wanted, *evidence);
                    }
                }
            }
        }
    }
}

/// `{number: 443, name: tls-443, protocol: TLS}`
fn port_of(port: u16, spoken: SuggestedProtocol) -> String {
    let (name, protocol) = (spoken.name().to_ascii_lowercase(), spoken.name());
    format!("{{number: {port}, name: {name}-{port}, protocol: {protocol}}}")
}

/// The name of the `Gateway` of a namespace's host. No namespace has a dot in its name.
fn gateway_name(namespace: &str, host: &str) -> String {
    name(&match host.strip_prefix("*.") {
        Some(domain) => format!("*.{namespace}.{domain}"),
        None => format!("{namespace}.{host}"),
    })
}

/// What the gateway serves for one host of a namespace.
fn server(namespace: &str, host: &str, ports: &Ports, gateway: &GatewayPlace) -> String {
    let mut text = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata:\n  name: {}\n  namespace: \
         {}\nspec:\n  selector:\n{}  servers:\n",
        gateway_name(namespace, host),
        quoted(&gateway.namespace),
        labels(&gateway.labels, "    ")
    );
    for (port, spoken) in ports.keys() {
        let tls =
            if *spoken == SuggestedProtocol::Tls { "    tls: {mode: PASSTHROUGH}\n" } else { "" };
        let host = quoted(&format!("{namespace}/{host}"));
        let port = port_of(*port, *spoken);
        write!(text, "  - port: {port}\n{tls}    hosts:\n    - {host}\n").ok();
    }
    text
}

fn entry(namespace: &str, host: &str, ports: &Ports) -> String {
    let resolution = if host.starts_with('*') { "NONE" } else { "DNS" };
    let mut text = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: {}\n  \
         namespace: {}\nspec:\n  hosts:\n  - {}\n  exportTo: ['.']\n  location: MESH_EXTERNAL\n  \
         resolution: {resolution}\n  ports:\n",
        name(host),
        quoted(namespace),
        quoted(host)
    );
    for (port, spoken) in ports.keys() {
        writeln!(text, "  - {}", port_of(*port, *spoken)).ok();
    }
    text
}

fn routes(namespace: &str, host: &str, ports: &Ports, gateway: &GatewayPlace) -> String {
    let at = format!("{}/{}", gateway.namespace, gateway_name(namespace, host));
    let mut text = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: {}\n  \
         namespace: {}\nspec:\n  hosts:\n  - {}\n  exportTo: ['.']\n  gateways:\n  - mesh\n  - {at}\n",
        name(host),
        quoted(namespace),
        quoted(host)
    );
    for (wanted, kind, sni) in [
        (SuggestedProtocol::Http, "http", String::new()),
        (SuggestedProtocol::Tls, "tls", format!("      sniHosts:\n      - {}\n", quoted(host))),
    ] {
        let here = || ports.iter().filter(|((_, spoken), _)| *spoken == wanted);
        if here().next().is_none() {
            continue;
        }
        writeln!(text, "  {kind}:").ok();
        for ((port, _), groups) in here() {
            let to = |host: &str| {
                let host = quoted(host);
                format!(
                    "    route:\n    - destination:\n        host: {host}\n        port: {{number: {port}}}\n"
                )
            };
            text.push_str("  - match:\n");
            for (group, seen) in groups {
                let from = source(group);
                let why = seen.map_or_else(|| "suggested before".to_owned(), evidence);
                text += &comment("    ", &why);
                write!(text, "    - gateways: [mesh]\n      port: {port}\n{sni}{from}").ok();
            }
            text.push_str(&to(&gateway.service));
            write!(text, "  - match:\n    - gateways:\n      - {at}\n      port: {port}\n{sni}")
                .ok();
            text.push_str(&to(host));
        }
    }
    text
}

/// Conditions on the workloads of a group.
fn source(group: &Group) -> String {
    let labels = match labels(&group.labels, "        ") {
        none if none.is_empty() => none,
        lines => format!("      sourceLabels:\n{lines}"),
    };
    format!("      sourceNamespace: {}\n{labels}", quoted(&group.namespace))
}
