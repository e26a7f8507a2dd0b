//! Every compiled field is read by something that acts on it. A setting that compiles and that nothing
//! reads has no effect, and nobody is told.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

/// Where a field has a name that others have too, what its struct is called where it is read.
const RECEIVERS: [(&str, &[&str]); 3] = [
    ("ConnectionPool", &["pool"]),
    ("MeshConfig", &["mesh", "self", "config", "settings"]),
    ("ClientTls", &["tls", "settings", "self"]),
];

/// Read by the compiler itself: what it decides is in the rules.
const COMPILED_IN: [&str; 2] = ["MeshConfig.locality_setting", "MeshConfig.root_namespace"];

fn source(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file without its tests and comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The code of all files without tests, by their paths below `root`.
fn product(root: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    source(root, &mut files);
    let below = |path: &PathBuf| path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
    let all = files.iter().map(|path| (below(path), path));
    let is_test = |path: &str| {
        path.contains("tests") || path.ends_with("testing.rs") || path == "policy/fields.rs"
    };
    all.filter(|(below, _)| !is_test(below)).map(|(below, path)| (below, code(path))).collect()
}

/// What acts: neither the compiler nor what shows the configuration.
fn acting(product: &[(String, String)]) -> String {
    let apart = ["config/", "admin/dump"];
    let acts = |path: &str| !apart.iter().any(|apart| path.starts_with(apart));
    product.iter().filter(|(path, _)| acts(path)).map(|(_, code)| code.as_str()).collect()
}

/// Fields of public structs and of enums' variants, with the type that they are in.
fn fields(code: &str) -> Vec<(String, String)> {
    let item = Regex::new(r"^pub (?:struct|enum) (\w+)").unwrap();
    let field = Regex::new(r"^ {4}(?: {4})?(?:pub )?(\w+): ").unwrap();
    let mut found = Vec::new();
    let mut inside = None;
    for line in code.lines() {
        if let Some(start) = item.captures(line) {
            inside = line.ends_with('{').then(|| start[1].to_owned());
        } else if line == "}" {
            inside = None;
        } else if let (Some(name), Some(field)) = (&inside, field.captures(line)) {
            found.push((name.clone(), field[1].to_owned()));
        }
    }
    found
}

/// Patterns that take values apart, as the lists in their braces.
fn patterns(code: &str) -> Vec<(String, String)> {
    let start = Regex::new(r"\b(\w+) \{").unwrap();
    let mut found = Vec::new();
    for captures in start.captures_iter(code) {
        let from = captures.get(0).unwrap().end();
        let Some(length) = code[from..].find('}') else { continue };
        let after = code[from + length + 1..].trim_start_matches([' ', ')', '\n']);
        let is_pattern =
            ["=> ", "= ", "=\n", "if ", "| "].iter().any(|next| after.starts_with(next));
        if is_pattern {
            found.push((captures[1].to_owned(), code[from..from + length].to_owned()));
        }
    }
    found
}

struct FieldReaders {
    code: String,
    patterns: Vec<(String, String)>,
}

impl FieldReaders {
    fn new(code: String) -> Self {
        Self { patterns: patterns(&code), code }
    }

    fn read(&self, item: &str, field: &str) -> bool {
        let receivers = RECEIVERS.iter().find(|(name, _)| *name == item);
        let receiver = receivers
            .map_or(String::new(), |(_, names)| format!(r"\b(?:{})(?:\(\))?\s*", names.join("|")));
        // Neither a method's name nor what is assigned to.
        let access = Regex::new(&format!(r"{receiver}\.{field}\b\s*([^\s(\w]=?|\w)")).unwrap();
        let accessed = access.captures_iter(&self.code).any(|found| &found[1] != "=");
        let bound = Regex::new(&format!(r"(?:^|[\s,{{]){field}\s*(?:,|$|: *[^_\s])")).unwrap();
        accessed || self.patterns.iter().any(|(_, list)| bound.is_match(list.trim()))
    }
}

#[test]
fn every_compiled_field_is_read() {
    let product = product(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let readers = FieldReaders::new(acting(&product));
    let mut unread = BTreeSet::new();
    let mut count = 0;
    for (_, code) in product.iter().filter(|(path, _)| path.starts_with("policy/")) {
        for (item, field) in fields(code) {
            count += 1;
            let name = format!("{item}.{field}");
            if !readers.read(&item, &field) && !COMPILED_IN.contains(&name.as_str()) {
                unread.insert(name);
            }
        }
    }
    assert!(count > 400, "{count} fields");
    assert!(unread.is_empty(), "compiled, and read by nothing: {unread:?}");
}

#[test]
fn a_field_that_nothing_reads_is_found() {
    let declared = "
pub struct ConnectionPool {
    pub idle: u8,
    pub probes: u8,
}
pub enum Mode {
    One {
        key: u8,
    },
}
";
    let all = fields(declared);
    let text: Vec<_> = all.iter().map(|(item, field)| format!("{item}.{field}")).collect();
    assert_eq!(text, ["ConnectionPool.idle", "ConnectionPool.probes", "Mode.key"]);
    for (code, read) in [
        ("let x = cluster.pool.idle;", [true, false, false]),
        ("let x = limits.idle;", [false, false, false]),
        ("cluster.pool.idle = 1;", [false, false, false]),
        ("if pool.idle == 1 {}", [true, false, false]),
        ("pool.probes();", [false, false, false]),
        ("let ConnectionPool { idle, probes: _ } = pool;", [true, false, false]),
        ("match mode { Mode::One { key } => key }", [false, false, true]),
        ("ConnectionPool { idle: 1, probes: 2 }", [false, false, false]),
    ] {
        let readers = FieldReaders::new(code.into());
        let found: Vec<_> = all.iter().map(|(item, field)| readers.read(item, field)).collect();
        assert_eq!(found, read, "{code}");
    }
}
