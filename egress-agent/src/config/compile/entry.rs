//! A service entry as compilation uses it: its ports, and where its endpoints are.

use std::{net::SocketAddr, sync::Arc};

use ipnet::IpNet;

use super::super::{resource::Meta, service_entry::Resolution};
use crate::{
    policy::{
        ClientTls, Discovery, Endpoint, EndpointPlace, Exported, HostPattern, HttpVersion,
        Locality, Protocol, RateLimit,
    },
    types::{Host, Labels, Port},
};

/// A service entry, read.
#[derive(Debug)]
pub(super) struct CompiledEntry {
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
    pub(super) resolution: Resolution,
    pub(super) endpoints: Vec<EntryEndpoint>,
}

/// A port of it.
#[derive(Debug)]
pub(super) struct EntryPort {
    pub(super) number: Port,
    pub(super) protocol: Protocol,
    pub(super) http: HttpVersion,
    pub(super) name: String,
    pub(super) target: Port,
}

/// An endpoint of it.
#[derive(Debug)]
pub(super) struct EntryEndpoint {
    pub(super) host: Host,
    pub(super) ports: Vec<(String, Port)>,
    pub(super) labels: Labels,
    pub(super) weight: u32,
    pub(super) locality: Locality,
}

impl CompiledEntry {
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
                (0..)
                    .zip(chosen)
                    .filter_map(|(place, endpoint)| match endpoint.host {
                        Host::Ip(ip) => Some(Endpoint {
                            addr: SocketAddr::new(ip, at(endpoint).get()),
                            weight: endpoint.weight,
                            place,
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
            HostPattern::Below(_) | HostPattern::Ending(_) | HostPattern::Any => {
                Discovery::Request(port.target)
            }
        }
    }

    /// Where the endpoints with `labels` are, in the order of [`Self::discovery`].
    pub(super) fn places(&self, labels: &Labels) -> Vec<EndpointPlace> {
        let chosen = self.endpoints.iter();
        let chosen = chosen.filter(|e| crate::policy::has_labels(&e.labels, labels));
        let place = |endpoint: &EntryEndpoint| EndpointPlace {
            locality: endpoint.locality.clone(),
            labels: endpoint.labels.clone(),
        };
        chosen.map(place).collect()
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

impl CompiledEntry {
    /// The entry that a host and port of an egress policy stands for.
    pub(super) fn of_policy(
        meta: Meta,
        host: HostPattern,
        number: Port,
        protocol: Protocol,
    ) -> Self {
        let address = match &host {
            HostPattern::Exact(host @ Host::Ip(_)) => Some(host.clone()),
            HostPattern::Exact(Host::Name(_))
            | HostPattern::Below(_)
            | HostPattern::Ending(_)
            | HostPattern::Any => None,
        };
        let endpoints = address.map(|host| EntryEndpoint {
            host,
            ports: Vec::new(),
            labels: Labels::new(),
            weight: 1,
            locality: Locality::default(),
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

/// `subjectAltNames` of the service entry, where the rule names none.
pub(super) fn with_names(mut tls: ClientTls, entry: &CompiledEntry) -> ClientTls {
    if tls.subject_alt_names.is_empty() {
        tls.subject_alt_names.clone_from(&entry.subject_alt_names);
    }
    tls
}
