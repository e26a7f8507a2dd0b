//! What would be wrong with a part of a translated resource. It is compiled for that alone.

use super::{
    super::{
        decode::{Cx, Report},
        destination_rule::TrafficPolicy,
        gateway::Server,
        meta::Meta,
        translate::Validators,
        virtual_service::{HttpMatch, HttpRule},
    },
    gateways,
    http::{try_match, try_rule},
    traffic::{self, Kinds},
};
use crate::{policy::MeshConfig, types::Labels};

pub(super) const TRIALS: Validators = Validators { server, matches, rule, policy };

/// The first error.
fn tried(meta: &Meta, work: impl FnOnce(&mut Cx<'_>)) -> Option<String> {
    let mut report = Report::default();
    work(&mut meta.cx(&mut report));
    let (problems, is_wrong) = report.into_parts();
    let wrong = problems.iter().find(|p| p.severity == super::super::Severity::Error);
    wrong.filter(|_| is_wrong).map(|problem| {
        let found = problem.found.as_ref().map(|found| format!(" (found {found})"));
        format!("{}{}", problem.message, found.unwrap_or_default())
    })
}

fn server(server: &Server, meta: &Meta, mesh: &MeshConfig) -> Option<String> {
    let selector = Labels::from([("any".into(), "any".into())]);
    tried(meta, |cx| drop(gateways::server(server, meta, (&selector, &None), mesh, cx)))
}

fn matches(one: &HttpMatch, meta: &Meta) -> Option<String> {
    tried(meta, |cx| try_match(one, cx))
}

fn rule(rule: &HttpRule, meta: &Meta) -> Option<String> {
    tried(meta, |cx| try_rule(rule, cx))
}

fn policy(policy: &TrafficPolicy, meta: &Meta) -> Option<String> {
    let kinds = Kinds { gateway: false, registry: true };
    tried(meta, |cx| drop(traffic::policy(policy, kinds, cx)))
}
