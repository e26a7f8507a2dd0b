//! Items by the hosts that they are for, found without asking each of them.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
};

use super::hosts::{HostPattern, HostTable, parents};
use crate::types::{Host, steps};

/// Items by [`HostPattern`]. Those that have hosts in common with a pattern are found with one hash a
/// label and one step an item.
///
/// Items are added in ascending order: then every list is in that order too.
#[derive(Clone, Debug)]
pub struct HostIndex<T> {
    /// By their own pattern.
    at: HostTable<Vec<T>>,
    /// By each name above their own: what `*.` and that name covers.
    below: HashMap<Box<str>, Vec<T>>,
    /// What `*` covers, without its own.
    named: Vec<T>,
    /// By their names, reversed: what `*name` covers is a range.
    reversed: BTreeMap<Box<str>, Vec<T>>,
}

impl<T> Default for HostIndex<T> {
    fn default() -> Self {
        Self {
            at: HostTable::default(),
            below: HashMap::new(),
            named: Vec::new(),
            reversed: BTreeMap::new(),
        }
    }
}

impl<T: Copy + Ord> HostIndex<T> {
    /// Adds an item; one that has several patterns is added once for each.
    pub fn add(&mut self, pattern: &HostPattern, item: T) {
        push(self.at.entry(pattern), item);
        let name = match pattern {
            HostPattern::Any => return,
            HostPattern::Exact(Host::Ip(_)) => None,
            HostPattern::Exact(Host::Name(name))
            | HostPattern::Below(name)
            | HostPattern::Ending(name) => Some(name),
        };
        push(&mut self.named, item);
        if let Some(key) = reversed(pattern) {
            push(self.reversed.entry(key).or_default(), item);
        }
        for above in name.into_iter().flat_map(|name| parents(name)) {
            match self.below.get_mut(above) {
                Some(items) => push(items, item),
                None => drop(self.below.insert(above.into(), vec![item])),
            }
        }
    }

    /// The items of exactly this pattern.
    #[must_use]
    pub fn at(&self, pattern: &HostPattern) -> &[T] {
        steps::count(1);
        counted(self.at.at(pattern).map_or(&[], Vec::as_slice))
    }

    /// The first item of the most specific pattern that covers this one.
    #[must_use]
    pub fn narrowest(&self, pattern: &HostPattern) -> Option<T> {
        steps::count(1);
        self.at.covering(pattern).next()?.first().copied()
    }

    /// The items of all patterns that cover this one, a list for each, the most specific first.
    pub fn covering<'t, 'p>(
        &'t self,
        pattern: &'p HostPattern,
    ) -> impl Iterator<Item = &'t [T]> + use<'t, 'p, T> {
        steps::count(1);
        self.at.covering(pattern).map(|items| counted(items))
    }

    /// The items that have a host in common with the pattern, in ascending order.
    #[must_use]
    pub fn meeting(&self, pattern: &HostPattern) -> Vec<T> {
        let mut found: Vec<T> = self.covering(pattern).flatten().copied().collect();
        let covering = found.len();
        let mut lists = 0;
        for items in self.below(pattern) {
            found.extend(counted(items));
            lists += 1;
        }
        if covering > 0 || lists > 1 {
            found.sort_unstable();
            found.dedup();
        }
        found
    }

    /// The same for any of several patterns.
    #[must_use]
    pub fn meeting_any(&self, patterns: &[HostPattern]) -> Vec<T> {
        let mut found: Vec<T> = patterns.iter().flat_map(|one| self.meeting(one)).collect();
        if patterns.len() > 1 {
            found.sort_unstable();
            found.dedup();
        }
        found
    }

    /// The least that has a host in common with the pattern.
    #[must_use]
    pub fn first_meeting(&self, pattern: &HostPattern) -> Option<T> {
        steps::count(1);
        let lists = self.at.covering(pattern).map(Vec::as_slice);
        lists.chain(self.below(pattern)).filter_map(|items| items.first()).min().copied()
    }

    /// Whether there is any.
    #[must_use]
    pub fn meets(&self, pattern: &HostPattern) -> bool {
        self.first_meeting(pattern).is_some()
    }

    /// Whether a pattern covers this one.
    #[must_use]
    pub fn covers(&self, pattern: &HostPattern) -> bool {
        steps::count(1);
        self.at.covering(pattern).next().is_some()
    }

    /// What the pattern covers, without its own.
    fn below<'t, 'p>(
        &'t self,
        pattern: &'p HostPattern,
    ) -> impl Iterator<Item = &'t [T]> + use<'t, 'p, T> {
        let (one, ending) = match pattern {
            HostPattern::Exact(_) => (None, None),
            HostPattern::Below(suffix) => (self.below.get(&**suffix), None),
            HostPattern::Ending(_) => (None, reversed(pattern)),
            HostPattern::Any => (Some(&self.named), None),
        };
        let range = ending.into_iter().flat_map(move |key| {
            let from = (Bound::Excluded(key.clone()), Bound::Unbounded);
            let all = self.reversed.range::<Box<str>, _>(from);
            all.take_while(move |(name, _)| name.starts_with(&*key)).map(|(_, items)| items)
        });
        one.into_iter().chain(range).map(Vec::as_slice)
    }
}

/// A pattern's name from its end to its beginning; with a dot at the end where names below it are meant.
fn reversed(pattern: &HostPattern) -> Option<Box<str>> {
    match pattern {
        HostPattern::Exact(Host::Name(name)) | HostPattern::Ending(name) => {
            Some(name.chars().rev().collect())
        }
        HostPattern::Below(name) => Some(name.chars().rev().chain(['.']).collect()),
        HostPattern::Exact(Host::Ip(_)) | HostPattern::Any => None,
    }
}

/// An item that has several patterns is in each list once.
fn push<T: PartialEq>(items: &mut Vec<T>, item: T) {
    if items.last() != Some(&item) {
        items.push(item);
    }
}

fn counted<T>(items: &[T]) -> &[T] {
    steps::count(items.len());
    items
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn patterns() -> impl Strategy<Value = HostPattern> {
        let texts = [
            "*",
            "a.example",
            "b.a.example",
            "*.a.example",
            "*.example",
            "*.b.a.example",
            "b.example",
            "192.0.2.1",
            "example",
            "*a.example",
            "*example",
            "*-a.example",
            "b-a.example",
        ];
        select(texts.to_vec()).prop_map(|text| HostPattern::parse(text).unwrap())
    }

    proptest! {
        #[test]
        fn the_index_answers_as_its_items_do(
            items in vec(vec(patterns(), 1..4), 0..6), asked in patterns(),
        ) {
            let mut index = HostIndex::default();
            for (item, hosts) in items.iter().enumerate() {
                hosts.iter().for_each(|host| index.add(host, item));
            }
            let those = |has: &dyn Fn(&HostPattern) -> bool| -> Vec<usize> {
                let all = items.iter().enumerate();
                all.filter(|(_, hosts)| hosts.iter().any(has)).map(|(item, _)| item).collect()
            };
            let meeting = those(&|host| host.intersect(&asked).is_some());
            prop_assert_eq!(index.first_meeting(&asked), meeting.first().copied());
            prop_assert_eq!(index.meets(&asked), !meeting.is_empty());
            prop_assert_eq!(index.meeting(&asked), meeting);
            let two = [asked.clone(), HostPattern::parse("*.b.a.example").unwrap()];
            prop_assert_eq!(
                index.meeting_any(&two),
                those(&|host| two.iter().any(|one| host.intersect(one).is_some()))
            );
            prop_assert_eq!(index.at(&asked), those(&|host| *host == asked));

            let covering: Vec<usize> = index.covering(&asked).flatten().copied().collect();
            let mut unordered = covering.clone();
            unordered.sort_unstable();
            unordered.dedup();
            prop_assert_eq!(unordered, those(&|host| host.covers(&asked)));
            prop_assert_eq!(index.covers(&asked), !covering.is_empty());
            prop_assert_eq!(index.narrowest(&asked), covering.first().copied());
        }
    }

    #[test]
    fn the_most_specific_comes_first() {
        let texts = ["*", "*.com", "*.example.com", "www.example.com"];
        let mut index = HostIndex::default();
        for (item, text) in texts.iter().enumerate() {
            index.add(&HostPattern::parse(text).unwrap(), item);
        }
        let covering = |text| {
            let pattern = HostPattern::parse(text).unwrap();
            index.covering(&pattern).flatten().map(|item| texts[*item]).collect::<Vec<_>>()
        };
        assert_eq!(covering("www.example.com"), ["www.example.com", "*.example.com", "*.com", "*"]);
        assert_eq!(covering("*.example.com"), ["*.example.com", "*.com", "*"]);
        assert_eq!(covering("example.com"), ["*.com", "*"]);
        assert_eq!(covering("*"), ["*"]);
    }

    #[test]
    fn a_look_up_takes_no_more_steps_in_a_larger_index() {
        let steps = |count: usize| {
            let mut index = HostIndex::default();
            for item in 0..count {
                index.add(&HostPattern::parse(&format!("h{item}.example")).unwrap(), item);
            }
            let asked = HostPattern::parse("h7.example").unwrap();
            steps::of(|| (index.meeting(&asked), index.meets(&asked))).1
        };
        assert_eq!(steps(10), steps(1000));
    }
}
