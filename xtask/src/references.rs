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
