//! Bytes that HTTP/2 has taken from us and not written yet, because their reader does not read.
//!
//! The library buffers for each stream. A connection may have many, so the bound here is one of the
//! connection: who wants to hand over more waits until some of it is written. It shrinks as the bytes
//! of all connections grow.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};

use super::{ConnectionOwner, Slot};
use crate::telemetry::Resource;

/// Most that waits on one connection, in bytes.
const MOST: usize = 1024 * 1024;
/// What every connection may have, in bytes: one frame of the default size.
const LEAST: usize = 16 * 1024;

/// Bytes on their way, counted until they are written or dropped.
#[derive(Debug)]
pub struct Queued {
    bytes: Bytes,
    slot: Option<Rc<Slot>>,
    amount: usize,
    stream: Option<Rc<UnwrittenBytes>>,
}

impl Queued {
    /// No bytes.
    #[must_use]
    pub fn none() -> Self {
        Self { bytes: Bytes::new(), slot: None, amount: 0, stream: None }
    }

    /// As a piece of this stream.
    #[must_use]
    pub fn of(mut self, stream: &Rc<UnwrittenBytes>) -> Self {
        stream.pieces.set(stream.pieces.get() + 1);
        self.stream = Some(Rc::clone(stream));
        self
    }
}

/// The pieces of one stream that are not written yet.
#[derive(Debug, Default)]
pub struct UnwrittenBytes {
    pieces: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

impl UnwrittenBytes {
    /// Ready when there is none.
    pub fn poll_none(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pieces.get() == 0 {
            return Poll::Ready(());
        }
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn take_one(&self) {
        self.pieces.set(self.pieces.get().saturating_sub(1));
        if self.pieces.get() == 0
            && let Some(waiting) = self.waiting.take()
        {
            waiting.wake();
        }
    }
}

impl Buf for Queued {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            stream.take_one();
        }
        let Some(slot) = &self.slot else { return };
        let limiter = &slot.limiter;
        slot.queued.set(slot.queued.get().saturating_sub(self.amount));
        limiter.queued.set(limiter.queued.get().saturating_sub(self.amount));
        limiter.stats.sub(Resource::QueuedBytes, self.amount);
        if slot.queued.get() <= slot.room() / 2 {
            slot.wake();
        }
    }
}

impl Slot {
    /// What may wait on the connection now.
    fn room(&self) -> usize {
        if self.limiter.stats.is_pressed() {
            return LEAST;
        }
        let limiter = &self.limiter;
        let used = limiter.queued.get() + limiter.unread.get();
        let free = limiter.limits.queued_bytes.saturating_sub(used);
        MOST.min(free / 2).max(LEAST)
    }

    pub(super) fn wake(&self) {
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl ConnectionOwner {
    /// Ready when more bytes may be handed over for the connection.
    pub fn poll_queue(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(slot) = &self.0 else { return Poll::Ready(()) };
        // A connection that is ended takes everything: who waits shall find that out.
        if slot.evicted.get() || slot.queued.get() < slot.room() {
            return Poll::Ready(());
        }
        let mut waiting = slot.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether all that was handed over for the connection is written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.0.as_ref().is_none_or(|slot| slot.queued.get() == 0)
    }

    /// The bytes, counted.
    #[must_use]
    pub fn queue(&self, bytes: Bytes) -> Queued {
        let Some(slot) = &self.0 else {
            return Queued { bytes, slot: None, amount: 0, stream: None };
        };
        let (amount, limiter) = (bytes.len(), &slot.limiter);
        slot.queued.set(slot.queued.get() + amount);
        limiter.queued.set(limiter.queued.get() + amount);
        limiter.stats.add(Resource::QueuedBytes, amount);
        Queued { bytes, slot: Some(Rc::clone(slot)), amount, stream: None }
    }
}
