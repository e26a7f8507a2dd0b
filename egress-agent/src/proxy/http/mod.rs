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
mod clock;
mod connect;
mod cors;
mod deadline;
mod exchange;
mod failure;
mod framing;
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
mod response;
mod retry;
mod serve_h1;
mod serve_h2;
mod tunnel;

use std::{cell::RefCell, fmt, rc::Rc, sync::Arc, time::SystemTime};

use bytes::BytesMut;
use egress_ebpf::reason::Reason;
use futures_util::future::Either;

use self::pool::Pool;
pub use self::reread::forwarded;
use super::{Downstream, PolicyCell, Worker};
use crate::{
    net::{Dialer, Side},
    policy::{self, Denied, Entry, Termination},
    types::Host,
};

/// The buffer that all connections of a worker read into, in bytes.
const SCRATCH: usize = 64 * 1024;

/// What HTTP keeps for all connections of one worker.
pub struct Shared {
    pool: Rc<Pool>,
    /// Borrowed only while something is polled, never across a wait.
    scratch: RefCell<Box<[u8]>>,
}

impl Shared {
    /// With so many connections to upstreams, at most, that wait for a request; for the policy in force,
    /// and the connections of this dialer.
    #[must_use]
    pub fn new(idle_upstreams: usize, policy: &PolicyCell, dialer: &Dialer) -> Self {
        let (policy, states) = (Arc::clone(policy), dialer.states());
        Self {
            pool: Rc::new(Pool::new(idle_upstreams, policy, states)),
            scratch: RefCell::new(vec![0; SCRATCH].into()),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// The version that the first bytes of a connection show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// HTTP/1.
    H1,
    /// HTTP/2 with prior knowledge (RFC 9113 §3.3).
    H2,
}

/// A client's connection, without its bytes.
#[derive(Clone, Debug)]
struct Connection {
    worker: Rc<Worker>,
    downstream: Downstream,
    hop: Hop,
}

/// How HTTP comes in.
#[derive(Clone, Debug)]
pub enum Hop {
    /// In clear, as the application sent it.
    Plain,
    /// Inside TLS that a server of this gateway ended.
    Terminated(Box<Ended>),
}

/// TLS that was ended here.
#[derive(Clone, Debug)]
pub struct Ended {
    /// By which server.
    pub termination: Termination,
    /// SNI, where the client sent one.
    pub server_name: Option<Host>,
}

impl Connection {
    fn origin(&self) -> request::Origin {
        let scheme = match self.hop {
            Hop::Plain => "http",
            Hop::Terminated(_) => "https",
        };
        request::Origin { port: self.downstream.port, scheme }
    }

    /// The stages that its requests go through.
    fn entry(&self) -> Entry<'_> {
        match &self.hop {
            Hop::Plain => match self.downstream.hop {
                policy::Hop::Plain => Entry::Mesh,
                policy::Hop::Tunnel => Entry::Tunnel,
            },
            Hop::Terminated(ended) => Entry::Server(&ended.termination),
        }
    }

    /// Refuses once the client's certificate has expired, although its connection is open.
    fn still_identified(&self) -> Result<(), Denied> {
        match &self.downstream.tls {
            Some(tls) if !tls.is_proof_at(SystemTime::now()) => Err(Denied {
                reason: Reason::ExpiredClient,
                detail: "the client's certificate has expired since it connected; connect anew"
                    .into(),
                matched: None,
            }),
            _ => Ok(()),
        }
    }

    /// SNI, where TLS was ended here.
    fn server_name(&self) -> Option<&Host> {
        match &self.hop {
            Hop::Plain => None,
            Hop::Terminated(ended) => ended.server_name.as_ref(),
        }
    }
}

/// Serves a connection whose first bytes, `read`, are HTTP. It must run inside a
/// [`tokio::task::LocalSet`].
pub fn serve<I: Side + 'static>(
    worker: Rc<Worker>,
    downstream: Downstream,
    hop: Hop,
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
mod tests;
