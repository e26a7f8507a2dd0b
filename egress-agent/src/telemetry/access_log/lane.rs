//! Lines that wait for the output, and how much of the room each owner uses.

use std::collections::HashMap;

use crate::types::{ShareOwner, within_share};

/// An owner may use as many bytes as are left free.
const DIVISOR: usize = 1;

/// Room for lines of one kind in a buffer that both kinds share, so that they stay in their order:
/// `capacity` bytes in all (and the line that reaches it), shared by owner as [`within_share`] says.
#[derive(Debug, Default)]
pub(super) struct Lane {
    used: Used,
    capacity: usize,
}

/// Lines on their way to the output.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) forwarded: Used,
    pub(super) refused: Used,
}

/// Who has how many lines of one kind.
#[derive(Debug, Default)]
pub(super) struct Used {
    bytes: usize,
    owners: HashMap<ShareOwner, LaneBytes>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct LaneBytes {
    bytes: usize,
    lines: u64,
}

impl Batch {
    /// How many lines of whom.
    pub(super) fn owners(&self) -> impl Iterator<Item = (&ShareOwner, u64)> {
        let all = self.forwarded.owners.iter().chain(&self.refused.owners);
        all.map(|(owner, held)| (owner, held.lines))
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        for used in [&mut self.forwarded, &mut self.refused] {
            used.bytes = 0;
            used.owners.clear();
        }
    }
}

impl Lane {
    pub(super) fn new(capacity: usize) -> Self {
        Self { used: Used::default(), capacity }
    }

    /// Whether the owner may begin something whose line comes later: it uses at most half of its
    /// share, so that what it has begun already finds room too.
    pub(super) fn has_room(&self, owner: &ShareOwner) -> bool {
        let total = self.used.bytes;
        // Then nobody can be beyond half a share.
        if total < self.capacity / 4 {
            return true;
        }
        within_share(self.bytes(owner).saturating_mul(2), total, self.capacity, DIVISOR)
    }

    /// Appends what `render` writes to `buffer`, if the owner's share has room for it.
    pub(super) fn append(
        &mut self,
        buffer: &mut Vec<u8>,
        owner: &ShareOwner,
        render: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        if !within_share(self.bytes(owner), self.used.bytes, self.capacity, DIVISOR) {
            return false;
        }
        let before = buffer.len();
        render(buffer);
        let bytes = buffer.len() - before;
        let held = match self.used.owners.get_mut(owner) {
            Some(held) => held,
            None => self.used.owners.entry(owner.clone()).or_default(),
        };
        held.bytes += bytes;
        held.lines += 1;
        self.used.bytes += bytes;
        true
    }

    /// All lines are taken out: exchanges what is used for nothing.
    pub(super) fn take(&mut self, empty: &mut Used) {
        std::mem::swap(&mut self.used, empty);
    }

    fn bytes(&self, owner: &ShareOwner) -> usize {
        self.used.owners.get(owner).map_or(0, |held| held.bytes)
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
            let (mut lane, mut buffer) = (Lane::new(16 << 10), Vec::new());
            let mut taken = 0;
            for (who, length) in lines {
                taken += u64::from(lane.append(&mut buffer, &owner(who), |line| {
                    line.extend(std::iter::repeat_n(b'x', length));
                }));
            }
            prop_assert!(lane.has_room(&owner(9)));
            prop_assert!(lane.append(&mut buffer, &owner(9), |line| line.push(b'y')));
            let mut batch = Batch { bytes: buffer, ..Batch::default() };
            lane.take(&mut batch.refused);
            prop_assert_eq!(batch.owners().map(|(_, lines)| lines).sum::<u64>(), taken + 1);
            prop_assert_eq!(batch.refused.bytes, batch.bytes.len());
            prop_assert_eq!(lane.used.bytes, 0);
        }
    }

    #[test]
    fn what_was_begun_while_there_was_room_finds_room() {
        let (mut lane, mut buffer) = (Lane::new(16 << 10), Vec::new());
        let line = |line: &mut Vec<u8>| line.extend([b'x'; 100]);
        while lane.has_room(&owner(1)) {
            assert!(lane.append(&mut buffer, &owner(1), line));
        }
        // As many again as would fit into a sixteenth of the room.
        for _ in 0..10 {
            assert!(lane.append(&mut buffer, &owner(1), line));
        }
        while lane.append(&mut buffer, &owner(1), line) {}
        assert!(!lane.has_room(&owner(1)) && lane.has_room(&owner(2)));
    }
}
