//! What HTTP/2 streams have received and their readers have not taken.
//!
//! The library would keep it, frame by frame, and count it against the connection: a few streams whose
//! readers pause would end or stop a connection that many share. So the connection's own task takes it
//! over as it comes ([`Streams::pull`]), where it is bounded for each stream by its window, for each
//! source and in all by the limiter, and takes no more memory than it has bytes. A stream's window opens
//! as its reader takes bytes; the windows of all shrink as more is held.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;

use super::ConnectionOwner;
use crate::net::{ByteQueue, FrameObserver, Windows, stream_window};

/// Most that a reader gets at once, in bytes.
const PIECE: usize = 64 * 1024;
/// What one connection may hold, in bytes, however much there is.
const ROOM: usize = 64 * 1024 * 1024;

/// The streams of one connection.
#[derive(Debug)]
pub(super) struct Streams {
    arrivals: Rc<FrameObserver>,
    open: RefCell<HashMap<u32, Weak<RefCell<Inner>>>>,
    held: Cell<usize>,
    room: usize,
    /// The window of a stream whose readers all read.
    most: u32,
    windows: Windows,
}

/// One stream's received bytes.
#[derive(Debug)]
pub(super) struct Inbox {
    inner: Rc<RefCell<Inner>>,
    streams: Rc<Streams>,
    id: u32,
}

#[derive(Debug)]
struct Inner {
    receive: RecvStream,
    pieces: ByteQueue,
    /// What came after the pieces: the end of the data, or an error.
    end: Option<Result<(), h2::Error>>,
    /// What came after that.
    trailers: Option<HeaderMap>,
    /// The connection of a client that it is held for, or came from.
    holder: ConnectionOwner,
    /// Who waits for more.
    reader: Option<Waker>,
}

impl Streams {
    /// Of a connection whose streams have windows of at most `window` bytes. Together they may hold
    /// `room` bytes before windows are as small as they get.
    pub(super) fn new(arrivals: Rc<FrameObserver>, window: u32, room: usize) -> Rc<Self> {
        let (open, held) = (RefCell::default(), Cell::new(0));
        let (room, windows) = (room.min(ROOM), Windows::new(window));
        Rc::new(Self { arrivals, open, held, room, most: window, windows })
    }

    /// A stream of theirs. What is held counts for the connection of `holder`.
    pub(super) fn open(self: &Rc<Self>, receive: RecvStream, holder: ConnectionOwner) -> Inbox {
        let id = receive.stream_id().as_u32();
        let (pieces, end, trailers, reader) = (ByteQueue::default(), None, None, None);
        let inner = Inner { receive, pieces, end, trailers, holder, reader };
        let inner = Rc::new(RefCell::new(inner));
        self.open.borrow_mut().insert(id, Rc::downgrade(&inner));
        let inbox = Inbox { inner, streams: Rc::clone(self), id };
        // What came before is named no more.
        self.take_over(&mut inbox.inner.borrow_mut());
        inbox
    }

    /// The connection's task has had its turn: takes over what has come, and tells the peer the window
    /// for that with `set`, which fails while the one before is not acknowledged.
    pub(super) fn turn(
        &self,
        cx: &mut Context<'_>,
        set: impl FnOnce(u32) -> Result<(), h2::Error>,
    ) {
        self.pull();
        let window = stream_window(self.most, self.held.get(), self.room);
        self.windows.turn(cx, window, set, |visit| {
            for inner in self.open.borrow().values().filter_map(Weak::upgrade) {
                visit(inner.borrow_mut().receive.flow_control());
            }
        });
    }

    fn pull(&self) {
        for id in self.arrivals.take() {
            let inner = self.open.borrow().get(&id).and_then(Weak::upgrade);
            if let Some(inner) = inner {
                self.take_over(&mut inner.borrow_mut());
            }
        }
    }

    fn take_over(&self, inner: &mut Inner) {
        let Inner { receive, pieces, end, trailers, holder, reader } = inner;
        let mut cx = Context::from_waker(reader.as_ref().map_or(Waker::noop(), |reader| reader));
        while end.is_none() {
            match receive.poll_data(&mut cx) {
                Poll::Ready(Some(Ok(data))) => {
                    self.held.set(self.held.get() + data.len());
                    holder.hold(data.len());
                    pieces.push(data);
                }
                Poll::Ready(Some(Err(error))) => *end = Some(Err(error)),
                Poll::Ready(None) => {
                    *end = Some(Ok(()));
                    if let Poll::Ready(Ok(Some(fields))) = receive.poll_trailers(&mut cx) {
                        self.held.set(self.held.get() + field_bytes(&fields));
                        holder.hold(field_bytes(&fields));
                        *trailers = Some(fields);
                    }
                }
                Poll::Pending => return,
            }
        }
    }

    fn let_go(&self, holder: &ConnectionOwner, bytes: usize) {
        self.held.set(self.held.get().saturating_sub(bytes));
        holder.let_go(bytes);
    }

    /// Whether more is to come of a stream that somebody reads.
    pub(super) fn is_receiving(&self) -> bool {
        let open = self.open.borrow();
        open.values().filter_map(Weak::upgrade).any(|inner| {
            let inner = inner.borrow();
            inner.end.is_none() && !inner.receive.is_end_stream()
        })
    }

    /// Whether readers leave so much that others would have smaller windows on this connection.
    pub(super) fn is_short(&self) -> bool {
        self.held.get() >= self.room / 4
    }
}

impl Inbox {
    /// The next bytes; `None` at their end. [`Self::release`] what was done with.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let mut inner = self.inner.borrow_mut();
        let Inner { receive, pieces, end, trailers: _, holder, reader } = &mut *inner;
        *reader = None;
        if let Some(piece) = pieces.pop(PIECE) {
            self.streams.let_go(holder, piece.len());
            return Poll::Ready(Some(Ok(piece)));
        }
        match end {
            Some(Ok(())) => return Poll::Ready(None),
            Some(Err(_)) => return Poll::Ready(end.take().and_then(Result::err).map(Err)),
            None => {}
        }
        let polled = receive.poll_data(cx);
        if polled.is_pending() {
            *reader = Some(cx.waker().clone());
        }
        polled
    }

    /// What follows the data.
    pub(super) fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        let mut inner = self.inner.borrow_mut();
        if let Some(trailers) = inner.trailers.take() {
            self.streams.let_go(&inner.holder, field_bytes(&trailers));
            return Poll::Ready(Ok(Some(trailers)));
        }
        inner.receive.poll_trailers(cx)
    }

    /// The reader is done with so many bytes: the peer may send as many more.
    ///
    /// # Errors
    /// More than was read.
    pub(super) fn release(&mut self, bytes: usize) -> Result<(), h2::Error> {
        self.inner.borrow_mut().receive.flow_control().release_capacity(bytes)
    }

    /// Whether nothing is left to read and nothing will come.
    pub(super) fn is_end_stream(&self) -> bool {
        let inner = self.inner.borrow();
        inner.pieces.is_empty() && inner.trailers.is_none() && inner.receive.is_end_stream()
    }

    /// Completes when there is something to read, the end included.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        inner.reader = Some(cx.waker().clone());
        self.streams.take_over(&mut inner);
        if inner.pieces.is_empty() && inner.end.is_none() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.streams.open.borrow_mut().remove(&self.id);
        let inner = self.inner.borrow();
        let trailers = inner.trailers.as_ref().map_or(0, field_bytes);
        self.streams.let_go(&inner.holder, inner.pieces.len() + trailers);
    }
}

/// Bytes of a list of fields (RFC 9113 §6.5.2).
pub(super) fn field_bytes(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}
