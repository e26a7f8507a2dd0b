//! The node's certificates: those that its tunnels show, kept equal to the configuration and to their
//! source.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    policy::Snapshot,
    source::Loaded,
    tls::{CredentialLocations, Credentials},
};

/// Follows configuration, files and Workload API, for as long as the runtime lives.
pub(super) fn follow(
    places: CredentialLocations,
    loaded: watch::Receiver<Loaded>,
) -> Arc<Credentials> {
    let credentials = Arc::new(Credentials::new(places));
    let following = Arc::clone(&credentials);
    tokio::spawn(async move { tokio::join!(following.watch(), configure(&following, loaded)) });
    credentials
}

async fn configure(credentials: &Credentials, mut loaded: watch::Receiver<Loaded>) {
    let mut before: Option<Arc<Snapshot>> = None;
    loop {
        let snapshot = loaded.borrow_and_update().snapshot.clone();
        if let Some(snapshot) = snapshot
            && before.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &snapshot))
        {
            let groups = &snapshot.mesh.gateways;
            let tunnels: Vec<_> = groups.iter().filter_map(|group| group.tunnel.clone()).collect();
            credentials.configure([], tunnels).await;
            before = Some(snapshot);
        }
        if loaded.changed().await.is_err() {
            // The agent ends.
            return;
        }
    }
}
