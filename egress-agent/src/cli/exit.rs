//! Exit codes that several commands share.

/// A command failed.
pub(super) const FAILURE: u8 = 1;
/// The command line is wrong; clap's own code.
pub(super) const USAGE: u8 = 2;
/// It was understood, and policy refuses it or part of it.
pub(super) const REFUSED: u8 = 3;
/// Another agent owns the pins.
pub(super) const OWNED: u8 = 3;
