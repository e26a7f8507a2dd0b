//! Refusals beyond a rate become one line with a count. Time is passed in.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

use egress_ebpf::reason::Reason;

use crate::types::ShareOwner;

/// Lines that an owner gets at once for one reason.
const BURST: u32 = 100;
/// One more line becomes due after this long: 20 a second.
const REFILL: Duration = Duration::from_millis(50);
/// How long refusals are gathered into one line.
const GATHER: Duration = Duration::from_secs(5);
/// Owners and reasons in all; beyond them, refusals are gathered by reason alone.
const KEYS: usize = 4096;

/// What was refused lately, by owner and reason: a rate for each, and what goes beyond it. At most
/// [`KEYS`] entries, and one more for each reason.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    entries: HashMap<Key, AggregatedRefusal>,
    /// Entries that hold a sum.
    summed: usize,
}

/// No owner: of all that found no entry of their own.
type Key = (Option<ShareOwner>, Reason);

#[derive(Debug)]
struct AggregatedRefusal {
    /// Lines that may be written now.
    tokens: u32,
    refilled: Instant,
    sum: Option<RefusalCount>,
}

#[derive(Clone, Debug)]
struct RefusalCount {
    since: Instant,
    count: u64,
    first: SystemTime,
    last: SystemTime,
    address: IpAddr,
}

/// Refusals that share one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Aggregate {
    /// Whose; `None` if they are of several.
    pub(super) owner: Option<ShareOwner>,
    pub(super) reason: Reason,
    pub(super) count: u64,
    pub(super) first: SystemTime,
    pub(super) last: SystemTime,
    /// Where the last one came from.
    pub(super) address: IpAddr,
}

/// One refusal, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) owner: ShareOwner,
    pub(super) reason: Reason,
    pub(super) time: SystemTime,
    pub(super) address: IpAddr,
}

impl Refusals {
    /// Whether the refusal gets a line of its own. If not, call [`Self::add`].
    pub(super) fn admit(&mut self, now: Instant, refusal: &Refusal) -> bool {
        let entry = self.entry(now, refusal);
        let due = now.saturating_duration_since(entry.refilled).as_millis() / REFILL.as_millis();
        if let Ok(due @ 1..) = u32::try_from(due) {
            entry.tokens = entry.tokens.saturating_add(due).min(BURST);
            entry.refilled += REFILL * due;
        }
        let admitted = entry.tokens > 0;
        entry.tokens = entry.tokens.saturating_sub(1);
        admitted
    }

    /// Counts the refusal for the line that comes later. `true` if it begins one.
    pub(super) fn add(&mut self, now: Instant, refusal: &Refusal) -> bool {
        let Refusal { time, address, .. } = *refusal;
        let entry = self.entry(now, refusal);
        let begins = entry.sum.is_none();
        let sum = entry.sum.get_or_insert(RefusalCount {
            since: now,
            count: 0,
            first: time,
            last: time,
            address,
        });
        sum.count += 1;
        sum.first = sum.first.min(time);
        sum.last = sum.last.max(time);
        sum.address = address;
        self.summed += usize::from(begins);
        begins
    }

    /// The sums whose time has come, or all of them.
    pub(super) fn due(&mut self, now: Instant, all: bool) -> Vec<Aggregate> {
        if self.summed == 0 {
            return Vec::new();
        }
        let mut due = Vec::new();
        for ((owner, reason), entry) in &mut self.entries {
            let ripe =
                |sum: &mut RefusalCount| all || now.saturating_duration_since(sum.since) >= GATHER;
            if let Some(sum) = entry.sum.take_if(ripe) {
                let RefusalCount { since: _, count, first, last, address } = sum;
                let (owner, reason) = (owner.clone(), *reason);
                due.push(Aggregate { owner, reason, count, first, last, address });
            }
        }
        self.summed -= due.len();
        due.sort_by(|a, b| (a.first, &a.owner).cmp(&(b.first, &b.owner)));
        due
    }

    /// How long the next sum may wait; `None` if there is none.
    pub(super) fn wait(&self) -> Option<Duration> {
        (self.summed > 0).then_some(GATHER)
    }

    fn entry(&mut self, now: Instant, refusal: &Refusal) -> &mut AggregatedRefusal {
        let own = (Some(refusal.owner.clone()), refusal.reason);
        let key = match self.entries.contains_key(&own) {
            true => own,
            false => {
                if self.entries.len() >= KEYS {
                    // What is idle is as good as new.
                    self.entries.retain(|_, entry| {
                        let idle = now.saturating_duration_since(entry.refilled) >= REFILL * BURST;
                        entry.sum.is_some() || !idle
                    });
                }
                match self.entries.len() < KEYS {
                    true => own,
                    false => (None, refusal.reason),
                }
            }
        };
        self.entries.entry(key).or_insert(AggregatedRefusal {
            tokens: BURST,
            refilled: now,
            sum: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(who: u32, reason: Reason, second: u64) -> Refusal {
        let address = IpAddr::from(who.to_be_bytes());
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        Refusal { owner: ShareOwner::Address(address), reason, time, address }
    }

    #[test]
    fn a_flood_becomes_a_line_with_its_count_and_times() {
        let start = Instant::now();
        let mut refusals = Refusals::default();
        let (mut lines, mut begun) = (0, 0);
        for second in 0..1000 {
            let one = refusal(1, Reason::HostNotInRegistry, second);
            if refusals.admit(start, &one) {
                lines += 1;
            } else {
                begun += u32::from(refusals.add(start, &one));
            }
        }
        assert_eq!((lines, begun), (BURST, 1));
        // Somebody else, and another reason, have lines of their own.
        assert!(refusals.admit(start, &refusal(2, Reason::HostNotInRegistry, 0)));
        assert!(refusals.admit(start, &refusal(1, Reason::BadRequest, 0)));
        assert_eq!(refusals.wait(), Some(GATHER));
        assert!(refusals.due(start + GATHER / 2, false).is_empty());
        let due = refusals.due(start + GATHER, false);
        let [one] = &due[..] else { panic!("{due:?}") };
        assert_eq!(one.count, 1000 - u64::from(BURST));
        assert_eq!(one.first, SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(BURST)));
        assert_eq!(one.last, SystemTime::UNIX_EPOCH + Duration::from_secs(999));
        assert_eq!(one.owner, Some(ShareOwner::Address([0, 0, 0, 1].into())));
        assert_eq!(refusals.wait(), None);
        // Once the flood is over, lines come again.
        assert!(refusals.admit(start + GATHER, &refusal(1, Reason::HostNotInRegistry, 0)));
    }

    #[test]
    fn the_table_is_bounded_and_loses_no_count() {
        let start = Instant::now();
        let mut refusals = Refusals::default();
        let most = u32::try_from(KEYS).unwrap() * 2;
        for who in 0..most {
            refusals.add(start, &refusal(who, Reason::BadRequest, 0));
        }
        assert_eq!(refusals.entries.len(), KEYS + 1);
        let due = refusals.due(start, true);
        assert_eq!(due.iter().map(|one| one.count).sum::<u64>(), u64::from(most));
        // Idle entries make room.
        let later = start + REFILL * BURST;
        refusals.add(later, &refusal(most, Reason::BadRequest, 0));
        let due = refusals.due(later, true);
        assert_eq!(due[0].owner, Some(ShareOwner::Address(IpAddr::from(most.to_be_bytes()))));
    }

    proptest! {
        #[test]
        fn every_refusal_is_a_line_or_in_a_sum(
            steps in prop::collection::vec((0_u32..3, 0_u64..30, any::<bool>()), 0..3000),
        ) {
            let (start, mut now) = (Instant::now(), Instant::now());
            let mut refusals = Refusals::default();
            let (mut lines, mut told) = (0, 0);
            for (who, wait, look) in &steps {
                now += Duration::from_millis(*wait);
                let one = refusal(*who, Reason::BadRequest, 0);
                if refusals.admit(now, &one) {
                    lines += 1;
                } else {
                    refusals.add(now, &one);
                }
                if *look {
                    told += refusals.due(now, false).iter().map(|one| one.count).sum::<u64>();
                }
            }
            let lines_at_most = 3 * (u128::from(BURST) + 1 + (now - start).as_millis() / 50);
            prop_assert!(lines <= lines_at_most);
            told += refusals.due(now, true).iter().map(|one| one.count).sum::<u64>();
            prop_assert_eq!(lines + u128::from(told), u128::try_from(steps.len()).unwrap());
        }
    }
}
