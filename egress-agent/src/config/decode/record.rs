//! The macros that declare mirrors, and what their decoders stand on.

use super::{Cx, Field, NOTHING, RecordDoc, Severity, SourcePosition, Step, Unsupported};
use crate::config::yaml::{Node, Value, shorten};

/// Declares a mirror of a part of a resource: struct, decoder and reference in one place, so that
/// they can't differ.
///
/// The text after `=` is the default as the reference shows it; `required` makes absence an error. What is in
/// `translated` no file can say: it is there for resources that others are translated to.
macro_rules! record {
    (
        $(#[doc = $doc:literal])*
        struct $name:ident {
            $( $(#[doc = $field_doc:literal])* $key:literal $field:ident: $type:ty = $default:tt, )*
        }
        $(unsupported { $($bad:literal: $severity:ident, $why:literal;)* })?
        $(translated { $( $(#[doc = $own_doc:literal])* $own:ident: $own_type:ty; )* })?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug)]
        #[allow(dead_code, reason = "names are accepted that mean nothing here; not all are read")]
        pub(crate) struct $name {
            /// Where it stands.
            pub(super) at: $crate::config::decode::SourcePosition,
            $( $(#[doc = $field_doc])* pub(super) $field: $type, )*
            $($( $(#[doc = $own_doc])* pub(super) $own: $own_type, )*)?
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
                at: &$crate::config::decode::SourcePosition,
                cx: &mut $crate::config::decode::Cx<'_>,
            ) -> Option<Self> {
                let mut entries =
                    $crate::config::decode::Entries::new(node, at, cx, Self::KEYS, Self::UNSUPPORTED)?;
                let record = Self {
                    $( $field: entries.take::<$type>($key, record!(@required $default), cx), )*
                    $($( $own: Default::default(), )*)?
                    at: at.clone(),
                };
                Some(record)
            }

            #[allow(dead_code, reason = "only what another resource is translated to is made so")]
            pub(super) fn empty(at: &$crate::config::decode::SourcePosition) -> Self {
                Self {
                    $( $field: <$type as $crate::config::decode::Field>::absent(), )*
                    $($( $own: Default::default(), )*)?
                    at: at.clone(),
                }
            }
        }

        impl $crate::config::decode::Record for $name {
            fn doc() -> $crate::config::decode::RecordDoc {
                Self::doc()
            }
            fn decode_record(
                node: &$crate::config::yaml::Node,
                at: &$crate::config::decode::SourcePosition,
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
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
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
                let $crate::config::yaml::Value::Text(text) = value else { return None };
                match text.as_str() {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

/// A struct that [`record!`] made.
pub(in crate::config) trait Record: Sized {
    fn doc() -> RecordDoc;
    fn decode_record(node: &Node, at: &SourcePosition, cx: &mut Cx<'_>) -> Option<Self>;
}

/// The entries of a mapping that is being decoded.
pub(in crate::config) struct Entries<'a> {
    at: &'a SourcePosition,
    entries: Vec<(&'static str, u64, &'a Node)>,
    /// Whether a field that isn't supported was refused: it may have stood for what is missing.
    refused: bool,
}

impl<'a> Entries<'a> {
    /// Sorts the entries of a mapping by the known keys, and notes all others.
    pub(in crate::config) fn new(
        node: &'a Node,
        at: &'a SourcePosition,
        cx: &mut Cx<'_>,
        keys: &'static [&'static str],
        unsupported: &'static [Unsupported],
    ) -> Option<Self> {
        let Value::Map(map) = &node.value else {
            cx.wrong(at, node.value.describe(), "a mapping", "wrong type");
            return None;
        };
        let mut entries = Vec::with_capacity(map.len());
        let mut refused = false;
        for (key, value) in map {
            let spot = |text: &str| at.step(key.line, Step::Key(text.into()));
            if let Some(known) = keys.iter().find(|known| **known == key.text) {
                entries.push((*known, key.line, value));
            } else if let Some(bad) = unsupported.iter().find(|bad| bad.key == key.text) {
                if value.value == Value::Null {
                    continue;
                }
                let place = at.step(key.line, Step::Field(bad.key));
                refused |= bad.severity != Severity::Warning;
                match bad.severity {
                    Severity::Error | Severity::Refusal => cx.unsupported(bad, at, &place),
                    Severity::Warning => {
                        cx.warn(&place, format!("has no effect: {}", bad.why));
                    }
                }
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
        Some(Self { at, entries, refused })
    }

    /// Decodes the entry at this key.
    pub(in crate::config) fn take<T: Field>(
        &mut self,
        key: &'static str,
        required: bool,
        cx: &mut Cx<'_>,
    ) -> T {
        let mut found = self.entries.iter().filter(|(k, ..)| *k == key);
        let Some((_, line, node)) = found.next().filter(|(.., node)| node.value != Value::Null)
        else {
            if required && !self.refused {
                let place = self.at.field(key);
                cx.wrong(&place, NOTHING, T::type_name(), format!("the field {key:?} is missing"));
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
pub(in crate::config) fn nearest<'a>(
    text: &str,
    names: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
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

pub(in crate::config) use {choice, record};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered() {
        let names = ["hosts", "ports", "resolution"];
        assert_eq!(nearest("host", names.into_iter()), Some("hosts"));
        assert_eq!(nearest("Resolutions", names.into_iter()), Some("resolution"));
        assert_eq!(nearest("selector", names.into_iter()), None);
    }
}
