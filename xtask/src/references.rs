//! `cargo xtask references`: the pages that are made of the code. Tests of the library make them, and fail where
//! a page differs.

use anyhow::Result;

use crate::run;

/// The tests that make pages, by a part of their names.
const TESTS: [&str; 7] = [
    "the_page_says_what_the_types_say",
    "the_page_says_what_the_decoders_say",
    "the_page_says_what_the_tables_say",
    "the_page_lists_every_metric",
    "the_reference_has_every_command",
    "the_reference_lists_every_field",
    "the_reference_lists_them_all",
];

/// Writes the pages, or compares.
///
/// # Errors
/// The build fails; with `check`, a page differs.
pub(crate) fn run(check: bool) -> Result<()> {
    let mut cargo = run::command("cargo");
    cargo.args(["test", "--workspace", "--lib", "--"]).args(TESTS);
    if !check {
        cargo.env("EGRESS_BLESS", "1");
    }
    run::show(&mut cargo)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// The source text of all Rust files below a directory.
    fn sources(directory: &Path) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                text += &sources(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text += &fs::read_to_string(&path).expect("a source file");
            }
        }
        text
    }

    /// A filter that matches no test passes: without this, a renamed test would compare nothing.
    #[test]
    fn every_test_that_makes_a_page_exists_once() {
        let text = sources(&run::root().join("egress-agent/src"));
        for name in TESTS {
            let found = text.matches(&format!("fn {name}()")).count();
            assert_eq!(found, 1, "tests of the name {name} in egress-agent/src");
        }
    }
}
