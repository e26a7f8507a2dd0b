//! Where what the agent reads comes from: a directory of resources or a Kubernetes API server, and files
//! of certificates, all of them watched.

mod directory;
mod files;
pub mod kubernetes;
mod node_selector;
mod origin;
mod reload;
mod rollout;
mod secrets;
mod stamp;
mod verdicts;
mod watch;

pub use directory::{Directory, Files, ReadError};
pub use files::{FileContents, FileSet, Unreadable};
pub use node_selector::NodeSelector;
pub use origin::{ConfigArgs, Origin, Reported, namespaced};
pub use reload::{LastReload, Loaded, Merged, Reload};
pub use rollout::{NODE_HEADER, NONE, REVISIONS_HEADER, Rollout};
pub use secrets::{Secret, SecretChanges, Secrets};
pub use stamp::Fingerprint;
pub use watch::{Timing, Watched, Watcher};
