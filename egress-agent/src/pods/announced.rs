//! Pods that a container runtime has announced before they have a process: the network plug-in knows which network
//! namespace it has just given to which pod.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::PodUid;

/// For how long an announcement holds: until the sandbox has a process, which shows the same.
const HOLDS: Duration = Duration::from_secs(120);
/// Namespaces that are announced at a time: no node starts more pods at once.
const MOST: usize = 1024;

/// Network namespaces, by their inodes, with the pods that they are for. Shared by who announces and who looks.
#[derive(Clone, Debug, Default)]
pub struct Announced(Arc<Mutex<BTreeMap<u64, (PodUid, Instant)>>>);

impl Announced {
    /// A namespace is for this pod. The first word counts for as long as it holds.
    pub fn announce(&self, now: Instant, namespace: u64, pod: PodUid) {
        let mut all = self.all();
        all.retain(|_, (_, at)| now.duration_since(*at) < HOLDS);
        if all.len() < MOST {
            all.entry(namespace).or_insert((pod, now));
        }
    }

    /// The pod that a namespace is for.
    #[must_use]
    pub fn pod(&self, now: Instant, namespace: u64) -> Option<PodUid> {
        let all = self.all();
        let (pod, at) = all.get(&namespace)?;
        (now.duration_since(*at) < HOLDS).then(|| pod.clone())
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, (PodUid, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::uid;

    #[test]
    fn a_namespace_is_for_the_first_pod_that_is_announced_for_a_while() {
        let (announced, now) = (Announced::default(), Instant::now());
        announced.announce(now, 7, uid(1));
        announced.announce(now, 7, uid(2));
        assert_eq!(announced.pod(now, 7), Some(uid(1)));
        assert_eq!(announced.pod(now, 8), None);
        assert_eq!(announced.pod(now + HOLDS, 7), None);
        announced.announce(now + HOLDS, 7, uid(2));
        assert_eq!(announced.pod(now + HOLDS, 7), Some(uid(2)));
        for namespace in 0..5000 {
            announced.announce(now + HOLDS, namespace, uid(3));
        }
        assert_eq!(announced.all().len(), MOST);
    }
}
