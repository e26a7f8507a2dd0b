//! Verdicts on destinations that were found before.
//!
//! Most of a verdict's time goes into look-ups in the policy maps, and most packets go where one went a
//! moment ago. So each CPU keeps verdicts in a table. A key has one place there (direct-mapped), and an entry
//! holds its whole key: of two keys with the same place one has to be found anew.
//!
//! **An entry never outlives the maps that it was found in.** The agent sets the epoch to zero before it
//! changes a map that a verdict depends on, and to a number that was never used before once it is done. A
//! program reads the epoch before the first look-up, and keeps the verdict under that number. With zero
//! nothing is looked up here, and nothing is kept. So whatever is found under the epoch of this moment was
//! looked up when the maps were as they are now, and while they change, every verdict comes from them.
//!
//! **Programs on one CPU interrupt each other**: those of sockets run with interrupts, and where the kernel
//! preempts, one is put off for another. An entry counts those who began to write it and those who are done.
//! Who finds another one at work writes nothing. Who reads an entry takes it only if nobody began that
//! wasn't done before the reading.

use crate::{
    abi::{TableId, capacity::VERDICTS},
    decide::Place,
    packet::Flow,
    verdict::Number,
};

/// What a verdict is kept under: all that it depends on, beside the maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// The destination's address.
    pub addr: [u64; 2],
    /// Its port, the protocol, the kind of hook and of packet, and the table of routes.
    pub what: u64,
}

impl Key {
    /// Of a verdict [by a table](crate::decide::by_table).
    #[inline(always)]
    #[must_use]
    pub fn new(place: Place, flow: &Flow, table: TableId) -> Self {
        let [a, b, c, d] = flow.destination.words().map(u64::from);
        let place = match place {
            Place::Socket => 1,
            Place::Skb => 2,
            Place::Wire => 3,
        };
        let port = u64::from(u16::from_ne_bytes(flow.destination_port.0));
        let kind = u64::from(flow.protocol) << 16 | place << 24 | u64::from(flow.fragment) << 28;
        Self { addr: [a | b << 32, c | d << 32], what: port | kind | u64::from(table) << 32 }
    }

    /// Of whose a cgroup is, which is kept like a verdict: it depends on the maps as those do.
    #[inline(always)]
    #[must_use]
    pub const fn owner(cgroup: u64) -> Self {
        Self { addr: [cgroup, 0], what: 4 << 24 }
    }

    /// The place of its entry, of [`VERDICTS`].
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the upper bits, of which there are fewer")]
    pub const fn place(self) -> u32 {
        // Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4). It only has to spread.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let Self { addr: [first, last], what } = self;
        let hash = (first ^ last).wrapping_mul(GOLDEN) ^ what;
        (hash.wrapping_mul(GOLDEN) >> (u64::BITS - VERDICTS.ilog2())) as u32
    }
}

/// A word of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// How many began to write the entry.
    Begun,
    /// How many of them are done.
    Done,
    /// The epoch.
    Epoch,
    /// The first half of the destination's address.
    First,
    /// The second half.
    Last,
    /// [`Key::what`].
    What,
    /// The verdict's [`Number`].
    Verdict,
}

/// An entry, which other programs of the same CPU may write between any two calls.
pub trait Entry {
    /// Reads a word.
    fn load(&self, word: Word) -> u64;
    /// Writes a word.
    fn store(&self, word: Word, value: u64);
    /// Adds one to a word, atomically on this CPU. No CPU makes what follows before what came first.
    fn add_one(&self, word: Word);
}

/// The table of this CPU.
pub trait Cache {
    /// An entry.
    type Entry: Entry;
    /// The epoch: see the [module](self).
    fn epoch(&self) -> u64;
    /// The entry at a place.
    fn entry(&self, place: u32) -> Option<Self::Entry>;
}

/// The verdict that is kept under a key, if one is and the maps have not changed since.
///
/// # Errors
/// None is. The verdict has to be found in the maps, from now on, and is [kept](Missing::keep).
#[inline(always)]
pub fn look_up<C: Cache>(key: Key, cache: &C) -> Result<Number, Missing<C::Entry>> {
    let epoch = cache.epoch();
    let entry = if epoch == 0 { None } else { cache.entry(key.place()) };
    if let Some(entry) = &entry
        && let Some(number) = read(entry, epoch, key)
    {
        return Ok(number);
    }
    // Before the look-ups: what comes between is a barrier, so that they are made after the epoch was read.
    let is_alone = entry.as_ref().is_some_and(begin);
    Err(Missing { key, epoch, entry, is_alone })
}

/// A key under which no verdict is kept.
#[must_use = "an entry that nobody is done with is never used again"]
pub struct Missing<E> {
    key: Key,
    epoch: u64,
    entry: Option<E>,
    is_alone: bool,
}

impl<E: Entry> Missing<E> {
    /// Keeps the verdict, which is given back.
    #[inline(always)]
    pub fn keep(self, number: Number) -> Number {
        let Self { key, epoch, entry, is_alone } = self;
        if let Some(entry) = entry {
            if is_alone {
                entry.store(Word::Epoch, epoch);
                entry.store(Word::First, key.addr[0]);
                entry.store(Word::Last, key.addr[1]);
                entry.store(Word::What, key.what);
                entry.store(Word::Verdict, number.0);
            }
            entry.add_one(Word::Done);
        }
        number
    }
}

/// The verdict that an entry has for the key.
#[inline(always)]
fn read(entry: &impl Entry, epoch: u64, key: Key) -> Option<Number> {
    let done = entry.load(Word::Done);
    let [first, last] = key.addr;
    let differs = (entry.load(Word::Epoch) ^ epoch)
        | (entry.load(Word::First) ^ first)
        | (entry.load(Word::Last) ^ last)
        | (entry.load(Word::What) ^ key.what);
    let verdict = entry.load(Word::Verdict);
    // After all of it: who began meanwhile may have changed some of it.
    let is_whole = entry.load(Word::Begun) == done;
    (is_whole && differs == 0).then_some(Number(verdict))
}

/// Begins to write an entry; whether nobody else is about to. Of two, who comes second sees that the first
/// began and is not done.
#[inline(always)]
fn begin(entry: &impl Entry) -> bool {
    entry.add_one(Word::Begun);
    let done = entry.load(Word::Done);
    entry.load(Word::Begun) == done.wrapping_add(1)
}

#[cfg(test)]
mod tests;
