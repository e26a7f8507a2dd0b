//! What other layers keep for a cluster, so that nothing is looked up by its name for each request.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// What is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandleKind {
    /// What is counted for the cluster.
    Stats,
    /// Load and health of its endpoints.
    State,
}

/// Whose handles they are: a process has one table of each kind, tests have many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandleOwner(u64);

impl Default for HandleOwner {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

/// The handles of one cluster of one configuration, of whoever asked first. A cluster of the next
/// configuration has none yet, and neither has a copy. They are no part of what a cluster is.
#[derive(Default)]
pub struct ClusterHandles([OnceLock<(HandleOwner, Arc<dyn Any + Send + Sync>)>; 2]);

impl ClusterHandles {
    /// The keeper's handle, looked up once.
    pub fn get<T: Any + Send + Sync>(
        &self,
        handle: HandleKind,
        keeper: HandleOwner,
        look_up: impl Fn() -> Arc<T>,
    ) -> Arc<T> {
        let place = match handle {
            HandleKind::Stats => &self.0[0],
            HandleKind::State => &self.0[1],
        };
        let (its, kept) = place.get_or_init(|| (keeper, look_up()));
        let kept = (*its == keeper).then(|| Arc::clone(kept).downcast().ok()).flatten();
        kept.unwrap_or_else(look_up)
    }
}

impl Clone for ClusterHandles {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for ClusterHandles {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for ClusterHandles {}

impl fmt::Debug for ClusterHandles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_looked_up_once_for_who_came_first() {
        let (kept, first, other) =
            (ClusterHandles::default(), HandleOwner::default(), HandleOwner::default());
        let get = |keeper| kept.get(HandleKind::Stats, keeper, || Arc::new(5));
        assert!(Arc::ptr_eq(&get(first), &get(first)));
        assert!(!Arc::ptr_eq(&get(other), &get(first)), "another one's is not taken");
        assert!(!Arc::ptr_eq(&get(other), &get(other)));
        // Each kind has its own, of its own type.
        assert_eq!(*kept.get(HandleKind::State, first, || Arc::new("state")), "state");
        assert_eq!(*get(first), 5);
        let copy = kept.clone();
        assert_eq!(*copy.get(HandleKind::Stats, first, || Arc::new(6)), 6);
        assert_eq!(copy, kept);
    }
}
