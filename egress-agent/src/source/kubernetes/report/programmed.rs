//! Which conditions `Programmed` are to be written, without I/O: the caller passes the time in.
//!
//! A condition is never ahead of what is known: it holds only while every node and gateway has said that it has this
//! very generation in force. Writes are few, because each is an event for every agent that watches policies: what is
//! not yet in force is written only when it stays so for a moment, and numbers alone are written now and then.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::plan::{DueWrites, Write, WriteKind};
use crate::source::{
    kubernetes::{
        kinds::CUSTOM,
        objects::{Condition, ConditionKind, KnownObject, KnownObjects},
    },
    rollout::{Counts, View},
    verdicts::{Outcome, Verdicts},
};

/// Between two writes of one object's condition.
const AT_MOST: Duration = Duration::from_secs(5);
/// How long something is not in force until that is written: mostly it is, soon after.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two writes of one object's condition of which only numbers differ.
const NUMBERS: Duration = Duration::from_secs(30);
/// Of those that are behind, how many are named.
const NAMED: usize = 3;

/// What was seen and written so far.
#[derive(Debug, Default)]
pub(super) struct Programming {
    objects: HashMap<String, Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Since when it is not in force everywhere, of which generation.
    pending: Option<(i64, Instant)>,
    written: Option<Instant>,
}

impl Programming {
    /// What is due, what no longer holds first.
    pub(super) fn due(
        &mut self,
        known: &KnownObjects,
        verdicts: &Verdicts,
        view: &View,
        now: Instant,
    ) -> DueWrites {
        let mut due = DueWrites::default();
        let mut writes: Vec<(bool, Write)> = Vec::new();
        for (name, object) in known {
            if !CUSTOM.get(object.kind).is_some_and(|kind| kind.has_conditions()) {
                continue;
            }
            let judged = verdicts.get(name).filter(|v| v.generation == object.generation);
            let Some(verdict) = judged else { continue };
            let counts = view.counts(name, &object.uid, object.generation);
            let wanted = wanted(object, &verdict.outcome, &counts);
            let progress = self.objects.entry(name.clone()).or_default();
            match progress.writes_at(object, &wanted, view.is_warm, now) {
                NextWrite::Never => {}
                NextWrite::At(at) if at > now => {
                    due.again = Some(due.again.map_or(at, |old| old.min(at)));
                }
                NextWrite::At(_) => {
                    let ends = object.programmed.as_ref().is_some_and(|shown| shown.holds);
                    let what = WriteKind::Condition(ConditionKind::Programmed, wanted);
                    writes
                        .push((!ends, Write { name: name.clone(), object: object.clone(), what }));
                }
            }
        }
        self.objects.retain(|name, _| known.contains_key(name));
        writes.sort_by_key(|(later, _)| *later);
        due.writes = writes.into_iter().map(|(_, write)| write).collect();
        due
    }

    /// Remembers a write.
    pub(super) fn wrote(&mut self, write: &Write, now: Instant) {
        self.objects.entry(write.name.clone()).or_default().written = Some(now);
    }
}

/// When something is to be written.
enum NextWrite {
    /// As things are, not at all.
    Never,
    At(Instant),
}

impl Progress {
    fn writes_at(
        &mut self,
        object: &KnownObject,
        wanted: &Condition,
        warm: bool,
        now: Instant,
    ) -> NextWrite {
        let shown = object.programmed.as_ref();
        if wanted.holds || wanted.reason == NOT_ACCEPTED {
            self.pending = None;
        } else if self.pending.is_none_or(|(generation, _)| generation != object.generation) {
            self.pending = Some((object.generation, now));
        }
        if shown.is_some_and(|shown| shown.generation > object.generation || shown == wanted) {
            return NextWrite::Never;
        }
        let same = |shown: &Condition| {
            (shown.holds, shown.generation, &shown.reason)
                == (wanted.holds, wanted.generation, &wanted.reason)
        };
        let only_numbers = shown.is_some_and(same);
        // What an earlier reporter wrote was written just now, for all that is known here.
        let written = match (self.written, only_numbers) {
            (None, true) => Some(*self.written.insert(now)),
            (written, _) => written,
        };
        let pause = if only_numbers { NUMBERS } else { AT_MOST };
        let mut at = written.map_or(now, |written| written + pause);
        if let Some((_, since)) = self.pending {
            at = at.max(since + PATIENCE);
            if !warm {
                at = at.max(now + PATIENCE);
            }
        }
        NextWrite::At(at)
    }
}

const NOT_ACCEPTED: &str = "NotAccepted";

/// The condition that the object should show.
fn wanted(object: &KnownObject, outcome: &Outcome, counts: &Counts) -> Condition {
    let Counts { nodes, gateways, waiting } = counts;
    let accepted = matches!(outcome, Outcome::Accepted);
    let holds = accepted && counts.is_everywhere();
    let mut message = format!(
        "in force on {} of {} nodes and {} of {} gateways",
        nodes.0, nodes.1, gateways.0, gateways.1
    );
    let reason = match (accepted, holds) {
        (false, _) => {
            message = "it is not accepted; the condition Accepted says why".into();
            NOT_ACCEPTED
        }
        (true, true) => "Programmed",
        (true, false) => {
            if !waiting.is_empty() {
                let named: Vec<&str> = waiting.iter().take(NAMED).map(String::as_str).collect();
                message += &format!("; waiting for {}", named.join(", "));
                if waiting.len() > NAMED {
                    message += &format!(" and {} more", waiting.len() - NAMED);
                }
            }
            "Pending"
        }
    };
    let shown = object.programmed.as_ref();
    Condition {
        holds,
        generation: object.generation,
        reason: reason.into(),
        message,
        // The time of the last change of the status itself.
        since: shown.filter(|shown| shown.holds == holds).and_then(|shown| shown.since.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

    use super::*;
    use crate::{
        source::{rollout::Rollout, verdicts::Verdict},
        types::{Revision, Revisions},
    };

    const POLICY: &str = "EgressPolicy shop/a";

    fn object(generation: i64) -> KnownObject {
        KnownObject {
            kind: CUSTOM.iter().position(|custom| custom.kind == "EgressPolicy").unwrap(),
            namespace: Some("shop".into()),
            name: "a".into(),
            uid: "uid".into(),
            generation,
            accepted: None,
            programmed: None,
            api: None,
        }
    }

    fn all(object: &KnownObject) -> KnownObjects {
        [(POLICY.to_owned(), object.clone())].into()
    }

    fn verdict(generation: i64, outcome: Outcome) -> Verdicts {
        let (faults, listeners) = (Vec::new(), Vec::new());
        [(POLICY.to_owned(), Verdict { generation, outcome, faults, listeners })].into()
    }

    fn revisions(generation: i64) -> Arc<Revisions> {
        let revision = Revision { uid: "uid".into(), generation };
        Arc::new(Revisions::new([(POLICY.to_owned(), revision)].into()))
    }

    /// A gateway and nodes of these names.
    fn rollout(now: Instant, nodes: &[&str]) -> Rollout {
        let (rollout, own): (_, IpAddr) = (Rollout::new(now), "10.0.0.11".parse().unwrap());
        rollout.set_own(&[own]);
        rollout.in_force(&revisions(1), [own].into());
        let nodes = nodes.iter().zip(1..).map(|(name, number)| {
            let addr: IpAddr = [10, 0, 0, number].into();
            ((*name).to_owned(), vec![addr])
        });
        rollout.set_nodes(nodes.collect::<BTreeMap<_, _>>());
        rollout
    }

    fn condition(due: &DueWrites) -> &Condition {
        match due.writes.as_slice() {
            [Write { what: WriteKind::Condition(ConditionKind::Programmed, condition), .. }] => {
                condition
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_holds_when_and_only_when_every_agent_has_the_generation() {
        let mut now = Instant::now();
        let rollout = rollout(now, &["a", "b"]);
        let accepted = verdict(1, Outcome::Accepted);
        let mut programming = Programming::default();
        let mut policy = object(1);
        let say = |now, node: &str, addr: &str, generation| {
            rollout.hear_node(now, addr.parse().unwrap(), node, revisions(generation).digest());
        };
        let mut look = |now, policy: &KnownObject, accepted: &Verdicts| {
            let due = programming.due(&all(policy), accepted, &rollout.view(now), now);
            due.writes.iter().for_each(|write| programming.wrote(write, now));
            due
        };
        say(now, "a", "10.0.0.1", 1);
        // It may be everywhere at once: not yet.
        let due = look(now, &policy, &accepted);
        assert!(due.writes.is_empty() && due.again.is_some());
        now += Duration::from_secs(6);
        say(now, "a", "10.0.0.1", 1);
        let due = look(now, &policy, &accepted);
        let pending = condition(&due).clone();
        assert!(!pending.holds && pending.generation == 1);
        assert_eq!(pending.message, "in force on 1 of 2 nodes and 1 of 1 gateways; waiting for b");
        policy.programmed = Some(Condition { since: Some("then".into()), ..pending });
        assert!(look(now, &policy, &accepted).writes.is_empty());
        say(now, "b", "10.0.0.2", 1);
        now += AT_MOST;
        let due = look(now, &policy, &accepted);
        let done = condition(&due).clone();
        assert!(done.holds && done.since.is_none(), "{done:?}");
        assert_eq!(done.message, "in force on 2 of 2 nodes and 1 of 1 gateways");
        policy.programmed = Some(Condition { since: Some("now".into()), ..done });
        assert!(look(now, &policy, &accepted).writes.is_empty());
        // A new generation: the old one says nothing of it.
        policy.generation = 2;
        let accepted = verdict(2, Outcome::Accepted);
        rollout.in_force(&revisions(2), ["10.0.0.11".parse().unwrap()].into());
        now += AT_MOST;
        assert!(look(now, &policy, &accepted).writes.is_empty(), "it may be everywhere at once");
        say(now, "a", "10.0.0.1", 2);
        say(now, "b", "10.0.0.2", 1);
        now += PATIENCE;
        let due = look(now, &policy, &accepted);
        let pending = condition(&due);
        assert!(!pending.holds && pending.generation == 2, "{pending:?}");
        assert!(pending.message.ends_with("waiting for b"), "{}", pending.message);
    }

    #[test]
    fn a_node_that_falls_silent_ends_it_and_numbers_are_written_seldom() {
        let mut now = Instant::now();
        let rollout = rollout(now, &["a"]);
        let (accepted, mut policy) = (verdict(1, Outcome::Accepted), object(1));
        let mut programming = Programming::default();
        let mut look = |now, policy: &KnownObject| {
            let due = programming.due(&all(policy), &accepted, &rollout.view(now), now);
            due.writes.iter().for_each(|write| programming.wrote(write, now));
            due
        };
        let say = |now, node: &str, addr: &str| {
            rollout.hear_node(now, addr.parse().unwrap(), node, revisions(1).digest());
        };
        say(now, "a", "10.0.0.1");
        let due = look(now, &policy);
        assert!(condition(&due).holds, "at once where it holds");
        policy.programmed = Some(condition(&due).clone());
        // One node more that has it: the same, with other numbers.
        let nodes = [("a", "10.0.0.1"), ("b", "10.0.0.2")];
        let nodes = nodes.map(|(name, addr)| (name.to_owned(), vec![addr.parse().unwrap()]));
        rollout.set_nodes(nodes.into());
        say(now, "b", "10.0.0.2");
        now += AT_MOST;
        let due = look(now, &policy);
        assert!(due.writes.is_empty() && due.again.is_some());
        now += NUMBERS - AT_MOST - Duration::from_secs(1);
        say(now, "a", "10.0.0.1");
        say(now, "b", "10.0.0.2");
        now += Duration::from_secs(1);
        let due = look(now, &policy);
        assert!(condition(&due).message.contains("2 of 2 nodes"));
        policy.programmed = Some(condition(&due).clone());
        // Silence.
        now += Duration::from_secs(31);
        say(now, "a", "10.0.0.1");
        assert!(look(now, &policy).writes.is_empty(), "for a moment");
        now += PATIENCE;
        let due = look(now, &policy);
        assert!(!condition(&due).holds && condition(&due).message.contains("1 of 2 nodes"));
    }

    #[test]
    fn what_is_not_accepted_or_has_no_node_never_holds() {
        let now = Instant::now();
        let rollout = rollout(now, &[]);
        let view = rollout.view(now);
        let mut programming = Programming::default();
        let wrong = verdict(1, Outcome::Invalid("bad".into()));
        let due = programming.due(&all(&object(1)), &wrong, &view, now);
        let shown = condition(&due);
        assert!(!shown.holds && shown.reason == NOT_ACCEPTED, "{shown:?}");
        let accepted = verdict(1, Outcome::Accepted);
        let later = now + Duration::from_secs(60);
        drop(programming.due(&all(&object(1)), &accepted, &view, later));
        let due = programming.due(&all(&object(1)), &accepted, &view, later + PATIENCE * 2);
        let none = wanted(&object(1), &Outcome::Accepted, &view.counts(POLICY, "uid", 1));
        assert!(!none.holds && none.message.contains("0 of 0 nodes"), "{none:?}");
        assert!(due.writes.is_empty(), "the gateway has just started");
        // A verdict on another generation is none on this one, and a newer word stays.
        let older = programming.due(&all(&object(2)), &accepted, &view, later);
        assert!(older.writes.is_empty());
        let shown = Condition { generation: 5, ..none };
        let newer = KnownObject { programmed: Some(shown), ..object(1) };
        assert!(programming.due(&all(&newer), &wrong, &view, later).writes.is_empty());
    }
}
