//! An HTTP/1 upstream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Method};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{
    super::{
        bad::BadMessage,
        body::{BodyPiece, Data, RecvError, Sink, Source},
        request::Request,
        response::Response,
    },
    Stream,
    head::{HeadLimits, parse_response},
    sender::Sender,
};
use crate::{net::RelayIo, telemetry::count_normalized};

/// A connection to an upstream, in clear or inside TLS.
#[derive(Debug)]
pub(in super::super) enum UpstreamIo {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl RelayIo for UpstreamIo {
    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(io) => Some(io),
            Self::Tls(_) => None,
        }
    }

    fn reset(&self) {
        match self {
            Self::Plain(io) => RelayIo::reset(io),
            Self::Tls(io) => RelayIo::reset(io.get_ref().0),
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(io) => io.poll_gone(cx),
            Self::Tls(io) => io.get_mut().0.poll_gone(cx),
        }
    }
}

/// An HTTP/1 connection to an upstream.
#[derive(Debug)]
pub(in super::super) struct H1Outbound<I = UpstreamIo> {
    pub(in super::super) stream: Stream<I>,
    method: Method,
    /// The upstream said something since the last request.
    heard: bool,
    keep_alive: bool,
    /// Bytes of the interim responses to the request: they wait for a client that may not read.
    interim: usize,
}

impl<I: AsyncRead + AsyncWrite + Unpin> H1Outbound<I> {
    pub(in super::super) fn new(io: I) -> Self {
        Self {
            stream: Stream::new(io, BytesMut::new(), Sender::Upstream),
            method: Method::GET,
            heard: false,
            keep_alive: true,
            interim: 0,
        }
    }

    /// Queues the request's head.
    pub(in super::super) fn request(
        &mut self,
        request: &Request,
        path: &str,
        host: &HeaderValue,
        headers: &HeaderMap,
        upgrade: Option<&HeaderValue>,
    ) {
        self.begin(request.method.clone());
        let out = self.stream.output();
        super::encode::whole_request(out, request, path, host, headers, upgrade);
        self.stream.start_body(request.framing);
    }

    /// What comes next is the response to a `method` request.
    pub(in super::super) fn begin(&mut self, method: Method) {
        self.method = method;
        self.heard = false;
        self.interim = 0;
    }

    /// The next response head, interim ones too, which may have as many bytes together as one head.
    pub(in super::super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        limits: HeadLimits,
    ) -> Poll<Result<Response, RecvError>> {
        loop {
            if let Some(head) = self.stream.take_head(limits.bytes)? {
                let length = head.len();
                let head = parse_response(&head, limits)?;
                let response = Response::from_h1(head, &self.method)?;
                for kind in response.normalized.iter() {
                    count_normalized(kind);
                }
                self.keep_alive &= response.keep_alive;
                if !response.status.is_informational() {
                    self.stream.expect_body(response.framing);
                } else {
                    self.interim += length;
                    if self.interim > limits.bytes {
                        return Poll::Ready(
                            Err(BadMessage::Interim { limit: limits.bytes }.into()),
                        );
                    }
                }
                return Poll::Ready(Ok(response));
            }
            match ready!(self.stream.poll_fill(cx, scratch)) {
                Ok(true) => self.heard = true,
                Ok(false) => return Poll::Ready(Err(RecvError::Truncated)),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Whether the upstream said anything in answer to the request.
    pub(in super::super) fn was_heard(&self) -> bool {
        self.heard
    }

    /// Whether another request may be sent on it.
    pub(in super::super) fn is_reusable(&self) -> bool {
        self.keep_alive && self.stream.is_at_rest() && !self.stream.has_input()
    }

    /// Whether an idle connection still stands: the upstream neither closed it nor said something
    /// that nobody asked for.
    pub(in super::super) fn is_alive(&mut self, scratch: &mut [u8]) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.stream.poll_fill(&mut cx, scratch).is_pending()
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Source for H1Outbound<I> {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<BodyPiece, RecvError>> {
        let polled = self.stream.poll_recv(cx, scratch);
        for kind in self.stream.take_normalized() {
            count_normalized(kind);
        }
        polled
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Sink for H1Outbound<I> {
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

impl AsyncRead for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
