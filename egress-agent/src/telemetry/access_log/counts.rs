//! How much of the access log was written, and how much was lost.

/// How the access log fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AccessLogCounts {
    /// Lines written out.
    pub lines: u64,
    /// Lines dropped because the output was too slow or failed.
    pub dropped: u64,
    /// Writes that failed.
    pub write_failed: u64,
    /// Times that a rotated file was opened anew.
    pub reopened: u64,
}
