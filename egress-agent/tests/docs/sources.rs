//! The sources, for whoever looks up what a page names.

use std::{fs, sync::LazyLock};

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

/// Whether they have these words.
pub(crate) fn is_in_sources(text: &str) -> bool {
    sources().contains(text)
}
