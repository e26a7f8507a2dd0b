//! Scalars: text, numbers, ports, durations.

use std::time::Duration;

use crate::config::yaml::Value;

/// A value without parts.
pub(in crate::config) trait Scalar: Sized {
    fn type_name() -> String;
    fn expected() -> String {
        Self::type_name()
    }
    fn parse(value: &Value) -> Option<Self>;
}

impl Scalar for String {
    fn type_name() -> String {
        "text".into()
    }
    fn expected() -> String {
        "text (put a number, true or false in quotes)".into()
    }
    fn parse(value: &Value) -> Option<Self> {
        let Value::Text(text) = value else { return None };
        Some(text.clone())
    }
}

impl Scalar for bool {
    fn type_name() -> String {
        "`true` or `false`".into()
    }
    fn parse(value: &Value) -> Option<Self> {
        let Value::Bool(b) = value else { return None };
        Some(*b)
    }
}

impl Scalar for u32 {
    fn type_name() -> String {
        "whole number".into()
    }
    fn expected() -> String {
        "a whole number from 0 to 4294967295".into()
    }
    fn parse(value: &Value) -> Option<Self> {
        let Value::Int(n) = value else { return None };
        Self::try_from(*n).ok()
    }
}

impl Scalar for f64 {
    fn type_name() -> String {
        "number".into()
    }
    #[expect(clippy::cast_precision_loss, reason = "percentages are small")]
    fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::Int(n) => Some(*n as f64),
            Value::Float(n) => Some(*n),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => None,
        }
    }
}

impl Scalar for crate::types::Port {
    fn type_name() -> String {
        "port number".into()
    }
    fn expected() -> String {
        "a port number from 1 to 65535, without quotes".into()
    }
    fn parse(value: &Value) -> Option<Self> {
        let Value::Int(n) = value else { return None };
        Self::new(u16::try_from(*n).ok()?)
    }
}

impl Scalar for Duration {
    fn type_name() -> String {
        "duration (`1h`, `1m`, `1s`, `1ms`)".into()
    }
    fn expected() -> String {
        "a duration such as 10s, 1.5s, 500ms, 2m or 1h30m".into()
    }
    fn parse(value: &Value) -> Option<Self> {
        let Value::Text(text) = value else { return None };
        duration(text)
    }
}

/// Go's form of a duration, without sign: `1h30m`, `1.5s`; at most ten years.
fn duration(text: &str) -> Option<Duration> {
    const MOST: f64 = 10.0 * 366.0 * 86_400.0;
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty() && seconds <= MOST).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("10s", 10_000),
            ("1.5s", 1_500),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("0", 0),
            ("2m", 120_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1x", "1s2", "1e3s", "99999999h", "1..s", " 1s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
