//! Lines that wait for the output, and how much of the room each owner uses.

use std::collections::HashMap;

use crate::types::{ShareOwner, within_share};

/// An owner may use as many bytes as are left free.
const DIVISOR: usize = 1;

/// Lines in memory: `capacity` bytes in all (and the line that reaches it), shared by owner as
/// [`within_share`] says.
#[derive(Debug, Default)]
pub(super) struct Lane {
    batch: Batch,
    capacity: usize,
}

/// Lines on their way to the output.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Who has how many of them.
    pub(super) owners: HashMap<ShareOwner, Held>,
}

/// What an owner has in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    pub(super) bytes: usize,
    pub(super) lines: u64,
}

impl Batch {
    pub(super) fn lines(&self) -> u64 {
        self.owners.values().map(|held| held.lines).sum()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.owners.clear();
    }
}

impl Lane {
    pub(super) fn new(capacity: usize) -> Self {
        Self { batch: Batch::default(), capacity }
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.batch.bytes.len()
    }

    /// Whether the owner may begin something whose line comes later: it uses at most half of its
    /// share, so that what it has begun already finds room too.
    pub(super) fn has_room(&self, owner: &ShareOwner) -> bool {
        let total = self.len();
        // Then nobody can be beyond half a share.
        if total < self.capacity / 4 {
            return true;
        }
        let used = self.used(owner).saturating_mul(2);
        within_share(used, total, self.capacity, DIVISOR)
    }

    /// Appends what `render` writes, if the owner's share has room for it.
    pub(super) fn append(&mut self, owner: &ShareOwner, render: impl FnOnce(&mut Vec<u8>)) -> bool {
        let before = self.len();
        if !within_share(self.used(owner), before, self.capacity, DIVISOR) {
            return false;
        }
        render(&mut self.batch.bytes);
        let bytes = self.batch.bytes.len() - before;
        let held = match self.batch.owners.get_mut(owner) {
            Some(held) => held,
            None => self.batch.owners.entry(owner.clone()).or_default(),
        };
        held.bytes += bytes;
        held.lines += 1;
        true
    }

    /// Exchanges what waits for an empty batch.
    pub(super) fn take(&mut self, empty: &mut Batch) {
        std::mem::swap(&mut self.batch, empty);
    }

    fn used(&self, owner: &ShareOwner) -> usize {
        self.batch.owners.get(owner).map_or(0, |held| held.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(number: u8) -> ShareOwner {
        ShareOwner::Address([10, 0, 0, number].into())
    }

    proptest! {
        #[test]
        fn no_flood_of_some_takes_anothers_place(
            lines in prop::collection::vec((0_u8..5, 1_usize..200), 0..2000),
        ) {
            let mut lane = Lane::new(16 << 10);
            let mut taken = 0;
            for (who, length) in lines {
                taken += u64::from(lane.append(&owner(who), |line| {
                    line.extend(std::iter::repeat_n(b'x', length));
                }));
            }
            prop_assert!(lane.has_room(&owner(9)));
            prop_assert!(lane.append(&owner(9), |line| line.push(b'y')));
            let mut batch = Batch::default();
            lane.take(&mut batch);
            prop_assert_eq!(batch.lines(), taken + 1);
            let bytes: usize = batch.owners.values().map(|held| held.bytes).sum();
            prop_assert_eq!(bytes, batch.bytes.len());
            prop_assert_eq!(lane.len(), 0);
        }
    }

    #[test]
    fn what_was_begun_while_there_was_room_finds_room() {
        let mut lane = Lane::new(16 << 10);
        let line = |line: &mut Vec<u8>| line.extend([b'x'; 100]);
        while lane.has_room(&owner(1)) {
            assert!(lane.append(&owner(1), line));
        }
        // As many again as would fit into a sixteenth of the room.
        for _ in 0..10 {
            assert!(lane.append(&owner(1), line));
        }
        while lane.append(&owner(1), line) {}
        assert!(!lane.has_room(&owner(1)) && lane.has_room(&owner(2)));
    }
}
