//! How many flow events may be emitted.
//!
//! Each workload has a share of its own. What the agent doesn't read in time stays in the ring buffer,
//! which is everybody's: its second half is for workloads that have caused few events.

use crate::abi::{Bucket, capacity};

const SECOND: u64 = 1_000_000_000;
/// The credit that a workload needs while the ring buffer is scarce.
const SPARING: u64 = SECOND / 4 * 3;

/// Whether the ring buffer is scarce, with so many bytes in it.
#[inline(always)]
#[must_use]
pub const fn is_scarce(bytes: u64) -> bool {
    bytes >= capacity::EVENTS_BYTES as u64 / 2
}

impl Bucket {
    /// Whether the workload has caused so few events that it may cause more while the ring buffer is
    /// scarce. Ask before [`Bucket::take`].
    #[inline(always)]
    #[must_use]
    pub fn is_sparing(&self, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.filled_at).min(SECOND);
        self.credit.saturating_add(elapsed) >= SPARING
    }

    /// Takes one event out of the bucket, which fills at `per_second`; `false` where it is empty.
    /// `now` is in nanoseconds. At most a second's worth can be saved up.
    #[inline(always)]
    #[must_use]
    pub fn take(&mut self, now: u64, per_second: u32) -> bool {
        let elapsed = now.saturating_sub(self.filled_at).min(SECOND);
        self.filled_at = now;
        self.credit = (self.credit.saturating_add(elapsed)).min(SECOND);
        if per_second == 0 {
            return false;
        }
        let cost = SECOND / u64::from(per_second);
        if self.credit < cost {
            return false;
        }
        self.credit -= cost;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emitted(bucket: &mut Bucket, at: u64, per_second: u32, attempts: usize) -> usize {
        (0..attempts).filter(|_| bucket.take(at, per_second)).count()
    }

    #[test]
    fn a_second_allows_what_was_configured_and_no_more() {
        let mut bucket = Bucket { filled_at: 0, credit: 0 };
        assert_eq!(emitted(&mut bucket, 5 * SECOND, 100, 1000), 100);
        assert_eq!(emitted(&mut bucket, 5 * SECOND, 100, 1000), 0);
        assert_eq!(emitted(&mut bucket, 5 * SECOND + SECOND / 10, 100, 1000), 10);
        assert_eq!(
            emitted(&mut bucket, 500 * SECOND, 100, 1000),
            100,
            "a long pause saves no more"
        );
    }

    #[test]
    fn who_has_caused_little_is_served_while_the_buffer_is_scarce() {
        let mut bucket = Bucket { filled_at: 0, credit: 0 };
        let now = 5 * SECOND;
        assert!(bucket.is_sparing(now), "who has caused nothing");
        assert_eq!(emitted(&mut bucket, now, 100, 20), 20);
        assert!(bucket.is_sparing(now));
        assert_eq!(emitted(&mut bucket, now, 100, 1000), 80);
        assert!(!bucket.is_sparing(now) && !bucket.is_sparing(now + SECOND / 2));
        assert!(bucket.is_sparing(now + SECOND));
        let half = u64::from(capacity::EVENTS_BYTES) / 2;
        assert!(is_scarce(half) && !is_scarce(half - 1));
    }

    #[test]
    fn zero_emits_nothing() {
        let mut bucket = Bucket { filled_at: 0, credit: 0 };
        assert_eq!(emitted(&mut bucket, 5 * SECOND, 0, 10), 0);
    }

    #[test]
    fn a_clock_that_goes_back_fills_nothing() {
        let mut bucket = Bucket { filled_at: 9 * SECOND, credit: 0 };
        assert_eq!(emitted(&mut bucket, SECOND, 10, 10), 0);
        assert_eq!(emitted(&mut bucket, 2 * SECOND, 10, 100), 10, "and it goes on from there");
    }

    #[test]
    fn a_corrupt_credit_is_no_flood() {
        let mut bucket = Bucket { filled_at: 0, credit: u64::MAX / 2 };
        assert_eq!(emitted(&mut bucket, SECOND, 10, 100), 10);
    }
}
