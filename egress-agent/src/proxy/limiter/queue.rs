//! Bytes that HTTP/2 has taken from us and not written yet, because their reader does not read.
//!
//! The library buffers for each stream. A connection may have many, so the bound here is one of the
//! connection: who wants to hand over more waits until some of it is written. It shrinks as the bytes
//! of all connections grow.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};

use super::{Holder, Slot};
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
}

impl Queued {
    /// No bytes.
    #[must_use]
    pub fn none() -> Self {
        Self { bytes: Bytes::new(), slot: None, amount: 0 }
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
        waiting.into_iter().for_each(std::task::Waker::wake);
    }
}

impl Holder {
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

    /// The bytes, counted.
    #[must_use]
    pub fn queue(&self, bytes: Bytes) -> Queued {
        let Some(slot) = &self.0 else { return Queued { bytes, slot: None, amount: 0 } };
        let (amount, limiter) = (bytes.len(), &slot.limiter);
        slot.queued.set(slot.queued.get() + amount);
        limiter.queued.set(limiter.queued.get() + amount);
        limiter.stats.add(Resource::QueuedBytes, amount);
        Queued { bytes, slot: Some(Rc::clone(slot)), amount }
    }
}
