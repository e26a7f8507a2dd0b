//! Who sees what: `exportTo`, and which of several resources a namespace uses.

use std::sync::Arc;

use crate::types::{Namespace, Source};

/// `exportTo`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Exported {
    /// To all.
    All,
    /// To workloads in these namespaces. One that isn't known is in none.
    To(Vec<Namespace>),
}

impl Exported {
    /// Whether a workload there sees it.
    #[must_use]
    pub fn includes(&self, namespace: Option<&Namespace>) -> bool {
        match self {
            Self::All => true,
            Self::To(all) => namespace.is_some_and(|namespace| all.contains(namespace)),
        }
    }

    /// Whether this source sees it.
    #[must_use]
    pub fn sees(&self, source: &Source) -> bool {
        self.includes(source.namespace())
    }
}

/// What belongs to a namespace and is exported to some.
pub trait Scoped {
    /// The namespace that it belongs to.
    fn namespace(&self) -> &Namespace;
    /// The namespaces that see it.
    fn exported(&self) -> &Exported;
}

impl<T: Scoped> Scoped for Arc<T> {
    fn namespace(&self) -> &Namespace {
        T::namespace(self)
    }
    fn exported(&self) -> &Exported {
        T::exported(self)
    }
}

/// The one that a namespace uses, of several for the same host: the first of its own, or else the
/// first that it sees. The list begins with the oldest.
pub fn preferred<'a, T: Scoped>(all: &'a [T], client: Option<&Namespace>) -> Option<&'a T> {
    let mut visible = all.iter().filter(|one| one.exported().includes(client));
    let first = visible.next()?;
    if Some(first.namespace()) == client {
        return Some(first);
    }
    Some(visible.find(|one| Some(one.namespace()) == client).unwrap_or(first))
}
