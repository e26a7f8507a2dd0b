//! Metrics, access log, flow events.

mod entry;

pub use entry::{AccessLogEntry, ResponseFlag, ResponseFlags};
