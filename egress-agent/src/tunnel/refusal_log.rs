//! How often refusals are logged.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::Refusal;

/// Between two lines of the log on refusals of one kind; the metric has them all.
const QUIET: Duration = Duration::from_secs(10);

/// When refusals of each kind were last logged, and how many were not logged since.
#[derive(Debug, Default)]
pub(super) struct RefusalLog(RefCell<HashMap<Refusal, (Instant, u64)>>);

impl RefusalLog {
    /// Whether to log this one, and how many before it were not logged.
    pub(super) fn due(&self, refusal: Refusal) -> Option<u64> {
        let mut logged = self.0.borrow_mut();
        let now = Instant::now();
        match logged.get_mut(&refusal) {
            Some((at, skipped)) if now.duration_since(*at) < QUIET => {
                *skipped += 1;
                None
            }
            Some(last) => Some(std::mem::replace(last, (now, 0)).1),
            None => {
                logged.insert(refusal, (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_line_now_and_then() {
        let log = RefusalLog::default();
        assert_eq!(log.due(Refusal::NoRecord), Some(0));
        assert_eq!(log.due(Refusal::NoRecord), None);
        assert_eq!(log.due(Refusal::Tls), Some(0));
    }
}
