//! Names that have no address, for a moment. Time is passed in.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::error::ResolveError;
use crate::types::ShareOwner;

/// A name that does not exist may be made at any time.
const ABSENT: Duration = Duration::from_secs(2);
/// A failure is no answer: whether the name exists is unknown.
const FAILURE: Duration = Duration::from_secs(1);
/// Owners in all; beyond them nothing is remembered.
const OWNERS: usize = 1024;

/// Negative answers of each owner apart, of 1024 owners. An owner has so many names, and its oldest goes
/// first.
#[derive(Debug)]
pub(super) struct Negative {
    owners: HashMap<ShareOwner, VecDeque<(Arc<str>, ResolveError, Instant)>>,
    names: usize,
}

impl Negative {
    /// For so many names of each owner.
    pub(super) fn new(names: usize) -> Self {
        Self { owners: HashMap::new(), names }
    }

    pub(super) fn get(&self, now: Instant, owner: &ShareOwner, name: &str) -> Option<ResolveError> {
        let names = self.owners.get(owner)?;
        let found = names.iter().find(|(its, _, until)| **its == *name && now < *until)?;
        Some(found.1.clone())
    }

    pub(super) fn insert(
        &mut self,
        now: Instant,
        owner: &ShareOwner,
        name: &Arc<str>,
        why: ResolveError,
    ) {
        let life = if why.is_about_the_name() { ABSENT } else { FAILURE };
        if self.owners.len() >= OWNERS && !self.owners.contains_key(owner) {
            self.owners.retain(|_, names| names.back().is_some_and(|(.., until)| now < *until));
            if self.owners.len() >= OWNERS {
                return;
            }
        }
        let names = self.owners.entry(owner.clone()).or_default();
        names.retain(|(its, _, until)| its != name && now < *until);
        if names.len() >= self.names {
            names.pop_front();
        }
        names.push_back((Arc::clone(name), why, now + life));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(number: u32) -> ShareOwner {
        ShareOwner::Address(std::net::Ipv4Addr::from(number).into())
    }

    #[test]
    fn a_failure_is_forgotten_after_a_moment_and_each_owner_has_its_own() {
        let start = Instant::now();
        let mut negative = Negative::new(64);
        let (absent, dead): (Arc<str>, Arc<str>) = ("absent.example".into(), "dead.example".into());
        negative.insert(start, &owner(1), &absent, ResolveError::NoSuchName);
        negative.insert(start, &owner(1), &dead, ResolveError::Timeout);
        let get = |negative: &Negative, after: Duration, who, name: &str| {
            negative.get(start + after, &owner(who), name)
        };
        assert_eq!(get(&negative, Duration::ZERO, 1, &dead), Some(ResolveError::Timeout));
        assert_eq!(get(&negative, FAILURE, 1, &dead), None);
        assert_eq!(get(&negative, FAILURE, 1, &absent), Some(ResolveError::NoSuchName));
        assert_eq!(get(&negative, ABSENT, 1, &absent), None);
        assert_eq!(get(&negative, Duration::ZERO, 2, &absent), None);
        // One with many names pushes out its own alone.
        negative.insert(start, &owner(2), &absent, ResolveError::NoSuchName);
        for number in 0..64 {
            let name = number.to_string().into();
            negative.insert(start, &owner(1), &name, ResolveError::NoSuchName);
        }
        assert_eq!(get(&negative, Duration::ZERO, 1, &absent), None);
        assert!(get(&negative, Duration::ZERO, 2, &absent).is_some());
    }

    #[test]
    fn owners_are_bounded_and_make_room_when_their_names_are_over() {
        let start = Instant::now();
        let mut negative = Negative::new(64);
        let name: Arc<str> = "absent.example".into();
        for number in 0..2 * u32::try_from(OWNERS).unwrap() {
            negative.insert(start, &owner(number), &name, ResolveError::NoSuchName);
        }
        assert_eq!(negative.owners.len(), OWNERS);
        negative.insert(start + ABSENT, &owner(0xffff), &name, ResolveError::NoSuchName);
        assert_eq!(negative.owners.len(), 1);
    }
}
