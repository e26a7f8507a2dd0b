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

impl Protocol {
    /// As service entries declare it.
    #[must_use]
    pub const fn declared(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tls => "HTTPS or TLS",
            Self::Tcp => "TCP",
        }
    }
}
