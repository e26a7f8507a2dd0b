//! Export over OTLP: what the environment says, and one thread that sends what waits in the queues of
//! [`telemetry`](crate::telemetry). HTTP/1.1 with protobuf bodies; no part of the data path waits for it.

mod client;
mod deliver;
mod endpoint;
mod environment;
mod exporter;
mod request;
mod settings;

pub use self::{
    endpoint::Endpoint,
    exporter::{Exporter, start},
    settings::{Settings, SettingsError, Target},
};

#[cfg(test)]
mod tests;
