//! Sans-I/O parsers. They know `Incomplete`.

mod client_hello;
mod detect;
pub mod hbone;
mod reader;
mod trace_context;

pub use client_hello::{ClientHello, HelloError, HelloReader};
pub use detect::{Protocol, detect};
pub use trace_context::{TraceParent, kept_state};

/// What a parser makes of the bytes so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed<T> {
    /// All of it was there.
    Complete(T),
    /// Not enough bytes yet.
    Incomplete,
}
