//! The status for programs.

use serde_json::{Value, json};

use super::{
    assess::{Assessment, Verdict},
    found::{Agent, Node, StatusFindings},
};
use crate::{
    bpf::{AttachedProgram, MapFill, Verdicts},
    telemetry::rfc3339,
};

pub(super) fn value(found: &StatusFindings, assessment: &Assessment) -> Value {
    json!({
        "verdict": match assessment.verdict {
            Verdict::Healthy => "healthy",
            Verdict::Degraded => "degraded",
            Verdict::Wrong => "problems",
            Verdict::NotAttached => "not_attached",
        },
        "problems": assessment.problems,
        "exposures": assessment.exposures,
        "warnings": assessment.warnings,
        "node": found.node.as_ref().map(node),
        "gateway": found.gateway,
    })
}

fn node(node: &Node) -> Value {
    let Node { bpffs, inspection, agent } = node;
    let (runs, report) = match agent {
        Agent::Runs(report) => (true, Some(report)),
        Agent::Mute { .. } => (true, None),
        Agent::Dead | Agent::Failed(_) => (false, None),
    };
    let list = |items: Vec<Value>| Value::Array(items);
    let known = |value: Value| if inspection.is_of_another_layout() { Value::Null } else { value };
    json!({
        "agent_runs": runs,
        "agent": report,
        "bpffs": bpffs.display().to_string(),
        "abi_versions": inspection.versions,
        "configured": known(json!(inspection.held.is_some())),
        "held": inspection.held.map(|held| json!({
            "digest": held.digest_text(),
            "generation": held.generation,
            "accepted_at": rfc3339::text(held.accepted()),
        })),
        "programs": list(inspection.programs.iter().map(program).collect()),
        "maps": list(inspection.maps.iter().map(map).collect()),
        // JSON's keys are texts.
        "modes": known(inspection.modes.iter().map(|(policy, mode)| (policy.to_string(), json!(mode)))
            .collect::<serde_json::Map<_, _>>().into()),
        "verdicts": list(inspection.verdicts.iter().map(verdicts).collect()),
        "events_lost": known(json!({ "rate": inspection.lost.rate, "full": inspection.lost.full })),
    })
}

fn program(program: &AttachedProgram) -> Value {
    json!({
        "name": program.name,
        "id": program.id,
        "target": program.target,
        "link": program.link,
        "attached_by": if program.link.is_some() { "link" } else { "clsact" },
        "loaded_at": program.loaded_at.map(rfc3339::text),
        "tag": program.tag.map(tag),
        "abi_version": program.version,
    })
}

/// As bpftool writes it.
fn tag(tag: u64) -> String {
    tag.to_ne_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn map(map: &MapFill) -> Value {
    json!({
        "name": map.name,
        "entries": map.entries,
        "capacity": map.capacity,
        "full": map.is_full(),
        "evicts": map.evicts,
    })
}

fn verdicts(verdicts: &Verdicts) -> Value {
    json!({
        "hook": verdicts.hook.name(),
        "action": verdicts.action.name(),
        "reason": verdicts.reason.name(),
        "audit": verdicts.audit,
        "count": verdicts.count,
    })
}
