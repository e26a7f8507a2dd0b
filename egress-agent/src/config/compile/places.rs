//! Where the compiled parts are written.

use std::sync::Arc;

use super::super::{
    decode::SourcePosition,
    resource::{Meta, Resources},
};
use crate::policy::{ResourcePath, ResourceStarts};

/// The place of a field.
pub(super) fn at(meta: &Meta, spot: &SourcePosition) -> ResourcePath {
    ResourcePath { field: spot.path.to_string().into(), line: spot.line, ..whole(meta) }
}

/// The place of a resource.
fn whole(meta: &Meta) -> ResourcePath {
    let Meta { file, label, line, name: _, namespace: _, created: _, annotations: _ } = meta;
    let (resource, file) = (Arc::from(label.as_str()), Arc::from(&**file));
    ResourcePath { resource, field: Box::default(), file, line: *line }
}

/// The places of all resources.
pub(super) fn all(resources: &Resources) -> ResourceStarts {
    let entries = resources.entries.iter().map(|entry| &entry.meta);
    let gateways = resources.gateways.iter().map(|gateway| &gateway.meta);
    let rules = resources.rules.iter().map(|rule| &rule.meta);
    let routes = resources.routes.iter().chain(&resources.delegates).map(|route| &route.meta);
    let guards = resources.guards.iter().map(|guard| &guard.meta);
    let policies = resources.policies.iter().map(|policy| &policy.meta);
    let metas = entries.chain(gateways).chain(rules).chain(routes).chain(guards).chain(policies);
    metas.map(whole).collect()
}
