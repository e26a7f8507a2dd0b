//! The status of the Gateway API's resources: what they should show, without I/O.
//!
//! A Gateway shows `Accepted` and `Programmed`, and what became of each listener, if it is of this product's own
//! class: those of the class `istio` may have Istio's controller too, and two of them would write against each other
//! without end. A route shows `Accepted` and `ResolvedRefs` for each parent that is served here, beside what other
//! controllers show.

use serde_json::{Value, json};

use super::{
    conditions::{DesiredCondition, are_newer, conditions},
    listeners,
};
use crate::{
    config::StatusReason,
    policy::BadCredential,
    source::{
        kubernetes::{
            api_object::ApiObject,
            kinds::{CUSTOM, Custom, GATEWAY_API, ISTIO_NETWORKING},
            objects::{KnownObject, KnownObjects},
        },
        verdicts::{Fault, Outcome, Verdict},
    },
};

/// Who is named in conditions, and in Events.
pub(super) const CONTROLLER: &str = "egress-enforcer.io/gateway";
/// The class that is of this product alone.
const OWN_CLASS: &str = "egress-enforcer";
/// The reason of a Gateway some of whose listeners are not served.
const NOT_VALID: &str = "ListenersNotValid";
/// Classes whose Gateways are served.
const CLASSES: [&str; 2] = [OWN_CLASS, "istio"];
/// What a route's `parents` hold at most.
const PARENTS: usize = 32;

/// The status that the object should show, where it differs from the one that it shows. Conditions that begin now
/// have no `lastTransitionTime`.
pub(super) fn status(
    object: &KnownObject,
    verdict: &Verdict,
    all: &KnownObjects,
    bad: &[BadCredential],
) -> Option<Value> {
    let custom = CUSTOM.get(object.kind).filter(|custom| custom.group == GATEWAY_API)?;
    let api = object.api.as_ref()?;
    match custom.kind {
        "Gateway" => gateway(object, api, verdict, bad),
        "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute" => route(object, api, verdict, all),
        _ => None,
    }
}

fn gateway(
    object: &KnownObject,
    api: &ApiObject,
    verdict: &Verdict,
    bad: &[BadCredential],
) -> Option<Value> {
    if api.class.as_deref() != Some(OWN_CLASS) {
        return None;
    }
    let serves = verdict.listeners.iter().any(|listener| listener.is_served);
    let wanted = match &verdict.outcome {
        Outcome::Accepted => [
            DesiredCondition::good("Accepted", "gateways decide by it"),
            DesiredCondition::good("Programmed", "its listeners are served"),
        ],
        Outcome::Held(why) => [
            DesiredCondition::bad("Accepted", "Pending", why),
            DesiredCondition::bad("Programmed", "Pending", why),
        ],
        // A listener has one fault or more; the others are served.
        Outcome::Invalid(why) if verdict.faults.iter().all(listeners::is_of_one) => [
            match serves {
                true => DesiredCondition::holding("Accepted", NOT_VALID, why),
                false => DesiredCondition::bad("Accepted", NOT_VALID, why),
            },
            match serves {
                true => DesiredCondition::good("Programmed", "its other listeners are served"),
                false => DesiredCondition::bad("Programmed", "Invalid", why),
            },
        ],
        Outcome::Invalid(why) => [
            DesiredCondition::bad("Accepted", "Invalid", why),
            DesiredCondition::bad("Programmed", "Invalid", why),
        ],
    };
    if are_newer(&wanted, object.generation, &api.conditions) {
        return None;
    }
    let conditions = conditions(&wanted, object.generation, &api.conditions);
    let listeners = listeners::statuses(api, verdict, bad, object.generation);
    let is_shown = conditions.is_none() && listeners == api.shown_listeners;
    let conditions = conditions.unwrap_or_else(|| api.conditions.clone());
    (!is_shown).then(|| json!({ "conditions": conditions, "listeners": listeners }))
}

fn route(
    object: &KnownObject,
    api: &ApiObject,
    verdict: &Verdict,
    all: &KnownObjects,
) -> Option<Value> {
    let (own, others): (Vec<&Value>, Vec<&Value>) =
        api.shown_parents.iter().partition(|shown| shown["controllerName"] == CONTROLLER);
    let mut changed = false;
    let mut parents: Vec<Value> = others.into_iter().cloned().collect();
    let before = parents.len();
    for (index, parent) in api.parents.iter().enumerate() {
        if !is_served(parent, object, all) {
            continue;
        }
        let shown = own.iter().find(|shown| shown["parentRef"] == *parent);
        let of_shown = shown.and_then(|shown| shown["conditions"].as_array());
        let of_shown = of_shown.map(Vec::as_slice).unwrap_or_default();
        let made = conditions(&at_parent(index, verdict), object.generation, of_shown);
        changed |= made.is_some();
        parents.push(json!({
            "parentRef": parent,
            "controllerName": CONTROLLER,
            "conditions": made.unwrap_or_else(|| of_shown.to_vec()),
        }));
    }
    changed |= parents.len() - before != own.len();
    (changed && parents.len() <= PARENTS).then(|| json!({ "parents": parents }))
}

/// Whether a parent of the route is served here, and not by another controller alone.
fn is_served(parent: &Value, route: &KnownObject, all: &KnownObjects) -> bool {
    let text =
        |key: &str, default: &'static str| parent[key].as_str().unwrap_or(default).to_owned();
    let (group, kind) = (text("group", GATEWAY_API), text("kind", "Gateway"));
    if group == ISTIO_NETWORKING {
        return kind == "ServiceEntry" || kind == "Hostname";
    }
    let gateway =
        CUSTOM.iter().find(|custom| custom.group == GATEWAY_API && custom.kind == "Gateway");
    let Some(title) = gateway.filter(|_| group == GATEWAY_API && kind == "Gateway") else {
        return false;
    };
    let namespace = parent["namespace"].as_str().or(route.namespace.as_deref());
    let (namespace, name) = (namespace.unwrap_or_default(), text("name", ""));
    let found = all.get(&format!("{} {namespace}/{name}", Custom::title(*title)));
    let class = found.and_then(|known| known.api.as_ref()?.class.as_deref());
    class.is_some_and(|class| CLASSES.contains(&class))
}

/// What a route shows for one of its parents.
fn at_parent(index: usize, verdict: &Verdict) -> Vec<DesiredCondition> {
    if let Outcome::Held(why) = &verdict.outcome {
        return vec![
            DesiredCondition::bad("Accepted", "Pending", why),
            DesiredCondition::good("ResolvedRefs", "nothing is known to be missing"),
        ];
    }
    let own = format!("spec.parentRefs[{index}]");
    let (mut accepted, mut resolved) = (None, None);
    for fault in &verdict.faults {
        let Fault { field, text, reason } = fault;
        if fault.is_of_the_route() {
            accepted.get_or_insert(("UnsupportedValue", text));
        } else if fault.is_of_a_backend() {
            let reason = reason.unwrap_or(StatusReason::BackendNotFound);
            resolved.get_or_insert((reason.as_str(), text));
        } else if field.as_deref().is_some_and(|field| field.starts_with(&own)) {
            let reason = reason.unwrap_or(StatusReason::NoMatchingParent);
            accepted.get_or_insert((reason.as_str(), text));
        }
    }
    vec![
        match accepted {
            Some((reason, text)) => DesiredCondition::bad("Accepted", reason, text),
            None => DesiredCondition::good("Accepted", "gateways decide by it"),
        },
        match resolved {
            Some((reason, text)) => DesiredCondition::bad("ResolvedRefs", reason, text),
            None => DesiredCondition::good("ResolvedRefs", "every reference is resolved"),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::{super::conditions::stamp, *};
    use crate::source::{kubernetes::api_object::Shows, verdicts::Listener};

    fn known(kind: &str, name: &str, generation: i64, api: ApiObject) -> KnownObject {
        let is = |custom: &Custom| custom.group == GATEWAY_API && custom.kind == kind;
        KnownObject {
            kind: CUSTOM.iter().position(is).unwrap(),
            namespace: Some("shop".into()),
            name: name.into(),
            uid: "uid".into(),
            generation,
            accepted: None,
            programmed: None,
            api: Some(Box::new(api)),
        }
    }

    fn verdict(outcome: Outcome, faults: &[(&str, &str)]) -> Verdict {
        let all: Vec<_> = faults.iter().map(|(field, text)| (*field, *text, None)).collect();
        verdict_for(outcome, &all)
    }

    /// The same, with reasons that were decided where the faults were found.
    fn verdict_for(outcome: Outcome, faults: &[(&str, &str, Option<StatusReason>)]) -> Verdict {
        let fault = |(field, text, reason): &(&str, &str, Option<StatusReason>)| Fault {
            field: Some((*field).into()),
            text: (*text).into(),
            reason: *reason,
        };
        let faults = faults.iter().map(fault).collect();
        Verdict { generation: 1, outcome, faults, listeners: Vec::new() }
    }

    fn of_class(class: &str) -> ApiObject {
        ApiObject { class: Some(class.into()), ..ApiObject::default() }
    }

    fn brief(conditions: &Value) -> Vec<String> {
        let all = conditions.as_array().unwrap().iter();
        all.map(|one| {
            let text = |key: &str| one[key].as_str().unwrap().to_owned();
            format!("{}={} {}", text("type"), text("status"), text("reason"))
        })
        .collect()
    }

    #[test]
    fn a_gateway_of_the_own_class_shows_what_became_of_it() {
        let all = KnownObjects::new();
        let good = verdict(Outcome::Accepted, &[]);
        let mut gateway = known("Gateway", "a", 1, of_class("egress-enforcer"));
        let mut found = status(&gateway, &good, &all, &[]).unwrap();
        assert_eq!(
            brief(&found["conditions"]),
            ["Accepted=True Accepted", "Programmed=True Programmed"]
        );
        assert_eq!(found["conditions"][0]["observedGeneration"], 1);
        // What is shown is not written again; of a newer generation it stays.
        stamp(&mut found, "2026-01-01T00:00:00Z");
        let shown = found["conditions"].as_array().unwrap().clone();
        gateway.api.as_mut().unwrap().conditions.clone_from(&shown);
        assert_eq!(status(&gateway, &good, &all, &[]), None);
        let older = KnownObject { generation: 0, ..gateway.clone() };
        assert_eq!(status(&older, &good, &all, &[]), None);
        // The time of the last change stays, too.
        let next = KnownObject { generation: 2, ..gateway.clone() };
        let found = status(&next, &good, &all, &[]).unwrap();
        assert_eq!(found["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        let bad = verdict(Outcome::Invalid("x".into()), &[("spec.listeners[0].tls", "x")]);
        let found = status(&gateway, &bad, &all, &[]).unwrap();
        assert_eq!(
            brief(&found["conditions"]),
            ["Accepted=False ListenersNotValid", "Programmed=False Invalid"]
        );
        assert_eq!(found["conditions"][0]["lastTransitionTime"], Value::Null);
        // What another listener says wrong holds no good one back.
        let listener = |is_served| Listener { kinds: vec!["TCPRoute"], routes: 1, is_served };
        let part = Verdict { listeners: vec![listener(false), listener(true)], ..bad };
        let spec = json!({
            "gatewayClassName": "egress-enforcer", "listeners": [{"name": "a"}, {"name": "b"}],
        });
        let shown = Shows { conditions: shown, parents: Vec::new(), listeners: Vec::new() };
        gateway.api = Some(Box::new(ApiObject::new(Some(&spec), shown, None)));
        let mut found = status(&gateway, &part, &all, &[]).unwrap();
        assert_eq!(
            brief(&found["conditions"]),
            ["Accepted=True ListenersNotValid", "Programmed=True Programmed"]
        );
        let programmed = ["Programmed=False Invalid", "Programmed=True Programmed"];
        for (index, expected) in programmed.into_iter().enumerate() {
            let listener = &found["listeners"][index];
            assert!(brief(&listener["conditions"]).contains(&expected.to_owned()), "{listener}");
        }
        // Listeners that differ are written, the same ones are not.
        stamp(&mut found, "2026-01-01T00:00:00Z");
        let api = gateway.api.as_mut().unwrap();
        api.conditions = found["conditions"].as_array().unwrap().clone();
        assert!(status(&gateway, &part, &all, &[]).is_some());
        let api = gateway.api.as_mut().unwrap();
        api.shown_listeners = found["listeners"].as_array().unwrap().clone();
        assert_eq!(status(&gateway, &part, &all, &[]), None);
        let lost = Verdict { listeners: vec![listener(false), listener(false)], ..part };
        let found = status(&gateway, &lost, &all, &[]).unwrap();
        assert_eq!(
            brief(&found["conditions"]),
            ["Accepted=False ListenersNotValid", "Programmed=False Invalid"]
        );
        // Another controller's are left alone.
        for class in ["istio", "other"] {
            assert_eq!(status(&known("Gateway", "a", 1, of_class(class)), &good, &all, &[]), None);
        }
    }

    #[test]
    fn a_route_shows_each_parent_that_is_served_beside_others_controllers() {
        let gateway = |name: &str, class: &str| {
            let title = format!("Gateway.gateway.networking.k8s.io shop/{name}");
            (title, known("Gateway", name, 1, of_class(class)))
        };
        let all: KnownObjects =
            [gateway("own", "egress-enforcer"), gateway("meshs", "istio"), gateway("alien", "x")]
                .into();
        let foreign =
            json!({"parentRef": {"name": "alien"}, "controllerName": "x/y", "conditions": []});
        let parents = vec![
            json!({"name": "own"}),
            json!({"name": "alien"}),
            json!({"name": "meshs", "sectionName": "https"}),
            json!({"name": "entry", "kind": "ServiceEntry", "group": "networking.istio.io"}),
            json!({"name": "gone"}),
        ];
        let api =
            ApiObject { parents, shown_parents: vec![foreign.clone()], ..ApiObject::default() };
        let route = known("HTTPRoute", "r", 1, api);
        let bad = verdict_for(
            Outcome::Invalid("x".into()),
            &[
                ("spec.parentRefs[2]", "x", Some(StatusReason::NotAllowedByListeners)),
                ("spec.rules[0].backendRefs[0]", "x", Some(StatusReason::RefNotPermitted)),
            ],
        );
        let mut found = status(&route, &bad, &all, &[]).unwrap();
        let shown = found["parents"].as_array().unwrap();
        assert_eq!(shown[0], foreign);
        let names: Vec<_> = shown.iter().map(|one| one["parentRef"]["name"].clone()).collect();
        assert_eq!(names, ["alien", "own", "meshs", "entry"]);
        assert!(shown[1..].iter().all(|one| one["controllerName"] == CONTROLLER));
        let refused = "ResolvedRefs=False RefNotPermitted";
        assert_eq!(brief(&shown[1]["conditions"]), ["Accepted=True Accepted", refused]);
        assert_eq!(
            brief(&shown[2]["conditions"]),
            ["Accepted=False NotAllowedByListeners", refused]
        );
        stamp(&mut found, "2026-01-01T00:00:00Z");
        let mut again = route.clone();
        let shown = found["parents"].as_array().unwrap().clone();
        again.api.as_mut().unwrap().shown_parents = shown;
        assert_eq!(status(&again, &bad, &all, &[]), None);
        // A parent that is not one any more is taken away.
        again.api.as_mut().unwrap().parents.remove(0);
        let found = status(&again, &bad, &all, &[]).unwrap();
        assert_eq!(found["parents"].as_array().unwrap().len(), 3);
        // Nothing of ours, nothing to write.
        let alien = ApiObject { parents: vec![json!({"name": "alien"})], ..ApiObject::default() };
        assert_eq!(status(&known("HTTPRoute", "r", 1, alien), &bad, &all, &[]), None);
    }

    #[test]
    fn a_fault_of_the_route_itself_is_at_every_parent() {
        let at = |field: &str, reason: Option<StatusReason>| {
            let verdict = verdict_for(Outcome::Invalid("x".into()), &[(field, "x", reason)]);
            let found = at_parent(0, &verdict);
            found.into_iter().map(|one| (one.holds, one.reason)).collect::<Vec<_>>()
        };
        let fine = (true, "ResolvedRefs");
        assert_eq!(at("spec.rules[0].filters[0]", None), [(false, "UnsupportedValue"), fine]);
        assert_eq!(at("spec.parentRefs[1]", None), [(true, "Accepted"), fine]);
        let hosts = Some(StatusReason::NoMatchingListenerHostname);
        assert_eq!(at("spec.parentRefs[0]", hosts), [(false, "NoMatchingListenerHostname"), fine]);
        assert_eq!(at("spec.parentRefs[0].name", None), [(false, "NoMatchingParent"), fine]);
    }

    /// No name that a user gives changes the reason.
    #[test]
    fn words_of_a_message_are_no_reason() {
        let resolved = |text: &str| {
            let fault = ("spec.rules[0].backendRefs[0]", text);
            at_parent(0, &verdict(Outcome::Invalid("x".into()), &[fault])).remove(1).reason
        };
        assert_eq!(resolved("mankind.shop.svc.cluster.local is no gateway"), "BackendNotFound");
        assert_eq!(resolved("no ServiceEntry has the host ReferenceGrant"), "BackendNotFound");
        let accepted = |text: &str| {
            let fault = ("spec.parentRefs[0]", text);
            at_parent(0, &verdict(Outcome::Invalid("x".into()), &[fault])).remove(0).reason
        };
        assert_eq!(accepted("who takes no Gateway"), "NoMatchingParent");
    }
}
