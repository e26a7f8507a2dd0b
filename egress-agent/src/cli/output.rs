//! `--output`, as most commands have it.

use clap::ValueEnum;

/// How a command prints its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Text,
    /// For programs: one JSON object.
    Json,
}
