//! HTTP/2, on the `h2` crate: the two ends of the proxy.

mod inbound;
mod outbound;
mod stream;
mod watch;

pub(super) use self::{
    inbound::H2Inbound,
    outbound::{H2Connection, H2Outbound, HeadError, handshake},
    watch::Watch,
};

/// Window of one stream, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Window of a connection, in bytes.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What one stream may have waiting to be sent, in bytes.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams that a peer may have open at a time.
const MAX_STREAMS: u32 = 128;

/// A builder for the clients' side. `header_list` bounds the headers of one request, in bytes as
/// RFC 9113 §6.5.2 counts them.
pub(super) fn server(header_list: usize) -> ::h2::server::Builder {
    let mut builder = ::h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX));
    builder
}
