//! How many flow events may be emitted.

use crate::abi::Bucket;

const SECOND: u64 = 1_000_000_000;

impl Bucket {
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
