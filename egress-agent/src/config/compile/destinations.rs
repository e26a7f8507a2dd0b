//! What a destination of a rule means: a gateway, a service outside, or nothing.

use std::sync::Arc;

use egress_ebpf::reason::Reason;

use super::{
    super::{decode::Spanned, names, problem::Severity, virtual_service::Destination as Mirror},
    Compiler, egress_addresses,
    lookup::{Lookup, Traffic},
    routes::{Scope, Stage},
};
use crate::{
    policy::{
        Client, Destination, Discovery, EgressAddresses, HostPattern, Protocol, Refusal, Target,
    },
    types::{GatewayPort, Port},
};

impl Compiler<'_> {
    /// What a destination means at a stage.
    pub(super) fn target(
        &mut self,
        destination: &Mirror,
        stage: &Stage,
        stage_port: Option<Port>,
        traffic: Traffic,
        scope: &Scope<'_>,
    ) -> Target {
        let Mirror { at, host, subset, port, refused: invalid } = destination;
        if let Some(why) = invalid {
            return refused(Reason::InvalidRoute, why);
        }
        let Some(host) = host else { return refused(Reason::NoGatewayRoute, "no destination") };
        let name = names::expand(&host.value, &scope.meta.namespace);
        let port = port.as_ref().and_then(|port| port.number.as_ref());
        if let Some(group) = self.groups.named(&name) {
            return self.gateway_target(group, destination, &name, stage, stage_port, scope);
        }
        let mut cx = scope.meta.cx(self.report);
        let Some(pattern) = names::pattern_of(&name, host, &mut cx) else {
            return refused(Reason::NoGatewayRoute, "an invalid destination");
        };
        if pattern == HostPattern::Any {
            cx.wrong(&host.at, "\"*\"", "a host", "a destination is one service");
            return refused(Reason::NoGatewayRoute, "an invalid destination");
        }
        let Some(declared) = self.entries.declared(&pattern) else {
            return self.unknown_host(host, &name, scope);
        };
        let told = declared.broken;
        let number = match (port, declared.ports.as_slice()) {
            (Some(port), _) => port.value,
            (None, [(only, _)]) => *only,
            (None, _) if told => {
                return refused(Reason::HostNotInRegistry, "a broken ServiceEntry");
            }
            (None, _) => {
                let list = list(&declared.ports);
                let mut cx = scope.meta.cx(self.report);
                let message = format!("{name} has several ports; say which");
                let problem = cx.note(Severity::Refusal, &at.field("port"), message);
                problem.code = Some("IST0112");
                problem.expected = Some(format!("one of {list}"));
                return refused(Reason::NoGatewayRoute, "the destination's port is not said");
            }
        };
        let protocol = declared.ports.iter().find(|(known, _)| *known == number);
        let Some((_, declared)) = protocol.copied() else {
            if told {
                return refused(Reason::HostNotInRegistry, "a broken ServiceEntry");
            }
            let spot = port.map_or(at, |port| &port.at);
            let list = list(&declared.ports);
            let mut cx = scope.meta.cx(self.report);
            let message = format!(
                "the ServiceEntry of {name} has no port {number}; requests to it are refused"
            );
            let problem = cx.dangling(spot, message);
            problem.found = Some(number.to_string());
            problem.expected = Some(format!("one of {list}"));
            let detail = format!("no ServiceEntry declares {name} port {number}");
            return refused(Reason::HostNotInRegistry, &detail);
        };
        let subset_name = subset.as_ref().map_or("", |subset| subset.value.as_str());
        let wanted =
            Lookup { host: pattern.clone(), port: number, subset: subset_name.into(), traffic };
        let destination = self.destination(&wanted);
        let refusals = self.refusals(&destination, stage, scope);
        if let Some(subset) = subset
            && refusals.iter().any(|refusal| refusal.reason == Reason::NoGatewayRoute)
        {
            return self.unknown_subset(subset, &name, scope);
        }
        let request = matches!(
            destination.providers.first().map(|first| &first.others.cluster.discovery),
            Some(Discovery::Request(_))
        );
        let nameless = traffic == Traffic::Tcp && !self.knows_names(stage, stage_port);
        let mut cx = scope.meta.cx(self.report);
        if nameless && request {
            cx.note(Severity::Refusal, at, format!("raw TCP can't be sent to the wildcard {name}: there is no name to resolve; it is refused"));
            return refused(Reason::NoGatewayRoute, "raw TCP to a wildcard");
        }
        for refusal in refusals {
            let message = match (refusal.reason, traffic) {
                (Reason::WrongProtocol, Traffic::Http) if declared == Protocol::Tls => {
                    format!(
                        "plain HTTP would be sent to {name} port {number}, which is declared to speak TLS; it is refused instead. A DestinationRule with tls.mode SIMPLE for it makes the gateway start TLS"
                    )
                }
                (Reason::WrongProtocol, Traffic::Tls) => {
                    format!(
                        "TLS of the application would be wrapped in TLS again: a DestinationRule starts TLS to {name} port {number}; it is refused instead"
                    )
                }
                _ => format!("{}; it is refused", refusal.detail),
            };
            cx.note(Severity::Refusal, at, message);
        }
        let mut cx = scope.meta.cx(self.report);
        let own = egress_addresses::annotated(scope.meta, &self.mesh, &mut cx).transpose();
        let from = match own.or_else(|| self.gateway_address(stage)).transpose() {
            Ok(from) => from,
            Err(detail) => return refused(Reason::EgressAddressUnavailable, &detail),
        };
        let destination = from.map_or(destination.clone(), |from| self.from(&destination, &from));
        Target::Cluster { destination, host: pattern.exact().cloned() }
    }

    /// Where the gateway of a stage dials from, where it says it.
    fn gateway_address(&self, stage: &Stage) -> Option<Result<Arc<EgressAddresses>, String>> {
        match stage {
            Stage::Mesh => None,
            Stage::Gateway(name) => self.gateway_addresses.get(&**name).cloned(),
        }
    }

    /// Whether the name that was asked for is known of raw TCP at this stage: behind servers that
    /// end TLS it is the server name.
    fn knows_names(&self, stage: &Stage, port: Option<Port>) -> bool {
        let Stage::Gateway(name) = stage else { return true };
        self.by_gateway.get(name).is_some_and(|servers| servers.terminates_tcp(port))
    }

    /// What of a destination is refused at a stage, to anybody at all.
    fn refusals(
        &self,
        destination: &Destination,
        stage: &Stage,
        scope: &Scope<'_>,
    ) -> Vec<Refusal> {
        let own = &scope.meta.namespace;
        let root = std::slice::from_ref(&self.mesh.root_namespace);
        let clients = match stage {
            Stage::Mesh => std::slice::from_ref(own),
            Stage::Gateway(name) => self.by_gateway.get(name).map_or(root, |its| &its.namespaces),
        };
        let mut found: Vec<Refusal> = Vec::new();
        for client in clients {
            let gateway = (*stage != Stage::Mesh).then_some(client);
            let seen = destination.provider(Client { source: Some(own), gateway, labels: None });
            // A route may be for other namespaces than its own.
            let provider = seen.or(destination.providers.first());
            let refusals = provider.map(|provider| &provider.reached(Some(client), None).refusals);
            for refusal in refusals.into_iter().flatten() {
                if !found.iter().any(|known| known.detail == refusal.detail) {
                    found.push(refusal.clone());
                }
            }
        }
        found
    }

    fn gateway_target(
        &mut self,
        group: usize,
        destination: &Mirror,
        name: &str,
        stage: &Stage,
        stage_port: Option<Port>,
        scope: &Scope<'_>,
    ) -> Target {
        let Mirror { at, host: _, subset, port, refused: _ } = destination;
        if *stage != Stage::Mesh {
            let mut cx = scope.meta.cx(self.report);
            cx.note(Severity::Refusal, at, "at the gateway's stage a rule leads to the gateway again; give its match `gateways: [mesh]`, and add a rule that leads to the external host. It is refused");
            return refused(
                Reason::NoGatewayRoute,
                "the gateway's rule leads to the gateway again",
            );
        }
        if let Some(subset) = subset {
            let service = HostPattern::parse(&self.groups.service(group, name, &self.mesh));
            let known = service
                .is_ok_and(|host| self.has_subset(&host, &subset.value, &scope.meta.namespace));
            if !known {
                return self.unknown_subset(subset, name, scope);
            }
        }
        let port = port.as_ref().and_then(|p| p.number.as_ref()).map(|p| p.value).or(stage_port);
        let Some(port) = port else {
            let mut cx = scope.meta.cx(self.report);
            let message = "the gateway has several ports; say which";
            cx.note(Severity::Refusal, &at.field("port"), message).code = Some("IST0112");
            return refused(Reason::NoGatewayRoute, "the gateway's port is not said");
        };
        let subset = subset.as_ref().map_or("", |subset| subset.value.as_str());
        let service = self.groups.service(group, name, &self.mesh);
        let hop = self.hop(service, port, subset, &scope.meta.namespace);
        let owner = self.groups.owner(name);
        Target::Gateway { group, port: GatewayPort(port), hop, owner }
    }

    fn unknown_host(&mut self, host: &Spanned<String>, name: &str, scope: &Scope<'_>) -> Target {
        let known = self.host_names.get_or_init(|| {
            let hosts = self.entries.iter().flat_map(|entry| &entry.hosts);
            let services = self.mesh.gateways.iter().map(|group| group.service.to_string());
            hosts.map(ToString::to_string).chain(services).collect()
        });
        let hint = self.hints.nearest(name, known);
        let mut cx = scope.meta.cx(self.report);
        if names::is_in_cluster(name) && !self.mesh_given {
            cx.warn(&host.at, format!("{name} isn't known as a gateway: without mesh.yaml (`--mesh`) no gateway is; what is routed there is refused")).code = Some("IST0101");
        } else if names::is_in_cluster(name) {
            cx.dangling(&host.at, format!("{name} is neither a gateway in mesh.yaml nor a host of a ServiceEntry; what is routed there is refused{hint}"));
        } else {
            // Istio's own task for wildcards has other parts, which nothing needs here.
            let wildcard = match name.starts_with("*.") {
                true => format!(
                    ". A ServiceEntry for it is missing (hosts: ['{name}'], resolution NONE or DYNAMIC_DNS): \
                     with it the gateway resolves each name below, and connects to it"
                ),
                false => String::new(),
            };
            let message = format!(
                "no ServiceEntry has the host {name}; what is routed there is refused{wildcard}{hint}"
            );
            cx.dangling(&host.at, message);
        }
        let detail = format!("a VirtualService leads to {name}, which doesn't exist");
        let reason = if names::is_in_cluster(name) {
            Reason::NoGatewayRoute
        } else {
            Reason::HostNotInRegistry
        };
        refused(reason, &detail)
    }

    fn unknown_subset(
        &mut self,
        subset: &Spanned<String>,
        name: &str,
        scope: &Scope<'_>,
    ) -> Target {
        let mut cx = scope.meta.cx(self.report);
        let message = format!(
            "no DestinationRule for {name} has the subset {:?}; what is routed there is refused",
            subset.value
        );
        cx.dangling(&subset.at, message);
        let detail = format!("{name} has no subset {:?}", subset.value);
        refused(Reason::NoGatewayRoute, &detail)
    }
}

fn list(ports: &[(Port, Protocol)]) -> String {
    ports.iter().map(|(port, _)| port.to_string()).collect::<Vec<_>>().join(", ")
}

fn refused(reason: Reason, detail: &str) -> Target {
    Target::Refused { reason, detail: detail.into() }
}
