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
    net::Side,
    proxy::{Holder, Queued, inbox::Inbox},
    tls::Ending,
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
    holder: Holder,
    /// What was received and not read yet.
    read: Bytes,
    /// The whole tunnel's.
    ending: Ending,
    /// The end of our data was sent.
    shut: bool,
    reset: Cell<bool>,
}

impl TunnelStream {
    pub(super) fn new(
        send: SendStream<Queued>,
        receive: Inbox,
        holder: Holder,
        ending: Ending,
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
        let wanted = bytes.len().min(CHUNK);
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        if this.holder.poll_queue(cx).is_pending() {
            // What was promised meanwhile would be kept from other streams.
            this.send.reserve_capacity(0);
            return Poll::Pending;
        }
        this.send.reserve_capacity(wanted);
        // Room that is there already isn't announced again.
        let mut room = this.send.capacity();
        while room == 0 {
            room = match ready!(this.send.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(error)) => return Poll::Ready(Err(this.error(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let taken = bytes.get(..room.min(wanted)).unwrap_or_default();
        let queued = this.holder.queue(Bytes::copy_from_slice(taken));
        match this.send.send_data(queued, false) {
            Ok(()) => Poll::Ready(Ok(taken.len())),
            Err(error) => Poll::Ready(Err(this.error(error))),
        }
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

impl Side for TunnelStream {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    fn reset(&self) {
        self.reset.set(true);
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.send.poll_reset(cx).map(drop)
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
