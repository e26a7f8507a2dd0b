//! Windows of HTTP/2 connections that many share (RFC 9113 §5.2).
//!
//! A connection's window is shared by its streams: a few whose readers do not read take all of it, and
//! every other stream stops. So it is never the one that bounds: it is larger than what the streams may
//! have together, and what bounds are the windows of single streams. These shrink as more is held for
//! readers that do not read, so the sum is bounded, too.

/// Window of a connection, in bytes: as good as none. Go's HTTP/2 uses the same, so peers know it.
pub const CONNECTION_WINDOW: u32 = 1 << 30;
/// The smallest window of a stream, in bytes: one frame of the default size.
pub const LEAST_WINDOW: u32 = 16 * 1024;

/// The window of each stream of a connection, in bytes, that holds `held` bytes for readers and may
/// hold about `room`.
#[must_use]
pub fn stream_window(most: u32, held: usize, room: usize) -> u32 {
    let window = match held.saturating_mul(4) / room.max(1) {
        0 => most,
        1 => most / 4,
        2 => most / 16,
        _ => most / 64,
    };
    window.max(LEAST_WINDOW).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn windows_shrink_as_more_is_held() {
        let most = 1024 * 1024;
        let steps = [0, 8, 16, 24, 1000].map(|held| stream_window(most, held * MIB, 32 * MIB));
        assert_eq!(steps, [1024, 256, 64, 16, 16].map(|kib| kib * 1024));
        assert_eq!(stream_window(1000, 100 * MIB, MIB), 1000, "never more than asked for");
        assert_eq!(stream_window(most, 1, 0), LEAST_WINDOW);
    }
}
