//! Who a resource is, and what every resource has beside its `spec`.

use std::rc::Rc;

use super::{
    annotations::Annotations,
    decode::{Cx, Report, SourcePosition, nearest},
    yaml::{Node, Value, shorten},
};
use crate::types::{Namespace, steps};

/// Who a resource is.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    /// Its file.
    pub(super) file: Rc<str>,
    /// Its name.
    pub(super) name: String,
    /// Its namespace.
    pub(super) namespace: Namespace,
    /// `VirtualService default/name`.
    pub(super) label: String,
    /// The line that it begins on.
    pub(super) line: u64,
    /// `metadata.creationTimestamp`, where there is one: of two, the lesser text is the older.
    pub(super) created: Option<Box<str>>,
    /// Its annotations.
    pub(super) annotations: Annotations,
}

impl Meta {
    /// `default/name`.
    pub(super) fn full_name(&self) -> String {
        steps::count(1);
        format!("{}/{}", self.namespace.0, self.name)
    }

    /// A report on this resource.
    pub(super) fn cx<'a>(&'a self, report: &'a mut Report) -> Cx<'a> {
        Cx { report, file: &self.file, resource: Some(&self.label) }
    }

    /// `file:line`, to point from one resource to another.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// Warns about fields beside `spec` that no resource has.
pub(super) fn warn_about_unknown(node: &Node, cx: &mut Cx<'_>) {
    const KNOWN: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
    let Value::Map(entries) = &node.value else { return };
    for (key, _) in entries.iter().filter(|(key, _)| !KNOWN.contains(&key.text.as_str())) {
        let mut message = format!("unknown field {:?}; it has no effect", shorten(&key.text));
        if let Some(near) = nearest(&key.text, KNOWN.into_iter()) {
            message += &format!(". Did you mean {near:?}?");
        }
        cx.warn(&SourcePosition::root(key.line, ""), message);
    }
}
