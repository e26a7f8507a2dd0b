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
    /// `listeners` of a Gateway.
    pub(super) listeners: Vec<Listener>,
    /// What a Gateway shows of them.
    pub(super) shown_listeners: Vec<Value>,
    /// Of the object that this was read from: what is written replaces that one only.
    pub(super) version: Option<String>,
}

/// A listener of a Gateway, as far as its status is concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Listener {
    pub(super) name: String,
    /// The names of the Secrets that are its certificates.
    pub(super) certificates: Vec<String>,
    /// Whether clients are asked for certificates.
    pub(super) asks: bool,
}

impl Listener {
    fn new(spec: &Value) -> Self {
        let tls = &spec["tls"];
        let references = tls["certificateRefs"].as_array().into_iter().flatten();
        let mode = tls["options"]["gateway.istio.io/tls-terminate-mode"].as_str();
        Self {
            name: spec["name"].as_str().unwrap_or_default().into(),
            certificates: references.filter_map(|one| Some(one["name"].as_str()?.into())).collect(),
            asks: mode.is_some_and(|mode| mode != "SIMPLE"),
        }
    }
}

/// What one shows.
pub(super) struct Shows {
    pub(super) conditions: Vec<Value>,
    pub(super) parents: Vec<Value>,
    pub(super) listeners: Vec<Value>,
}

impl ApiObject {
    pub(super) fn new(spec: Option<&Value>, shown: Shows, version: Option<String>) -> Self {
        let parents = spec.and_then(|spec| spec["parentRefs"].as_array());
        let listeners = spec.and_then(|spec| spec["listeners"].as_array()).into_iter().flatten();
        Self {
            class: spec.and_then(|spec| spec["gatewayClassName"].as_str()).map(Into::into),
            parents: parents.cloned().unwrap_or_default(),
            conditions: shown.conditions,
            shown_parents: shown.parents,
            listeners: listeners.map(Listener::new).collect(),
            shown_listeners: shown.listeners,
            version,
        }
    }
}
