//! Whose look-up comes next: a queue for each owner, served in turn.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::LookupLimits;
use crate::types::{ShareOwner, within_share};

/// Names to look up. Owners are served in turn, each within its share ([`within_share`]). The names of
/// [`ShareOwner::Own`] wait for room too, but none of them is refused.
#[derive(Debug)]
pub(super) struct Queue {
    limits: LookupLimits,
    owners: HashMap<ShareOwner, Owner>,
    /// Owners with waiting names, the next one first.
    turn: VecDeque<ShareOwner>,
    active: usize,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Owner {
    names: VecDeque<Arc<str>>,
    active: usize,
}

/// The owner's share is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ShareExhausted;

impl Queue {
    pub(super) fn new(limits: LookupLimits) -> Self {
        Self { limits, owners: HashMap::new(), turn: VecDeque::new(), active: 0, waiting: 0 }
    }

    pub(super) fn push(
        &mut self,
        owner: &ShareOwner,
        name: &Arc<str>,
    ) -> Result<(), ShareExhausted> {
        let used = self.owners.get(owner).map_or(0, |owner| owner.names.len());
        // The agent's own names are those of the configuration, which bounds them.
        let fits = match owner {
            ShareOwner::Own => true,
            ShareOwner::Workload { .. } | ShareOwner::Address(_) => {
                within_share(used, self.waiting, self.limits.waiting, self.limits.divisor())
            }
        };
        if !fits {
            return Err(ShareExhausted);
        }
        let entry = self.owners.entry(owner.clone()).or_default();
        if entry.names.is_empty() {
            self.turn.push_back(owner.clone());
        }
        entry.names.push_back(Arc::clone(name));
        self.waiting += 1;
        Ok(())
    }

    /// The next look-up, which is under way from here until [`Self::done`]; `None` while nobody who
    /// waits may have one more.
    pub(super) fn next(&mut self) -> Option<(ShareOwner, Arc<str>)> {
        for _ in 0..self.turn.len() {
            let name = self.turn.pop_front()?;
            let Some(owner) = self.owners.get_mut(&name) else { continue };
            let divisor = if name == ShareOwner::Own { 1 } else { self.limits.divisor() };
            if !within_share(owner.active, self.active, self.limits.active, divisor) {
                self.turn.push_back(name);
                continue;
            }
            let Some(wanted) = owner.names.pop_front() else { continue };
            owner.active += 1;
            self.active += 1;
            self.waiting -= 1;
            if !owner.names.is_empty() {
                self.turn.push_back(name.clone());
            }
            return Some((name, wanted));
        }
        None
    }

    /// A look-up of this owner is over.
    pub(super) fn done(&mut self, name: &ShareOwner) {
        let Some(owner) = self.owners.get_mut(name) else { return };
        owner.active = owner.active.saturating_sub(1);
        self.active = self.active.saturating_sub(1);
        if owner.active == 0 && owner.names.is_empty() {
            self.owners.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(number: u8) -> ShareOwner {
        ShareOwner::Address([10, 0, 0, number].into())
    }

    fn name(number: usize) -> Arc<str> {
        format!("{number}.example").into()
    }

    #[test]
    fn owners_are_served_in_turn_and_their_names_in_order() {
        let mut queue = Queue::new(LookupLimits::default());
        for number in 0..3 {
            queue.push(&owner(1), &name(number)).unwrap();
        }
        queue.push(&owner(2), &name(9)).unwrap();
        let order: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        let expected = [(1, 0), (2, 9), (1, 1), (1, 2)];
        assert_eq!(order, expected.map(|(who, number)| (owner(who), name(number))));
    }

    #[test]
    fn a_flood_is_bounded_and_leaves_room_at_once() {
        let mut queue = Queue::new(LookupLimits::default());
        let taken = (0..5000).filter(|n| queue.push(&owner(1), &name(*n)).is_ok()).count();
        assert_eq!(taken, 512);
        let active = std::iter::from_fn(|| queue.next()).count();
        assert_eq!(active, 32);
        // Another one waits for none of them.
        queue.push(&owner(2), &name(0)).unwrap();
        assert_eq!(queue.next(), Some((owner(2), name(0))));
        assert_eq!(queue.next(), None);
        queue.done(&owner(1));
        assert_eq!(queue.next(), Some((owner(1), name(32))));
    }

    proptest! {
        #[test]
        fn whatever_others_do_a_newcomer_is_served_next_but_one_round(
            steps in prop::collection::vec((0_u8..6, 0_u8..4), 0..1500),
        ) {
            let mut queue = Queue::new(LookupLimits { active: 32, waiting: 64, ..LookupLimits::default() });
            let mut under_way = VecDeque::new();
            for (number, (who, kind)) in steps.into_iter().enumerate() {
                match kind {
                    0 | 1 => { queue.push(&owner(who), &name(number)).ok(); }
                    2 => under_way.extend(queue.next()),
                    _ => if let Some((who, _)) = under_way.pop_front() { queue.done(&who) },
                }
                let waiting: usize = queue.owners.values().map(|owner| owner.names.len()).sum();
                let active: usize = queue.owners.values().map(|owner| owner.active).sum();
                prop_assert_eq!((waiting, active), (queue.waiting, queue.active));
                prop_assert!(waiting < 64 && active < 32);
                prop_assert_eq!(active, under_way.len());
            }
            // It is let in, and after it at most one of each other is served before it.
            prop_assert_eq!(queue.push(&owner(9), &name(0)), Ok(()));
            let before = std::iter::from_fn(|| queue.next()).take_while(|(who, _)| *who != owner(9));
            prop_assert!(before.count() <= 6);
            let its = queue.owners.get(&owner(9)).map(|owner| (owner.names.len(), owner.active));
            prop_assert_eq!(its, Some((0, 1)));
        }
    }
}
