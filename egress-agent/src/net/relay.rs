//! Copying bytes between two connections, both directions in one task.
//!
//! While nothing flows a connection holds no buffer: reads go through one buffer that the worker's
//! connections share, and only what the other side didn't take at once is kept. What a side receives in a
//! buffer of its own, or keeps in one until it is sent, is handed on as it is. A read that fills
//! [`BULK`] bytes shows bulk; from then on bytes are spliced through a pipe of the worker's pool,
//! which goes back as soon as the flow pauses.

mod buffers;

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io, mem,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep_until},
};

pub use self::buffers::Buffers;
use self::buffers::Read;
use super::RelayIo;
use crate::sys::splice::Pipe;

/// A read of this many bytes shows bulk.
const BULK: usize = 32 * 1024;
/// A splice of less shows its end.
const TRICKLE: usize = 4 * 1024;
/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// The application.
    Downstream,
    /// The endpoint outside.
    Upstream,
}

impl Peer {
    fn other(self) -> Self {
        match self {
            Self::Downstream => Self::Upstream,
            Self::Upstream => Self::Downstream,
        }
    }
}

/// Hears of every byte as it is read.
pub trait Meter {
    /// So many bytes came from there.
    fn add(&self, from: Peer, bytes: usize);
}

/// How a relay ended. All but `Closed` leave both sides set to reset when they are dropped.
#[derive(Debug)]
pub enum RelayOutcome {
    /// Both sides said all they had, and all of it was passed on.
    Closed,
    /// No byte for too long.
    Idle,
    /// This one broke.
    Reset(Peer, io::Error),
}

/// Copies until both directions are closed, one breaks, or nothing flows for `idle`, if there is such a limit. `early` was
/// read from `down` before and goes first.
// Not an `async fn`: that would keep a second copy of its arguments as long as the connection.
pub fn relay<'a, D: RelayIo, U: RelayIo, M: Meter>(
    buffers: &'a Buffers,
    down: &'a mut D,
    up: &'a mut U,
    early: Vec<u8>,
    idle: Option<Duration>,
    meter: &'a M,
) -> impl Future<Output = RelayOutcome> + use<'a, D, U, M> {
    meter.add(Peer::Downstream, early.len());
    let mut outward = Direction::new(buffers, Peer::Downstream, early);
    let mut inward = Direction::new(buffers, Peer::Upstream, Vec::new());
    async move {
        let moved = Cell::new(false);
        let mut last = Instant::now();
        let mut timer = pin!(sleep_until(last + idle.unwrap_or_default()));
        let end = poll_fn(|cx| {
            let count = |from, bytes| {
                moved.set(true);
                meter.add(from, bytes);
            };
            let outward = outward.poll(cx, &mut *down, &mut *up, &count);
            let inward = inward.poll(cx, &mut *up, &mut *down, &count);
            match (outward, inward) {
                (Poll::Ready(Err(end)), _) | (_, Poll::Ready(Err(end))) => return Poll::Ready(end),
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                    return Poll::Ready(RelayOutcome::Closed);
                }
                _ => {}
            }
            if moved.replace(false) {
                last = Instant::now();
            }
            // The timer isn't touched for each byte: it looks when it fires.
            while let Some(idle) = idle
                && timer.as_mut().poll(cx).is_ready()
            {
                if last + idle <= Instant::now() {
                    return Poll::Ready(RelayOutcome::Idle);
                }
                timer.as_mut().reset(last + idle);
            }
            Poll::Pending
        })
        .await;
        if !matches!(end, RelayOutcome::Closed) {
            down.reset();
            up.reset();
        }
        end
    }
}

/// The bytes that one side reads and the other writes.
struct Direction<'a> {
    buffers: &'a Buffers,
    from: Peer,
    /// Bulk was seen and hasn't ended.
    bulk: bool,
    state: State,
}

enum State {
    /// What was read and not yet taken.
    Copy(Bytes),
    Splice(Pipe),
    /// Everything was passed on; the end itself is next.
    Closing,
    Closed,
}

impl State {
    fn idle() -> Self {
        Self::Copy(Bytes::new())
    }

    fn is_idle(&self) -> bool {
        matches!(self, Self::Copy(pending) if pending.is_empty())
    }
}

impl Drop for Direction<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<'a> Direction<'a> {
    fn new(buffers: &'a Buffers, from: Peer, early: Vec<u8>) -> Self {
        Self { buffers, from, bulk: false, state: State::Copy(early.into()) }
    }

    /// Back to copying, without a pipe.
    fn release(&mut self) {
        if matches!(self.state, State::Splice(_))
            && let State::Splice(pipe) = mem::replace(&mut self.state, State::idle())
        {
            self.buffers.give_back(pipe);
        }
    }

    fn poll<F: RelayIo, T: RelayIo>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        count: &impl Fn(Peer, usize),
    ) -> Poll<Result<(), RelayOutcome>> {
        loop {
            match &mut self.state {
                State::Copy(_) => {
                    if self.bulk
                        && self.state.is_idle()
                        && from.plain().is_some()
                        && to.plain().is_some()
                        && let Some(pipe) = self.buffers.lend()
                    {
                        self.state = State::Splice(pipe);
                        continue;
                    }
                    ready!(self.copy(cx, from, to, count))?;
                }
                State::Splice(_) => match (from.plain(), to.plain()) {
                    (Some(from), Some(to)) => ready!(self.splice(cx, from, to, count))?,
                    _ => self.release(),
                },
                State::Closing => match ready!(Pin::new(&mut *to).poll_shutdown(cx)) {
                    Ok(()) => self.state = State::Closed,
                    Err(error) => return broken(self.from.other(), error),
                },
                State::Closed => return Poll::Ready(Ok(())),
            }
        }
    }

    /// One read and its writes. `Ready(Ok)` means: look at the state again.
    fn copy<F: RelayIo, T: RelayIo>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        count: &impl Fn(Peer, usize),
    ) -> Poll<Result<(), RelayOutcome>> {
        let (reader, writer) = (self.from, self.from.other());
        if let State::Copy(pending) = &mut self.state {
            while !pending.is_empty() {
                match ready!(to.poll_write_bytes(cx, pending)) {
                    Ok(0) => return broken(writer, io::ErrorKind::WriteZero),
                    Ok(_) => {}
                    Err(error) => return broken(writer, error),
                }
            }
        }
        // The leftover is gone, and its memory with it.
        self.state = State::idle();
        let keeps = to.keeps_bytes();
        let read = match from.poll_received(cx) {
            Some(received) => received.map_ok(Read::Own),
            None => self.buffers.poll_read(cx, from, keeps),
        };
        let read = match read {
            Poll::Ready(Ok(read)) => read,
            Poll::Ready(Err(error)) => return broken(reader, error),
            Poll::Pending => {
                // TLS may hold back what was written until it is flushed.
                return match Pin::new(&mut *to).poll_flush(cx) {
                    Poll::Ready(Err(error)) => broken(writer, error),
                    Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                };
            }
        };
        if read.is_empty() {
            self.state = State::Closing;
            return Poll::Ready(Ok(()));
        }
        count(reader, read.len());
        self.bulk = read.len() >= BULK;
        match read.pass_on(cx, to) {
            Ok(rest) if rest.is_empty() => Poll::Ready(Ok(())),
            Ok(rest) => {
                self.state = State::Copy(rest);
                Poll::Pending
            }
            Err(error) => broken(writer, error),
        }
    }

    /// One pipe filled and drained. `Ready(Ok)` means: look at the state again.
    fn splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        count: &impl Fn(Peer, usize),
    ) -> Poll<Result<(), RelayOutcome>> {
        let (reader, writer) = (self.from, self.from.other());
        let State::Splice(pipe) = &mut self.state else { return Poll::Ready(Ok(())) };
        while !pipe.is_empty() {
            if let Err(error) = ready!(to.poll_write_ready(cx)) {
                return broken(writer, error);
            }
            match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
                Ok(0) => return broken(writer, io::ErrorKind::WriteZero),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return broken(writer, error),
            }
        }
        if !self.bulk {
            self.release();
            return Poll::Ready(Ok(()));
        }
        match from.poll_read_ready(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return broken(reader, error),
            Poll::Pending => {
                self.release();
                return Poll::Pending;
            }
        }
        match from.try_io(Interest::READABLE, || pipe.fill(from)) {
            Ok(0) => {
                self.release();
                self.state = State::Closing;
            }
            Ok(filled) => {
                count(reader, filled);
                self.bulk = filled >= TRICKLE;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return broken(reader, error),
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(by: Peer, error: impl Into<io::Error>) -> Poll<Result<(), RelayOutcome>> {
    Poll::Ready(Err(RelayOutcome::Reset(by, error.into())))
}

#[cfg(test)]
mod tests;
