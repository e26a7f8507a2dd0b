//! HTTP/2, on the `h2` crate: the two ends of the proxy.

mod inbound;
mod outbound;
mod stream;
mod uploads;
mod watch;

pub(super) use self::{
    inbound::H2Inbound,
    outbound::{H2Connection, H2Outbound, HeadError, handshake},
    uploads::{FIRST_WINDOW, expected},
    watch::Watch,
};

use crate::net::CONNECTION_WINDOW;

/// Window of one stream, in bytes, as long as readers read.
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;
/// What one stream may have waiting to be sent, in bytes.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams of one connection: those that a client may have open, and those that we open to an upstream
/// before there is a further connection.
pub(super) const MAX_STREAMS: u32 = 128;
/// Streams that were reset here and whose late frames are ignored. Requests that are given up must not
/// end a connection that others share.
const RESET_STREAMS: usize = 10_000;
/// What small frames may cost, in bytes as the library counts them, before it closes a connection. Our
/// own queues take frames over as they come, so that only what comes between two turns counts.
const DATA_FRAMES: usize = 64 * 1024 * 1024;

/// A builder for the clients' side. `header_list` bounds the headers of one request, in bytes as
/// RFC 9113 §6.5.2 counts them.
pub(super) fn server(header_list: usize) -> ::h2::server::Builder {
    let mut builder = ::h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(DATA_FRAMES)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX));
    builder
}
