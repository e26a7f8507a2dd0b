//! From trees to typed mirrors: every problem is noted and decoding goes on, so that all of them
//! are found at once.

use std::{fmt, rc::Rc, time::Duration};

use super::{
    problem::{Problem, Severity},
    yaml::{Node, Value, shorten},
};

/// Where a value stands.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    /// Line, counted from 1.
    pub(super) line: u64,
    /// The way from the resource's root.
    pub(super) path: Rc<Path>,
}

/// A field's path, from the leaf up.
#[derive(Debug)]
pub(super) struct Path {
    parent: Option<Rc<Path>>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Field(&'static str),
    Key(String),
    Index(usize),
}

impl Spot {
    /// The root of a resource, or the field `name` there.
    pub(super) fn root(line: u64, name: &'static str) -> Self {
        Self { line, path: Rc::new(Path { parent: None, step: Step::Field(name) }) }
    }

    fn step(&self, line: u64, step: Step) -> Self {
        Self { line, path: Rc::new(Path { parent: Some(Rc::clone(&self.path)), step }) }
    }

    /// A field below, on the same line: for what is missing.
    pub(super) fn field(&self, name: &'static str) -> Self {
        self.step(self.line, Step::Field(name))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = &self.parent {
            parent.fmt(f)?;
        }
        let dot = self.parent.as_ref().is_some_and(|p| !matches!(p.step, Step::Field("")));
        match &self.step {
            Step::Field(name) if dot => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Key(key) => write!(f, "[{:?}]", shorten(key)),
            Step::Index(i) => write!(f, "[{i}]"),
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    /// The value.
    pub(super) value: T,
    /// Where it stands.
    pub(super) at: Spot,
}

/// What decoding and compiling write their problems to.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// So far.
    pub(super) problems: Vec<Problem>,
    /// Whether any of them forbids a snapshot. A missing reference doesn't.
    pub(super) fatal: bool,
}

/// A report on one resource.
#[derive(Debug)]
pub(super) struct Cx<'a> {
    /// Where to write.
    pub(super) report: &'a mut Report,
    /// The file.
    pub(super) file: &'a str,
    /// `VirtualService default/name`.
    pub(super) resource: Option<&'a str>,
}

impl Cx<'_> {
    /// Notes a problem at a spot, and returns it for more detail.
    pub(super) fn note(
        &mut self,
        severity: Severity,
        at: &Spot,
        message: impl Into<String>,
    ) -> &mut Problem {
        let mut problem = Problem::new(severity, self.file, message).line(at.line);
        problem.resource = self.resource.map(Into::into);
        let field = at.path.to_string();
        problem.field = (!field.is_empty()).then_some(field);
        self.report.problems.push(problem);
        let last = self.report.problems.len() - 1;
        &mut self.report.problems[last]
    }

    /// An error that forbids a snapshot.
    pub(super) fn error(&mut self, at: &Spot, message: impl Into<String>) -> &mut Problem {
        self.report.fatal = true;
        self.note(Severity::Error, at, message)
    }

    /// An error that the snapshot answers with a refusal: a reference to what doesn't exist.
    pub(super) fn dangling(&mut self, at: &Spot, message: impl Into<String>) -> &mut Problem {
        let problem = self.note(Severity::Error, at, message);
        problem.code = Some("IST0101");
        problem
    }

    /// A warning.
    pub(super) fn warn(&mut self, at: &Spot, message: impl Into<String>) -> &mut Problem {
        self.note(Severity::Warning, at, message)
    }

    /// Whether something was noted about this field of the resource, or a field in it.
    pub(super) fn has_told(&self, field: &str) -> bool {
        let own = self.report.problems.iter().rev();
        own.filter(|problem| problem.resource.as_deref() == self.resource)
            .any(|problem| problem.field.as_ref().is_some_and(|at| at.starts_with(field)))
    }

    /// An error about a value of the wrong type or form.
    pub(super) fn wrong(
        &mut self,
        at: &Spot,
        found: impl Into<String>,
        expected: impl Into<String>,
        message: impl Into<String>,
    ) {
        let problem = self.error(at, message);
        problem.found = Some(found.into());
        problem.expected = Some(expected.into());
    }
}

/// A type that a field can have.
pub(super) trait Field: Sized {
    /// What it is called in the reference.
    fn type_name() -> String;
    /// Its own fields, if it has any.
    fn nested() -> Option<RecordDoc> {
        None
    }
    /// The value where the field is absent or null.
    fn absent() -> Self;
    /// Decodes what is there; `None` after noting why it can't.
    fn decode(node: &Node, at: &Spot, cx: &mut Cx<'_>) -> Option<Self>;
}

/// The documentation of a record, for the reference.
#[derive(Clone, Debug)]
pub(super) struct RecordDoc {
    /// The struct's name; records are listed once.
    pub(super) name: &'static str,
    /// Its fields.
    pub(super) fields: fn() -> Vec<FieldDoc>,
    /// Fields of Istio's that aren't supported, and what happens to them.
    pub(super) unsupported: &'static [Unsupported],
}

/// The documentation of a field.
#[derive(Clone, Debug)]
pub(super) struct FieldDoc {
    pub(super) key: &'static str,
    pub(super) type_name: String,
    pub(super) default: &'static str,
    pub(super) doc: &'static str,
    pub(super) nested: Option<RecordDoc>,
}

/// A field of Istio's that isn't supported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsupported {
    pub(super) key: &'static str,
    /// An error, or a warning that it has no effect.
    pub(super) severity: Severity,
    pub(super) why: &'static str,
}

/// Declares a mirror of a part of a resource: struct, decoder and reference in one place, so that
/// they can't differ.
///
/// The text after `=` is the default as the reference shows it; `required` makes absence an error.
macro_rules! record {
    (
        $(#[doc = $doc:literal])*
        struct $name:ident {
            $( $(#[doc = $field_doc:literal])* $key:literal $field:ident: $type:ty = $default:tt, )*
        }
        $(unsupported { $($bad:literal: $severity:ident, $why:literal;)* })?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug)]
        #[allow(dead_code, reason = "names are accepted that mean nothing here; not all are read")]
        pub(crate) struct $name {
            /// Where it stands.
            pub(super) at: $crate::config::decode::Spot,
            $( $(#[doc = $field_doc])* pub(super) $field: $type, )*
        }

        impl $name {
            const UNSUPPORTED: &'static [$crate::config::decode::Unsupported] = &[$($(
                $crate::config::decode::Unsupported {
                    key: $bad,
                    severity: $crate::config::problem::Severity::$severity,
                    why: $why,
                },
            )*)?];
            const KEYS: &'static [&'static str] = &[$($key),*];

            pub(super) fn doc() -> $crate::config::decode::RecordDoc {
                $crate::config::decode::RecordDoc {
                    name: stringify!($name),
                    fields: || vec![$($crate::config::decode::FieldDoc {
                        key: $key,
                        type_name: <$type as $crate::config::decode::Field>::type_name(),
                        default: record!(@default $default),
                        doc: concat!($($field_doc),*),
                        nested: <$type as $crate::config::decode::Field>::nested(),
                    }),*],
                    unsupported: Self::UNSUPPORTED,
                }
            }

            pub(super) fn decode_record(
                node: &$crate::config::yaml::Node,
                at: &$crate::config::decode::Spot,
                cx: &mut $crate::config::decode::Cx<'_>,
            ) -> Option<Self> {
                let mut entries =
                    $crate::config::decode::Entries::new(node, at, cx, Self::KEYS, Self::UNSUPPORTED)?;
                let record = Self {
                    $( $field: entries.take::<$type>($key, record!(@required $default), cx), )*
                    at: at.clone(),
                };
                Some(record)
            }
        }

        impl $crate::config::decode::Record for $name {
            fn doc() -> $crate::config::decode::RecordDoc {
                Self::doc()
            }
            fn decode_record(
                node: &$crate::config::yaml::Node,
                at: &$crate::config::decode::Spot,
                cx: &mut $crate::config::decode::Cx<'_>,
            ) -> Option<Self> {
                Self::decode_record(node, at, cx)
            }
        }
    };
    (@default required) => { "required" };
    (@default $default:literal) => { $default };
    (@required required) => { true };
    (@required $default:literal) => { false };
}

/// Declares an enum of texts.
macro_rules! choice {
    ($(#[doc = $doc:literal])* enum $name:ident { $( $(#[doc = $variant_doc:literal])* $variant:ident = $text:literal, )* }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum $name { $( $(#[doc = $variant_doc])* $variant, )* }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)* })
            }
        }

        impl $crate::config::decode::Scalar for $name {
            fn type_name() -> String {
                [$($text),*].map(|text| format!("`{text}`")).join(", ")
            }
            fn expected() -> String {
                concat!("one of" $(, " ", $text)*).into()
            }
            fn parse(value: &$crate::config::yaml::Value) -> Option<Self> {
                match value {
                    $crate::config::yaml::Value::Text(text) => match text.as_str() {
                        $($text => Some(Self::$variant),)*
                        _ => None,
                    },
                    _ => None,
                }
            }
        }
    };
}

pub(super) use {choice, record};

/// A struct that [`record!`] made.
pub(super) trait Record: Sized {
    fn doc() -> RecordDoc;
    fn decode_record(node: &Node, at: &Spot, cx: &mut Cx<'_>) -> Option<Self>;
}

/// The entries of a mapping that is being decoded.
pub(super) struct Entries<'a> {
    at: &'a Spot,
    entries: Vec<(&'static str, u64, &'a Node)>,
}

impl<'a> Entries<'a> {
    /// Sorts the entries of a mapping by the known keys, and notes all others.
    pub(super) fn new(
        node: &'a Node,
        at: &'a Spot,
        cx: &mut Cx<'_>,
        keys: &'static [&'static str],
        unsupported: &'static [Unsupported],
    ) -> Option<Self> {
        let Value::Map(map) = &node.value else {
            cx.wrong(at, node.value.describe(), "a mapping", "wrong type");
            return None;
        };
        let mut entries = Vec::with_capacity(map.len());
        for (key, value) in map {
            let spot = |text: &str| at.step(key.line, Step::Key(text.into()));
            if let Some(known) = keys.iter().find(|known| **known == key.text) {
                entries.push((*known, key.line, value));
            } else if let Some(bad) = unsupported.iter().find(|bad| bad.key == key.text) {
                if value.value == Value::Null {
                    continue;
                }
                let place = at.step(key.line, Step::Field(bad.key));
                match bad.severity {
                    Severity::Error => cx.error(&place, format!("not supported: {}", bad.why)),
                    Severity::Warning => cx.warn(&place, format!("has no effect: {}", bad.why)),
                };
            } else if let Some(known) = keys.iter().find(|known| **known == camel(&key.text)) {
                let place = at.step(key.line, Step::Field(known));
                cx.warn(&place, "old spelling of a field; it is accepted").found =
                    Some(format!("{:?}", key.text));
                entries.push((*known, key.line, value));
            } else {
                let mut message =
                    format!("unknown field {:?}; it has no effect", shorten(&key.text));
                let all = keys.iter().copied().chain(unsupported.iter().map(|bad| bad.key));
                if let Some(near) = nearest(&key.text, all) {
                    message += &format!(". Did you mean {near:?}?");
                }
                cx.warn(&spot(&key.text), message);
            }
        }
        Some(Self { at, entries })
    }

    /// Decodes the entry at this key.
    pub(super) fn take<T: Field>(
        &mut self,
        key: &'static str,
        required: bool,
        cx: &mut Cx<'_>,
    ) -> T {
        let mut found = self.entries.iter().filter(|(k, ..)| *k == key);
        let Some((_, line, node)) = found.next().filter(|(.., node)| node.value != Value::Null)
        else {
            if required {
                let place = self.at.field(key);
                cx.wrong(
                    &place,
                    "nothing",
                    T::type_name(),
                    format!("the field {key:?} is missing"),
                );
            }
            return T::absent();
        };
        if found.next().is_some() {
            cx.error(
                &self.at.field(key),
                format!("the field {key:?} is given twice, in two spellings"),
            );
        }
        let place = self.at.step((*line).max(1), Step::Field(key));
        let decoded = T::decode(node, &place, cx);
        decoded.unwrap_or_else(T::absent)
    }
}

/// `sni_hosts` → `sniHosts`.
fn camel(text: &str) -> String {
    let mut upper = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            out.push(c.to_ascii_uppercase());
            upper = false;
        } else {
            out.push(c);
        }
    }
    out
}

/// The name that was probably meant.
pub(super) fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > 64 {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    names
        .map(|name| (strsim::jaro_winkler(&lower, &name.to_ascii_lowercase()), name))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// A value without parts.
pub(super) trait Scalar: Sized {
    fn type_name() -> String;
    fn expected() -> String {
        Self::type_name()
    }
    fn parse(value: &Value) -> Option<Self>;
}

impl<T: Scalar> Field for Option<At<T>> {
    fn type_name() -> String {
        T::type_name()
    }
    fn absent() -> Self {
        None
    }
    fn decode(node: &Node, at: &Spot, cx: &mut Cx<'_>) -> Option<Self> {
        scalar(node, at, cx).map(Some)
    }
}

fn scalar<T: Scalar>(node: &Node, at: &Spot, cx: &mut Cx<'_>) -> Option<At<T>> {
    match T::parse(&node.value) {
        Some(value) => Some(At { value, at: at.clone() }),
        None => {
            cx.wrong(at, node.value.describe(), T::expected(), "wrong value");
            None
        }
    }
}

impl<T: Record> Field for Option<T> {
    fn type_name() -> String {
        "mapping".into()
    }
    fn nested() -> Option<RecordDoc> {
        Some(T::doc())
    }
    fn absent() -> Self {
        None
    }
    fn decode(node: &Node, at: &Spot, cx: &mut Cx<'_>) -> Option<Self> {
        T::decode_record(node, at, cx).map(Some)
    }
}

/// A list of scalars.
pub(super) type List<T> = Vec<At<T>>;

/// A list of records.
#[derive(Clone, Debug)]
pub(super) struct Records<T>(pub(super) Vec<T>);

impl<T: Scalar> Field for Vec<At<T>> {
    fn type_name() -> String {
        format!("list of {}", T::type_name())
    }
    fn absent() -> Self {
        Vec::new()
    }
    fn decode(node: &Node, at: &Spot, cx: &mut Cx<'_>) -> Option<Self> {
        list(node, at, cx, scalar)
    }
}

impl<T: Record> Field for Records<T> {
    fn type_name() -> String {
        "list of mappings".into()
    }
    fn nested() -> Option<RecordDoc> {
        Some(T::doc())
    }
    fn absent() -> Self {
        Self(Vec::new())
    }
    fn decode(node: &Node, at: &Spot, cx: &mut Cx<'_>) -> Option<Self> {
        list(node, at, cx, T::decode_record).map(Self)
    }
}

fn list<T>(
    node: &Node,
    at: &Spot,
    cx: &mut Cx<'_>,
    each: impl Fn(&Node, &Spot, &mut Cx<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let Value::List(items) = &node.value else {
        cx.wrong(at, node.value.describe(), "a list", "wrong type");
        return None;
    };
    let items = items.iter().enumerate();
    Some(
        items.filter_map(|(i, item)| each(item, &at.step(item.line, Step::Index(i)), cx)).collect(),
    )
}

/// A mapping from texts to scalars or records, in file order.
#[derive(Clone, Debug)]
pub(super) struct Dict<T>(pub(super) Vec<(At<String>, T)>);

impl<T: Scalar> Field for Dict<At<T>> {
    fn type_name() -> String {
        format!("mapping of text to {}", T::type_name())
    }
    fn absent() -> Self {
        Self(Vec::new())
    }
    fn decode(node: &Node, at: &Spot, cx: &mut Cx<'_>) -> Option<Self> {
        dict(node, at, cx, scalar)
    }
}

/// A mapping from texts to records.
#[derive(Clone, Debug)]
pub(super) struct RecordDict<T>(pub(super) Dict<T>);

impl<T: Record> Field for RecordDict<T> {
    fn type_name() -> String {
        "mapping of text to mappings".into()
    }
    fn nested() -> Option<RecordDoc> {
        Some(T::doc())
    }
    fn absent() -> Self {
        Self(Dict(Vec::new()))
    }
    fn decode(node: &Node, at: &Spot, cx: &mut Cx<'_>) -> Option<Self> {
        dict(node, at, cx, T::decode_record).map(Self)
    }
}

fn dict<T>(
    node: &Node,
    at: &Spot,
    cx: &mut Cx<'_>,
    each: impl Fn(&Node, &Spot, &mut Cx<'_>) -> Option<T>,
) -> Option<Dict<T>> {
    let Value::Map(entries) = &node.value else {
        cx.wrong(at, node.value.describe(), "a mapping", "wrong type");
        return None;
    };
    let decoded = entries.iter().filter_map(|(key, value)| {
        let at = at.step(key.line, Step::Key(key.text.clone()));
        let value = each(value, &at, cx)?;
        Some((At { value: key.text.clone(), at }, value))
    });
    Some(Dict(decoded.collect()))
}

impl Scalar for String {
    fn type_name() -> String {
        "text".into()
    }
    fn expected() -> String {
        "text (put a number, true or false in quotes)".into()
    }
    fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl Scalar for bool {
    fn type_name() -> String {
        "`true` or `false`".into()
    }
    fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }
}

impl Scalar for u32 {
    fn type_name() -> String {
        "whole number".into()
    }
    fn expected() -> String {
        "a whole number from 0 to 4294967295".into()
    }
    fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::Int(n) => Self::try_from(*n).ok(),
            _ => None,
        }
    }
}

impl Scalar for f64 {
    fn type_name() -> String {
        "number".into()
    }
    #[expect(clippy::cast_precision_loss, reason = "percentages are small")]
    fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::Int(n) => Some(*n as f64),
            Value::Float(n) => Some(*n),
            _ => None,
        }
    }
}

impl Scalar for crate::types::Port {
    fn type_name() -> String {
        "port number".into()
    }
    fn expected() -> String {
        "a port number from 1 to 65535, without quotes".into()
    }
    fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::Int(n) => Self::new(u16::try_from(*n).ok()?),
            _ => None,
        }
    }
}

impl Scalar for Duration {
    fn type_name() -> String {
        "duration (`1h`, `1m`, `1s`, `1ms`)".into()
    }
    fn expected() -> String {
        "a duration such as 10s, 1.5s, 500ms, 2m or 1h30m".into()
    }
    fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => duration(text),
            _ => None,
        }
    }
}

/// Go's form of a duration, without sign: `1h30m`, `1.5s`; at most ten years.
fn duration(text: &str) -> Option<Duration> {
    const MOST: f64 = 10.0 * 366.0 * 86_400.0;
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty() && seconds <= MOST).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("10s", 10_000),
            ("1.5s", 1_500),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("0", 0),
            ("2m", 120_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1x", "1s2", "1e3s", "99999999h", "1..s", " 1s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn the_nearest_name_is_offered() {
        let names = ["hosts", "ports", "resolution"];
        assert_eq!(nearest("host", names.into_iter()), Some("hosts"));
        assert_eq!(nearest("Resolutions", names.into_iter()), Some("resolution"));
        assert_eq!(nearest("selector", names.into_iter()), None);
    }
}
