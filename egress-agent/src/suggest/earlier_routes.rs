//! What earlier suggestions allow that are in force, as Istio's resources: the next one has it too, since
//! resources of a host keep their names and replace those before them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    names::name,
    observed_traffic::{Group, SuggestedDestination, SuggestedProtocol},
};
use crate::{
    policy::{
        HttpAction, HttpMatch, HttpOutcome, HttpRule, PathRewrite, RetryPolicy, RouteSet, Snapshot,
        SourceMatch, Target, TlsMatch, WeightedDestination,
    },
    types::{Labels, Port},
};

/// The routes of an earlier suggestion for one host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EarlierRoutes {
    /// The namespace.
    pub(super) namespace: String,
    /// A name, or `*.` and a name.
    pub(super) host: String,
    /// Where it is written; empty where that is no file.
    pub(super) place: String,
    /// Who may ask for what; `None` where it is not what a suggestion says, since somebody changed it.
    pub(super) routes: Option<Vec<Route>>,
}

/// Who may ask for one port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) struct Route {
    port: u16,
    spoken: SuggestedProtocol,
    labels: Labels,
}

impl EarlierRoutes {
    /// Those of a configuration.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Vec<Self> {
        let one = |routes: &RouteSet| {
            let [host] = &routes.hosts[..] else { return None };
            let (host, namespace) = (host.to_string(), routes.namespace.0.to_string());
            if *routes.name != *format!("{namespace}/{}", name(&host)) {
                return None;
            }
            let place = snapshot.places.get(&routes.label);
            let place = place.map(|place| format!("{}:{}", place.file, place.line));
            let found = as_suggested(routes, &namespace, &host);
            Some(Self { namespace, host, place: place.unwrap_or_default(), routes: found })
        };
        snapshot.rules.routes.iter().filter_map(|routes| one(routes)).collect()
    }

    /// What it allows, and whom.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (Group, SuggestedDestination)> {
        self.routes.iter().flatten().map(|Route { port, spoken, labels }| {
            let (namespace, labels) = (self.namespace.clone(), labels.clone());
            let wanted =
                SuggestedDestination { port: *port, spoken: *spoken, host: self.host.clone() };
            (Group { namespace, labels }, wanted)
        })
    }
}

/// The routes of the mesh stage; `None` where a rule says more or less than a suggestion does.
fn as_suggested(routes: &RouteSet, namespace: &str, host: &str) -> Option<Vec<Route>> {
    let mut found = BTreeSet::new();
    let mut add = |port: Option<Port>, spoken, source: &SourceMatch| {
        let SourceMatch { labels, namespace: of, subnet } = source;
        let is_own = subnet.is_none() && of.as_ref().is_some_and(|of| *of.0 == *namespace);
        let port = port.filter(|_| is_own)?.get();
        found.insert(Route { port, spoken, labels: labels.clone() });
        Some(())
    };
    for rule in &routes.mesh.http {
        let HttpOutcome::Route(targets) = &rule.outcome else { return None };
        if !is_plain(rule) || !leads_to_a_gateway(targets) || rule.matches.is_empty() {
            return None;
        }
        for one in &rule.matches {
            let HttpMatch {
                port,
                path: None,
                ignore_case: false,
                method: None,
                authority: None,
                scheme: None,
                headers,
                without_headers,
                query,
                source,
            } = one
            else {
                return None;
            };
            if !headers.is_empty() || !without_headers.is_empty() || !query.is_empty() {
                return None;
            }
            add(*port, SuggestedProtocol::Http, source)?;
        }
    }
    for rule in &routes.mesh.tls {
        if !leads_to_a_gateway(&rule.targets) {
            return None;
        }
        for TlsMatch { port, server_names, source } in &rule.matches {
            let [one] = &server_names[..] else { return None };
            if one.to_string() != host {
                return None;
            }
            add(*port, SuggestedProtocol::Tls, source)?;
        }
    }
    let at_gateways = || routes.gateways.iter().flat_map(|(_, rules)| &rules.http);
    let is_as_written = routes.mesh.tcp.is_empty() && at_gateways().all(|rule| is_plain(rule));
    (is_as_written && !found.is_empty()).then(|| found.into_iter().collect())
}

/// Whether a rule routes, and does nothing besides.
fn is_plain(rule: &HttpRule) -> bool {
    let HttpRule {
        name: _,
        matches: _,
        outcome,
        timeout,
        retry,
        action,
        path,
        delay,
        abort,
        mirrors,
        place: _,
    } = rule;
    let HttpOutcome::Route(targets) = outcome else { return false };
    // Upgrades are also a setting of the mesh.
    let changes_nothing = |action: &HttpAction| {
        *action == HttpAction { upgrades: action.upgrades, ..HttpAction::default() }
    };
    timeout.is_none()
        && **retry == RetryPolicy::default()
        && matches!(path, PathRewrite::Keep)
        && delay.is_none()
        && abort.is_none()
        && mirrors.is_empty()
        && changes_nothing(action)
        && targets.iter().all(|target| changes_nothing(&target.action))
}

fn leads_to_a_gateway(targets: &[WeightedDestination]) -> bool {
    matches!(targets, [WeightedDestination { target: Target::Gateway { .. }, .. }])
}
