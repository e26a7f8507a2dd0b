//! Who wishes for the place of an idle connection of a cluster.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

/// The idle connections of a cluster, and who wishes for their places.
#[derive(Debug, Default)]
pub(super) struct IdleConnections {
    idle: AtomicUsize,
    /// In the order in which they came; a wish that was given up is dropped by who made it.
    wishes: Mutex<VecDeque<Weak<()>>>,
    /// Who waits for a place. A connection that ends looks here after it has given its place back, and
    /// who waits is here before it looks for a place again: one of the two sees the other.
    waiting: AtomicUsize,
    pub(super) freed: Notify,
    /// A connection has become idle while somebody waited.
    pub(super) idled: Notify,
}

/// Somebody who waits for a place.
pub(super) struct PlaceWaiter<'a>(&'a IdleConnections);

impl<'a> PlaceWaiter<'a> {
    pub(super) fn at(places: &'a IdleConnections) -> Self {
        places.waiting.fetch_add(1, Ordering::SeqCst);
        Self(places)
    }
}

impl Drop for PlaceWaiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl IdleConnections {
    pub(super) fn set_idle(&self, idle: bool) {
        if idle {
            // Before the look at who waits, as with places that are given back.
            self.idle.fetch_add(1, Ordering::SeqCst);
            if self.waiting.load(Ordering::SeqCst) > 0 {
                self.idled.notify_waiters();
            }
        } else {
            self.idle.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// A connection has ended.
    pub(super) fn freed(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// A wish, if there is an idle connection that nobody else has wished for.
    pub(super) fn wish(&self) -> Option<Arc<()>> {
        let mut wishes = lock(&self.wishes);
        wishes.retain(|wish| wish.strong_count() > 0);
        (wishes.len() < self.idle.load(Ordering::SeqCst)).then(|| add(&mut wishes))
    }

    /// A wish, also where no connection is idle yet.
    pub(super) fn claim(&self) -> Arc<()> {
        let mut wishes = lock(&self.wishes);
        wishes.retain(|wish| wish.strong_count() > 0);
        add(&mut wishes)
    }

    pub(super) fn grant(&self) -> bool {
        let mut wishes = lock(&self.wishes);
        while let Some(wish) = wishes.pop_front() {
            if wish.strong_count() > 0 {
                return true;
            }
        }
        false
    }
}

fn add(wishes: &mut VecDeque<Weak<()>>) -> Arc<()> {
    let wish = Arc::new(());
    wishes.push_back(Arc::downgrade(&wish));
    wish
}

/// What a panicking thread left behind here are numbers, still right enough.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
