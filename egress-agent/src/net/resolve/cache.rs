//! Addresses that were found, and until when they are good. Time is passed in.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::types::ShareOwner;

/// Addresses of a name, IPv4 first; never none.
pub(super) type Addresses = Arc<[IpAddr]>;

/// Bounds of an answer's life: a TTL of zero must not cost a query per connection, and a day must not
/// outlive a move.
const LIFE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How long an answer is served after its life if DNS gives no other (RFC 8767 §5: a cap).
pub(super) const STALE: Duration = Duration::from_secs(3600);
/// After a failure, until the name server is asked again for a name that has an answer.
pub(super) const RECHECK: Duration = Duration::from_secs(2);
/// An answer is refreshed in this last part of its life.
const REFRESH: u32 = 5;

/// What the cache says about a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum CacheLookup {
    /// Use it.
    Fresh(Addresses),
    /// Use it, and ask for a new one in the background.
    Refresh(Addresses),
    /// Its life is over, and nothing is known of a failure: ask, and use it if no answer comes in time.
    Stale(Addresses),
    /// The same, but the name server failed a moment ago: use it without asking.
    Failing(Addresses),
    /// Nothing.
    Missing,
}

/// Answers of the whole process: `capacity` names. A name belongs to whoever asked for it first. When
/// the cache is full, a name of the owner with the most names goes, one that was not used lately; so
/// an owner loses nothing to others as long as it has no more names than they have.
#[derive(Debug)]
pub(super) struct Cache {
    entries: HashMap<Arc<str>, CacheEntry>,
    /// Names by owner, oldest first. An entry that was replaced is known by its number.
    owners: HashMap<ShareOwner, Names>,
    next: u64,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Names {
    order: VecDeque<(u64, Arc<str>)>,
    count: usize,
}

#[derive(Debug)]
struct CacheEntry {
    addresses: Addresses,
    refresh: Instant,
    expires: Instant,
    recheck: Option<Instant>,
    /// When both families were answered last.
    whole: Instant,
    owner: ShareOwner,
    number: u64,
    used: bool,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), owners: HashMap::new(), next: 0, capacity }
    }

    pub(super) fn get(&mut self, now: Instant, name: &str) -> CacheLookup {
        let Some(entry) = self.entries.get_mut(name) else { return CacheLookup::Missing };
        if now >= entry.expires + STALE {
            self.remove(name);
            return CacheLookup::Missing;
        }
        entry.used = true;
        let addresses = Arc::clone(&entry.addresses);
        match (now < entry.expires, entry.recheck) {
            (true, Some(recheck)) if now < recheck => CacheLookup::Fresh(addresses),
            (true, _) if now < entry.refresh => CacheLookup::Fresh(addresses),
            (false, None) => CacheLookup::Stale(addresses),
            (false, Some(recheck)) if now < recheck => CacheLookup::Failing(addresses),
            // After a failure nobody waits for the next try (RFC 8767 §5).
            (true, _) | (false, Some(_)) => CacheLookup::Refresh(addresses),
        }
    }

    /// Takes an answer that `owner` asked for.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        owner: &ShareOwner,
        name: &Arc<str>,
        addresses: Addresses,
        ttl: Duration,
    ) {
        let life = ttl.clamp(LIFE.0, LIFE.1);
        let expires = now + life;
        let refresh = expires - life / REFRESH;
        if let Some(entry) = self.entries.get_mut(name) {
            let (owner, number, used) = (entry.owner.clone(), entry.number, entry.used);
            *entry = CacheEntry {
                addresses,
                refresh,
                expires,
                recheck: None,
                whole: now,
                owner,
                number,
                used,
            };
            return;
        }
        while self.entries.len() >= self.capacity.max(1) {
            self.evict(owner);
        }
        let number = self.next;
        self.next += 1;
        let names = self.owners.entry(owner.clone()).or_default();
        names.order.push_back((number, Arc::clone(name)));
        names.count += 1;
        let owner = owner.clone();
        let entry = CacheEntry {
            addresses,
            refresh,
            expires,
            recheck: None,
            whole: now,
            owner,
            number,
            used: false,
        };
        self.entries.insert(Arc::clone(name), entry);
    }

    /// Takes addresses of one family, while the other's question failed or is not answered yet: the other's last
    /// ones stay, as long as an answer does after its life.
    pub(super) fn insert_part(
        &mut self,
        now: Instant,
        owner: &ShareOwner,
        name: &Arc<str>,
        addresses: Addresses,
        ttl: Duration,
    ) -> Addresses {
        let known = self.entries.get(name).filter(|entry| now < entry.whole + STALE);
        let Some(CacheEntry { addresses: last, whole, .. }) = known else {
            self.insert(now, owner, name, Arc::clone(&addresses), ttl);
            return addresses;
        };
        let (is_v6, whole) = (addresses.first().is_some_and(IpAddr::is_ipv6), *whole);
        let other = last.iter().filter(|addr| addr.is_ipv6() != is_v6);
        let mut all: Vec<IpAddr> = addresses.iter().chain(other).copied().collect();
        all.sort_by_key(IpAddr::is_ipv6);
        let all: Addresses = all.into();
        self.insert(now, owner, name, Arc::clone(&all), ttl);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.whole = whole;
        }
        all
    }

    /// The name server gave no answer. `Some`: what is to be used instead.
    pub(super) fn failed(&mut self, now: Instant, name: &str) -> Option<Addresses> {
        let entry = self.entries.get_mut(name).filter(|entry| now < entry.expires + STALE)?;
        entry.recheck = Some(now + RECHECK);
        Some(Arc::clone(&entry.addresses))
    }

    /// The name no longer has an address.
    pub(super) fn remove(&mut self, name: &str) {
        let Some(entry) = self.entries.remove(name) else { return };
        let Some(names) = self.owners.get_mut(&entry.owner) else { return };
        names.count -= 1;
        if names.count == 0 {
            self.owners.remove(&entry.owner);
        } else if names.order.len() > 2 * names.count + 64 {
            // Whatever is no longer there under its number only takes room.
            let alive = |(number, name): &(u64, Arc<str>)| {
                self.entries.get(name).is_some_and(|entry| entry.number == *number)
            };
            names.order.retain(alive);
        }
    }

    /// Makes room for one more name of `owner`.
    fn evict(&mut self, owner: &ShareOwner) {
        let own = self.owners.get(owner).map_or(0, |names| names.count);
        let largest = self.owners.iter().max_by_key(|(_, names)| names.count);
        let Some((largest, names)) = largest else { return };
        let from = if own >= names.count { owner.clone() } else { largest.clone() };
        while let Some((number, name)) =
            self.owners.get_mut(&from).and_then(|names| names.order.pop_front())
        {
            match self.entries.get_mut(&name) {
                Some(entry) if entry.number == number && entry.used => {
                    entry.used = false;
                    if let Some(names) = self.owners.get_mut(&from) {
                        names.order.push_back((number, name));
                    }
                }
                Some(entry) if entry.number == number => {
                    self.remove(&name);
                    return;
                }
                Some(_) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(number: u8) -> ShareOwner {
        ShareOwner::Address([10, 0, 0, number].into())
    }

    fn addresses() -> Addresses {
        [IpAddr::from([198, 51, 100, 7])].into()
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_lives_is_refreshed_and_then_kept_over_an_outage() {
        let start = Instant::now();
        let mut cache = Cache::new(8);
        let name: Arc<str> = "a.example".into();
        assert_eq!(cache.get(start, &name), CacheLookup::Missing);
        cache.insert(start, &owner(1), &name, addresses(), MINUTE);
        assert_eq!(cache.get(start + MINUTE / 2, &name), CacheLookup::Fresh(addresses()));
        let late = start + MINUTE * 9 / 10;
        assert_eq!(cache.get(late, &name), CacheLookup::Refresh(addresses()));
        // The refresh fails: not asked again at once, but the answer is good.
        assert_eq!(cache.failed(late, &name), Some(addresses()));
        assert_eq!(cache.get(late, &name), CacheLookup::Fresh(addresses()));
        assert_eq!(cache.get(late + RECHECK, &name), CacheLookup::Refresh(addresses()));
        // Its life is over: who asks first waits for the next answer.
        cache.insert(start, &owner(1), &name, addresses(), MINUTE);
        let over = start + MINUTE;
        assert_eq!(cache.get(over, &name), CacheLookup::Stale(addresses()));
        assert_eq!(cache.failed(over, &name), Some(addresses()));
        assert_eq!(cache.get(over + RECHECK / 2, &name), CacheLookup::Failing(addresses()));
        // After a failure nobody does.
        assert_eq!(cache.get(over + RECHECK, &name), CacheLookup::Refresh(addresses()));
        // Nothing is kept for ever.
        assert_eq!(cache.failed(over + STALE, &name), None);
        assert_eq!(cache.get(over + STALE, &name), CacheLookup::Missing);
        assert!(cache.owners.is_empty());
    }

    #[test]
    fn a_life_has_bounds() {
        let start = Instant::now();
        let mut cache = Cache::new(8);
        for (ttl, life) in [(0, 1), (60, 60), (86_400, 300)] {
            let name: Arc<str> = "a.example".into();
            cache.insert(start, &owner(1), &name, addresses(), Duration::from_secs(ttl));
            let end = start + Duration::from_secs(life);
            assert!(matches!(
                cache.get(end - Duration::from_millis(1), &name),
                CacheLookup::Refresh(_)
            ));
            assert!(matches!(cache.get(end, &name), CacheLookup::Stale(_)));
        }
    }

    proptest! {
        #[test]
        fn whoever_has_fewer_names_loses_none(
            flood in prop::collection::vec((0_u8..3, 0_u16..500), 0..2000),
            own in 1_u16..16,
        ) {
            let start = Instant::now();
            let mut cache = Cache::new(64);
            for number in 0..own {
                let name = format!("good{number}.example").into();
                cache.insert(start, &owner(9), &name, addresses(), MINUTE);
            }
            for (who, number) in flood {
                let name = format!("{number}.{who}.wild.example").into();
                cache.insert(start, &owner(who), &name, addresses(), MINUTE);
                if number % 3 == 0 {
                    cache.get(start, &name);
                }
                if number % 7 == 0 {
                    cache.remove(&name);
                }
                prop_assert!(cache.entries.len() <= 64);
                let counts: usize = cache.owners.values().map(|names| names.count).sum();
                prop_assert_eq!(counts, cache.entries.len());
            }
            for number in 0..own {
                let known = cache.get(start, &format!("good{number}.example"));
                prop_assert_eq!(known, CacheLookup::Fresh(addresses()));
            }
        }
    }
}
