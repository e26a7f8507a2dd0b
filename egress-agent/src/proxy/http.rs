//! HTTP/1.1 and HTTP/2.
//!
//! A connection ([`serve`]) yields requests in one normal form ([`request`]); each is decided on its
//! own ([`exchange`]), sent on a pooled or new connection ([`attempt`], [`pool`], [`connect`]), and
//! its response relayed ([`relay_response`]). What can't be read in one way only is refused
//! ([`bad`]). Every request leaves one [`record`].
//!
//! What is sent on: the host in its normal form, the end-to-end headers, framing of our own, and an
//! `X-Request-Id` where there was none. Nothing tells the outside about the inside: no
//! `X-Forwarded-For` is added (Istio's gateway appends the pod's address; here it is in the log
//! alone), no `Via`, no `x-envoy-*`; what the client itself claims with such headers is removed
//! ([`headers`]). The path is sent in its normal form. A port in the
//! request's host must be the one that was dialled: `example.com:22` asked for on port 80 is a
//! contradiction, and refused.

mod affinity;
mod attempt;
mod authority;
mod bad;
mod body;
mod boxed_future;
mod clock;
mod connect;
mod connection;
mod cors;
mod deadline;
mod disposition;
mod exchange;
mod failure;
mod forward;
mod framing;
mod grpc;
mod h1;
mod h2;
mod headers;
mod inbound;
mod link;
mod mirror;
mod outbound;
mod paced;
mod pool;
mod record;
mod relay_response;
mod replay;
mod reply;
mod request;
mod reread;
mod resend;
mod response;
mod retry;
mod serve_h1;
mod serve_h2;
mod shared;
mod spare_buffers;
mod trace;
mod tunnel;
mod watch;

use std::rc::Rc;

use bytes::BytesMut;
use futures_util::future::Either;

use self::connection::Connection;
pub use self::{
    connection::{IncomingHop, TerminatedTls},
    reread::{Answered, answered, forwarded},
    shared::Shared,
};
use super::{Downstream, Worker};
use crate::net::RelayIo;

/// The version that the first bytes of a connection show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// HTTP/1.
    H1,
    /// HTTP/2 with prior knowledge (RFC 9113 §3.3).
    H2,
}

/// Serves a connection whose first bytes, `read`, are HTTP. It must run inside a
/// [`tokio::task::LocalSet`].
pub fn serve<I: RelayIo + 'static>(
    worker: Rc<Worker>,
    downstream: Downstream,
    hop: IncomingHop,
    io: I,
    read: BytesMut,
    version: Version,
) -> impl Future<Output = ()> {
    let connection = Connection { worker, downstream, hop };
    match version {
        Version::H1 => Either::Left(serve_h1::serve(connection, io, read)),
        // Kept out of what an idle HTTP/1 connection takes.
        Version::H2 => Either::Right(Box::pin(serve_h2::serve(connection, io, read))),
    }
}

#[cfg(test)]
mod lenient;
#[cfg(test)]
mod tests;
