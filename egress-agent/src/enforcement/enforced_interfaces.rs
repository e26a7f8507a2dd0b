//! Whether enforcement stands for a pod that starts.

use std::{collections::BTreeSet, time::Instant};

use tokio::sync::watch;

use crate::pods::{Announced, ObservedInterfaces, PodUid};

/// What is known of it: the interfaces that were seen, and those whose pods the maps know.
#[derive(Clone, Debug)]
pub(crate) struct EnforcedInterfaces {
    announced: Announced,
    sightings: watch::Receiver<Option<ObservedInterfaces>>,
    in_maps: watch::Receiver<BTreeSet<u32>>,
}

impl EnforcedInterfaces {
    pub(crate) fn new(
        announced: Announced,
        sightings: watch::Receiver<Option<ObservedInterfaces>>,
        in_maps: watch::Receiver<BTreeSet<u32>>,
    ) -> Self {
        Self { announced, sightings, in_maps }
    }

    /// A container runtime has made this network namespace for this pod, of which note is taken. Whether the pod's policy is in force at its
    /// interfaces.
    ///
    /// # Errors
    /// Not yet, and why.
    pub(crate) fn check(&self, pod: &str, namespace: u64) -> Result<(), String> {
        let Some(pod) = PodUid::parse(pod) else { return Err(format!("{pod} is no UID of a pod")) };
        self.announced.announce(Instant::now(), namespace, pod.clone());
        let sightings = self.sightings.borrow();
        let seen = sightings.as_ref().ok_or("the agent has not looked at the interfaces yet")?;
        judge(seen, &self.in_maps.borrow(), &pod, namespace)
    }
}

fn judge(
    seen: &ObservedInterfaces,
    in_maps: &BTreeSet<u32>,
    pod: &PodUid,
    namespace: u64,
) -> Result<(), String> {
    let mut own = seen.interfaces.iter().filter(|one| one.namespace == Some(namespace)).peekable();
    if own.peek().is_none() {
        return Err("no interface of the node leads to the pod yet".into());
    }
    if !seen.cgroups.contains_key(pod) {
        return Err("the pod's cgroup is not there yet".into());
    }
    for one in own {
        if !one.pods.contains(pod) {
            return Err(format!("interface {} is not known to be the pod's", one.name));
        }
        if !in_maps.contains(&one.ifindex) {
            return Err(format!(
                "the API server does not know the pod of interface {} yet, or its policy is not in force",
                one.name
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::ObservedInterface;

    #[test]
    fn it_stands_when_the_maps_know_every_interface_of_the_pod() {
        let uid = |text: &str| PodUid::parse(text).unwrap();
        let own = uid("0f3f1c1e-7a5b-4c3d-9e8f-0123456789ab");
        let other = uid("0f3f1c1e-7a5b-4c3d-9e8f-0123456789ac");
        let sighting = |ifindex: u32, namespace, pods: &[&PodUid]| ObservedInterface {
            ifindex,
            name: format!("veth{ifindex}").into(),
            namespace: Some(namespace),
            pods: pods.iter().map(|pod| (*pod).clone()).collect(),
            addresses: Vec::new(),
        };
        let seen = |interfaces: Vec<ObservedInterface>| ObservedInterfaces {
            cgroups: [(own.clone(), "/kubepods/x".into())].into(),
            interfaces,
        };
        let both: BTreeSet<u32> = [7, 8].into();
        let of_own = || seen(vec![sighting(7, 1, &[&own]), sighting(8, 2, &[&other])]);
        assert_eq!(judge(&of_own(), &both, &own, 1), Ok(()));
        let refused = |seen: &ObservedInterfaces, maps: &BTreeSet<u32>, pod: &PodUid, namespace| {
            judge(seen, maps, pod, namespace).unwrap_err()
        };
        assert!(refused(&of_own(), &[8].into(), &own, 1).contains("API server does not know"));
        assert!(refused(&of_own(), &both, &own, 2).contains("veth8 is not known"));
        assert!(refused(&of_own(), &both, &own, 3).contains("no interface"));
        assert!(refused(&of_own(), &both, &other, 2).contains("cgroup"));
        let two = seen(vec![sighting(7, 1, &[&own]), sighting(8, 1, &[&own])]);
        assert_eq!(judge(&two, &both, &own, 1), Ok(()));
        assert!(refused(&two, &[7].into(), &own, 1).contains("veth8"));
    }
}
