//! Fields of every shape: scalars, records, lists and mappings of them.

use super::{Cx, Field, Record, RecordDoc, Scalar, SourcePosition, Spanned, Step};
use crate::config::yaml::{Node, Value};

impl<T: Scalar> Field for Option<Spanned<T>> {
    fn type_name() -> String {
        T::type_name()
    }
    fn absent() -> Self {
        None
    }
    fn decode(node: &Node, at: &SourcePosition, cx: &mut Cx<'_>) -> Option<Self> {
        scalar(node, at, cx).map(Some)
    }
}

fn scalar<T: Scalar>(node: &Node, at: &SourcePosition, cx: &mut Cx<'_>) -> Option<Spanned<T>> {
    match T::parse(&node.value) {
        Some(value) => Some(Spanned { value, at: at.clone() }),
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
    fn decode(node: &Node, at: &SourcePosition, cx: &mut Cx<'_>) -> Option<Self> {
        T::decode_record(node, at, cx).map(Some)
    }
}

/// A list of scalars.
pub(in crate::config) type List<T> = Vec<Spanned<T>>;

/// A list of records.
#[derive(Clone, Debug)]
pub(in crate::config) struct Records<T>(pub(in crate::config) Vec<T>);

impl<T: Scalar> Field for Vec<Spanned<T>> {
    fn type_name() -> String {
        format!("list of {}", T::type_name())
    }
    fn absent() -> Self {
        Vec::new()
    }
    fn decode(node: &Node, at: &SourcePosition, cx: &mut Cx<'_>) -> Option<Self> {
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
    fn decode(node: &Node, at: &SourcePosition, cx: &mut Cx<'_>) -> Option<Self> {
        list(node, at, cx, T::decode_record).map(Self)
    }
}

/// A list of records where an empty one isn't the same as none.
impl<T: Record> Field for Option<Records<T>> {
    fn type_name() -> String {
        Records::<T>::type_name()
    }
    fn nested() -> Option<RecordDoc> {
        Some(T::doc())
    }
    fn absent() -> Self {
        None
    }
    fn decode(node: &Node, at: &SourcePosition, cx: &mut Cx<'_>) -> Option<Self> {
        Records::<T>::decode(node, at, cx).map(Some)
    }
}

/// A list of scalars where an empty one isn't the same as none.
impl<T: Scalar> Field for Option<Vec<Spanned<T>>> {
    fn type_name() -> String {
        List::<T>::type_name()
    }
    fn absent() -> Self {
        None
    }
    fn decode(node: &Node, at: &SourcePosition, cx: &mut Cx<'_>) -> Option<Self> {
        List::<T>::decode(node, at, cx).map(Some)
    }
}

fn list<T>(
    node: &Node,
    at: &SourcePosition,
    cx: &mut Cx<'_>,
    each: impl Fn(&Node, &SourcePosition, &mut Cx<'_>) -> Option<T>,
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
pub(in crate::config) struct Dict<T>(pub(in crate::config) Vec<(Spanned<String>, T)>);

impl<T: Scalar> Field for Dict<Spanned<T>> {
    fn type_name() -> String {
        format!("mapping of text to {}", T::type_name())
    }
    fn absent() -> Self {
        Self(Vec::new())
    }
    fn decode(node: &Node, at: &SourcePosition, cx: &mut Cx<'_>) -> Option<Self> {
        dict(node, at, cx, scalar)
    }
}

/// A mapping from texts to records.
#[derive(Clone, Debug)]
pub(in crate::config) struct RecordDict<T>(pub(in crate::config) Dict<T>);

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
    fn decode(node: &Node, at: &SourcePosition, cx: &mut Cx<'_>) -> Option<Self> {
        dict(node, at, cx, T::decode_record).map(Self)
    }
}

fn dict<T>(
    node: &Node,
    at: &SourcePosition,
    cx: &mut Cx<'_>,
    each: impl Fn(&Node, &SourcePosition, &mut Cx<'_>) -> Option<T>,
) -> Option<Dict<T>> {
    let Value::Map(entries) = &node.value else {
        cx.wrong(at, node.value.describe(), "a mapping", "wrong type");
        return None;
    };
    let decoded = entries.iter().filter_map(|(key, value)| {
        let at = at.step(key.line, Step::Key(key.text.clone()));
        let value = each(value, &at, cx)?;
        Some((Spanned { value: key.text.clone(), at }, value))
    });
    Some(Dict(decoded.collect()))
}
