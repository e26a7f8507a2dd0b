//! YAML files to trees whose every node knows its line.
//!
//! Documents are parsed one by one, so a broken one doesn't hide what is wrong with its neighbours.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Options, SnippetMode, Spanned};

/// Bytes a file may have. Kubernetes stores nothing above 1.5 MiB.
pub(super) const MAX_FILE_BYTES: usize = 4 << 20;

/// A node with the line it begins on, counted from 1 in its file.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Node {
    /// What it is.
    pub(super) value: Value,
    /// Its line.
    pub(super) line: u64,
}

/// What a node is.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    /// Nothing, or `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number; outside `i64` it is a [`Value::Float`].
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in file order, keys once each.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Key {
    /// Its text.
    pub(super) text: String,
    /// Its line.
    pub(super) line: u64,
}

impl Value {
    /// What it is, for messages: `number 80`, `text "x"`, `a list`.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Bool(b) => format!("{b} (true or false)"),
            Self::Int(n) => format!("the number {n}"),
            Self::Float(n) => format!("the number {n}"),
            Self::Text(text) => format!("the text {:?}", shorten(text)),
            Self::List(_) => "a list".into(),
            Self::Map(_) => "a mapping".into(),
        }
    }
}

/// At most 80 characters of a text, for messages.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

impl Node {
    /// Gives all of it this line: it was read from a text that stands there.
    pub(super) fn move_to(&mut self, line: u64) {
        self.line = line;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.move_to(line)),
            Value::Map(entries) => {
                for (key, value) in entries {
                    key.line = line;
                    value.move_to(line);
                }
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {}
        }
    }

    /// The value at this key, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(k, _)| k.text == key).map(|(_, v)| v)
    }

    /// The text at this key.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let Value::Text(text) = &self.get(key)?.value else { return None };
        Some(text)
    }

    fn shift(&mut self, lines: u64) {
        self.line = self.line.max(1) + lines;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Value::Map(entries) => {
                for (key, value) in entries {
                    key.line = key.line.max(1) + lines;
                    value.shift(lines);
                }
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {}
        }
    }
}

/// Why a document couldn't be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SyntaxError {
    /// Its line in the file.
    pub(super) line: u64,
    /// What the parser says.
    pub(super) message: String,
}

/// Every document of a file that holds anything.
pub(super) fn documents(text: &str) -> Vec<Result<Node, SyntaxError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    chunks(text)
        .into_iter()
        .filter(|chunk| !is_blank(chunk.text))
        .filter_map(|chunk| match document(&chunk) {
            Ok(node) if node.value == Value::Null => None,
            result => Some(result),
        })
        .collect()
}

struct Chunk<'a> {
    text: &'a str,
    /// Lines before it.
    lines: u64,
}

/// Splits at the markers `---` and `...`: at a line's start they are markers everywhere, block
/// scalars included (YAML 1.2.2 §9.1.2, `c-forbidden`).
fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line, mut at, mut line) = (0, 0, 0, 0);
    for full in text.split_inclusive('\n') {
        let ends = is_marker(full, "...");
        if ends || is_marker(full, "---") {
            chunks.push(Chunk { text: &text[start..at], lines: start_line });
            (start, start_line) = if ends { (at + full.len(), line + 1) } else { (at, line) };
        }
        at += full.len();
        line += 1;
    }
    chunks.push(Chunk { text: &text[start..], lines: start_line });
    chunks
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_blank(chunk: &str) -> bool {
    chunk.lines().all(|line| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        line.is_empty() || line.starts_with('#') || line.starts_with('%')
    })
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            // Istio's resources are about ten deep; each level takes some kilobytes of stack.
            max_depth: 24,
            flow_nesting_limit: 24,
            max_nodes: 200_000,
            max_events: 500_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
            max_documents: 1,
            max_recorded_anchor_events: 20_000,
            max_total_scalar_bytes: MAX_FILE_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: 1_000,
        },
        strict_booleans: true,
        with_snippet: false,
    }
}

fn document(chunk: &Chunk<'_>) -> Result<Node, SyntaxError> {
    match serde_saphyr::from_str_with_options::<Node>(chunk.text, options()) {
        Ok(mut node) => {
            node.shift(chunk.lines);
            Ok(node)
        }
        Err(error) => {
            let line = error.location().map_or(1, |place| place.line().max(1)) + chunk.lines;
            let rendered = error.render_with_options(serde_saphyr::render_options! {
                snippets: SnippetMode::Off,
            });
            Err(SyntaxError { line, message: without_place(&rendered).into() })
        }
    }
}

/// Cuts ` at line 1, column 2`: it counts within the document, and the line is told elsewhere.
fn without_place(message: &str) -> &str {
    message.rfind(" at line ").map_or(message, |at| &message[..at])
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::Int(n))
    }

    #[expect(clippy::cast_precision_loss, reason = "no field takes a number of this size")]
    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(i64::try_from(n).map_or(Value::Float(n as f64), Value::Int))
    }

    fn visit_f64<E>(self, n: f64) -> Result<Value, E> {
        Ok(Value::Float(n))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.into()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let key = Key { line: key.referenced.line(), text: key.value };
            entries.push((key, map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        documents(text).into_iter().next().unwrap().unwrap()
    }

    #[test]
    fn nodes_know_their_lines_across_documents() {
        let all = documents("# first\na: 1\n---\n# c\nb:\n- x\n- {y: 2}\n...\n--- {c: 3}\n");
        let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].get("a").unwrap().line, 2);
        let Value::List(items) = &all[1].get("b").unwrap().value else { panic!() };
        assert_eq!((items[0].line, items[1].line), (6, 7));
        assert_eq!(items[1].get("y").unwrap().value, Value::Int(2));
        assert_eq!(all[2].get("c").unwrap().line, 9);
    }

    #[test]
    fn a_broken_document_leaves_its_neighbours_alone() {
        let all = documents("a: 1\n---\nb: [\n---\nc: 3\n---\nd: }\n");
        assert_eq!(all.len(), 4);
        assert!(all[0].is_ok() && all[2].is_ok());
        assert!((3..=4).contains(&all[1].as_ref().unwrap_err().line), "{:?}", all[1]);
        assert_eq!(all[3].as_ref().unwrap_err().line, 7, "{:?}", all[3]);
        assert!(!all[1].as_ref().unwrap_err().message.contains("line"), "{:?}", all[1]);
    }

    #[test]
    fn nothing_is_no_document() {
        for text in [
            "",
            "\n\n",
            "# only this\n",
            "---\n---\n",
            "%YAML 1.2\n---\n",
            "---\n# x\n...\n",
            "--- # y\n",
            "null\n",
            "\u{feff}",
        ] {
            assert_eq!(documents(text), [], "{text:?}");
        }
        assert_eq!(documents("%YAML 1.2\n---\na: 1\n").len(), 1);
    }

    #[test]
    fn scalars_have_their_types() {
        let node =
            one("a: 80\nb: \"80\"\nc: yes\nd: true\ne: 1.5\nf:\ng: 10s\nh: 18446744073709551615\n");
        assert_eq!(node.get("a").unwrap().value, Value::Int(80));
        assert_eq!(node.text("b"), Some("80"));
        assert_eq!(node.text("c"), Some("yes"));
        assert_eq!(node.get("d").unwrap().value, Value::Bool(true));
        assert_eq!(node.get("e").unwrap().value, Value::Float(1.5));
        assert_eq!(node.get("f").unwrap().value, Value::Null);
        assert_eq!(node.text("g"), Some("10s"));
        assert!(matches!(node.get("h").unwrap().value, Value::Float(_)));
    }

    #[test]
    fn duplicate_keys_and_bombs_are_errors() {
        assert!(documents("a: 1\na: 2\n")[0].is_err());
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            bomb += &format!("a{i}: &a{i} [{refs}]\n");
        }
        assert!(documents(&bomb)[0].is_err());
        assert!(documents(&"[".repeat(100_000))[0].is_err());
        let nested: String = (0..5_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        assert!(documents(&nested)[0].is_err());
    }

    #[test]
    fn a_modest_alias_is_fine() {
        let node = one("x: &x {istio: egressgateway}\ny: *x\n");
        assert_eq!(node.get("y").unwrap().text("istio"), Some("egressgateway"));
    }
}
