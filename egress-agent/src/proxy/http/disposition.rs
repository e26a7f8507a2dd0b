//! What follows an exchange.

use std::time::Duration;

use super::{outbound::H1Connection, response::Response};

/// What becomes of the client's connection (HTTP/1) or stream (HTTP/2).
#[derive(Debug)]
pub(super) enum Disposition {
    /// All is clean: the connection may go on.
    Done,
    /// The response is complete, but nothing can follow.
    Close,
    /// The response broke off: the client gets the part that arrived, without an end of the body.
    Cut,
    /// The response is not complete, and must not look as if it were.
    Abort,
    /// A `101` came: from here on bytes are copied, until none came for so long.
    Switch(Box<H1Connection>, Response, Option<Duration>),
}
