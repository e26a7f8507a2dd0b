//! The steps as lines: what happened, and the place that says so.

use std::{net::IpAddr, sync::Arc};

use egress_ebpf::{reason::Reason, verdict::Mode};
use serde::{Deserialize, Serialize};

use super::{
    nearest::{Difference, NearPolicy, is_typo, near_policies},
    node::{Connected, NodeDecision},
    question::{ExplainRequest, Scheme},
};
use crate::{
    policy::{
        ClientTls, ClientTlsMode, Cluster, DirectTarget, Discovery, Hop, NodeRoute, ResourcePath,
        Service, Snapshot, Step,
    },
    types::{Host, Source},
};

/// Services, policies or routes that a hint names at most.
const HINTS: usize = 3;

/// One step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Which one: `node`, `hop`, `registry`, `mesh`, `server`, `gateway`, `policy`, `cluster`, `tls`,
    /// `address`, `nearest`, `note`.
    pub step: String,
    /// What happened.
    pub text: String,
    /// The resources that say so, with file and line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<ResourcePath>,
}

/// The steps so far.
pub(super) struct Steps<'a> {
    snapshot: &'a Snapshot,
    lines: Vec<Line>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, lines: Vec::new() }
    }

    pub(super) fn finish(self) -> Vec<Line> {
        self.lines
    }

    fn push(&mut self, step: &'static str, text: impl Into<String>, by: Vec<ResourcePath>) {
        self.lines.push(Line { step: step.into(), text: text.into(), by });
    }

    /// The places of these resources. What is in no file has its name alone.
    fn places<'l>(&self, labels: impl IntoIterator<Item = &'l str>) -> Vec<ResourcePath> {
        let known = |label: &str| self.snapshot.places.get(label).cloned();
        let named =
            |label: &str| ResourcePath { resource: label.into(), ..ResourcePath::default() };
        labels.into_iter().map(|label| known(label).unwrap_or_else(|| named(label))).collect()
    }

    fn service(&self, group: usize) -> String {
        let found = self.snapshot.mesh.gateways.get(group);
        found.map(|group| group.service.to_string()).unwrap_or_default()
    }

    /// The node's verdict.
    pub(super) fn node(&mut self, node: &NodeDecision, question: &ExplainRequest) {
        let NodeDecision { mode, reason, connected, address, assumed, set, origin } = node;
        let port = question.url.port;
        let to = match assumed {
            true => format!("an external address, port {port},"),
            false => format!("{address} port {port}"),
        };
        let (is_done, in_mode) = match (mode, connected) {
            (Mode::Enforce, _) => (true, None),
            (Mode::Audit, _) | (Mode::AuditRedirect, Connected::Refused) => {
                (false, Some("in audit mode"))
            }
            (Mode::AuditRedirect, _) => (true, Some("in audit mode with redirects")),
            (Mode::Exempt, _) => (false, Some("exempt")),
        };
        let is = if is_done { "is" } else { "would be" };
        let what = match connected {
            Connected::Passes => "passes".to_owned(),
            Connected::Refused => format!("{is} refused"),
            Connected::Redirected { group, port: at, hop } => match hop {
                Hop::Plain => format!("{is} redirected to {} port {at}", self.service(*group)),
                Hop::Tunnel => format!("{is} redirected to the tunnel to {}", self.service(*group)),
            },
        };
        let in_set = in_mode.map(|mode| format!("; the workload set {set} is {mode}"));
        let mut in_set = in_set.unwrap_or_default();
        if !is_done && *connected != Connected::Passes {
            in_set.push_str(", so it goes where it was dialled");
        }
        let text = format!("TCP to {to} {what} ({}){in_set}", reason.name());
        let by = self.places(origin.as_deref());
        self.push("node", text, by);
        if *reason == Reason::NoRoute {
            let workload = &question.workload;
            let own = workload.addresses.first().copied();
            let own = own.unwrap_or(IpAddr::from([0, 0, 0, 0]));
            let source = Source::unauthenticated(own, Some(Arc::clone(workload)));
            let mut near = self.near_policies(question, &source);
            // No route is about the other differences.
            near.retain(|near| near.difference == Difference::Port);
            if near.is_empty() {
                self.nearest_routes(question, *address);
            } else {
                self.push_near(near);
            }
        }
    }

    fn near_policies(&self, question: &ExplainRequest, source: &Source) -> Vec<NearPolicy> {
        let destination = (&question.url.host, question.url.port);
        near_policies(&self.snapshot.rules.egress, destination, source)
    }

    fn push_near(&mut self, near: Vec<NearPolicy>) {
        for NearPolicy { policy, text, .. } in near.into_iter().take(HINTS) {
            let by = self.places([&*policy]);
            self.push("nearest", text, by);
        }
    }

    /// Where no route is: those for the same destination with other ports, else for the same port, else for every
    /// address.
    fn nearest_routes(&mut self, question: &ExplainRequest, address: IpAddr) {
        let (host, port) = (&question.url.host, question.url.port);
        let snapshot = self.snapshot;
        let node = &snapshot.node;
        let near = |wanted: &dyn Fn(&NodeRoute) -> bool| {
            let routes = node.routes.iter().zip(&node.origins);
            let mut near: Vec<(String, &str)> = Vec::new();
            for (route, origin) in routes.filter(|(route, _)| wanted(route)) {
                let text = route_text(route);
                if near.len() < HINTS && near.iter().all(|(known, _)| *known != text) {
                    near.push((text, &**origin));
                }
            }
            near
        };
        let found = [
            near(&|route| match &route.target {
                DirectTarget::Any => false,
                DirectTarget::Net(net) => net.contains(&address),
                DirectTarget::Name(name) => name == host,
            }),
            near(&|route| route.port == Some(port)),
            near(&|route| route.target == DirectTarget::Any),
        ];
        let Some(near) = found.into_iter().find(|near| !near.is_empty()) else {
            let text = "no resource routes anything from this node, to a gateway or past it";
            return self.push("nearest", text, Vec::new());
        };
        let texts: Vec<&str> = near.iter().map(|(text, _)| text.as_str()).collect();
        let text = format!("what is routed is {}", texts.join(", and "));
        // A resource may have several of them.
        let mut origins: Vec<&str> = Vec::new();
        for (_, origin) in &near {
            if !origins.contains(origin) {
                origins.push(origin);
            }
        }
        let by = self.places(origins);
        self.push("nearest", text, by);
    }

    /// How it gets to the gateway.
    pub(super) fn hop(&mut self, hop: Hop, group: usize) {
        let text = match hop {
            Hop::Plain => "plain: it goes to the gateway as the application sent it".to_owned(),
            Hop::Tunnel => format!(
                "tunnel: the node carries it to {} inside mutual TLS, as a DestinationRule for that \
                 host asks",
                self.service(group)
            ),
        };
        self.push("hop", text, Vec::new());
    }

    /// What the gateway's decision depended on. Of several destinations that were looked up, only the
    /// cluster's is a step: copies of a request have others.
    pub(super) fn noted(&mut self, noted: Vec<Step>, decided: Result<&Arc<Cluster>, Reason>) {
        let mut served = false;
        let refused = decided.is_err();
        let (mut destination, mut egress_denied) = (None, None);
        for step in noted {
            match step {
                Step::Service { entry, host, port, protocol } => {
                    let by = self.places([entry.as_str()]);
                    self.push("registry", format!("{host} port {port} is declared {protocol}"), by);
                }
                Step::Rule(place) => {
                    let (step, text) = if served {
                        ("gateway", "the first rule that matches at the gateway's stage")
                    } else {
                        ("mesh", "the first rule that matches at the mesh stage")
                    };
                    self.push(step, text, vec![place]);
                }
                Step::Share { weight, total } => {
                    let text = format!(
                        "of several destinations the heaviest is followed here: {weight} of {total} \
                         requests take it"
                    );
                    self.push("weight", text, Vec::new());
                }
                Step::Server { port, protocol, place } => {
                    served = true;
                    self.push("server", format!("port {port} serves {protocol}"), vec![place]);
                }
                Step::Destination { entry, rules, cluster: name } => {
                    if decided.is_ok_and(|cluster| cluster.name.0 == name) {
                        destination = Some((entry, rules));
                    }
                }
                Step::Granted(policy) => {
                    let by = self.places([&*policy]);
                    self.push("policy", "a rule of an egress policy is for it", by);
                }
                // One that audit mode lets pass, or that is refused for another reason, is no step.
                Step::EgressDenied { policies, why } => egress_denied = Some((policies, why)),
                Step::Authorization { policy, rule, denies } if denies == refused => {
                    let verb = if denies { "refuses" } else { "allows" };
                    let rule = rule.map(|rule| format!(", by rules[{rule}]")).unwrap_or_default();
                    let by = self.places([&*policy]);
                    self.push("policy", format!("an authorization policy {verb} it{rule}"), by);
                }
                Step::Authorization { .. } => {}
                Step::Audited { policy, reason, detail } => {
                    let text = format!(
                        "no rule allows it, and it passes because the policy is in mode Audit; enforced, it would \
                         be refused ({}): {detail}",
                        reason.name()
                    );
                    let by = self.places([&*policy]);
                    self.push("policy", text, by);
                }
                Step::Nearest { place, unmet } => {
                    let text = format!("the nearest rule asks for {}", unmet.join(", and for "));
                    self.push("nearest", text, vec![place]);
                }
            }
        }
        if let Some((entry, rules)) = destination {
            let labels = std::iter::once(&*entry).chain(rules.iter().map(|rule| &**rule));
            let by = self.places(labels);
            self.push("destination", "how the destination is reached", by);
        }
        if let (Some((policies, why)), Err(Reason::EgressPolicyDenied)) = (egress_denied, decided) {
            let by = self.places(policies.iter().map(|policy| &**policy));
            self.push("policy", why, by);
        }
    }

    /// What the refusal has to do with the registry and with egress policies, where those name other
    /// things. `source` is who the gateway takes the workload for.
    pub(super) fn hint(
        &mut self,
        reason: Reason,
        question: &ExplainRequest,
        source: Option<&Source>,
    ) {
        if reason == Reason::HostNotInRegistry {
            self.near_services(question);
        }
        if let (Reason::HostNotInRegistry | Reason::EgressPolicyDenied, Some(source)) =
            (reason, source)
        {
            self.push_near(self.near_policies(question, source));
        }
    }

    fn near_services(&mut self, question: &ExplainRequest) {
        let (host, port) = (&question.url.host, question.url.port);
        let namespace = Some(&question.workload.namespace);
        let mut near: Vec<(String, Arc<Service>)> = Vec::new();
        for service in &self.snapshot.rules.services {
            let same_host = service.host.matches(host);
            let visible = service.exported.includes(namespace);
            let text = match (same_host, service.port == port, visible) {
                (true, true, false) => {
                    format!("{} is not exported to this namespace (exportTo)", service.host)
                }
                (true, false, _) => {
                    format!("{} is declared with port {}", service.host, service.port)
                }
                (false, ..) if is_typo(&service.host, host) => {
                    format!("{} is declared; is {host} a typing error?", service.host)
                }
                _ => continue,
            };
            // A host with several ports is one service to people.
            if near.iter().all(|(known, _)| *known != text) {
                near.push((text, Arc::clone(service)));
            }
        }
        for (text, service) in near.into_iter().take(HINTS) {
            let by = self.places([format!("ServiceEntry {}", service.name).as_str()]);
            self.push("nearest", text, by);
        }
    }

    /// What the operator adds to refusals. A client reads it where a gateway answers in HTTP, and here in any case.
    pub(super) fn note(&mut self) {
        if let Some(note) = self.snapshot.mesh.refusal_note.as_deref() {
            self.push("note", note.trim_end().replace('\n', " "), Vec::new());
        }
    }

    /// Where it goes.
    pub(super) fn cluster(&mut self, cluster: &Cluster, host: Option<&Host>) {
        let how = match &cluster.discovery {
            Discovery::Dns(names) => {
                let names: Vec<_> = names.iter().map(|(n, p)| format!("{n} port {p}")).collect();
                format!("the gateway resolves {}", names.join(", "))
            }
            Discovery::Static(endpoints) => {
                let all: Vec<_> = endpoints.iter().map(|end| end.addr.to_string()).collect();
                format!("its endpoints are {}", all.join(", "))
            }
            Discovery::Request(port) => {
                let host = host.map(Host::to_string).unwrap_or_default();
                format!("the gateway resolves {host}, port {port}")
            }
        };
        // The place is that of the destination, which was told last.
        let by = match self.lines.pop() {
            Some(line) if line.step == "destination" => line.by,
            other => {
                self.lines.extend(other);
                Vec::new()
            }
        };
        self.push("cluster", format!("{}; {how}", cluster.name), by);
    }

    /// How it is protected on the way to the external host.
    pub(super) fn tls(&mut self, cluster: &Cluster, host: Option<&Host>, spoken: Scheme) {
        let text = match (&cluster.tls, spoken) {
            (Some(tls), _) => originated(tls, host),
            (None, Scheme::Http) => "none: HTTP leaves the gateway in clear".to_owned(),
            (None, Scheme::Https | Scheme::Tls) => {
                "the application's own, which the gateway forwards untouched".to_owned()
            }
            (None, Scheme::Tcp) => "none that the gateway starts".to_owned(),
        };
        self.push("tls", text, Vec::new());
    }

    /// Which addresses the gateway dials.
    pub(super) fn addresses(&mut self, known: &[IpAddr], may_dial: impl Fn(IpAddr) -> bool) {
        let text = if known.is_empty() {
            "what DNS answers, unless it is in-cluster, denied, or an address of a gateway or node"
                .to_owned()
        } else {
            let each = known.iter().map(|addr| {
                let verdict = if may_dial(*addr) { "may be dialled" } else { "is never dialled" };
                format!("{addr} {verdict}")
            });
            each.collect::<Vec<_>>().join(", ")
        };
        self.push("address", text, Vec::new());
    }
}

fn originated(tls: &ClientTls, host: Option<&Host>) -> String {
    let ClientTls { mode, sni, ca_certificates, insecure_skip_verify, .. } = tls;
    let mode = match mode {
        ClientTlsMode::Simple | ClientTlsMode::SimpleNamed(_) => "SIMPLE",
        ClientTlsMode::Mutual { .. } | ClientTlsMode::MutualNamed(_) => "MUTUAL",
    };
    let name = sni.as_ref().or(host).map(Host::to_string).unwrap_or_default();
    let verified = match (insecure_skip_verify, ca_certificates) {
        (true, _) => "the certificate is not verified".to_owned(),
        (false, Some(roots)) => format!("verified against {}", roots.display()),
        (false, None) => "verified".to_owned(),
    };
    format!("the gateway starts it ({mode}), with the server name {name}, {verified}")
}

/// `port 5432 of 203.0.113.20`
fn route_text(route: &NodeRoute) -> String {
    let port = route.port.map_or_else(|| "every port".to_owned(), |port| format!("port {port}"));
    match &route.target {
        DirectTarget::Any => format!("{port} of every external address"),
        DirectTarget::Net(net) if net.prefix_len() == net.max_prefix_len() => {
            format!("{port} of {}", net.addr())
        }
        DirectTarget::Net(net) => format!("{port} of {net}"),
        DirectTarget::Name(name) => format!("{port} of {name}"),
    }
}
