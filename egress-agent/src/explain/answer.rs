//! From a question to its answer.

use std::sync::Arc;

use egress_ebpf::verdict::Mode;

use super::{
    gateway::{GatewayQuery, at_gateway},
    node::{Connected, NodeDecision},
    outcome::{Explanation, Outcome, Verdict},
    question::ExplainRequest,
    steps::Steps,
};
use crate::policy::Snapshot;

/// Explains a request.
#[must_use]
pub fn explain(snapshot: &Arc<Snapshot>, question: &ExplainRequest) -> Explanation {
    let mut steps = Steps::new(snapshot);
    let at_node = NodeDecision::of(snapshot, question);
    steps.node(&at_node, question);
    let NodeDecision { mode, reason, connected, address, .. } = at_node;
    let enforced = match connected {
        Connected::Passes => {
            Outcome::new(Verdict::Allowed, reason, "the node lets it pass, without a gateway")
        }
        Connected::Refused => Outcome::new(Verdict::Refused, reason, "the node refuses it"),
        Connected::Redirected { group, port, hop } => {
            steps.hop(hop, group);
            let asked = GatewayQuery { question, group, port, hop, address };
            at_gateway(snapshot, &asked, &mut steps)
        }
    };
    let from = format!("{}/{}", question.workload.namespace.0, question.workload.name);
    let (outcome, enforced) = match mode {
        Mode::Enforce => (enforced, None),
        // A redirect is carried out, so the gateway's answer counts.
        Mode::AuditRedirect if !matches!(connected, Connected::Refused) => (enforced, None),
        Mode::Audit | Mode::AuditRedirect => {
            let detail = "the workload is in audit mode: it passes as if there were no programs";
            (Outcome::new(Verdict::Allowed, reason, detail), Some(enforced))
        }
        Mode::Exempt => (Outcome::new(Verdict::Allowed, reason, "it is not judged"), None),
    };
    if enforced.as_ref().unwrap_or(&outcome).verdict == Verdict::Refused {
        steps.note();
    }
    Explanation { from, url: question.url.to_string(), outcome, enforced, steps: steps.finish() }
}
