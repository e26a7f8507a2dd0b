//! HTTP/2, on the `h2` crate: the two ends of the proxy.

mod inbound;
mod outbound;
mod refusal;
mod stream;
mod uploads;
mod watch;

pub(super) use self::{
    inbound::H2Inbound,
    outbound::{H2Connection, H2Outbound, HeadError, handshake},
    refusal::LibraryRefusal,
    uploads::{FIRST_WINDOW, expected},
    watch::{Unaccepted, Watch},
};

use super::request::TASK;
use crate::{net::CONNECTION_WINDOW, policy::ConnectionPool, proxy::Limits};

/// Window of one stream, in bytes, as long as readers read.
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;
/// What one stream may have waiting to be sent, in bytes.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams that we open on a connection to an upstream before there is a further one.
const MAX_STREAMS: usize = 128;
/// Streams of a client's connection, and bytes of a head, however little memory is left.
const FEW_STREAMS: u32 = 8;
const SMALL_HEAD: usize = 16 * 1024;
/// Streams that were reset here and whose late frames are ignored. Requests that are given up must not
/// end a connection that others share.
const RESET_STREAMS: usize = 10_000;
/// What small frames may cost, in bytes as the library counts them, before it closes a connection. Our
/// own queues take frames over as they come, so that only what comes between two turns counts.
const DATA_FRAMES: usize = 64 * 1024 * 1024;

/// Streams that we open on a connection of this pool.
pub(super) fn most_streams(pool: &ConnectionPool) -> usize {
    usize::try_from(pool.max_concurrent_streams).map_or(MAX_STREAMS, |most| most.min(MAX_STREAMS))
}

/// What a client may send on a connection before it has to wait. Its settings say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ClientBounds {
    /// Requests under way.
    pub(super) streams: u32,
    /// The headers of one request, in bytes as RFC 9113 §6.5.2 counts them.
    pub(super) header_list: u32,
    /// Requests that it resets before they are accepted.
    pub(super) resets: usize,
}

impl ClientBounds {
    /// For a new connection whose source may still take `left` bytes of heads: no more streams than may
    /// have the largest head, and where that is few, smaller heads.
    pub(super) fn new(left: usize, limits: &Limits) -> Self {
        let head = limits.request_head_bytes;
        let whole = left / (2 * head + TASK).max(1);
        let each = (left / FEW_STREAMS as usize).saturating_sub(TASK) / 2;
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            streams: number(whole).max(FEW_STREAMS).min(limits.http2_streams),
            header_list: number(each.max(SMALL_HEAD).min(head)),
            resets: limits.http2_resets,
        }
    }
}

/// A builder for the clients' side.
pub(super) fn server(bounds: ClientBounds) -> ::h2::server::Builder {
    let mut builder = ::h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(DATA_FRAMES)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(bounds.streams)
        .max_pending_accept_reset_streams(bounds.resets)
        .max_header_list_size(bounds.header_list);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_may_send_follows_what_is_left() {
        let limits =
            Limits { request_head_bytes: 64 * 1024, http2_streams: 128, ..Limits::default() };
        let bounds = |left| {
            let ClientBounds { streams, header_list, resets } = ClientBounds::new(left, &limits);
            assert_eq!(resets, limits.http2_resets);
            (streams, header_list)
        };
        let each = 2 * 64 * 1024 + TASK;
        let whole = 64 * 1024;
        assert_eq!(bounds(usize::MAX), (128, whole));
        assert_eq!(bounds(128 * each), (128, whole));
        assert_eq!(bounds(128 * each - 1), (127, whole));
        assert_eq!(bounds(8 * each), (8, whole));
        let (streams, less) = bounds(8 * each / 2);
        assert_eq!(streams, 8);
        assert!(less > 16 * 1024 && less < whole, "{less}");
        assert_eq!(bounds(0), (8, 16 * 1024));
        // Neither is ever more than the settings say.
        let small = Limits { request_head_bytes: 1000, http2_streams: 10, ..limits };
        for left in [0, usize::MAX] {
            let bounds = ClientBounds::new(left, &small);
            assert_eq!(bounds.header_list, 1000);
            assert!(bounds.streams <= 10);
        }
    }
}
