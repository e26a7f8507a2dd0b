//! How many look-ups and answers there may be.

/// Bounds of the process's name look-ups. Each source has a share of them ([`Self::shares`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LookupLimits {
    /// Look-ups under way.
    pub active: usize,
    /// Look-ups that wait for their turn.
    pub waiting: usize,
    /// One source alone gets this part of both: an eighth, if it is 8. So much remains for others, whose
    /// look-ups need not wait behind its own.
    pub shares: usize,
    /// Names whose addresses are remembered.
    pub names: usize,
    /// Names of one source of which it is remembered, for a moment, that they have no address.
    pub failed_names_per_source: usize,
}

impl Default for LookupLimits {
    fn default() -> Self {
        Self { active: 256, waiting: 4096, shares: 8, names: 16_384, failed_names_per_source: 64 }
    }
}

impl LookupLimits {
    /// For [`within_share`](crate::types::within_share).
    pub(super) fn divisor(&self) -> usize {
        self.shares.saturating_sub(1).max(1)
    }
}
