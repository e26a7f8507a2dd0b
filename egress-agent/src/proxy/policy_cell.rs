//! Where the policy in force is.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::policy::GatewayPolicy;

/// The policy in force, swapped whole; empty until a configuration was accepted.
pub type PolicyCell = Arc<ArcSwapOption<GatewayPolicy>>;
