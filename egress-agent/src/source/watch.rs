//! Noticing changes of files.
//!
//! The truth is a fingerprint (names, inodes, sizes, times), compared every few seconds; inotify
//! only makes it quick. So what inotify can't see (a link's target elsewhere, a network file
//! system, an instance limit that is used up) is late, never lost.

use std::{path::PathBuf, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::stamp::Fingerprint;

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// No event for so long means that the writer is done.
    pub quiet: Duration,
    /// But wait no longer than this.
    pub at_most: Duration,
    /// Between two looks where no event told of a change.
    pub poll: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(100),
            at_most: Duration::from_secs(1),
            poll: Duration::from_secs(2),
        }
    }
}

/// What can be watched: files that are read together.
pub trait Watched: Clone + Send + 'static {
    /// What was read, or why it couldn't be. Cheap to clone.
    type Content: Clone + PartialEq + Send + 'static;

    /// What they are for, in messages.
    const WHAT: &'static str;

    /// Reads everything.
    fn read(&self) -> Self::Content;

    /// What is there now, without reading it.
    fn fingerprint(&self) -> Fingerprint;

    /// The directories in which a change shows.
    fn places(&self) -> Vec<PathBuf>;
}

/// Yields the content of files whenever it changes.
pub struct Watcher<W: Watched> {
    files: W,
    timing: Timing,
    /// Absent where inotify doesn't work: then polling does it alone.
    inotify: Option<RecommendedWatcher>,
    touched: Arc<Notify>,
    seen: Option<Fingerprint>,
    last: Option<W::Content>,
}

impl<W: Watched> Watcher<W> {
    /// Watches these files. Nothing is read yet.
    #[must_use]
    pub fn new(files: W, timing: Timing) -> Self {
        let touched = Arc::new(Notify::new());
        let inotify = inotify(&touched)
            .inspect_err(|error| {
                tracing::warn!(
                    "can't use inotify ({error}); the {} looked at every {} s",
                    W::WHAT,
                    timing.poll.as_secs_f32()
                );
            })
            .ok();
        Self { files, timing, inotify, touched, seen: None, last: None }
    }

    /// The next content: at once when first called, later when it differs from what was yielded
    /// last. What can't be read yields its errors, once.
    pub async fn next(&mut self) -> W::Content {
        loop {
            if self.seen.is_some() {
                self.changed().await;
            }
            // Watch first, then read: a change in between is an event for the next round.
            self.watch();
            let (read, differs) = self.read_at_rest().await;
            if differs {
                self.last = Some(read.clone());
                return read;
            }
        }
    }

    /// Reads again and yields it, changed or not (SIGHUP).
    pub async fn again(&mut self) -> W::Content {
        self.watch();
        let (read, _) = self.read_at_rest().await;
        self.last = Some(read.clone());
        read
    }

    /// Waits until the fingerprint differs.
    async fn changed(&self) {
        loop {
            let touched = timeout(self.timing.poll, self.touched.notified()).await.is_ok();
            if touched {
                self.quiet().await;
            }
            if self.seen.as_ref() != Some(&self.fingerprint().await) {
                return;
            }
        }
    }

    /// Waits until no event came for a while.
    async fn quiet(&self) {
        let end = Instant::now() + self.timing.at_most;
        loop {
            let next = end.min(Instant::now() + self.timing.quiet);
            if timeout_at(next, self.touched.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Reads content that didn't change while it was read, and says whether it differs from what was
    /// yielded last: comparing takes time too. A writer that never rests doesn't hold it up for ever:
    /// half a file is the compiler's to refuse, and the next look reads it whole.
    async fn read_at_rest(&mut self) -> (W::Content, bool) {
        let end = Instant::now() + self.timing.at_most;
        loop {
            let before = self.fingerprint().await;
            let (files, last) = (self.files.clone(), self.last.clone());
            let read = blocking(move || {
                let read = files.read();
                let differs = last.as_ref() != Some(&read);
                (read, differs)
            });
            let read = read.await;
            let rest = self.fingerprint().await == before;
            if rest || Instant::now() >= end {
                self.seen = Some(before);
                return read;
            }
            sleep(self.timing.quiet).await;
        }
    }

    async fn fingerprint(&self) -> Fingerprint {
        let files = self.files.clone();
        blocking(move || files.fingerprint()).await
    }

    /// Watches what is there now. Directories come and go, and a watch belongs to an inode, so all
    /// are set again each time.
    fn watch(&mut self) {
        let Some(inotify) = &mut self.inotify else { return };
        for path in self.files.places() {
            // Absent ones are seen through their parents.
            drop(inotify.unwatch(&path));
            if let Err(error) = inotify.watch(&path, RecursiveMode::NonRecursive) {
                tracing::debug!("not watching {}: {error}", path.display());
            }
        }
    }
}

fn inotify(touched: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let touched = Arc::clone(touched);
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files is an event too, and ours.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            touched.notify_one();
        }
    })
}

/// File systems may hang; the runtime's thread mustn't.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled: the runtime is shutting down, and nobody polls this again.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests;
