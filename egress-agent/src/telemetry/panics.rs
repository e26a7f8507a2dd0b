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

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::*;

    /// What is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_counted_and_logged_with_a_backtrace() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let hook = panic::take_hook();
        watch_panics();
        let before = panics();
        let caught = tracing::subscriber::with_default(subscriber, || {
            panic::catch_unwind(|| panic!("a fault of this program"))
        });
        let after = panics();
        panic::set_hook(hook);
        assert!(caught.is_err());
        assert!(after > before, "{before} and {after}");
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("ERROR") && text.contains("a fault of this program"), "{text}");
        assert!(text.contains("a_panic_is_counted_and_logged_with_a_backtrace"), "{text}");
    }
}
