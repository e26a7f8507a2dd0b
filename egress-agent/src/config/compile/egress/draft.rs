//! A policy on its own: what it says, checked as an API server with its definition checks it, and more.

use std::{collections::HashSet, sync::Arc};

use super::super::super::{
    decode::{Cx, Report, SourcePosition, Spanned, nearest},
    egress_policy::{
        EgressHttp, EgressMode as Mode, EgressPolicy, EgressPort, EgressProtocol, EgressRule,
        OriginateTls,
    },
    label_selector::{at_most, selector},
    names,
    policies::{Policy, Spec},
    problem::{Problem, Severity},
};
use super::super::{index::Groups, rates};
use crate::{
    policy::{
        AddressGuard, EgressMode, HostPattern, HttpLimits, LabelSelector, MeshConfig, PathBelow,
        RateLimit,
    },
    types::{Host, Port},
};

/// What the definitions in `deploy/crds` allow at most.
pub(in crate::config) const MAX_RULES: usize = 64;
pub(in crate::config) const MAX_HOSTS: usize = 64;
pub(in crate::config) const MAX_PORTS: usize = 16;
pub(in crate::config) const MAX_METHODS: usize = 16;
pub(in crate::config) const MAX_PATHS: usize = 64;
/// Bytes of a path.
pub(in crate::config) const MAX_PATH: usize = 1024;
/// Where the gateway starts TLS if nothing else is said.
const HTTPS: u16 = 443;

/// A policy that was checked on its own.
#[derive(Debug)]
pub(super) struct Draft<'p> {
    pub(super) policy: &'p Policy,
    /// Of a policy for the cluster.
    pub(super) namespaces: LabelSelector,
    pub(super) pods: LabelSelector,
    pub(super) mode: EgressMode,
    /// Index of its gateway.
    pub(super) group: usize,
    /// One a host and port.
    pub(super) rules: Vec<DraftRule>,
    /// What is wrong with it, or worth a warning.
    pub(super) problems: Vec<Problem>,
}

/// A host and port of a rule.
#[derive(Clone, Debug)]
pub(super) struct DraftRule {
    pub(super) at: SourcePosition,
    pub(super) host: HostPattern,
    pub(super) port: Port,
    pub(super) protocol: EgressProtocol,
    /// The port at the host, where the gateway starts TLS.
    pub(super) originate: Option<Port>,
    pub(super) limits: HttpLimits,
    pub(super) rate: Option<Arc<RateLimit>>,
}

/// Reads a policy. One with an error has no rules; where its selectors can't be read it selects everything
/// that it might, so that no other policy's audit mode opens what it may have meant to confine.
pub(super) fn draft<'p>(
    policy: &'p Policy,
    mesh: &MeshConfig,
    groups: &Groups,
    guard: &AddressGuard,
) -> Draft<'p> {
    let mut report = Report::with(policy.problems.clone());
    let mut draft = Draft {
        policy,
        namespaces: LabelSelector::default(),
        pods: LabelSelector::default(),
        mode: EgressMode::Enforce,
        group: 0,
        rules: Vec::new(),
        problems: Vec::new(),
    };
    let Some(Spec { namespaces, policy: spec }) = &policy.spec else {
        return broken(draft, report);
    };
    let mut cx = policy.meta.cx(&mut report);
    let EgressPolicy { at, pod_selector, mode, gateway, rules } = spec;
    draft.namespaces = selector(namespaces.as_ref(), &mut cx);
    draft.pods = selector(pod_selector.as_ref(), &mut cx);
    draft.mode = match mode.as_ref().map_or(Mode::Enforce, |mode| mode.value) {
        Mode::Enforce => EgressMode::Enforce,
        Mode::Audit => EgressMode::Audit,
    };
    match gateway {
        None if mesh.gateways.is_empty() => {
            let field = at.field("gateway");
            cx.wrong(&field, "nothing", "`gateways` in mesh.yaml", "no gateway is known");
        }
        None => {}
        Some(gateway) => {
            let (Some(namespace), Some(name)) = (&gateway.namespace, &gateway.name) else {
                return broken(draft, report);
            };
            let full = format!("{}.{}.svc.cluster.local", name.value, namespace.value);
            match groups.named(&full) {
                Some(group) => draft.group = group,
                None => unknown_gateway(&full, &gateway.at, mesh, &mut cx),
            }
        }
    }
    at_most(rules.0.len(), MAX_RULES, "rules", at, &mut cx);
    for rule in &rules.0 {
        draft.rules.extend(self::rule(rule, guard, &mut cx));
    }
    conflicts(&mut draft.rules, &mut cx);
    if draft.mode == EgressMode::Audit
        && let Some(mode) = mode
    {
        let message = "audit mode: what no policy allows these pods passes the gateway, and is only \
                       marked in the access log";
        cx.warn(&mode.at, message);
    }
    broken(draft, report)
}

/// The draft with what was found, and without rules where something is wrong.
fn broken(mut draft: Draft<'_>, report: Report) -> Draft<'_> {
    draft.problems = report.problems;
    for problem in &mut draft.problems {
        if problem.severity == Severity::Error {
            problem.severity = Severity::Refusal;
        }
    }
    let wrong = |problem: &&Problem| problem.severity != Severity::Warning;
    if draft.problems.iter().any(|problem| wrong(&problem)) {
        draft.rules.clear();
        draft.mode = EgressMode::Enforce;
        // An unknown field of the specification may be a selector in another spelling.
        let selects = |field: &String| field.contains("elector") || field.starts_with("spec[");
        let mut fields = draft.problems.iter().filter(wrong).map(|problem| &problem.field);
        if fields.any(|field| field.as_ref().is_none_or(selects)) {
            draft.pods = LabelSelector::default();
            draft.namespaces = LabelSelector::default();
        }
    }
    draft
}

fn unknown_gateway(full: &str, at: &SourcePosition, mesh: &MeshConfig, cx: &mut Cx<'_>) {
    let known: Vec<_> = mesh.gateways.iter().map(|group| group.service.to_string()).collect();
    let hint = nearest(full, known.iter().map(String::as_str));
    let hint = hint.map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
    let expected = format!("one of `gateways` in mesh.yaml: {}", known.join(", "));
    cx.wrong(at, full, expected, format!("there is no such gateway{hint}"));
}

/// One rule, host by host and port by port.
fn rule(mirror: &EgressRule, guard: &AddressGuard, cx: &mut Cx<'_>) -> Vec<DraftRule> {
    let EgressRule { at, hosts, ports, originate_tls, http, rate_limit } = mirror;
    for (found, most, field) in
        [(hosts.len(), MAX_HOSTS, "hosts"), (ports.0.len(), MAX_PORTS, "ports")]
    {
        at_most(found, most, field, at, cx);
        if found == 0 && !cx.has_told(&at.field(field).path.to_string()) {
            cx.wrong(&at.field(field), "an empty list", "at least one", "nothing could be reached");
        }
    }
    let limits = http.as_ref().map(|http| limits(http, cx));
    let spoken = ports.0.iter().filter_map(|port| Some(port.protocol.as_ref()?.value.into()));
    let spoken: Vec<_> = spoken.collect();
    let label = format!("{}, {}", cx.resource.unwrap_or_default(), at.path);
    let rate = rate_limit.as_ref().map(|limit| rates::rate_limit(limit, &label, &spoken, cx));
    let mut found = Vec::new();
    let mut listed = HashSet::new();
    for EgressPort { at: port_at, port, protocol } in &ports.0 {
        let (Some(port), Some(protocol)) = (port, protocol) else { continue };
        if !listed.insert(port.value) {
            cx.wrong(&port.at, port.value.to_string(), "each port once", "listed twice");
        }
        for (field, is_there) in
            [("originateTLS", originate_tls.is_some()), ("http", http.is_some())]
        {
            if is_there && protocol.value != EgressProtocol::Http {
                let message =
                    format!("{field} is for ports of protocol HTTP; use a rule of its own");
                cx.wrong(&protocol.at, protocol.value.to_string(), "HTTP", message);
            }
        }
        for text in hosts {
            let Some(host) = host(text, protocol.value, guard, cx) else { continue };
            found.push(DraftRule {
                at: port_at.clone(),
                host,
                port: port.value,
                protocol: protocol.value,
                originate: originate_tls.as_ref().and_then(tls_port),
                limits: limits.clone().unwrap_or_default(),
                rate: rate.clone(),
            });
        }
    }
    found
}

fn tls_port(OriginateTls { at: _, port }: &OriginateTls) -> Option<Port> {
    port.as_ref().map(|port| port.value).or_else(|| Port::new(HTTPS))
}

fn host(
    text: &Spanned<String>,
    protocol: EgressProtocol,
    guard: &AddressGuard,
    cx: &mut Cx<'_>,
) -> Option<HostPattern> {
    let host = names::pattern(text, cx)?;
    let found = || format!("{:?}", text.value);
    match (&host, protocol) {
        (HostPattern::Any, _) => {
            let message =
                "a bare * would let everything out; for that there is outboundTrafficPolicy";
            cx.wrong(&text.at, found(), "a host, or *. and a host", message);
        }
        (HostPattern::Ending(_), _) => {
            let message = "a wildcard stands for whole labels here";
            cx.wrong(&text.at, found(), "a host, or *. and a host", message);
        }
        (HostPattern::Below(_), EgressProtocol::Tcp) => {
            let message = "raw TCP has no name that could be resolved for a wildcard";
            cx.wrong(&text.at, found(), "one host", message);
        }
        (HostPattern::Exact(Host::Ip(_)), EgressProtocol::Tls) => {
            let message = "a server name is no address (RFC 6066 §3); use protocol TCP";
            cx.wrong(&text.at, found(), "a DNS name", message);
        }
        (HostPattern::Exact(Host::Ip(ip)), _) if !guard.allows(*ip) => {
            let message = "the gateway never dials this address: it is loopback, link-local, multicast, \
                           in clusterCidrs or deniedCidrs, or a gateway's own";
            cx.wrong(&text.at, found(), "an address outside", message);
        }
        _ => {}
    }
    if text.value != host.to_string() {
        let message = "an API server refuses this spelling: capitals, a dot at the end, or another form \
                       of an address";
        cx.warn(&text.at, message).found = Some(found());
    }
    (host != HostPattern::Any).then_some(host)
}

fn limits(http: &EgressHttp, cx: &mut Cx<'_>) -> HttpLimits {
    let EgressHttp { at, methods, paths } = http;
    at_most(methods.len(), MAX_METHODS, "methods", at, cx);
    at_most(paths.len(), MAX_PATHS, "paths", at, cx);
    let mut limits = HttpLimits::default();
    for text in methods {
        let is_method = !text.value.is_empty()
            && text.value.len() <= 32
            && text.value.bytes().all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_');
        match http::Method::from_bytes(text.value.as_bytes()) {
            Ok(method) if is_method => limits.methods.push(method),
            _ => {
                let found = format!("{:?}", text.value);
                cx.wrong(&text.at, found, "a method in capitals, such as GET", "not a method");
            }
        }
    }
    for text in paths {
        // RFC 3986 §3.3 without escapes, `;` and `*`.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"!$&'()+,:=@._~-/".contains(&b);
        let segments = || text.value.split('/').skip(1).collect::<Vec<_>>();
        // Only the last segment may be empty: the path ends with a slash then.
        let is_path = text.value.starts_with('/')
            && text.value.len() <= MAX_PATH
            && text.value.bytes().all(plain)
            && segments().iter().rev().skip(1).all(|segment| !segment.is_empty())
            && !segments().iter().any(|segment| matches!(*segment, "." | ".."));
        if is_path {
            limits.paths.push(PathBelow::new(&text.value));
        } else {
            let expected = "a path such as /v1/ without query, wildcard, escapes, parameters and dot \
                            segments; what is below it is meant too";
            cx.wrong(&text.at, format!("{:?}", text.value), expected, "not a path");
        }
    }
    // Each of them asked for a limit, so without one that is valid nothing is allowed: see `broken`.
    limits
}

/// One host and port of a policy with two protocols.
fn conflicts(rules: &mut Vec<DraftRule>, cx: &mut Cx<'_>) {
    let mut seen: Vec<DraftRule> = Vec::new();
    let mut first = std::collections::HashMap::new();
    for rule in rules.drain(..) {
        let protocol = *first.entry((rule.host.clone(), rule.port)).or_insert(rule.protocol);
        if protocol != rule.protocol {
            let message = format!(
                "{} port {} has another protocol in an earlier rule of this policy",
                rule.host, rule.port
            );
            let at = rule.at.field("protocol");
            cx.wrong(&at, rule.protocol.to_string(), protocol.to_string(), message);
        }
        seen.push(rule);
    }
    *rules = seen;
}
