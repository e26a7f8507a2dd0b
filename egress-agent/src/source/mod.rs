//! Where the raw resources come from: a directory that is watched.

mod directory;
mod watch;

pub use directory::{Directory, Files, ReadError};
pub use watch::{Timing, Watcher};
