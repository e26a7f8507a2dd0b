use std::{cell::RefCell, net::IpAddr, rc::Rc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::net::resolve::cache::{RECHECK, STALE};

type Answer = Result<Addresses, ResolveError>;

/// A waiter that writes its answer down; `None` when it has gone away.
#[derive(Debug)]
struct Noted(Rc<RefCell<Option<Vec<Answer>>>>);

impl Waiter for Noted {
    fn is_waiting(&self) -> bool {
        self.0.borrow().is_some()
    }

    fn answer(self, answer: Answer) {
        if let Some(answers) = &mut *self.0.borrow_mut() {
            answers.push(answer);
        }
    }
}

fn owner(number: u8) -> ShareOwner {
    ShareOwner::Address([10, 0, 0, number].into())
}

fn found(last: u8) -> ResolvedAddresses {
    let v4 = vec![IpAddr::from([198, 51, 100, last])];
    ResolvedAddresses { v4, v6: Vec::new(), ttl: Duration::from_secs(60), is_whole: true }
}

struct Asked {
    now: Option<Answer>,
    stale: Option<Addresses>,
    later: Rc<RefCell<Option<Vec<Answer>>>>,
}

fn ask(desk: &mut LookupScheduler<Noted>, now: Instant, who: u8, name: &str) -> Asked {
    let later = Rc::new(RefCell::new(Some(Vec::new())));
    let waiter = || Noted(Rc::clone(&later));
    let (now, stale) = match desk.ask(now, &owner(who), name, waiter) {
        Reply::Now(answer) => (Some(answer), None),
        Reply::Later(stale) => (None, stale),
    };
    Asked { now, stale, later }
}

impl Asked {
    fn answers(&self) -> Vec<Answer> {
        self.later.borrow().clone().unwrap_or_default()
    }
}

#[test]
fn what_is_known_for_long_leaves_nothing_to_do() {
    let now = Instant::now();
    let mut desk = LookupScheduler::new(LookupLimits::default());
    ask(&mut desk, now, 1, "a.example");
    assert!(desk.has_work());
    let job = desk.next().unwrap();
    desk.finish(now, &job, Ok(found(7)));
    assert!(!desk.has_work());
    let known = ask(&mut desk, now, 1, "a.example");
    assert_eq!(known.now, Some(Ok(found(7).addresses())));
    assert!(!desk.has_work(), "its thread sleeps on");
    // In the last part of the answer's life it is asked for again.
    ask(&mut desk, now + Duration::from_secs(55), 1, "a.example");
    assert!(desk.has_work());
}

#[test]
fn one_look_up_serves_all_who_ask_and_each_in_its_own_turn() {
    let now = Instant::now();
    let mut desk = LookupScheduler::new(LookupLimits::default());
    // The name is far back in the queue of one with many.
    let many: Vec<_> =
        (0..40).map(|n| ask(&mut desk, now, 1, &format!("{n}.wild.example"))).collect();
    let last = ask(&mut desk, now, 1, "shared.example");
    let other = ask(&mut desk, now, 2, "shared.example");
    let mut jobs = Vec::new();
    while let Some(job) = desk.next() {
        jobs.push(job);
    }
    let shared: Vec<_> = jobs.iter().filter(|job| &*job.name == "shared.example").collect();
    assert_eq!(shared, [&LookupJob { owner: owner(2), name: "shared.example".into() }]);
    assert_eq!(jobs.len(), 32 + 1);
    desk.finish(now, shared[0], Ok(found(7)));
    let expected = [Ok(found(7).addresses())];
    assert_eq!(last.answers(), expected);
    assert_eq!(other.answers(), expected);
    // What is in the first one's queue yet is not asked a second time.
    for job in jobs.iter().filter(|job| job.owner == owner(1)) {
        desk.finish(now, job, Err(ResolveError::Timeout));
    }
    while let Some(job) = desk.next() {
        assert_ne!(&*job.name, "shared.example");
        desk.finish(now, &job, Err(ResolveError::Timeout));
    }
    assert!(many.iter().all(|asked| asked.answers() == [Err(ResolveError::Timeout)]));
    assert!(desk.pending.is_empty());
}

#[test]
fn beyond_the_bound_a_look_up_is_refused_at_once_and_others_are_not() {
    let now = Instant::now();
    let mut desk = LookupScheduler::new(LookupLimits::default());
    let flood: Vec<_> =
        (0..5000).map(|n| ask(&mut desk, now, 1, &format!("{n}.wild.example"))).collect();
    let refused = flood.iter().filter(|asked| asked.now == Some(Err(ResolveError::Overflow)));
    assert_eq!(refused.count(), 5000 - 512);
    while desk.next().is_some() {}
    let other = ask(&mut desk, now, 2, "good.example");
    assert!(other.now.is_none());
    let job = desk.next().unwrap();
    assert_eq!(job, LookupJob { owner: owner(2), name: "good.example".into() });
    desk.finish(now, &job, Ok(found(7)));
    assert_eq!(other.answers(), [Ok(found(7).addresses())]);
}

/// What docs/operations.md says of `--max-failed-names-per-source`.
#[test]
fn a_name_without_address_is_asked_for_again_after_its_time() {
    for (why, millis) in [(ResolveError::NoSuchName, 2000), (ResolveError::Timeout, 1000)] {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut desk = LookupScheduler::new(LookupLimits::default());
        let first = ask(&mut desk, start, 1, "absent.example");
        let job = desk.next().unwrap();
        desk.finish(start, &job, Err(why.clone()));
        assert_eq!(first.answers(), [Err(why.clone())]);
        for before in [0, 500, 999, millis - 1] {
            let again = ask(&mut desk, at(before), 1, "absent.example");
            assert_eq!(again.now, Some(Err(why.clone())), "{before} ms");
            assert!(!desk.has_work(), "{before} ms");
        }
        // Meanwhile it was made.
        let later = ask(&mut desk, at(millis), 1, "absent.example");
        assert_eq!(later.now, None);
        let job = desk.next().unwrap();
        desk.finish(at(millis), &job, Ok(found(7)));
        assert_eq!(later.answers(), [Ok(found(7).addresses())]);
        let known = ask(&mut desk, at(millis), 1, "absent.example");
        assert_eq!(known.now, Some(Ok(found(7).addresses())));
    }
}

#[test]
fn what_nobody_waits_for_is_not_asked() {
    let now = Instant::now();
    let mut desk = LookupScheduler::new(LookupLimits::default());
    let gone = ask(&mut desk, now, 1, "gone.example");
    *gone.later.borrow_mut() = None;
    let kept = ask(&mut desk, now, 1, "kept.example");
    assert_eq!(&*desk.next().unwrap().name, "kept.example");
    assert!(desk.next().is_none() && kept.answers().is_empty());
}

#[test]
fn the_first_family_answers_and_the_second_is_added() {
    let now = Instant::now();
    let mut desk = LookupScheduler::new(LookupLimits::default());
    let asked = ask(&mut desk, now, 1, "a.example");
    let job = desk.next().unwrap();
    desk.early(now, &job, &found(7));
    assert_eq!(asked.answers(), [Ok(found(7).addresses())]);
    let both = ResolvedAddresses { v6: vec!["2001:db8::7".parse().unwrap()], ..found(7) };
    desk.finish(now, &job, Ok(both.clone()));
    assert_eq!(ask(&mut desk, now, 1, "a.example").now, Some(Ok(both.addresses())));
    assert_eq!(asked.answers().len(), 1);
}

/// An outage for questions about one family alone, as of a name server that drops them.
#[test]
fn a_family_whose_question_fails_keeps_its_last_addresses_and_one_that_is_gone_does_not() {
    let start = Instant::now();
    let mut desk = LookupScheduler::new(LookupLimits::default());
    let both =
        |last: u8| ResolvedAddresses { v6: vec!["2001:db8::7".parse().unwrap()], ..found(last) };
    let part = |last: u8| ResolvedAddresses { is_whole: false, ..found(last) };
    let mut answered = |now: Instant, found: ResolvedAddresses| {
        let asked = ask(&mut desk, now, 1, "a.example");
        let job = desk.next().unwrap();
        desk.early(
            now,
            &job,
            &ResolvedAddresses { v6: Vec::new(), is_whole: false, ..found.clone() },
        );
        let early = asked.answers();
        desk.finish(now, &job, Ok(found));
        (early, ask(&mut desk, now, 1, "a.example").now.unwrap())
    };
    let [minute, hour] = [60, 3600].map(Duration::from_secs);
    let expected = Ok(both(1).addresses());
    assert_eq!(answered(start, both(1)), (vec![Ok(found(1).addresses())], expected));
    // The other family's question fails, for an hour at most; who asks meanwhile gets both as well.
    for turn in 1..hour.as_secs() / 60 {
        let now = start + minute * u32::try_from(turn).unwrap();
        let expected = Ok(both(2).addresses());
        assert_eq!(answered(now, part(2)), (vec![expected.clone()], expected), "{turn}");
    }
    let expected = Ok(found(3).addresses());
    assert_eq!(answered(start + hour, part(3)), (vec![expected.clone()], expected));
    // An answer that there is none counts at once.
    let late = start + 2 * hour;
    assert_eq!(answered(late, both(4)).1, Ok(both(4).addresses()));
    assert_eq!(answered(late + minute, found(5)).1, Ok(found(5).addresses()));
}

#[test]
fn an_answer_is_refreshed_before_its_end_and_kept_over_an_outage() {
    let start = Instant::now();
    let mut desk = LookupScheduler::new(LookupLimits::default());
    ask(&mut desk, start, 1, "a.example");
    let job = desk.next().unwrap();
    desk.finish(start, &job, Ok(found(1)));
    let old = Some(Ok(found(1).addresses()));
    let late = start + Duration::from_secs(55);
    for _ in 0..3 {
        assert_eq!(ask(&mut desk, late, 1, "a.example").now, old);
    }
    let job = desk.next().unwrap();
    assert!(desk.next().is_none(), "one refresh");
    desk.finish(late, &job, Ok(found(2)));
    let new = Some(Ok(found(2).addresses()));
    assert_eq!(ask(&mut desk, late, 1, "a.example").now, new);
    // The name server is gone. Who asks first waits, with the old answer in hand.
    let over = late + Duration::from_secs(60);
    let first = ask(&mut desk, over, 1, "a.example");
    assert_eq!((first.now.clone(), first.stale.clone()), (None, Some(found(2).addresses())));
    let job = desk.next().unwrap();
    desk.finish(over, &job, Err(ResolveError::Timeout));
    assert_eq!(first.answers(), [Ok(found(2).addresses())]);
    assert_eq!(ask(&mut desk, over, 2, "a.example").now, new, "nobody waits for what just failed");
    assert!(desk.next().is_none());
    // It is back: a question finds out within two seconds, and waits for nothing.
    let back = over + RECHECK;
    assert_eq!(ask(&mut desk, back, 2, "a.example").now, new);
    let job = desk.next().unwrap();
    desk.finish(back, &job, Ok(found(3)));
    assert_eq!(ask(&mut desk, back, 2, "a.example").now, Some(Ok(found(3).addresses())));
    // What no longer exists is not served from memory, and an old answer not for ever.
    let end = back + Duration::from_secs(60);
    let asked = ask(&mut desk, end, 1, "a.example");
    let job = desk.next().unwrap();
    desk.finish(end, &job, Err(ResolveError::NoSuchName));
    assert_eq!(asked.answers(), [Err(ResolveError::NoSuchName)]);
    ask(&mut desk, end + RECHECK, 1, "a.example");
    let job = desk.next().unwrap();
    desk.finish(end, &job, Ok(found(4)));
    let asked = ask(&mut desk, end + STALE + Duration::from_secs(60), 1, "a.example");
    assert_eq!((asked.now, asked.stale), (None, None));
}

#[test]
fn a_failure_is_asked_again_after_a_second() {
    let start = Instant::now();
    let mut desk = LookupScheduler::new(LookupLimits::default());
    ask(&mut desk, start, 1, "a.example");
    let job = desk.next().unwrap();
    desk.finish(start, &job, Err(ResolveError::Timeout));
    assert_eq!(ask(&mut desk, start, 1, "a.example").now, Some(Err(ResolveError::Timeout)));
    // Another's failure says nothing to this one.
    assert!(ask(&mut desk, start, 2, "a.example").now.is_none());
    let later = start + Duration::from_secs(1);
    assert!(ask(&mut desk, later, 1, "a.example").now.is_none());
}

proptest! {
    #[test]
    fn every_question_has_one_answer(
        steps in prop::collection::vec((0_u8..3, 0_u8..20, 0_u8..5), 0..600),
    ) {
        let now = Instant::now();
        let mut desk = LookupScheduler::new(LookupLimits::default());
        let mut asked = Vec::new();
        let mut jobs: Vec<LookupJob> = Vec::new();
        let finish = |desk: &mut LookupScheduler<Noted>, job: &LookupJob, kind: u8| match kind {
            2 => desk.finish(now, job, Ok(found(1))),
            3 => desk.finish(now, job, Err(ResolveError::Timeout)),
            _ => {
                desk.early(now, job, &found(1));
                desk.finish(now, job, Ok(found(1)));
            }
        };
        for (who, name, kind) in steps {
            match kind {
                0 => asked.push(ask(&mut desk, now, who, &format!("{name}.example"))),
                1 => jobs.extend(desk.next()),
                kind => if let Some(job) = jobs.pop() { finish(&mut desk, &job, kind) },
            }
            // No name is asked twice at a time.
            let mut names: Vec<_> = jobs.iter().map(|job| &job.name).collect();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), jobs.len());
        }
        loop {
            jobs.extend(std::iter::from_fn(|| desk.next()));
            let Some(job) = jobs.pop() else { break };
            finish(&mut desk, &job, 2);
        }
        for asked in &asked {
            prop_assert_eq!(asked.answers().len() + usize::from(asked.now.is_some()), 1);
        }
        prop_assert!(desk.pending.is_empty());
    }
}

#[test]
fn the_bounds_and_the_share_are_those_that_are_set() {
    let now = Instant::now();
    let limits =
        LookupLimits { active: 8, waiting: 16, shares: 2, names: 2, failed_names_per_source: 1 };
    let mut desk = LookupScheduler::new(limits);
    let ask_all = |desk: &mut LookupScheduler<Noted>, who: u8| {
        let names = (0..100).map(|n| format!("{n}.of-{who}.example"));
        let asked: Vec<_> = names.map(|name| ask(desk, now, who, &name)).collect();
        let refused = |asked: &&Asked| asked.now == Some(Err(ResolveError::Overflow));
        let refused = asked.iter().filter(refused).count();
        (asked, 100 - refused)
    };
    // One source alone gets a half.
    let (_first, admitted) = ask_all(&mut desk, 1);
    assert_eq!(admitted, 8);
    let jobs: Vec<_> = std::iter::from_fn(|| desk.next()).collect();
    assert_eq!(jobs.len(), 4);
    // And a half of what is left goes to the next one.
    let (_second, admitted) = ask_all(&mut desk, 2);
    assert_eq!(admitted, 6);
    for (last, job) in (1..).zip(&jobs[..3]) {
        desk.finish(now, job, Ok(found(last)));
    }
    let known = jobs.iter().filter(|job| ask(&mut desk, now, 1, &job.name).now.is_some());
    assert_eq!(known.count(), 2, "two names are remembered");
}
