//! `TLSRoute` and `TCPRoute` to virtual services.

use super::{
    super::{
        decode::{List, Records, Report},
        gateway_api::Read,
        references::BackendRef,
        resource::Resource,
        stream_route::{StreamRule, TcpRoute, TlsRoute},
        virtual_service::{TcpDestination, TcpMatch, TcpRule, TlsMatch, TlsRule, VirtualService},
    },
    attach::{Attached, AttachingRoute, Parents, Stage},
    backends::{Backends, Referring},
    listeners::Protocol,
    notes::{Verdict, are_unread, at, hosts, refuse, refused, take},
};

pub(super) fn tls(
    route: &Read<TlsRoute>,
    parents: &Parents<'_>,
    backends: &Backends<'_>,
    report: &mut Report,
) -> Vec<Resource<VirtualService>> {
    let Read { meta, spec, problems } = route;
    let Some(TlsRoute { at: _, parents: refs, hostnames, rules }) = spec else {
        take(problems, report);
        return Vec::new();
    };
    let (mut problems, mut verdict) = (problems.clone(), Verdict::of(problems));
    let hosts = hosts(hostnames, meta, &mut verdict, &mut problems);
    let asking = AttachingRoute { kind: "TLSRoute", meta, parents: &refs.0, hosts: &hosts };
    let of = StreamRouteContext { asking, problems: verdict, rules: &rules.0 };
    let attached = parents.attach(asking, report);
    if !attached.is_empty() || are_unread(&problems, "parentRef") {
        take(&problems, report);
    }
    attached.iter().filter_map(|attached| of.made(attached, backends, report)).collect()
}

pub(super) fn tcp(
    route: &Read<TcpRoute>,
    parents: &Parents<'_>,
    backends: &Backends<'_>,
    report: &mut Report,
) -> Vec<Resource<VirtualService>> {
    let Read { meta, spec, problems } = route;
    let Some(TcpRoute { at: _, parents: refs, rules }) = spec else {
        take(problems, report);
        return Vec::new();
    };
    let asking = AttachingRoute { kind: "TCPRoute", meta, parents: &refs.0, hosts: &[] };
    let of = StreamRouteContext { asking, problems: Verdict::of(problems), rules: &rules.0 };
    let attached = parents.attach(asking, report);
    if !attached.is_empty() || are_unread(problems, "parentRef") {
        take(problems, report);
    }
    attached.iter().filter_map(|attached| of.made(attached, backends, report)).collect()
}

/// A route for TLS or TCP.
struct StreamRouteContext<'a> {
    asking: AttachingRoute<'a>,
    problems: Verdict,
    rules: &'a [StreamRule],
}

impl StreamRouteContext<'_> {
    fn made(
        &self,
        attached: &Attached,
        backends: &Backends<'_>,
        report: &mut Report,
    ) -> Option<Resource<VirtualService>> {
        let meta = self.asking.meta;
        let (first, others) = self.rules.split_first()?;
        let spot = &first.at;
        for other in others {
            let message = "has no effect: the rules have no conditions, so the first one counts";
            meta.cx(report).warn(&other.at, message);
        }
        let at_mesh = matches!(attached.stage, Stage::Mesh { .. });
        let from = Referring { kind: self.asking.kind, meta, at_mesh };
        let route = match self.problems.rule(0) {
            Some(why) => vec![refused_stream(why, first)],
            None => destinations(first, backends, from, report),
        };
        let (gateways, export_to, port) = match &attached.stage {
            Stage::Mesh { port, export_to } => (Vec::new(), export_to.clone(), port.clone()),
            Stage::Listener(name, _) => (vec![at(name.to_string(), spot)], List::new(), None),
        };
        // What is inside of TLS that was terminated is known by its server name, and has rules for TCP.
        let by_name = match &attached.stage {
            Stage::Mesh { .. } => self.asking.kind == "TLSRoute",
            Stage::Listener(_, protocol) => *protocol == Protocol::Passthrough,
        };
        let host = at(attached.host.to_string(), spot);
        let mut spec = VirtualService {
            hosts: vec![host.clone()],
            gateways,
            export_to,
            is_translated: true,
            ..VirtualService::empty(spot)
        };
        let route = Records(route);
        if by_name {
            let one = TlsMatch { sni_hosts: vec![host], port, ..TlsMatch::empty(spot) };
            let matches = Records(vec![one]);
            spec.tls = Records(vec![TlsRule { matches, route, ..TlsRule::empty(spot) }]);
        } else {
            let one = port.map(|port| TcpMatch { port: Some(port), ..TcpMatch::empty(spot) });
            let matches = Records(one.into_iter().collect());
            spec.tcp = Records(vec![TcpRule { matches, route, ..TcpRule::empty(spot) }]);
        }
        Some(Resource { meta: meta.clone(), spec })
    }
}

fn refused_stream(why: &str, rule: &StreamRule) -> TcpDestination {
    let destination = Some(refused(why, &rule.at));
    TcpDestination { destination, ..TcpDestination::empty(&rule.at) }
}

fn destinations(
    rule: &StreamRule,
    backends: &Backends<'_>,
    from: Referring<'_>,
    report: &mut Report,
) -> Vec<TcpDestination> {
    let weight = |backend: &BackendRef| backend.weight.as_ref().map_or(1, |weight| weight.value);
    let chosen = rule.backends.0.iter().filter(|backend| weight(backend) > 0);
    let all: Vec<_> = chosen
        .map(|backend| TcpDestination {
            destination: Some(backends.destination(backend.into(), from, report)),
            weight: Some(at(weight(backend), &backend.at)),
            ..TcpDestination::empty(&backend.at)
        })
        .collect();
    if all.is_empty() {
        let why = "the rule has no backend with a share above 0";
        refuse(from.meta, &rule.at, format!("{why}; connections are refused"), report);
        return vec![refused_stream(why, rule)];
    }
    all
}
