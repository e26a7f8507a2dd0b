//! Where what the agent reads comes from: a directory of resources and files of certificates, both
//! watched.

mod directory;
mod files;
mod reload;
mod stamp;
mod watch;

pub use directory::{Directory, Files, ReadError};
pub use files::{FileContents, FileSet, Unreadable};
pub use reload::{ConfigArgs, LastReload, Loaded, Reload};
pub use stamp::Fingerprint;
pub use watch::{Timing, Watched, Watcher};
