//! A TLS connection that ends when the certificates of its other end no longer verify.
//!
//! It ends by failing: whatever reads or writes it gets an error that says why, and the socket is
//! closed with a reset, which nobody takes for the regular end of the data.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use egress_ebpf::reason::Reason;
use futures_util::task::AtomicWaker;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::AbortHandle,
};
use tokio_rustls::server;

use super::{AcceptError, Credentials};
use crate::{
    net::{PrefixedIo, RelayIo},
    policy::ServerTls,
};

/// Why a connection was ended although both ends were content: the client's certificates no longer
/// verify. It travels inside an [`io::Error`].
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{0}; its connection was ended")]
pub struct PeerEnded(pub AcceptError);

impl PeerEnded {
    /// The cause of an error, if it is this.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// The reason to log and count.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.reason()
    }
}

/// Where all who share a connection are told that it was ended, and why; empty until then.
#[derive(Clone, Debug, Default)]
pub struct RevocationSignal(Arc<OnceLock<PeerEnded>>);

impl RevocationSignal {
    /// Why it was ended, if it was.
    #[must_use]
    pub fn get(&self) -> Option<&PeerEnded> {
        self.0.get()
    }

    /// Tells it; what was told first stays.
    pub fn set(&self, ended: PeerEnded) {
        self.0.set(ended).ok();
    }
}

/// A connection that is judged as long as it is open. One task reads and writes it.
#[derive(Debug)]
pub struct RevocableStream<S> {
    stream: S,
    judge: Option<ValidityWatch>,
}

/// Waits for the certificates' end.
#[derive(Debug)]
struct ValidityWatch {
    verdict: Arc<Verdict>,
    waiting: AbortHandle,
}

#[derive(Debug, Default)]
struct Verdict {
    ending: RevocationSignal,
    /// Who reads or writes.
    waker: AtomicWaker,
}

impl Drop for ValidityWatch {
    fn drop(&mut self) {
        self.waiting.abort();
    }
}

impl ValidityWatch {
    fn new(ends: impl Future<Output = PeerEnded> + Send + 'static) -> Self {
        let verdict = Arc::<Verdict>::default();
        let told = Arc::clone(&verdict);
        let waiting = tokio::spawn(async move {
            let ended = ends.await;
            tracing::info!("{ended}");
            told.ending.set(ended);
            told.waker.wake();
        });
        Self { verdict, waiting: waiting.abort_handle() }
    }
}

impl<S> RevocableStream<S> {
    /// Not judged: the other end showed no certificate.
    pub(super) fn never(stream: S) -> Self {
        Self { stream, judge: None }
    }

    /// Where its end is told; `None` if it isn't judged.
    #[must_use]
    pub fn ending(&self) -> Option<RevocationSignal> {
        self.judge.as_ref().map(|judge| judge.verdict.ending.clone())
    }

    /// The verdict, if there is one; else whoever asks is woken when there is.
    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        let Some(ValidityWatch { verdict, .. }) = &self.judge else { return Ok(()) };
        // Registered first, so that no verdict falls in between.
        verdict.waker.register(cx.waker());
        match verdict.ending.get() {
            None => Ok(()),
            Some(ended) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, ended.clone())),
        }
    }
}

impl RevocableStream<server::TlsStream<PrefixedIo<TcpStream>>> {
    /// The TLS of the connection.
    #[must_use]
    pub fn tls(&self) -> &rustls::ServerConnection {
        self.stream.get_ref().1
    }

    /// Ends it when the client would no longer be let in under these settings. It must be called
    /// inside a runtime.
    #[must_use]
    pub fn held_to(mut self, credentials: &Arc<Credentials>, settings: &Arc<ServerTls>) -> Self {
        if let Some(chain) = self.tls().peer_certificates() {
            let chain: Vec<_> = chain.iter().map(|der| der.clone().into_owned()).collect();
            let credentials = Arc::clone(credentials);
            let settings = Arc::clone(settings);
            self.judge = Some(ValidityWatch::new(async move {
                PeerEnded(credentials.client_ends(&settings, &chain).await)
            }));
        }
        self
    }
}

impl<S: RelayIo> RevocableStream<S> {
    /// Fails with the verdict, and makes closing it a reset then.
    fn check_validity(&self, cx: &Context<'_>) -> io::Result<()> {
        self.check(cx).inspect_err(|_| self.stream.reset())
    }
}

impl<S: RelayIo> AsyncRead for RevocableStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_validity(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: RelayIo> AsyncWrite for RevocableStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_validity(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_validity(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_validity(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_validity(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: RelayIo> RelayIo for RevocableStream<S> {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    fn reset(&self) {
        self.stream.reset();
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_gone(cx)
    }
}
