//! The frames of an HTTP/2 connection on their way to the library.
//!
//! The library judges a whole connection by the frames that come on it: it closes one that had a
//! hundred empty DATA frames in its life, or many small ones at a time. On a connection that many share
//! one of them would end it for all. So DATA frames without content and without an end, which carry
//! nothing (RFC 9113 §6.1), are taken out here. And after some frames the connection's task gets no
//! more before the readers of its streams had their turn.
//!
//! Requests that the library has decoded are counted by nobody until they are accepted. So little comes
//! in at once, and nothing while requests wait to be accepted ([`FrameObserver::pause`]).
//!
//! The library does not tell either how much of the peer's window is left for a connection's uploads, so
//! that is counted here: what goes in DATA frames, and what the peer adds (RFC 9113 §6.9.1).

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{BytesSeen, empty_frames::count_empty_frame, forward::forward_to_io};

/// Length of a frame's header in bytes (RFC 9113 §4.1).
const HEADER: usize = 9;
/// `DATA` (RFC 9113 §6.1).
const DATA: u8 = 0;
/// `HEADERS` (RFC 9113 §6.2).
const HEADERS: u8 = 1;
/// `WINDOW_UPDATE` (RFC 9113 §6.9).
const WINDOW_UPDATE: u8 = 8;
/// `CONTINUATION` (RFC 9113 §6.10).
const CONTINUATION: u8 = 9;
/// A connection's window before its first update, in bytes (RFC 9113 §6.9.2).
const FIRST_WINDOW: i64 = 65_535;
/// The flag of the stream's last frame.
const END_STREAM: u8 = 1;
/// The flag of a head's last frame.
const END_HEADERS: u8 = 4;
/// What a client sends before its first frame, in bytes (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// Frames before others get their turn.
const BURST: usize = 512;
/// Bytes before others get their turn: what is in them is decoded at once, which takes its time where they
/// are heads.
const TURN: usize = 32 * 1024;
/// Reads with less room go through a buffer: a header must not be torn.
const ROOM: usize = 64;

/// What a connection's driver finds out about the frames that came.
#[derive(Debug, Default)]
pub struct FrameObserver {
    /// Streams that data, or a whole head or trailers came for since it was last asked.
    data: RefCell<Vec<u32>>,
    /// A head has begun and not ended.
    unfinished: Cell<bool>,
    paused: Cell<bool>,
    /// Something was to be read meanwhile.
    withheld: Cell<bool>,
    seen: Cell<BytesSeen>,
    /// What the peer has added to the connection's window, less what was sent.
    window: Cell<i64>,
}

impl FrameObserver {
    /// Takes the streams that data, or a whole head or trailers came for; a stream may be named more than
    /// once.
    pub fn take(&self) -> Vec<u32> {
        self.data.take()
    }

    /// Whether a head has begun that has not come whole: the library keeps its part.
    #[must_use]
    pub fn has_unfinished_head(&self) -> bool {
        self.unfinished.get()
    }

    /// Reads nothing more until [`Self::resume`].
    pub fn pause(&self) {
        self.paused.set(true);
    }

    /// Reads again. Whether a read was put off: its task is then to be woken.
    #[must_use]
    pub fn resume(&self) -> bool {
        self.paused.set(false);
        self.withheld.take()
    }

    fn name(&self, id: u32) {
        let mut data = self.data.borrow_mut();
        if data.last() != Some(&id) {
            data.push(id);
        }
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> BytesSeen {
        self.seen.get()
    }

    /// Bytes that the peer takes on the connection now, whatever the stream.
    #[must_use]
    pub fn window(&self) -> i64 {
        FIRST_WINDOW + self.window.get()
    }

    fn add_window(&self, bytes: i64) {
        self.window.set(self.window.get().saturating_add(bytes));
    }

    fn change(&self, change: impl FnOnce(&mut BytesSeen)) {
        let mut seen = self.seen.get();
        change(&mut seen);
        self.seen.set(seen);
    }
}

/// The payload of a WINDOW_UPDATE, which may come in parts.
#[derive(Clone, Copy, Default)]
struct Update {
    value: u32,
    have: usize,
}

/// Finds the DATA frames in what is sent.
#[derive(Default)]
struct Sent {
    header: [u8; HEADER],
    have: usize,
    /// Bytes of the payload under way that are still to be sent.
    left: usize,
}

impl Sent {
    /// Gives the bytes of the DATA frames whose headers were sent with these.
    fn pass(&mut self, mut bytes: &[u8]) -> usize {
        let mut data = 0;
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let missing = self.header.get_mut(self.have..).unwrap_or_default();
            let count = missing.len().min(bytes.len());
            for (place, byte) in missing.iter_mut().zip(bytes) {
                *place = *byte;
            }
            self.have += count;
            bytes = bytes.get(count..).unwrap_or_default();
            if self.have == HEADER {
                let [a, b, c, kind, ..] = self.header;
                self.left = length([a, b, c]);
                self.have = 0;
                if kind == DATA {
                    data += self.left;
                }
            }
        }
        data
    }
}

/// The length of a frame's payload.
fn length([a, b, c]: [u8; 3]) -> usize {
    usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
}

/// A connection whose frames are looked at as they come.
pub struct Frames<I> {
    io: I,
    arrivals: Rc<FrameObserver>,
    /// A header of which only a part has come.
    partial: [u8; HEADER],
    have: usize,
    /// Bytes of the payload under way that are still to come.
    left: usize,
    /// Frames and bytes of this turn.
    burst: usize,
    turn: usize,
    /// What has come of a WINDOW_UPDATE of the connection.
    update: Option<Update>,
    sent: Sent,
    /// For readers with little room.
    spill: Vec<u8>,
}

impl<I> std::fmt::Debug for Frames<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames").field("arrivals", &self.arrivals).finish_non_exhaustive()
    }
}

impl<I> Frames<I> {
    /// Of a server, which frames come from.
    pub fn from_server(io: I) -> Self {
        let mut frames = Self::new(io, 0);
        frames.sent.left = PREFACE;
        frames
    }

    /// Of a client, whose preface comes before its frames.
    pub fn from_client(io: I) -> Self {
        Self::new(io, PREFACE)
    }

    fn new(io: I, left: usize) -> Self {
        let (arrivals, sent) = (Rc::default(), Sent::default());
        let (partial, have, update, spill) = ([0; HEADER], 0, None, Vec::new());
        let (burst, turn) = (0, 0);
        Self { io, arrivals, partial, have, left, burst, turn, update, sent, spill }
    }

    /// What is found out about them.
    #[must_use]
    pub fn arrivals(&self) -> Rc<FrameObserver> {
        Rc::clone(&self.arrivals)
    }

    /// Goes through bytes that begin with the partial header, and closes the gaps. Gives the number
    /// of bytes that are left.
    fn sift(&mut self, bytes: &mut [u8]) -> usize {
        let (mut from, mut to) = (0, 0);
        self.have = 0;
        while from < bytes.len() {
            if self.left > 0 {
                let count = self.left.min(bytes.len() - from);
                let payload = bytes.get(from..from + count).unwrap_or_default();
                if let Some(update) = &mut self.update {
                    for byte in payload {
                        update.value = update.value << 8 | u32::from(*byte);
                        update.have += 1;
                    }
                    if update.have == 4 {
                        self.arrivals.add_window(i64::from(update.value & (u32::MAX >> 1)));
                        self.update = None;
                    }
                }
                bytes.copy_within(from..from + count, to);
                self.left -= count;
                (from, to) = (from + count, to + count);
                continue;
            }
            let Some(&[a, b, c, kind, flags, s, t, u, v]) =
                bytes.get(from..).and_then(|rest| rest.first_chunk::<HEADER>())
            else {
                let rest = bytes.get(from..).unwrap_or_default();
                self.have = rest.len();
                for (place, byte) in self.partial.iter_mut().zip(rest) {
                    *place = *byte;
                }
                break;
            };
            let length = length([a, b, c]);
            self.burst += 1;
            if kind == DATA && length == 0 && flags & END_STREAM == 0 {
                count_empty_frame();
                from += HEADER;
                continue;
            }
            if kind == DATA || kind == HEADERS {
                self.arrivals.change(|seen| seen.answers += 1);
            }
            let id = u32::from_be_bytes([s, t, u, v]) & (u32::MAX >> 1);
            // Of another length it is an error, which ends the connection.
            let updates = kind == WINDOW_UPDATE && id == 0 && length == 4;
            self.update = updates.then(Update::default);
            let whole_head =
                (kind == HEADERS || kind == CONTINUATION).then_some(flags & END_HEADERS != 0);
            if let Some(whole) = whole_head {
                self.arrivals.unfinished.set(!whole);
            }
            if kind == DATA || whole_head == Some(true) {
                self.arrivals.name(id);
            }
            bytes.copy_within(from..from + HEADER, to);
            (from, to) = (from + HEADER, to + HEADER);
            self.left = length;
        }
        to
    }
}

impl<I> Frames<I> {
    /// So many bytes of these were sent.
    fn count_sent(&mut self, bufs: &[io::IoSlice<'_>], written: usize) {
        self.arrivals.change(|seen| seen.written += written as u64);
        let mut left = written;
        for buf in bufs {
            let sent = buf.get(..left.min(buf.len())).unwrap_or_default();
            left -= sent.len();
            let data = self.sent.pass(sent);
            self.arrivals.add_window(-i64::try_from(data).unwrap_or(i64::MAX));
        }
    }
}

impl<I: AsyncRead + Unpin> Frames<I> {
    fn end_turn(&mut self) {
        (self.burst, self.turn) = (0, 0);
    }

    /// Reads into `buffer`, which has room, and sifts. Ready with nothing only at the end.
    fn poll_sifted(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        loop {
            if self.arrivals.paused.get() {
                self.arrivals.withheld.set(true);
                return Poll::Pending;
            }
            if self.burst >= BURST || self.turn >= TURN {
                self.end_turn();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let (partial, had) = (self.partial, self.have);
            buffer.put_slice(partial.get(..had).unwrap_or_default());
            let before = buffer.filled().len();
            let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
            let read = buffer.filled().len() - before;
            if !matches!(polled, Poll::Ready(Ok(()))) {
                buffer.set_filled(start);
                if polled.is_pending() {
                    self.end_turn();
                }
                return polled;
            }
            if read == 0 {
                // The end. A header that has begun is not kept from who may complain of it.
                self.have = 0;
                return Poll::Ready(Ok(()));
            }
            self.turn += read;
            self.arrivals.change(|seen| seen.read += read as u64);
            let bytes = buffer.filled_mut().get_mut(start..).unwrap_or_default();
            let count = self.sift(bytes);
            buffer.set_filled(start + count);
            if count > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Frames<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.spill.is_empty() {
            if buf.remaining() >= ROOM {
                return this.poll_sifted(cx, buf);
            }
            let mut small = [0; ROOM];
            let mut small = ReadBuf::new(&mut small);
            ready!(this.poll_sifted(cx, &mut small))?;
            this.spill.extend_from_slice(small.filled());
        }
        let count = this.spill.len().min(buf.remaining());
        buf.put_slice(this.spill.get(..count).unwrap_or_default());
        this.spill.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Frames<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.count_sent(&[io::IoSlice::new(buf)], written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        self.count_sent(bufs, written);
        Poll::Ready(Ok(written))
    }

    forward_to_io!(is_write_vectored, poll_flush, poll_shutdown);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::net::empty_frames;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// Gives its bytes in pieces of these sizes, in turn.
    struct Pieces(Vec<u8>, Vec<usize>, usize);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let size = self.1[self.2 % self.1.len()];
            self.2 += 1;
            let size = size.min(self.0.len()).min(buf.remaining());
            buf.put_slice(&self.0.drain(..size).collect::<Vec<_>>());
            Poll::Ready(Ok(()))
        }
    }

    async fn read(bytes: Vec<u8>, pieces: Vec<usize>, room: usize) -> (Vec<u8>, Rc<FrameObserver>) {
        let mut frames = Frames::from_server(Pieces(bytes, pieces, 0));
        let (mut out, mut buffer) = (Vec::new(), vec![0; room]);
        loop {
            match frames.read(&mut buffer).await.unwrap() {
                0 => return (out, frames.arrivals()),
                count => out.extend_from_slice(&buffer[..count]),
            }
        }
    }

    proptest! {
        #[test]
        fn only_empty_frames_are_taken_out(
            kinds in prop::collection::vec((0_u8..4, 0_u8..2, 1_u32..5, 0_usize..40), 0..1500),
            pieces in prop::collection::vec(1_usize..100, 1..5),
            room in 1_usize..200,
        ) {
            let before = empty_frames();
            let (mut sent, mut expected, mut dropped) = (Vec::new(), Vec::new(), 0);
            for (kind, flags, stream, size) in kinds {
                let frame = frame(kind, flags, stream, &vec![7; size]);
                sent.extend_from_slice(&frame);
                if kind == DATA && flags == 0 && size == 0 {
                    dropped += 1;
                } else {
                    expected.extend(frame);
                }
            }
            let total = sent.len() as u64;
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (got, arrivals) = runtime.block_on(read(sent, pieces, room));
            prop_assert_eq!(got, expected);
            // Other tests count, too.
            prop_assert!(empty_frames() - before >= dropped);
            prop_assert_eq!(arrivals.seen().read, total);
        }
    }

    proptest! {
        #[test]
        fn the_window_is_what_was_added_less_what_was_sent(
            frames in prop::collection::vec((0_u8..10, 0_u32..3, 0_usize..40), 0..100),
            piece in 1_usize..60,
        ) {
            let (mut received, mut sent, mut window) = (Vec::new(), vec![0; PREFACE], FIRST_WINDOW);
            for (kind, stream, size) in frames {
                let size = if kind == WINDOW_UPDATE { 4 } else { size };
                let payload: Vec<u8> = (0_u8..).take(size).collect();
                received.extend(frame(kind, 0, stream, &payload));
                sent.extend(frame(kind, 0, stream, &payload));
                match (kind, stream) {
                    (DATA, _) => window -= i64::try_from(size).unwrap(),
                    (WINDOW_UPDATE, 0) => window += 0x0001_0203,
                    _ => {}
                }
            }
            let mut frames = Frames::from_server(Pieces(received, vec![piece], 0));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(frames.read_to_end(&mut Vec::new())).unwrap();
            for (at, bytes) in sent.chunks(piece).enumerate() {
                let (first, second) = bytes.split_at(bytes.len() / 2);
                // Of some a part is sent, and the rest another time.
                let end = if at % 2 == 0 { bytes.len() } else { first.len() };
                frames.count_sent(&[io::IoSlice::new(first), io::IoSlice::new(second)], end);
                frames.count_sent(&[io::IoSlice::new(&bytes[end..])], bytes.len() - end);
            }
            prop_assert_eq!(frames.arrivals().window(), window);
        }
    }

    #[tokio::test]
    async fn streams_with_data_are_named() {
        let mut bytes = frame(HEADERS, 0, 1, b"x");
        bytes.extend(frame(DATA, 0, 1, b"x"));
        bytes.extend(frame(DATA, 0, 1, b"y"));
        bytes.extend(frame(DATA, 0, 3, &[]));
        bytes.extend(frame(DATA, END_STREAM, 5, &[]));
        let (_, arrivals) = read(bytes, vec![1000], 1000).await;
        assert_eq!(arrivals.take(), [1, 5]);
        assert!(arrivals.take().is_empty());
        assert_eq!(arrivals.seen().answers, 4);
    }

    #[tokio::test]
    async fn after_some_frames_others_get_their_turn() {
        let bytes: Vec<u8> = (0..BURST).flat_map(|_| frame(DATA, 0, 1, b"x")).collect();
        let half = bytes.len();
        let bytes = [bytes.clone(), bytes].concat();
        let mut frames = Frames::from_server(Pieces(bytes, vec![half], 0));
        let mut out = vec![0; half];
        let mut buffer = ReadBuf::new(&mut out);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut frames).poll_read(&mut cx, &mut buffer).is_ready());
        buffer.clear();
        assert!(Pin::new(&mut frames).poll_read(&mut cx, &mut buffer).is_pending());
        assert!(Pin::new(&mut frames).poll_read(&mut cx, &mut buffer).is_ready());
    }

    #[tokio::test]
    async fn a_preface_is_no_frame() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(DATA, 0, 1, &[]));
        let mut frames = Frames::from_client(Pieces(bytes, vec![5], 0));
        let mut out = Vec::new();
        frames.read_to_end(&mut out).await.unwrap();
        assert_eq!(out, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    }
}
