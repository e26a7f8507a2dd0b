//! What tests of several layers share.

use std::{fs, path::Path};

/// Compares a generated page with the file of this name in `docs/reference`, which `cargo xtask references`
/// writes anew.
pub(crate) fn page(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference").join(name);
    if std::env::var_os("EGRESS_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{} is not what `cargo xtask references` writes", path.display());
}
