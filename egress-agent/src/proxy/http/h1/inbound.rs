//! An HTTP/1 client.

use std::{
    io,
    task::{Context, Poll},
};

use http::{HeaderMap, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    super::{
        body::{BodyPiece, Data, RecvError, Sink, Source},
        framing::Framing,
        inbound::Inbound,
        response::Response,
    },
    Stream,
    encode::{self, Persistence},
};

/// Pipelined requests that are read ahead, in bytes; beyond this the client waits. They are counted with
/// the connection.
const READ_AHEAD: usize = 16 * 1024;

/// One client's connection, in the middle of a request.
#[derive(Debug)]
pub(in super::super) struct H1Inbound<I> {
    pub(in super::super) stream: Stream<I>,
    /// Of the request.
    version: Version,
    /// Whether the connection goes on after the response.
    pub(in super::super) keep_alive: bool,
    /// The client sends nothing more. It may wait for the response all the same (RFC 9293 §3.6), and
    /// if it doesn't, writing to it fails.
    ended: bool,
    /// Whether the response's head was queued.
    pub(in super::super) responded: bool,
    /// Whether the response's end is not the connection's, so that a missing end shows.
    pub(in super::super) delimited: bool,
}

impl<I: AsyncRead + AsyncWrite + Unpin> H1Inbound<I> {
    pub(in super::super) fn new(stream: Stream<I>) -> Self {
        Self {
            stream,
            version: Version::HTTP_11,
            keep_alive: false,
            ended: false,
            responded: false,
            delimited: false,
        }
    }

    /// A request with this head comes next.
    pub(in super::super) fn begin(&mut self, version: Version, framing: Framing, keep_alive: bool) {
        self.version = version;
        self.keep_alive = keep_alive;
        self.responded = false;
        self.stream.expect_body(framing);
    }

    /// Queues a `101` and turns the connection over to the other protocol.
    pub(in super::super) fn switch(&mut self, response: &Response) {
        encode::interim(
            self.stream.output(),
            response.status,
            &response.headers,
            response.upgrade.as_ref(),
        );
        self.keep_alive = false;
        self.responded = true;
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Inbound for H1Inbound<I> {
    fn poll_gone(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<()> {
        while !self.ended && self.stream.buffered() < READ_AHEAD {
            let room = (READ_AHEAD - self.stream.buffered()).min(scratch.len());
            match self.stream.poll_fill(cx, scratch.get_mut(..room).unwrap_or_default()) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => self.ended = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    fn is_received(&self) -> bool {
        self.stream.is_received()
    }

    fn interim(&mut self, status: StatusCode, headers: &HeaderMap) {
        if self.version == Version::HTTP_11 {
            encode::interim(self.stream.output(), status, headers, None);
        }
    }

    fn respond(&mut self, response: &Response, last: bool) -> io::Result<()> {
        let framing = match response.framing {
            Framing::Chunked | Framing::UntilClose if !encode::knows_chunks(self.version) => {
                Framing::UntilClose
            }
            Framing::Chunked | Framing::UntilClose => Framing::Chunked,
            framing @ (Framing::None | Framing::Length(_)) => framing,
        };
        self.delimited = framing != Framing::UntilClose;
        self.keep_alive &= !last && framing != Framing::UntilClose;
        let persistence = match (self.keep_alive, self.version) {
            (false, _) => Persistence::Close,
            (true, Version::HTTP_10) => Persistence::KeepAliveSaid,
            (true, _) => Persistence::KeepAlive,
        };
        encode::response(
            self.stream.output(),
            self.version,
            response.status,
            &response.headers,
            framing,
            response.length,
            persistence,
        );
        self.responded = true;
        self.stream.start_body(framing);
        Ok(())
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Source for H1Inbound<I> {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<BodyPiece, RecvError>> {
        self.stream.poll_recv(cx, scratch)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Sink for H1Inbound<I> {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.stream.poll_room(cx)
    }

    fn send(&mut self, cx: &mut Context<'_>, data: Data<'_>) -> io::Result<()> {
        self.stream.send(cx, data)
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        self.stream.finish(trailers)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }
}
