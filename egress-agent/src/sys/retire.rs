//! Freeing what is large. Whoever drops the last reference to a configuration frees hundreds of thousands
//! of objects; a thread that serves connections or packets has no time for that, so that a thread of its
//! own holds the last one.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Between two looks at what others still use.
const EVERY: Duration = Duration::from_secs(1);

/// Values that were replaced: each is freed by the thread once nobody else uses it.
#[derive(Debug)]
pub struct Retired(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    values: Vec<Box<dyn Value>>,
    ended: bool,
}

trait Value: std::fmt::Debug + Send {
    fn is_unused(&self) -> bool;
}

/// A value behind a reference, which says nothing of itself.
struct Reference<T>(Arc<T>);

impl<T> std::fmt::Debug for Reference<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<T>())
    }
}

impl<T: Send + Sync> Value for Reference<T> {
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.ended {
            let unused: Vec<_> = state.values.extract_if(.., |value| value.is_unused()).collect();
            if !unused.is_empty() {
                // Nobody who retires a value waits for this.
                drop(state);
                drop(unused);
                state = self.lock();
            } else if state.values.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                let woken = self.changed.wait_timeout(state, EVERY);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

impl Retired {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let its = Arc::clone(&shared);
        thread::Builder::new().name("free".into()).spawn(move || its.run())?;
        Ok(Self(shared))
    }

    /// Frees a value once nobody else uses it.
    pub fn add<T: Send + Sync + 'static>(&self, value: Arc<T>) {
        self.0.lock().values.push(Box::new(Reference(value)));
        self.0.changed.notify_one();
    }
}

impl Drop for Retired {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Says who freed it.
    struct Large(mpsc::Sender<thread::ThreadId>);

    impl Drop for Large {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).unwrap();
        }
    }

    #[test]
    fn the_thread_frees_what_nobody_else_uses() {
        let (sender, freed) = mpsc::channel();
        let retired = Retired::start().unwrap();
        let value = Arc::new(Large(sender));
        retired.add(Arc::clone(&value));
        assert!(freed.try_recv().is_err(), "it is in use");
        drop(value);
        let by = freed.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_ne!(by, thread::current().id());
    }
}
