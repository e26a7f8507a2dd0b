//! The pods of the cluster, by whose addresses a gateway knows the source of a connection.

use tokio::sync::watch;

use crate::{
    pods::ClusterPods,
    source::{Loaded, Merged, Reported},
};

/// The configuration with the cluster's pods as workloads, by their addresses.
pub(super) fn merge(
    mut configured: watch::Receiver<Loaded>,
    mut reported: watch::Receiver<Reported>,
) -> watch::Receiver<Loaded> {
    let (sender, receiver) = watch::channel(Loaded::default());
    tokio::spawn(async move {
        let (mut pods, mut merged) = (ClusterPods::default(), Merged::default());
        loop {
            if let Some(all) = reported.borrow_and_update().clone() {
                pods.replace(all.iter().cloned());
            }
            let loaded = configured.borrow_and_update().clone();
            let workloads = pods.workloads();
            let snapshot = loaded.snapshot.as_ref().map(|of| merged.with(of, &workloads));
            sender.send_if_modified(|old| {
                let news = !old.is_same(&loaded, snapshot.as_ref());
                *old = Loaded { snapshot, ..loaded };
                news
            });
            tokio::select! {
                changed = configured.changed() => if changed.is_err() { return },
                changed = reported.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
    });
    receiver
}
