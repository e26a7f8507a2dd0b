//! How records are sent: which protocol, and whether compressed.

use crate::telemetry::Signal;

/// How a collector is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// HTTP/1.1 with protobuf bodies.
    #[default]
    Http,
    /// gRPC over HTTP/2.
    Grpc,
}

impl Protocol {
    /// Where records go that are asked for without saying where.
    pub(super) const fn default_endpoint(self) -> &'static str {
        match self {
            Self::Http => "http://localhost:4318",
            Self::Grpc => "http://localhost:4317",
        }
    }

    /// What is put behind the path of a URL that is of all signals: over gRPC, of any URL.
    pub(super) fn path(self, signal: Signal) -> String {
        match (self, signal) {
            (Self::Http, signal) => format!("/v1/{}", signal.name()),
            (Self::Grpc, Signal::Logs) => {
                "/opentelemetry.proto.collector.logs.v1.LogsService/Export".into()
            }
            (Self::Grpc, Signal::Traces) => {
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export".into()
            }
        }
    }
}

/// Whether bodies are made smaller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// They are sent as they are.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
}
