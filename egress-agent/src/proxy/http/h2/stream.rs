//! Bodies of HTTP/2 streams.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use super::super::{
    body::{Data, Piece, RecvError},
    h1::is_forbidden_trailer,
    headers,
};

/// An HTTP/2 failure as an I/O error.
pub(super) fn io_error(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
    }
    io::Error::other(error)
}

/// The next piece of a body.
pub(super) fn poll_recv(
    body: &mut RecvStream,
    cx: &mut Context<'_>,
) -> Poll<Result<Piece, RecvError>> {
    match ready!(body.poll_data(cx)) {
        Some(Ok(data)) => {
            // The piece is handed on before the next is asked for, so the window opens with it.
            body.flow_control()
                .release_capacity(data.len())
                .map_err(|error| RecvError::Io(io_error(error)))?;
            Poll::Ready(Ok(Piece::Owned(data)))
        }
        Some(Err(error)) => Poll::Ready(Err(RecvError::Io(io_error(error)))),
        None => match ready!(body.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(Ok(Piece::End(trailers.map(clean)))),
            Err(error) => Poll::Ready(Err(RecvError::Io(io_error(error)))),
        },
    }
}

/// Trailers without those that frame, route or belong to one hop.
fn clean(mut trailers: HeaderMap) -> HeaderMap {
    headers::take_hop_by_hop(&mut trailers);
    let forbidden: Vec<_> =
        trailers.keys().filter(|name| is_forbidden_trailer(name)).cloned().collect();
    for name in forbidden {
        trailers.remove(name);
    }
    trailers
}

/// The sending half of a stream; `None` where END_STREAM went with the head.
#[derive(Debug)]
pub(super) struct Sender(pub(super) Option<SendStream<Bytes>>);

impl Sender {
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Without a stream only the body's end is to come.
        let Some(stream) = &mut self.0 else { return Poll::Ready(Ok(1)) };
        if stream.capacity() == 0 {
            stream.reserve_capacity(super::STREAM_WINDOW as usize / 4);
            while stream.capacity() == 0 {
                match ready!(stream.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
        }
        Poll::Ready(Ok(stream.capacity()))
    }

    pub(super) fn send(&mut self, data: Data<'_>) -> io::Result<()> {
        match &mut self.0 {
            Some(stream) => stream.send_data(data.into_bytes(), false).map_err(io_error),
            None if data.as_slice().is_empty() => Ok(()),
            None => Err(io::Error::other("a body where none was announced")),
        }
    }

    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        let Some(stream) = &mut self.0 else { return Ok(()) };
        match trailers {
            Some(trailers) => stream.send_trailers(trailers).map_err(io_error),
            None => stream.send_data(Bytes::new(), true).map_err(io_error),
        }
    }

    /// Ready when the peer has reset the stream.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(stream) => stream.poll_reset(cx).map(drop),
            None => Poll::Pending,
        }
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        if let Some(stream) = &mut self.0 {
            stream.send_reset(reason);
        }
    }
}
