//! A connection of which some bytes were read already.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{RelayIo, forward::forward_to_io};

/// Yields what was read before, then what comes.
#[derive(Debug)]
pub struct PrefixedIo<I> {
    read: Bytes,
    io: I,
}

impl<I> PrefixedIo<I> {
    /// `read` was read from `io`.
    #[must_use]
    pub fn new(read: Bytes, io: I) -> Self {
        Self { read, io }
    }

    /// The connection; what was read before and not taken is lost.
    #[must_use]
    pub fn into_inner(self) -> I {
        self.io
    }
}

impl PrefixedIo<TcpStream> {
    /// See [`RelayIo::reset`].
    pub fn reset(&self) {
        self.io.reset();
    }

    /// See [`RelayIo::poll_gone`].
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.io.poll_gone(cx)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for PrefixedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let length = self.read.len().min(buf.remaining());
        buf.put_slice(self.read.get(..length).unwrap_or_default());
        self.read.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for PrefixedIo<I> {
    forward_to_io!(poll_write, poll_write_vectored, is_write_vectored, poll_flush, poll_shutdown);
}
