//! What a Gateway of the Gateway API shows of its listeners, without I/O.

use serde_json::{Value, json};

use super::conditions::{DesiredCondition, conditions};
use crate::{
    config::StatusReason,
    policy::BadCredential,
    source::{
        kubernetes::{
            api_object::{ApiObject, Listener},
            kinds::GATEWAY_API,
        },
        verdicts::{Fault, Outcome, Verdict},
    },
};

/// Where listeners are.
const LISTENERS: &str = "spec.listeners[";

/// Whether a fault is of a listener.
pub(super) fn is_of_one(fault: &Fault) -> bool {
    fault.field.as_deref().is_some_and(|field| field.starts_with(LISTENERS))
}

/// What is shown of each listener. `bad` are the credentials that cannot be used.
pub(super) fn statuses(
    api: &ApiObject,
    verdict: &Verdict,
    bad: &[BadCredential],
    generation: i64,
) -> Vec<Value> {
    let status = |(index, listener): (usize, &Listener)| {
        let shown = api.shown_listeners.iter().find(|shown| shown["name"] == *listener.name);
        let of_shown = |key: &str| shown.map(|shown| shown[key].clone());
        let of_shown_conditions = of_shown("conditions");
        let known = of_shown_conditions.as_ref().and_then(Value::as_array);
        let known = known.map(Vec::as_slice).unwrap_or_default();
        let made = conditions(&wanted(index, listener, verdict, bad), generation, known);
        // Of a configuration that is not in force nothing else is known.
        let (kinds, routes) = match verdict.listeners.get(index) {
            Some(found) => {
                let kind = |kind: &&str| json!({"group": GATEWAY_API, "kind": kind});
                (found.kinds.iter().map(kind).collect(), found.routes.into())
            }
            None => (
                of_shown("supportedKinds").unwrap_or_else(|| json!([])),
                of_shown("attachedRoutes").unwrap_or_else(|| 0.into()),
            ),
        };
        json!({
            "name": listener.name,
            "supportedKinds": kinds,
            "attachedRoutes": routes,
            "conditions": made.unwrap_or_else(|| known.to_vec()),
        })
    };
    api.listeners.iter().enumerate().map(status).collect()
}

/// The conditions of a listener.
fn wanted(
    index: usize,
    listener: &Listener,
    verdict: &Verdict,
    bad: &[BadCredential],
) -> Vec<DesiredCondition> {
    if let Outcome::Held(why) = &verdict.outcome {
        return vec![
            DesiredCondition::bad("Accepted", "Pending", why),
            DesiredCondition::good("ResolvedRefs", "nothing is known to be missing"),
            DesiredCondition::bad("Programmed", "Pending", why),
            no_conflict(),
        ];
    }
    let own = format!("{LISTENERS}{index}]");
    let is_own = |fault: &&Fault| {
        let rest = fault.field.as_deref().and_then(|field| field.strip_prefix(&own));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let (mut accepted, mut resolved, mut conflicted): (
        ListenerFinding,
        ListenerFinding,
        ListenerFinding,
    ) = (None, None, None);
    for Fault { field: _, text, reason } in verdict.faults.iter().filter(is_own) {
        match reason {
            Some(
                StatusReason::InvalidCertificateRef
                | StatusReason::InvalidRouteKinds
                | StatusReason::RefNotPermitted,
            ) => {
                resolved.get_or_insert((*reason, text.clone()));
            }
            Some(StatusReason::HostnameConflict | StatusReason::ProtocolConflict) => {
                conflicted.get_or_insert((*reason, text.clone()));
                accepted.get_or_insert((*reason, text.clone()));
            }
            Some(
                StatusReason::UnsupportedProtocol
                | StatusReason::NoMatchingParent
                | StatusReason::NoMatchingListenerHostname
                | StatusReason::NotAllowedByListeners
                | StatusReason::InvalidKind
                | StatusReason::BackendNotFound,
            )
            | None => {
                accepted.get_or_insert((*reason, text.clone()));
            }
        }
    }
    let is_served = verdict.listeners.get(index).is_some_and(|found| found.is_served);
    let missing = missing(listener, bad);
    let programmed = match (is_served, &missing) {
        (true, Some(Missing { all: true, text })) => Err(text.clone()),
        (true, Some(Missing { all: false, .. }) | None) => Ok(()),
        (false, _) => Err(why(&accepted, &resolved, verdict)),
    };
    let resolved = resolved.map(|(reason, text)| (word(reason), text));
    let resolved =
        resolved.or_else(|| Some((StatusReason::InvalidCertificateRef.as_str(), missing?.text)));
    vec![
        match accepted {
            Some((reason, text)) => DesiredCondition::bad("Accepted", word(reason), &text),
            None => DesiredCondition::good("Accepted", "gateways decide by it"),
        },
        match resolved {
            Some((reason, text)) => DesiredCondition::bad("ResolvedRefs", reason, &text),
            None => DesiredCondition::good("ResolvedRefs", "every reference is resolved"),
        },
        match programmed {
            Ok(()) => DesiredCondition::good("Programmed", "it is served"),
            Err(text) => DesiredCondition::bad("Programmed", "Invalid", &text),
        },
        match conflicted {
            Some((reason, text)) => DesiredCondition::holding("Conflicted", word(reason), &text),
            None => no_conflict(),
        },
    ]
}

fn no_conflict() -> DesiredCondition {
    DesiredCondition::bad("Conflicted", "NoConflicts", "no other listener has its port and host")
}

fn word(reason: Option<StatusReason>) -> &'static str {
    reason.map_or("UnsupportedValue", StatusReason::as_str)
}

/// What was found of a listener: the reason, and a sentence.
type ListenerFinding = Option<(Option<StatusReason>, String)>;

/// Why a listener is not served.
fn why(accepted: &ListenerFinding, resolved: &ListenerFinding, verdict: &Verdict) -> String {
    if let Some((_, text)) = accepted.as_ref().or(resolved.as_ref()) {
        return text.clone();
    }
    match &verdict.outcome {
        Outcome::Invalid(why) | Outcome::Held(why) => why.clone(),
        Outcome::Accepted => "no gateway serves it".into(),
    }
}

/// Certificates that cannot be used.
struct Missing {
    /// Whether none is left that could be shown.
    all: bool,
    text: String,
}

fn missing(listener: &Listener, bad: &[BadCredential]) -> Option<Missing> {
    let of = |name: &String| bad.iter().find(|bad| bad.name == *name);
    let first = listener.certificates.iter().find_map(of)?;
    let is_lost = |name: &String| of(name).is_some_and(|bad| !bad.in_use);
    // The first one's roots say which clients are let in.
    let mut needed = listener.certificates.iter().take(if listener.asks { 1 } else { usize::MAX });
    Some(Missing {
        all: needed.all(is_lost),
        text: format!("credential {}: {}", first.name, first.fault),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::conditions, *};
    use crate::source::{kubernetes::api_object::Shows, verdicts::Listener as Judged};

    const TLS: &str = "tls";

    fn api(listeners: &[(&str, Value)]) -> ApiObject {
        let of = |(name, tls): &(&str, Value)| json!({"name": name, TLS: tls});
        let spec = json!({"listeners": listeners.iter().map(of).collect::<Vec<_>>()});
        let shown = Shows { conditions: Vec::new(), parents: Vec::new(), listeners: Vec::new() };
        ApiObject::new(Some(&spec), shown, None)
    }

    fn verdict(served: &[bool], faults: &[(&str, Option<StatusReason>)]) -> Verdict {
        let fault = |(field, reason): &(&str, Option<StatusReason>)| Fault {
            field: Some((*field).into()),
            text: format!("{field} is wrong"),
            reason: *reason,
        };
        let outcome = match faults {
            [] => Outcome::Accepted,
            [(field, _), ..] => Outcome::Invalid((*field).into()),
        };
        let found = |is_served: &bool| Judged {
            kinds: vec!["HTTPRoute"],
            routes: 2,
            is_served: *is_served,
        };
        Verdict {
            generation: 1,
            outcome,
            faults: faults.iter().map(fault).collect(),
            listeners: served.iter().map(found).collect(),
        }
    }

    fn of_secrets(names: &[&str], mode: &str) -> Value {
        let reference = |name: &&str| json!({"name": name});
        json!({
            "certificateRefs": names.iter().map(reference).collect::<Vec<_>>(),
            "options": {"gateway.istio.io/tls-terminate-mode": mode},
        })
    }

    /// `Accepted`, `ResolvedRefs`, `Programmed`, `Conflicted` of a listener.
    fn brief(status: &Value) -> Vec<String> {
        let all = status["conditions"].as_array().unwrap();
        let kinds: Vec<_> = all.iter().map(|one| one["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["Accepted", "ResolvedRefs", "Programmed", "Conflicted"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        all.iter().map(|one| format!("{} {}", text(&one["status"]), text(&one["reason"]))).collect()
    }

    const FINE: [&str; 4] =
        ["True Accepted", "True ResolvedRefs", "True Programmed", "False NoConflicts"];

    #[test]
    fn each_listener_shows_its_own_faults() {
        let api = api(&[("a", Value::Null), ("b", Value::Null)]);
        for (field, why, expected) in [
            (
                "spec.listeners[0].protocol",
                Some(StatusReason::UnsupportedProtocol),
                [
                    "False UnsupportedProtocol",
                    "True ResolvedRefs",
                    "False Invalid",
                    "False NoConflicts",
                ],
            ),
            (
                "spec.listeners[0].hostname",
                None,
                [
                    "False UnsupportedValue",
                    "True ResolvedRefs",
                    "False Invalid",
                    "False NoConflicts",
                ],
            ),
            (
                "spec.listeners[0].tls.certificateRefs[0]",
                Some(StatusReason::RefNotPermitted),
                ["True Accepted", "False RefNotPermitted", "False Invalid", "False NoConflicts"],
            ),
            (
                "spec.listeners[0]",
                Some(StatusReason::HostnameConflict),
                [
                    "False HostnameConflict",
                    "True ResolvedRefs",
                    "False Invalid",
                    "True HostnameConflict",
                ],
            ),
        ] {
            let found = statuses(&api, &verdict(&[false, true], &[(field, why)]), &[], 3);
            assert_eq!(brief(&found[0]), expected, "{field}");
            assert_eq!(brief(&found[1]), FINE, "{field}");
            assert_eq!((&found[0]["name"], &found[1]["name"]), (&json!("a"), &json!("b")));
            assert_eq!(found[1]["attachedRoutes"], 2);
            let kinds = json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}]);
            assert_eq!(found[1]["supportedKinds"], kinds);
            assert_eq!(found[1]["conditions"][0]["observedGeneration"], 3);
        }
        // A kind too many is no reason not to serve it.
        let kinds =
            [("spec.listeners[0].allowedRoutes.kinds[1]", Some(StatusReason::InvalidRouteKinds))];
        let found = statuses(&api, &verdict(&[true, true], &kinds), &[], 3);
        let expected =
            ["True Accepted", "False InvalidRouteKinds", "True Programmed", "False NoConflicts"];
        assert_eq!(brief(&found[0]), expected);
    }

    #[test]
    fn the_tenth_listener_is_not_the_first() {
        let names: Vec<_> = (0..11).map(|number| format!("l{number}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), Value::Null)).collect();
        let wrong = verdict(&[true; 11], &[("spec.listeners[10].hostname", None)]);
        let found = statuses(&api(&all), &wrong, &[], 1);
        assert_eq!(brief(&found[1]), FINE);
        assert_eq!(brief(&found[10])[0], "False UnsupportedValue");
    }

    #[test]
    fn a_gateway_with_another_fault_serves_no_listener() {
        let wrong = verdict(&[false], &[("spec.tls", None)]);
        let found = statuses(&api(&[("a", Value::Null)]), &wrong, &[], 1);
        let expected = ["True Accepted", "True ResolvedRefs", "False Invalid", "False NoConflicts"];
        assert_eq!(brief(&found[0]), expected);
        assert_eq!(found[0]["conditions"][2]["message"], "spec.tls");
    }

    #[test]
    fn certificates_that_cannot_be_used_are_shown_and_so_is_what_is_left() {
        let bad = |name: &str, in_use| BadCredential {
            name: name.into(),
            fault: "absent".into(),
            in_use,
        };
        let lost = |name: &str| bad(name, false);
        for (mode, of_bad, programmed) in [
            ("SIMPLE", vec![lost("web")], "True Programmed"),
            ("SIMPLE", vec![lost("web"), lost("rsa")], "False Invalid"),
            // The last good one stays in use.
            ("SIMPLE", vec![bad("web", true), lost("rsa")], "True Programmed"),
            // Without the roots of the first one nobody is let in.
            ("MUTUAL", vec![lost("web")], "False Invalid"),
            ("MUTUAL", vec![lost("rsa")], "True Programmed"),
        ] {
            let api = api(&[("a", of_secrets(&["web", "rsa"], mode))]);
            let found = statuses(&api, &verdict(&[true], &[]), &of_bad, 1);
            let expected = ["True Accepted", "False InvalidCertificateRef", programmed, FINE[3]];
            assert_eq!(brief(&found[0]), expected, "{mode} {of_bad:?}");
            let message = found[0]["conditions"][1]["message"].as_str().unwrap();
            assert!(message.ends_with(": absent"), "{message}");
        }
        // Another resource's is none of its own.
        let api = api(&[("a", of_secrets(&["web", "rsa"], "SIMPLE"))]);
        assert_eq!(brief(&statuses(&api, &verdict(&[true], &[]), &[lost("x")], 1)[0]), FINE);
    }

    #[test]
    fn what_is_not_known_stays_as_it_is_shown() {
        let mut api = api(&[("a", Value::Null)]);
        let mut shown = statuses(&api, &verdict(&[true], &[]), &[], 1);
        conditions::stamp(&mut shown[0], "2026-01-01T00:00:00Z");
        api.shown_listeners.clone_from(&shown);
        assert_eq!(statuses(&api, &verdict(&[true], &[]), &[], 1), shown);
        let outcome = Outcome::Held("another object has an error".into());
        let held = Verdict { outcome, listeners: Vec::new(), ..verdict(&[], &[]) };
        let found = statuses(&api, &held, &[], 1);
        assert_eq!(found[0]["attachedRoutes"], 2);
        assert_eq!(found[0]["supportedKinds"], shown[0]["supportedKinds"]);
        let expected = ["False Pending", "True ResolvedRefs", "False Pending", "False NoConflicts"];
        assert_eq!(brief(&found[0]), expected);
    }
}
