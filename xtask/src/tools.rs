//! Programs that Debian lacks: kubectl and helm, and the schemas of Kubernetes' API. They are installed below
//! `target/tools`, and what a machine has of them by chance is not used.

use std::{fs, path::PathBuf};

use crate::run;

/// Installs them, with the checksums of what it downloads.
const SCRIPT: &str = "xtask/src/tools/kubernetes.py";
const TEXT: &str = include_str!("tools/kubernetes.py");

/// Where they are.
pub(crate) fn directory() -> PathBuf {
    run::target_dir().join("tools")
}

/// Whether everything that the script installs is there: it leaves a copy of itself when it is through.
pub(crate) fn are_there() -> bool {
    let there = |name: &str| directory().join("bin").join(name).is_file();
    let installed = fs::read_to_string(directory().join("kubernetes.py"));
    installed.is_ok_and(|text| text == TEXT) && there("kubectl") && there("helm")
}

/// The command that installs them.
pub(crate) fn command() -> String {
    format!("python3 {SCRIPT} {}", directory().display())
}

/// Whether Python has pip, which a package of its own holds.
pub(crate) fn has_pip() -> bool {
    run::output("python3", &["-m", "pip", "--version"]).is_some()
}
