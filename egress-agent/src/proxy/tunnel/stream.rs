//! One connection of a tunnel: an HTTP/2 stream, read and written as a socket is.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use h2::{Reason, SendStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{
    net::RelayIo,
    proxy::{ConnectionOwner, Queued, inbox::Inbox},
    tls::RevocationSignal,
};

/// Bytes that are handed to HTTP/2 at once.
const CHUNK: usize = 64 * 1024;

/// The stream of a CONNECT that was answered with 200.
///
/// The window is given back as bytes are read, and bytes are taken as the other side's window
/// allows, and the bound on what waits for the connection: nobody holds more than the two windows.
pub(in crate::proxy) struct TunnelStream {
    send: SendStream<Queued>,
    receive: Inbox,
    /// The connection's place, which bounds what waits to be written for it.
    holder: ConnectionOwner,
    /// What was received and not read yet.
    read: Bytes,
    /// The whole tunnel's.
    ending: RevocationSignal,
    /// The end of our data was sent.
    shut: bool,
    reset: Cell<bool>,
}

impl TunnelStream {
    pub(super) fn new(
        send: SendStream<Queued>,
        receive: Inbox,
        holder: ConnectionOwner,
        ending: RevocationSignal,
    ) -> Self {
        let (read, reset) = (Bytes::new(), Cell::new(false));
        Self { send, receive, holder, read, ending, shut: false, reset }
    }

    /// Completes when there is something to read, the end included.
    pub(in crate::proxy) async fn readable(&mut self) -> io::Result<()> {
        poll_fn(|cx| match self.read.is_empty() {
            true => self.receive.poll_readable(cx),
            false => Poll::Ready(()),
        })
        .await;
        Ok(())
    }

    /// Whether there are bytes; without any it is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.read.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(bytes)) => self.read = bytes,
                Some(Err(error)) => return Poll::Ready(Err(self.error(error))),
                None => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Ready with how many of so many bytes may be written.
    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>> {
        let wanted = bytes.min(CHUNK);
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.holder.poll_queue(cx).is_pending() {
            // What was promised meanwhile would be kept from other streams.
            self.send.reserve_capacity(0);
            return Poll::Pending;
        }
        self.send.reserve_capacity(wanted);
        // Room that is there already isn't announced again.
        let mut room = self.send.capacity();
        while room == 0 {
            room = match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(error)) => return Poll::Ready(Err(self.error(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        Poll::Ready(Ok(room.min(wanted)))
    }

    /// Gives bytes to the tunnel, which has room for them.
    fn hand_over(&mut self, bytes: Bytes) -> io::Result<usize> {
        let length = bytes.len();
        if length == 0 {
            return Ok(0);
        }
        let queued = self.holder.queue(bytes);
        match self.send.send_data(queued, false) {
            Ok(()) => Ok(length),
            Err(error) => Err(self.error(error)),
        }
    }

    fn error(&self, error: h2::Error) -> io::Error {
        if let Some(ended) = self.ending.get() {
            return io::Error::new(io::ErrorKind::ConnectionAborted, ended.clone());
        }
        if error.is_io() {
            return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
        }
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if ready!(this.poll_fill(cx))? {
            let length = this.read.len().min(buffer.remaining());
            buffer.put_slice(this.read.get(..length).unwrap_or_default());
            this.read.advance(length);
            // It fails only for more than was received.
            this.receive.release(length).ok();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let room = ready!(this.poll_room(cx, bytes.len()))?;
        let taken = bytes.get(..room).unwrap_or_default();
        Poll::Ready(this.hand_over(Bytes::copy_from_slice(taken)))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The tunnel's own task writes what it was handed.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        self.shut = true;
        match self.send.send_data(Queued::none(), true) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(self.error(error))),
        }
    }
}

impl RelayIo for TunnelStream {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    fn reset(&self) {
        self.reset.set(true);
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.send.poll_reset(cx).map(drop)
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<Bytes>>> {
        let filled = self.poll_fill(cx).map_ok(|_| {
            let received = std::mem::take(&mut self.read);
            // It fails only for more than was received.
            self.receive.release(received.len()).ok();
            received
        });
        Some(filled)
    }

    fn keeps_bytes(&self) -> bool {
        true
    }

    fn poll_write_bytes(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx, bytes.len()))?;
        Poll::Ready(self.hand_over(bytes.split_to(room)))
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        if self.reset.get() {
            // What a reset is to TCP (RFC 9113 §8.5). Dropping alone would say CANCEL where the
            // data had no end, and nothing where it had.
            self.send.send_reset(Reason::CONNECT_ERROR);
        }
    }
}
