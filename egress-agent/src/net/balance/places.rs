//! Places under `maxConnections` and `http2MaxRequests`, and those that idle connections hold.
//!
//! The limits are of the cluster, and idle connections wait in pools of all workers, for all hosts of a
//! wildcard. A source that has work and finds no place wishes for one; the pools hear of it, and one of
//! them closes an idle connection for it. A source that has its share of the places ([`super::fair`]) makes a wish
//! only where there is an idle connection for it, so it does not wait where all connections carry something. One that
//! has less waits for the next place, and for the next connection that carries nothing any more: a connection of HTTP/1
//! looks for wishes when it is given back to its pool, and for one of HTTP/2 they are sent again.

use std::{pin::pin, sync::Arc};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    ClusterState, ClusterStates, FairPermit, Lease, fair::Acquisition, wishes::PlaceWaiter,
};
use crate::{policy::Cluster, types::ShareOwner};

/// What is done where `maxConnections` are taken, and until when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitPolicy {
    /// Nothing.
    None,
    /// An idle connection is closed, and waited for; see [`Lease::set_owner`].
    Idle(Instant),
    /// That, and a source that has less than its share waits for the next place.
    Share(Instant),
}

impl ClusterStates {
    /// Changes when somebody wishes for a place.
    pub fn wishes(&self) -> watch::Receiver<()> {
        self.wishes.subscribe()
    }

    /// Whether somebody waits for a place in this cluster. If so, an idle connection is to be closed
    /// for that.
    #[must_use]
    pub fn grant(&self, cluster: &Cluster) -> bool {
        self.of(cluster).places.grant()
    }

    /// A place among the requests that may be under way to the cluster; `None` if all are taken. A source that
    /// has less than its share waits for one, for `connectTimeout` at most. See [`Self::unlimited_request`].
    pub async fn request_place(&self, cluster: &Cluster, owner: &ShareOwner) -> Option<FairPermit> {
        let limit = &self.of(cluster).requests;
        match limit.ask(owner, cluster.pool.max_requests) {
            Acquisition::Taken(place) => Some(place),
            Acquisition::Full => None,
            Acquisition::Waits(mut waiting) => {
                let deadline = Instant::now() + cluster.pool.connect_timeout;
                timeout_at(deadline, waiting.granted()).await.ok()?
            }
        }
    }

    /// A place among the requests of a cluster that has no limit of them: a rule of the same cluster that has one
    /// counts it.
    #[must_use]
    pub fn unlimited_request(&self, cluster: &Cluster) -> FairPermit {
        self.of(cluster).requests.unlimited()
    }

    /// A place in the cluster; where all are taken, what `patience` says.
    pub(in crate::net) async fn place(
        &self,
        state: &Arc<ClusterState>,
        cluster: &Cluster,
        owner: &ShareOwner,
        patience: WaitPolicy,
    ) -> Option<Lease> {
        let (limit, max) = (&state.connections, cluster.pool.max_connections);
        let lease = |place| Lease::new(state, cluster, place);
        let (mut waiting, has_less, deadline) = match patience {
            WaitPolicy::None => return limit.take(owner, max).map(lease),
            WaitPolicy::Idle(deadline) => match limit.take(owner, max) {
                Some(place) => return Some(lease(place)),
                None => (limit.wait(owner, max), false, deadline),
            },
            WaitPolicy::Share(deadline) => match limit.ask(owner, max) {
                Acquisition::Taken(place) => return Some(lease(place)),
                Acquisition::Waits(waiting) => (waiting, true, deadline),
                Acquisition::Full => (limit.wait(owner, max), false, deadline),
            },
        };
        let _waiting = PlaceWaiter::at(&state.places);
        let mut wish = None;
        let mut idled = pin!(state.places.idled.notified());
        idled.as_mut().enable();
        loop {
            let mut freed = pin!(state.places.freed.notified());
            freed.as_mut().enable();
            // One that was granted may have been for whoever came first.
            if wish.as_ref().is_none_or(|wish| Arc::weak_count(wish) == 0) {
                let made = if has_less { Some(state.places.claim()) } else { state.places.wish() };
                let Some(made) = made else {
                    // Nothing to wait for; but a place may have come before this.
                    return waiting.granted_by_now().map(lease);
                };
                wish = Some(made);
                self.wishes.send_replace(());
            }
            tokio::select! {
                biased;
                place = waiting.granted() => return place.map(lease),
                () = freed => {}
                () = idled.as_mut() => {
                    idled.set(state.places.idled.notified());
                    idled.as_mut().enable();
                    // The pool that has it looks again.
                    self.wishes.send_replace(());
                }
                () = sleep_until(deadline) => return None,
            }
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
        let state = states.of(&cluster);
        let lease = states
            .place(&state, &cluster, &ShareOwner::Own, WaitPolicy::Share(soon()))
            .await
            .unwrap();
        assert!(
            states
                .place(&state, &cluster, &ShareOwner::Own, WaitPolicy::Share(soon()))
                .await
                .is_none(),
            "it is in use"
        );
        assert!(!states.grant(&cluster));
        lease.set_owner(None);
        let mut wishes = states.wishes();
        let waiting = states.place(&state, &cluster, &ShareOwner::Own, WaitPolicy::Share(soon()));
        let pool = async {
            wishes.changed().await.unwrap();
            assert!(states.grant(&cluster));
            assert!(!states.grant(&cluster), "one wish, one connection");
            drop(lease);
        };
        let (second, ()) = tokio::join!(waiting, pool);
        assert!(second.is_some());
        assert!(
            states
                .place(&state, &cluster, &ShareOwner::Own, WaitPolicy::Share(soon()))
                .await
                .is_none()
        );
    }

    #[tokio::test]
    async fn whoever_waits_asks_again_when_a_connection_becomes_idle() {
        let (states, cluster) = (ClusterStates::default(), cluster(1, None));
        let state = states.of(&cluster);
        let lease = states
            .place(&state, &cluster, &ShareOwner::Own, WaitPolicy::Share(soon()))
            .await
            .unwrap();
        let other = ShareOwner::of(None, [192, 0, 2, 1].into());
        let waiting = states.place(&state, &cluster, &other, WaitPolicy::Share(soon()));
        let mut wishes = states.wishes();
        let pool = async {
            wishes.changed().await.unwrap();
            // It carries something yet.
            lease.set_owner(None);
            wishes.changed().await.unwrap();
            assert!(states.grant(&cluster));
            drop(lease);
        };
        let (second, ()) = tokio::join!(waiting, pool);
        assert!(second.is_some());
    }

    #[tokio::test]
    async fn a_wish_that_was_given_up_closes_nothing() {
        let (states, cluster) = (ClusterStates::default(), cluster(1, None));
        let state = states.of(&cluster);
        let lease = states
            .place(&state, &cluster, &ShareOwner::Own, WaitPolicy::Share(soon()))
            .await
            .unwrap();
        lease.set_owner(None);
        assert!(
            states
                .place(&state, &cluster, &ShareOwner::Own, WaitPolicy::Share(Instant::now()))
                .await
                .is_none()
        );
        assert!(!states.grant(&cluster));
    }
}
