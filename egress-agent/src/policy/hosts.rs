//! Tables by host: exact names, `*.example.com`, `*example.com`, `*`; the most specific wins.

use std::{collections::hash_map, fmt, net::IpAddr, sync::Arc};

use crate::types::{ConfigMap, Host, HostError, steps};

/// A host as configuration names it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum HostPattern {
    /// One host.
    Exact(Host),
    /// `*.example.com`, held as `example.com`: every name below, at any depth, but not itself.
    Below(Arc<str>),
    /// `*example.com` or `*-a.example.com`, held without the `*`: every longer name that ends so, as Envoy takes
    /// it.
    Ending(Arc<str>),
    /// `*`.
    Any,
}

impl HostPattern {
    /// Parses `name`, `*.name`, `*name`, `*-name` or `*`.
    ///
    /// # Errors
    /// [`HostError`]; a `*` anywhere else is an invalid character.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let Some(ending) = text.strip_prefix('*') else {
            return Host::parse(text).map(Self::Exact);
        };
        let named = |text: &str| match Host::parse(text)? {
            Host::Name(name) => Ok(name),
            Host::Ip(_) => Err(HostError::Invalid),
        };
        match (ending.strip_prefix('.'), ending.strip_prefix('-')) {
            (Some(suffix), _) => named(suffix).map(Self::Below),
            (None, Some(rest)) => Ok(Self::Ending(format!("-{}", named(rest)?).into())),
            (None, None) => named(ending).map(Self::Ending),
        }
    }

    /// Whether the host is one of these.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Exact(exact), host) => exact == host,
            (Self::Below(suffix), Host::Name(name)) => is_below(name, suffix),
            (Self::Ending(suffix), Host::Name(name)) => is_longer(name, suffix),
            (Self::Below(_) | Self::Ending(_), Host::Ip(_)) => false,
        }
    }

    /// Whether every host of the other is one of these.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        steps::count(1);
        match (self, other) {
            (Self::Any, _) => true,
            (_, Self::Exact(host)) => self.matches(host),
            (Self::Below(a), Self::Below(b)) => a == b || is_below(b, a),
            (Self::Below(a), Self::Ending(b)) => is_below(b, a),
            (Self::Ending(a), Self::Below(b) | Self::Ending(b)) => b.ends_with(&**a),
            (Self::Exact(_) | Self::Below(_) | Self::Ending(_), _) => false,
        }
    }

    /// The hosts that are in both: patterns either hold one another or have nothing in common.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        if self.covers(other) {
            Some(other.clone())
        } else if other.covers(self) {
            Some(self.clone())
        } else {
            None
        }
    }

    /// The hosts that a rule for this one is for. Istio compares the ends of names to find a rule, so `*a.example` is
    /// for `a.example`, too.
    #[must_use]
    pub fn rule_hosts(&self) -> Vec<Self> {
        std::iter::once(self.clone()).chain(self.itself()).collect()
    }

    /// Whether a rule for this one is for all hosts of the other.
    #[must_use]
    pub fn rules(&self, other: &Self) -> bool {
        match other {
            Self::Exact(host) => self.rules_host(host),
            Self::Below(_) | Self::Ending(_) | Self::Any => self.covers(other),
        }
    }

    /// Whether a rule for this one is for the host.
    #[must_use]
    pub fn rules_host(&self, host: &Host) -> bool {
        let is_itself = match (self, host) {
            (Self::Ending(end), Host::Name(name)) => end == name,
            _ => false,
        };
        is_itself || self.matches(host)
    }

    /// The name that follows the `*`, where it does not begin with a dot or a dash.
    fn itself(&self) -> Option<Self> {
        match self {
            Self::Ending(name) if !name.starts_with('-') => {
                Some(Self::Exact(Host::Name(Arc::clone(name))))
            }
            Self::Exact(_) | Self::Below(_) | Self::Ending(_) | Self::Any => None,
        }
    }

    /// The host, if it is one.
    #[must_use]
    pub fn exact(&self) -> Option<&Host> {
        match self {
            Self::Exact(host) => Some(host),
            Self::Below(_) | Self::Ending(_) | Self::Any => None,
        }
    }
}

fn is_longer(name: &str, suffix: &str) -> bool {
    name.len() > suffix.len() && name.ends_with(suffix)
}

fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
            Self::Ending(suffix) => write!(f, "*{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Values by [`HostPattern`]. A look-up costs one hash a label; one a character, where there is a pattern of the form
/// `*name`.
#[derive(Clone, Debug)]
pub struct HostTable<T> {
    names: ConfigMap<Arc<str>, T>,
    ips: ConfigMap<IpAddr, T>,
    below: ConfigMap<Arc<str>, T>,
    ending: ConfigMap<Arc<str>, T>,
    any: Option<T>,
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self {
            names: ConfigMap::default(),
            ips: ConfigMap::default(),
            below: ConfigMap::default(),
            ending: ConfigMap::default(),
            any: None,
        }
    }
}

impl<T> HostTable<T> {
    /// The value at exactly this pattern, made if there is none.
    pub fn entry(&mut self, pattern: &HostPattern) -> &mut T
    where
        T: Default,
    {
        fn at<'m, K: Clone + Eq + std::hash::Hash, T: Default>(
            map: &'m mut ConfigMap<K, T>,
            key: &K,
        ) -> &'m mut T {
            match map.entry(key.clone()) {
                hash_map::Entry::Occupied(entry) => entry.into_mut(),
                hash_map::Entry::Vacant(entry) => entry.insert(T::default()),
            }
        }
        match pattern {
            HostPattern::Exact(Host::Name(name)) => at(&mut self.names, name),
            HostPattern::Exact(Host::Ip(ip)) => at(&mut self.ips, ip),
            HostPattern::Below(suffix) => at(&mut self.below, suffix),
            HostPattern::Ending(suffix) => at(&mut self.ending, suffix),
            HostPattern::Any => self.any.get_or_insert_default(),
        }
    }

    /// The value of the most specific pattern that matches.
    #[must_use]
    pub fn get(&self, host: &Host) -> Option<&T> {
        self.matches(host).next()
    }

    /// The values of all rules for the host, the most specific first: besides those that match, `*a.example` for
    /// `a.example` ([`HostPattern::rule_hosts`]).
    pub fn rules_for<'t, 'h>(
        &'t self,
        host: &'h Host,
    ) -> impl Iterator<Item = &'t T> + use<'t, 'h, T> {
        let itself = match host {
            Host::Name(name) => self.ending.get(name),
            Host::Ip(_) => None,
        };
        let mut matching = self.matches(host);
        // The exact name comes first, if there is one.
        let exact = self.is_exact(host).then(|| matching.next()).flatten();
        exact.into_iter().chain(itself).chain(matching)
    }

    fn is_exact(&self, host: &Host) -> bool {
        match host {
            Host::Name(name) => self.names.contains_key(name),
            Host::Ip(ip) => self.ips.contains_key(ip),
        }
    }

    /// The values of all patterns that match, the most specific first.
    pub fn matches<'t, 'h>(
        &'t self,
        host: &'h Host,
    ) -> impl Iterator<Item = &'t T> + use<'t, 'h, T> {
        let (exact, name) = match host {
            Host::Name(name) => (self.names.get(name), Some(&**name)),
            Host::Ip(ip) => (self.ips.get(ip), None),
        };
        exact.into_iter().chain(name.into_iter().flat_map(|name| self.above(name))).chain(&self.any)
    }

    /// The values of the wildcards that a name ends with, without its own, the most specific first.
    fn above<'t, 'h>(&'t self, name: &'h str) -> impl Iterator<Item = &'t T> + use<'t, 'h, T> {
        // Where no pattern begins within a label, only what follows a dot can be one.
        let labels = (self.ending.is_empty() && !self.below.is_empty()).then(|| parents(name));
        let endings = (!self.ending.is_empty()).then(|| endings(name));
        let labels = labels.into_iter().flatten().filter_map(|suffix| self.below.get(suffix));
        let endings =
            endings.into_iter().flatten().filter_map(|ending| match ending.strip_prefix('.') {
                Some(suffix) => self.below.get(suffix),
                None => self.ending.get(ending),
            });
        labels.chain(endings)
    }

    /// The value at exactly this pattern.
    #[must_use]
    pub fn at(&self, pattern: &HostPattern) -> Option<&T> {
        match pattern {
            HostPattern::Exact(Host::Name(name)) => self.names.get(name),
            HostPattern::Exact(Host::Ip(ip)) => self.ips.get(ip),
            HostPattern::Below(suffix) => self.below.get(suffix),
            HostPattern::Ending(suffix) => self.ending.get(suffix),
            HostPattern::Any => self.any.as_ref(),
        }
    }

    /// The values of all patterns that cover this one, the most specific first.
    pub fn covering<'t, 'p>(
        &'t self,
        pattern: &'p HostPattern,
    ) -> impl Iterator<Item = &'t T> + use<'t, 'p, T> {
        let (own, whole, name) = match pattern {
            HostPattern::Exact(Host::Name(name)) => (self.names.get(name), None, Some(&**name)),
            HostPattern::Exact(Host::Ip(ip)) => (self.ips.get(ip), None, None),
            HostPattern::Below(suffix) => {
                // `*a.example` covers `*.a.example`.
                (self.below.get(suffix), self.ending.get(suffix), Some(&**suffix))
            }
            HostPattern::Ending(suffix) => (self.ending.get(suffix), None, Some(&**suffix)),
            HostPattern::Any => (None, None, None),
        };
        let above = name.into_iter().flat_map(|name| self.above(name));
        own.into_iter().chain(whole).chain(above).chain(&self.any)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
            && self.ips.is_empty()
            && self.below.is_empty()
            && self.ending.is_empty()
            && self.any.is_none()
    }
}

/// `a.b.c` → `b.c`, `c`.
pub(super) fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(at, dot)| &name[at + dot.len()..])
}

/// `ab.c` → `b.c`, `.c`, `c`.
fn endings(name: &str) -> impl Iterator<Item = &str> {
    name.char_indices().skip(1).map(|(at, _)| &name[at..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    #[test]
    fn patterns_match_what_they_say() {
        for (p, h, expected) in [
            ("a.example", "a.example", true),
            ("A.Example.", "a.example", true),
            ("a.example", "b.example", false),
            ("*.example.com", "www.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "wwwexample.com", false),
            ("*.example.com", "www.example.com.evil.example", false),
            ("*.example.com", "www.notexample.com", false),
            ("*example.com", "www.example.com", true),
            ("*Example.com", "notexample.com", true),
            ("*example.com", "example.com", false),
            ("*example.com", "example.com.evil.example", false),
            ("*-a.example.com", "b-a.example.com", true),
            ("*-a.example.com", "c.b-a.example.com", true),
            ("*-a.example.com", "ba.example.com", false),
            ("*-a.example.com", "a.example.com", false),
            ("*a", "a", false),
            ("*a", "ba", true),
            ("*2.1", "192.0.2.1", false),
            ("*", "anything.example", true),
            ("*", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("*.1", "192.0.2.1", false),
        ] {
            let Ok(p) = HostPattern::parse(p) else {
                assert!(!expected);
                continue;
            };
            assert_eq!(p.matches(&host(h)), expected, "{p} {h}");
        }
    }

    #[test]
    fn a_star_is_only_a_first_label() {
        for text in [
            "*--a.example",
            "*-",
            "*-.example",
            "**a",
            "a*.example",
            "a.*.example",
            "a.*",
            "**",
            "*.*",
            "*.",
            "*.192.0.2.1",
            "",
        ] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_most_specific_comes_first() {
        let mut table = HostTable::<Vec<&str>>::default();
        for p in ["*", "*.com", "*.example.com", "www.example.com", "192.0.2.1"] {
            table.entry(&pattern(p)).push(p);
        }
        let found = |h| table.matches(&host(h)).flatten().copied().collect::<Vec<_>>();
        assert_eq!(found("www.example.com"), ["www.example.com", "*.example.com", "*.com", "*"]);
        assert_eq!(found("x.www.example.com"), ["*.example.com", "*.com", "*"]);
        assert_eq!(found("example.com"), ["*.com", "*"]);
        assert_eq!(found("com"), ["*"]);
        assert_eq!(found("192.0.2.1"), ["192.0.2.1", "*"]);
        assert_eq!(found("192.0.2.2"), ["*"]);
        for p in ["*w.example.com", "*example.com", "*ww.example.com"] {
            table.entry(&pattern(p)).push(p);
        }
        let found = |h| table.matches(&host(h)).flatten().copied().collect::<Vec<_>>();
        assert_eq!(
            found("www.example.com"),
            [
                "www.example.com",
                "*ww.example.com",
                "*w.example.com",
                "*.example.com",
                "*example.com",
                "*.com",
                "*"
            ]
        );
        assert_eq!(found("example.com"), ["*.com", "*"]);
        assert_eq!(found("an-example.com"), ["*example.com", "*.com", "*"]);
        let covering = |p| table.covering(&pattern(p)).flatten().copied().collect::<Vec<_>>();
        assert_eq!(covering("*.example.com"), ["*.example.com", "*example.com", "*.com", "*"]);
        assert_eq!(
            covering("*aw.example.com"),
            ["*w.example.com", "*.example.com", "*example.com", "*.com", "*"]
        );
    }

    fn name() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab]{1,2}", 1..5).prop_map(|labels| labels.join("."))
    }

    fn any_pattern() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => name(),
            4 => name().prop_map(|name| format!("*.{name}")),
            2 => name().prop_map(|name| format!("*{name}")),
            1 => Just("*".to_owned()),
        ]
    }

    /// By text alone: the longest pattern that matches, an exact one before all others.
    fn naive<'a>(patterns: &'a [String], host: &str) -> Option<&'a String> {
        let matches = |p: &&String| {
            **p == host
                || *p == "*"
                || p.starts_with('*') && host.len() >= p.len() && host.ends_with(&p[1..])
        };
        patterns.iter().filter(matches).max_by_key(|p| (**p == host, p.len()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_table_agrees_with_a_naive_search(
            patterns in proptest::collection::vec(any_pattern(), 0..12),
            wanted in name(),
        ) {
            let mut table = HostTable::<String>::default();
            for p in &patterns {
                table.entry(&pattern(p)).clone_from(p);
            }
            prop_assert_eq!(table.get(&host(&wanted)), naive(&patterns, &wanted));
        }

        #[test]
        fn what_covers_matches_whatever_the_covered_matches(
            a in any_pattern(), b in any_pattern(), wanted in name(),
        ) {
            let (a, b, wanted) = (pattern(&a), pattern(&b), host(&wanted));
            if a.covers(&b) && b.matches(&wanted) {
                prop_assert!(a.matches(&wanted));
            }
            let both = a.matches(&wanted) && b.matches(&wanted);
            prop_assert_eq!(both, a.intersect(&b).is_some_and(|p| p.matches(&wanted)));
        }
    }
}
