//! Who asks for which name, who waits, and what is asked of the name server next. Time is passed in,
//! and nothing is sent here.

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::{
    LookupLimits,
    addresses::ResolvedAddresses,
    cache::{Addresses, Cache, CacheLookup},
    error::ResolveError,
    negative::Negative,
    queue::{Queue, ShareExhausted},
};
use crate::types::ShareOwner;

/// Somebody who waits for an answer.
pub(super) trait Waiter {
    /// Whether the answer is still of use.
    fn is_waiting(&self) -> bool;
    /// Here it is.
    fn answer(self, answer: Result<Addresses, ResolveError>);
}

/// What comes of a question at once.
#[derive(Debug)]
pub(super) enum Reply {
    /// The answer.
    Now(Result<Addresses, ResolveError>),
    /// The waiter gets it. Until then there may be an old one, for a caller that can't wait long.
    Later(Option<Addresses>),
}

/// A look-up to make, and to report by [`LookupScheduler::finish`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LookupJob {
    pub(super) owner: ShareOwner,
    pub(super) name: Arc<str>,
}

/// The cache, the queue, and the questions that wait. One look-up serves everybody who asks for the
/// name meanwhile. Bounds and shares are those of [`Cache`], [`Negative`] and [`Queue`]; waiters are
/// bounded by the connections that there may be.
#[derive(Debug)]
pub(super) struct LookupScheduler<W> {
    cache: Cache,
    negative: Negative,
    queue: Queue,
    pending: HashMap<Arc<str>, Pending<W>>,
}

#[derive(Debug)]
struct Pending<W> {
    /// It is under way.
    active: bool,
    /// To be asked although no caller waits.
    background: bool,
    /// Owners in whose queue it is.
    queued: Vec<ShareOwner>,
    waiters: Vec<(ShareOwner, W)>,
}

impl<W: Waiter> LookupScheduler<W> {
    /// An empty one with these bounds.
    pub(super) fn new(limits: LookupLimits) -> Self {
        Self {
            cache: Cache::new(limits.names),
            negative: Negative::new(limits.failed_names_per_source),
            queue: Queue::new(limits),
            pending: HashMap::new(),
        }
    }

    /// A question; `waiter` is made if the answer comes later.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        owner: &ShareOwner,
        name: &str,
        waiter: impl FnOnce() -> W,
    ) -> Reply {
        match self.cache.get(now, name) {
            CacheLookup::Fresh(addresses) | CacheLookup::Failing(addresses) => {
                Reply::Now(Ok(addresses))
            }
            CacheLookup::Refresh(addresses) => {
                // Without room for it the answer is still good.
                self.enqueue(owner, name, None).ok();
                Reply::Now(Ok(addresses))
            }
            CacheLookup::Stale(addresses) => match self.enqueue(owner, name, Some(waiter())) {
                Ok(()) => Reply::Later(Some(addresses)),
                Err(ShareExhausted) => Reply::Now(Ok(addresses)),
            },
            CacheLookup::Missing => match self.negative.get(now, owner, name) {
                Some(why) => Reply::Now(Err(why)),
                None => match self.enqueue(owner, name, Some(waiter())) {
                    Ok(()) => Reply::Later(None),
                    Err(ShareExhausted) => Reply::Now(Err(ResolveError::Overflow)),
                },
            },
        }
    }

    /// Whether there may be a look-up to make.
    pub(super) fn has_work(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next look-up to make; `None` if there is none, or no room for it.
    pub(super) fn next(&mut self) -> Option<LookupJob> {
        while let Some((owner, name)) = self.queue.next() {
            if let Some(pending) = self.pending.get_mut(&name) {
                pending.queued.retain(|its| *its != owner);
                pending.waiters.retain(|(_, waiter)| waiter.is_waiting());
                let wanted = pending.background || !pending.waiters.is_empty();
                if !pending.active && wanted {
                    pending.active = true;
                    return Some(LookupJob { owner, name });
                }
                // Nobody waits for it now; others may have it in their queue yet.
                if !pending.active && pending.queued.is_empty() {
                    self.pending.remove(&name);
                }
            }
            self.queue.done(&owner);
        }
        None
    }

    /// Addresses of one family are there: whoever waits need not wait for the other.
    pub(super) fn early(&mut self, now: Instant, job: &LookupJob, found: &ResolvedAddresses) {
        let addresses = self.keep(now, job, found);
        if let Some(pending) = self.pending.get_mut(&job.name) {
            answer(&mut pending.waiters, &Ok(addresses));
        }
    }

    /// The look-up is over.
    pub(super) fn finish(
        &mut self,
        now: Instant,
        job: &LookupJob,
        result: Result<ResolvedAddresses, ResolveError>,
    ) {
        self.queue.done(&job.owner);
        let mut waiters = match self.pending.remove(&job.name) {
            Some(pending) => pending.waiters,
            None => Vec::new(),
        };
        let why = match result {
            Ok(found) => {
                let addresses = self.keep(now, job, &found);
                answer(&mut waiters, &Ok(addresses));
                return;
            }
            Err(why) => why,
        };
        // An answer about the name replaces what was known (RFC 8767 §4); a failure does not.
        if why.is_about_the_name() {
            self.cache.remove(&job.name);
        } else if let Some(addresses) = self.cache.failed(now, &job.name) {
            answer(&mut waiters, &Ok(addresses));
            return;
        }
        self.negative.insert(now, &job.owner, &job.name, why.clone());
        for (owner, _) in &waiters {
            if *owner != job.owner {
                self.negative.insert(now, owner, &job.name, why.clone());
            }
        }
        answer(&mut waiters, &Err(why));
    }

    fn keep(&mut self, now: Instant, job: &LookupJob, found: &ResolvedAddresses) -> Addresses {
        let addresses = found.addresses();
        if !found.is_whole {
            return self.cache.insert_part(now, &job.owner, &job.name, addresses, found.ttl);
        }
        self.cache.insert(now, &job.owner, &job.name, Arc::clone(&addresses), found.ttl);
        addresses
    }

    fn enqueue(
        &mut self,
        owner: &ShareOwner,
        name: &str,
        waiter: Option<W>,
    ) -> Result<(), ShareExhausted> {
        let name: Arc<str> = match self.pending.get_key_value(name) {
            Some((name, pending)) => {
                let name = Arc::clone(name);
                // Behind another's queue it might wait for long.
                if !pending.active && !pending.queued.contains(owner) {
                    self.queue.push(owner, &name)?;
                }
                name
            }
            None => {
                let name = name.into();
                self.queue.push(owner, &name)?;
                name
            }
        };
        let pending = self.pending.entry(name).or_insert_with(|| Pending {
            active: false,
            background: false,
            queued: Vec::new(),
            waiters: Vec::new(),
        });
        if !pending.active && !pending.queued.contains(owner) {
            pending.queued.push(owner.clone());
        }
        match waiter {
            Some(waiter) => pending.waiters.push((owner.clone(), waiter)),
            None => pending.background = true,
        }
        Ok(())
    }
}

fn answer<W: Waiter>(waiters: &mut Vec<(ShareOwner, W)>, with: &Result<Addresses, ResolveError>) {
    for (_, waiter) in waiters.drain(..) {
        waiter.answer(with.clone());
    }
}

#[cfg(test)]
mod tests;
