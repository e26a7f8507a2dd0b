//! A connection inside a `POST` to a proxy: what is sent is the body of the request, what is received the body of the
//! answer (RFC 9112 §6 and §7.1).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::net::RelayIo;

/// Bytes of a chunk that is sent, at most.
const CHUNK: usize = 16 * 1024;
/// Bytes that are read at once.
const READ: usize = 16 * 1024;
/// Bytes of a line between chunks, at most.
const LINE: usize = 4096;

/// How the body of the answer ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// With the connection.
    Close,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BodyState {
    /// The body, until the connection ends.
    Rest,
    /// So many bytes of the body, and then its end or the end of a chunk.
    Body { left: u64, is_chunk: bool },
    /// The line that says how long a chunk is.
    Size,
    /// The end of the line after a chunk.
    AfterChunk,
    /// A line after the last chunk; the empty one is the last.
    Trailer,
    /// Nothing.
    End,
}

/// The connection.
pub(super) struct PostTunnel<S> {
    inner: S,
    next: BodyState,
    /// What was read and not taken yet.
    unread: Box<[u8]>,
    begin: usize,
    end: usize,
    line: Vec<u8>,
    /// What is to be sent, and how much of it was.
    unsent: Vec<u8>,
    sent: usize,
    is_closed: bool,
}

impl<S: RelayIo> PostTunnel<S> {
    /// The connection on which the head of the request was sent, and that of the answer read.
    pub(super) fn new(inner: S, framing: Framing) -> Self {
        let next = match framing {
            Framing::Close => BodyState::Rest,
            Framing::Length(0) => BodyState::End,
            Framing::Length(left) => BodyState::Body { left, is_chunk: false },
            Framing::Chunked => BodyState::Size,
        };
        Self {
            inner,
            next,
            unread: vec![0; READ].into(),
            begin: 0,
            end: 0,
            line: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            is_closed: false,
        }
    }

    /// Reads more; `false` at the end of the connection.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut buffer = ReadBuf::new(&mut self.unread);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
        (self.begin, self.end) = (0, buffer.filled().len());
        Poll::Ready(Ok(self.end > 0))
    }

    /// Takes a line out of what was read, without its end; `None` where it has no end yet.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        while let Some(byte) = self.unread.get(self.begin..self.end).and_then(|rest| rest.first()) {
            self.begin += 1;
            if *byte != b'\n' {
                if self.line.len() == LINE {
                    return Err(broken("a line between chunks has no end"));
                }
                self.line.push(*byte);
                continue;
            }
            let mut line = std::mem::take(&mut self.line);
            if line.pop() != Some(b'\r') {
                return Err(broken("a line between chunks ends without CRLF"));
            }
            return Ok(Some(line));
        }
        Ok(None)
    }

    /// Goes on with what was read, as far as it is not the body; whether it was enough.
    fn advance(&mut self) -> io::Result<bool> {
        loop {
            match self.next {
                BodyState::Rest | BodyState::End | BodyState::Body { left: 1.., .. } => {
                    return Ok(true);
                }
                BodyState::Body { left: 0, is_chunk } => {
                    self.next = if is_chunk { BodyState::AfterChunk } else { BodyState::End };
                }
                BodyState::Size => {
                    let Some(line) = self.line()? else { return Ok(false) };
                    self.next = match size(&line).ok_or_else(|| broken("no length of a chunk"))? {
                        0 => BodyState::Trailer,
                        left => BodyState::Body { left, is_chunk: true },
                    };
                }
                BodyState::AfterChunk => {
                    let Some(line) = self.line()? else { return Ok(false) };
                    if !line.is_empty() {
                        return Err(broken("a chunk is longer than it says"));
                    }
                    self.next = BodyState::Size;
                }
                BodyState::Trailer => {
                    let Some(line) = self.line()? else { return Ok(false) };
                    if line.is_empty() {
                        self.next = BodyState::End;
                    }
                }
            }
        }
    }

    /// Sends what is left of what was accepted.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        self.unsent.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

/// The length of a chunk; extensions after it say nothing.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let good = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| good)?;
    u64::from_str_radix(text, 16).ok()
}

fn broken(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the proxy's answer to POST is broken: {what}"),
    )
}

impl<S: RelayIo> AsyncRead for PostTunnel<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let is_body = this.advance()?;
            if this.next == BodyState::End || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let rest = this.unread.get(this.begin..this.end).unwrap_or_default();
            if is_body && !rest.is_empty() {
                let most = match this.next {
                    BodyState::Body { left, .. } => usize::try_from(left).unwrap_or(usize::MAX),
                    BodyState::Rest
                    | BodyState::Size
                    | BodyState::AfterChunk
                    | BodyState::Trailer
                    | BodyState::End => usize::MAX,
                };
                let count = rest.len().min(buffer.remaining()).min(most);
                buffer.put_slice(rest.get(..count).unwrap_or_default());
                this.begin += count;
                if let BodyState::Body { left, is_chunk } = this.next {
                    let taken = u64::try_from(count).unwrap_or(u64::MAX);
                    this.next = BodyState::Body { left: left.saturating_sub(taken), is_chunk };
                }
                return Poll::Ready(Ok(()));
            }
            if !ready!(this.poll_fill(cx))? {
                return Poll::Ready(match this.next {
                    BodyState::Rest => Ok(()),
                    BodyState::Body { .. }
                    | BodyState::Size
                    | BodyState::AfterChunk
                    | BodyState::Trailer
                    | BodyState::End => Err(io::ErrorKind::UnexpectedEof.into()),
                });
            }
        }
    }
}

impl<S: RelayIo> AsyncWrite for PostTunnel<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        // An empty chunk would be the last one.
        let Some(chunk) = bytes.get(..bytes.len().min(CHUNK)).filter(|chunk| !chunk.is_empty())
        else {
            return Poll::Ready(Ok(0));
        };
        this.unsent.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        this.unsent.extend_from_slice(chunk);
        this.unsent.extend_from_slice(b"\r\n");
        // What is not sent now is with the next call.
        match this.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(chunk.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    /// Ends the request's body; the connection stays open for the answer's.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.is_closed, true) {
            this.unsent.extend_from_slice(b"0\r\n\r\n");
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }
}

impl<S: RelayIo> RelayIo for PostTunnel<S> {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    fn reset(&self) {
        self.inner.reset();
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.poll_gone(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair(framing: Framing) -> (PostTunnel<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (PostTunnel::new(near, framing), far)
    }

    async fn received(framing: Framing, parts: &[&[u8]]) -> io::Result<Vec<u8>> {
        let (mut posted, mut far) = pair(framing).await;
        far.set_nodelay(true).unwrap();
        let reading = async {
            let mut all = Vec::new();
            posted.read_to_end(&mut all).await.map(|_| all)
        };
        let writing = async move {
            for part in parts {
                far.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(reading, writing).0
    }

    #[tokio::test]
    async fn the_answers_body_is_what_is_received() {
        let chunked = b"5\r\nhello\r\nB;x=y\r\n, and more \r\n0\r\nTrailer: x\r\n\r\nbeyond";
        for size in [1, 2, 7, chunked.len()] {
            let parts: Vec<&[u8]> = chunked.chunks(size).collect();
            let all = received(Framing::Chunked, &parts).await.unwrap();
            assert_eq!(all, b"hello, and more ", "{size}");
        }
        assert_eq!(received(Framing::Close, &[b"all ", b"of it"]).await.unwrap(), b"all of it");
        assert_eq!(received(Framing::Length(3), &[b"abcdef"]).await.unwrap(), b"abc");
        assert_eq!(received(Framing::Length(0), &[b"abc"]).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_body_that_is_cut_off_or_broken_is_an_error() {
        for text in ["5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", ""] {
            let error = received(Framing::Chunked, &[text.as_bytes()]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{text:?}");
        }
        assert!(received(Framing::Length(9), &[b"abc"]).await.is_err());
        for text in ["x\r\n", "\r\n", "-1\r\n", "5\nhello", "1\r\nab\r\n", "11111111111111111\r\n"]
        {
            let error = received(Framing::Chunked, &[text.as_bytes()]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text:?}");
        }
    }

    #[tokio::test]
    async fn what_is_sent_is_the_requests_body() {
        let (mut posted, mut far) = pair(Framing::Close).await;
        posted.write_all(b"hello").await.unwrap();
        posted.write_all(&[b'x'; 20]).await.unwrap();
        posted.shutdown().await.unwrap();
        drop(posted);
        let mut all = String::new();
        far.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, format!("5\r\nhello\r\n14\r\n{}\r\n0\r\n\r\n", "x".repeat(20)));
    }

    #[tokio::test]
    async fn much_arrives_whole() {
        let (mut posted, mut far) = pair(Framing::Chunked).await;
        let much = vec![7; 1_000_000];
        let sending = async {
            posted.write_all(&much).await.unwrap();
            posted.shutdown().await.unwrap();
            posted.read_to_end(&mut Vec::new()).await.unwrap()
        };
        let receiving = async {
            let mut all = Vec::new();
            let mut buffer = vec![0; 65_536];
            while !all.ends_with(b"\r\n0\r\n\r\n") {
                let count = far.read(&mut buffer).await.unwrap();
                all.extend_from_slice(&buffer[..count]);
            }
            far.write_all(b"0\r\n\r\n").await.unwrap();
            all
        };
        let (_, all) = tokio::join!(sending, receiving);
        assert_eq!(all.iter().filter(|byte| **byte == 7).count(), much.len());
    }
}
