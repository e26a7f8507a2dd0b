//! What requests take: a place each, and the bytes of their heads.

use std::rc::Rc;

use super::{ConnectionOwner, Limiter, Slot, Usage};
use crate::telemetry::Resource;

/// One request's place, or bytes of one; given back on drop.
#[derive(Debug)]
pub struct Work {
    slot: Option<Rc<Slot>>,
    used: Usage,
}

impl Limiter {
    /// Bytes of request heads that the source may still take without anybody making room: none while
    /// memory is short.
    fn bytes_left(&self, slot: &Slot) -> usize {
        if self.stats.is_pressed() {
            return 0;
        }
        let bound = self.bound(Resource::RequestBytes);
        let own = slot.share_used.get().of(Resource::RequestBytes);
        let all = self.table.borrow().used.of(Resource::RequestBytes);
        bound.all.saturating_sub(all).min(bound.each.saturating_sub(own))
    }

    /// Whether half of the bytes of requests are left, for all and for the source.
    fn has_spare(&self, slot: &Slot, bytes: usize) -> bool {
        let bound = self.bound(Resource::RequestBytes);
        let own = slot.share_used.get().of(Resource::RequestBytes);
        let all = self.table.borrow().used.of(Resource::RequestBytes);
        !self.stats.is_pressed() && all + bytes <= bound.all / 2 && own + bytes <= bound.each / 2
    }
}

impl ConnectionOwner {
    /// A place for a request with so many bytes of head, or for a forwarded connection; `None` if
    /// its source has its share.
    #[must_use]
    pub fn request(&self, bytes: usize) -> Option<Work> {
        self.ask(Usage::request(bytes))
    }

    /// A place for bytes of a head that has not come whole yet; `None` if its source has its share.
    #[must_use]
    pub fn partial_head(&self, bytes: usize) -> Option<Work> {
        self.ask(Usage::bytes(bytes))
    }

    fn ask(&self, used: Usage) -> Option<Work> {
        let Some(slot) = &self.0 else { return Some(Work { slot: None, used }) };
        let own = || Some(slot.share_used.get());
        // A stream of a connection that was told to end.
        if slot.evicted.get() || !slot.limiter.has_room(&slot.owner, own, used) {
            return None;
        }
        slot.limiter.take(slot, used);
        Some(Work { slot: Some(Rc::clone(slot)), used })
    }

    /// A place for bytes that a request can do without; `None` where half of what there is, or of what
    /// its source may have, is used. Nobody makes room for them.
    #[must_use]
    pub fn spare(&self, bytes: usize) -> Option<Work> {
        let used = Usage::bytes(bytes);
        let Some(slot) = &self.0 else { return Some(Work { slot: None, used }) };
        if slot.evicted.get() || !slot.limiter.has_spare(slot, bytes) {
            return None;
        }
        slot.limiter.take(slot, used);
        Some(Work { slot: Some(Rc::clone(slot)), used })
    }

    /// Bytes of request heads that its source may still take without anybody making room.
    #[must_use]
    pub fn bytes_left(&self) -> usize {
        self.0.as_ref().map_or(usize::MAX, |slot| slot.limiter.bytes_left(slot))
    }

    /// Whether the process is short of memory: a connection whose request is refused then ends.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.0.as_ref().is_some_and(|slot| slot.limiter.stats.is_pressed())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            slot.limiter.give_back(slot, self.used);
        }
    }
}
