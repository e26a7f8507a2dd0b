//! The pods of this node, now: combines what the API server reports, if there is one, with what the kernel
//! shows, and publishes the configuration with the pods in it.

use std::{
    collections::BTreeMap, future::pending, net::IpAddr, path::PathBuf, sync::Arc, time::SystemTime,
};

use egress_ebpf::abi::{PolicyId, UNKNOWN_POLICY};
use tokio::sync::watch;

use super::observe::{self, ObservedTargets};
use crate::{
    pods::{Announced, ObservedInterfaces, Table, UnknownInterface},
    source::{Loaded, Merged, Reported},
    types::printable,
};

/// Interfaces by index: their names, and the addresses that the options give them.
pub(crate) type Interfaces = BTreeMap<u32, (String, Vec<IpAddr>)>;

/// What the reconciler sees of the pods.
pub(crate) struct KnownPods {
    wanted: watch::Sender<ObservedTargets>,
    /// Interfaces whose pods are not known.
    pub(crate) unknown: watch::Receiver<Vec<UnknownInterface>>,
    /// The addresses that interfaces were first seen with, by index.
    pub(super) seen: watch::Receiver<PodAddressesByInterface>,
    /// What was seen of the pods last.
    pub(crate) sightings: watch::Receiver<Option<ObservedInterfaces>>,
    /// Whether there is an API server, which knows every pod.
    has_api_server: bool,
}

/// The policy of workloads that are in no set of their own.
const DEFAULT_POLICY: PolicyId = 0;

/// The policy of processes in enforced cgroups that no workload names: with an API server they are of a pod that is
/// not known yet.
pub(crate) const fn unnamed_policy(has_api_server: bool) -> PolicyId {
    if has_api_server { UNKNOWN_POLICY } else { DEFAULT_POLICY }
}

/// Addresses of pods by the indices of their interfaces.
pub(super) type PodAddressesByInterface = BTreeMap<u32, Vec<IpAddr>>;

impl KnownPods {
    /// Starts looking. `configured` is the configuration; the receiver that is returned has the pods
    /// in it too. `reported` is absent without an API server. `roots`: cgroups below which pods are looked
    /// for, below the cgroup2 mount. `interfaces` are those that are there at the start.
    /// `announced`: what a container runtime says of namespaces without a process.
    pub(crate) fn start(
        configured: watch::Receiver<Loaded>,
        reported: Option<watch::Receiver<Reported>>,
        roots: Vec<PathBuf>,
        interfaces: &Interfaces,
        announced: Announced,
    ) -> (Self, watch::Receiver<Loaded>) {
        let (wanted, sightings) = observe::spawn(
            ObservedTargets { interfaces: without_addresses(interfaces), roots },
            announced,
        );
        let (loaded, receiver) = watch::channel(Loaded::default());
        let (unknown_sender, unknown) = watch::channel(Vec::new());
        let (seen_sender, seen) = watch::channel(PodAddressesByInterface::new());
        let has_api_server = reported.is_some();
        let last = sightings.clone();
        let merger = Merger {
            configured,
            reported,
            sightings,
            loaded,
            unknown: unknown_sender,
            seen: seen_sender,
        };
        tokio::spawn(merger.run());
        (Self { wanted, unknown, seen, sightings: last, has_api_server }, receiver)
    }

    /// The pods' interfaces that there are now.
    pub(super) fn want(&self, interfaces: &Interfaces) {
        let names = without_addresses(interfaces);
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.interfaces != names;
            wanted.interfaces = names;
            changed
        });
    }

    /// See [`unnamed_policy`].
    pub(super) const fn unnamed(&self) -> PolicyId {
        unnamed_policy(self.has_api_server)
    }

    /// A sentence for each interface whose pod is not known. `audited`: they are in audit mode.
    pub(super) fn warnings(&self, audited: bool) -> Vec<String> {
        let warning = |one| warning(one, self.has_api_server, audited);
        self.unknown.borrow().iter().map(warning).collect()
    }
}

/// Those that the options give no addresses: only they need a look.
fn without_addresses(interfaces: &Interfaces) -> BTreeMap<u32, Arc<str>> {
    let unnamed = interfaces.iter().filter(|(_, (_, addresses))| addresses.is_empty());
    unnamed.map(|(index, (name, _))| (*index, name.as_str().into())).collect()
}

fn warning(interface: &UnknownInterface, has_api_server: bool, audited: bool) -> String {
    let since = jiff::Timestamp::try_from(interface.since)
        .map_or_else(|_| "its first look".to_owned(), |since| format!("{since:.0}"));
    let pod = match &interface.pod {
        Some(pod) => format!("the API server does not know its pod {pod}"),
        None if has_api_server => "no pod is found behind it".to_owned(),
        None => "no workload names it".to_owned(),
    };
    let denied = if interface.addresses.is_empty() {
        "everything from it"
    } else {
        "what it sends out of the cluster"
    };
    let outcome = if audited { "only reported, in audit mode," } else { "denied" };
    let name = printable(&interface.name);
    format!("interface {name}: {pod}; {denied} is {outcome} since {since}")
}

/// Keeps what is published equal to what is known.
struct Merger {
    configured: watch::Receiver<Loaded>,
    reported: Option<watch::Receiver<Reported>>,
    sightings: watch::Receiver<Option<ObservedInterfaces>>,
    loaded: watch::Sender<Loaded>,
    unknown: watch::Sender<Vec<UnknownInterface>>,
    seen: watch::Sender<PodAddressesByInterface>,
}

impl Merger {
    async fn run(mut self) {
        let mut table = Table::default();
        let mut merged = Merged::default();
        // Before both the API server and the kernel have reported, every pod would be unknown: what an
        // earlier agent left in the kernel's maps stays until then.
        let (mut listed, mut seen) = (self.reported.is_none(), false);
        loop {
            let loaded = self.configured.borrow_and_update().clone();
            self.publish_seen(&table);
            if listed && seen {
                self.publish_unknown(&table, &loaded);
            }
            let workloads = table.workloads();
            let snapshot = loaded.snapshot.as_ref().filter(|_| listed && seen);
            let snapshot = snapshot.map(|of| merged.with(of, &workloads));
            self.loaded.send_if_modified(|old| {
                let changed = !old.is_same(&loaded, snapshot.as_ref());
                *old = Loaded { snapshot, ..loaded };
                changed
            });
            tokio::select! {
                changed = self.configured.changed() => if changed.is_err() { return },
                changed = self.sightings.changed() => {
                    if changed.is_err() { return }
                    if let Some(sightings) = self.sightings.borrow_and_update().clone() {
                        table.see(SystemTime::now(), sightings);
                        seen = true;
                    }
                }
                reported = next(&mut self.reported) => {
                    let Ok(reported) = reported else { return };
                    if let Some(pods) = reported {
                        table.list(pods.iter().cloned());
                        listed = true;
                    }
                }
                () = self.loaded.closed() => return,
            }
        }
    }

    fn publish_seen(&self, table: &Table) {
        let now: PodAddressesByInterface = table.addresses_seen().collect();
        self.seen.send_if_modified(|old| {
            let changed = *old != now;
            *old = now;
            changed
        });
    }

    fn publish_unknown(&self, table: &Table, loaded: &Loaded) {
        let named = |one: &UnknownInterface| {
            let mut all = loaded.snapshot.iter().flat_map(|snapshot| &snapshot.mesh.workloads);
            all.any(|workload| workload.interface.as_ref() == Some(&one.name))
        };
        self.unknown.send_if_modified(|old| {
            let mut now = table.unknown();
            now.retain(|one| !named(one));
            let changed = *old != now;
            *old = now;
            changed
        });
    }
}

/// What the API server reports next; never anything without one.
async fn next(
    reported: &mut Option<watch::Receiver<Reported>>,
) -> Result<Reported, watch::error::RecvError> {
    let Some(receiver) = reported else { return pending().await };
    receiver.changed().await?;
    Ok(receiver.borrow_and_update().clone())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::{
        pods::{ObservedInterface, Pod, PodUid},
        policy::Snapshot,
        types::Namespace,
    };

    const UID: &str = "0f3f1c1e-7a5b-4c3d-9e8f-0123456789ab";

    fn pod() -> Pod {
        Pod {
            uid: PodUid::parse(UID).unwrap(),
            namespace: Namespace("shop".into()),
            name: "web-0".into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            service_account: "default".into(),
            node: Some("node-1".into()),
            host_network: false,
            finished: false,
            addresses: Vec::new(),
        }
    }

    fn sightings() -> ObservedInterfaces {
        let uid = PodUid::parse(UID).unwrap();
        ObservedInterfaces {
            cgroups: [(uid.clone(), format!("/kubepods/pod{UID}").into())].into(),
            interfaces: vec![ObservedInterface {
                ifindex: 7,
                name: "veth7".into(),
                namespace: Some(1),
                pods: [uid].into(),
                addresses: vec!["10.0.0.1".parse().unwrap()],
            }],
        }
    }

    /// With a configuration alone no pod is judged: an agent that restarts must not cut off every pod until it
    /// has looked.
    #[tokio::test]
    async fn nothing_is_in_force_before_api_server_and_kernel_have_reported() {
        let accepted = || Loaded {
            snapshot: Some(Arc::new(Snapshot::default())),
            accepted: 1,
            ..Loaded::default()
        };
        for (listed, seen) in [(false, false), (true, false), (false, true), (true, true)] {
            let (_configured, configured) = watch::channel(accepted());
            let (list, reported) = watch::channel(None);
            let (see, sightings_receiver) = watch::channel(None);
            let (loaded, mut receiver) = watch::channel(Loaded::default());
            let (unknown, unknown_receiver) = watch::channel(Vec::new());
            let merger = Merger {
                configured,
                reported: Some(reported),
                sightings: sightings_receiver,
                loaded,
                unknown,
                seen: watch::channel(PodAddressesByInterface::new()).0,
            };
            tokio::spawn(merger.run());
            if listed {
                list.send_replace(Some(Arc::new(vec![pod()])));
            }
            if seen {
                see.send_replace(Some(sightings()));
            }
            if listed && seen {
                let known = receiver.wait_for(|loaded| loaded.snapshot.is_some());
                let known = timeout(Duration::from_secs(20), known).await.unwrap().unwrap().clone();
                let workload = &known.snapshot.unwrap().mesh.workloads[0];
                assert_eq!(
                    (&*workload.name, workload.interface.as_deref()),
                    ("web-0", Some("veth7"))
                );
                assert!(unknown_receiver.borrow().is_empty());
            } else {
                // The configuration was taken; what there is of pods was too, as far as it was sent.
                let taken = receiver.wait_for(|loaded| loaded.accepted == 1);
                drop(timeout(Duration::from_secs(20), taken).await.unwrap().unwrap());
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                assert!(receiver.borrow().snapshot.is_none(), "{listed} {seen}");
                assert!(unknown_receiver.borrow().is_empty(), "nobody is judged unknown");
            }
        }
    }

    /// Without an API server the first look is enough, and an interface is unknown that no workload names.
    #[tokio::test]
    async fn without_an_api_server_only_the_kernel_is_waited_for() {
        let loaded = Loaded {
            snapshot: Some(Arc::new(Snapshot::default())),
            accepted: 1,
            ..Loaded::default()
        };
        let (_configured, configured) = watch::channel(loaded);
        let (see, sightings_receiver) = watch::channel(None);
        let (loaded, mut receiver) = watch::channel(Loaded::default());
        let (unknown, unknown_receiver) = watch::channel(Vec::new());
        let (seen, seen_receiver) = watch::channel(PodAddressesByInterface::new());
        let merger = Merger {
            configured,
            reported: None,
            sightings: sightings_receiver,
            loaded,
            unknown,
            seen,
        };
        tokio::spawn(merger.run());
        let taken = receiver.wait_for(|loaded| loaded.accepted == 1);
        assert!(timeout(Duration::from_secs(20), taken).await.unwrap().unwrap().snapshot.is_none());
        see.send_replace(Some(sightings()));
        let looked = receiver.wait_for(|loaded| loaded.snapshot.is_some());
        drop(timeout(Duration::from_secs(20), looked).await.unwrap().unwrap());
        assert_eq!(unknown_receiver.borrow().len(), 1);
        let addresses = vec!["10.0.0.1".parse().unwrap()];
        assert_eq!(*seen_receiver.borrow(), PodAddressesByInterface::from([(7, addresses)]));
    }

    #[test]
    fn a_warning_says_what_an_unknown_interface_cannot_reach() {
        let interface = |addresses: Vec<IpAddr>| UnknownInterface {
            ifindex: 7,
            name: "veth7".into(),
            since: SystemTime::UNIX_EPOCH,
            pod: None,
            addresses,
        };
        let seen = interface(vec!["10.0.0.1".parse().unwrap()]);
        let since = "since 1970-01-01T00:00:00Z";
        for (interface, has_api_server, audited, expected) in [
            (
                &seen,
                true,
                false,
                "no pod is found behind it; what it sends out of the cluster is denied",
            ),
            (
                &seen,
                false,
                true,
                "no workload names it; what it sends out of the cluster is only reported, in audit mode,",
            ),
            (
                &interface(Vec::new()),
                true,
                false,
                "no pod is found behind it; everything from it is denied",
            ),
        ] {
            let expected = format!("interface veth7: {expected} {since}");
            assert_eq!(warning(interface, has_api_server, audited), expected);
        }
    }

    #[test]
    fn only_interfaces_without_given_addresses_are_looked_at() {
        let given = vec!["10.0.0.1".parse().unwrap()];
        let interfaces =
            [(7, ("veth7".to_owned(), Vec::new())), (8, ("veth8".to_owned(), given))].into();
        assert_eq!(without_addresses(&interfaces), [(7, "veth7".into())].into());
    }
}
