//! Label selectors of Kubernetes, checked as an API server checks them.

use super::{
    decode::{Cx, SourcePosition, Spanned},
    egress_policy::{LabelExpression, PodSelector, SelectorOperator},
};
use crate::policy::{LabelOperator, LabelRequirement, LabelSelector};

/// What the definitions in `deploy/crds` allow at most.
pub(super) const MAX_LABELS: usize = 64;
pub(super) const MAX_EXPRESSIONS: usize = 16;
pub(super) const MAX_VALUES: usize = 64;

/// Reports more than an API server takes.
pub(super) fn at_most(
    found: usize,
    most: usize,
    field: &'static str,
    at: &SourcePosition,
    cx: &mut Cx<'_>,
) {
    if found > most {
        let message = "an API server refuses so many; use several rules or policies";
        cx.wrong(&at.field(field), found.to_string(), format!("at most {most}"), message);
    }
}

/// A selector; without one everything is selected.
pub(super) fn selector(selector: Option<&PodSelector>, cx: &mut Cx<'_>) -> LabelSelector {
    let Some(PodSelector { at, match_labels, match_expressions }) = selector else {
        return LabelSelector::default();
    };
    at_most(match_labels.0.len(), MAX_LABELS, "matchLabels", at, cx);
    at_most(match_expressions.0.len(), MAX_EXPRESSIONS, "matchExpressions", at, cx);
    let mut requirements = Vec::new();
    for (key, value) in &match_labels.0 {
        label_key(key, cx);
        label_value(value, cx);
        let operator = LabelOperator::In(vec![value.value.as_str().into()]);
        requirements.push(LabelRequirement { key: key.value.as_str().into(), operator });
    }
    for LabelExpression { at, key, operator, values } in &match_expressions.0 {
        at_most(values.len(), MAX_VALUES, "values", at, cx);
        let (Some(key), Some(operator)) = (key, operator) else { continue };
        label_key(key, cx);
        let compares = matches!(operator.value, SelectorOperator::In | SelectorOperator::NotIn);
        if compares == values.is_empty() {
            let expected = if compares { "at least one value" } else { "none" };
            let found =
                if compares { "nothing".into() } else { format!("{} values", values.len()) };
            let message = format!("operator {} and its values don't fit", operator.value);
            cx.wrong(&at.field("values"), found, expected, message);
        }
        for value in values {
            label_value(value, cx);
        }
        let values = values.iter().map(|value| value.value.as_str().into()).collect();
        let operator = match operator.value {
            SelectorOperator::In => LabelOperator::In(values),
            SelectorOperator::NotIn => LabelOperator::NotIn(values),
            SelectorOperator::Exists => LabelOperator::Exists,
            SelectorOperator::DoesNotExist => LabelOperator::DoesNotExist,
        };
        requirements.push(LabelRequirement { key: key.value.as_str().into(), operator });
    }
    LabelSelector { requirements }
}

/// A part of a key, or a value: letters and digits at its ends, `-`, `_` and `.` within.
fn is_label_part(text: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn label_key(key: &Spanned<String>, cx: &mut Cx<'_>) {
    let (prefix, name) = match key.value.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key.value.as_str()),
    };
    let lower = |prefix: &str| {
        prefix.len() <= 253
            && prefix.split('.').all(is_label_part)
            && !prefix.contains(|c: char| c.is_ascii_uppercase() || c == '_')
    };
    if !is_label_part(name) || !prefix.is_none_or(lower) {
        let found = format!("{:?}", key.value);
        cx.wrong(&key.at, found, "a label's key such as app or example.com/tier", "no label");
    }
}

fn label_value(value: &Spanned<String>, cx: &mut Cx<'_>) {
    if !value.value.is_empty() && !is_label_part(&value.value) {
        let expected = "at most 63 letters, digits, '-', '_' and '.'";
        cx.wrong(&value.at, format!("{:?}", value.value), expected, "not a label's value");
    }
}
