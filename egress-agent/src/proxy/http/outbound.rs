//! The upstream's side of one exchange, whichever version it speaks.

use std::{
    io,
    task::{Context, Poll},
};

use http::HeaderMap;

use super::{
    body::{BodyPiece, Data, RecvError, Sink, Source},
    failure::Failure,
    h1::{H1Outbound, HeadLimits},
    h2::{H2Outbound, HeadError},
    link::{Link, RequestInFlight},
    response::Response,
};

/// An HTTP/1 connection with what belongs to it.
#[derive(Debug)]
pub(super) struct H1Connection {
    pub(super) outbound: H1Outbound,
    pub(super) link: Link,
    /// Requests that were sent on it.
    pub(super) started: u32,
    /// The request under way.
    pub(super) in_flight: Option<RequestInFlight>,
}

impl H1Connection {
    /// Counts what has been read and written since the last time.
    pub(super) fn count(&mut self) {
        let stream = &mut self.outbound.stream;
        self.link.count(
            std::mem::take(&mut stream.read_bytes),
            std::mem::take(&mut stream.written_bytes),
        );
    }
}

impl Drop for H1Connection {
    fn drop(&mut self) {
        self.count();
    }
}

/// A way to send one request.
#[derive(Debug)]
pub(super) enum Outbound {
    H1(Box<H1Connection>),
    H2(H2Outbound),
}

impl Outbound {
    pub(super) fn link(&self) -> &Link {
        match self {
            Self::H1(connection) => &connection.link,
            Self::H2(stream) => &stream.connection().link,
        }
    }

    /// Whether it was given up because the upstream gave no sign of life.
    pub(super) fn is_silent(&self) -> bool {
        match self {
            Self::H1(_) => false,
            Self::H2(stream) => stream.connection().silent().is_some(),
        }
    }

    /// A request begins: from here to the end of its response it counts for its endpoint.
    pub(super) fn begin(&mut self) {
        let link = self.link();
        let in_flight = Some(RequestInFlight {
            _load: link.lease.request(),
            _counted: link.endpoint.request(),
        });
        match self {
            Self::H1(connection) => connection.in_flight = in_flight,
            Self::H2(stream) => stream.in_flight = in_flight,
        }
    }

    /// Bytes that were handed to the connection, to tell whether anything of a request was.
    pub(super) fn written(&self) -> u64 {
        match self {
            Self::H1(connection) => connection.outbound.stream.written_bytes,
            // Not known by stream: take it that something was.
            Self::H2(stream) => u64::from(stream.is_sent()),
        }
    }

    /// The exchange is over, with so many bytes of bodies.
    pub(super) fn count(&mut self, request: u64, response: u64) {
        match self {
            Self::H1(connection) => connection.count(),
            Self::H2(stream) => stream.connection().link.count(response, request),
        }
    }

    /// The next response head, interim ones too.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        limits: HeadLimits,
    ) -> Poll<Result<Response, Failure>> {
        match self {
            Self::H1(connection) => {
                let outbound = &mut connection.outbound;
                let polled = outbound.poll_head(cx, scratch, limits);
                polled.map_err(|error| failure(error, outbound.was_heard()))
            }
            Self::H2(stream) => {
                let polled = stream.poll_head(cx, limits);
                polled.map_err(|error| match (error, stream.connection().silent()) {
                    (HeadError::Refused, _) => Failure::RefusedStream,
                    (HeadError::LeftOut, _) => Failure::LeftOut,
                    (HeadError::Recv(_), Some(time)) => Failure::Reset(format!(
                        "no sign of life of the upstream within {} s",
                        time.as_secs_f64()
                    )),
                    (HeadError::Recv(error), None) => failure(error, false),
                })
            }
        }
    }
}

fn failure(error: RecvError, heard: bool) -> Failure {
    match error {
        RecvError::Bad(bad) => Failure::Protocol(bad),
        error @ (RecvError::Truncated | RecvError::Io(_)) if heard => {
            Failure::Broken(error.to_string())
        }
        RecvError::Truncated => Failure::Closed,
        RecvError::Io(error) => Failure::Reset(error.to_string()),
    }
}

impl Source for Outbound {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<BodyPiece, RecvError>> {
        match self {
            Self::H1(connection) => connection.outbound.poll_recv(cx, scratch),
            Self::H2(stream) => stream.poll_recv(cx, scratch),
        }
    }
}

impl Sink for Outbound {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Self::H1(connection) => connection.outbound.poll_room(cx),
            Self::H2(stream) => stream.poll_room(cx),
        }
    }

    fn send(&mut self, cx: &mut Context<'_>, data: Data<'_>) -> io::Result<()> {
        match self {
            Self::H1(connection) => connection.outbound.send(cx, data),
            Self::H2(stream) => stream.send(cx, data),
        }
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        match self {
            Self::H1(connection) => connection.outbound.finish(trailers),
            Self::H2(stream) => stream.finish(trailers),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::H1(connection) => connection.outbound.poll_flush(cx),
            Self::H2(stream) => stream.poll_flush(cx),
        }
    }
}
