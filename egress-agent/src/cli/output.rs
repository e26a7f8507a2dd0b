//! `--output`, as most commands have it.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use clap::ValueEnum;

/// How a command prints its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Text,
    /// For programs: one JSON object.
    Json,
}

/// Writes a message to standard error. One that nothing reads any more is no fault.
pub(super) fn complain(message: impl Display) {
    writeln!(io::stderr(), "{message}").ok();
}
