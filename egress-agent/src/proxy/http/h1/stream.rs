//! One HTTP/1 connection, either side of the proxy: bytes in and out, bodies framed. An idle one
//! holds no buffers.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    super::{
        bad::BadMessage,
        body::{BodyPiece, Data, RecvError, Sink, Source},
        framing::Framing,
        spare_buffers,
    },
    body::{Decoder, Step},
    encode,
    head::EndOfHead,
    sender::Sender,
};
use crate::telemetry::{Normalized, count_normalized};

/// Up to here small writes are gathered into one.
const GATHER: usize = 16 * 1024;

/// A connection and the messages that are under way on it.
#[derive(Debug)]
pub(in super::super) struct Stream<I> {
    pub(in super::super) io: I,
    /// Read, but not yet looked at.
    input: BytesMut,
    head: EndOfHead,
    /// The empty line before the next request was looked for.
    skipped: bool,
    /// To be written, from `written` on.
    output: Vec<u8>,
    written: usize,
    /// Who is at the other end.
    from: Sender,
    receiving: Decoder,
    sending: Sending,
    /// Bytes read from and written to the connection.
    pub(in super::super) read_bytes: u64,
    pub(in super::super) written_bytes: u64,
}

/// The framing of the body that is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sending {
    Done,
    Length(u64),
    Chunked,
    UntilClose,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Stream<I> {
    /// A connection of which `input` was read already.
    pub(in super::super) fn new(io: I, input: BytesMut, from: Sender) -> Self {
        Self {
            io,
            input,
            head: EndOfHead::default(),
            skipped: false,
            output: Vec::new(),
            written: 0,
            from,
            receiving: Decoder::new(Framing::None, from),
            sending: Sending::Done,
            read_bytes: 0,
            written_bytes: 0,
        }
    }

    /// Bytes that were read and belong to nothing yet.
    pub(in super::super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Their number.
    pub(in super::super) fn buffered(&self) -> usize {
        self.input.len()
    }

    /// Neither side is in the middle of a message, and nothing is buffered.
    pub(in super::super) fn is_at_rest(&self) -> bool {
        self.receiving.is_done() && self.sending == Sending::Done && self.output.is_empty()
    }

    /// Whether the message that is received is complete.
    pub(in super::super) fn is_received(&self) -> bool {
        self.receiving.is_done()
    }

    /// Gives up the buffers.
    pub(in super::super) fn release(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 0 {
            spare_buffers::give_input(std::mem::take(&mut self.input));
        }
        if self.output.is_empty() {
            spare_buffers::give_output(std::mem::take(&mut self.output));
        }
    }

    /// Where what is to be written is put.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        if self.output.capacity() == 0 {
            self.output = spare_buffers::output();
        }
        &mut self.output
    }

    /// Reads more input. Ready with `false` at the connection's end.
    pub(in super::super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<bool>> {
        let read = ready!(self.poll_read(cx, scratch))?;
        if self.input.capacity() == 0 && read > 0 {
            self.input = spare_buffers::input();
        }
        self.input.extend_from_slice(scratch.get(..read).unwrap_or_default());
        Poll::Ready(Ok(read > 0))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
        self.read_bytes += buf.filled().len() as u64;
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// The head of the next message, as soon as it was read whole.
    ///
    /// # Errors
    /// It is too large or badly delimited.
    pub(in super::super) fn take_head(
        &mut self,
        limit: usize,
    ) -> Result<Option<Bytes>, BadMessage> {
        match self.head.find(&self.input, limit, self.from)? {
            Some(length) => {
                self.head = EndOfHead::default();
                Ok(Some(self.input.split_to(length).freeze()))
            }
            None => Ok(None),
        }
    }

    /// The head of the next request. One empty line before it is overlooked (RFC 9112 §2.2), and no
    /// more.
    ///
    /// # Errors
    /// It is too large or badly delimited.
    pub(in super::super) fn take_request_head(
        &mut self,
        limit: usize,
    ) -> Result<Option<Bytes>, BadMessage> {
        if !self.skipped && self.head == EndOfHead::default() {
            if self.input.as_ref() == b"\r" {
                return Ok(None);
            }
            if self.input.starts_with(b"\r\n") {
                self.input.advance(2);
            }
            self.skipped = true;
        }
        let head = self.take_head(limit)?;
        self.skipped &= head.is_none();
        Ok(head)
    }

    /// Appends bytes to the output as they are.
    pub(in super::super) fn queue(&mut self, bytes: &[u8]) {
        self.output().extend_from_slice(bytes);
    }

    /// The body that follows the head just taken.
    pub(in super::super) fn expect_body(&mut self, framing: Framing) {
        self.receiving = Decoder::new(framing, self.from);
    }

    /// What was put right since the last time.
    pub(super) fn take_normalized(&mut self) -> Vec<Normalized> {
        self.receiving.take_normalized()
    }

    /// The body that follows the head just written to the output.
    pub(in super::super) fn start_body(&mut self, framing: Framing) {
        self.sending = match framing {
            Framing::None => Sending::Done,
            Framing::Length(length) => Sending::Length(length),
            Framing::Chunked => Sending::Chunked,
            Framing::UntilClose => Sending::UntilClose,
        };
    }

    /// Everything that was read from now on belongs to another protocol.
    pub(in super::super) fn take_input(&mut self) -> Bytes {
        self.input.split().freeze()
    }

    fn pending(&self) -> &[u8] {
        self.output.get(self.written..).unwrap_or_default()
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            let rest = self.output.get(self.written..).unwrap_or_default();
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.written_bytes += written as u64;
        }
        self.output.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Writes output, data and suffix without copying what the socket takes; keeps the rest.
    fn write_through(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
        suffix: &[u8],
    ) -> io::Result<()> {
        let pending = self.output.get(self.written..).unwrap_or_default();
        let slices = [IoSlice::new(pending), IoSlice::new(data), IoSlice::new(suffix)];
        let pending_length = pending.len();
        let mut written = match Pin::new(&mut self.io).poll_write_vectored(cx, &slices) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        self.written_bytes += written as u64;
        if written < pending_length {
            self.written += written;
            written = 0;
        } else {
            self.output.clear();
            self.written = 0;
            written -= pending_length;
        }
        for part in [data, suffix] {
            let taken = written.min(part.len());
            self.output.extend_from_slice(part.get(taken..).unwrap_or_default());
            written -= taken;
        }
        Ok(())
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Source for Stream<I> {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<BodyPiece, RecvError>> {
        loop {
            if self.receiving.is_done() {
                return Poll::Ready(Ok(BodyPiece::End(None)));
            }
            if !self.input.is_empty() {
                match self.receiving.decode(&self.input)? {
                    Step::Need => self.input.clear(),
                    Step::Data { at, consumed } => {
                        let piece = self.input.split_to(consumed).freeze().slice(at);
                        return Poll::Ready(Ok(BodyPiece::Owned(piece)));
                    }
                    Step::End { trailers, consumed } => {
                        self.input.advance(consumed);
                        return Poll::Ready(Ok(BodyPiece::End(trailers)));
                    }
                }
            }
            let read = match ready!(self.poll_read(cx, scratch)) {
                Ok(read) => read,
                // TLS without its last alert: what came is all that there will be, and no length
                // says that more should have come.
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof
                        && self.from == Sender::Upstream
                        && self.receiving.is_until_close() =>
                {
                    count_normalized(Normalized::NoCloseNotify);
                    0
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            };
            if read == 0 {
                let whole = self.receiving.eof();
                return Poll::Ready(
                    whole.then_some(BodyPiece::End(None)).ok_or(RecvError::Truncated),
                );
            }
            let input = scratch.get(..read).unwrap_or_default();
            let (piece, consumed) = match self.receiving.decode(input)? {
                Step::Need => continue,
                Step::Data { at, consumed } => (BodyPiece::Scratch(at), consumed),
                Step::End { trailers, consumed } => (BodyPiece::End(trailers), consumed),
            };
            self.input.extend_from_slice(input.get(consumed..).unwrap_or_default());
            return Poll::Ready(Ok(piece));
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Sink for Stream<I> {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.pending().len() > GATHER {
            ready!(self.poll_drain(cx))?;
        }
        Poll::Ready(Ok(usize::MAX))
    }

    fn send(&mut self, cx: &mut Context<'_>, data: Data<'_>) -> io::Result<()> {
        let data = data.as_slice();
        if data.is_empty() {
            // An empty chunk would be the last one.
            return Ok(());
        }
        let suffix: &[u8] = match &mut self.sending {
            Sending::Done => return Err(io::Error::other("a body where none was announced")),
            Sending::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or_else(|| io::Error::other("a body longer than its Content-Length"))?;
                b""
            }
            Sending::Chunked => {
                encode::chunk_size(&mut self.output, data.len());
                b"\r\n"
            }
            Sending::UntilClose => b"",
        };
        if self.pending().len() + data.len() > GATHER {
            return self.write_through(cx, data, suffix);
        }
        self.output.extend_from_slice(data);
        self.output.extend_from_slice(suffix);
        Ok(())
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        match std::mem::replace(&mut self.sending, Sending::Done) {
            Sending::Done | Sending::Length(0) | Sending::UntilClose => Ok(()),
            Sending::Length(left) => {
                self.sending = Sending::Length(left);
                Err(io::Error::other("a body shorter than its Content-Length"))
            }
            Sending::Chunked => {
                encode::last_chunk(&mut self.output, trailers.as_ref());
                Ok(())
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }
}
