//! What became of the objects that a configuration was put together from, for whoever reports it to the API
//! server.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use crate::{
    config::{ListenerStatus, ListenerStatuses, Problem, Severity, StatusReason},
    types::Revisions,
};

/// What became of every object, by the name that messages call it.
pub(super) type Verdicts = BTreeMap<String, Verdict>;

/// What became of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    /// Of which generation of the object.
    pub(super) generation: i64,
    /// What became of it.
    pub(super) outcome: Outcome,
    /// What is wrong with it, the first of it.
    pub(super) faults: Vec<Fault>,
    /// Of a Gateway of the Gateway API: what became of its listeners. Nothing is known where the configuration is
    /// refused.
    pub(super) listeners: Vec<Listener>,
}

/// What became of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Listener {
    /// The kinds of routes that it takes.
    pub(super) kinds: Vec<&'static str>,
    /// How many routes it has, those that are accepted.
    pub(super) routes: usize,
    /// Whether a gateway serves it.
    pub(super) is_served: bool,
}

/// Something that is wrong with an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    /// Where, such as `spec.parentRefs[0]`.
    pub(super) field: Option<String>,
    /// A sentence.
    pub(super) text: String,
    /// What a route or a listener shows for it, where the place alone does not say so.
    pub(super) reason: Option<StatusReason>,
}

impl Fault {
    /// Whether it is of a route itself, not of a parent or a backend: it is accepted nowhere then.
    pub(super) fn is_of_the_route(&self) -> bool {
        let field = self.field.as_deref().unwrap_or_default();
        !field.starts_with("spec.parentRefs[") && !self.is_of_a_backend()
    }

    /// Whether it is of a route's backend.
    pub(super) fn is_of_a_backend(&self) -> bool {
        self.field.as_deref().is_some_and(|field| field.contains(".backendRef"))
    }
}

/// Faults of one object that are kept.
const FAULTS: usize = 32;

/// What became of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It is in force.
    Accepted,
    /// It has an error, or is refused in part.
    Invalid(String),
    /// It is not in force because another object has an error.
    Held(String),
}

/// The objects of a configuration, by the name that messages call them, with their generations.
#[derive(Clone, Debug, Default)]
pub struct ObjectGenerations {
    known: BTreeMap<String, i64>,
    /// Of the product's own kinds.
    revisions: Arc<Revisions>,
    /// Who wants to know what became of them.
    judged: Option<watch::Sender<Arc<Verdicts>>>,
}

impl PartialEq for ObjectGenerations {
    fn eq(&self, other: &Self) -> bool {
        self.known == other.known && self.revisions == other.revisions
    }
}

impl Eq for ObjectGenerations {}

impl ObjectGenerations {
    /// Of these objects.
    pub(super) fn new(
        known: BTreeMap<String, i64>,
        revisions: Arc<Revisions>,
        judged: Option<watch::Sender<Arc<Verdicts>>>,
    ) -> Self {
        Self { known, revisions, judged }
    }

    /// The revisions of the product's own kinds.
    pub(super) fn revisions(&self) -> &Arc<Revisions> {
        &self.revisions
    }

    /// Publishes what became of the objects. `accepted` is whether the configuration is put in
    /// force, and `listeners` what became of those of Gateways.
    pub fn judge(&self, problems: &[Problem], accepted: bool, listeners: &ListenerStatuses) {
        if let Some(judged) = &self.judged {
            judged.send_replace(Arc::new(verdicts(&self.known, problems, accepted, listeners)));
        }
    }
}

fn verdicts(
    known: &BTreeMap<String, i64>,
    problems: &[Problem],
    accepted: bool,
    listeners: &ListenerStatuses,
) -> Verdicts {
    let mut first: BTreeMap<&str, &Problem> = BTreeMap::new();
    let mut faults: BTreeMap<&str, Vec<Fault>> = BTreeMap::new();
    for problem in problems.iter().filter(|problem| problem.severity != Severity::Warning) {
        let Some(resource) = &problem.resource else { continue };
        let all = faults.entry(resource).or_default();
        if all.len() < FAULTS {
            all.push(Fault {
                field: problem.field.clone(),
                text: sentence(problem),
                reason: problem.status_reason,
            });
        }
        let worst = first.entry(resource).or_insert(problem);
        if problem.severity > worst.severity {
            *worst = problem;
        }
    }
    let mut errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let held = errors.next().filter(|_| !accepted).map(|error| {
        let by = error.resource.as_deref().unwrap_or(&error.file);
        format!("the configuration is refused because of {by}: {}", sentence(error))
    });
    let is_accepted = |route: &String| {
        let mut faults = faults.get(route.as_str()).into_iter().flatten();
        !faults.any(Fault::is_of_the_route)
    };
    let listener = |status: &ListenerStatus| Listener {
        kinds: status.kinds.clone(),
        routes: status.routes.iter().filter(|route| is_accepted(route)).count(),
        is_served: status.is_served,
    };
    let judge = |(name, generation): (&String, &i64)| {
        let outcome = match (first.get(name.as_str()), &held) {
            (Some(problem), _) => Outcome::Invalid(sentence(problem)),
            (None, Some(held)) => Outcome::Held(held.clone()),
            (None, None) => Outcome::Accepted,
        };
        let faults = faults.get(name.as_str()).cloned().unwrap_or_default();
        let listeners = listeners.get(name).into_iter().flatten().map(listener).collect();
        (name.clone(), Verdict { generation: *generation, outcome, faults, listeners })
    };
    known.iter().map(judge).collect()
}

/// `spec.mode: wrong value; found …; expected …`.
fn sentence(problem: &Problem) -> String {
    let mut text = String::new();
    if let Some(field) = &problem.field {
        text = format!("{field}: ");
    }
    text += &problem.message;
    for (what, value) in [("found", &problem.found), ("expected", &problem.expected)] {
        if let Some(value) = value {
            text += &format!("; {what} {value}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(severity: Severity, resource: &str, message: &str) -> Problem {
        let mut problem = Problem::new(severity, "file", message).found("1", "2");
        problem.resource = Some(resource.into());
        problem.field = Some("spec.x".into());
        problem
    }

    fn outcomes(problems: &[Problem], accepted: bool) -> Vec<Outcome> {
        let known = BTreeMap::from([("A a/a".to_owned(), 3), ("B b/b".to_owned(), 4)]);
        let all = verdicts(&known, problems, accepted, &ListenerStatuses::new());
        assert_eq!(all.values().map(|verdict| verdict.generation).collect::<Vec<_>>(), [3, 4]);
        all.into_values().map(|verdict| verdict.outcome).collect()
    }

    #[test]
    fn an_object_is_accepted_unless_something_is_refused() {
        let warning = problem(Severity::Warning, "A a/a", "odd");
        assert_eq!(
            outcomes(std::slice::from_ref(&warning), true),
            [Outcome::Accepted, Outcome::Accepted]
        );
        let refused = problem(Severity::Refusal, "A a/a", "wrong");
        let said = Outcome::Invalid("spec.x: wrong; found 1; expected 2".into());
        assert_eq!(outcomes(&[warning, refused.clone()], true), [said, Outcome::Accepted]);
        // The worst of several is told, the first of equals.
        let worse = problem(Severity::Error, "A a/a", "worse");
        let again = problem(Severity::Error, "A a/a", "again");
        let found = outcomes(&[refused, worse, again], false);
        assert!(matches!(&found[0], Outcome::Invalid(text) if text.contains("worse")), "{found:?}");
        // Nothing else of that configuration is in force.
        assert!(matches!(&found[1], Outcome::Held(text) if text.contains("because of A a/a")));
    }

    #[test]
    fn a_listener_counts_the_routes_that_are_accepted() {
        let gateway = "Gateway.gateway.networking.k8s.io shop/a";
        let known = BTreeMap::from([(gateway.to_owned(), 1)]);
        let routes = ["good", "of-elsewhere", "backendless", "wrong"];
        let title = |name: &str| format!("HTTPRoute shop/{name}");
        let status = ListenerStatus {
            kinds: vec!["HTTPRoute"],
            routes: routes.map(title).into(),
            is_served: true,
        };
        let listeners = ListenerStatuses::from([(gateway.to_owned(), vec![status])]);
        let at = |name: &str, field: &str| {
            let mut problem = problem(Severity::Refusal, &title(name), "wrong");
            problem.field = Some(field.into());
            problem
        };
        // Another parent does not take it; a backend is missing; a rule of it cannot be carried out.
        let problems = [
            at("of-elsewhere", "spec.parentRefs[1]"),
            at("backendless", "spec.rules[0].backendRefs[0]"),
            at("wrong", "spec.rules[0].filters[0]"),
        ];
        let all = verdicts(&known, &problems, true, &listeners);
        let expected = Listener { kinds: vec!["HTTPRoute"], routes: 3, is_served: true };
        assert_eq!(all[gateway].listeners, [expected]);
    }
}
