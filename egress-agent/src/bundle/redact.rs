//! Texts without secrets: better a word too many is removed than one too few.

use std::sync::LazyLock;

use regex::Regex;

/// What takes the place of a secret.
const REMOVED: &str = "[removed]";

/// What is removed, and by what it is replaced.
static SECRETS: LazyLock<Vec<(Regex, String)>> = LazyLock::new(|| {
    let all = [
        // Keys; certificates are public.
        (
            r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)",
            REMOVED.to_owned(),
        ),
        // `authorization: Bearer x`, `"password": "x"`, `token=x`.
        (
            r#"(?i)([\w-]*(?:authorization|cookie|password|passwd|secret|token|api[-_]?key|credential)[\w-]*["']?\s*[:=]\s*)("[^"\n]*"|'[^'\n]*'|[^\n,;}\]]+)"#,
            format!("${{1}}{REMOVED}"),
        ),
        // User and password in a URL.
        (r"(?i)([a-z][a-z0-9+.-]*://)[^/\s@]+@", format!("${{1}}{REMOVED}@")),
        // What a query says.
        (r#"(\?)[^\s"'\\]+"#, format!("${{1}}{REMOVED}")),
        // Signed tokens (RFC 7519).
        (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", REMOVED.to_owned()),
    ];
    let compiled =
        all.into_iter().filter_map(|(pattern, by)| Some((Regex::new(pattern).ok()?, by)));
    compiled.collect()
});

/// The text without what looks like a secret.
#[must_use]
pub fn redacted(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, by) in SECRETS.iter() {
        text = pattern.replace_all(&text, by.as_str()).into_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(SECRETS.len(), 5);
    }

    #[test]
    fn secrets_are_removed_and_the_rest_stays() {
        for (text, secret) in [
            ("authorization: Bearer hunter2", "hunter2"),
            ("x-api-key=hunter2, next", "hunter2"),
            ("{\"password\": \"hunter2\", \"user\": \"me\"}", "hunter2"),
            ("  set:\n    x-token: hunter2\n  add: {}", "hunter2"),
            ("GET /a?code=hunter2 HTTP/1.1", "hunter2"),
            ("https://me:hunter2@a.example/", "hunter2"),
            ("id eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.sig", "eyJzdWIi"),
            ("-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----\nx", "hunter2"),
            ("-----BEGIN PRIVATE KEY-----\nhunter2\ncut short", "hunter2"),
        ] {
            let redacted = redacted(text);
            assert!(!redacted.contains(secret), "{redacted}");
            assert!(redacted.contains(REMOVED), "{redacted}");
        }
        for text in [
            "shop/web 10.0.0.5:40000 -> api.example.com:443 TLS DENIED (host_not_in_registry)",
            "egress_verdicts_total{hook=\"pod\",action=\"deny\"} 7",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "hosts: [a.example]\nports: [{number: 443}]",
        ] {
            assert_eq!(redacted(text), text);
        }
        let json = redacted("{\"password\": \"hunter2\", \"user\": \"me\"}");
        assert!(json.contains("\"user\": \"me\""), "{json}");
    }
}
