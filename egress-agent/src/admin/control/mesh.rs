//! The workloads and the gateway that the configuration in force has, for `suggest`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    policy::Snapshot,
    suggest::{EarlierRoutes, GatewayPlace, Labelled, applied},
};

/// What `/mesh` answers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Mesh {
    /// Every workload with its labels.
    pub(crate) workloads: Vec<Labelled>,
    /// The first of `gateways`.
    pub(crate) gateway: Option<GatewayPlace>,
    /// Suggestions that are in force.
    #[serde(default)]
    pub(crate) earlier: Vec<EarlierRoutes>,
    /// Egress policies that have the name of a suggestion, each with its place.
    #[serde(default)]
    pub(crate) applied: BTreeMap<String, String>,
}

impl Mesh {
    /// Of this configuration.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mesh = &snapshot.mesh;
        let workloads = mesh.workloads.iter().map(|workload| Labelled {
            namespace: workload.namespace.0.to_string(),
            name: workload.name.to_string(),
            labels: workload.labels.clone(),
        });
        let gateway = mesh.gateways.first().map(|gateway| {
            let service = gateway.service.to_string();
            let namespace = service.split('.').nth(1).unwrap_or("istio-system").to_owned();
            GatewayPlace { service, namespace, labels: gateway.labels.clone() }
        });
        Self {
            workloads: workloads.collect(),
            gateway,
            earlier: EarlierRoutes::of(snapshot),
            applied: applied(snapshot),
        }
    }
}
