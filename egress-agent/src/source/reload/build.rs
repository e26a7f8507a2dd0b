//! Compiling on a thread of its own: whoever watches, serves and enforces goes on meanwhile.
//!
//! A configuration that comes while another one is compiled waits, in the place of the one that waited
//! before: the last one wins. The thread is never waited for, so that a process ends at once.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::SystemTime,
};

use tokio::sync::mpsc;

use super::digest::digest;
use crate::{policy::Snapshot, source::Files};

/// What became of a configuration that was compiled.
#[derive(Debug)]
pub(super) struct Compilation {
    /// What can be put in force; `None` where there are errors.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// Errors of one that can't, warnings of one that can.
    pub(super) problems: Vec<String>,
}

/// How configurations are compiled.
pub(super) type Compile = Box<dyn FnMut(&Files) -> Compilation + Send>;

/// A configuration to compile.
struct CompileJob {
    number: u64,
    files: Arc<Files>,
    read_at: SystemTime,
}

/// A configuration that was compiled.
pub(super) struct Built {
    number: u64,
    /// Which it is.
    pub(super) digest: [u8; 16],
    /// When it was read.
    pub(super) read_at: SystemTime,
    /// What became of it.
    pub(super) compilation: Compilation,
}

/// What the thread and its owner share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Option<CompileJob>,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one to compile; `None` at the end.
    fn next(&self) -> Option<CompileJob> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            match state.waiting.take() {
                Some(job) => return Some(job),
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// The thread's owner.
pub(super) struct Builder {
    shared: Arc<Shared>,
    built: mpsc::UnboundedReceiver<Built>,
    submitted: u64,
    finished: u64,
    /// The last result was dropped.
    dropped: bool,
}

impl Builder {
    /// Starts the thread.
    pub(super) fn start(mut compile: Compile) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (results, built) = mpsc::unbounded_channel();
        let its = Arc::clone(&shared);
        thread::Builder::new().name("compile".into()).spawn(move || {
            while let Some(CompileJob { number, files, read_at }) = its.next() {
                let compilation = contained(&mut compile, &files);
                let built = Built { number, digest: digest(&files), read_at, compilation };
                if results.send(built).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { shared, built, submitted: 0, finished: 0, dropped: false })
    }

    /// Compiles these files instead of those that wait.
    pub(super) fn submit(&mut self, files: Arc<Files>) {
        self.submitted += 1;
        let job = CompileJob { number: self.submitted, files, read_at: SystemTime::now() };
        let outdated = self.shared.lock().waiting.replace(job);
        self.shared.changed.notify_one();
        if outdated.is_some() {
            tracing::debug!("a configuration that waited to be compiled is outdated");
        }
    }

    /// Whether everything that was submitted is compiled, or outdated.
    pub(super) fn is_idle(&self) -> bool {
        self.finished == self.submitted
    }

    /// The next configuration that was compiled. Cancel safe.
    ///
    /// One that became outdated meanwhile is dropped, unless the one before it was: changes without end
    /// must not keep every configuration out of force.
    pub(super) async fn next(&mut self) -> Built {
        loop {
            let Some(built) = self.built.recv().await else {
                // The thread only ends with its owner.
                return std::future::pending().await;
            };
            self.finished = built.number;
            self.dropped = !self.is_idle() && !self.dropped;
            if !self.dropped {
                return built;
            }
            tracing::debug!("a configuration that was compiled is outdated; it is dropped");
        }
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_one();
    }
}

/// A panic is a refusal, of that configuration alone: the last good one stays in force.
fn contained(compile: &mut Compile, files: &Files) -> Compilation {
    let compiled = catch_unwind(AssertUnwindSafe(|| compile(files)));
    compiled.unwrap_or_else(|_| {
        let problem = "the compiler has a bug and panicked (see above); please report it";
        tracing::error!("{problem}");
        Compilation { snapshot: None, problems: vec![problem.into()] }
    })
}
