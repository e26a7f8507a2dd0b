//! The time, read once for what happens at once.

use std::cell::Cell;

use tokio::time::Instant;

thread_local!(static POLLED: Cell<Option<Instant>> = const { Cell::new(None) });

/// The time at which the task that runs was polled; now, outside of [`super::FairTurns`].
///
/// A request asks for it some ten times, and a poll takes some microseconds: deadlines are seconds. What takes
/// long within one poll is not seen by it.
#[must_use]
pub fn now() -> Instant {
    POLLED.get().unwrap_or_else(Instant::now)
}

/// Says when a task is polled, as long as it lives.
pub(super) struct Polling(());

impl Polling {
    pub(super) fn at(time: std::time::Instant) -> Self {
        POLLED.set(Some(Instant::from_std(time)));
        Self(())
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        POLLED.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_stands_still_within_a_poll_alone() {
        let began = std::time::Instant::now();
        let polling = Polling::at(began);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(now().into_std(), began);
        drop(polling);
        assert!(now().into_std() >= began + Duration::from_millis(2));
    }
}
