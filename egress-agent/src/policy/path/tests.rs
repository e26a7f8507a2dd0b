use proptest::prelude::*;
use regex::Regex;

use super::*;

const BASE: PathNormalization = PathNormalization::Base;
const MERGE: PathNormalization = PathNormalization::MergeSlashes;
const DECODE: PathNormalization = PathNormalization::DecodeAndMergeSlashes;

fn normal(path: &str, how: PathNormalization) -> String {
    normalise(path, how).unwrap_or_else(|| path.to_owned())
}

#[test]
fn paths_become_what_istio_documents() {
    for (path, none, base, merge, decode) in [
        ("/a/../b", "/a/../b", "/b", "/b", "/b"),
        ("/a/./b/.", "/a/./b/.", "/a/b/", "/a/b/", "/a/b/"),
        ("/a/..", "/a/..", "/", "/", "/"),
        ("/../../a", "/../../a", "/a", "/a", "/a"),
        ("/\\da", "/\\da", "//da", "/da", "/da"),
        ("/a\\..\\b", "/a\\..\\b", "/b", "/b", "/b"),
        ("//a///b", "//a///b", "//a///b", "/a/b", "/a/b"),
        ("/a%2fb", "/a%2fb", "/a%2fb", "/a%2fb", "/a/b"),
        ("/a/%2F../b", "/a/%2F../b", "/a/%2F../b", "/a/%2F../b", "/a/b"),
        ("/a%5C..%5cb", "/a%5C..%5cb", "/a%5C..%5cb", "/a%5C..%5cb", "/b"),
        ("/%61dm%69n", "/%61dm%69n", "/admin", "/admin", "/admin"),
        ("/x/%2e%2E/a", "/x/%2e%2E/a", "/a", "/a", "/a"),
        ("/%7Eu%40%c3%a9", "/%7Eu%40%c3%a9", "/~u%40%c3%a9", "/~u%40%c3%a9", "/~u%40%c3%a9"),
        // Decoded once, never twice; a broken escape leaves all as it is.
        ("/%2561", "/%2561", "/%2561", "/%2561", "/%2561"),
        ("/%%361/../a", "/%%361/../a", "/%%361/../a", "/%%361/../a", "/%%361/../a"),
        // The query is not touched, nor what has no path.
        (
            "/a/../b?c=//%61/../",
            "/a/../b?c=//%61/../",
            "/b?c=//%61/../",
            "/b?c=//%61/../",
            "/b?c=//%61/../",
        ),
        ("/a?", "/a?", "/a?", "/a?", "/a?"),
        ("*", "*", "*", "*", "*"),
    ] {
        let all = [PathNormalization::None, BASE, MERGE, DECODE].map(|how| normal(path, how));
        assert_eq!(all, [none, base, merge, decode], "{path}");
    }
}

fn prefix(text: &str) -> TextMatch {
    TextMatch::Prefix(text.into())
}

fn exact(text: &str) -> TextMatch {
    TextMatch::Exact(text.into())
}

fn expression(text: &str) -> TextMatch {
    TextMatch::Regex(Regex::new(&format!("^(?:{text})$")).unwrap())
}

#[test]
fn what_servers_read_alike_is_compared_as_one() {
    for (wanted, path, expected) in [
        (exact("/a!b"), "/a%21b", true),
        (exact("/a%21b"), "/a!b", true),
        (prefix("/@x/"), "/%40x/y", true),
        (exact("/caf\u{e9}"), "/caf%C3%A9", true),
        (exact("/caf%C3%A9"), "/caf%c3%a9", true),
        (exact("/a b"), "/a%20b", true),
        (exact("/{x}"), "/%7Bx%7d", true),
        (exact("/a"), "/%61", true),
        (exact("/a"), "/b", false),
        (prefix("/admin"), "/public", false),
        (prefix("/admin"), "/ADMIN", false),
        (expression("/a!.*"), "/a!b", true),
        (expression("/my%20file"), "/my%20file", true),
        (expression("/[a-z%0-9]+"), "/a%20b", true),
        (TextMatch::Present, "/a", true),
    ] {
        assert_eq!(matches(&wanted, path, false), Ok(expected), "{wanted:?} {path}");
    }
    assert_eq!(matches(&prefix("/admin"), "/ADM%49N/x", true), Ok(true));
    // An expression that sees the two spellings differently decides nothing.
    for (wanted, path) in [("/[^@]*", "/a%40b"), ("/a!b", "/a%21b"), ("/\\{x", "/%7Bx")] {
        assert_eq!(matches(&expression(wanted), path, false), Err(AmbiguousPath), "{path}");
    }
}

#[test]
fn readings_that_matter_are_ambiguous_and_others_are_not() {
    for (wanted, path, expected) in [
        ("/admin", "//admin/x", Err(AmbiguousPath)),
        ("/admin", "/;x/admin", Err(AmbiguousPath)),
        ("/admin", "/%3bx/admin", Err(AmbiguousPath)),
        ("/admin/x", "/admin;a=b/x", Err(AmbiguousPath)),
        ("/admin/x", "/admin//x", Err(AmbiguousPath)),
        ("/admin", "/web/2020/http://host/", Ok(false)),
        ("/web", "/web/2020/http://host/", Ok(true)),
        ("/admin", "/shop;jsessionid=1/cart", Ok(false)),
        ("/admin", "/admin;x", Ok(true)),
    ] {
        assert_eq!(matches(&prefix(wanted), path, false), expected, "{wanted} {path}");
    }
}

#[test]
fn what_has_no_single_meaning_is_never_judged() {
    for path in [
        "",
        "admin",
        "?admin",
        "/a/../b",
        "/a/.",
        "/a/..;/b",
        "/a/..;x=y/b",
        "/a/.;/b",
        "/a/%2e%2e;/b",
        "/a/..%3b/b",
        "/a/%252e%252e/b",
        "/%2561dmin",
        "/%25%36%31dmin",
        "/a%2fb",
        "/a%5Cb",
        "/a\\b",
        "/a%00",
        "/%c0%ae%c0%ae/b",
        "/%e0%80%af",
        "/%f0%80%80%af",
        "/%c0%af",
        "/a%",
        "/a%2",
        "/a%zz",
        "/%u0061",
        "/%%361",
    ] {
        for wanted in [prefix("/a"), prefix("/zzz"), exact("/"), expression(".*")] {
            assert_eq!(matches(&wanted, path, false), Err(AmbiguousPath), "{path} {wanted:?}");
        }
    }
    for path in ["/", "/a.b/..a/...", "/100%25", "/a;b", "/%C3%A9", "/~u", "*"] {
        assert_eq!(check(path), Ok(()), "{path}");
    }
}

#[test]
fn a_prefix_is_replaced_in_any_spelling() {
    assert_eq!(after_prefix("/api/x%2Ay", "/api/", false), "x%2Ay");
    assert_eq!(after_prefix("/API/x", "/api/", true), "x");
    assert_eq!(after_prefix("/%40x/y", "/@x/", false), "y");
    for path in ["/v1/../x", "/v1/..", "/..", "/v1/%2e%2E/x", "/v1/..;/x", "/v1\\..\\x"] {
        assert!(climbs(path), "{path}");
    }
    assert!(!climbs("/v1/..x/a%2fb"));
}

/// A path as a server finds a file behind it, of which there are several kinds.
fn origin(path: &str, merge: bool, parameters: bool, twice: bool) -> String {
    let mut text = path.to_owned();
    for _ in 0..if twice { 2 } else { 1 } {
        text = String::from_utf8_lossy(&decode_all(&text)).into_owned();
    }
    let mut text = text.replace('\\', "/");
    if parameters {
        text = without_parameters(&text).unwrap_or(text);
    }
    let text = if merge { merged_slashes(text.into()).into_owned() } else { text };
    without_dot_segments(text.into()).into_owned()
}

/// Texts that lead to `/admin` on some server more often than chance would have it.
fn spelling() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "//", "/./", "/../", "/x/../", "%2f", "%5c", "\\", "a", "%61", "%2561", "dmin",
        "d%6din", "ADMIN", ";", ";x=y", "%3b", "..;", ".", "..", "%2e", "%252e", "%2E%2e", "x",
        "%", "%2", "%00", "%c0%ae", "%25", "%32", "!", "%21",
    ]);
    proptest::collection::vec(piece, 1..8).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// A rule that denies `/admin` is what a server of any kind would see.
    #[test]
    fn a_decision_is_about_what_the_origin_sees(
        path in spelling(), merge: bool, parameters: bool, twice: bool,
    ) {
        for how in [PathNormalization::None, BASE, MERGE, DECODE] {
            let sent = normal(&path, how);
            if let Ok(decided) = matches(&prefix("/admin"), &sent, false) {
                let seen = origin(&sent, merge, parameters, twice);
                prop_assert_eq!(decided, seen.starts_with("/admin"), "{} {} {}", path, sent, seen);
            }
        }
    }

    #[test]
    fn a_normal_form_stays(path in spelling(), query in "[a-z/.%?]{0,8}") {
        for how in [BASE, MERGE, DECODE] {
            let once = normal(&format!("{path}?{query}"), how);
            prop_assert_eq!(normalise(&once, how), None, "{}", once);
            let end = format!("?{query}");
            prop_assert!(once.ends_with(&end));
        }
    }

    #[test]
    fn a_canonical_text_stays(
        pieces in proptest::collection::vec("[a-z/!@é{} ;]|%[cC]3|%21|%2f|%25|%3B", 0..8),
    ) {
        let once = canonical(&pieces.concat()).into_owned();
        prop_assert_eq!(&*canonical(&once), &*once);
    }
}
