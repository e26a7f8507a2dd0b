//! Bodies on their way, whatever the HTTP versions on both sides: pieces come from a [`Source`] and
//! go to a [`Sink`], through a buffer that all connections of a worker share.

use std::{
    io,
    ops::Range,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use thiserror::Error;

use super::{
    bad::BadMessage,
    grpc,
    replay::{Replay, ReplayItem},
};

/// A piece of a body.
#[derive(Debug)]
pub(super) enum BodyPiece {
    /// It lies here in the shared buffer.
    Scratch(Range<usize>),
    /// It has a buffer of its own.
    Owned(Bytes),
    /// There are no more; a chunked or HTTP/2 body may end with trailers.
    End(Option<HeaderMap>),
}

/// Data for a [`Sink`].
#[derive(Debug)]
pub(super) enum Data<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl Data<'_> {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(slice) => slice,
            Self::Owned(bytes) => bytes,
        }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Borrowed(slice) => Bytes::copy_from_slice(slice),
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Why a body didn't arrive whole.
#[derive(Debug, Error)]
pub(super) enum RecvError {
    /// The connection ended before the body did.
    #[error("the connection ended in the middle of a message")]
    Truncated,
    /// The connection broke, or the stream was reset.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The framing is wrong.
    #[error(transparent)]
    Bad(#[from] BadMessage),
}

/// Where a body comes from.
pub(super) trait Source {
    /// The next piece. After [`BodyPiece::End`] it isn't asked again.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<BodyPiece, RecvError>>;
}

/// Where a body goes.
pub(super) trait Sink {
    /// Ready with the number of bytes that may be sent now; never zero.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;
    /// Takes all of `data`, of at most the size that [`Self::poll_room`] gave.
    fn send(&mut self, cx: &mut Context<'_>, data: Data<'_>) -> io::Result<()>;
    /// The body is complete.
    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()>;
    /// Ready when everything taken has been handed on.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Which side a body failed on.
#[derive(Debug)]
pub(super) enum RelayError {
    Source(RecvError),
    Sink,
}

/// Pieces moved in one go before other tasks get their turn.
const BUDGET: usize = 32;

/// One body on its way.
#[derive(Debug)]
pub(super) struct Relay {
    phase: Phase,
    /// Bytes of the body so far, framing not counted.
    pub(super) bytes: u64,
    /// gRPC's status in the trailers.
    pub(super) grpc_status: Option<u8>,
    /// What was moved, as long as it may have to be sent again.
    replay: Option<Replay>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Body,
    Flush,
    Done,
}

impl Relay {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Body, bytes: 0, grpc_status: None, replay: None }
    }

    /// Whether the whole body has been handed on.
    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Whether the whole body has been received.
    pub(super) fn is_received(&self) -> bool {
        self.phase != Phase::Body
    }

    /// Whether nothing of the body has been taken from its source, by an earlier try either.
    pub(super) fn is_fresh(&self) -> bool {
        self.bytes == 0
            && self.phase == Phase::Body
            && self.replay.as_ref().is_none_or(Replay::is_empty)
    }

    /// From here on what is moved is kept, too.
    pub(super) fn keep(&mut self, replay: Replay) {
        self.replay = Some(replay);
    }

    /// Whether what is moved is kept.
    pub(super) fn is_kept(&self) -> bool {
        self.replay.is_some()
    }

    /// What was moved is not needed again.
    pub(super) fn discard(&mut self) {
        self.replay = None;
    }

    /// Starts again from the beginning, if all that was moved is still there.
    pub(super) fn rewind(&mut self) -> bool {
        let whole = match &mut self.replay {
            Some(replay) => {
                replay.rewind();
                replay.is_whole()
            }
            None => self.bytes == 0 && self.phase == Phase::Body,
        };
        if whole {
            (self.phase, self.bytes) = (Phase::Body, 0);
        }
        whole
    }

    /// The next piece, and whether it is sent for the first time.
    fn next(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
        window: &mut [u8],
    ) -> Poll<Result<(BodyPiece, bool), RecvError>> {
        match self.replay.as_mut().and_then(|replay| replay.next(window.len())) {
            Some(ReplayItem::Data(bytes)) => Poll::Ready(Ok((BodyPiece::Owned(bytes), false))),
            Some(ReplayItem::End(trailers)) => Poll::Ready(Ok((BodyPiece::End(trailers), false))),
            None => source.poll_recv(cx, window).map_ok(|piece| (piece, true)),
        }
    }

    /// Moves what can be moved.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
        sink: &mut impl Sink,
        scratch: &mut [u8],
    ) -> Poll<Result<(), RelayError>> {
        for _ in 0..BUDGET {
            match self.phase {
                Phase::Body => {}
                Phase::Flush => {
                    ready!(sink.poll_flush(cx)).map_err(|_| RelayError::Sink)?;
                    self.phase = Phase::Done;
                    return Poll::Ready(Ok(()));
                }
                Phase::Done => return Poll::Ready(Ok(())),
            }
            let room = ready!(sink.poll_room(cx)).map_err(|_| RelayError::Sink)?;
            let room = room.min(scratch.len());
            let Some(window) = scratch.get_mut(..room) else { return Poll::Pending };
            let (piece, first) = match self.next(cx, source, window) {
                Poll::Ready(piece) => piece.map_err(RelayError::Source)?,
                Poll::Pending => {
                    // Nothing to wait for: what was taken must not lie about.
                    if let Poll::Ready(flushed) = sink.poll_flush(cx) {
                        flushed.map_err(|_| RelayError::Sink)?;
                    }
                    return Poll::Pending;
                }
            };
            let data = match piece {
                BodyPiece::Scratch(at) => {
                    let data = scratch.get(at).unwrap_or_default();
                    match &mut self.replay {
                        Some(replay) => {
                            let data = Bytes::copy_from_slice(data);
                            replay.keep(&data);
                            Data::Owned(data)
                        }
                        None => Data::Borrowed(data),
                    }
                }
                BodyPiece::Owned(bytes) => {
                    if let Some(replay) = self.replay.as_mut().filter(|_| first) {
                        replay.keep(&bytes);
                    }
                    Data::Owned(bytes)
                }
                BodyPiece::End(trailers) => {
                    if let Some(replay) = self.replay.as_mut().filter(|_| first) {
                        replay.keep_end(trailers.as_ref());
                    }
                    self.grpc_status = trailers.as_ref().and_then(grpc::status);
                    sink.finish(trailers).map_err(|_| RelayError::Sink)?;
                    self.phase = Phase::Flush;
                    continue;
                }
            };
            self.bytes += data.as_slice().len() as u64;
            sink.send(cx, data).map_err(|_| RelayError::Sink)?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
