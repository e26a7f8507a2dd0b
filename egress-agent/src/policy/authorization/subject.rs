//! What authorization policies look at.

use std::net::IpAddr;

use crate::types::{Host, Port, Source};

/// A request or connection, as policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who asks.
    pub source: &'a Source,
    /// The original client, where proxies in front of the gateway are trusted to name it; `None`
    /// where they should have and did not.
    pub remote: Option<IpAddr>,
    /// The port of the gateway's server that serves it, or the one that was dialled where no server
    /// of a gateway is involved.
    pub port: Port,
    /// SNI, where there is TLS.
    pub server_name: Option<&'a Host>,
    /// The request, unless it is a raw connection.
    pub http: Option<RequestFacts<'a>>,
}

/// An HTTP request, as policies see it.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// Authority without port.
    pub host: &'a Host,
    /// The authority as sent.
    pub authority: &'a str,
    /// The method.
    pub method: &'a http::Method,
    /// Path and query.
    pub path_and_query: &'a str,
    /// End-to-end headers.
    pub headers: &'a http::HeaderMap,
}
