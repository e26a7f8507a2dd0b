//! The body of a request: `ExportLogsServiceRequest` or `ExportTraceServiceRequest`, made of records that are
//! encoded already. Both messages have the same numbers for the same things.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};
use prost::{Message, encoding};

use crate::telemetry::Batch;

/// `resource` and `scope`.
const FIRST: u32 = 1;
/// `scope_logs` and `scope_spans`; `log_records` and `spans`.
const SECOND: u32 = 2;

/// What every body of a process begins with.
#[derive(Clone, Debug)]
pub(super) struct Head {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Head {
    pub(super) fn new(resource: &[(String, String)]) -> Self {
        let pair = |(key, value): &(String, String)| KeyValue {
            key: key.clone(),
            value: Some(AnyValue { value: Some(Value::StringValue(value.clone())) }),
            ..KeyValue::default()
        };
        let resource =
            Resource { attributes: resource.iter().map(pair).collect(), ..Resource::default() };
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        let mut own = Self { resource: Vec::new(), scope: Vec::new() };
        field(FIRST, &resource.encode_to_vec(), &mut own.resource);
        field(FIRST, &scope.encode_to_vec(), &mut own.scope);
        own
    }

    /// The whole body.
    pub(super) fn body(&self, batch: &Batch) -> Vec<u8> {
        let bytes: usize = batch.records.iter().map(|record| record.len() + 6).sum();
        let mut scope = Vec::with_capacity(bytes + self.scope.len());
        scope.extend_from_slice(&self.scope);
        for record in &batch.records {
            field(SECOND, record, &mut scope);
        }
        let mut resource = Vec::with_capacity(scope.len() + self.resource.len() + 8);
        resource.extend_from_slice(&self.resource);
        field(SECOND, &scope, &mut resource);
        let mut body = Vec::with_capacity(resource.len() + 8);
        field(FIRST, &resource, &mut body);
        body
    }
}

/// A message in a field of another one.
fn field(number: u32, message: &[u8], to: &mut Vec<u8>) {
    encoding::encode_key(number, encoding::WireType::LengthDelimited, to);
    encoding::encode_varint(u64::try_from(message.len()).unwrap_or(u64::MAX), to);
    to.extend_from_slice(message);
}
