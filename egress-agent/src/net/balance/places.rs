//! Places under `maxConnections` that idle connections hold.
//!
//! The limit is of the cluster, and idle connections wait in pools of all workers, for all hosts of a
//! wildcard. Whoever has work and finds no place wishes for one; the pools hear of it, and one of them
//! closes an idle connection for it. A wish is made only where there is an idle connection for it, so
//! nobody waits where all connections carry something.

use std::{pin::pin, sync::Arc};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{ClusterState, ClusterStates, Lease, wishes::Waiting};
use crate::policy::Cluster;

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
        let state = states.of(&cluster);
        let lease = states.place(&state, &cluster, soon()).await.unwrap();
        assert!(states.place(&state, &cluster, soon()).await.is_none(), "it is in use");
        assert!(!states.grant(&cluster));
        lease.set_idle(true);
        let mut wishes = states.wishes();
        let waiting = states.place(&state, &cluster, soon());
        let pool = async {
            wishes.changed().await.unwrap();
            assert!(states.grant(&cluster));
            assert!(!states.grant(&cluster), "one wish, one connection");
            drop(lease);
        };
        let (second, ()) = tokio::join!(waiting, pool);
        assert!(second.is_some());
        assert!(states.place(&state, &cluster, soon()).await.is_none());
    }

    #[tokio::test]
    async fn a_wish_that_was_given_up_closes_nothing() {
        let (states, cluster) = (ClusterStates::default(), cluster(1, None));
        let state = states.of(&cluster);
        let lease = states.place(&state, &cluster, soon()).await.unwrap();
        lease.set_idle(true);
        assert!(states.place(&state, &cluster, Instant::now()).await.is_none());
        assert!(!states.grant(&cluster));
    }
}
