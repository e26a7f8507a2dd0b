//! The sources, for whoever looks up what a page names.

use std::{collections::HashSet, fs, sync::LazyLock};

use crate::markdown::{collect, root};

/// All sources, and what is shipped beside the program.
fn sources() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut paths = Vec::new();
        for directory in ["egress-agent", "egress-ebpf", "tests", "xtask"] {
            collect(&root().join(directory), "rs", &mut paths);
        }
        // These tests name what is not there.
        paths.retain(|path| !path.starts_with(root().join("egress-agent/tests/docs")));
        collect(&root().join("deploy/systemd"), "env", &mut paths);
        paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
    });
    &TEXT
}

/// Whether a program, the chart or a unit has this name, as a whole word.
pub(crate) fn is_a_name(word: &str) -> bool {
    static NAMES: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let mut paths = Vec::new();
        for extension in ["yaml", "tpl", "json", "service", "conf", "slice"] {
            collect(&root().join("deploy"), extension, &mut paths);
        }
        // The other files of these tests name what is not there.
        paths.push(root().join("egress-agent/tests/docs/main.rs"));
        let shipped: String =
            paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = [sources(), &shipped].into_iter().flat_map(|text| text.split(|c| !is_part(c)));
        words.map(str::to_owned).collect()
    });
    NAMES.contains(word)
}

/// Whether they have these words.
pub(crate) fn is_in_sources(text: &str) -> bool {
    sources().contains(text)
}
