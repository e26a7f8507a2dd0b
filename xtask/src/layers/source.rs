//! A crate as a tree of modules: what each defines, imports and names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Item, ItemUse, UseTree, Visibility};

/// A path as it is written: `super`, `x`, `Y`.
pub(super) type Segments = Vec<String>;

/// An import of one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Import {
    pub(super) path: Segments,
    /// The name that it has here; `None` for `*` and `_`.
    pub(super) name: Option<String>,
    pub(super) glob: bool,
    /// Other modules can see it: it has a visibility.
    pub(super) public: bool,
}

/// A module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Module {
    /// Items that are defined here.
    pub(super) items: BTreeSet<String>,
    pub(super) imports: Vec<Import>,
    /// Paths that its code names.
    pub(super) paths: BTreeSet<Segments>,
}

/// A crate's modules by their paths below its root; the root's path is empty.
#[derive(Clone, Debug)]
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) modules: BTreeMap<Segments, Module>,
}

impl Crate {
    /// Reads the crate whose root is this file.
    pub(super) fn read(name: &str, root: &Path) -> Result<Self> {
        let mut tree = Self { name: name.to_owned(), modules: BTreeMap::new() };
        let directory = root.parent().context("a crate's root has no directory")?;
        tree.file(root, directory, Vec::new())?;
        Ok(tree)
    }

    /// `directory` is where files of its children are.
    fn file(&mut self, file: &Path, directory: &Path, path: Segments) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let parsed = syn::parse_file(&text).with_context(|| file.display().to_string())?;
        self.module(parsed.items, file.parent().unwrap_or(file), directory, path)
    }

    /// `place` is where the file is that holds the module: a `#[path]` starts there.
    #[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
    fn module(
        &mut self,
        items: Vec<Item>,
        place: &Path,
        directory: &Path,
        path: Segments,
    ) -> Result<()> {
        let mut module = Module::default();
        for item in items {
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let below = path.iter().chain([&name]).cloned().collect();
                    let inner = directory.join(&name);
                    match child.content {
                        Some((_, items)) => self.module(items, &inner, &inner, below)?,
                        None => {
                            let shared = child.attrs.iter().find_map(path_attribute);
                            let file = match shared {
                                Some(shared) => place.join(shared),
                                None => file_of(directory, &name)?,
                            };
                            self.file(&file, &inner, below)?;
                        }
                    }
                }
                Item::Use(import) => module.import(&import),
                item => {
                    module.items.extend(defined(&item));
                    module.scan(item.into_token_stream());
                }
            }
        }
        self.modules.insert(path, module);
        Ok(())
    }
}

/// The value of `#[path = "…"]`: a file that another target shares.
fn path_attribute(attribute: &syn::Attribute) -> Option<String> {
    let value =
        attribute.meta.require_name_value().ok().filter(|pair| pair.path.is_ident("path"))?;
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &value.value else {
        return None;
    };
    Some(text.value())
}

/// `name.rs` or `name/mod.rs`.
fn file_of(directory: &Path, name: &str) -> Result<PathBuf> {
    let files = [directory.join(format!("{name}.rs")), directory.join(name).join("mod.rs")];
    match files.iter().find(|file| file.is_file()) {
        Some(file) => Ok(file.clone()),
        None => bail!("module {name} has no file in {}", directory.display()),
    }
}

/// The name that an item defines, if it is known without expanding a macro.
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn defined(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

impl Module {
    fn import(&mut self, item: &ItemUse) {
        let public = !matches!(item.vis, Visibility::Inherited);
        let mut found = Vec::new();
        flatten(&item.tree, Vec::new(), &mut found);
        self.imports.extend(found.into_iter().map(|import| Import { public, ..import }));
    }

    /// Collects every path of a piece of code, inside of macros too.
    fn scan(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    self.scan(group.stream());
                    at += 1;
                }
                // `pub(in a::b)` says who may see it, and uses nothing.
                TokenTree::Ident(word) if word == "pub" && is_parenthesis(tokens.get(at + 1)) => {
                    at += 2;
                }
                TokenTree::Ident(_) if !follows_a_dot(&tokens, at) => {
                    at = self.path(&tokens, at, Vec::new());
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
            }
        }
    }

    /// Takes a path that begins at `at`, below `prefix`; returns what comes after it.
    fn path(&mut self, tokens: &[TokenTree], mut at: usize, prefix: Segments) -> usize {
        let nested = !prefix.is_empty();
        let mut path = prefix;
        while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
            path.push(ident.to_string());
            at += 1;
            if !(is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')) {
                break;
            }
            at += 2;
            // `use a::{b, c}` inside of a function.
            if let Some(TokenTree::Group(group)) = tokens.get(at)
                && group.delimiter() == Delimiter::Brace
            {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for part in inner.split(|token| is_punct(Some(token), ',')) {
                    if !part.is_empty() {
                        self.path(part, 0, path.clone());
                    }
                }
                return at + 1;
            }
        }
        // `name!(…)` is a macro, `name != …` a comparison.
        let is_macro = is_punct(tokens.get(at), '!') && !is_punct(tokens.get(at + 1), '=');
        let called = is_parenthesis(tokens.get(at)) || is_macro;
        // A single word in lower case is most likely a variable, unless it is called.
        let is_type = path.first().is_some_and(|word| word.starts_with(char::is_uppercase));
        if path.len() > 1 || nested || is_type || called {
            self.paths.insert(path);
        }
        at
    }
}

fn is_parenthesis(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

/// Fields and methods; `..` is a range or the rest of a struct.
fn follows_a_dot(tokens: &[TokenTree], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|index| tokens.get(index));
    is_punct(before(1), '.') && !is_punct(before(2), '.')
}

fn flatten(tree: &UseTree, mut prefix: Segments, found: &mut Vec<Import>) {
    let single =
        |path: Segments, name: Option<String>, glob| Import { path, name, glob, public: false };
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, found);
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, prefix.clone(), found);
            }
        }
        UseTree::Name(name) if name.ident == "self" => {
            let last = prefix.last().cloned();
            found.push(single(prefix, last, false));
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            prefix.push(name.clone());
            found.push(single(prefix, Some(name), false));
        }
        UseTree::Rename(rename) => {
            if rename.ident != "self" {
                prefix.push(rename.ident.to_string());
            }
            let name = rename.rename.to_string();
            found.push(single(prefix, (name != "_").then_some(name), false));
        }
        UseTree::Glob(_) => found.push(single(prefix, None, true)),
    }
}
