//! Transfers that wait for their bytes' turn.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::table::Meters;
use crate::net::{self, Buffers, Meter, RelayIo, RelayOutcome, forward_to_io};

/// A transfer does not go on for fewer bytes than this, or than a burst.
const LEAST: u64 = 4096;

/// One direction of a transfer.
#[derive(Debug, Default)]
pub(in super::super) struct Pace {
    meters: Meters,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// By these limits.
    pub(in super::super) fn new(meters: &Meters) -> Self {
        Self { meters: meters.clone(), timer: None }
    }

    /// Ready with how many bytes may be read at once; never zero.
    pub(in super::super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.meters.are_none() {
            return Poll::Ready(usize::MAX);
        }
        loop {
            if let Some(timer) = &mut self.timer {
                ready!(timer.as_mut().poll(cx));
                self.timer = None;
            }
            let (allowed, until) = self.meters.allowance(LEAST, Instant::now());
            match until {
                None => return Poll::Ready(usize::try_from(allowed).unwrap_or(usize::MAX)),
                Some(until) => self.timer = Some(Box::pin(sleep_until(until))),
            }
        }
    }

    /// So many bytes were read.
    pub(in super::super) fn moved(&self, bytes: usize) {
        if bytes > 0 && !self.meters.are_none() {
            self.meters.moved(u64::try_from(bytes).unwrap_or(u64::MAX), Instant::now());
        }
    }
}

/// A side of a relay, read at its pace.
#[derive(Debug)]
struct PacedSide<'a, S> {
    io: &'a mut S,
    pace: Pace,
}

impl<'a, S> PacedSide<'a, S> {
    fn new(io: &'a mut S, meters: &Meters) -> Self {
        Self { io, pace: Pace::new(meters) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedSide<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = ready!(self.pace.poll(cx)).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut *self.io).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        self.pace.moved(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedSide<'_, S> {
    forward_to_io!(poll_write, poll_write_vectored, is_write_vectored, poll_flush, poll_shutdown);
}

impl<S: RelayIo> RelayIo for PacedSide<'_, S> {
    /// What is spliced is not counted in time.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    fn reset(&self) {
        self.io.reset();
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.io.poll_gone(cx)
    }
}

/// Relays both directions in their pace.
pub(in super::super) async fn relay<D: RelayIo, U: RelayIo, M: Meter>(
    buffers: &Buffers,
    down: &mut D,
    up: &mut U,
    early: Vec<u8>,
    idle: Option<Duration>,
    meter: &M,
    meters: &Meters,
) -> RelayOutcome {
    meters.moved(u64::try_from(early.len()).unwrap_or(u64::MAX), Instant::now());
    let (mut down, mut up) = (PacedSide::new(down, meters), PacedSide::new(up, meters));
    net::relay(buffers, &mut down, &mut up, early, idle, meter).await
}
