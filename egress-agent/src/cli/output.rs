//! `--output`, as most commands have it.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, StdoutLock, Write},
};

use clap::ValueEnum;
use thiserror::Error;

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

/// Standard output. An error of it says so, and keeps its kind.
pub(super) fn stdout() -> Stdout {
    Stdout(io::stdout().lock())
}

/// What [`stdout`] gives.
#[derive(Debug)]
pub(super) struct Stdout(StdoutLock<'static>);

/// Why a page was not printed.
#[derive(Debug, Error)]
#[error("cannot write to standard output: {0}")]
struct Unwritten(io::Error);

impl Stdout {
    pub(super) fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }
}

fn unwritten(error: io::Error) -> io::Error {
    // The writer tries again by itself.
    if error.kind() == io::ErrorKind::Interrupted {
        return error;
    }
    io::Error::new(error.kind(), Unwritten(error))
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(unwritten)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(unwritten)
    }
}
