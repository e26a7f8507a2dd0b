//! Bodies of HTTP/2 streams.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;

use super::super::{
    body::{BodyPiece, Data, RecvError},
    h1::is_forbidden_trailer,
    headers,
};
use crate::proxy::{ConnectionOwner, Queued, UnwrittenBytes, inbox::Inbox};

/// An HTTP/2 failure as an I/O error.
pub(super) fn io_error(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
    }
    io::Error::other(error)
}

/// The next piece of a body.
pub(super) fn poll_recv(
    body: &mut Inbox,
    cx: &mut Context<'_>,
) -> Poll<Result<BodyPiece, RecvError>> {
    match ready!(body.poll_data(cx)) {
        Some(Ok(data)) => {
            // The piece is handed on before the next is asked for, so the window opens with it.
            body.release(data.len()).map_err(|error| RecvError::Io(io_error(error)))?;
            Poll::Ready(Ok(BodyPiece::Owned(data)))
        }
        Some(Err(error)) => Poll::Ready(Err(RecvError::Io(io_error(error)))),
        None => match ready!(body.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(Ok(BodyPiece::End(trailers.map(clean)))),
            Err(error) => Poll::Ready(Err(RecvError::Io(io_error(error)))),
        },
    }
}

/// Trailers without those that frame, route or belong to one hop.
fn clean(mut trailers: HeaderMap) -> HeaderMap {
    headers::take_hop_by_hop(&mut trailers);
    let forbidden: Vec<_> = trailers
        .keys()
        .filter(|n| is_forbidden_trailer(n) || crate::policy::is_claim(n))
        .cloned()
        .collect();
    for name in forbidden {
        trailers.remove(name);
    }
    trailers
}

/// The sending half of a stream; none where END_STREAM went with the head.
#[derive(Debug)]
pub(super) struct Sender {
    stream: Option<SendStream<Queued>>,
    /// Whether a piece of the body was handed over.
    begun: bool,
    finished: bool,
    /// The client's connection, which bounds what waits to be written for it.
    holder: ConnectionOwner,
    /// What the library has not written of it.
    unwritten: Rc<UnwrittenBytes>,
}

impl Sender {
    pub(super) fn new(stream: Option<SendStream<Queued>>, holder: ConnectionOwner) -> Self {
        Self { stream, begun: false, finished: false, holder, unwritten: Rc::default() }
    }

    pub(super) fn none() -> Self {
        Self::new(None, ConnectionOwner::default())
    }

    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Without a stream only the body's end is to come.
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(1)) };
        if self.holder.poll_queue(cx).is_pending() {
            // What was promised meanwhile would be kept from other streams.
            stream.reserve_capacity(0);
            return Poll::Pending;
        }
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
        match &mut self.stream {
            Some(stream) => {
                self.begun = true;
                let queued = self.holder.queue(data.into_bytes()).of(&self.unwritten);
                stream.send_data(queued, false).map_err(io_error)
            }
            None if data.as_slice().is_empty() => Ok(()),
            None => Err(io::Error::other("a body where none was announced")),
        }
    }

    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        self.finished = true;
        match trailers {
            Some(trailers) => stream.send_trailers(trailers).map_err(io_error),
            None => stream.send_data(Queued::none(), true).map_err(io_error),
        }
    }

    /// There is nothing to send now. Room that was promised is given back: of the connection's window
    /// others could not have it meanwhile.
    pub(super) fn pause(&mut self) {
        if let Some(stream) = &mut self.stream
            && !self.finished
        {
            stream.reserve_capacity(0);
        }
    }

    /// Makes sure that [`Self::poll_written`] covers the head: the library does not say when a head is written, but
    /// a piece behind it, even an empty one, is written after it.
    pub(super) fn follow_head(&mut self) -> io::Result<()> {
        if self.begun { Ok(()) } else { self.send(Data::Owned(Bytes::new())) }
    }

    /// Ready when the library has written all that it was handed, or the peer has reset the stream.
    pub(super) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_reset(cx).is_ready() { Poll::Ready(()) } else { self.unwritten.poll_none(cx) }
    }

    /// Ready when the peer has reset the stream.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(cx).map(drop),
            None => Poll::Pending,
        }
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        if let Some(stream) = &mut self.stream {
            stream.send_reset(reason);
        }
    }
}
