//! Attributes of a record, in the form of OTLP.

use std::{
    fmt::Display,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};

use crate::telemetry::flow::cut;

/// Longest text of an attribute, in bytes: a client chooses some of them.
const TEXT_BYTES: usize = 4096;

/// What is known of a record; what is not known is left out.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<KeyValue>);

impl Attributes {
    pub(super) fn text(&mut self, key: impl Into<String>, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.add(key, Value::StringValue(cut(text, TEXT_BYTES)));
        }
    }

    pub(super) fn shown(&mut self, key: &str, value: Option<impl Display>) {
        self.text(key, value.map(|value| value.to_string()).as_deref());
    }

    pub(super) fn number(&mut self, key: &str, number: Option<impl TryInto<i64>>) {
        if let Some(number) = number {
            // Beyond 2^63 nothing is counted.
            self.add(key, Value::IntValue(number.try_into().unwrap_or(i64::MAX)));
        }
    }

    /// A fact that is worth a word only where it holds.
    pub(super) fn holds(&mut self, key: &str, holds: bool) {
        if holds {
            self.add(key, Value::BoolValue(true));
        }
    }

    fn add(&mut self, key: impl Into<String>, value: Value) {
        self.0.push(pair(key, value));
    }

    pub(super) fn into_pairs(self) -> Vec<KeyValue> {
        self.0
    }
}

fn pair(key: impl Into<String>, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// A body: a line or a sentence.
pub(super) fn body(text: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(cut(text, 2 * TEXT_BYTES))) })
}

/// Nanoseconds since 1970.
pub(super) fn nanoseconds(time: SystemTime) -> u64 {
    let since: Duration = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
