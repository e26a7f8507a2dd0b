//! How many lines of whom were not written one by one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use egress_ebpf::reason::Reason;

use crate::types::ShareOwner;

/// Workloads and reasons in all that are told apart; the rest is counted for an unknown workload.
/// Names of workloads are the configuration's, never a client's.
const SERIES: usize = 2048;

/// What happened to a line that was not written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LineFate {
    /// The output was too slow or failed.
    Lost,
    /// It is in the count of a line about several refusals for this reason.
    Aggregated(Reason),
}

/// Lines of one workload with the same fate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnwrittenLines {
    /// Namespace and name, if the workload is known.
    pub workload: Option<(Arc<str>, Arc<str>)>,
    /// What happened to them.
    pub fate: LineFate,
    /// How many.
    pub count: u64,
}

type Key = (Option<(Arc<str>, Arc<str>)>, LineFate);

#[derive(Debug, Default)]
pub(super) struct Losses(Mutex<HashMap<Key, u64>>);

impl Losses {
    pub(super) fn lost(&self, owner: &ShareOwner, lines: u64) {
        self.add(owner, LineFate::Lost, lines);
    }

    pub(super) fn aggregated(&self, owner: &ShareOwner, reason: Reason) {
        self.add(owner, LineFate::Aggregated(reason), 1);
    }

    pub(super) fn all(&self) -> Vec<UnwrittenLines> {
        let series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = |((workload, fate), count): (&Key, &u64)| UnwrittenLines {
            workload: workload.clone(),
            fate: *fate,
            count: *count,
        };
        let mut all: Vec<_> = series.iter().map(lines).collect();
        let reason = |fate| match fate {
            LineFate::Lost => None,
            LineFate::Aggregated(reason) => Some(reason as u8),
        };
        all.sort_by(|a, b| (&a.workload, reason(a.fate)).cmp(&(&b.workload, reason(b.fate))));
        all
    }

    fn add(&self, owner: &ShareOwner, fate: LineFate, lines: u64) {
        let workload = match owner {
            ShareOwner::Workload { namespace, name } => {
                Some((Arc::clone(namespace), Arc::clone(name)))
            }
            ShareOwner::Address(_) | ShareOwner::Own => None,
        };
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (workload, fate);
        if let Some(count) = series.get_mut(&key) {
            *count += lines;
            return;
        }
        let key = if series.len() < SERIES { key } else { (None, fate) };
        *series.entry(key).or_default() += lines;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_bounded_and_add_up() {
        let losses = Losses::default();
        for number in 0..SERIES * 2 {
            let name = number.to_string().into();
            losses.lost(&ShareOwner::Workload { namespace: "default".into(), name }, 1);
        }
        losses.lost(&ShareOwner::Address([10, 0, 0, 1].into()), 3);
        losses.aggregated(&ShareOwner::Address([10, 0, 0, 1].into()), Reason::BadRequest);
        let all = losses.all();
        assert_eq!(all.len(), SERIES + 2);
        let lost =
            |lines: &UnwrittenLines| if lines.fate == LineFate::Lost { lines.count } else { 0 };
        assert_eq!(all.iter().map(lost).sum::<u64>(), 2 * 2048 + 3);
        assert_eq!(all.iter().filter(|lines| lines.workload.is_none()).count(), 2);
    }
}
