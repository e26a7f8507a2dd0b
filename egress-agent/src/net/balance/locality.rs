//! Which of the endpoints are asked, for where they are ([`ClusterLocality`]).

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use arc_swap::ArcSwapOption;

use crate::policy::{ClusterLocality, Endpoint, GroupHealth, Origin, Preferences};

/// Groups that take turns by themselves; further ones share their turns.
const TURNS: usize = 8;

/// The choice among the groups of a cluster's endpoints.
#[derive(Debug, Default)]
pub(super) struct LocalityBalancer {
    /// What was made for the last rule and place of the gateway.
    last: ArcSwapOption<KnownLocality>,
    /// Points are spread evenly, so that shares are right from the first requests on.
    point: AtomicU64,
    turns: [AtomicUsize; TURNS],
}

#[derive(Debug)]
struct KnownLocality {
    rule: Arc<ClusterLocality>,
    origin: Arc<Origin>,
    preferences: Option<Preferences>,
}

/// Endpoints by group, before those that are ejected are left out.
#[derive(Debug)]
pub(super) struct Groups {
    known: Arc<KnownLocality>,
    health: Vec<GroupHealth>,
}

impl LocalityBalancer {
    /// The groups of these endpoints; `None` where the gateway prefers none.
    pub(super) fn groups(
        &self,
        rule: &Arc<ClusterLocality>,
        origin: &Arc<Origin>,
        all: &[Endpoint],
    ) -> Option<Groups> {
        let known = self.known(rule, origin);
        let preferences = known.preferences.as_ref()?;
        let mut health = vec![GroupHealth::default(); preferences.len()];
        for endpoint in all {
            let group = preferences.group(endpoint.place);
            if let Some(group) = group.and_then(|group| health.get_mut(group)) {
                group.total += 1;
            }
        }
        Some(Groups { known, health })
    }

    fn known(&self, rule: &Arc<ClusterLocality>, origin: &Arc<Origin>) -> Arc<KnownLocality> {
        let last = self.last.load();
        let is_same = |known: &&Arc<KnownLocality>| {
            Arc::ptr_eq(&known.rule, rule) && Arc::ptr_eq(&known.origin, origin)
        };
        if let Some(known) = last.as_ref().filter(is_same) {
            return Arc::clone(known);
        }
        let preferences = rule.preferences(origin);
        let known =
            KnownLocality { rule: Arc::clone(rule), origin: Arc::clone(origin), preferences };
        let known = Arc::new(known);
        self.last.store(Some(Arc::clone(&known)));
        known
    }

    /// Leaves the endpoints of one group, of those that are healthy. What has a hash has the same group each time, as
    /// long as the endpoints stay. Returns whose turns they take.
    pub(super) fn narrow(
        &self,
        groups: Groups,
        healthy: &mut Vec<Endpoint>,
        hash: Option<u64>,
    ) -> Option<&AtomicUsize> {
        /// 2⁶⁴ divided by the golden ratio: its multiples leave no large gap.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let Groups { known, mut health } = groups;
        let preferences = known.preferences.as_ref()?;
        for endpoint in healthy.iter() {
            let group = preferences.group(endpoint.place);
            if let Some(group) = group.and_then(|group| health.get_mut(group)) {
                group.healthy += 1;
            }
        }
        let point = match hash {
            Some(hash) => hash.wrapping_mul(STEP),
            None => self.point.fetch_add(STEP, Ordering::Relaxed),
        };
        let Some(chosen) = preferences.choose(&health, point) else {
            healthy.clear();
            return None;
        };
        healthy.retain(|endpoint| preferences.group(endpoint.place) == Some(chosen));
        self.turns.get(chosen % TURNS)
    }
}
