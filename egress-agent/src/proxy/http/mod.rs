//! HTTP/1.1 and HTTP/2.

use std::rc::Rc;

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::{Downstream, Worker};

/// What HTTP keeps for all connections of one worker.
#[derive(Debug, Default)]
pub struct Shared {}

/// The version that the first bytes of a connection show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// HTTP/1.
    H1,
    /// HTTP/2 with prior knowledge (RFC 9113 §3.3).
    H2,
}

/// Serves a connection whose first bytes, `read`, are HTTP.
pub async fn serve(
    _worker: Rc<Worker>,
    _downstream: Downstream,
    _io: TcpStream,
    _read: BytesMut,
    _version: Version,
) {
}
