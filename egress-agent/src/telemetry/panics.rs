//! Panics: each is a fault of this program. They are counted and logged; what they interrupt is
//! ended by whoever ran it.

use std::{
    backtrace::Backtrace,
    panic,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Panics of this process so far.
#[must_use]
pub fn panics() -> u64 {
    PANICS.load(Relaxed)
}

/// From now on counts every panic and logs it with a backtrace.
pub fn watch_panics() {
    panic::set_hook(Box::new(|info| {
        PANICS.fetch_add(1, Relaxed);
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        tracing::error!("thread {name}: {info}\n{}", Backtrace::force_capture());
    }));
}
