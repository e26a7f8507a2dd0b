//! As Istio's resources: for each namespace a `ServiceEntry` and a `VirtualService` for each destination,
//! and one `Gateway` for all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{
    seen::{Evidence, Group, Seen, Spoken, Wanted},
    yaml::{evidence, head, labels, mark, quoted},
};
use crate::types::Labels;

/// Bytes of a resource's name at most (RFC 1123 subdomain).
const NAME: usize = 253;

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

/// The ports of a host, and who wants each.
type Ports<'a> = BTreeMap<(u16, Spoken), Vec<(&'a Group, Evidence)>>;

/// Hosts as the workloads of one namespace want them.
type Hosts<'a> = BTreeMap<(&'a str, &'a str), Ports<'a>>;

/// The resources, as one file. Raw TCP is left out: an address says nothing of the service behind it.
#[must_use]
pub fn istio(seen: &Seen, gateway: &GatewayPlace) -> String {
    let mut text = head(seen);
    let mut hosts: Hosts<'_> = BTreeMap::new();
    let mut raw: BTreeSet<(&str, &Wanted)> = BTreeSet::new();
    for (group, all) in &seen.groups {
        let namespace = group.namespace.as_str();
        for (wanted, evidence) in all {
            let Wanted { port, spoken, host } = wanted;
            if *spoken == Spoken::Tcp {
                raw.insert((namespace, wanted));
                continue;
            }
            let ports = hosts.entry((namespace, host)).or_default();
            ports.entry((*port, *spoken)).or_default().push((group, *evidence));
        }
    }
    for (namespace, Wanted { host, port, .. }) in raw {
        writeln!(text, "# Left out: raw TCP of {namespace} to {host} port {port}.").ok();
    }
    if hosts.is_empty() {
        return text;
    }
    repeat_wildcards(&mut hosts);
    text.push_str(
        "# A host that was suggested before has resources of these names already: add to them what is new,\n# \
         since applying these replaces them.\n",
    );
    let servers = servers(&hosts);
    let own = format!("suggested-{}", mark(&servers));
    text.push_str(&head_of(&own, gateway));
    text.push_str(&servers);
    for ((namespace, host), ports) in &hosts {
        text.push_str(&entry(namespace, host, ports));
        text.push_str(&routes(namespace, host, ports, (gateway, &own)));
    }
    text
}

/// A name hides what a wildcard of its namespace says about it, at either stage. So it says the same itself.
fn repeat_wildcards(hosts: &mut Hosts<'_>) {
    let wildcards = hosts.iter().filter(|((_, host), _)| host.starts_with("*."));
    let wildcards: Vec<_> = wildcards.map(|(key, ports)| (*key, ports.clone())).collect();
    for ((namespace, wildcard), wanted) in wildcards {
        let suffix = wildcard.trim_start_matches('*');
        for ((of, host), ports) in hosts.iter_mut() {
            if *of != namespace || host.starts_with('*') || !host.ends_with(suffix) {
                continue;
            }
            for (port, groups) in &wanted {
                let known = ports.entry(*port).or_default();
                for (group, evidence) in groups {
                    if known.iter().all(|(known, _)| known != group) {
                        known.push((*group, *evidence));
                    }
                }
            }
        }
    }
}

/// The name of a host's resources: no two hosts share one. A host that is no name of a resource, or too
/// long for one, is named by its hash, with what can be read of it.
fn name(host: &str) -> String {
    let plain = match host.strip_prefix("*.") {
        Some(domain) => format!("suggested-all.{domain}"),
        None => format!("suggested.{host}"),
    };
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    if plain.len() <= NAME && plain.bytes().all(allowed) {
        return plain;
    }
    let hash = digest(&SHA256, host.as_bytes());
    let hash: String = hash.as_ref().iter().take(16).map(|b| format!("{b:02x}")).collect();
    let legible = host.bytes().map(|b| if allowed(b) { char::from(b) } else { 'x' });
    let name: String = format!("suggested-{hash}.").chars().chain(legible).take(NAME).collect();
    name.trim_end_matches(['-', '.']).to_owned()
}

/// `{number: 443, name: tls-443, protocol: TLS}`
fn port_of(port: u16, spoken: Spoken) -> String {
    let (name, protocol) = (spoken.name().to_ascii_lowercase(), spoken.name());
    format!("{{number: {port}, name: {name}-{port}, protocol: {protocol}}}")
}

/// The gateway of this name. Its name is of what it serves, so an earlier suggestion's keeps its own.
fn head_of(name: &str, gateway: &GatewayPlace) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata:\n  name: {name}\n  \
         namespace: {}\nspec:\n  selector:\n{}  servers:\n",
        quoted(&gateway.namespace),
        labels(&gateway.labels, "    ")
    )
}

fn servers(all: &Hosts<'_>) -> String {
    let mut ports: BTreeMap<(u16, Spoken), BTreeSet<String>> = BTreeMap::new();
    for ((namespace, host), of) in all {
        for port in of.keys() {
            ports.entry(*port).or_default().insert(format!("{namespace}/{host}"));
        }
    }
    let mut text = String::new();
    for ((port, spoken), hosts) in ports {
        let tls = if spoken == Spoken::Tls { "    tls: {mode: PASSTHROUGH}\n" } else { "" };
        write!(text, "  - port: {}\n{tls}    hosts:\n", port_of(port, spoken)).ok();
        for host in hosts {
            writeln!(text, "    - {}", quoted(&host)).ok();
        }
    }
    text
}

fn entry(namespace: &str, host: &str, ports: &Ports<'_>) -> String {
    let resolution = if host.starts_with('*') { "NONE" } else { "DNS" };
    let mut text = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: {}\n  \
         namespace: {}\nspec:\n  hosts: [{}]\n  exportTo: ['.']\n  location: MESH_EXTERNAL\n  \
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

/// The gateway has its place, and the name of the resource.
fn routes(
    namespace: &str,
    host: &str,
    ports: &Ports<'_>,
    (gateway, own): (&GatewayPlace, &str),
) -> String {
    let at = format!("{}/{own}", gateway.namespace);
    let mut text = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: {}\n  \
         namespace: {}\nspec:\n  hosts: [{}]\n  exportTo: ['.']\n  gateways: [mesh, {at}]\n",
        name(host),
        quoted(namespace),
        quoted(host)
    );
    for (wanted, kind, sni) in [
        (Spoken::Http, "http", String::new()),
        (Spoken::Tls, "tls", format!(", sniHosts: [{}]", quoted(host))),
    ] {
        let here = || ports.iter().filter(|((_, spoken), _)| *spoken == wanted);
        if here().next().is_none() {
            continue;
        }
        writeln!(text, "  {kind}:").ok();
        for ((port, _), groups) in here() {
            let to = |host: &str| {
                let host = quoted(host);
                format!("route: [{{destination: {{host: {host}, port: {{number: {port}}}}}}}]")
            };
            text.push_str("  - match:\n");
            for (group, seen) in groups {
                let from = source(group);
                writeln!(text, "    # {}", evidence(*seen)).ok();
                writeln!(text, "    - {{gateways: [mesh], port: {port}{sni}{from}}}").ok();
            }
            writeln!(text, "    {}", to(&gateway.service)).ok();
            writeln!(text, "  - match: [{{gateways: [{at}], port: {port}{sni}}}]").ok();
            writeln!(text, "    {}", to(host)).ok();
        }
    }
    text
}

/// Conditions on the workloads of a group.
fn source(group: &Group) -> String {
    let pairs =
        group.labels.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value)));
    let pairs: Vec<String> = pairs.collect();
    let labels = match pairs.as_slice() {
        [] => String::new(),
        pairs => format!(", sourceLabels: {{{}}}", pairs.join(", ")),
    };
    format!(", sourceNamespace: {}{labels}", quoted(&group.namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_hosts_share_a_name() {
        let long = ["a", "b", "c", "d"].map(|label| label.repeat(62)).join(".");
        let (other, below) = (long.replace("dd", "de"), format!("*.{long}"));
        let hosts = [
            "a-b.example",
            "a.b.example",
            "a--b.example",
            "*.e.com",
            "x.e.com",
            "all.e.com",
            "e.com",
            "a_b.example",
            "axb.example",
            "_a.example",
            "xa.example",
            "a_.b_",
            &long,
            &other,
            &below,
        ];
        let mut names = BTreeSet::new();
        for host in hosts {
            let name = name(host);
            assert!(name.len() <= NAME, "{name}");
            for label in name.split('.') {
                let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                assert!((1..=63).contains(&label.len()) && label.bytes().all(fine), "{name}");
                assert!(!label.starts_with('-') && !label.ends_with('-'), "{name}");
            }
            assert!(names.insert(name.clone()), "{name} of {host} twice");
        }
        assert_eq!(name("a-b.example"), "suggested.a-b.example");
        assert_eq!(name("*.e.com"), "suggested-all.e.com");
    }
}
