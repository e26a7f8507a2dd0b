//! Export over OTLP: what the environment says, and one thread that sends what waits in the queues of
//! [`telemetry`](crate::telemetry). Protobuf bodies over HTTP/1.1, or gRPC over HTTP/2; no part of the data path waits
//! for it.

mod client;
mod deliver;
mod endpoint;
mod environment;
mod exporter;
mod pack;
mod protocol;
mod reach;
mod request;
mod settings;

pub use self::{
    endpoint::Endpoint,
    exporter::{Exporter, start},
    protocol::{Compression, Protocol},
    settings::{Settings, SettingsError, Target},
};

/// What `--help` of a process that exports says of the environment.
pub const VARIABLES: &str = "\
Environment variables of OpenTelemetry. They are read once, at the start, and a
value that can't be used stops it. Each OTEL_EXPORTER_OTLP_... can be given for
one kind of record, as in OTEL_EXPORTER_OTLP_LOGS_... and
OTEL_EXPORTER_OTLP_TRACES_.... A node has log records alone, a gateway both.
  OTEL_EXPORTER_OTLP_ENDPOINT            the collector
  OTEL_EXPORTER_OTLP_PROTOCOL            http/protobuf (the default) or grpc
  OTEL_EXPORTER_OTLP_HEADERS             NAME=VALUE,...: credentials, as a rule
  OTEL_EXPORTER_OTLP_TIMEOUT             milliseconds for one request
  OTEL_EXPORTER_OTLP_COMPRESSION         none (the default) or gzip
  OTEL_EXPORTER_OTLP_CERTIFICATE         who vouches for the collector, PEM
  OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE  what it is shown, PEM
  OTEL_EXPORTER_OTLP_CLIENT_KEY          the key of that, PEM
  OTEL_LOGS_EXPORTER                     otlp, or none for no log records
  OTEL_TRACES_EXPORTER                   otlp, or none for no spans
  OTEL_TRACES_SAMPLER                    which requests have a span
  OTEL_TRACES_SAMPLER_ARG                with traceidratio: from 0 to 1
  OTEL_SERVICE_NAME                      service.name of the process
  OTEL_RESOURCE_ATTRIBUTES               KEY=VALUE,...: more of the process
  OTEL_PROPAGATORS                       has to hold tracecontext
  OTEL_SDK_DISABLED                      true exports nothing";

#[cfg(test)]
mod tests;
