//! `ServiceEntry` to the registry: validation as Istio's, and where each service's endpoints are.

use std::{collections::HashSet, net::SocketAddr, sync::Arc};

use ipnet::IpNet;

use super::super::{
    decode::{At, Cx},
    names,
    resource::{Meta, Resource},
    service_entry::{Location, Resolution, ServiceEndpoint, ServiceEntry, ServicePort},
};
use super::{Compiler, rates};
use crate::{
    policy::{Discovery, Endpoint, Exported, HostPattern, HttpVersion, Protocol, RateLimit},
    types::{Host, Labels, Port},
};

/// A service entry, read.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) meta: Meta,
    pub(super) hosts: Vec<HostPattern>,
    pub(super) ports: Vec<EntryPort>,
    pub(super) exported: Exported,
    pub(super) addresses: Vec<IpNet>,
    pub(super) subject_alt_names: Vec<String>,
    /// Some of its ports have errors, told already.
    pub(super) broken: bool,
    /// What each workload may ask of each host.
    pub(super) rate: Option<Arc<RateLimit>>,
    resolution: Resolution,
    endpoints: Vec<EntryEndpoint>,
}

/// A port of it.
#[derive(Debug)]
pub(super) struct EntryPort {
    pub(super) number: Port,
    pub(super) protocol: Protocol,
    pub(super) http: HttpVersion,
    name: String,
    target: Port,
}

#[derive(Debug)]
struct EntryEndpoint {
    host: Host,
    ports: Vec<(String, Port)>,
    labels: Labels,
    weight: u32,
}

impl Entry {
    /// The port with this number.
    pub(super) fn port(&self, number: Port) -> Option<&EntryPort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Where the endpoints of `host` on `port` are, those with `labels`.
    pub(super) fn discovery(
        &self,
        host: &HostPattern,
        port: &EntryPort,
        labels: &Labels,
    ) -> Discovery {
        let at = |endpoint: &EntryEndpoint| {
            let own = endpoint.ports.iter().find(|(name, _)| *name == port.name);
            own.map_or(port.target, |(_, number)| *number)
        };
        let chosen = self.endpoints.iter();
        let chosen = chosen.filter(|e| crate::policy::has_labels(&e.labels, labels));
        if self.resolution == Resolution::Static {
            return Discovery::Static(
                chosen
                    .filter_map(|endpoint| match endpoint.host {
                        Host::Ip(ip) => Some(Endpoint {
                            addr: SocketAddr::new(ip, at(endpoint).get()),
                            weight: endpoint.weight,
                        }),
                        Host::Name(_) => None,
                    })
                    .collect(),
            );
        }
        if !self.endpoints.is_empty() {
            return Discovery::Dns(chosen.map(|e| (e.host.clone(), at(e))).collect());
        }
        match host {
            HostPattern::Exact(host) => Discovery::Dns(vec![(host.clone(), port.target)]),
            HostPattern::Below(_) | HostPattern::Any => Discovery::Request(port.target),
        }
    }

    /// Whether one of the addresses is used at a time.
    pub(super) fn uses_one_address(&self) -> bool {
        self.resolution == Resolution::DnsRoundRobin
    }

    /// Addresses that applications dial for it without asking the gateway, where they are known.
    pub(super) fn dialled(&self) -> Vec<IpNet> {
        if !self.addresses.is_empty() {
            return self.addresses.clone();
        }
        let ips = self.endpoints.iter().filter_map(|endpoint| match endpoint.host {
            Host::Ip(ip) => Some(IpNet::from(ip)),
            Host::Name(_) => None,
        });
        ips.collect()
    }
}

impl Entry {
    /// The entry that a host and port of an egress policy stands for.
    pub(super) fn of_policy(
        meta: Meta,
        host: HostPattern,
        number: Port,
        protocol: Protocol,
    ) -> Self {
        let address = match &host {
            HostPattern::Exact(host @ Host::Ip(_)) => Some(host.clone()),
            HostPattern::Exact(Host::Name(_)) | HostPattern::Below(_) | HostPattern::Any => None,
        };
        let endpoints = address.map(|host| EntryEndpoint {
            host,
            ports: Vec::new(),
            labels: Labels::new(),
            weight: 1,
        });
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        let http = HttpVersion::Auto;
        Self {
            meta,
            resolution: if endpoints.is_empty() { Resolution::Dns } else { Resolution::Static },
            hosts: vec![host],
            ports: vec![EntryPort { number, protocol, http, name: String::new(), target: number }],
            exported: Exported::All,
            addresses: Vec::new(),
            subject_alt_names: Vec::new(),
            broken: false,
            rate: None,
            endpoints,
        }
    }
}

impl Compiler<'_> {
    /// Reads a service entry; without a host there is nothing to register.
    pub(super) fn entry(&mut self, resource: &Resource<ServiceEntry>) -> Option<Entry> {
        let Resource { meta, spec } = resource;
        let mut cx = meta.cx(self.report);
        let ServiceEntry {
            at,
            hosts,
            addresses,
            ports,
            location,
            resolution,
            endpoints,
            export_to,
            subject_alt_names,
        } = spec;
        let resolution_at = resolution.as_ref().map_or(at, |resolution| &resolution.at);
        let resolution = resolution.as_ref().map_or(Resolution::None, |r| r.value);
        if let Some(location) = location.as_ref().filter(|l| l.value == Location::MeshInternal) {
            cx.error(
                &location.at,
                "MESH_INTERNAL is not supported: services inside the mesh are not egress",
            );
        }
        names::host_count(hosts, at, &mut cx);
        let hosts = entry_hosts(hosts, &mut cx);
        let given = ports.0.len();
        let told = given == 0 && cx.has_told("spec.ports");
        if given == 0 && !told {
            cx.wrong(&at.field("ports"), "no port", "at least one", "nothing could be reached");
        }
        let ports = entry_ports(&ports.0, &mut cx);
        let mut nets = Vec::new();
        for text in addresses {
            let Some(net) = names::network(text, &mut cx) else { continue };
            let is_network = net.prefix_len() < net.max_prefix_len();
            if is_network && !matches!(resolution, Resolution::None | Resolution::Static) {
                cx.wrong(
                    &text.at,
                    format!("{:?}", text.value),
                    "an IP address",
                    "networks need resolution NONE or STATIC",
                );
            }
            nets.push(net);
        }
        let read = endpoints.0.iter().filter_map(|e| endpoint(e, resolution, &ports, &mut cx));
        let read: Vec<_> = read.collect();
        for (endpoint, source) in read.iter().zip(&endpoints.0) {
            if let Host::Ip(ip) = endpoint.host
                && !self.guard.allows(ip)
            {
                let at = source.address.as_ref().map_or(&source.at, |address| &address.at);
                cx.wrong(at, format!("{ip}"), "an address outside", "the gateway never dials this address: it is loopback, link-local, multicast, in clusterCidrs or deniedCidrs, or a gateway's own");
            }
        }
        let wildcard = hosts.iter().any(|(host, _)| host.exact().is_none());
        let count = endpoints.0.len();
        let ports_are = |wanted: fn(Protocol) -> bool| ports.iter().all(|p| wanted(p.protocol));
        match resolution {
            Resolution::None if count > 0 => {
                cx.error(
                    &at.field("endpoints"),
                    "resolution NONE takes no endpoints; say STATIC or DNS",
                );
            }
            Resolution::Static if count == 0 && !cx.has_told("spec.workloadSelector") => {
                cx.error(&at.field("endpoints"), "resolution STATIC needs endpoints");
            }
            Resolution::Dns | Resolution::DnsRoundRobin if wildcard && count == 0 => {
                cx.error(resolution_at, "a wildcard can't be resolved by DNS; leave resolution out (NONE) and the gateway resolves the host that was asked for, or give endpoints");
            }
            Resolution::DnsRoundRobin if count > 1 => {
                cx.error(&at.field("endpoints"), "DNS_ROUND_ROBIN takes at most one endpoint");
            }
            Resolution::DynamicDns => {
                if hosts.iter().any(|(host, _)| host.exact().is_some()) {
                    cx.error(resolution_at, "DYNAMIC_DNS is for wildcard hosts only");
                }
                if count > 0 || !addresses.is_empty() {
                    cx.error(resolution_at, "DYNAMIC_DNS takes neither addresses nor endpoints");
                }
                if !ports_are(|protocol| protocol != Protocol::Tcp) {
                    cx.error(
                        resolution_at,
                        "DYNAMIC_DNS needs ports of HTTP, HTTP2, GRPC, HTTPS or TLS",
                    );
                }
            }
            Resolution::None | Resolution::Static | Resolution::Dns | Resolution::DnsRoundRobin => {
            }
        }
        let has_tcp = !ports_are(|protocol| protocol != Protocol::Tcp);
        if has_tcp && hosts.len() > 1 && resolution != Resolution::None {
            cx.error(&at.field("hosts"), "several hosts on a port that is neither HTTP nor TLS can't be told apart; use one ServiceEntry each");
        }
        if has_tcp && addresses.is_empty() {
            cx.warn(&at.field("addresses"), "raw TCP is recognized by its address; without addresses those of the endpoints, or what the host resolves to on each node, are used").code = Some("IST0134");
        }
        let spoken: Vec<_> = ports.iter().map(|port| port.protocol).collect();
        let rate = rates::annotated(&meta.annotations, &meta.label, &spoken, &mut cx);
        let hosts: Vec<_> = hosts.into_iter().map(|(host, _)| host).collect();
        (!hosts.is_empty()).then(|| Entry {
            broken: told || ports.len() != given,
            rate,
            exported: names::exported(export_to, &meta.namespace, true, &mut cx),
            meta: meta.clone(),
            hosts,
            ports,
            addresses: nets,
            subject_alt_names: subject_alt_names.iter().map(|name| name.value.clone()).collect(),
            resolution,
            endpoints: read,
        })
    }
}

fn entry_hosts<'a>(hosts: &'a [At<String>], cx: &mut Cx<'_>) -> Vec<(HostPattern, &'a At<String>)> {
    let mut read = Vec::new();
    let mut seen = HashSet::new();
    for text in hosts {
        let Some(host) = names::pattern(text, cx) else { continue };
        if host == HostPattern::Any {
            cx.wrong(
                &text.at,
                "\"*\"",
                "a host, or *. and a host",
                "a bare * would let everything out; for that there is outboundTrafficPolicy",
            );
        } else if !seen.insert(host.clone()) {
            cx.error(&text.at, format!("the host {host} is listed twice"));
        } else {
            read.push((host, text));
        }
    }
    read
}

fn entry_ports(ports: &[ServicePort], cx: &mut Cx<'_>) -> Vec<EntryPort> {
    let mut read: Vec<EntryPort> = Vec::new();
    for ServicePort { at: _, number, name, protocol, target_port } in ports {
        let (Some(number), Some(name)) = (number, name) else { continue };
        if read.iter().any(|port| port.number == number.value) {
            cx.error(&number.at, format!("the port {} is listed twice", number.value));
            continue;
        }
        if read.iter().any(|port| port.name == name.value) {
            cx.error(&name.at, format!("two ports are named {:?}", name.value));
        }
        let Some((protocol, http)) = super::protocol(protocol.as_ref(), cx) else { continue };
        let target = target_port.as_ref().map_or(number.value, |target| target.value);
        let name = name.value.clone();
        read.push(EntryPort { number: number.value, protocol, http, name, target });
    }
    read
}

fn endpoint(
    endpoint: &ServiceEndpoint,
    resolution: Resolution,
    known: &[EntryPort],
    cx: &mut Cx<'_>,
) -> Option<EntryEndpoint> {
    let ServiceEndpoint { at: _, address, ports, labels, weight } = endpoint;
    let address = address.as_ref()?;
    if address.value.starts_with("unix:") {
        cx.error(&address.at, "Unix sockets are not supported as endpoints");
        return None;
    }
    let host = names::host(address, cx)?;
    if resolution == Resolution::Static && host.as_name().is_some() {
        cx.wrong(
            &address.at,
            format!("{:?}", address.value),
            "an IP address",
            "resolution STATIC takes addresses; for names say DNS",
        );
        return None;
    }
    for (name, number) in &ports.0 {
        if !known.iter().any(|port| port.name == name.value) {
            cx.error(&number.at, format!("the service has no port named {:?}", name.value));
        }
    }
    Some(EntryEndpoint {
        host,
        ports: ports.0.iter().map(|(name, number)| (name.value.clone(), number.value)).collect(),
        labels: names::labels(labels),
        weight: weight.as_ref().map_or(1, |weight| weight.value.max(1)),
    })
}
