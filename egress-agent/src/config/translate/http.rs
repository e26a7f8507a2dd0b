//! `HTTPRoute` to rules of virtual services.

use std::rc::Rc;

use super::{
    super::{
        decode::{Records, Report, SourcePosition, Spanned},
        gateway_api::Read,
        http_route::{
            HttpBackendRef, HttpRoute, HttpRouteMatch, HttpRouteRule, RouteRetry, RouteTimeouts,
        },
        meta::Meta,
        problem::Problem,
        route_filters::RouteFilter,
        virtual_service::{HttpDestination, HttpMatch, HttpRule, Retries, Rewrite},
    },
    attach::{Attached, AttachingRoute, Parents, Stage},
    backends::{Backends, Reference, Referring},
    filters::{Filtered, NewPath, filtered, of_backend},
    matches::{Condition, Path, Rank, conditions},
    merge::Merged,
    notes::{Verdict, are_unread, at, hosts, refuse, refused, take},
    world::World,
};

/// What a connection is tried again on.
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled";
/// How often, if nothing else is said.
const ATTEMPTS: u32 = 2;
/// The most tries after the first.
const MOST_ATTEMPTS: u32 = 100;

/// What a route is translated with.
pub(super) type TranslationInputs<'a> = (&'a Parents<'a>, &'a Backends<'a>, &'a World<'a>);

/// A rule of a route for HTTP or gRPC.
pub(super) struct RouteRule<'a> {
    pub(super) at: &'a SourcePosition,
    pub(super) name: Option<&'a Spanned<String>>,
    /// What it is for: one of these.
    pub(super) conditions: Vec<Condition>,
    pub(super) filters: &'a [RouteFilter],
    pub(super) backends: &'a [HttpBackendRef],
    pub(super) timeouts: Option<&'a RouteTimeouts>,
    pub(super) retry: Option<&'a RouteRetry>,
}

pub(super) fn translate(
    route: &Read<HttpRoute>,
    with: TranslationInputs<'_>,
    merged: &mut Merged,
    report: &mut Report,
) {
    let Read { meta, spec, problems } = route;
    let Some(HttpRoute { at: spot, parents, hostnames, rules }) = spec else {
        take(problems, report);
        return;
    };
    let nothing = HttpRouteRule::empty(spot);
    let rules = match rules {
        Some(Records(rules)) => rules.iter().map(written).collect(),
        None => vec![written(&nothing)],
    };
    let (mut problems, mut verdict) = (problems.clone(), Verdict::of(problems));
    let own = hosts(hostnames, meta, &mut verdict, &mut problems);
    let asking = AttachingRoute { kind: "HTTPRoute", meta, parents: &parents.0, hosts: &own };
    let attached = with.0.attach(asking, report);
    let of = RouteContext { kind: "HTTPRoute", meta, verdict, problems: &problems };
    of.add(&rules, &attached, with, merged, report);
}

fn written(rule: &HttpRouteRule) -> RouteRule<'_> {
    let HttpRouteRule { at, name, matches, filters, backends, timeouts, retry } = rule;
    let conditions = match matches.0.as_slice() {
        [] => vec![Condition::everything(at)],
        all => all.iter().flat_map(|one: &HttpRouteMatch| conditions(one)).collect(),
    };
    RouteRule {
        at,
        name: name.as_ref(),
        conditions,
        filters: &filters.0,
        backends: &backends.0,
        timeouts: timeouts.as_ref(),
        retry: retry.as_ref(),
    }
}

/// A route for HTTP or gRPC.
pub(super) struct RouteContext<'a> {
    pub(super) kind: &'static str,
    pub(super) meta: &'a Rc<Meta>,
    pub(super) verdict: Verdict,
    pub(super) problems: &'a [Problem],
}

impl RouteContext<'_> {
    /// Adds its rules wherever it is attached.
    pub(super) fn add(
        mut self,
        rules: &[RouteRule<'_>],
        attached: &[Attached],
        with: TranslationInputs<'_>,
        merged: &mut Merged,
        report: &mut Report,
    ) {
        if !attached.is_empty() || are_unread(self.problems, "parentRef") {
            take(self.problems, report);
        }
        if attached.is_empty() {
            return;
        }
        // A condition that cannot be read leaves open what all rules are for.
        let wanted = rules.iter().flat_map(|rule| &rule.conditions);
        for condition in wanted {
            if let Some(why) = (with.2.trials.matches)(&condition.wanted, self.meta) {
                let text = format!("{why}; the route is refused");
                refuse(self.meta, &condition.wanted.at, text, report);
                self.verdict.whole.get_or_insert_with(|| why.into());
            }
        }
        let is_mesh = |attached: &&Attached| matches!(attached.stage, Stage::Mesh { .. });
        let stages: [(bool, Vec<&Attached>); 2] = [
            (true, attached.iter().filter(is_mesh).collect()),
            (false, attached.iter().filter(|one| !is_mesh(one)).collect()),
        ];
        for (at_mesh, attached) in stages {
            if attached.is_empty() {
                continue;
            }
            let from = Referring { kind: self.kind, meta: self.meta, at_mesh };
            for (number, rule) in rules.iter().enumerate() {
                for (condition, made) in self.rules(number, rule, from, with, report) {
                    for place in &attached {
                        let rank: Rank = condition.rank(place.named.as_ref());
                        merged.add(self.meta, place, (rank, made.clone()));
                    }
                }
            }
        }
    }

    /// The rules that one comes to, each with its condition.
    fn rules<'w>(
        &self,
        number: usize,
        written: &'w RouteRule<'_>,
        from: Referring<'_>,
        (_, backends, world): TranslationInputs<'_>,
        report: &mut Report,
    ) -> Vec<(&'w Condition, HttpRule)> {
        let spot = written.at;
        let name = match written.name {
            Some(name) => name.clone(),
            None => at(format!("{}.{}.{number}", self.meta.namespace.0, self.meta.name), spot),
        };
        let all = written.conditions.iter();
        if let Some(why) = self.verdict.rule(number) {
            let matches = |condition: &Condition| {
                match (world.trials.matches)(&condition.wanted, self.meta) {
                    None => matching(condition),
                    // Nobody knows what it is for, so it is for everything.
                    Some(_) => Records(Vec::new()),
                }
            };
            let refused = |condition| (condition, refusing(why, matches(condition), &name, spot));
            return all.map(refused).collect();
        }
        let Filtered {
            headers,
            mirrors,
            redirect,
            redirected_prefix,
            authority,
            path,
            cors,
            mut wrong,
        } = filtered(written.filters, backends, from, report);
        let path = redirected_prefix.or(path);
        let retries = match retries(written.retry, written.timeouts, spot) {
            Ok(retries) => retries,
            Err(error) => {
                wrong.push(error);
                None
            }
        };
        let timeout = written.timeouts.and_then(|timeouts| timeouts.request.clone());
        let timeout = timeout.filter(|timeout| !timeout.value.is_zero());
        let route = match redirect {
            Some(_) => Vec::new(),
            None => destinations(written, backends, from, &mut wrong, report),
        };
        let made = |condition: &Condition, wrong: &mut Vec<(SourcePosition, String)>| {
            let below = condition.path == Path::Below;
            if let (Some(NewPath::Prefix(text)), Path::Other) = (&path, condition.path) {
                let why = "ReplacePrefixMatch is for rules whose matches are prefixes";
                wrong.push((text.at.clone(), why.into()));
            }
            let rewrite = match (&path, &authority) {
                (None, None) => None,
                (path, authority) => {
                    let own = path.as_ref().map(|path| path.rewrite(below));
                    let own = own.unwrap_or_else(|| Rewrite::empty(spot));
                    Some(Rewrite { authority: authority.clone(), ..own })
                }
            };
            HttpRule {
                name: Some(name.clone()),
                matches: matching(condition),
                route: Records(route.clone()),
                redirect: redirect.clone(),
                rewrite,
                timeout: timeout.clone(),
                retries: retries.clone(),
                headers: headers.clone(),
                mirrors: Records(mirrors.clone()),
                cors_policy: cors.clone(),
                ..HttpRule::empty(spot)
            }
        };
        let rules: Vec<_> = all.clone().map(|one| (one, made(one, &mut wrong))).collect();
        for (_, rule) in &rules {
            wrong.extend((world.trials.rule)(rule, self.meta).map(|why| (spot.clone(), why)));
        }
        let Some((_, first)) = wrong.first() else { return rules };
        for (spot, why) in &wrong {
            let text = format!("{why}; what the rule is for is refused");
            refuse(self.meta, spot, text, report);
        }
        let refused = |condition| (condition, refusing(first, matching(condition), &name, spot));
        all.map(refused).collect()
    }
}

fn matching(condition: &Condition) -> Records<HttpMatch> {
    match condition.is_everything() {
        true => Records(Vec::new()),
        false => Records(vec![condition.wanted.clone()]),
    }
}

/// A rule that refuses what it is for.
fn refusing(
    why: &str,
    matches: Records<HttpMatch>,
    name: &Spanned<String>,
    spot: &SourcePosition,
) -> HttpRule {
    let destination = Some(refused(why, spot));
    HttpRule {
        name: Some(name.clone()),
        matches,
        route: Records(vec![HttpDestination { destination, ..HttpDestination::empty(spot) }]),
        ..HttpRule::empty(spot)
    }
}

fn destinations(
    rule: &RouteRule<'_>,
    backends: &Backends<'_>,
    from: Referring<'_>,
    wrong: &mut Vec<(SourcePosition, String)>,
    report: &mut Report,
) -> Vec<HttpDestination> {
    let mut all = Vec::new();
    for backend in rule.backends {
        let HttpBackendRef { at: spot, group, kind, name, namespace, port, weight, filters } =
            backend;
        let weight = weight.as_ref().map_or(1, |weight| weight.value);
        if weight == 0 {
            continue;
        }
        let (group, kind, name) = (group.as_ref(), kind.as_ref(), name.as_ref());
        let (namespace, port) = (namespace.as_ref(), port.as_ref());
        let reference = Reference { at: spot, group, kind, name, namespace, port };
        let destination = Some(backends.destination(reference, from, report));
        let mut own = of_backend(&filters.0);
        wrong.append(&mut own.wrong);
        all.push(HttpDestination {
            destination,
            weight: Some(at(weight, spot)),
            headers: own.headers,
            ..HttpDestination::empty(spot)
        });
    }
    if all.is_empty() {
        wrong.push((rule.at.clone(), "the rule has no backend with a share above 0".into()));
    }
    all
}

/// Retries, and the limit of each try.
fn retries(
    retry: Option<&RouteRetry>,
    timeouts: Option<&RouteTimeouts>,
    spot: &SourcePosition,
) -> Result<Option<Retries>, (SourcePosition, String)> {
    let each = timeouts.and_then(|timeouts| timeouts.backend_request.clone());
    let per_try_timeout = each.filter(|each| !each.value.is_zero());
    let Some(RouteRetry { at: spot, codes, attempts, backoff }) = retry else {
        return Ok(per_try_timeout.map(|each| Retries {
            attempts: Some(at(ATTEMPTS, spot)),
            per_try_timeout: Some(each),
            ..Retries::empty(spot)
        }));
    };
    let attempts = attempts.clone().unwrap_or_else(|| at(ATTEMPTS, spot));
    if attempts.value > MOST_ATTEMPTS {
        let why = format!("more than {MOST_ATTEMPTS} tries are too many");
        return Err((attempts.at, why));
    }
    if attempts.value == 0 {
        // Nothing is tried again, so nothing else is said of it; the one try has the limit of all.
        return match per_try_timeout {
            None => Ok(Some(Retries { attempts: Some(attempts), ..Retries::empty(spot) })),
            Some(each) => {
                let why = "backendRequest without retries is not supported; give request instead";
                Err((each.at, why.into()))
            }
        };
    }
    let codes = codes.iter().map(|code| code.value.to_string());
    let on = std::iter::once(RETRY_ON.to_owned()).chain(codes).collect::<Vec<_>>().join(",");
    Ok(Some(Retries {
        attempts: Some(attempts),
        per_try_timeout,
        retry_on: Some(at(on, spot)),
        backoff: backoff.clone(),
        ..Retries::empty(spot)
    }))
}
