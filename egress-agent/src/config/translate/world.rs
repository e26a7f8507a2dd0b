//! What a translation knows besides the resources.

use super::super::{
    destination_rule::TrafficPolicy,
    gateway::Server,
    meta::Meta,
    virtual_service::{HttpMatch, HttpRule},
};
use crate::policy::MeshConfig;

/// What a translation knows besides the resources.
pub(in crate::config) struct World<'a> {
    /// The settings of the whole mesh.
    pub(in crate::config) mesh: &'a MeshConfig,
    /// Whether there is an API server, whose Secrets are read.
    pub(in crate::config) in_cluster: bool,
    /// What would be wrong with a part of a translation: it is tried before it is made, because an error there
    /// would hold back the whole configuration.
    pub(in crate::config) trials: Validators,
}

/// Each says what is wrong.
pub(in crate::config) struct Validators {
    pub(in crate::config) server: fn(&Server, &Meta, &MeshConfig) -> Option<String>,
    pub(in crate::config) matches: fn(&HttpMatch, &Meta) -> Option<String>,
    pub(in crate::config) rule: fn(&HttpRule, &Meta) -> Option<String>,
    pub(in crate::config) policy: fn(&TrafficPolicy, &Meta) -> Option<String>,
}
