//! Durations that are valid here, and that an API server with Istio's current definitions and webhook refuses.

use std::time::Duration;

use super::super::decode::{Cx, Spanned};

/// The shortest duration that the current definitions allow.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// Warns of a duration below a millisecond, or with a part of one.
pub(super) fn warn_of(given: Option<&Spanned<Duration>>, cx: &mut Cx<'_>) {
    let Some(given) = given else { return };
    if given.value >= SHORTEST {
        return warn_of_parts(Some(given), cx);
    }
    let (advice, found) = match given.value.is_zero() {
        true => ("leave the field out", "0s".to_owned()),
        false => ("say at least 1ms", format!("{:?}", given.value)),
    };
    let message = format!("a current API server refuses durations below 1ms; {advice}");
    cx.warn(&given.at, message).found = Some(found);
}

/// Warns of a part of a millisecond, in what cannot be shorter than one.
pub(super) fn warn_of_parts(given: Option<&Spanned<Duration>>, cx: &mut Cx<'_>) {
    let has_parts =
        |given: &&Spanned<Duration>| !given.value.subsec_nanos().is_multiple_of(1_000_000);
    let Some(given) = given.filter(has_parts) else { return };
    let message = "with Istio's webhook an API server refuses parts of a millisecond";
    cx.warn(&given.at, message).found = Some(format!("{:?}", given.value));
}
