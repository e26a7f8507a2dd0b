//! From memory to the file: one thread, woken when there is something to write.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};

use super::{
    counts::AccessLogCounts,
    lane::{Batch, Lane},
    losses::Losses,
    refusals::{Aggregate, Refusal, Refusals},
    target::Target,
};
use crate::{
    telemetry::shard::{shard_count, thread_number},
    types::ShareOwner,
};

/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(50);
/// A buffer of this size is written without further delay.
const URGENT: usize = 64 << 10;
/// Bytes in memory, of lines about what was forwarded: of all shards together, and of one at least.
const FORWARDED: (usize, usize) = (16 << 20, 1 << 20);
/// The same, of lines about what was refused.
const REFUSED: (usize, usize) = (4 << 20, 256 << 10);
/// How long a request or connection waits for room before it is forwarded.
const ROOM: Duration = Duration::from_secs(1);
/// A write that lasts this long says that nobody reads: waiting for it would only delay.
const STUCK: Duration = Duration::from_secs(1);
/// How long a shutdown waits for the output.
const STOP: Duration = Duration::from_secs(2);

/// The writing thread and what it shares with those who log.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Thread,
}

/// Makes the line of gathered refusals, in the format that is in force.
pub(super) type Summarize = Box<dyn Fn(&Aggregate, &mut Vec<u8>) + Send>;

#[derive(Debug, Default)]
struct Shared {
    /// One a shard, so that workers don't wait for each other.
    buffers: Box<[Mutex<Buffer>]>,
    /// Of all shards: a rate is a rate, however many workers serve who is refused.
    refusals: Mutex<Refusals>,
    losses: Losses,
    /// Notified after each write.
    written: Notify,
    /// When the write that is under way began.
    writing: Mutex<Option<Instant>>,
    pending: AtomicBool,
    urgent: AtomicBool,
    stop: AtomicBool,
    next: Mutex<Option<Target>>,
    ended: Mutex<bool>,
    ending: Condvar,
    lines: AtomicU64,
    dropped: AtomicU64,
    write_failed: AtomicU64,
    reopened: AtomicU64,
}

/// Lines of a shard, in their order. What was refused never takes room from what was forwarded.
#[derive(Debug)]
#[repr(align(128))]
struct Buffer {
    bytes: Vec<u8>,
    forwarded: Lane,
    refused: Lane,
    /// The last look has been taken: nobody would write another line.
    closed: bool,
}

impl Buffer {
    fn new(shards: usize) -> Self {
        let lane = |(all, least): (usize, usize)| Lane::new((all / shards.max(1)).max(least));
        let (forwarded, refused) = (lane(FORWARDED), lane(REFUSED));
        Self { bytes: Vec::new(), forwarded, refused, closed: false }
    }
}

impl Writer {
    pub(super) fn start(target: Target, summarize: Summarize) -> io::Result<Self> {
        let shards = shard_count();
        let buffers = (0..shards).map(|_| Mutex::new(Buffer::new(shards))).collect();
        let shared = Arc::new(Shared { buffers, ..Shared::default() });
        let thread = thread::Builder::new().name("access-log".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(target, &summarize)
        })?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    /// Waits until the owner's share has room for the line of what it is about to begin: not longer
    /// than [`ROOM`], and not at all for an output that nobody reads.
    pub(super) async fn wait_for_room(&self, owner: &ShareOwner) {
        let shared = &*self.shared;
        let has_room = || lock(shared.buffer()).forwarded.has_room(owner);
        // Nearly always: no timer is needed.
        if has_room() {
            return;
        }
        let waiting = async {
            loop {
                let written = shared.written.notified();
                // From here on a write is not missed.
                tokio::pin!(written);
                written.as_mut().enable();
                if has_room() || shared.is_stuck() {
                    return;
                }
                self.wake();
                written.await;
            }
        };
        timeout(ROOM, waiting).await.ok();
    }

    /// Appends the line that `render` writes about something that was forwarded, unless the output
    /// is too far behind.
    pub(super) fn forwarded(&self, owner: &ShareOwner, render: impl FnOnce(&mut Vec<u8>)) {
        let shared = &*self.shared;
        let mut guard = lock(shared.buffer());
        let Buffer { bytes, forwarded, closed, .. } = &mut *guard;
        let before = bytes.len();
        if *closed || !forwarded.append(bytes, owner, render) {
            drop(guard);
            shared.lost(owner, 1);
            return;
        }
        let urgent = before < URGENT && bytes.len() >= URGENT;
        drop(guard);
        self.announce(urgent);
    }

    /// Appends the line that `render` writes about something that was refused, or counts it for the
    /// line that tells of many.
    pub(super) fn refused(&self, refusal: &Refusal, render: impl FnOnce(&mut Vec<u8>)) {
        let shared = &*self.shared;
        let now = Instant::now();
        if lock(&shared.refusals).admit(now, refusal) {
            let mut guard = lock(shared.buffer());
            let Buffer { bytes, refused, closed, .. } = &mut *guard;
            if *closed {
                drop(guard);
                shared.lost(&refusal.owner, 1);
                return;
            }
            if refused.append(bytes, &refusal.owner, render) {
                drop(guard);
                self.announce(false);
                return;
            }
        }
        shared.losses.aggregated(&refusal.owner, refusal.reason);
        if lock(&shared.refusals).add(now, refusal) {
            self.announce(false);
        }
    }

    /// There is something to write.
    fn announce(&self, urgent: bool) {
        if urgent {
            self.shared.urgent.store(true, Ordering::Release);
        }
        if !self.shared.pending.swap(true, Ordering::AcqRel) || urgent {
            self.thread.unpark();
        }
    }

    /// Lines are waited for: they are written without further delay.
    fn wake(&self) {
        self.announce(true);
    }

    /// Lines go there from the next write on.
    pub(super) fn redirect(&self, target: Target) {
        *lock(&self.shared.next) = Some(target);
    }

    pub(super) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.unpark();
        let ended = lock(&self.shared.ended);
        let waited = self.shared.ending.wait_timeout_while(ended, STOP, |ended| !*ended);
        if waited.is_ok_and(|(_, timeout)| timeout.timed_out()) {
            tracing::warn!("the access log's output takes no more; its last lines are lost");
        }
    }

    pub(super) fn counts(&self) -> AccessLogCounts {
        let shared = &self.shared;
        AccessLogCounts {
            lines: shared.lines.load(Ordering::Relaxed),
            dropped: shared.dropped.load(Ordering::Relaxed),
            write_failed: shared.write_failed.load(Ordering::Relaxed),
            reopened: shared.reopened.load(Ordering::Relaxed),
        }
    }

    pub(super) fn losses(&self) -> &Losses {
        &self.shared.losses
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The calling thread's buffer.
    fn buffer(&self) -> &Mutex<Buffer> {
        &self.buffers[thread_number() & (self.buffers.len() - 1)]
    }

    fn lost(&self, owner: &ShareOwner, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        self.losses.lost(owner, lines);
    }

    fn is_stuck(&self) -> bool {
        lock(&self.writing).is_some_and(|since| since.elapsed() >= STUCK)
    }

    fn run(&self, mut target: Target, summarize: &Summarize) {
        let mut spare = Batch::default();
        let mut failing = false;
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            // Cleared before the buffers are read: what comes after that sets it again.
            let pending = self.pending.swap(false, Ordering::AcqRel);
            let summaries = lock(&self.refusals).due(Instant::now(), stopping);
            if !pending && !stopping && summaries.is_empty() {
                let wait = lock(&self.refusals).wait();
                match wait {
                    Some(wait) => thread::park_timeout(wait),
                    None => thread::park(),
                }
                continue;
            }
            if !stopping {
                self.gather();
            }
            if let Some(next) = lock(&self.next).take() {
                target = next;
            }
            let written = self
                .write_out(&mut target, &mut spare, stopping)
                .and(self.write_summaries(&mut target, &summaries, summarize));
            // Said once, not twenty times a second.
            match written {
                Ok(()) => failing = false,
                Err(error) => {
                    self.write_failed.fetch_add(1, Ordering::Relaxed);
                    if !failing {
                        tracing::warn!(%error, "lines of the access log are lost");
                    }
                    failing = true;
                }
            }
            if stopping {
                break;
            }
        }
        *lock(&self.ended) = true;
        self.ending.notify_all();
        self.written.notify_waiters();
    }

    /// Lets a few more lines come, unless there are many already.
    fn gather(&self) {
        let deadline = Instant::now() + GATHER;
        while !self.urgent.swap(false, Ordering::AcqRel) && !self.stop.load(Ordering::Acquire) {
            match deadline.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => thread::park_timeout(left),
                _ => break,
            }
        }
    }

    /// Writes every buffer; each is exchanged for an empty one first, so that nobody waits for the
    /// output while holding a lock.
    fn write_out(&self, target: &mut Target, spare: &mut Batch, last: bool) -> io::Result<()> {
        let mut result = target.follow().map(|reopened| {
            self.reopened.fetch_add(u64::from(reopened), Ordering::Relaxed);
        });
        for buffer in &self.buffers {
            spare.clear();
            {
                let mut buffer = lock(buffer);
                buffer.closed = last;
                std::mem::swap(&mut buffer.bytes, &mut spare.bytes);
                buffer.forwarded.take(&mut spare.forwarded);
                buffer.refused.take(&mut spare.refused);
            }
            if spare.bytes.is_empty() {
                continue;
            }
            match self.write(target, &spare.bytes) {
                Ok(()) => {
                    let lines = spare.owners().map(|(_, lines)| lines).sum();
                    self.lines.fetch_add(lines, Ordering::Relaxed);
                }
                Err(error) => {
                    for (owner, lines) in spare.owners() {
                        self.lost(owner, lines);
                    }
                    result = Err(error);
                }
            }
        }
        result
    }

    fn write_summaries(
        &self,
        target: &mut Target,
        summaries: &[Aggregate],
        summarize: &Summarize,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for summary in summaries {
            summarize(summary, &mut bytes);
        }
        // Without a format the log is off.
        if bytes.is_empty() {
            return Ok(());
        }
        self.write(target, &bytes).inspect_err(|_| {
            for Aggregate { owner, count, .. } in summaries {
                self.lost(owner.as_ref().unwrap_or(&ShareOwner::Own), *count);
            }
        })?;
        let lines = u64::try_from(summaries.len()).unwrap_or(u64::MAX);
        self.lines.fetch_add(lines, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, target: &mut Target, bytes: &[u8]) -> io::Result<()> {
        *lock(&self.writing) = Some(Instant::now());
        let result = target.write(bytes);
        *lock(&self.writing) = None;
        self.written.notify_waiters();
        result
    }
}
