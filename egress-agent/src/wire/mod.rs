//! Sans-I/O parsers. They know `Incomplete`.

mod client_hello;
mod detect;
pub mod hbone;
mod reader;

pub use client_hello::{ClientHello, HelloError, HelloReader};
pub use detect::{Protocol, detect};

/// What a parser makes of the bytes so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed<T> {
    /// All of it was there.
    Complete(T),
    /// Not enough bytes yet.
    Incomplete,
}
