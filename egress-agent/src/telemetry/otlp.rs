//! What is exported over OTLP: records of the access log and of flows, and spans. They wait here, encoded,
//! in bounded queues; the crate's `otlp` module sends them.

mod attributes;
mod entries;
mod exports;
mod flows;
mod queue;
mod sampler;
mod span;
mod spans;

pub use self::{
    exports::{Exports, SignalReport, Traces},
    queue::{Batch, Loss, Queue, Signal},
    sampler::{Root, Sampler},
    span::Span,
};

#[cfg(test)]
mod tests;
