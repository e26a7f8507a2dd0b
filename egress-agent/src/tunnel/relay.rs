//! Bytes between a pod's connection and its stream: both directions in one task, with half-close
//! and reset each way.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite as _},
    net::TcpStream,
};

use super::{
    connection::Slot,
    stats::{Gauge, add},
    worker::Worker,
};
use crate::net::ByteQueue;

/// Read from a pod at once, in bytes: one stream's turn.
const READ: usize = 64 * 1024;
/// Less than this isn't worth keeping a whole buffer alive for.
const SMALL: usize = 4 * 1024;
/// Reads and writes before others get their turn.
const TURNS: usize = 16;

/// How a relay ended.
#[derive(Debug)]
pub(super) enum RelayEnd {
    /// Both sides said all they had.
    Closed,
    /// The pod's connection broke.
    Pod(io::Error),
    /// The gateway reset the stream, or the tunnel broke.
    Gateway(String),
}

/// Relays until both directions are closed or one side breaks. The pod's connection is set to reset
/// when it is closed, from accept on: the process may be killed at any time, and what it leaves to
/// the kernel mustn't look like the regular end of the data. Only a regular end undoes that.
pub(super) async fn relay(
    worker: &Worker,
    pod: TcpStream,
    slot: &Slot,
    stream: (SendStream<Bytes>, RecvStream),
) -> RelayEnd {
    let _running = Gauge::new(&worker.stats, |stats| &stats.streams);
    let (send, mut recv) = stream;
    slot.connection.add_reader(recv.flow_control());
    let mut relay = Relay {
        worker,
        slot,
        pod,
        send,
        recv,
        outward: FromPod::Reading,
        inward: ToPod { queue: ByteQueue::default(), ended: false, closed: false },
    };
    let end = poll_fn(|cx| relay.poll(cx)).await;
    match &end {
        RelayEnd::Closed => {
            // It fails only where the connection is gone already.
            SockRef::from(&relay.pod).set_linger(None).ok();
        }
        RelayEnd::Pod(_) => relay.send.send_reset(Reason::CANCEL),
        RelayEnd::Gateway(_) => {}
    }
    end
}

struct Relay<'a> {
    worker: &'a Worker,
    slot: &'a Slot,
    pod: TcpStream,
    send: SendStream<Bytes>,
    recv: RecvStream,
    outward: FromPod,
    inward: ToPod,
}

/// From the pod.
enum FromPod {
    Reading,
    /// Read, and not yet taken by the stream.
    Sending(Bytes),
    Closed,
}

/// To the pod.
struct ToPod {
    queue: ByteQueue,
    /// The gateway has sent all.
    ended: bool,
    closed: bool,
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        let connection = &self.slot.connection;
        connection.remove_reader(self.recv.flow_control());
        connection.let_go(self.worker, self.inward.queue.len());
    }
}

impl Relay<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let outward = self.poll_outward(cx);
        let inward = self.poll_inward(cx);
        match (outward, inward) {
            (Poll::Ready(Err(end)), _) | (_, Poll::Ready(Err(end))) => Poll::Ready(end),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(RelayEnd::Closed),
            _ => Poll::Pending,
        }
    }

    fn poll_outward(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayEnd>> {
        for _ in 0..TURNS {
            match &mut self.outward {
                FromPod::Closed => return Poll::Ready(Ok(())),
                FromPod::Reading => {
                    if let Poll::Ready(reset) = self.send.poll_reset(cx) {
                        return Poll::Ready(Err(self.was_reset(reset)));
                    }
                    let read = ready!(self.poll_read(cx));
                    let read = read.map_err(RelayEnd::Pod)?;
                    if read.is_empty() {
                        self.send.send_data(Bytes::new(), true).map_err(gateway)?;
                        self.outward = FromPod::Closed;
                    } else {
                        add(&self.worker.stats.sent, read.len());
                        self.outward = FromPod::Sending(read);
                    }
                }
                FromPod::Sending(rest) => {
                    // Only what was read is asked for: an idle stream would hold room that no other stream can use.
                    if self.send.capacity() == 0 {
                        self.send.reserve_capacity(rest.len());
                    }
                    while self.send.capacity() == 0 {
                        match ready!(self.send.poll_capacity(cx)) {
                            Some(Ok(_)) => {}
                            Some(Err(error)) => return Poll::Ready(Err(gateway(error))),
                            None => return Poll::Ready(Err(RelayEnd::Gateway("it ended".into()))),
                        }
                    }
                    let part = rest.split_to(rest.len().min(self.send.capacity()));
                    self.send.send_data(part, false).map_err(gateway)?;
                    if rest.is_empty() {
                        self.outward = FromPod::Reading;
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// A gateway that has said all it had may stop to listen without an error (RFC 9113 §8.1): the
    /// pod learns that from the end that it has seen.
    fn was_reset(&self, reset: Result<Reason, h2::Error>) -> RelayEnd {
        match reset {
            Ok(Reason::NO_ERROR) if self.inward.closed => RelayEnd::Closed,
            Ok(reason) => RelayEnd::Gateway(format!("stream reset: {reason}")),
            Err(error) => gateway(error),
        }
    }

    /// What is there to read; empty at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        // An idle connection holds no buffer: all of them read into one. A read that takes less than it
        // may says that there is no more: the socket is not asked again until it has some.
        let mut scratch = self.worker.scratch.borrow_mut();
        scratch.clear();
        scratch.reserve(READ);
        ready!(pin!(self.pod.read_buf(&mut scratch.limited(READ))).poll(cx))?;
        Poll::Ready(Ok(match scratch.len() {
            small if small < SMALL => Bytes::copy_from_slice(&scratch),
            _ => scratch.split().freeze(),
        }))
    }

    fn poll_inward(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayEnd>> {
        if self.inward.closed {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURNS {
            // All that has come is taken at once, so that it is known how much waits; the stream's
            // window bounds it, since it opens only as bytes go on to the pod.
            while !self.inward.ended {
                match self.recv.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => {
                        self.slot.connection.hold(self.worker, data.len());
                        self.inward.queue.push(data);
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(gateway(error))),
                    Poll::Ready(None) => self.inward.ended = true,
                    Poll::Pending => break,
                }
            }
            if self.inward.queue.is_empty() {
                if !self.inward.ended {
                    return Poll::Pending;
                }
                ready!(Pin::new(&mut self.pod).poll_shutdown(cx)).map_err(RelayEnd::Pod)?;
                self.inward.closed = true;
                return Poll::Ready(Ok(()));
            }
            ready!(self.pod.poll_write_ready(cx)).map_err(RelayEnd::Pod)?;
            let written = match self.inward.queue.write(&self.pod) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(RelayEnd::Pod(error))),
            };
            self.slot.connection.let_go(self.worker, written);
            add(&self.worker.stats.received, written);
            self.recv.flow_control().release_capacity(written).map_err(gateway)?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn gateway(error: h2::Error) -> RelayEnd {
    RelayEnd::Gateway(error.to_string())
}

/// A buffer that a read can't make larger than asked for.
trait Limited {
    fn limited(&mut self, limit: usize) -> bytes::buf::Limit<&mut Self>;
}

impl Limited for BytesMut {
    fn limited(&mut self, limit: usize) -> bytes::buf::Limit<&mut Self> {
        bytes::BufMut::limit(self, limit)
    }
}

/// Relays, and counts how it ended.
pub(super) async fn run(
    worker: &Rc<Worker>,
    pod: TcpStream,
    slot: &Slot,
    stream: (SendStream<Bytes>, RecvStream),
) -> RelayEnd {
    add(&worker.stats.streams_total, 1);
    let end = relay(worker, pod, slot, stream).await;
    match end {
        RelayEnd::Closed => {}
        RelayEnd::Pod(_) | RelayEnd::Gateway(_) => add(&worker.stats.streams_reset, 1),
    }
    end
}
