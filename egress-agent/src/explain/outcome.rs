//! What a request comes to.

use egress_ebpf::reason::Reason;
use serde::{Deserialize, Serialize};

use super::steps::Line;

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It reaches its destination.
    Allowed,
    /// The gateway answers it by itself, as a rule says.
    Answered,
    /// It is refused.
    Refused,
}

/// A verdict with its reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// What becomes of it.
    pub verdict: Verdict,
    /// The reason, as flows and metrics name it.
    pub reason: String,
    /// A sentence; the one that the client, the log and `flows` have.
    pub detail: String,
}

impl Outcome {
    pub(super) fn new(verdict: Verdict, reason: Reason, detail: impl Into<String>) -> Self {
        Self { verdict, reason: reason.name().into(), detail: detail.into() }
    }
}

/// What a request comes to, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// `shop/web`
    pub from: String,
    /// The URL.
    pub url: String,
    /// What becomes of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What would become of it without audit mode, where the workload is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforced: Option<Outcome>,
    /// How it comes about.
    pub steps: Vec<Line>,
}
