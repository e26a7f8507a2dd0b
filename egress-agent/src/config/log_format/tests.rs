//! Formats that compile, and what is said of those that don't.

use super::{
    operators::{OPERATORS, REQUEST_HEADERS, RESPONSE_HEADERS},
    *,
};
use crate::types::log::Field;

fn text(format: &str) -> Result<LogFormat, LogFormatError> {
    LogFormat::compile(Some(format), AccessLogEncoding::Text)
}

fn json(format: &str) -> Result<LogFormat, LogFormatError> {
    LogFormat::compile(Some(format), AccessLogEncoding::Json)
}

#[test]
fn the_known_formats_compile() {
    for encoding in [AccessLogEncoding::Text, AccessLogEncoding::Json] {
        for format in [None, Some("istio"), Some("envoy")] {
            LogFormat::compile(format, encoding).unwrap();
        }
    }
    assert_eq!(LogFormat::compile(None, AccessLogEncoding::Text), text("istio"));
    assert_eq!(LogFormat::compile(None, AccessLogEncoding::Json), json("istio"));
    for (name, _) in OPERATORS {
        text(&format!("%{name}%")).unwrap();
    }
}

#[test]
fn operators_alternatives_lengths_and_literals() {
    assert_eq!(
        text("100%% %REQ(user-agent):10% %REQ(X-REQUEST-ID?HOST)%").unwrap(),
        LogFormat::Text(vec![
            Segment::Literal("100% ".into()),
            Segment::Value { fields: vec![Field::UserAgent], max: Some(10) },
            Segment::Literal(" ".into()),
            Segment::Value { fields: vec![Field::RequestId, Field::Authority], max: None },
            Segment::Literal("\n".into()),
        ])
    );
    assert_eq!(
        text("%START_TIME(%Y/%m/%dT%H:%M:%S.%3f %s)%\n").unwrap(),
        LogFormat::Text(vec![
            Segment::Value {
                fields: vec![Field::StartTime(Some("%Y/%m/%dT%H:%M:%S.%3f %s".into()))],
                max: None
            },
            Segment::Literal("\n".into()),
        ])
    );
    assert_eq!(
        json(r#"{"code": "%RESPONSE_CODE%"}"#).unwrap(),
        LogFormat::Json(vec![(
            "code".into(),
            vec![Segment::Value { fields: vec![Field::ResponseCode], max: None }]
        )])
    );
}

#[test]
fn what_is_not_known_is_refused_with_what_would_do() {
    for (format, expected) in [
        ("%BYTE_SENT%", "unknown operator %BYTE_SENT%, expected %BYTES_SENT% or another of docs"),
        ("%REQ(COOKIE)%", "%REQ(COOKIE)%, expected one of :METHOD, :PATH,"),
        ("%REQ%", "%REQ()%, expected one of :METHOD"),
        ("%RESP(SET-COOKIE)%", "expected one of :STATUS, X-ENVOY-UPSTREAM-SERVICE-TIME"),
        ("%DURATION(x)%", "expected %DURATION% without arguments"),
        ("%REQ(HOST):0%", "the length \"0\" after %REQ"),
        ("%REQ(HOST):-1%", "the length \"-1\" after %REQ"),
        ("%REQ(HOST", "found \"%REQ(HOST\\n\", expected %OPERATOR%"),
        ("50% off", "expected %OPERATOR%, or %% for a percent sign"),
        ("%", "expected %OPERATOR%"),
        ("%duration%", "expected %OPERATOR%"),
        ("%START_TIME(%!)%", "time format \"%!\""),
    ] {
        let error = text(format).unwrap_err().to_string();
        assert!(error.contains(expected), "{format}: {error}");
    }
    for (format, expected) in [
        ("[%START_TIME%]", "a JSON object"),
        (r#"{"a": 1}"#, "found 1 for the key \"a\""),
        (r#"{"reason": "x"}"#, "\"reason\" is written by itself"),
        (r#"{"a": "%NO%"}"#, "unknown operator %NO%"),
    ] {
        let error = json(format).unwrap_err().to_string();
        assert!(error.contains(expected), "{format}: {error}");
    }
}

#[test]
fn every_operator_header_and_key_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/telemetry.md");
    let document = std::fs::read_to_string(path).unwrap();
    let operators = OPERATORS.iter().map(|(name, _)| format!("`%{name}%`"));
    let headers =
        REQUEST_HEADERS.iter().chain(RESPONSE_HEADERS).map(|(name, _)| format!("`{name}`"));
    let keys =
        JSON_DEFAULT.iter().chain(JSON_BOTH).chain(JSON_ISTIO).map(|(key, _)| format!("`{key}`"));
    let own = JSON_OWN.iter().map(|key| format!("`{key}`"));
    for text in operators.chain(headers).chain(keys).chain(own) {
        assert!(document.contains(&text), "{path} doesn't explain {text}");
    }
    // The formats stand there word for word, broken into lines for reading.
    let flat = document.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains(ENVOY_DEFAULT.trim_end()));
    assert!(flat.contains(ISTIO.trim_end()));
}

/// `docs/reference/log-fields.md`.
#[test]
fn the_reference_lists_every_field() {
    let mut text = String::from(
        "# Access log reference\n\n<!-- Generated: `cargo xtask references`. -->\n\nThe keys of the JSON form and the \
         operators of formats. [Telemetry](../telemetry.md#operators) says what each operator holds.\n\n## JSON\n\n\
         `accessLogEncoding: JSON` has these keys in Istio's form, which is the default; in Envoy's \
         (`accessLogFormat: envoy`) those with a `yes`.\n\n| key | operator | in Envoy's form |\n|---|---|---|\n",
    );
    let envoy = JSON_DEFAULT.iter().chain(JSON_BOTH).map(|(key, _)| *key);
    let envoy: Vec<&str> = envoy.collect();
    for (key, operator) in JSON_DEFAULT.iter().chain(JSON_BOTH).chain(JSON_ISTIO) {
        let mark = if envoy.contains(key) { "yes" } else { "" };
        text.push_str(&format!("| `{key}` | `{operator}` | {mark} |\n"));
    }
    text.push_str("\nEvery line has besides, whatever the format:\n\n");
    for key in JSON_OWN {
        text.push_str(&format!("- `{key}`\n"));
    }
    text.push_str("\n## Operators\n\n- `%START_TIME%`, `%START_TIME(FORMAT)%`\n");
    for (name, _) in OPERATORS {
        text.push_str(&format!("- `%{name}%`\n"));
    }
    text.push_str("\nHeaders of `%REQ(HEADER)%`:\n\n");
    for (name, _) in REQUEST_HEADERS {
        text.push_str(&format!("- `{name}`\n"));
    }
    text.push_str("\nHeaders of `%RESP(HEADER)%`:\n\n");
    for (name, _) in RESPONSE_HEADERS {
        text.push_str(&format!("- `{name}`\n"));
    }
    crate::types::testing::page("log-fields.md", &text);
    // Other tests cover what each operator holds.
    let told = include_str!("../../../../docs/telemetry.md");
    for (name, _) in OPERATORS {
        assert!(told.contains(&format!("`%{name}%`")), "docs/telemetry.md has no %{name}%");
    }
}

#[test]
fn values_of_headers_show_any_header_that_there_is() {
    for (place, format, expected) in [
        (Place::Request, "%REQ(X-Team)%", None),
        (Place::Request, "%REQ(X-Team?Accept):3% %REQ(X-Forwarded-For)%", None),
        (Place::Response, "%RESP(X-Build?Server)% of %REQ(x-team)%", None),
        (Place::Request, "%RESP(X-Build)%", Some("there is no response yet")),
        (Place::Request, "%REQ(Connection)%", Some("takes Connection out of messages")),
        (Place::Request, "%REQ(X-Forwarded-Proto)%", Some("takes X-Forwarded-Proto out")),
        (Place::Response, "%RESP(Content-Length)%", Some("takes Content-Length out")),
        (Place::Request, "%REQ(:SCHEME)%", Some("expected the name of a header")),
        (Place::Request, "%REQ()%", Some("expected the name of a header")),
        (Place::Log, "%REQ(X-Team)%", Some("no other header is kept for the log")),
    ] {
        let error = parse(format, place).err().map(|error| error.to_string());
        match (&error, expected) {
            (None, None) => {}
            (Some(error), Some(expected)) => assert!(error.contains(expected), "{format}: {error}"),
            (found, expected) => panic!("{format}: {found:?}, expected {expected:?}"),
        }
    }
}
