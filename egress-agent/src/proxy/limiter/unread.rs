//! Bytes that were received on HTTP/2 streams and that their readers have not taken.
//!
//! What may be received is bounded for each stream by its window. Here it is bounded for each source
//! and in all: where more is held, the connection that holds the most ends, of the source that is above
//! its share, or of the one that has the most.

use super::{ConnectionOwner, Limiter, Slot};
use crate::{telemetry::Resource, types::ShareOwner};

impl Limiter {
    /// What one source may have of the bytes that wait.
    fn unread_per_source(&self) -> usize {
        self.limits.queued_bytes / 2
    }

    /// Ends connections until the bounds hold, after `slot` has got more.
    fn bound_unread(&self, slot: &Slot) {
        while slot.share_unread.get() > self.unread_per_source() && !slot.evicted.get() {
            if !self.evict_unread(Some(&slot.owner)) {
                return;
            }
        }
        while self.unread.get() + self.queued.get() > self.limits.queued_bytes {
            if !self.evict_unread(None) {
                return;
            }
        }
    }

    /// Ends the connection that holds the most of this source, or of the source that holds the most.
    /// Whether there was one.
    fn evict_unread(&self, owner: Option<&ShareOwner>) -> bool {
        let mut table = self.table.borrow_mut();
        let of = table.shares.iter().filter(|(its, _)| owner.is_none_or(|owner| *its == owner));
        let largest = of.max_by_key(|(_, share)| share.unread.get());
        let Some((owner, share)) = largest.filter(|(_, share)| share.unread.get() > 0) else {
            return false;
        };
        let victim = share.slots.values().max_by_key(|slot| slot.unread.get());
        let Some(slot) = victim.filter(|slot| slot.unread.get() > 0).cloned() else { return false };
        let owner = owner.clone();
        self.evict(&mut table, &slot, &owner, Resource::QueuedBytes);
        true
    }
}

impl Slot {
    fn change_unread(&self, change: impl Fn(usize) -> usize) {
        for count in [&self.unread, &*self.share_unread, &self.limiter.unread] {
            count.set(change(count.get()));
        }
    }

    /// It is evicted: what it holds goes with it.
    pub(super) fn forget_unread(&self) {
        let held = self.unread.get();
        self.change_unread(|count| count.saturating_sub(held));
        self.limiter.stats.sub(Resource::QueuedBytes, held);
    }
}

impl ConnectionOwner {
    /// So many bytes were received and wait for the connection's reader.
    pub fn hold(&self, bytes: usize) {
        let Some(slot) = self.0.as_ref().filter(|slot| !slot.evicted.get()) else { return };
        slot.change_unread(|count| count + bytes);
        slot.limiter.stats.add(Resource::QueuedBytes, bytes);
        slot.limiter.bound_unread(slot);
    }

    /// So many were taken, or are dropped.
    pub fn let_go(&self, bytes: usize) {
        let Some(slot) = self.0.as_ref().filter(|slot| !slot.evicted.get()) else { return };
        slot.change_unread(|count| count.saturating_sub(bytes));
        slot.limiter.stats.sub(Resource::QueuedBytes, bytes);
    }
}
