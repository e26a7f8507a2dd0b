//! What is to be reported, without I/O: the caller passes the time in.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use super::{api, cut::cut};

use crate::{
    policy::{BadCredential, CredentialFaults},
    source::{
        kubernetes::{
            kinds::CUSTOM,
            objects::{Condition, ConditionKind, KnownObject, KnownObjects},
        },
        verdicts::{Outcome, Verdicts},
    },
};

/// Between two writes of one object's condition: two gateways of different versions that disagree must not write
/// against each other without end.
const AT_MOST: Duration = Duration::from_secs(5);
/// Events that may be made at once, and the time in which another one may be.
const BURST: u32 = 20;
const REFILL: Duration = Duration::from_secs(6);
/// Bytes of an Event's note, and of a condition's message.
const NOTE: usize = 1024;
const MESSAGE: usize = 4096;

/// A write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Write {
    /// What messages call the object.
    pub(super) name: String,
    pub(super) object: KnownObject,
    pub(super) what: WriteKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum WriteKind {
    Condition(ConditionKind, Condition),
    /// The status of a resource of the Gateway API.
    Status(Value),
    Event {
        name: String,
        why: EventReason,
        note: String,
    },
}

/// What an Event is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EventReason {
    /// The object does not compile, or is refused in part.
    NotAccepted,
    /// A credential that it names cannot be used.
    CredentialUnusable,
}

impl EventReason {
    /// The Event's reason, and the action that failed.
    pub(super) const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::NotAccepted => ("NotAccepted", "Compile"),
            Self::CredentialUnusable => ("CredentialUnusable", "LoadCredential"),
        }
    }
}

/// What is due now, and when to look again.
#[derive(Debug, Default)]
pub(super) struct DueWrites {
    pub(super) writes: Vec<Write>,
    pub(super) again: Option<Instant>,
}

/// What was reported so far.
#[derive(Debug, Default)]
pub(super) struct ReportedState {
    /// When an object's condition was written last.
    conditions: HashMap<String, Instant>,
    /// Names of the Events of what is still wrong.
    events: HashSet<String>,
    /// When each of the last Events was made.
    recent: Vec<Instant>,
}

impl ReportedState {
    /// What is due.
    pub(super) fn due(
        &mut self,
        known: &KnownObjects,
        verdicts: &Verdicts,
        faults: &CredentialFaults,
        now: Instant,
    ) -> DueWrites {
        let mut due = DueWrites::default();
        let mut again = |at: Instant| due.again = Some(due.again.map_or(at, |old| old.min(at)));
        let mut wrong = HashSet::new();
        let mut writes = Vec::new();
        self.recent.retain(|made| now.duration_since(*made) < REFILL * BURST);
        let mut room = usize::try_from(BURST).unwrap_or(0).saturating_sub(self.recent.len());
        for (name, object) in known {
            // What was compiled is not what is there now: a verdict on that comes.
            let judged = verdicts.get(name).filter(|v| v.generation == object.generation);
            let Some(verdict) = judged else { continue };
            let outcome = &verdict.outcome;
            if CUSTOM.get(object.kind).is_some_and(|kind| kind.has_conditions()) {
                let Some(condition) = changed(object, outcome) else { continue };
                let last = self.conditions.get(name).map(|last| *last + AT_MOST);
                if let Some(at) = last.filter(|at| now < *at) {
                    again(at);
                    continue;
                }
                let what = WriteKind::Condition(ConditionKind::Accepted, condition);
                writes.push(Write { name: name.clone(), object: object.clone(), what });
                continue;
            }
            let bad = faults.get(name).map(Vec::as_slice).unwrap_or_default();
            if let Some(status) = api::status(object, verdict, known, bad) {
                let last = self.conditions.get(name).map(|last| *last + AT_MOST);
                match last.filter(|at| now < *at) {
                    Some(at) => again(at),
                    None => {
                        let what = WriteKind::Status(status);
                        writes.push(Write { name: name.clone(), object: object.clone(), what });
                    }
                }
            }
            let problem = match outcome {
                Outcome::Invalid(problem) => Some((EventReason::NotAccepted, problem.clone())),
                Outcome::Accepted | Outcome::Held(_) => None,
            };
            let bad = bad.iter().map(|BadCredential { name, fault, in_use }| {
                let effect = match in_use {
                    true => "the last good one stays in use",
                    false => "connections that need it are refused",
                };
                (EventReason::CredentialUnusable, format!("credential {name}: {fault}; {effect}"))
            });
            for (why, note) in problem.into_iter().chain(bad) {
                let note = cut(&note, NOTE);
                let event = event_name(object, &note);
                wrong.insert(event.clone());
                if self.events.contains(&event) {
                    continue;
                }
                if room == 0 {
                    again(now + REFILL);
                    continue;
                }
                room -= 1;
                let what = WriteKind::Event { name: event, why, note };
                writes.push(Write { name: name.clone(), object: object.clone(), what });
            }
        }
        // What is right again may be told anew; what is gone is forgotten.
        self.events.retain(|event| wrong.contains(event));
        self.conditions.retain(|name, _| known.contains_key(name));
        due.writes = writes;
        due
    }

    /// Remembers a write.
    pub(super) fn wrote(&mut self, write: &Write, now: Instant) {
        match &write.what {
            WriteKind::Condition(..) | WriteKind::Status(_) => {
                self.conditions.insert(write.name.clone(), now);
            }
            WriteKind::Event { name, .. } => {
                self.events.insert(name.clone());
                self.recent.push(now);
            }
        }
    }
}

/// The condition that the object should show, where it differs from the one that it shows.
fn changed(object: &KnownObject, outcome: &Outcome) -> Option<Condition> {
    let (holds, reason, message) = match outcome {
        Outcome::Accepted => (true, "Accepted", "gateways decide by it"),
        Outcome::Invalid(problem) => (false, "Invalid", problem.as_str()),
        Outcome::Held(why) => (false, "ConfigurationRefused", why.as_str()),
    };
    let shown = object.accepted.as_ref();
    if shown.is_some_and(|shown| shown.generation > object.generation) {
        return None;
    }
    let wanted = Condition {
        holds,
        generation: object.generation,
        reason: reason.into(),
        message: cut(message, MESSAGE),
        // The time of the last change of the status itself.
        since: shown.filter(|shown| shown.holds == holds).and_then(|shown| shown.since.clone()),
    };
    (shown != Some(&wanted)).then_some(wanted)
}

/// The same for the same words about the same object.
fn event_name(object: &KnownObject, note: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (&object.uid, object.generation, note).hash(&mut hasher);
    // An object's name has at most 253 bytes.
    let name = object.name.get(..230).unwrap_or(&object.name).trim_end_matches(['.', '-']);
    format!("{name}.{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::verdicts::Verdict;

    fn kind(name: &str) -> usize {
        CUSTOM.iter().position(|custom| custom.kind == name).unwrap()
    }

    fn object(of: &str, name: &str, generation: i64) -> KnownObject {
        KnownObject {
            kind: kind(of),
            namespace: Some("shop".into()),
            name: name.into(),
            uid: format!("uid-of-{name}"),
            generation,
            accepted: None,
            programmed: None,
            api: None,
        }
    }

    fn all(objects: &[(&str, &KnownObject)]) -> KnownObjects {
        objects.iter().map(|(name, object)| ((*name).to_owned(), (*object).clone())).collect()
    }

    fn verdict(name: &str, generation: i64, outcome: Outcome) -> Verdicts {
        let (faults, listeners) = (Vec::new(), Vec::new());
        Verdicts::from([(name.to_owned(), Verdict { generation, outcome, faults, listeners })])
    }

    fn condition(writes: &[Write]) -> &Condition {
        match writes {
            [Write { what: WriteKind::Condition(ConditionKind::Accepted, condition), .. }] => {
                condition
            }
            other => panic!("{other:?}"),
        }
    }

    const POLICY: &str = "EgressPolicy shop/a";
    const FINE: &CredentialFaults = &CredentialFaults::new();

    #[test]
    fn a_condition_is_written_once_and_again_when_it_differs() {
        let (mut told, now) = (ReportedState::default(), Instant::now());
        let mut policy = object("EgressPolicy", "a", 1);
        let fine = verdict(POLICY, 1, Outcome::Accepted);
        let due = told.due(&all(&[(POLICY, &policy)]), &fine, FINE, now);
        let written = condition(&due.writes).clone();
        assert!(written.holds && written.generation == 1 && written.since.is_none());
        told.wrote(&due.writes[0], now);
        // It is shown: nothing to do, for another gateway neither.
        policy.accepted = Some(Condition { since: Some("then".into()), ..written });
        for told in [&mut told, &mut ReportedState::default()] {
            let due = told.due(&all(&[(POLICY, &policy)]), &fine, FINE, now);
            assert!(due.writes.is_empty() && due.again.is_none());
        }
        // A new generation with an error, after a while.
        policy.generation = 2;
        let wrong = verdict(POLICY, 2, Outcome::Invalid("bad".into()));
        let due = told.due(&all(&[(POLICY, &policy)]), &wrong, FINE, now);
        assert!(due.writes.is_empty() && due.again == Some(now + AT_MOST));
        let due = told.due(&all(&[(POLICY, &policy)]), &wrong, FINE, now + AT_MOST);
        let changed = condition(&due.writes);
        assert!(!changed.holds && changed.message == "bad" && changed.since.is_none());
        // The same status of a newer generation keeps its time.
        let shown = Condition { since: Some("then".into()), ..changed.clone() };
        policy.accepted = Some(shown);
        policy.generation = 3;
        let wrong = verdict(POLICY, 3, Outcome::Invalid("worse".into()));
        let due = told.due(&all(&[(POLICY, &policy)]), &wrong, FINE, now + AT_MOST * 3);
        assert_eq!(condition(&due.writes).since.as_deref(), Some("then"));
    }

    #[test]
    fn a_gateway_that_is_behind_says_nothing() {
        let (mut told, now) = (ReportedState::default(), Instant::now());
        let mut policy = object("EgressPolicy", "a", 2);
        // It has compiled another generation than the one that it knows.
        let old = verdict(POLICY, 1, Outcome::Accepted);
        assert!(told.due(&all(&[(POLICY, &policy)]), &old, FINE, now).writes.is_empty());
        // Another gateway has compiled a newer one.
        let newer = Condition {
            holds: false,
            generation: 3,
            reason: "Invalid".into(),
            message: String::new(),
            since: None,
        };
        policy.accepted = Some(newer);
        let own = verdict(POLICY, 2, Outcome::Accepted);
        assert!(told.due(&all(&[(POLICY, &policy)]), &own, FINE, now).writes.is_empty());
        policy.generation = 3;
        let own = verdict(POLICY, 3, Outcome::Accepted);
        assert_eq!(told.due(&all(&[(POLICY, &policy)]), &own, FINE, now).writes.len(), 1);
    }

    #[test]
    fn events_are_made_once_and_not_without_bound() {
        let (mut told, now) = (ReportedState::default(), Instant::now());
        let names: Vec<_> = (0..100).map(|n| format!("VirtualService shop/v{n}")).collect();
        let objects: KnownObjects = names
            .iter()
            .enumerate()
            .map(|(n, name)| (name.clone(), object("VirtualService", &format!("v{n}"), 1)))
            .collect();
        let invalid = |what: &str| Verdict {
            generation: 1,
            outcome: Outcome::Invalid(what.into()),
            faults: Vec::new(),
            listeners: Vec::new(),
        };
        let wrong: Verdicts = names.iter().map(|name| (name.clone(), invalid("bad"))).collect();
        let mut made = HashSet::new();
        let mut run = |told: &mut ReportedState, wrong: &Verdicts, now| {
            let due = told.due(&objects, wrong, FINE, now);
            for write in &due.writes {
                let WriteKind::Event { name, note, .. } = &write.what else { panic!("{write:?}") };
                assert!(made.insert(name.clone()) && name.len() <= 253 && note.len() <= NOTE);
                told.wrote(write, now);
            }
            (due.writes.len(), due.again.is_some())
        };
        assert_eq!(run(&mut told, &wrong, now), (20, true));
        assert_eq!(run(&mut told, &wrong, now), (0, true));
        let mut at = now;
        let mut count = 20;
        while count < 100 {
            at += REFILL;
            count += run(&mut told, &wrong, at).0;
            assert!(at < now + Duration::from_secs(3600), "{count}");
        }
        at += REFILL * BURST * 2;
        assert_eq!(run(&mut told, &wrong, at), (0, false));
        // Other words are another Event.
        let mut other = wrong;
        other.insert(names[7].clone(), invalid("worse"));
        assert_eq!(run(&mut told, &other, at), (1, false));
        // What only another object's error holds back needs none.
        let held = Verdict { outcome: Outcome::Held("x".into()), ..invalid("x") };
        let held: Verdicts = names.iter().map(|name| (name.clone(), held.clone())).collect();
        assert_eq!(run(&mut told, &held, at), (0, false));
    }

    #[test]
    fn a_credential_that_is_missing_is_an_event_of_the_object_that_names_it() {
        let (mut told, now) = (ReportedState::default(), Instant::now());
        let name = "Gateway shop/a";
        let (gateway, fine) = (object("Gateway", "a", 1), verdict(name, 1, Outcome::Accepted));
        let objects = all(&[(name, &gateway)]);
        let bad = |name: &str, in_use| BadCredential {
            name: name.into(),
            fault: "absent".into(),
            in_use,
        };
        let faults = |of: &str| CredentialFaults::from([(of.to_owned(), vec![bad("web", false)])]);
        assert!(told.due(&objects, &fine, &faults("Gateway shop/b"), now).writes.is_empty());
        let due = told.due(&objects, &fine, &faults(name), now);
        let [Write { what: WriteKind::Event { why, note, .. }, .. }] = due.writes.as_slice() else {
            panic!("{due:?}")
        };
        assert_eq!(*why, EventReason::CredentialUnusable);
        assert_eq!(note, "credential web: absent; connections that need it are refused");
        told.wrote(&due.writes[0], now);
        assert!(told.due(&objects, &fine, &faults(name), now).writes.is_empty(), "it was told");
        // Each of several, and whether an earlier one is in use.
        let two = vec![bad("web", false), bad("rsa", true)];
        let due = told.due(&objects, &fine, &CredentialFaults::from([(name.to_owned(), two)]), now);
        let [Write { what: WriteKind::Event { note, .. }, .. }] = due.writes.as_slice() else {
            panic!("{due:?}")
        };
        assert_eq!(note, "credential rsa: absent; the last good one stays in use");
        // Both of an object that does not compile and names one.
        let wrong = verdict(name, 1, Outcome::Invalid("bad".into()));
        assert_eq!(
            ReportedState::default().due(&objects, &wrong, &faults(name), now).writes.len(),
            2
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "ä");
        assert_eq!(cut("abc", 3), "abc");
    }
}
