//! Texts without secrets: better a word too many is removed than one too few.
//!
//! JSON is walked value by value. In every other text keys are looked for, and each takes its value
//! along: a quoted text, a bracket with all in it, or the line with all that is indented below it.

mod key;
mod names;

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Deserializer, Map, Value};

use self::{
    key::{Key, word},
    names::{is_open, is_secret, is_statistic},
};

/// What takes the place of a secret.
const REMOVED: &str = "[removed]";

/// What an `AuthorizationPolicy` calls a header in a condition. The values stand elsewhere.
const HEADER: &str = "request.headers[";

/// A key with what is between it and its value.
static KEY: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"([\w.-]+)\]?\\*(["']?)\s*[:=][ \t]*"#).ok());

/// What is removed wherever it stands, and by what it is replaced.
static SECRETS: LazyLock<Vec<(Regex, String)>> = LazyLock::new(|| {
    let all = [
        // Keys; certificates are public.
        (
            r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)",
            REMOVED.to_owned(),
        ),
        // The same in base64, as Kubernetes has it: `-----BEGIN `.
        (r"\bLS0tLS1CRUdJTi[A-Za-z0-9+/=]+", REMOVED.to_owned()),
        // User and password in a URL; a password may have an `@` in it.
        (r"(?i)([a-z][a-z0-9+.-]*://)[^/\s]+@", format!("${{1}}{REMOVED}@")),
        // What a query says.
        (r#"(\?)[^\s"'\\]+"#, format!("${{1}}{REMOVED}")),
        // Signed tokens (RFC 7519).
        (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", REMOVED.to_owned()),
        // Credentials without a key.
        (r"(?i)\b(bearer|basic)[ \t]+[a-z0-9._~+/=-]{8,}", format!("${{1}} {REMOVED}")),
    ];
    let compiled =
        all.into_iter().filter_map(|(pattern, by)| Some((Regex::new(pattern).ok()?, by)));
    compiled.collect()
});

/// The text without what looks like a secret. JSON comes back as JSON, one value or many.
#[must_use]
pub fn redacted(text: &str) -> String {
    let values: Option<Vec<Value>> = Deserializer::from_str(text)
        .into_iter::<Value>()
        .map(|value| value.ok().filter(|value| value.is_object() || value.is_array()))
        .collect();
    match values.as_deref() {
        Some([value]) => format!("{:#}\n", walked(value)),
        Some([_, ..]) => {
            values.iter().flatten().map(|value| format!("{}\n", walked(value))).collect()
        }
        Some([]) | None => scrubbed(text),
    }
}

/// A value of JSON without secrets.
fn walked(value: &Value) -> Value {
    match value {
        Value::Object(all) => {
            let of_secret = all.iter().any(|(key, value)| names_secret(key, value));
            let walk = |(key, value): (&String, &Value)| {
                let is_value = of_secret && is_value(key) && !names_secret(key, value);
                let open = match value {
                    Value::Number(_) => is_statistic(key),
                    Value::String(text) => is_open(key, text),
                    Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
                };
                let value = if is_value || (is_secret(key) && !open) {
                    removed(value)
                } else {
                    walked(value)
                };
                (scrubbed(key), value)
            };
            Value::Object(all.iter().map(walk).collect::<Map<_, _>>())
        }
        Value::Array(all) => Value::Array(all.iter().map(walked).collect()),
        Value::String(text) => Value::String(scrubbed(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn removed(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            Value::String(REMOVED.to_owned())
        }
    }
}

/// Whether it says that what stands beside it is a secret, as `"name": "cookie"` does.
fn names_secret(key: &str, value: &Value) -> bool {
    let key = key.to_ascii_lowercase();
    let names = matches!(key.as_str(), "key" | "name" | "header");
    value.as_str().is_some_and(|text| has_header(text) || (names && is_secret(text)))
}

fn has_header(text: &str) -> bool {
    text.to_ascii_lowercase().contains(HEADER)
}

/// Keys of what stands beside a name.
fn is_value(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    matches!(
        key.as_str(),
        "value" | "values" | "notvalues" | "exact" | "prefix" | "suffix" | "regex" | "defaultvalue"
    )
}

/// A text that is no JSON, without secrets.
fn scrubbed(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, by) in SECRETS.iter() {
        text = pattern.replace_all(&text, by.as_str()).into_owned();
    }
    let Some(key) = KEY.as_ref() else { return REMOVED.to_owned() };
    documents(&text).into_iter().map(|document| without_values(document, key)).collect()
}

/// The documents of a YAML file, each with the line that separates it from those before.
fn documents(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" || line.starts_with("--- ") {
            all.push(&text[start..at]);
            start = at;
        }
        at += line.len();
    }
    all.push(&text[start..]);
    all
}

/// A document without the values of secret keys. Where a condition is on a header, values of all
/// conditions go: which of them stands beside it only the structure says.
fn without_values(text: &str, pattern: &Regex) -> String {
    let conditions = has_header(text);
    let mut named = false;
    let mut clean = String::with_capacity(text.len());
    let (mut done, mut at) = (0, 0);
    while let Some(found) = pattern.captures_at(text, at) {
        let (Some(all), Some(name)) = (found.get(0), found.get(1)) else { break };
        at = all.end();
        let key = Key {
            name: name.as_str(),
            start: name.start(),
            quoted: found.get(2).is_some_and(|quote| !quote.is_empty()),
            value: all.end(),
        };
        let lower = key.name.to_ascii_lowercase();
        if matches!(lower.as_str(), "key" | "name" | "header") {
            named = is_secret(word(&text[key.value..]));
        }
        let beside = match lower.as_str() {
            "values" => named || conditions,
            "notvalues" => conditions,
            "value" | "defaultvalue" => named,
            _ => false,
        };
        if !beside && (!is_secret(key.name) || key.is_harmless(text)) {
            continue;
        }
        let (end, closed) = key.end(text);
        // A key within what is removed may have a value that goes on after it.
        if key.value >= done && end > key.value {
            clean.push_str(&text[done..key.value]);
            // YAML wants a space that need not be there where the value starts on the next line.
            if text[..key.value].ends_with(':') && text[key.value..].starts_with(['\n', '\r']) {
                clean.push(' ');
            }
            clean.push_str(REMOVED);
        }
        if key.value < done || end > key.value {
            done = done.max(end);
        }
        if closed {
            at = at.max(end);
        }
    }
    clean.push_str(&text[done..]);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(SECRETS.len(), 6);
        assert!(KEY.is_some());
    }

    #[test]
    fn secrets_are_removed() {
        for text in [
            "authorization: Bearer hunter2",
            "x-api-key=hunter2, next",
            "{\"password\": \"hunter2\", \"user\": \"me\"}",
            "  set:\n    x-token: hunter2\n  add: {}",
            "GET /a?code=hunter2 HTTP/1.1",
            "https://me:hunter2@a.example/",
            "https://me:p@hunter2@a.example/",
            "HTTPS_PROXY=http://me:hunter2@proxy.example:3128",
            "OTEL_EXPORTER_OTLP_HEADERS=dd-team=hunter2,x-b=hunter2",
            "Environment=\"OTEL_EXPORTER_OTLP_LOGS_HEADERS=x-team=hunter2\"",
            "{\"env\": [{\"name\": \"OTEL_EXPORTER_OTLP_HEADERS\", \"value\": \"x-team=hunter2\"}]}",
            "set-cookie: sid=hunter2; Path=/",
            "id eyJhbGciOiJIUzI1NiJ9.eyJodW50ZXIyIn0.hunter2",
            "-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----\nx",
            "-----BEGIN PRIVATE KEY-----\nhunter2\ncut short",
            "tls.key: LS0tLS1CRUdJTiBQUklWQVRF+hunter2=",
            "tls.key: |\n  -----BEGIN PRIVATE KEY-----\n  hunter2\n  -----END PRIVATE KEY-----",
            "  tls.key: hunter2",
            "sent Bearer abc.hunter2~x here",
            // Pretty JSON: whole, cut short, and within another text.
            "{\n  \"authorization\": {\n    \"exact\": \"Bearer hunter2\"\n  }\n}",
            "{\n  \"authorization\": {\n    \"exact\": \"Bearer hunter2\"\n",
            "said:\n{\n  \"authorization\": {\n    \"exact\": \"Bearer hunter2\"\n  }\n}",
            "{\"a\": [{\"token\": [1, {\"b\": \"hunter2\"}]}]}",
            "said {\"token\": [1, {\"b\": \"hunter2\"}]}",
            "said {\\\"token\\\":[\\\"]}hunter2\\\"]}",
            "proxy-authorization: \\\"\n  hunter2\nx: \\\"",
            "said {\"token\": {\"a\": {\"b\": \"}\"}, \"c\": \"hunter2\"}}",
            "{\"token\":\n\"hunter2\"",
            // More than one part.
            "cookie: a=1; sid=hunter2",
            "cookie: {a}=1; sid=hunter2",
            "cookie: \"a\"; sid=hunter2",
            "x-token: \"a\", \"hunter2\"",
            "authorization: Digest username=\"u\", response=\"hunter2\"",
            "token: [\"a\", \"hunter2\"]",
            "token:\n- a\n- hunter2",
            "- token:\n    - a\n\n    - hunter2\n  x: y",
            "authorization:\n  a: b\n  exact: hunter2",
            "authorization: |\n  Bearer hunter2",
            "  authorization: >-\n    Bearer a\n    hunter2",
            "- authorization: &a !!str |\n    hunter2",
            "authorization: Bearer a\n  hunter2",
            "{x-auth: a, b: 1, x-token: {a: 'b\n\n    hunter2', c: [hunter2]}}",
            "# authorization: |\n#   hunter2",
            // Quotes in quotes.
            "said \"authorization\":\"Basic \\\"hunter2\"",
            "{\"authorization\":\"Basic \\\"hunter2\"}",
            "said \"{\\\"password\\\":\\\"hunter2\\\"}\"",
            "{\"said\":\"{\\\"password\\\":\\\"hunter2\\\"}\"}",
            "said {\\\"password\\\":\\\"a\\\\\\\"hunter2\\\"}",
            "authorization: 'a''hunter2'",
            "authorization: \"a\n  hunter2\"",
            // Other names.
            "x-auth: hunter2",
            "token: true\n  hunter2",
            "privateKey: /a.pem hunter2",
            "password: /hunter2.key",
            "x-access-key: hunter2",
            "client-key-data: hunter2",
            "X-Amz-Signature=hunter2",
            "app.password:12345hunter2",
            "password = hunter2",
            // Values beside a name.
            "- name: x-token\n  value: hunter2",
            "[{\"value\": \"hunter2\", \"name\": \"Cookie\"}]",
            "when:\n- key: request.headers[authorization]\n  values: [hunter2]",
            "when:\n- key: 'request.headers[x-team]'\n  other: [a]\n  values:\n  - a\n  - hunter2",
            "when:\n- values:\n  - hunter2\n  other: [a]\n  key: request.headers[x-team]",
            "[{\"notValues\": [\"hunter2\"], \"key\": \"request.headers[x-team]\"}]",
            "request.headers[authorization]: hunter2",
        ] {
            let redacted = redacted(text);
            assert!(!redacted.contains("hunter2"), "{text}\n{redacted}");
            assert!(redacted.contains(REMOVED), "{text}\n{redacted}");
        }
    }

    #[test]
    fn the_rest_stays() {
        for text in [
            "shop/web 10.0.0.5:40000 -> api.example.com:443 TLS DENIED (host_not_in_registry)",
            "shop/auth 10.0.0.5:40000 -> auth.example.com:443 TLS ALLOWED",
            "https://auth.example.com:8443/login",
            "egress_verdicts_total{hook=\"pod\",action=\"deny\"} 7",
            "egress_authentication_total{result=\"ok\"} 7\nhttp.authentication_total: 7\nauth.example.com.rq: 5\n",
            "INFO egress_agent::tls::credentials: read 3 files",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "hosts: [a.example]\nports: [{number: 443}]",
            "tls: {mode: SIMPLE, credentialName: cert}\nsecretName: cert",
            "authority: a.example\nkind: AuthorizationPolicy\nmetadata: {name: auth}",
            "privateKey: /etc/certs/key.pem\nautomountServiceAccountToken: false\n\"credentials\": [],",
            "when: [{key: source.namespace, values: [shop]}]",
            "- key: source.namespace\n  values: [shop]\n---\nx: y\n",
        ] {
            assert_eq!(redacted(text), text);
        }
        for (text, left) in [
            (
                "{\"password\": \"hunter2\", \"user\": \"me\", \"token\": null, \"auth_total\": 3}",
                "{\n  \"auth_total\": 3,\n  \"password\": \"[removed]\",\n  \"token\": null,\n  \
                 \"user\": \"me\"\n}\n",
            ),
            ("{\"a\":1}\n{\"token\":\"x\"}\n", "{\"a\":1}\n{\"token\":\"[removed]\"}\n"),
            ("a: 1\ntoken:\n  b: x\n\nc: 2\n", "a: 1\ntoken: [removed]\n\nc: 2\n"),
            ("a {\"token\":\"x\",\"b\":1}", "a {\"token\":[removed],\"b\":1}"),
            ("- a: 1\n  x-auth: |\n    x\n  c: 2\n", "- a: 1\n  x-auth: [removed]\n  c: 2\n"),
        ] {
            assert_eq!(redacted(text), left);
        }
    }
}
