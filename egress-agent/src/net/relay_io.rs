//! A connection, as a relay and the task that serves it use it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// One side of a relay, or the connection of a client.
pub trait RelayIo: AsyncRead + AsyncWrite + Unpin {
    /// The socket, if what is read and written is what is on the wire; then it may be spliced.
    fn plain(&self) -> Option<&TcpStream>;

    /// Makes closing it a reset, which the other end can't take for the regular end of the data.
    fn reset(&self);

    /// Ready when the other end, of which nothing more is to be read, has left altogether. Reading does not
    /// show it then. A socket has to be asked now and then: it wakes no task for this.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// What was received, where it lies in a buffer of its own; empty at the end. `None` where it is to be
    /// read.
    fn poll_received(&mut self, _cx: &mut Context<'_>) -> Option<Poll<io::Result<Bytes>>> {
        None
    }

    /// Whether what is written is kept in a buffer of its own until it is sent.
    fn keeps_bytes(&self) -> bool {
        false
    }

    /// Writes as [`AsyncWrite::poll_write`] does, and takes out of `bytes` what was written.
    fn poll_write_bytes(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self).poll_write(cx, bytes))?;
        bytes.advance(written);
        Poll::Ready(Ok(written))
    }
}

impl RelayIo for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn reset(&self) {
        // It fails only where the connection is gone already.
        self.set_zero_linger().ok();
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        // The answer to what was sent after it had closed: a reset.
        if matches!(self.take_error(), Ok(None)) { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl<S: RelayIo> RelayIo for Box<S> {
    fn plain(&self) -> Option<&TcpStream> {
        (**self).plain()
    }

    fn reset(&self) {
        (**self).reset();
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_gone(cx)
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<Bytes>>> {
        (**self).poll_received(cx)
    }

    fn keeps_bytes(&self) -> bool {
        (**self).keeps_bytes()
    }

    fn poll_write_bytes(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<io::Result<usize>> {
        (**self).poll_write_bytes(cx, bytes)
    }
}
