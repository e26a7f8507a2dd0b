//! A connection that is closed so that all of it arrives.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::forward::forward_to_io;

/// Read and thrown away at once, in bytes.
const REST: usize = 1024;

/// Its shutdown isn't over before the other end has closed, too, or the time is up. What arrives at a
/// socket that no process has open is answered with a reset, and that can destroy what the other
/// end hasn't read yet (RFC 9112 §9.6; HTTP/2's last frames are no better off).
#[derive(Debug)]
pub struct Linger<I> {
    io: I,
    limit: Duration,
    /// All of ours was sent; until then, the rest of theirs is awaited.
    until: Option<Pin<Box<Sleep>>>,
}

impl<I> Linger<I> {
    /// For at most this long.
    #[must_use]
    pub fn new(io: I, limit: Duration) -> Self {
        Self { io, limit, until: None }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Linger<I> {
    forward_to_io!(poll_read);
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<I> {
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.until.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        let limit = this.limit;
        let until = this.until.get_or_insert_with(|| Box::pin(sleep(limit)));
        loop {
            let mut rest = [0; REST];
            let mut rest = ReadBuf::new(&mut rest);
            match Pin::new(&mut this.io).poll_read(cx, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => {}
                // Their end. An error is one, too: all of ours was sent before it.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return until.as_mut().poll(cx).map(Ok),
            }
        }
    }

    forward_to_io!(poll_write, poll_write_vectored, is_write_vectored, poll_flush);
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        time::{Instant, timeout},
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn what_comes_after_the_end_resets_nothing() {
        let (near, mut far) = pair().await;
        let mut near = Linger::new(near, LONG);
        near.write_all(b"all").await.unwrap();
        let closing = tokio::spawn(async move { near.shutdown().await });
        // The end was sent, and the other end goes on writing before it reads.
        far.readable().await.unwrap();
        far.write_all(&[0; 100_000]).await.unwrap();
        assert!(!closing.is_finished());
        let mut read = String::new();
        far.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "all");
        drop(far);
        timeout(LONG, closing).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn nobody_is_waited_for_without_end() {
        let (near, far) = pair().await;
        let start = Instant::now();
        let limit = Duration::from_millis(30);
        Linger::new(near, limit).shutdown().await.unwrap();
        assert!(start.elapsed() >= limit);
        drop(far);
    }
}
