//! Scalars: text, numbers, ports, durations.

use std::time::Duration;

use crate::{config::yaml::Value, types::parse_duration};

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

/// As Istio has it, which knows no days.
fn duration(text: &str) -> Option<Duration> {
    parse_duration(text).filter(|_| !text.contains('d'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_server_would_refuse_days() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("1d"), None);
    }
}
