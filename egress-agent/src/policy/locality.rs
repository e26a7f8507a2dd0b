//! Where a gateway and the endpoints are, and which endpoints are preferred for that: `localityLbSetting`.
//!
//! Endpoints that are equal in it are a group. Groups have priorities, and within one priority weights. As in Envoy, a
//! priority or a group keeps its whole load until fewer than five of seven of its endpoints are healthy.

use std::fmt;

use crate::types::Labels;

/// A region, a zone in it, and a subzone in that: `us-east/b/rack-1`. What is empty is not known.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Locality {
    region: Box<str>,
    zone: Box<str>,
    subzone: Box<str>,
}

/// The labels of nodes and endpoints that say the same.
pub const REGION: &str = "topology.kubernetes.io/region";
/// See [`REGION`].
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// See [`REGION`].
pub const SUBZONE: &str = "topology.istio.io/subzone";

impl Locality {
    /// Reads `region/zone/subzone`, of which the last parts may be absent.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(Box::from);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), subzone: next() }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.subzone.is_empty()
    }

    /// 0 in the same subzone, 1 in the same zone, 2 in the same region, 3 elsewhere.
    fn distance(&self, other: &Self) -> u32 {
        if self.region != other.region {
            3
        } else if self.zone != other.zone {
            2
        } else {
            u32::from(self.subzone != other.subzone)
        }
    }

    fn label(&self, key: &str) -> Option<&str> {
        let value = match key {
            REGION => &self.region,
            ZONE => &self.zone,
            SUBZONE => &self.subzone,
            _ => return None,
        };
        (!value.is_empty()).then_some(&**value)
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { region, zone, subzone } = self;
        let text = format!("{region}/{zone}/{subzone}");
        f.write_str(text.trim_end_matches('/'))
    }
}

/// Localities as a rule names them: `us-east/b`, `us-east/*`, `*`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LocalityPattern(Locality);

impl LocalityPattern {
    /// Reads one; `*` stands for anything, and so does a part that is absent.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(Locality::parse(text))
    }

    /// Whether the locality is one of these.
    #[must_use]
    pub fn matches(&self, found: &Locality) -> bool {
        let Self(wanted) = self;
        let any = |part: &str| part.is_empty() || part == "*";
        (&*wanted.region == "*" || wanted.region == found.region)
            && (any(&wanted.zone) || wanted.zone == found.zone)
            && (any(&wanted.subzone) || wanted.subzone == found.subzone)
    }
}

impl fmt::Display for LocalityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `localityLbSetting`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalitySetting {
    /// The shares of localities; the first that is from the gateway's counts.
    pub distribute: Vec<Distribution>,
    /// The region that takes over from one, where there are several.
    pub failover: Vec<(Box<str>, Box<str>)>,
    /// Labels of which endpoints have the gateway's value, or the value given here, the first one first.
    pub failover_priority: Vec<(Box<str>, Option<Box<str>>)>,
}

/// An entry of `distribute`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Distribution {
    /// Where the gateway is.
    pub from: LocalityPattern,
    /// Where it sends how many of a hundred requests. Localities that are not named get none.
    pub to: Vec<(LocalityPattern, u32)>,
}

/// What an endpoint is preferred by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EndpointPlace {
    /// Where it is.
    pub locality: Locality,
    /// Its labels.
    pub labels: Labels,
}

/// The setting of a cluster, and where its endpoints are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterLocality {
    /// The setting.
    pub setting: LocalitySetting,
    /// Whether endpoints are ejected: without that there is no failover.
    pub ejects: bool,
    /// Of each endpoint, by [`Endpoint::place`](super::Endpoint::place).
    pub places: Vec<EndpointPlace>,
}

/// Where a gateway is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// Its locality; unknown where nothing says it.
    pub locality: Locality,
    /// Its labels.
    pub labels: Labels,
}

impl ClusterLocality {
    /// The groups of endpoints as a gateway there prefers them; `None` where it prefers none.
    #[must_use]
    pub fn preferences(&self, origin: &Origin) -> Option<Preferences> {
        let LocalitySetting { distribute, .. } = &self.setting;
        if !distribute.is_empty() {
            let shares = distribute.iter().find(|entry| entry.from.matches(&origin.locality))?;
            let weights = shares.to.iter().map(|(_, weight)| (0, *weight)).collect();
            let group = |place: &EndpointPlace| {
                shares.to.iter().position(|(to, _)| to.matches(&place.locality))
            };
            return Some(Preferences {
                groups: weights,
                of: self.places.iter().map(group).collect(),
            });
        }
        if !self.ejects {
            return None;
        }
        let levels: Option<Vec<u32>> =
            self.places.iter().map(|place| self.level(origin, place)).collect();
        let levels = levels?;
        let mut distinct = levels.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let groups = (0..distinct.len()).map(|priority| (priority, 1)).collect();
        let of = levels.iter().map(|level| distinct.binary_search(level).ok()).collect();
        Some(Preferences { groups, of })
    }

    /// The smaller, the better; `None` where nothing says where the gateway is.
    fn level(&self, origin: &Origin, place: &EndpointPlace) -> Option<u32> {
        /// Above each level by locality.
        const LEVELS: u32 = 5;
        let LocalitySetting { distribute: _, failover, failover_priority } = &self.setting;
        let by_labels = missed(failover_priority, origin, place);
        if !failover_priority.is_empty() && failover.is_empty() {
            return Some(by_labels);
        }
        if origin.locality.is_unknown() {
            return None;
        }
        let mut distance = origin.locality.distance(&place.locality);
        let next = failover.iter().find(|(from, _)| *from == origin.locality.region);
        if distance == 3 && next.is_some_and(|(_, to)| *to != place.locality.region) {
            distance = 4;
        }
        Some(by_labels * LEVELS + distance)
    }
}

/// How many of the labels are left from the first one on that the endpoint does not have.
fn missed(labels: &[(Box<str>, Option<Box<str>>)], origin: &Origin, place: &EndpointPlace) -> u32 {
    fn value<'a>(locality: &'a Locality, labels: &'a Labels, key: &str) -> Option<&'a str> {
        labels.get(key).map(String::as_str).or_else(|| locality.label(key))
    }
    let differs = |(key, wanted): &(Box<str>, Option<Box<str>>)| {
        let own = value(&origin.locality, &origin.labels, key);
        wanted.as_deref().or(own) != value(&place.locality, &place.labels, key)
    };
    let matched = labels.iter().position(differs).unwrap_or(labels.len());
    u32::try_from(labels.len() - matched).unwrap_or(u32::MAX)
}

/// How a gateway prefers the endpoints of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Preferences {
    /// Priority and weight of each group, in the order of priorities.
    groups: Vec<(usize, u32)>,
    /// The group of each place; `None` for those that get nothing.
    of: Vec<Option<usize>>,
}

/// Endpoints of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GroupHealth {
    /// All.
    pub total: u64,
    /// Those that are not ejected.
    pub healthy: u64,
}

impl GroupHealth {
    /// The part of its load that it takes, in percent: all of it while five of seven are healthy.
    fn availability(self) -> u64 {
        (self.healthy * 140).checked_div(self.total).unwrap_or(0).min(100)
    }

    fn with(self, other: Self) -> Self {
        Self { total: self.total + other.total, healthy: self.healthy + other.healthy }
    }
}

impl Preferences {
    /// The group of an endpoint's place.
    #[must_use]
    pub fn group(&self, place: u32) -> Option<usize> {
        *self.of.get(usize::try_from(place).ok()?)?
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The group for a point, which is anywhere between 0 and the greatest number; `None` where nothing is healthy.
    #[must_use]
    pub fn choose(&self, health: &[GroupHealth], point: u64) -> Option<usize> {
        let healths = || self.groups.iter().zip(health);
        let priorities = self.groups.last().map_or(0, |(priority, _)| priority + 1);
        let available = (0..priorities).map(|priority| {
            let own = healths().filter(|((its, _), _)| *its == priority);
            own.fold(GroupHealth::default(), |all, (_, one)| all.with(*one)).availability()
        });
        // Each priority takes what those before it leave.
        let mut left = 100;
        let loads = available.map(|available| {
            let load = available.min(left);
            left -= load;
            load
        });
        let (priority, point) = share(loads, point)?;
        let weights = healths().map(|((its, weight), health)| {
            let weight = u64::from(*weight) * health.availability();
            if *its == priority { weight } else { 0 }
        });
        share(weights, point).map(|(group, _)| group)
    }
}

/// Which of the shares a point falls into, and where in it.
fn share(shares: impl Iterator<Item = u64>, point: u64) -> Option<(usize, u64)> {
    let shares: Vec<u128> = shares.map(u128::from).collect();
    let at = u128::from(point) * shares.iter().sum::<u128>();
    let mut begin = 0;
    let index = shares.iter().position(|share| {
        let end = begin + (share << 64);
        let is_here = at < end;
        if !is_here {
            begin = end;
        }
        is_here
    })?;
    let within = (at - begin) / shares.get(index).copied().filter(|share| *share > 0)?;
    Some((index, u64::try_from(within).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests;
