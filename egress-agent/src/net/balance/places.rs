//! Places under `maxConnections` that idle connections hold.
//!
//! The limit is of the cluster, and idle connections wait in pools of all workers, for all hosts of a
//! wildcard. Whoever has work and finds no place wishes for one; the pools hear of it, and one of them
//! closes an idle connection for it. A wish is made only where there is an idle connection for it, so
//! nobody waits where all connections carry something.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use super::{ClusterState, ClusterStates, Lease, lock};
use crate::policy::{Cluster, ClusterName};

/// The idle connections of a cluster, and who wishes for their places.
#[derive(Debug, Default)]
pub(super) struct Places {
    idle: AtomicUsize,
    /// In the order in which they came; a wish that was given up is dropped by who made it.
    wishes: Mutex<VecDeque<Weak<()>>>,
    /// Who waits for a place. A connection that ends looks here after it has given its place back, and
    /// who waits is here before it looks for a place again: one of the two sees the other.
    waiting: AtomicUsize,
    freed: Notify,
}

/// Somebody who waits for a place.
struct Waiting<'a>(&'a Places);

impl<'a> Waiting<'a> {
    fn at(places: &'a Places) -> Self {
        places.waiting.fetch_add(1, Ordering::SeqCst);
        Self(places)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Places {
    pub(super) fn set_idle(&self, idle: bool) {
        if idle {
            self.idle.fetch_add(1, Ordering::Relaxed);
        } else {
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A connection has ended.
    pub(super) fn freed(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// A wish, if there is an idle connection that nobody else has wished for.
    fn wish(&self) -> Option<Arc<()>> {
        let mut wishes = lock(&self.wishes);
        wishes.retain(|wish| wish.strong_count() > 0);
        if wishes.len() >= self.idle.load(Ordering::Relaxed) {
            return None;
        }
        let wish = Arc::new(());
        wishes.push_back(Arc::downgrade(&wish));
        Some(wish)
    }

    fn grant(&self) -> bool {
        let mut wishes = lock(&self.wishes);
        while let Some(wish) = wishes.pop_front() {
            if wish.strong_count() > 0 {
                return true;
            }
        }
        false
    }
}

impl ClusterStates {
    /// Changes when somebody wishes for a place.
    pub fn wishes(&self) -> watch::Receiver<()> {
        self.wishes.subscribe()
    }

    /// Whether somebody waits for a place in this cluster. If so, an idle connection is to be closed
    /// for that.
    #[must_use]
    pub fn grant(&self, name: &ClusterName) -> bool {
        self.get(name).places.grant()
    }

    /// A place in the cluster; where all are taken, that of an idle connection, which is closed for it
    /// until `deadline`.
    pub(in crate::net) async fn place(
        &self,
        state: &Arc<ClusterState>,
        cluster: &Cluster,
        deadline: Instant,
    ) -> Option<Lease> {
        if let Some(lease) = Lease::take(state, cluster) {
            return Some(lease);
        }
        let _waiting = Waiting::at(&state.places);
        loop {
            let mut freed = pin!(state.places.freed.notified());
            freed.as_mut().enable();
            if let Some(lease) = Lease::take(state, cluster) {
                return Some(lease);
            }
            let _wish = state.places.wish()?;
            self.wishes.send_replace(());
            timeout_at(deadline, freed).await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::tests::cluster, *};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn an_idle_connection_gives_its_place() {
        let (states, cluster) = (ClusterStates::default(), cluster(1, None));
        let state = states.get(&cluster.name);
        let lease = states.place(&state, &cluster, soon()).await.unwrap();
        assert!(states.place(&state, &cluster, soon()).await.is_none(), "it is in use");
        assert!(!states.grant(&cluster.name));
        lease.set_idle(true);
        let mut wishes = states.wishes();
        let waiting = states.place(&state, &cluster, soon());
        let pool = async {
            wishes.changed().await.unwrap();
            assert!(states.grant(&cluster.name));
            assert!(!states.grant(&cluster.name), "one wish, one connection");
            drop(lease);
        };
        let (second, ()) = tokio::join!(waiting, pool);
        assert!(second.is_some());
        assert!(states.place(&state, &cluster, soon()).await.is_none());
    }

    #[tokio::test]
    async fn a_wish_that_was_given_up_closes_nothing() {
        let (states, cluster) = (ClusterStates::default(), cluster(1, None));
        let state = states.get(&cluster.name);
        let lease = states.place(&state, &cluster, soon()).await.unwrap();
        lease.set_idle(true);
        assert!(states.place(&state, &cluster, Instant::now()).await.is_none());
        assert!(!states.grant(&cluster.name));
    }
}
