//! What is spoken on a port.

/// What is spoken on a port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// `HTTP`, `HTTP2`, `GRPC`.
    Http,
    /// `HTTPS`, `TLS`.
    Tls,
    /// Anything else.
    Tcp,
}
