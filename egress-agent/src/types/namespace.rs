//! Namespaces, which own workloads and resources.

use std::sync::Arc;

/// A Kubernetes namespace's name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Namespace(pub Arc<str>);
