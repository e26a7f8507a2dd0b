//! What becomes of the listeners of the Gateway API's Gateways, for their status.

use std::collections::{BTreeMap, BTreeSet};

/// What becomes of a listener.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListenerStatus {
    /// The kinds of routes that it takes.
    pub kinds: Vec<&'static str>,
    /// The routes that it has taken, as messages call them.
    pub routes: BTreeSet<String>,
    /// Whether a gateway serves it.
    pub is_served: bool,
}

/// By what messages call the Gateway; in the order in which it has them.
pub type ListenerStatuses = BTreeMap<String, Vec<ListenerStatus>>;
