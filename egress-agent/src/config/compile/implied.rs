//! Server names below one that no `ServiceEntry` has, and that a `VirtualService` leads to a server of the registry
//! which has them all: everything below `example.com` to `www.example.com`. As in Istio the rule is enough, on the
//! ports of TLS that such servers have. Nothing but the rule reaches these names: they have no endpoint.

use std::{
    cell::OnceCell,
    collections::{BTreeSet, HashMap},
};

use super::{
    super::{
        decode::{Report, Spanned},
        names,
        resource::{Meta, Resource},
        service_entry::Resolution,
        virtual_service::VirtualService,
    },
    entry::{CompiledEntry, EntryPort},
    index::Entries,
    unreachable::{is_suffix, leads_to_one_host, pattern},
};
use crate::{
    policy::{Exported, HostIndex, HostPattern, HttpVersion, Protocol},
    types::Port,
};

/// What the rules for the mesh say of names that no entry has.
pub(super) fn entries(known: &Entries, routes: &[Resource<VirtualService>]) -> Vec<CompiledEntry> {
    let servers = Servers { known, hosts: OnceCell::new() };
    let mut implied: Vec<CompiledEntry> = Vec::new();
    let mut places: HashMap<(HostPattern, Port), usize> = HashMap::new();
    for Resource { meta, spec } in routes {
        let wanted = wanted(spec, meta);
        // Those of the Gateway API are for the hosts of an entry.
        if spec.is_translated || wanted.is_empty() || !leads_to_one_host(spec, &meta.namespace) {
            continue;
        }
        // What is wrong with it is reported where the rules are read.
        let mut unread = Report::default();
        let own = &mut meta.cx(&mut unread);
        let exported = names::exported(&spec.export_to, &meta.namespace, false, own);
        let ports = servers.ports(spec, meta, &exported);
        for (host, port) in wanted {
            for number in ports.iter().filter(|number| port.is_none_or(|port| port == **number)) {
                if known.has(&host, *number) {
                    continue;
                }
                let place = *places.entry((host.clone(), *number)).or_insert_with(|| {
                    implied.push(entry(meta.clone(), host.clone(), *number));
                    implied.len() - 1
                });
                if let Some(entry) = implied.get_mut(place) {
                    entry.exported = both(&entry.exported, &exported);
                }
            }
        }
    }
    implied
}

/// The wildcards among the server names of its rules for the mesh, each with the port that was dialled.
fn wanted(spec: &VirtualService, meta: &Meta) -> Vec<(HostPattern, Option<Port>)> {
    let is_mesh = |name: &Spanned<String>| name.value == "mesh";
    let all = spec.tls.0.iter().flat_map(|rule| &rule.matches.0);
    let of_mesh = all.filter(|one| {
        let own = if one.gateways.is_empty() { &spec.gateways } else { &one.gateways };
        own.is_empty() || own.iter().any(is_mesh)
    });
    of_mesh
        .flat_map(|one| {
            let port = one.port.as_ref().map(|port| port.value);
            one.sni_hosts.iter().map(move |name| (name, port))
        })
        .filter_map(|(name, port)| Some((pattern(name, &meta.namespace)?, port)))
        .filter(|(host, _)| is_suffix(host))
        .collect()
}

/// Names without an endpoint, exported to no namespace yet.
fn entry(meta: Meta, host: HostPattern, number: Port) -> CompiledEntry {
    let (protocol, http) = (Protocol::Tls, HttpVersion::Auto);
    CompiledEntry {
        meta,
        hosts: vec![host],
        ports: vec![EntryPort { number, protocol, http, name: String::new(), target: number }],
        exported: Exported::To(Vec::new()),
        addresses: Vec::new(),
        subject_alt_names: Vec::new(),
        broken: false,
        rate: None,
        resolution: Resolution::Static,
        endpoints: Vec::new(),
    }
}

fn both(one: &Exported, other: &Exported) -> Exported {
    match (one, other) {
        (Exported::To(one), Exported::To(other)) => {
            let new = other.iter().filter(|namespace| !one.contains(namespace));
            Exported::To(one.iter().chain(new).cloned().collect())
        }
        (Exported::All, _) | (_, Exported::All) => Exported::All,
    }
}

/// Single hosts of the registry with ports of TLS.
struct Servers<'e> {
    known: &'e Entries,
    /// Only few configurations have such rules.
    hosts: OnceCell<HostIndex<usize>>,
}

impl Servers<'_> {
    /// The ports of those that are among the hosts of a virtual service, and that all see who see it.
    fn ports(&self, spec: &VirtualService, meta: &Meta, exported: &Exported) -> BTreeSet<Port> {
        let hosts = self.hosts.get_or_init(|| {
            let mut hosts = HostIndex::default();
            for (index, entry) in self.known.iter().enumerate() {
                let single = entry.hosts.iter().filter(|host| host.exact().is_some());
                single.for_each(|host| hosts.add(host, index));
            }
            hosts
        });
        let within = spec.hosts.iter().filter_map(|host| pattern(host, &meta.namespace));
        let found = within.flat_map(|host| hosts.meeting_any(&host.rule_hosts()));
        let entries = found.filter_map(|index| self.known.get(index));
        let seen =
            entries.filter(|entry| entry.exported == Exported::All || entry.exported == *exported);
        let ports = seen.flat_map(|entry| &entry.ports);
        ports.filter(|port| port.protocol == Protocol::Tls).map(|port| port.number).collect()
    }
}
