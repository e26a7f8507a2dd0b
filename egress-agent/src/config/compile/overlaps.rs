//! Two resources for the same host that are in each other's way: some namespace sees both, and neither,
//! or each, is its own.

use std::collections::HashMap;

use crate::{policy::Exported, types::Namespace};

/// The resources for one host so far, by who sees them. The first one that is in the way of another
/// is found without asking each: thousands of namespaces may declare the same host for themselves.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// Those that all see.
    to_all: FirstByNamespace,
    /// Those that are exported to namespaces, by these.
    seen: HashMap<Namespace, ExportedTo>,
    /// By a namespace that is not their own: those that are exported to namespaces.
    abroad: FirstByNamespace,
}

/// What a namespace sees of those that are exported to namespaces.
#[derive(Debug, Default)]
struct ExportedTo {
    /// The first of its own.
    own: Option<usize>,
    /// The first of another namespace.
    foreign: Option<usize>,
}

/// The first of all, and the first of another namespace than that one's.
#[derive(Debug, Default)]
struct FirstByNamespace {
    by_namespace: HashMap<Namespace, usize>,
    first: Option<(Namespace, usize)>,
    second: Option<usize>,
}

impl FirstByNamespace {
    fn add(&mut self, namespace: &Namespace, item: usize) {
        self.by_namespace.entry(namespace.clone()).or_insert(item);
        match &self.first {
            None => self.first = Some((namespace.clone(), item)),
            Some((first, _)) if first != namespace => {
                self.second.get_or_insert(item);
            }
            Some(_) => {}
        }
    }

    fn of(&self, namespace: &Namespace) -> Option<usize> {
        self.by_namespace.get(namespace).copied()
    }

    fn not_of(&self, namespace: &Namespace) -> Option<usize> {
        let (first, item) = self.first.as_ref()?;
        if first == namespace { self.second } else { Some(*item) }
    }
}

impl Declared {
    /// The first that is in the way of a new one, which is added. Items are added in ascending order.
    pub(super) fn add(
        &mut self,
        item: usize,
        (namespace, exported): (&Namespace, &Exported),
    ) -> Option<usize> {
        let first = self.first((namespace, exported));
        match exported {
            Exported::All => self.to_all.add(namespace, item),
            Exported::To(names) => {
                for name in names {
                    let seen = self.seen.entry(name.clone()).or_default();
                    let place = if name == namespace { &mut seen.own } else { &mut seen.foreign };
                    place.get_or_insert(item);
                    if name != namespace {
                        self.abroad.add(name, item);
                    }
                }
            }
        }
        first
    }

    fn first(&self, (namespace, exported): (&Namespace, &Exported)) -> Option<usize> {
        match exported {
            Exported::All => {
                let first = self.to_all.first.as_ref().map(|(_, item)| *item);
                let own = self.seen.get(namespace).and_then(|seen| seen.own);
                [first, own, self.abroad.not_of(namespace)].into_iter().flatten().min()
            }
            Exported::To(names) => {
                let by_name = names.iter().flat_map(|name| {
                    let seen = self.seen.get(name);
                    if name == namespace {
                        [self.to_all.of(name), seen.and_then(|seen| seen.own)]
                    } else {
                        [self.to_all.not_of(name), seen.and_then(|seen| seen.foreign)]
                    }
                });
                by_name.flatten().min()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// The definition.
    fn overlaps(a: (&Namespace, &Exported), b: (&Namespace, &Exported)) -> bool {
        match (a.1, b.1) {
            (Exported::All, Exported::All) => true,
            (Exported::All, Exported::To(names)) | (Exported::To(names), Exported::All) => {
                names.iter().any(|name| (name == a.0) == (name == b.0))
            }
            (Exported::To(names), Exported::To(others)) => names
                .iter()
                .filter(|name| others.contains(name))
                .any(|name| (name == a.0) == (name == b.0)),
        }
    }

    fn namespaces() -> impl Strategy<Value = Namespace> {
        select(vec!["a", "b", "c", "d"]).prop_map(|name| Namespace(name.into()))
    }

    fn resources() -> impl Strategy<Value = (Namespace, Exported)> {
        let exported = prop_oneof![
            1 => Just(Exported::All),
            3 => vec(namespaces(), 0..3).prop_map(|mut names| {
                names.sort_unstable();
                names.dedup();
                Exported::To(names)
            }),
        ];
        (namespaces(), exported)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_first_in_the_way_is_that_of_a_search(resources in vec(resources(), 0..8)) {
            let mut declared = Declared::default();
            for (item, (namespace, exported)) in resources.iter().enumerate() {
                let own = (namespace, exported);
                let earlier = resources[..item].iter();
                let expected = earlier.map(|(ns, to)| (ns, to)).position(|o| overlaps(o, own));
                prop_assert_eq!(declared.add(item, own), expected, "{:?}", resources);
            }
        }
    }
}
