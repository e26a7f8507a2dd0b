//! What differs between two maps.

use std::{cmp::Ordering, collections::BTreeMap};

use egress_ebpf::abi::{Policy, PolicyId, mode};

use crate::bpf::plan::Contents;

/// A change of a map's entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change<K, V> {
    /// Add or overwrite.
    Put(K, V),
    /// Remove.
    Remove(K),
}

impl<K, V> Change<K, V> {
    pub(super) fn key(&self) -> &K {
        match self {
            Self::Put(key, _) | Self::Remove(key) => key,
        }
    }
}

/// An unknown mode enforces.
pub(super) fn enforces(policy: Policy) -> bool {
    !matches!(policy.mode, mode::AUDIT | mode::AUDIT_REDIRECT | mode::EXEMPT)
}

/// The state of an entry that nobody has written.
pub(super) const UNWRITTEN: Policy = Policy { mode: mode::ENFORCE, table: 0 };

/// A policy that isn't there enforces.
pub(super) fn is_strict(contents: &Contents, policy: PolicyId) -> bool {
    enforces(contents.policies.get(&policy).copied().unwrap_or(UNWRITTEN))
}

/// Hands over the keys whose values differ, or that only one side has. One walk along both: where
/// a hundred thousand entries differ in one, it costs no look-ups.
pub(super) fn differences<K: Ord, V: PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    mut each: impl FnMut(&K, Option<&V>, Option<&V>),
) {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((before, _)), Some((after, _))) => before.cmp(after),
        };
        let before = old.next_if(|_| order != Ordering::Greater);
        let after = new.next_if(|_| order != Ordering::Less);
        let (before_value, after_value) = (before.map(|(_, v)| v), after.map(|(_, v)| v));
        if let Some((key, _)) = before.or(after).filter(|_| before_value != after_value) {
            each(key, before_value, after_value);
        }
    }
}
