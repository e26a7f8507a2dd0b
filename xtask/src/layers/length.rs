//! How long files are.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Lines of a file, tests apart.
const MAX_LINES: usize = 400;

/// Where files of Rust are.
const PACKAGES: [&str; 6] = [
    "egress-agent/src",
    "egress-ebpf/src",
    "xtask/src",
    "tests/src",
    "tests/bench/src",
    "tests/fuzz/src",
];

/// Files that are too long.
pub(super) fn faults(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for package in PACKAGES {
        let src = root.join(package);
        for file in sources(&src)? {
            let text = fs::read_to_string(&file)?;
            let file = file.strip_prefix(&src)?;
            let lines = length(file, &text);
            if lines > MAX_LINES {
                let file = file.display();
                faults.push(format!(
                    "{package}/{file}: {lines} lines without tests, at most {MAX_LINES}"
                ));
            }
        }
    }
    Ok(faults)
}

/// All Rust files below a directory.
fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let entries =
            fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Lines up to the unit tests at the end; files of tests count nothing. The path is relative to
/// `src`.
fn length(file: &Path, text: &str) -> usize {
    let in_tests = file.file_name().is_some_and(|name| name == "tests.rs")
        || file.components().any(|part| part.as_os_str() == "tests");
    if in_tests {
        return 0;
    }
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    tests.unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_at_the_end_are_not_counted() {
        let code = "fn f() {}\n".repeat(10);
        let file = Path::new("net/dial.rs");
        assert_eq!(length(file, &code), 10);
        let with_tests = format!("{code}#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(length(file, &with_tests), 10);
        let beside = format!("{code}#[cfg(test)]\nmod tests;\n{code}");
        assert_eq!(length(file, &beside), 22);
        assert_eq!(length(Path::new("net/tests.rs"), &code), 0);
        assert_eq!(length(Path::new("net/tests/harness.rs"), &code), 0);
    }
}
