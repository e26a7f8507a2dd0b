//! Records that wait for the collector.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;

use crate::{
    telemetry::flow::FlowOrigin,
    types::{ShareOwner, within_share},
};

/// Bytes of one kind that may wait.
const CAPACITY: usize = 8 << 20;
/// What a record takes besides its own bytes.
const OVERHEAD: usize = 128;
/// From here on a batch is sent without further delay.
const URGENT: usize = 256 << 10;
/// An owner may use as many bytes as are left free.
const DIVISOR: usize = 1;

/// A kind of record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Of the access log and of flows.
    Logs,
    /// Spans.
    Traces,
}

impl Signal {
    /// As OTLP's paths, the environment variables and metrics name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Traces => "traces",
        }
    }
}

/// Why a record did not reach the collector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Its workload had its share of the queue.
    Full,
    /// The collector could not be reached in time.
    Undelivered,
    /// The collector did not want it.
    Rejected,
}

impl Loss {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Full, Self::Undelivered, Self::Rejected];

    /// As metrics name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Undelivered => "undelivered",
            Self::Rejected => "rejected",
        }
    }
}

/// Whose share a record takes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::telemetry) enum Owner {
    /// Of a gateway's record.
    Share(ShareOwner),
    /// Of a node's flow.
    Flow(FlowOrigin),
}

/// Encoded records of one kind: at most 8 MiB, shared by workload as [`within_share`] says. Who hands one in
/// never waits; what finds no room is lost and counted. A batch that is being sent is held besides, one at a
/// time.
#[derive(Debug)]
pub struct Queue {
    signal: Signal,
    waiting: Mutex<QueuedRecords>,
    filled: Notify,
    urgent: Notify,
    exported: AtomicU64,
    failures: AtomicU64,
    lost: [AtomicU64; Loss::ALL.len()],
    /// Why the last attempt failed, if it did.
    trouble: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct QueuedRecords {
    records: VecDeque<(Owner, Vec<u8>)>,
    used: HashMap<Owner, usize>,
    bytes: usize,
}

/// Records that are sent together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    /// Each an encoded message.
    pub records: Vec<Vec<u8>>,
}

impl Batch {
    /// How many records.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::try_from(self.records.len()).unwrap_or(u64::MAX)
    }
}

impl Queue {
    /// An empty one.
    #[must_use]
    pub fn new(signal: Signal) -> Self {
        Self {
            signal,
            waiting: Mutex::default(),
            filled: Notify::new(),
            urgent: Notify::new(),
            exported: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            lost: Default::default(),
            trouble: Mutex::default(),
        }
    }

    /// Which kind it holds.
    #[must_use]
    pub const fn signal(&self) -> Signal {
        self.signal
    }

    /// Takes what `encode` makes, if the owner's share has room for it.
    pub(super) fn offer(&self, owner: Owner, encode: impl FnOnce() -> Vec<u8>) {
        // Without room the work of encoding is saved.
        if !self.lock().has_room(&owner) {
            self.lost(Loss::Full, 1);
            return;
        }
        let record = encode();
        let mut waiting = self.lock();
        if !waiting.has_room(&owner) {
            drop(waiting);
            self.lost(Loss::Full, 1);
            return;
        }
        let before = waiting.bytes;
        waiting.push(owner, record);
        let after = waiting.bytes;
        drop(waiting);
        if before == 0 {
            self.filled.notify_one();
        }
        if before < URGENT && after >= URGENT {
            self.urgent.notify_one();
        }
    }

    /// The oldest records, at most so many bytes (and the record that reaches it); `None` if there are none.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Option<Batch> {
        let mut waiting = self.lock();
        let (mut batch, mut size) = (Batch::default(), 0);
        while size < bytes
            && let Some(record) = waiting.pop()
        {
            size += record.len();
            batch.records.push(record);
        }
        (!batch.records.is_empty()).then_some(batch)
    }

    /// Completes when something has come into an empty queue.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Completes when there is enough for a batch.
    pub async fn urgent(&self) {
        self.urgent.notified().await;
    }

    /// The collector has so many.
    pub fn exported(&self, records: u64) {
        self.exported.fetch_add(records, Relaxed);
        *self.trouble() = None;
    }

    /// An attempt failed. Whether it is the first one after others that didn't.
    pub fn failed(&self, why: String) -> bool {
        self.failures.fetch_add(1, Relaxed);
        self.trouble().replace(why).is_none()
    }

    /// So many are lost.
    pub fn lost(&self, why: Loss, records: u64) {
        self.lost[why as usize].fetch_add(records, Relaxed);
    }

    /// Records that the collector has.
    #[must_use]
    pub fn exported_total(&self) -> u64 {
        self.exported.load(Relaxed)
    }

    /// Attempts that failed.
    #[must_use]
    pub fn failures_total(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Records that are lost.
    #[must_use]
    pub fn lost_total(&self, why: Loss) -> u64 {
        self.lost[why as usize].load(Relaxed)
    }

    /// Bytes that wait, and how many may.
    #[must_use]
    pub fn fill(&self) -> (usize, usize) {
        (self.lock().bytes, CAPACITY)
    }

    /// Why the last attempt failed; `None` if it didn't.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.trouble().clone()
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, QueuedRecords> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuedRecords {
    fn has_room(&self, owner: &Owner) -> bool {
        let used = self.used.get(owner).copied().unwrap_or_default();
        within_share(used, self.bytes, CAPACITY, DIVISOR)
    }

    fn push(&mut self, owner: Owner, record: Vec<u8>) {
        let cost = record.len() + OVERHEAD;
        match self.used.get_mut(&owner) {
            Some(used) => *used += cost,
            None => drop(self.used.insert(owner.clone(), cost)),
        }
        self.bytes += cost;
        self.records.push_back((owner, record));
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let (owner, record) = self.records.pop_front()?;
        let cost = record.len() + OVERHEAD;
        self.bytes -= cost;
        if let Some(used) = self.used.get_mut(&owner) {
            *used -= cost;
            if *used == 0 {
                self.used.remove(&owner);
            }
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(number: u8) -> Owner {
        Owner::Share(ShareOwner::Address([10, 0, 0, number].into()))
    }

    fn offer(queue: &Queue, number: u8, size: usize) {
        queue.offer(owner(number), || vec![number; size]);
    }

    #[test]
    fn one_workloads_flood_leaves_room_for_the_others() {
        let queue = Queue::new(Signal::Logs);
        for _ in 0..20_000 {
            offer(&queue, 1, 1000);
        }
        let lost = queue.lost_total(Loss::Full);
        assert!(lost > 10_000, "a dead collector costs no more than the bound: {lost}");
        let (bytes, capacity) = queue.fill();
        assert!(bytes <= capacity / 2 + 2000, "{bytes}");
        for number in 2..200 {
            offer(&queue, number, 1000);
        }
        assert_eq!(queue.lost_total(Loss::Full), lost, "the others lose nothing");
    }

    #[test]
    fn what_finds_no_room_is_not_even_encoded() {
        let queue = Queue::new(Signal::Traces);
        while queue.lost_total(Loss::Full) == 0 {
            offer(&queue, 1, 64 << 10);
        }
        queue.offer(owner(1), || panic!("it has no room"));
        assert_eq!(queue.lost_total(Loss::Full), 2);
    }

    #[test]
    fn records_come_out_in_their_order_and_free_their_room() {
        let queue = Queue::new(Signal::Logs);
        for number in 1..=5 {
            offer(&queue, number, 10);
        }
        assert_eq!(queue.take(15).unwrap().records, [vec![1; 10], vec![2; 10]]);
        assert_eq!(queue.take(usize::MAX).unwrap().count(), 3);
        assert_eq!(queue.take(usize::MAX), None);
        assert_eq!(queue.fill().0, 0);
        assert!(queue.lock().used.is_empty());
    }

    #[test]
    fn a_failure_is_shown_until_something_arrives() {
        let queue = Queue::new(Signal::Logs);
        assert!(queue.failed("refused".into()) && !queue.failed("refused again".into()));
        assert_eq!(queue.last_failure().as_deref(), Some("refused again"));
        queue.exported(3);
        assert_eq!((queue.last_failure(), queue.exported_total()), (None, 3));
        assert_eq!(queue.failures_total(), 2);
    }

    proptest! {
        #[test]
        fn a_late_owner_always_finds_room(
            offers in prop::collection::vec((0_u8..5, 1_usize..200_000), 0..400),
        ) {
            let queue = Queue::new(Signal::Logs);
            for (who, size) in offers {
                offer(&queue, who, size);
            }
            let lost = queue.lost_total(Loss::Full);
            offer(&queue, 9, 1);
            prop_assert_eq!(queue.lost_total(Loss::Full), lost);
        }
    }
}
