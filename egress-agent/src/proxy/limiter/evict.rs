//! Connections that end for the room that they take.

use std::rc::Rc;

use super::{Limiter, Slot, Table, Usage};
use crate::{
    telemetry::{LimitStats, Resource},
    types::ShareOwner,
};

impl Limiter {
    /// Ends the connection that costs most of the source that has the most, if it has more than
    /// `above`. Whether there was one.
    pub(super) fn evict_from_largest(
        &self,
        resource: Resource,
        but: Option<&ShareOwner>,
        above: usize,
    ) -> bool {
        let mut table = self.table.borrow_mut();
        let candidates = table.shares.iter().filter(|(owner, _)| Some(*owner) != but);
        let largest = candidates.max_by_key(|(_, share)| share.used.get().of(resource));
        let Some((owner, share)) =
            largest.filter(|(_, share)| share.used.get().of(resource) > above)
        else {
            return false;
        };
        // What carries no request is missed least; otherwise what costs most.
        let idle = |slot: &&Rc<Slot>| slot.used.get() == Usage::CONNECTION;
        let victim = match resource {
            Resource::Connections => {
                share.slots.values().find(idle).or_else(|| share.slots.values().next())
            }
            Resource::Requests
            | Resource::RequestBytes
            | Resource::QueuedBytes
            | Resource::Memory
            | Resource::Descriptors => {
                share.slots.values().max_by_key(|slot| slot.used.get().of(resource))
            }
        };
        let (Some(slot), owner) = (victim.map(Rc::clone), owner.clone()) else {
            return false;
        };
        self.evict(&mut table, &slot, &owner, resource);
        true
    }

    /// Ends the connection, which gives everything back at once.
    pub(super) fn evict(
        &self,
        table: &mut Table,
        slot: &Slot,
        owner: &ShareOwner,
        resource: Resource,
    ) {
        let used = slot.used.take();
        slot.forget_unread();
        slot.evicted.set(true);
        slot.told.notify_waiters();
        slot.wake_task();
        slot.wake();
        if let Some(share) = table.shares.get_mut(owner) {
            share.slots.remove(&slot.id);
            let mut left = share.used.get();
            left.sub(used);
            share.used.set(left);
            if share.slots.is_empty() {
                table.shares.remove(owner);
            }
        }
        table.used.sub(used);
        self.gauge(used, LimitStats::sub);
        self.stats.closed(resource);
        tracing::debug!("{owner} has the most {}: a connection is closed", resource.name());
    }
}
