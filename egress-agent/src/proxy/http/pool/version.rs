//! The version of HTTP of a connection to an upstream.

use super::super::request::Request;
use crate::policy::{Cluster, HttpVersion};

/// What is spoken on a connection to an upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Version {
    Http1,
    Http2,
    /// HTTP/2 where the upstream chooses it in TLS, HTTP/1.1 otherwise.
    Offered,
}

impl Version {
    /// For a request to this cluster.
    pub(in super::super) fn of(cluster: &Cluster, request: &Request) -> Self {
        match cluster.http {
            HttpVersion::Http2 => Self::Http2,
            HttpVersion::Client if request.version == http::Version::HTTP_2 => Self::Http2,
            HttpVersion::Client => Self::Http1,
            // Nothing asks for HTTP/2 but the request.
            HttpVersion::Auto if request.is_grpc() => Self::Offered,
            HttpVersion::Auto => Self::Http1,
        }
    }
}
