//! Gateways and routes of the Gateway API, as far as their status is concerned.

use serde_json::Value;

/// A Gateway or a route.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ApiObject {
    /// `gatewayClassName` of a Gateway.
    pub(super) class: Option<String>,
    /// `parentRefs` of a route.
    pub(super) parents: Vec<Value>,
    /// The conditions that a Gateway shows.
    pub(super) conditions: Vec<Value>,
    /// What a route shows, for other controllers too.
    pub(super) shown_parents: Vec<Value>,
    /// Of the object that this was read from: what is written replaces that one only.
    pub(super) version: Option<String>,
}

/// What one shows.
pub(super) struct Shows {
    pub(super) conditions: Vec<Value>,
    pub(super) parents: Vec<Value>,
}

impl ApiObject {
    pub(super) fn new(spec: Option<&Value>, shown: Shows, version: Option<String>) -> Self {
        let parents = spec.and_then(|spec| spec["parentRefs"].as_array());
        Self {
            class: spec.and_then(|spec| spec["gatewayClassName"].as_str()).map(Into::into),
            parents: parents.cloned().unwrap_or_default(),
            conditions: shown.conditions,
            shown_parents: shown.parents,
            version,
        }
    }
}
