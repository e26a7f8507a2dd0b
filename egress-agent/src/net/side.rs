//! A connection as a relay, and whoever serves it, knows it.

use std::task::{Context, Poll};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// One side of a relay, or the connection of a client.
pub trait Side: AsyncRead + AsyncWrite + Unpin {
    /// The socket, if what is read and written is what is on the wire; then it may be spliced.
    fn plain(&self) -> Option<&TcpStream>;

    /// Makes closing it a reset, which the other end can't take for the regular end of the data.
    fn reset(&self);

    /// Ready when the other end, of which nothing more is to be read, has left altogether. Reading does not
    /// show it then. A socket has to be asked now and then: it wakes nobody for this.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

impl Side for TcpStream {
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

impl<S: Side> Side for Box<S> {
    fn plain(&self) -> Option<&TcpStream> {
        (**self).plain()
    }

    fn reset(&self) {
        (**self).reset();
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_gone(cx)
    }
}
