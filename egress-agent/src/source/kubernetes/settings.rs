//! What is asked of the API server.

use std::{path::PathBuf, time::Duration};

use super::{report::Reports, taint::StartupTaint};
use crate::source::{NodeSelector, Secrets};

/// Where the API server is and what is asked of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A kubeconfig; in a cluster, the pod's own service account where absent.
    pub kubeconfig: Option<PathBuf>,
    /// The ConfigMap with the mesh-wide settings: namespace and name.
    pub mesh: (String, String),
    /// Whether Services of type ExternalName are hosts of the registry.
    pub external_names: bool,
    /// The namespace of the gateways' Services.
    pub gateways: String,
    /// Which pods.
    pub scope: Scope,
    /// What else.
    pub more: More,
    /// For how long a watch may be silent. A server sends a bookmark each minute.
    pub silence: Duration,
}

/// What else is asked of the API server, by one role alone.
#[derive(Clone, Debug, Default)]
pub struct More {
    /// The Secrets of credentials; absent where they are files, and on nodes.
    pub secrets: Option<Secrets>,
    /// The taint that a node has until enforcement stands.
    pub taint: Option<StartupTaint>,
    /// What a gateway reports.
    pub reports: Option<Reports>,
    /// The nodes that run agents.
    pub agents: NodeSelector,
}

/// Which pods are asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Those of a node.
    Node(String),
    /// Those of a namespace.
    Namespace(String),
    /// All of the cluster, by address.
    Cluster,
}
