//! Seeing what the library refuses: a malformed request is reset before anybody else hears of it,
//! and a refusal that nobody sees can't be looked into.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Length of a frame's header (RFC 9113 §4.1).
const HEADER: usize = 9;
/// `RST_STREAM` (RFC 9113 §6.4), with its four bytes.
const RST_STREAM: u8 = 3;
const RST_STREAM_LENGTH: usize = 4;
/// The code of what is malformed (RFC 9113 §8.1.1).
const PROTOCOL_ERROR: u32 = 1;

/// A server's connection; `refused` is called for every stream that is reset as malformed.
pub(in super::super) struct Watch<I, F> {
    io: I,
    frames: Frames,
    refused: F,
}

impl<I, F> fmt::Debug for Watch<I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl<I, F: FnMut()> Watch<I, F> {
    pub(in super::super) fn new(io: I, refused: F) -> Self {
        Self { io, frames: Frames::default(), refused }
    }

    fn wrote(&mut self, bytes: &[u8]) {
        for _ in 0..self.frames.feed(bytes) {
            (self.refused)();
        }
    }
}

/// Where in its frames a stream of bytes is.
#[derive(Debug, Default)]
struct Frames {
    /// The frame's header, and what a reset has behind it.
    start: [u8; HEADER + RST_STREAM_LENGTH],
    have: usize,
    /// Payload that is of no interest.
    skip: usize,
}

impl Frames {
    /// How many streams these bytes reset as malformed.
    fn feed(&mut self, mut bytes: &[u8]) -> usize {
        let mut found = 0;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((byte, rest)) = bytes.split_first() else { break };
            bytes = rest;
            if let Some(place) = self.start.get_mut(self.have) {
                *place = *byte;
                self.have += 1;
            }
            let [a, b, c, kind, _, _, _, _, _, code @ ..] = self.start;
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let is_reset = kind == RST_STREAM && length == RST_STREAM_LENGTH;
            if self.have == HEADER && !is_reset {
                (self.have, self.skip) = (0, length);
            } else if self.have == HEADER + RST_STREAM_LENGTH {
                self.have = 0;
                found += usize::from(u32::from_be_bytes(code) == PROTOCOL_ERROR);
            }
        }
        found
    }
}

impl<I: AsyncRead + Unpin, F: Unpin> AsyncRead for Watch<I, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin, F: FnMut() + Unpin> AsyncWrite for Watch<I, F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &polled {
            self.wrote(buf.get(..*written).unwrap_or_default());
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(written)) = &polled {
            let mut left = *written;
            for buf in bufs {
                let taken = left.min(buf.len());
                self.wrote(buf.get(..taken).unwrap_or_default());
                left -= taken;
            }
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn resets_are_found_however_the_bytes_are_split() {
        let mut bytes = frame(4, &[]);
        bytes.extend(frame(0, &[3; 70_000]));
        bytes.extend(frame(RST_STREAM, &[0, 0, 0, 1]));
        bytes.extend(frame(RST_STREAM, &[0, 0, 0, 8]));
        bytes.extend(frame(1, &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 1]));
        bytes.extend(frame(RST_STREAM, &[0, 0, 0, 1]));
        for piece in [1, 2, 9, 13, 1000, bytes.len()] {
            let mut frames = Frames::default();
            let found: usize = bytes.chunks(piece).map(|piece| frames.feed(piece)).sum();
            assert_eq!(found, 2, "{piece}");
        }
    }
}
