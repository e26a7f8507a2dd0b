//! Original ports. Each makes the gateway behave in its own way.

/// Every byte comes back.
pub(super) const ECHO: u16 = 7;
/// `hello`, the end, and then it listens.
pub(super) const GREETING: u16 = 17;
/// Bytes without end.
pub(super) const FLOOD: u16 = 19;
/// [`CRUMBS`] frames of ten bytes, and then it listens.
pub(super) const CRUMB: u16 = 20;
/// How many.
pub(super) const CRUMBS: u64 = 100_000;
/// It never reads.
pub(super) const STALL: u16 = 9;
/// Some bytes, then a reset.
pub(super) const RESET_LATER: u16 = 101;
/// A reset instead of an answer.
pub(super) const RESET: u16 = 102;
/// No answer.
pub(super) const SILENT: u16 = 103;
/// 401.
pub(super) const UNAUTHORIZED: u16 = 401;
/// 503.
pub(super) const UNAVAILABLE: u16 = 503;
