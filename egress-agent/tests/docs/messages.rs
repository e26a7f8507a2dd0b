//! What the log says at the levels that operators read is in plain words: no value has the form that Rust gives it for
//! developers.

use std::fs;

use crate::markdown::{collect, root};

/// How a message begins. `debug` and `trace` are for developers.
const LEVELS: [&str; 3] = ["tracing::error!(", "tracing::warn!(", "tracing::info!("];

/// The messages of a source, each from its first parenthesis to the end of the statement.
fn messages(source: &str) -> impl Iterator<Item = &str> {
    LEVELS.iter().flat_map(move |level| {
        source.split(level).skip(1).map(|rest| rest.split(");").next().unwrap_or(rest))
    })
}

/// Whether a message shows a value in its debug form: `{value:?}`, `{:#?}`, or the field `?value`.
fn is_for_developers(message: &str) -> bool {
    let shown = [":?}", ":#?}"].iter().any(|form| message.contains(form));
    let arguments = message.split(',').map(str::trim_start);
    let as_field = |one: &str| one.starts_with('?') || one.contains("= ?");
    shown || arguments.into_iter().any(as_field)
}

#[test]
fn the_log_shows_no_value_in_rusts_debug_form() {
    let mut paths = Vec::new();
    collect(&root().join("egress-agent/src"), "rs", &mut paths);
    let (mut count, mut found) = (0, Vec::new());
    for path in paths {
        let source = fs::read_to_string(&path).expect("a source");
        for message in messages(&source) {
            count += 1;
            if is_for_developers(message) {
                found.push(format!("{}: {}", path.display(), message.trim()));
            }
        }
    }
    assert!(count > 100, "{count}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_debug_form_is_found() {
    for (source, wanted) in [
        ("tracing::info!(\"limits: {limits:?}\");", true),
        ("tracing::warn!(\n    \"limits: {:#?}\",\n    limits\n);", true),
        ("tracing::info!(?limits, \"limits\");", true),
        ("tracing::info!(all = ?limits, \"limits\");", true),
        ("tracing::info!(\"limits: {limits}\");", false),
        ("tracing::debug!(\"limits: {limits:?}\");", false),
        ("tracing::info!(\"is it?\"); let shown = format!(\"{limits:?}\");", false),
    ] {
        assert_eq!(messages(source).any(is_for_developers), wanted, "{source}");
    }
}
