//! `GRPCRoute` to rules of virtual services: a method of gRPC is a path, `/SERVICE/METHOD`.

use super::{
    super::{
        decode::{Records, Report, Spanned},
        gateway_api::Read,
        http_route::{GrpcMethodMatch, GrpcRoute, GrpcRouteMatch, GrpcRouteRule, ValueKind},
        text::StringMatch,
        virtual_service::HttpMatch,
    },
    attach::AttachingRoute,
    http::{RouteContext, RouteRule, TranslationInputs},
    matches::{Condition, Path, values},
    merge::Merged,
    notes::{Verdict, at, hosts, take},
};

pub(super) fn translate(
    route: &Read<GrpcRoute>,
    with: TranslationInputs<'_>,
    merged: &mut Merged,
    report: &mut Report,
) {
    let Read { meta, spec, problems } = route;
    let Some(GrpcRoute { at: spot, parents, hostnames, rules }) = spec else {
        take(problems, report);
        return;
    };
    let nothing = GrpcRouteRule::empty(spot);
    let rules = match rules {
        Some(Records(rules)) => rules.iter().map(written).collect(),
        None => vec![written(&nothing)],
    };
    let (mut problems, mut verdict) = (problems.clone(), Verdict::of(problems));
    let own = hosts(hostnames, meta, &mut verdict, &mut problems);
    let asking = AttachingRoute { kind: "GRPCRoute", meta, parents: &parents.0, hosts: &own };
    let attached = with.0.attach(asking, report);
    let of = RouteContext { kind: "GRPCRoute", meta, verdict, problems: &problems };
    of.add(&rules, &attached, with, merged, report);
}

fn written(rule: &GrpcRouteRule) -> RouteRule<'_> {
    let GrpcRouteRule { at, name, matches, filters, backends } = rule;
    let conditions = match matches.0.as_slice() {
        [] => vec![Condition::everything(at)],
        all => all.iter().map(condition).collect(),
    };
    RouteRule {
        at,
        name: name.as_ref(),
        conditions,
        filters: &filters.0,
        backends: &backends.0,
        timeouts: None,
        retry: None,
    }
}

fn condition(one: &GrpcRouteMatch) -> Condition {
    let GrpcRouteMatch { at: spot, method, headers } = one;
    let mut wanted = HttpMatch { headers: values(headers, true), ..HttpMatch::empty(spot) };
    let (uri, path, rank) = match method {
        None => (None, Path::Below, (0, 1)),
        Some(method) => path(method),
    };
    wanted.uri = uri;
    Condition::of(wanted, path, rank)
}

/// The condition on the path, and its rank: how it is compared, and its length.
fn path(method: &GrpcMethodMatch) -> (Option<StringMatch>, Path, (u8, usize)) {
    let GrpcMethodMatch { at: spot, kind, service, method } = method;
    let text = |part: &Option<Spanned<String>>| part.as_ref().map(|part| part.value.clone());
    let empty = || StringMatch::empty(spot);
    let regex = |text: String| {
        let rank = (1, text.len());
        let uri = StringMatch { regex: Some(at(text, spot)), ..empty() };
        (Some(uri), Path::Other, rank)
    };
    let kind = kind.as_ref().map_or(ValueKind::Exact, |kind| kind.value);
    match (kind, text(service), text(method)) {
        (_, None, None) => (None, Path::Below, (0, 1)),
        (ValueKind::Exact, Some(service), Some(method)) => {
            let path = format!("/{service}/{method}");
            let rank = (3, path.len());
            let uri = StringMatch { exact: Some(at(path, spot)), ..empty() };
            (Some(uri), Path::Other, rank)
        }
        (ValueKind::Exact, Some(service), None) => {
            let prefix = format!("/{service}/");
            let rank = (2, prefix.len());
            let uri = StringMatch { prefix: Some(at(prefix, spot)), ..empty() };
            (Some(uri), Path::Below, rank)
        }
        (ValueKind::Exact, None, Some(method)) => {
            regex(format!("/[^/]+/{}", regex::escape(&method)))
        }
        (ValueKind::Regex, Some(service), Some(method)) => {
            regex(format!("/(?:{service})/(?:{method})"))
        }
        (ValueKind::Regex, Some(service), None) => regex(format!("/(?:{service})/.+")),
        (ValueKind::Regex, None, Some(method)) => regex(format!("/[^/]+/(?:{method})")),
    }
}
