//! Conditions as the API server has them, without I/O.

use serde_json::{Value, json};

use super::cut::cut;

/// Bytes of a message.
const MESSAGE: usize = 4096;

/// A condition, without the time of its change.
pub(super) struct DesiredCondition {
    pub(super) kind: &'static str,
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    message: String,
}

impl DesiredCondition {
    pub(super) fn good(kind: &'static str, message: &str) -> Self {
        let reason = match kind {
            "ResolvedRefs" => "ResolvedRefs",
            "Programmed" => "Programmed",
            _ => "Accepted",
        };
        Self::holding(kind, reason, message)
    }

    pub(super) fn holding(kind: &'static str, reason: &'static str, message: &str) -> Self {
        Self { kind, holds: true, reason, message: cut(message, MESSAGE) }
    }

    pub(super) fn bad(kind: &'static str, reason: &'static str, message: &str) -> Self {
        Self { kind, holds: false, reason, message: cut(message, MESSAGE) }
    }
}

/// Whether one of these conditions is shown for a newer generation.
pub(super) fn are_newer(wanted: &[DesiredCondition], generation: i64, shown: &[Value]) -> bool {
    let mut seen = shown
        .iter()
        .filter(|shown| wanted.iter().any(|one| shown["type"] == one.kind))
        .filter_map(|shown| shown["observedGeneration"].as_i64());
    seen.any(|seen| seen > generation)
}

/// The conditions, with the times of those that stay; `None` where all of them are shown already, or those of a newer
/// generation.
pub(super) fn conditions(
    wanted: &[DesiredCondition],
    generation: i64,
    shown: &[Value],
) -> Option<Vec<Value>> {
    let find = |kind: &str| shown.iter().find(|shown| shown["type"] == kind);
    if are_newer(wanted, generation, shown) {
        return None;
    }
    let mut changed = false;
    let made = wanted.iter().map(|one| {
        let mut made = json!({
            "type": one.kind,
            "status": if one.holds { "True" } else { "False" },
            "observedGeneration": generation,
            "reason": one.reason,
            "message": one.message,
        });
        let shown = find(one.kind);
        let since = shown.filter(|shown| shown["status"] == made["status"]);
        if let Some(since) = since.map(|shown| shown["lastTransitionTime"].clone()) {
            made["lastTransitionTime"] = since;
        }
        changed |= shown != Some(&made);
        made
    });
    let made: Vec<Value> = made.collect();
    changed.then_some(made)
}

/// Gives the conditions that begin now their time.
pub(super) fn stamp(status: &mut Value, now: &str) {
    match status {
        Value::Array(all) => all.iter_mut().for_each(|one| stamp(one, now)),
        Value::Object(fields) => {
            fields.values_mut().for_each(|one| stamp(one, now));
            if fields.contains_key("observedGeneration") && fields.contains_key("type") {
                fields.entry("lastTransitionTime").or_insert_with(|| now.into());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
