//! `ServiceEntry` to the registry: validation as Istio's, and where each service's endpoints are.

use std::collections::HashSet;

use super::super::{
    decode::{Cx, Spanned, nearest},
    names,
    resource::Resource,
    service_entry::{Location, Resolution, ServiceEndpoint, ServiceEntry, ServicePort},
};
use super::{
    Compiler,
    entry::{CompiledEntry, EntryEndpoint, EntryPort},
    rates,
};
use crate::{
    policy::{HostPattern, HttpVersion, Protocol},
    types::Host,
};

impl Compiler<'_> {
    /// Reads a service entry; without a host there is nothing to register.
    pub(super) fn entry(&mut self, resource: &Resource<ServiceEntry>) -> Option<CompiledEntry> {
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
            let message = "services inside the mesh are not egress, so this has no effect here";
            cx.warn(&location.at, message);
            return None;
        }
        // Endpoints are chosen by it, and none is known.
        if cx.has_told("spec.workloadSelector") {
            if !endpoints.0.is_empty() {
                let message = "workloadSelector and endpoints: give one";
                cx.wrong(&at.field("endpoints"), "endpoints", "nothing", message);
            }
            return None;
        }
        names::host_count(hosts, at, &mut cx);
        let hosts = entry_hosts(hosts, &mut cx);
        let given = ports.0.len();
        let told = given == 0 && cx.has_told("spec.ports");
        if given == 0 && !told {
            cx.warn(&at.field("ports"), "without ports nothing of it is reached");
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
            Resolution::Static if count == 0 => {
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
            cx.warn(&at.field("addresses"), "raw TCP is recognized by its address; without addresses by those of the endpoints, or by its port, and where services share that by what the host resolves to").code = Some("IST0134");
        }
        let spoken: Vec<_> = ports.iter().map(|port| port.protocol).collect();
        let rate = rates::annotated(&meta.annotations, &meta.label, &spoken, &mut cx);
        let hosts: Vec<_> = hosts.into_iter().map(|(host, _)| host).collect();
        (!hosts.is_empty()).then(|| CompiledEntry {
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

fn entry_hosts<'a>(
    hosts: &'a [Spanned<String>],
    cx: &mut Cx<'_>,
) -> Vec<(HostPattern, &'a Spanned<String>)> {
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
        let Some((protocol, http)) = self::protocol(protocol.as_ref(), cx) else { continue };
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
    let ServiceEndpoint { at: _, address, ports, labels, weight, locality } = endpoint;
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
        locality: super::locality::locality(locality.as_ref(), cx),
    })
}

/// What a declared protocol means here.
pub(super) fn protocol(
    text: Option<&Spanned<String>>,
    cx: &mut Cx<'_>,
) -> Option<(Protocol, HttpVersion)> {
    const KNOWN: [&str; 6] = ["HTTP", "HTTP2", "GRPC", "HTTPS", "TLS", "TCP"];
    let Some(text) = text else { return Some((Protocol::Tcp, HttpVersion::Auto)) };
    match text.value.to_ascii_uppercase().as_str() {
        "HTTP" | "GRPC-WEB" => Some((Protocol::Http, HttpVersion::Auto)),
        "HTTP2" | "GRPC" => Some((Protocol::Http, HttpVersion::Http2)),
        "HTTPS" | "TLS" => Some((Protocol::Tls, HttpVersion::Auto)),
        "TCP" => Some((Protocol::Tcp, HttpVersion::Auto)),
        "MONGO" | "MYSQL" | "REDIS" | "POSTGRES" | "CASSANDRA" => {
            cx.warn(&text.at, format!("{} is treated as TCP", text.value));
            Some((Protocol::Tcp, HttpVersion::Auto))
        }
        _ => {
            let hint = nearest(&text.value, KNOWN.into_iter());
            let hint = hint.map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
            let expected = format!("one of {}", KNOWN.join(", "));
            cx.wrong(
                &text.at,
                format!("{:?}", text.value),
                expected,
                format!("unknown protocol{hint}"),
            );
            None
        }
    }
}
