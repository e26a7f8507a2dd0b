//! A bounded number of places that owners share.
//!
//! An owner that is alone may take all places. Where all are taken, an owner that has its share is refused at
//! once, and one that has less waits for the next place that is given back; of those whose limit leaves one, who
//! has the fewest places gets it. The share is the number of places divided by the number of owners that have a
//! place or wait for one, and at least one place. No owner waits for more places than its share leaves it, so
//! the queue is bounded by the places and the owners.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::oneshot;

use crate::types::ShareOwner;

/// The places of one limit, of all workers.
#[derive(Debug, Default)]
pub(super) struct FairLimit {
    /// Places that are taken; those count too that were taken while there was no limit.
    taken: AtomicU32,
    /// Who waits. A place is given back before this is read, and this is written before the places are: one of
    /// the two sees the other.
    waiting: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    owners: HashMap<ShareOwner, OwnerUsage>,
    /// The oldest first.
    queue: Vec<Waiter>,
    next: u64,
}

/// What one owner has.
#[derive(Clone, Copy, Debug, Default)]
struct OwnerUsage {
    places: u32,
    waiting: u32,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    owner: ShareOwner,
    /// The limit that it was asked under: a cluster may have others at the same time.
    max: u32,
    granted: oneshot::Sender<FairPermit>,
}

/// One place; given back on drop.
#[derive(Debug)]
pub struct FairPermit {
    limit: Arc<FairLimit>,
    /// Whether it is part of a share: without a limit there are none.
    is_shared: bool,
    /// The owner whose share it is part of, if any.
    owner: RefCell<Option<ShareOwner>>,
}

/// What became of asking for a place.
#[derive(Debug)]
pub(super) enum Acquisition {
    /// It is here.
    Taken(FairPermit),
    /// None is left, and the owner has less than its share.
    Waits(QueuedRequest),
    /// None is left, and the owner has its share.
    Full,
}

/// A place in the queue; given up on drop.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    limit: Arc<FairLimit>,
    id: u64,
    granted: oneshot::Receiver<FairPermit>,
}

impl FairLimit {
    /// Places that are taken.
    pub(super) fn taken(&self) -> u32 {
        self.taken.load(Ordering::SeqCst)
    }

    /// Whether somebody waits for a place.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// A place at once, or none. `max` is the limit; `u32::MAX` is none.
    pub(super) fn take(self: &Arc<Self>, owner: &ShareOwner, max: u32) -> Option<FairPermit> {
        if max == u32::MAX {
            return Some(self.unlimited());
        }
        let (place, unclaimed) = {
            let mut state = self.lock();
            let unclaimed = self.serve(&mut state);
            (self.take_for(&mut state, owner, max), unclaimed)
        };
        drop(unclaimed);
        place
    }

    /// A place where there is no limit.
    pub(super) fn unlimited(self: &Arc<Self>) -> FairPermit {
        self.taken.fetch_add(1, Ordering::SeqCst);
        self.place(None)
    }

    /// A place at once, or one to wait for where the owner has less than its share.
    pub(super) fn ask(self: &Arc<Self>, owner: &ShareOwner, max: u32) -> Acquisition {
        if let Some(place) = self.take(owner, max) {
            return Acquisition::Taken(place);
        }
        let has_less = max > 0 && self.lock().has_less_than_share(owner, max);
        if has_less { Acquisition::Waits(self.wait(owner, max)) } else { Acquisition::Full }
    }

    /// Waits for a place, however many the owner has.
    pub(super) fn wait(self: &Arc<Self>, owner: &ShareOwner, max: u32) -> QueuedRequest {
        let (granted, receiver) = oneshot::channel();
        let (id, unclaimed) = {
            let mut state = self.lock();
            let id = state.next;
            state.next += 1;
            state.account(owner).waiting += 1;
            state.queue.push(Waiter { id, owner: owner.clone(), max, granted });
            self.waiting.fetch_add(1, Ordering::SeqCst);
            // One may have been given back since it was asked for.
            (id, self.serve(&mut state))
        };
        drop(unclaimed);
        QueuedRequest { limit: Arc::clone(self), id, granted: receiver }
    }

    /// Gives the free places to those that wait, each as far as its limit leaves one. The places of those that
    /// went away meanwhile come back: they are to be dropped without the lock.
    fn serve(self: &Arc<Self>, state: &mut State) -> Vec<FairPermit> {
        let mut unclaimed = Vec::new();
        while let Some(next) = state.next_in_queue(self.taken()) {
            let Waiter { owner, max, .. } = &state.queue[next];
            let (owner, max) = (owner.clone(), *max);
            // Where another place was taken meanwhile, the next one may have a higher limit.
            let Some(place) = self.take_for(state, &owner, max) else { continue };
            let Waiter { granted, .. } = state.queue.remove(next);
            self.left_queue(state, &owner);
            unclaimed.extend(granted.send(place).err());
        }
        unclaimed
    }

    fn take_for(
        self: &Arc<Self>,
        state: &mut State,
        owner: &ShareOwner,
        max: u32,
    ) -> Option<FairPermit> {
        let more = |taken: u32| (taken < max).then(|| taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        state.account(owner).places += 1;
        Some(self.place(Some(owner.clone())))
    }

    fn place(self: &Arc<Self>, owner: Option<ShareOwner>) -> FairPermit {
        let is_shared = owner.is_some();
        FairPermit { limit: Arc::clone(self), is_shared, owner: RefCell::new(owner) }
    }

    fn left_queue(&self, state: &mut State, owner: &ShareOwner) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        state.change(owner, |account| account.waiting = account.waiting.saturating_sub(1));
    }

    /// What a panicking thread left behind here are numbers, still right enough.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn account(&mut self, owner: &ShareOwner) -> &mut OwnerUsage {
        self.owners.entry(owner.clone()).or_default()
    }

    /// Changes what an owner has; one that has nothing is forgotten.
    fn change(&mut self, owner: &ShareOwner, change: impl FnOnce(&mut OwnerUsage)) {
        let Some(account) = self.owners.get_mut(owner) else { return };
        change(account);
        if account.places == 0 && account.waiting == 0 {
            self.owners.remove(owner);
        }
    }

    fn has_less_than_share(&self, owner: &ShareOwner, max: u32) -> bool {
        let own = self.owners.get(owner).copied();
        let owners = self.owners.len() + usize::from(own.is_none());
        let share = max / u32::try_from(owners).unwrap_or(u32::MAX).max(1);
        let OwnerUsage { places, waiting } = own.unwrap_or_default();
        places + waiting < share.max(1)
    }

    /// Of those whose limit leaves a place where so many are taken, the index of whoever has the fewest places; of
    /// these the one that has waited longest.
    fn next_in_queue(&self, taken: u32) -> Option<usize> {
        let places = |waiter: &Waiter| self.owners.get(&waiter.owner).map_or(0, |own| own.places);
        let may = self.queue.iter().enumerate().filter(|(_, waiter)| taken < waiter.max);
        let found = may.min_by_key(|(_, waiter)| places(waiter));
        found.map(|(index, _)| index)
    }
}

impl FairPermit {
    /// From here on it is part of this owner's share, or of none. It counts for the limit all the same.
    pub(super) fn set_owner(&self, owner: Option<&ShareOwner>) {
        if !self.is_shared {
            return;
        }
        let before = self.owner.replace(owner.cloned());
        if before.as_ref() == owner {
            return;
        }
        let mut state = self.limit.lock();
        if let Some(before) = before {
            state.change(&before, |account| account.places = account.places.saturating_sub(1));
        }
        if let Some(owner) = owner {
            state.account(owner).places += 1;
        }
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        self.set_owner(None);
        self.limit.taken.fetch_sub(1, Ordering::SeqCst);
        if self.limit.is_wanted() {
            let unclaimed = self.limit.serve(&mut self.limit.lock());
            drop(unclaimed);
        }
    }
}

impl QueuedRequest {
    /// The place, once it is there.
    pub(super) async fn granted(&mut self) -> Option<FairPermit> {
        (&mut self.granted).await.ok()
    }

    /// The place, if it is there by now.
    pub(super) fn granted_by_now(&mut self) -> Option<FairPermit> {
        self.granted.try_recv().ok()
    }
}

impl Drop for QueuedRequest {
    fn drop(&mut self) {
        let mut state = self.limit.lock();
        let Some(index) = state.queue.iter().position(|waiter| waiter.id == self.id) else {
            return;
        };
        let Waiter { owner, .. } = state.queue.remove(index);
        self.limit.left_queue(&mut state, &owner);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use futures_util::FutureExt as _;

    use super::*;

    fn owner(last: u8) -> ShareOwner {
        ShareOwner::of(None, [192, 0, 2, last].into())
    }

    fn take(limit: &Arc<FairLimit>, last: u8, max: u32) -> Option<FairPermit> {
        limit.take(&owner(last), max)
    }

    fn waits(limit: &Arc<FairLimit>, last: u8, max: u32) -> Option<QueuedRequest> {
        match limit.ask(&owner(last), max) {
            Acquisition::Waits(waiting) => Some(waiting),
            Acquisition::Full => None,
            Acquisition::Taken(_) => panic!("there was a place"),
        }
    }

    fn now(waiting: &mut QueuedRequest) -> Option<FairPermit> {
        waiting.granted().now_or_never().flatten()
    }

    #[test]
    fn whoever_is_alone_has_all_places_and_waits_for_none() {
        let limit = Arc::<FairLimit>::default();
        let places: Vec<_> = (0..4).map(|_| take(&limit, 1, 4).unwrap()).collect();
        assert!(waits(&limit, 1, 4).is_none());
        assert_eq!(limit.taken(), 4);
        drop(places);
        assert_eq!((limit.taken(), limit.lock().owners.len()), (0, 0));
    }

    #[test]
    fn the_next_place_is_for_whoever_has_less_than_its_share() {
        let limit = Arc::<FairLimit>::default();
        let mut greedy: Vec<_> = (0..4).map(|_| take(&limit, 1, 4).unwrap()).collect();
        let mut second = waits(&limit, 2, 4).unwrap();
        let mut third = waits(&limit, 2, 4).unwrap();
        assert!(waits(&limit, 2, 4).is_none(), "two of four are its share");
        assert!(now(&mut second).is_none());
        greedy.pop();
        let held = now(&mut second).unwrap();
        assert!(take(&limit, 1, 4).is_none() && now(&mut third).is_none());
        // Whoever has none comes before whoever has one, whenever it came.
        let mut late = waits(&limit, 3, 4).unwrap();
        greedy.pop();
        let late = now(&mut late).unwrap();
        assert!(now(&mut third).is_none());
        // One that waits no more takes no place from others.
        drop(third);
        greedy.pop();
        assert!(take(&limit, 1, 4).is_some());
        drop((held, late, greedy));
        assert_eq!((limit.taken(), limit.lock().owners.len()), (0, 0));
    }

    #[test]
    fn each_owner_has_a_share_of_one_at_least() {
        let limit = Arc::<FairLimit>::default();
        let place = take(&limit, 1, 1).unwrap();
        let mut queue: Vec<_> = (2..6).map(|last| waits(&limit, last, 1).unwrap()).collect();
        assert!((1..6).all(|last| waits(&limit, last, 1).is_none()));
        drop(place);
        // In the order in which they came.
        for waiting in &mut queue {
            drop(now(waiting).unwrap());
        }
        assert!(waits(&limit, 1, 0).is_none(), "there are no places at all");
    }

    #[test]
    fn a_place_that_comes_too_late_goes_on_to_the_next() {
        let limit = Arc::<FairLimit>::default();
        let place = take(&limit, 1, 1).unwrap();
        let (first, mut second) = (waits(&limit, 2, 1).unwrap(), waits(&limit, 3, 1).unwrap());
        drop(place);
        assert!(now(&mut second).is_none(), "it is the first one's");
        drop(first);
        assert!(now(&mut second).is_some());
    }

    #[test]
    fn a_place_changes_its_owner() {
        let limit = Arc::<FairLimit>::default();
        let (first, second) = (take(&limit, 1, 2).unwrap(), take(&limit, 1, 2).unwrap());
        assert!(waits(&limit, 1, 2).is_none());
        first.set_owner(None);
        second.set_owner(Some(&owner(2)));
        assert_eq!(limit.taken(), 2, "they are taken all the same");
        let _waiting = waits(&limit, 1, 2).unwrap();
        assert!(waits(&limit, 2, 2).is_none());
    }

    #[test]
    fn a_limit_counts_what_was_taken_before_it() {
        let limit = Arc::<FairLimit>::default();
        let before = take(&limit, 1, u32::MAX).unwrap();
        assert!(take(&limit, 1, 1).is_none());
        drop(before);
        assert!(take(&limit, 1, 1).is_some());
    }

    #[test]
    fn whoever_waits_keeps_to_the_limit_that_it_asked_under() {
        let limit = Arc::<FairLimit>::default();
        let first = take(&limit, 1, 1).unwrap();
        let mut waiting = waits(&limit, 2, 1).unwrap();
        let unlimited = take(&limit, 3, u32::MAX).unwrap();
        let higher = take(&limit, 4, 3).unwrap();
        assert!(now(&mut waiting).is_none());
        // One with a higher limit is served all the same.
        let mut late = waits(&limit, 5, 3).unwrap();
        drop(first);
        assert!(now(&mut waiting).is_none());
        let late = now(&mut late).unwrap();
        drop((unlimited, higher));
        assert!(now(&mut waiting).is_none());
        drop(late);
        assert!(now(&mut waiting).is_some());
    }

    #[test]
    fn a_place_that_is_there_is_found_without_waiting() {
        let limit = Arc::<FairLimit>::default();
        let place = take(&limit, 1, 1).unwrap();
        let mut waiting = waits(&limit, 2, 1).unwrap();
        assert!(waiting.granted_by_now().is_none());
        drop(place);
        assert!(waiting.granted_by_now().is_some());
    }

    /// No place is lost or given twice, and whoever waits is served.
    #[test]
    fn threads_at_once() {
        const THREADS: u8 = 8;
        let limit = Arc::<FairLimit>::default();
        let (taken, start) = (AtomicU32::new(0), Barrier::new(THREADS.into()));
        let served: Vec<u32> = thread::scope(|scope| {
            let one = |last| {
                let (limit, taken, start) = (&limit, &taken, &start);
                scope.spawn(move || {
                    start.wait();
                    let mut served = 0;
                    for round in 0..2000 {
                        let mut place = None;
                        match limit.ask(&owner(last / 2), 3) {
                            Acquisition::Taken(got) => place = Some(got),
                            // Some give up at once.
                            Acquisition::Waits(_) if round % 5 == 0 => {}
                            Acquisition::Waits(mut waiting) => {
                                place = futures_executor(waiting.granted());
                            }
                            Acquisition::Full => {}
                        }
                        if place.is_some() {
                            assert!(taken.fetch_add(1, Ordering::SeqCst) < 3);
                            served += 1;
                            taken.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                    served
                })
            };
            let threads: Vec<_> = (0..THREADS).map(one).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        // Two threads ask for each owner, and one of them may find the owner's share taken each time.
        let owners = served.chunks(2).map(|pair| pair.iter().sum::<u32>());
        assert!(owners.into_iter().all(|served| served > 0), "{served:?}");
        assert_eq!((limit.taken(), limit.is_wanted(), limit.lock().owners.len()), (0, false, 0));
    }

    fn futures_executor<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }
}
