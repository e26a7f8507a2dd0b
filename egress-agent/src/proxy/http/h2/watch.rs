//! Seeing what the library refuses: it answers or resets a request, or ends the connection for it, before
//! anybody else hears of it, and a refusal that nobody sees can't be looked into.
//!
//! So the frames of both directions are looked at. A request that has come is noted until it is accepted;
//! what is sent meanwhile for its stream is the library's own.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::LibraryRefusal;

/// Length of a frame's header in bytes (RFC 9113 §4.1).
const HEADER: usize = 9;
/// What a client sends before its first frame, in bytes (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// `HEADERS` (RFC 9113 §6.2).
const HEADERS: u8 = 1;
/// `RST_STREAM` (RFC 9113 §6.4), and its length in bytes.
const RST_STREAM: u8 = 3;
const RST_STREAM_LENGTH: usize = 4;
/// `GOAWAY` (RFC 9113 §6.8), and as many bytes of it as are looked at: the last stream, the code, and
/// the words of the library that say what was wrong.
const GOAWAY: u8 = 7;
const GOAWAY_LENGTH: usize = 64;
/// A stream's number without the reserved bit.
const ID: u32 = u32::MAX >> 1;
/// Requests that may be noted. The library takes in no more than the limit of streams and one turn bring.
const MOST: usize = 16 * 1024;

/// A server's connection.
#[derive(Debug)]
pub(in super::super) struct Watch<I> {
    io: I,
    read: Frames,
    written: Frames,
    requests: Rc<Unaccepted>,
}

impl<I> Watch<I> {
    pub(in super::super) fn new(io: I) -> Self {
        let read = Frames { skip: PREFACE, ..Frames::default() };
        Self { io, read, written: Frames::default(), requests: Rc::default() }
    }

    /// What is found out about its requests.
    pub(in super::super) fn requests(&self) -> Rc<Unaccepted> {
        Rc::clone(&self.requests)
    }

    fn wrote(&mut self, bytes: &[u8]) {
        let requests = &self.requests;
        self.written.feed(bytes, |mut frame| match frame.kind {
            HEADERS => requests.refused(frame.stream, LibraryRefusal::Answered),
            RST_STREAM => {
                let code = frame.payload.try_get_u32().map(Reason::from);
                let code = code.unwrap_or(Reason::PROTOCOL_ERROR);
                requests.refused(frame.stream, LibraryRefusal::Reset(code));
            }
            GOAWAY => requests.leaving(frame.payload),
            _ => {}
        });
    }
}

/// Requests that have come and were not accepted.
#[derive(Debug, Default)]
pub(in super::super) struct Unaccepted {
    /// Their streams, oldest first, with what was sent for each.
    waiting: RefCell<VecDeque<(u32, Option<LibraryRefusal>)>>,
    /// The last stream that came.
    last: Cell<u32>,
    /// Later ones are ignored: GOAWAY says so to the client.
    limit: Cell<Option<u32>>,
    /// How the library ended the connection, if it did.
    ended: RefCell<Option<LibraryRefusal>>,
}

impl Unaccepted {
    fn came(&self, stream: u32) {
        if stream <= self.last.get() || self.limit.get().is_some_and(|limit| stream > limit) {
            return;
        }
        self.last.set(stream);
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < MOST {
            waiting.push_back((stream, None));
        }
    }

    fn refused(&self, stream: u32, refusal: LibraryRefusal) {
        let mut waiting = self.waiting.borrow_mut();
        // Streams come in the order of their numbers.
        let place = waiting.binary_search_by_key(&stream, |(id, _)| *id).ok();
        if let Some((_, refused @ None)) = place.and_then(|place| waiting.get_mut(place)) {
            *refused = Some(refusal);
        }
    }

    fn leaving(&self, mut payload: &[u8]) {
        let (Ok(last), Ok(code)) = (payload.try_get_u32(), payload.try_get_u32()) else { return };
        let code = Reason::from(code);
        if code == Reason::NO_ERROR {
            let last = last & ID;
            self.limit.set(Some(last));
            self.waiting.borrow_mut().retain(|(id, _)| *id <= last);
        } else {
            let words = Bytes::copy_from_slice(payload);
            *self.ended.borrow_mut() = Some(LibraryRefusal::Ended(code, words));
        }
    }

    /// The library handed this request over.
    pub(in super::super) fn accepted(&self, stream: u32) {
        let mut waiting = self.waiting.borrow_mut();
        if let Ok(place) = waiting.binary_search_by_key(&stream, |(id, _)| *id) {
            waiting.remove(place);
        }
    }

    /// Takes what was refused, where no request is left to be accepted: one that is may have been reset
    /// before.
    pub(in super::super) fn take_refused(&self) -> Vec<LibraryRefusal> {
        let mut refused = Vec::new();
        self.waiting.borrow_mut().retain_mut(|(_, refusal)| {
            let refusal = refusal.take();
            let keep = refusal.is_none();
            refused.extend(refusal);
            keep
        });
        refused
    }

    /// The same at the connection's end. If the library has ended it, that refuses all requests that are not
    /// accepted, or, where there are none, the connection.
    pub(in super::super) fn take_rest(&self) -> Vec<LibraryRefusal> {
        let mut refused = self.take_refused();
        if let Some(ended) = self.ended.take() {
            let waiting = self.waiting.take().len();
            let count = if refused.is_empty() { waiting.max(1) } else { waiting };
            refused.extend(std::iter::repeat_n(ended, count));
        }
        refused
    }
}

/// A frame, with the first bytes of its payload where they are looked at.
struct Frame<'a> {
    kind: u8,
    stream: u32,
    payload: &'a [u8],
}

/// Where in its frames a stream of bytes is.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; HEADER],
    have: usize,
    payload: Vec<u8>,
    /// Bytes that are of no interest.
    skip: usize,
}

impl Frames {
    /// Goes through bytes, and shows each frame.
    fn feed(&mut self, mut bytes: &[u8], mut show: impl FnMut(Frame<'_>)) {
        while !bytes.is_empty() {
            bytes.advance(take(&mut self.skip, bytes.len()));
            let missing = self.header.get_mut(self.have..).unwrap_or_default();
            let count = missing.len().min(bytes.len());
            for place in missing.iter_mut().take(count) {
                *place = bytes.get_u8();
            }
            self.have += count;
            if self.have < HEADER {
                return;
            }
            let [a, b, c, kind, _, stream @ ..] = self.header;
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let wanted = match kind {
                RST_STREAM => RST_STREAM_LENGTH.min(length),
                GOAWAY => GOAWAY_LENGTH.min(length),
                _ => 0,
            };
            let count = (wanted - self.payload.len()).min(bytes.len());
            self.payload.extend_from_slice(bytes.get(..count).unwrap_or_default());
            bytes.advance(count);
            if self.payload.len() < wanted {
                return;
            }
            let stream = u32::from_be_bytes(stream) & ID;
            show(Frame { kind, stream, payload: &self.payload });
            self.payload.clear();
            (self.have, self.skip) = (0, length - wanted);
        }
    }
}

/// Takes at most so much of what is left.
fn take(left: &mut usize, most: usize) -> usize {
    let count = most.min(*left);
    *left -= count;
    count
}

impl<I: AsyncRead + Unpin> AsyncRead for Watch<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let Self { read, requests, .. } = &mut *self;
        read.feed(buf.filled().get(before..).unwrap_or_default(), |frame| {
            if frame.kind == HEADERS {
                requests.came(frame.stream);
            }
        });
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watch<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &polled {
            self.wrote(buf.get(..*written).unwrap_or_default());
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(written)) = &polled {
            let mut left = *written;
            for buf in bufs {
                let taken = take(&mut left, buf.len());
                self.wrote(buf.get(..taken).unwrap_or_default());
            }
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, 0]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    fn reset(stream: u32, code: u32) -> Vec<u8> {
        frame(RST_STREAM, stream, &code.to_be_bytes())
    }

    fn watch_of(streams: &[u32]) -> Watch<()> {
        let watch = Watch::new(());
        streams.iter().for_each(|stream| watch.requests.came(*stream));
        watch
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_split() {
        let mut bytes = frame(4, 0, &[]);
        bytes.extend(frame(0, 1, &[3; 70_000]));
        bytes.extend(reset(1, 8));
        bytes.extend(frame(HEADERS, 3, &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 1]));
        bytes.extend(frame(GOAWAY, 0, &[7; 100]));
        bytes.extend(reset(5, 1));
        for piece in [1, 2, 9, 13, 1000, bytes.len()] {
            let (mut frames, mut shown) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(piece) {
                frames.feed(piece, |f| shown.push((f.kind, f.stream, f.payload.len())));
            }
            let expected = [(4, 0, 0), (0, 1, 0), (3, 1, 4), (1, 3, 0), (7, 0, 64), (3, 5, 4)];
            assert_eq!(shown, expected, "{piece}");
        }
    }

    #[test]
    fn what_is_sent_for_requests_that_were_not_accepted_refuses_them() {
        use LibraryRefusal::{Answered, Reset};
        let mut watch = watch_of(&[1, 3, 5, 7]);
        let requests = watch.requests();
        requests.accepted(3);
        watch.wrote(&frame(HEADERS, 1, &[0x48]));
        watch.wrote(&reset(1, 1));
        watch.wrote(&frame(HEADERS, 3, &[0x88]));
        watch.wrote(&reset(7, 7));
        assert_eq!(requests.take_refused(), [Answered, Reset(Reason::REFUSED_STREAM)]);
        // It is accepted although it was reset, and has a line of its own.
        watch.wrote(&reset(5, 1));
        requests.accepted(5);
        assert!(requests.take_rest().is_empty());
    }

    #[test]
    fn an_error_of_the_connection_refuses_what_waits() {
        let ended = LibraryRefusal::Ended(Reason::PROTOCOL_ERROR, Bytes::from_static(b"why"));
        let goaway = |code: u8| frame(GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, code, b'w', b'h', b'y']);
        for (streams, count) in [(&[][..], 1), (&[1], 1), (&[1, 3], 2)] {
            let mut watch = watch_of(streams);
            watch.wrote(&goaway(1));
            assert_eq!(watch.requests.take_rest(), vec![ended.clone(); count], "{streams:?}");
            assert!(watch.requests.take_rest().is_empty());
        }
        // A server that leaves refuses nothing by it.
        let mut watch = watch_of(&[1, 3]);
        watch.wrote(&goaway(0));
        watch.requests.came(5);
        assert_eq!(watch.requests.waiting.borrow().len(), 1);
        assert!(watch.requests.take_rest().is_empty());
    }
}
