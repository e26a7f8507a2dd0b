//! Windows of HTTP/2 connections that many share (RFC 9113 §5.2).
//!
//! A connection's window is shared by its streams: a few whose readers do not read take all of it, and
//! every other stream stops. So it is never the one that bounds: it is larger than what the streams may
//! have together, and what bounds are the windows of single streams. These shrink as more is held for
//! readers that do not read, so the sum is bounded, too.
//!
//! A peer whose window has shrunk below zero sends nothing until it hears of more (RFC 9113 §6.9.2). The
//! library speaks of what was read once it is half of the window, and looks at that as something is read.
//! Where less was read before the window shrank, nothing is left to read: both ends would wait for each
//! other. So [`Windows`] has the library speak when the peer has acknowledged a smaller window.

use std::{cell::Cell, task::Context};

use h2::FlowControl;

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

/// The window of a connection's streams, as its peer knows it.
#[derive(Debug)]
pub struct Windows {
    announced: Cell<u32>,
    /// It is smaller than before, and the peer has not acknowledged that yet.
    shrinks: Cell<bool>,
}

impl Windows {
    /// Of a connection that began with this window.
    #[must_use]
    pub fn new(first: u32) -> Self {
        Self { announced: Cell::new(first), shrinks: Cell::new(false) }
    }

    /// What was announced to the peer last.
    #[must_use]
    pub fn announced(&self) -> u32 {
        self.announced.get()
    }

    /// The connection's task has had its turn: tells the peer the window that is `wanted` with `set`, which
    /// fails while the one before is not acknowledged. `each` calls its argument for every stream that
    /// somebody reads.
    pub fn turn(
        &self,
        cx: &Context<'_>,
        wanted: u32,
        set: impl FnOnce(u32) -> Result<(), h2::Error>,
        each: impl FnOnce(&mut dyn FnMut(&mut FlowControl)),
    ) {
        if self.shrinks.get() {
            let mut acknowledged = false;
            each(&mut |flow| acknowledged |= reopen(flow, self.announced.get()));
            self.shrinks.set(!acknowledged);
        }
        let announced = self.announced.get();
        if wanted != announced && set(wanted).is_ok() {
            self.announced.set(wanted);
            self.shrinks.set(wanted < announced || self.shrinks.get());
            cx.waker().wake_by_ref();
        }
    }
}

/// If the stream's window is `window` by now, has the library look at what the peer has not heard of. Whether
/// it is.
fn reopen(flow: &mut FlowControl, window: u32) -> bool {
    let whole = flow.available_capacity().saturating_add_unsigned(flow.used_capacity());
    let applies = isize::try_from(window).is_ok_and(|window| window == whole);
    if applies && let Err(error) = flow.release_capacity(0) {
        tracing::debug!(%error, "a stream's window");
    }
    applies
}

#[cfg(test)]
mod tests;
