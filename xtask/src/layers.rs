//! `cargo xtask layers`: the agent's modules import only from layers below their own, and no file
//! grows past what one subject needs.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::run;

/// From top to bottom. Modules of one line are siblings.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["node", "gateway"],
    &["admin"],
    &["enforcement"],
    &["proxy", "tunnel"],
    &["tls"],
    &["source", "net", "bpf", "telemetry"],
    &["config", "pods", "policy", "wire", "probe"],
    &["types", "sys"],
];

/// Siblings that may import each other, this way only: configuration compiles into policy.
const SIBLINGS: &[(&str, &str)] = &[("config", "policy")];

/// Lines of a file, tests apart.
const MAX_LINES: usize = 400;

/// An import that the layers forbid, or one of an unknown module.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Fault {
    line: usize,
    from: String,
    to: String,
    why: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}` imports `{}`: {}", self.line, self.from, self.to, self.why)
    }
}

/// Checks the tree.
///
/// # Errors
/// Something is against the layers, or too long; each case has been printed.
pub(crate) fn run() -> Result<()> {
    let mut faults = 0;
    let agent = run::root().join("egress-agent/src");
    for file in sources(&agent)? {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let relative = file.strip_prefix(&agent)?;
        for fault in check_file(relative, &text) {
            println!("egress-agent/src/{}:{fault}", relative.display());
            faults += 1;
        }
    }
    for package in [
        "egress-agent/src",
        "egress-ebpf/src",
        "xtask/src",
        "tests/src",
        "tests/bench/src",
        "tests/fuzz/src",
    ] {
        let src = run::root().join(package);
        for file in sources(&src)? {
            let text = fs::read_to_string(&file)?;
            let file = file.strip_prefix(&src)?;
            let lines = length(file, &text);
            if lines > MAX_LINES {
                println!(
                    "{package}/{}: {lines} lines without tests, at most {MAX_LINES}",
                    file.display()
                );
                faults += 1;
            }
        }
    }
    if faults > 0 {
        bail!("{faults} found; the layers are described in egress-agent/src/lib.rs");
    }
    println!("layers: clean");
    Ok(())
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

/// The faults of one file of the agent, its path relative to `src`.
fn check_file(relative: &Path, text: &str) -> Vec<Fault> {
    let parts: Vec<String> = relative
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .filter(|part| part != "mod")
        .collect();
    let Some(from) = parts.first().filter(|first| *first != "lib") else { return Vec::new() };
    imports(text, parts.len())
        .into_iter()
        .filter_map(|(line, to)| {
            judge(from, &to).map(|why| Fault { line, from: from.clone(), to, why })
        })
        .collect()
}

/// Why `from` must not import `to`, if it must not.
fn judge(from: &str, to: &str) -> Option<&'static str> {
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    if from == to {
        return None;
    }
    match (layer(from), layer(to)) {
        (None, _) => Some("the importing module is in no layer"),
        (_, None) => Some("the imported module is in no layer"),
        (Some(mine), Some(other)) if other < mine => Some("that is a layer above"),
        (Some(mine), Some(other)) if other == mine && !SIBLINGS.contains(&(from, to)) => {
            Some("that is a sibling in the same layer")
        }
        _ => None,
    }
}

/// Top-level modules of the agent that a text names, with the line: `crate::a`,
/// `crate::{a, b::c}`, `egress_agent::a` (from `main.rs`), and `super::…` that climbs from a module
/// `depth` levels deep to the crate's root.
fn imports(text: &str, depth: usize) -> Vec<(usize, String)> {
    let tokens = tokens(text);
    let is = |index: usize, text: &str| tokens.get(index).is_some_and(|(_, token)| token == text);
    let mut found = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        let mut at = index;
        if is(at, "crate") || is(at, "egress_agent") {
            at += 1;
        } else {
            let mut climbed = 0;
            while is(at, "super") && is(at + 1, "::") {
                climbed += 1;
                at += 2;
            }
            // `at` is past the last `::`; step back onto it, as for `crate`.
            if climbed < depth || climbed == 0 {
                index += 1;
                continue;
            }
            at -= 1;
        }
        if is(at, "::") {
            first_names(&tokens, at + 1, &mut found);
        }
        index = at.max(index + 1);
    }
    found
}

/// The first name of a path, or of each path in a group.
fn first_names(tokens: &[(usize, String)], at: usize, found: &mut Vec<(usize, String)>) {
    let Some((line, token)) = tokens.get(at) else { return };
    if token != "{" {
        if token.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            found.push((*line, token.clone()));
        }
        return;
    }
    let mut nesting = 0_usize;
    let mut expect = false;
    for (line, token) in &tokens[at..] {
        match token.as_str() {
            "{" => {
                nesting += 1;
                expect = nesting == 1;
            }
            "}" if nesting == 1 => return,
            "}" => nesting -= 1,
            "," => expect = nesting == 1,
            name if expect => {
                found.push((*line, name.to_owned()));
                expect = false;
            }
            _ => {}
        }
    }
}

/// Identifiers and punctuation with their lines; comments, strings and characters are left out.
fn tokens(text: &str) -> Vec<(usize, String)> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &text[at..];
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = string(rest) {
            length
        } else if rest.starts_with("::") {
            tokens.push((line, "::".to_owned()));
            2
        } else {
            let word =
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let length = word.max(rest.chars().next().map_or(1, char::len_utf8));
            let token = &rest[..length];
            if !token.trim().is_empty() {
                tokens.push((line, token.to_owned()));
            }
            length
        };
        line += rest[..skip].matches('\n').count();
        at += skip;
    }
    tokens
}

/// Length of a (nested) block comment at the start.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Length of a string, raw string, byte string or character literal at the start, if there is one.
fn string(text: &str) -> Option<usize> {
    let raw = text.strip_prefix("br").or_else(|| text.strip_prefix('r'));
    if let Some(raw) = raw {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if let Some(body) = raw[hashes..].strip_prefix('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = text.len() - body.len();
            return Some(body.find(&end).map_or(text.len(), |at| start + at + end.len()));
        }
    }
    let quoted = text.strip_prefix('b').unwrap_or(text);
    let prefix = text.len() - quoted.len();
    if quoted.starts_with('"') {
        return Some(prefix + closing(quoted, b'"'));
    }
    // `'a` is a lifetime, `'a'` and `'\n'` are characters.
    let mut chars = quoted.strip_prefix('\'')?.chars();
    let first = chars.next()?;
    if first == '\\' {
        return Some(prefix + closing(quoted, b'\''));
    }
    (chars.next()? == '\'').then(|| prefix + 2 + first.len_utf8())
}

/// Length up to and with the quote that closes the one at the start.
fn closing(text: &str, quote: u8) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            _ if byte == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> Vec<String> {
        check_file(Path::new(path), text).into_iter().map(|fault| fault.to_string()).collect()
    }

    #[test]
    fn imports_downwards_are_allowed() {
        for (path, text) in [
            ("proxy/http/mod.rs", "use crate::{net::Dialer, policy::{Cluster, Denied}, types};"),
            ("config/mod.rs", "use crate::policy::Snapshot;"),
            ("net/dial.rs", "use super::resolve; fn f() { crate::types::f() }"),
            ("proxy/tcp.rs", "use crate::proxy::Worker;"),
            ("main.rs", "use egress_agent::cli;"),
            ("node/view.rs", "use crate::admin;"),
        ] {
            assert_eq!(faults(path, text), Vec::<String>::new(), "{path}");
        }
    }

    #[test]
    fn imports_upwards_and_sideways_are_found() {
        for (path, text, expected) in [
            (
                "net/mod.rs",
                "use crate::proxy::Worker;",
                "1: `net` imports `proxy`: that is a layer above",
            ),
            (
                "bpf/plan.rs",
                "\nuse crate::{\n    types::Host,\n    source::Directory,\n};",
                "4: `bpf` imports `source`: that is a sibling in the same layer",
            ),
            (
                "policy/mod.rs",
                "fn f() -> crate::config::Raw { todo!() }",
                "1: `policy` imports `config`: that is a sibling in the same layer",
            ),
            (
                "tls/mod.rs",
                "use super::gateway::Gateway;",
                "1: `tls` imports `gateway`: that is a layer above",
            ),
            (
                "wire/hello.rs",
                "use super::super::tls;",
                "1: `wire` imports `tls`: that is a layer above",
            ),
            (
                "types/mod.rs",
                "use crate::helpers;",
                "1: `types` imports `helpers`: the imported module is in no layer",
            ),
        ] {
            assert_eq!(faults(path, text), [expected], "{path}");
        }
    }

    #[test]
    fn comments_and_strings_import_nothing() {
        let text = "// crate::proxy\n/* crate::cli /* */ crate::tls */\n/// [`crate::admin`]\n\
                    const A: &str = \"crate::proxy \\\" crate::tls\";\nconst B: &str = r#\"crate::cli\"#;\n\
                    fn f<'a>(x: &'a str) -> char { '\"' }\npub(crate) fn g() {}";
        assert_eq!(faults("types/host.rs", text), Vec::<String>::new());
        let after = format!("{text}\nuse crate::proxy;");
        assert_eq!(faults("types/host.rs", &after).len(), 1);
    }

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
