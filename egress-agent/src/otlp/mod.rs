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

#[cfg(test)]
mod tests;
