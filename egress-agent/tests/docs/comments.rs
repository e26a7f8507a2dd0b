//! Documentation comments show no Rust: no test command compiles it, so it would not stay true.

use std::{fs, path::Path};

use crate::markdown::{collect, root};

/// What a fenced block may hold. Rustdoc takes every other fence for Rust.
const LANGUAGES: [&str; 5] = ["console", "json", "text", "toml", "yaml"];

/// The lines, counted from 1, of the fences that open a block of Rust.
fn rust_blocks(source: &str) -> Vec<usize> {
    let mut open = false;
    let mut found = Vec::new();
    for (number, line) in source.lines().enumerate() {
        let line = line.trim_start();
        let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        let Some(fence) = comment.and_then(|text| text.trim_start().strip_prefix("```")) else {
            open &= comment.is_some();
            continue;
        };
        if !open && !LANGUAGES.contains(&fence.trim()) {
            found.push(number + 1);
        }
        open = !open;
    }
    found
}

#[test]
fn comments_have_no_examples_that_nothing_runs() {
    let mut paths = Vec::new();
    for directory in ["egress-agent", "egress-ebpf", "tests", "xtask"] {
        collect(&root().join(directory), "rs", &mut paths);
    }
    assert!(paths.len() > 100, "the source is found");
    let found: Vec<_> = paths.iter().flat_map(|path| places(path)).collect();
    assert!(found.is_empty(), "write the example as a test instead: {found:?}");
}

fn places(path: &Path) -> Vec<String> {
    let source = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines = rust_blocks(&source);
    lines.into_iter().map(|line| format!("{}:{line}", path.display())).collect()
}

#[test]
fn a_block_of_rust_is_found() {
    let source = "/// ```text\n/// a\n/// ```\nfn a() {}\n    /// ```\n    /// b();\n    /// ```\n";
    assert_eq!(rust_blocks(source), [5]);
    assert_eq!(rust_blocks("//! ```no_run\n//! b();\n//! ```\n"), [1]);
    assert_eq!(rust_blocks("let fence = \"```\";\n// ```\n"), [0; 0]);
    // A block that is never closed ends with its comment.
    assert_eq!(rust_blocks("/// ```yaml\nfn a() {}\n/// ```rust\n"), [3]);
}
