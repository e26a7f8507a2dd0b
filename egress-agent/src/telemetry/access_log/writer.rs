//! From memory to the file: one thread, woken when there is something to write.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use rustix::fs::OFlags;

use super::AccessLogCounts;
use crate::telemetry::shard::{shard_count, thread_number};

/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(50);
/// A buffer of this size is written without further delay.
const URGENT: usize = 64 << 10;
/// A buffer that has reached this size takes no more lines.
const FULL: usize = 1 << 20;
/// How long a shutdown waits for the output.
const STOP: Duration = Duration::from_secs(2);

/// Where lines go.
#[derive(Debug)]
pub(super) enum Target {
    /// The process's own output, also where it is a socket and so can't be opened by name.
    Stdout,
    /// The same, the error output.
    Stderr,
    /// A file, appended to.
    File { path: PathBuf, file: File },
}

impl Target {
    pub(super) fn open(path: &str) -> io::Result<Self> {
        match path {
            "/dev/stdout" => Ok(Self::Stdout),
            "/dev/stderr" => Ok(Self::Stderr),
            path => Ok(Self::File { path: path.into(), file: append(path.as_ref())? }),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::File { file, .. } => file.write_all(bytes),
        }
    }

    /// Opens the file anew if another one, or none, is at its path: it was rotated.
    fn follow(&mut self) -> io::Result<bool> {
        let Self::File { path, file } = self else { return Ok(false) };
        let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        match (file.metadata(), path.metadata()) {
            (Ok(ours), Ok(there)) if same(&ours, &there) => Ok(false),
            _ => {
                *file = append(path)?;
                Ok(true)
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    // A pipe without a reader is an error, not something to wait for; writes may wait again.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(nonblocking)
        .open(path)?;
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

/// The writing thread and what it shares with those who log.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Shared {
    /// One a shard, so that workers don't wait for each other.
    buffers: Box<[Mutex<Buffer>]>,
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

#[derive(Debug, Default)]
#[repr(align(128))]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
    /// The last look has been taken: nobody would write another line.
    closed: bool,
}

impl Writer {
    pub(super) fn start(target: Target) -> io::Result<Self> {
        let buffers = (0..shard_count()).map(|_| Mutex::default()).collect();
        let shared = Arc::new(Shared { buffers, ..Shared::default() });
        let thread = thread::Builder::new().name("access-log".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(target)
        })?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    /// Appends the line that `render` writes, unless the output is too far behind.
    pub(super) fn push(&self, render: impl FnOnce(&mut Vec<u8>)) {
        let shared = &*self.shared;
        let buffer = &shared.buffers[thread_number() & (shared.buffers.len() - 1)];
        let mut buffer = lock(buffer);
        if buffer.bytes.len() >= FULL || buffer.closed {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = buffer.bytes.len();
        render(&mut buffer.bytes);
        buffer.lines += 1;
        let urgent = before < URGENT && buffer.bytes.len() >= URGENT;
        drop(buffer);
        if urgent {
            shared.urgent.store(true, Ordering::Release);
        }
        if !shared.pending.swap(true, Ordering::AcqRel) || urgent {
            self.thread.unpark();
        }
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
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn run(&self, mut target: Target) {
        let mut spare = Vec::new();
        let mut failing = false;
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            // Cleared before the buffers are read: what comes after that sets it again.
            if !self.pending.swap(false, Ordering::AcqRel) && !stopping {
                thread::park();
                continue;
            }
            if !stopping {
                self.gather();
            }
            if let Some(next) = lock(&self.next).take() {
                target = next;
            }
            // Said once, not twenty times a second.
            match self.write_out(&mut target, &mut spare, stopping) {
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
    fn write_out(&self, target: &mut Target, spare: &mut Vec<u8>, last: bool) -> io::Result<()> {
        let mut result = target.follow().map(|reopened| {
            self.reopened.fetch_add(u64::from(reopened), Ordering::Relaxed);
        });
        for buffer in &self.buffers {
            spare.clear();
            let lines = {
                let mut buffer = lock(buffer);
                buffer.closed = last;
                std::mem::swap(&mut buffer.bytes, spare);
                std::mem::take(&mut buffer.lines)
            };
            if spare.is_empty() {
                continue;
            }
            match target.write(spare) {
                Ok(()) => {
                    self.lines.fetch_add(lines, Ordering::Relaxed);
                }
                Err(error) => {
                    self.dropped.fetch_add(lines, Ordering::Relaxed);
                    result = Err(error);
                }
            }
        }
        result
    }
}
