//! The client's side of one exchange, whichever version it speaks.

use std::{
    io,
    task::{Context, Poll},
};

use http::{HeaderMap, StatusCode};

use super::{
    body::{Sink, Source},
    response::Response,
};

/// The client of one request: the request's body comes from it, the response goes to it.
pub(super) trait Inbound: Source + Sink {
    /// Ready when the client has gone away. Asked once its body has been received.
    fn poll_gone(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<()>;

    /// Whether the request's body has been received to its end.
    fn is_received(&self) -> bool;

    /// Queues an interim response (1xx other than 101).
    fn interim(&mut self, status: StatusCode, headers: &HeaderMap);

    /// Queues the response's head. `last` says that nothing may follow on the connection.
    ///
    /// # Errors
    /// The client is gone.
    fn respond(&mut self, response: &Response, last: bool) -> io::Result<()>;
}
