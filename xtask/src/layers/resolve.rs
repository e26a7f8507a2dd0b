//! From names to the modules that define what they stand for.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Crate, Import, Segments};

/// A module of any crate: the crate's name, then the path.
pub(super) type Name = Segments;

/// The graph's edges.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Edges {
    /// Modules, with those whose items they use.
    pub(super) uses: BTreeMap<Name, BTreeSet<Name>>,
    /// Modules, with those that they name, whatever these re-export.
    pub(super) names: BTreeMap<Name, BTreeSet<Name>>,
}

impl Edges {
    /// How many modules there are.
    pub(super) fn modules(&self) -> usize {
        self.uses.len()
    }
}

/// Re-exports that may lead to each other.
const DEPTH: usize = 32;

/// All edges of these crates.
pub(super) fn edges(crates: &[Crate]) -> Edges {
    let resolver =
        Resolver { crates: crates.iter().map(|tree| (tree.name.as_str(), tree)).collect() };
    let mut edges = Edges::default();
    for tree in crates {
        for (path, module) in &tree.modules {
            let from = name(&tree.name, path);
            let mut uses = BTreeSet::new();
            let mut names = BTreeSet::new();
            for import in &module.imports {
                let mut found = resolver.import(tree, path, import);
                names.extend(resolver.module_named(tree, path, &import.path));
                // A façade: its own children.
                if import.public {
                    found.retain(|to| !to.starts_with(&from) || *to == from);
                }
                uses.extend(found);
            }
            for written in &module.paths {
                uses.extend(resolver.path(tree, path, written, DEPTH));
                names.extend(resolver.module_named(tree, path, written));
            }
            uses.remove(&from);
            edges.uses.insert(from.clone(), uses);
            edges.names.insert(from, names);
        }
    }
    edges
}

fn name(tree: &str, path: &[String]) -> Name {
    std::iter::once(tree.to_owned()).chain(path.iter().cloned()).collect()
}

struct Resolver<'a> {
    crates: BTreeMap<&'a str, &'a Crate>,
}

impl<'a> Resolver<'a> {
    /// The modules that an import is an edge to.
    fn import(&self, tree: &'a Crate, at: &[String], import: &Import) -> BTreeSet<Name> {
        if !import.glob {
            return self.path(tree, at, &import.path, DEPTH);
        }
        let Some((tree, module)) = self.walk(tree, at, &import.path) else {
            return BTreeSet::new();
        };
        let mut found = BTreeSet::from([name(&tree.name, &module)]);
        if let Some(contents) = tree.modules.get(&module) {
            for exported in contents.imports.iter().filter(|import| import.public && !import.glob) {
                found.extend(self.path(tree, &module, &exported.path, DEPTH));
            }
        }
        found
    }

    /// The modules that define what a path, written in the module `at`, stands for. None for what is of
    /// another crate or the standard library.
    fn path(
        &self,
        tree: &'a Crate,
        at: &[String],
        path: &[String],
        depth: usize,
    ) -> BTreeSet<Name> {
        let mut found = BTreeSet::new();
        if depth == 0 {
            return found;
        }
        let Some((tree, mut module, mut rest)) = self.begin(tree, at, path) else {
            return found;
        };
        loop {
            let Some((first, more)) = rest.split_first() else {
                found.insert(name(&tree.name, &module));
                return found;
            };
            let Some(contents) = tree.modules.get(&module) else { return found };
            let child: Segments = module.iter().chain([first]).cloned().collect();
            let item = contents.items.contains(first);
            if tree.modules.contains_key(&child) && !(more.is_empty() && item) {
                module = child;
                rest = more;
                continue;
            }
            let imports = contents.imports.iter();
            let named: Vec<_> =
                imports.filter(|import| import.name.as_ref() == Some(first)).collect();
            if item || (named.is_empty() && !contents.imports.iter().any(|import| import.glob)) {
                // What a macro makes is defined where the macro is used.
                if item || path.len() > 1 {
                    found.insert(name(&tree.name, &module));
                }
                return found;
            }
            for import in named {
                let through: Segments = import.path.iter().chain(more).cloned().collect();
                found.extend(self.path(tree, &module, &through, depth - 1));
            }
            if found.is_empty() {
                for import in contents.imports.iter().filter(|import| import.glob) {
                    let through: Segments = import.path.iter().chain(rest).cloned().collect();
                    found.extend(self.defined(tree, &module, &through, depth - 1));
                }
            }
            return found;
        }
    }

    /// As [`Self::path`], but only where the last module really defines the name: a guess through `*`.
    fn defined(
        &self,
        tree: &'a Crate,
        at: &[String],
        path: &[String],
        depth: usize,
    ) -> BTreeSet<Name> {
        let Some(last) = path.last() else { return BTreeSet::new() };
        let mut found = self.path(tree, at, path, depth);
        found.retain(|module| {
            let (tree, path) = module.split_first().unwrap_or((last, &[]));
            let contents = self.crates.get(tree.as_str()).and_then(|tree| tree.modules.get(path));
            contents.is_some_and(|contents| contents.items.contains(last))
        });
        found
    }

    /// The module that a path names, without what it names in it.
    fn module_named(&self, tree: &'a Crate, at: &[String], path: &[String]) -> Option<Name> {
        let (tree, module) = self.walk(tree, at, path)?;
        Some(name(&tree.name, &module))
    }

    /// The deepest module that a path names by itself, not through re-exports.
    fn walk(
        &self,
        tree: &'a Crate,
        at: &[String],
        path: &[String],
    ) -> Option<(&'a Crate, Segments)> {
        let (tree, mut module, rest) = self.begin(tree, at, path)?;
        for segment in rest {
            let child: Segments = module.iter().chain([segment]).cloned().collect();
            if !tree.modules.contains_key(&child) {
                break;
            }
            module = child;
        }
        Some((tree, module))
    }

    /// Where a path begins, and what of it is left.
    fn begin<'p>(
        &self,
        tree: &'a Crate,
        at: &[String],
        path: &'p [String],
    ) -> Option<(&'a Crate, Segments, &'p [String])> {
        let (first, mut rest) = path.split_first()?;
        let mut module = at.to_vec();
        match first.as_str() {
            "crate" => return Some((tree, Vec::new(), rest)),
            "self" => {}
            "super" => {
                module.pop()?;
                while rest.first().is_some_and(|next| next == "super") {
                    module.pop()?;
                    rest = &rest[1..];
                }
            }
            other => {
                let contents = tree.modules.get(&module)?;
                let child: Segments = module.iter().chain([first]).cloned().collect();
                let here = contents.items.contains(first)
                    || contents.imports.iter().any(|import| import.name.as_ref() == Some(first))
                    || tree.modules.contains_key(&child);
                if here {
                    return Some((tree, module, path));
                }
                if let Some(tree) = self.crates.get(other) {
                    return Some((tree, Vec::new(), rest));
                }
                let globs = contents.imports.iter().any(|import| import.glob);
                return globs.then_some((tree, module, path));
            }
        }
        Some((tree, module, rest))
    }
}
