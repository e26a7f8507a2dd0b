//! What the tests of commands share.

use std::{fs, path::Path};

use serde_json::Value;

use super::schema::schema_of;

/// Compares an output with the file of this name in `testdata`, which `EGRESS_BLESS=1` writes anew. No
/// line is wider than 80 columns.
pub(super) fn golden(name: &str, text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{name}: {} columns: {line}", line.chars().count());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/testdata").join(name);
    if std::env::var_os("EGRESS_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} is not what EGRESS_BLESS=1 writes", path.display());
}

/// An output of this command has the fields that the reference lists, and no others.
pub(super) fn documented(command: &str, value: &Value) {
    let schema = schema_of(command).unwrap_or_else(|| panic!("no schema of {command}"));
    assert_eq!(schema.faults(value), Vec::<String>::new(), "{command}: {value:#}");
}
