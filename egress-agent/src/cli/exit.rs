//! Exit codes that several commands share.

/// A command failed.
pub(super) const FAILURE: u8 = 1;
/// The command line is wrong; clap's own code.
pub(super) const USAGE: u8 = 2;
/// Another agent owns the pins.
pub(super) const OWNED: u8 = 3;
