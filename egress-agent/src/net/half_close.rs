//! Clients that close their own direction of a connection and wait for answers on the other one
//! (RFC 9293 §3.6).

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Interval, interval},
};

use super::{RelayIo, forward::forward_to_io};

/// Time between two looks at a client that says nothing more: reading does not show its reset.
const LOOK: Duration = Duration::from_millis(250);

/// A connection whose input's end its reader does not see before [`InputEnd::release`]. A library may take
/// a client that only says nothing more for one that is gone, and end all that is under way.
#[derive(Debug)]
pub struct HalfClose<I> {
    io: I,
    end: Rc<InputEnd>,
    look: Option<Interval>,
}

/// The end of a connection's input, as the connection's task deals with it.
#[derive(Debug, Default)]
pub struct InputEnd {
    state: Cell<State>,
    /// Whether all that was written was sent.
    flushed: Cell<bool>,
    /// The task that reads.
    reader: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum State {
    /// The reader sees it.
    #[default]
    Through,
    /// It is to be kept back.
    Kept,
    /// It has come, and is kept back.
    Come,
}

impl InputEnd {
    /// Keeps the end back from now on.
    pub fn keep(&self) {
        self.state.set(State::Kept);
    }

    /// Whether it has come and is kept back.
    #[must_use]
    pub fn has_come(&self) -> bool {
        self.state.get() == State::Come
    }

    /// Whether all that was written was sent.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.flushed.get()
    }

    /// The reader sees it, now or when it comes.
    pub fn release(&self) {
        self.state.set(State::Through);
        self.wake();
    }

    /// Wakes the task that reads, so that it looks whether the end is to be released.
    pub fn wake(&self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl<I: RelayIo> HalfClose<I> {
    /// Nothing is kept back yet.
    #[must_use]
    pub fn new(io: I) -> Self {
        Self { io, end: Rc::default(), look: None }
    }

    /// The end of its input.
    #[must_use]
    pub fn end(&self) -> Rc<InputEnd> {
        Rc::clone(&self.end)
    }
}

impl<I: RelayIo> AsyncRead for HalfClose<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.end.has_come() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            let is_end = buf.filled().len() == before && buf.remaining() > 0;
            if !is_end || this.end.state.get() == State::Through {
                return Poll::Ready(Ok(()));
            }
            this.end.state.set(State::Come);
        }
        *this.end.reader.borrow_mut() = Some(cx.waker().clone());
        let look = this.look.get_or_insert_with(|| interval(LOOK));
        loop {
            if this.io.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            ready!(look.poll_tick(cx));
        }
    }
}

impl<I: RelayIo> AsyncWrite for HalfClose<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.end.flushed.set(false);
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.end.flushed.set(false);
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    forward_to_io!(is_write_vectored);

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.end.flushed.set(true);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is answered any more.
        self.end.release();
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn pair() -> (TcpStream, HalfClose<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, served) = tokio::join!(client, listener.accept());
        (client.unwrap(), HalfClose::new(served.unwrap().0))
    }

    #[tokio::test]
    async fn an_end_that_is_kept_comes_when_it_is_released() {
        let (mut client, mut served) = pair().await;
        let end = served.end();
        end.keep();
        client.write_all(b"asked").await.unwrap();
        client.shutdown().await.unwrap();
        let mut read = [0; 5];
        served.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"asked");
        assert!(!end.has_come());
        assert!(timeout(2 * LOOK, served.read(&mut read)).await.is_err(), "it is kept back");
        assert!(end.has_come());
        served.write_all(b"told").await.unwrap();
        served.flush().await.unwrap();
        assert!(end.is_flushed());
        end.release();
        assert_eq!(served.read(&mut read).await.unwrap(), 0);
        drop(served);
        let mut told = String::new();
        client.read_to_string(&mut told).await.unwrap();
        assert_eq!(told, "told");
    }

    #[tokio::test]
    async fn who_is_gone_is_found_out_by_what_is_written() {
        let (client, mut served) = pair().await;
        served.end().keep();
        drop(client);
        let mut read = [0; 5];
        assert!(timeout(2 * LOOK, served.read(&mut read)).await.is_err(), "nothing shows it yet");
        served.write_all(b"told").await.unwrap();
        let error = timeout(LONG, served.read(&mut read)).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn it_keeps_nothing_back_unless_asked_to() {
        let (client, mut served) = pair().await;
        drop(client);
        assert_eq!(timeout(LONG, served.read(&mut [0; 5])).await.unwrap().unwrap(), 0);
    }
}
