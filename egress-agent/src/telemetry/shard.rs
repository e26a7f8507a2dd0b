//! Counters that several workers write without sharing a cache line.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

/// More shards than this cost memory and bring nothing.
const MAX_SHARDS: usize = 16;

/// `N` counters (or gauges), each the sum of one cell a shard. A thread always writes the same
/// shard; with no more busy threads than shards none waits for another's cache line.
///
/// A gauge may be raised in one shard and lowered in another: cells wrap, the sum is right.
#[derive(Debug)]
pub(super) struct Counters<const N: usize> {
    shards: Box<[Shard<N>]>,
}

// 128 bytes: x86's spatial prefetcher pulls cache lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<const N: usize>([AtomicU64; N]);

impl<const N: usize> Counters<N> {
    pub(super) fn new() -> Self {
        let shard = |_| Shard([const { AtomicU64::new(0) }; N]);
        Self { shards: (0..shard_count()).map(shard).collect() }
    }

    pub(super) fn add(&self, index: usize, amount: u64) {
        self.cell(index).fetch_add(amount, Relaxed);
    }

    pub(super) fn sub(&self, index: usize, amount: u64) {
        self.cell(index).fetch_sub(amount, Relaxed);
    }

    /// The sum over all shards; other threads may be counting meanwhile.
    pub(super) fn get(&self, index: usize) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.wrapping_add(shard.0[index].load(Relaxed)))
    }

    fn cell(&self, index: usize) -> &AtomicU64 {
        // The count is a power of two.
        &self.shards[thread_number() & (self.shards.len() - 1)].0[index]
    }
}

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// How many shards there are: a power of two, about one a core.
pub(super) fn shard_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        cores.next_power_of_two().min(MAX_SHARDS)
    })
}

/// A small number that is this thread's for as long as it lives.
pub(super) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Relaxed));
    // A guard may be dropped while its thread is being torn down; any shard will do then.
    NUMBER.try_with(|number| *number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn threads_add_up_and_gauges_may_move_between_threads() {
        let counters = Arc::new(Counters::<2>::new());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let counters = Arc::clone(&counters);
                thread::spawn(move || {
                    for _ in 0..1000 {
                        counters.add(0, 1);
                        counters.add(1, 1);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!((counters.get(0), counters.get(1)), (4000, 4000));
        counters.sub(1, 4000);
        assert_eq!(counters.get(1), 0);
    }
}
