//! What a request of a workload comes to, step by step, and which resource decides each step.
//!
//! The steps are those of the data path itself: the node's verdict is [`egress_ebpf::decide`] over what
//! the maps would hold, and a gateway's decision is [`GatewayPolicy`](crate::policy::GatewayPolicy)'s. Nothing is decided here.
//!
//! What the configuration does not say is assumed, and the steps say so: every gateway is healthy, every
//! node has a tunnel listener, and a name resolves to an external address.

mod answer;
mod ask;
mod gateway;
mod nearest;
mod node;
mod outcome;
mod question;
mod steps;

pub use self::{
    answer::explain,
    ask::Query,
    outcome::{Explanation, Outcome, Verdict},
    question::{ExplainRequest, Scheme, Url},
    steps::Line,
};

#[cfg(test)]
mod tests;
