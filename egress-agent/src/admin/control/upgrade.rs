//! What is asked and answered where a gateway is to be replaced by another process.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// What became of an upgrade that was asked for.
pub(crate) type UpgradeAnswer = Result<UpgradeReport, UpgradeRefusal>;

/// Asks the role for an upgrade; what became of it is sent back.
pub(crate) type UpgradeRequests = mpsc::Sender<oneshot::Sender<UpgradeAnswer>>;

/// Another process has taken over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct UpgradeReport {
    /// The process that took over.
    pub(crate) pid: u32,
    /// Its version.
    pub(crate) version: String,
    /// The process before it.
    pub(crate) replaced: u32,
    /// How long the process before it goes on with what runs, at most, in seconds.
    pub(crate) drain_seconds: u64,
}

/// Why the process is the same as before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum UpgradeRefusal {
    /// It was not tried.
    Refused(String),
    /// It was tried.
    Failed(String),
}
