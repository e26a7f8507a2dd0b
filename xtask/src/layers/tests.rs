//! On small trees of sources that are made up.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::{source::Crate, *};

/// The edges of a crate of these files.
fn edges_of(files: &[(&str, &str)]) -> resolve::Edges {
    let dir = TempDir::new().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    edges(&[Crate::read("made_up", &dir.path().join("lib.rs")).unwrap()])
}

/// The modules of each cycle.
fn cycles_of(files: &[(&str, &str)]) -> Vec<String> {
    cycles(&edges_of(files)).into_iter().map(|cycle| cycle.modules.join(" ")).collect()
}

#[test]
fn a_chain_is_no_cycle() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B; pub fn f(_: B) {}"),
        ("b.rs", "pub struct B(super::c::C);"),
        ("c.rs", "pub struct C;"),
    ];
    assert_eq!(cycles_of(&files), Vec::<String>::new());
}

#[test]
fn a_file_that_another_target_shares_is_read_where_it_is() {
    let files = [
        ("lib.rs", "mod a;"),
        ("a.rs", "#[path = \"other/b.rs\"] mod b; pub struct A(b::B);"),
        ("other/b.rs", "pub struct B(Box<super::A>);"),
    ];
    assert_eq!(cycles_of(&files), ["made_up::a made_up::a::b"]);
}

#[test]
fn a_deliberate_cycle_is_found_however_it_is_written() {
    for back in [
        "use crate::a::A; pub struct C;",
        "use super::a::{A}; pub struct C;",
        "pub struct C(crate::a::A);",
        "pub struct C; fn f() -> String { format!(\"{}\", crate::a::A) }",
        "pub struct C; fn f() { use crate::{a::{A}}; }",
        "pub struct C; macro_rules! m { () => { $crate::a::A } }",
        "use crate::a::*; pub struct C;",
    ] {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "use crate::c::C; pub struct B;"),
            ("c.rs", back),
        ];
        assert_eq!(cycles_of(&files), ["made_up::a made_up::b made_up::c"], "{back}");
    }
}

#[test]
fn a_facade_is_no_cycle_and_a_parent_that_takes_part_is_one() {
    let child = |text| [("lib.rs", "mod p;"), ("p/one.rs", text), ("p/two.rs", "pub struct Two;")];
    let facade = ("p.rs", "mod one; mod two; pub use one::One; pub(crate) use self::two::Two;");
    // What the child takes from its parent is its sibling's.
    let files = [&child("use super::Two; pub struct One(Two);")[..], &[facade]].concat();
    assert_eq!(cycles_of(&files), Vec::<String>::new());
    // A parent may use its children.
    let user = ("p.rs", "mod one; mod two; use one::One; pub struct P(One);");
    let files = [&child("pub struct One;")[..], &[user]].concat();
    assert_eq!(cycles_of(&files), Vec::<String>::new());
    // A child may use its parent.
    let base = ("p.rs", "mod one; mod two; pub use one::One; pub struct P;");
    let files = [&child("use super::P; pub struct One(P);")[..], &[base]].concat();
    assert_eq!(cycles_of(&files), Vec::<String>::new());
    // Not both, whether the parent imports or re-exports what it uses.
    for parent in [
        "mod one; mod two; use one::One; pub struct P(One);",
        "mod one; mod two; pub use one::One; pub struct P(One);",
        "mod one; mod two; pub struct P(one::One);",
    ] {
        let files = [&child("use super::P; pub struct One;")[..], &[("p.rs", parent)]].concat();
        assert_eq!(cycles_of(&files), ["made_up::p made_up::p::one"], "{parent}");
    }
}

#[test]
fn names_are_followed_through_re_exports_renamed_ones_too() {
    let files = [
        ("lib.rs", "mod a; mod p;"),
        ("a.rs", "use crate::p::Other; pub struct A(Other);"),
        ("p.rs", "mod deep; pub use deep::Deep as Other;"),
        ("p/deep.rs", "pub struct Deep;"),
    ];
    let edges = edges_of(&files);
    let module = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
    let uses = &edges.uses[&module("made_up::a")];
    assert_eq!(uses.iter().collect::<Vec<_>>(), [&module("made_up::p::deep")]);
    assert!(dot(&edges).contains("made_up::p::deep"));
}

#[test]
fn comments_strings_fields_and_methods_name_nothing() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::B; pub struct A { pub b: B }"),
        (
            "b.rs",
            "// crate::a::A\n/// [`crate::a::A`]\npub struct B;\nconst T: &str = \"crate::a::A\";\n\
             fn f<'a>(x: &'a X) { x.a.f(); x.a(); }\n\
             pub(in crate::a) struct V { pub(in crate::a) v: u8 }",
        ),
    ];
    assert_eq!(cycles_of(&files), Vec::<String>::new());
}

#[test]
fn a_comparison_is_no_macro() {
    let child = ("p/one.rs", "use super::P; pub fn one(_: P) {}");
    for (body, expected) in [("one != 0", None), ("one!(0)", Some("made_up::p made_up::p::one"))] {
        let parent =
            format!("mod one; pub use one::one; pub struct P; fn f(one: u8) -> bool {{ {body} }}");
        let files = [("lib.rs", "mod p;"), ("p.rs", &parent), child];
        assert_eq!(cycles_of(&files), expected.into_iter().collect::<Vec<_>>(), "{body}");
    }
}

#[test]
fn imports_upwards_and_sideways_are_found() {
    let layers: &[&[Line]] =
        &[&[(&["top"], "")], &[(&["left"], ""), (&["right"], "")], &[(&["low"], "")]];
    let faults = |module: &str, text: &str| {
        let mut files = vec![("lib.rs", "mod top; mod left; mod right; mod low; mod other;")];
        let path = format!("{module}.rs");
        for name in ["top.rs", "left.rs", "right.rs", "low.rs", "other.rs"] {
            files.push((name, if name == path { text } else { "pub struct X;" }));
        }
        upward(&edges_of(&files), "made_up", layers, &[("left", "right")])
    };
    assert!(faults("top", "use crate::{left::X, low};").is_empty());
    assert!(faults("left", "pub use crate::right::X;").is_empty());
    for (module, text, expected) in [
        (
            "low",
            "pub use crate::top::X;",
            "made_up::low imports made_up::top: that is a layer above",
        ),
        (
            "right",
            "fn f() { crate::left::f() }",
            "made_up::right imports made_up::left: that is in the same layer",
        ),
        (
            "low",
            "use super::other::X;",
            "made_up::low imports made_up::other: `other` is in no layer",
        ),
    ] {
        assert_eq!(faults(module, text), [expected]);
    }
}

#[test]
fn the_page_shows_these_layers() {
    let text = fs::read_to_string(run::root().join(PAGE)).unwrap();
    assert!(text.contains(&page()), "renew it: cargo xtask layers --page");
    let none: &Path = Path::new("lib.rs");
    assert!(Crate::read("none", none).is_err(), "a crate that is not there is no empty one");
}
