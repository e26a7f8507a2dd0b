//! `loadBalancer` of a traffic policy.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use super::super::{
    decode::{Cx, Spanned},
    load_balancer::{
        ConsistentHash as HashMirror, CookieAttribute, HttpCookie, LoadBalancerSettings, Maglev,
        RingHash, SimpleLb, Warmup as WarmupMirror,
    },
};
use super::{
    durations::{self, SHORTEST},
    locality,
};
use crate::policy::{
    ConsistentHash, HashCookie, HashKey, HashTable, LoadBalancer, LocalitySetting, Warmup,
};

/// Points of a ring, at most; Envoy's bound.
const MOST_POINTS: u32 = 1 << 16;
/// Slots of Maglev's table are fewer.
const MOST_SLOTS: u32 = 5_000_011;

/// How endpoints are chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Balancing {
    pub(super) method: LoadBalancer,
    pub(super) hash: Option<Arc<ConsistentHash>>,
    pub(super) warmup: Option<Warmup>,
    /// `localityLbSetting`, where the rule has one; nothing in it where that switches it off.
    pub(super) locality: Option<Option<LocalitySetting>>,
}

impl Default for Balancing {
    fn default() -> Self {
        Self { method: LoadBalancer::LeastRequest, hash: None, warmup: None, locality: None }
    }
}

pub(super) fn balancing_of(settings: &LoadBalancerSettings, cx: &mut Cx<'_>) -> Balancing {
    let LoadBalancerSettings {
        at: _,
        simple,
        consistent_hash,
        warmup,
        warmup_duration,
        locality: near,
    } = settings;
    if let (Some(simple), Some(_)) = (simple, consistent_hash) {
        let message = "simple and consistentHash are two methods: give one";
        cx.wrong(&simple.at, simple.value.to_string(), "nothing", message);
    }
    let method = match simple.as_ref().map(|simple| simple.value) {
        Some(SimpleLb::RoundRobin) => LoadBalancer::RoundRobin,
        Some(SimpleLb::Random) => LoadBalancer::Random,
        None
        | Some(
            SimpleLb::Unspecified
            | SimpleLb::LeastRequest
            | SimpleLb::LeastConn
            | SimpleLb::Passthrough,
        ) => LoadBalancer::LeastRequest,
    };
    let hash = consistent_hash.as_ref().map(|hash| Arc::new(consistent(hash, cx)));
    let warmup = match (warmup, warmup_duration) {
        (Some(warmup), _) => warming(warmup, cx),
        (None, Some(duration)) => warmup_time(duration, cx).map(|duration| Warmup {
            duration,
            minimum_percent: 10.0,
            aggression: 1.0,
        }),
        (None, None) => None,
    };
    if let Some(at) = settings.warmup.as_ref().map(|warmup| &warmup.at)
        && (hash.is_some() || method == LoadBalancer::Random)
    {
        cx.warn(at, "has no effect: only ROUND_ROBIN and LEAST_REQUEST warm endpoints up");
    }
    let locality = near.as_ref().map(|near| locality::setting(near, cx));
    Balancing { method, hash, warmup, locality }
}

fn consistent(mirror: &HashMirror, cx: &mut Cx<'_>) -> ConsistentHash {
    let HashMirror {
        at,
        http_header_name,
        http_cookie,
        use_source_ip,
        http_query_parameter_name,
        ring_hash,
        maglev,
        minimum_ring_size,
    } = mirror;
    let by_source = use_source_ip.as_ref().filter(|by| by.value);
    let given = [
        http_header_name.as_ref().map(|name| &name.at),
        http_cookie.as_ref().map(|cookie| &cookie.at),
        use_source_ip.as_ref().map(|by| &by.at),
        http_query_parameter_name.as_ref().map(|name| &name.at),
    ];
    let mut given = given.into_iter().flatten();
    if let (Some(_), Some(second)) = (given.next(), given.next()) {
        cx.wrong(second, "a second key", "one key", "a hash has one key");
    }
    let key = match (http_header_name, http_cookie, by_source, http_query_parameter_name) {
        (Some(name), ..) => header(name, cx),
        (_, Some(cookie), ..) => self::cookie(cookie, cx).map(HashKey::Cookie),
        (.., Some(_), _) => Some(HashKey::SourceIp),
        (.., Some(name)) => {
            if name.value.is_empty() {
                cx.wrong(&name.at, "\"\"", "the name of a parameter", "no name");
            }
            Some(HashKey::Query(name.value.as_str().into()))
        }
        (None, None, None, None) => {
            cx.warn(at, "nothing is hashed: endpoints are chosen at random");
            None
        }
    };
    if let Some(old) = minimum_ring_size.as_ref().filter(|old| old.value != 0) {
        cx.warn(&old.at, "old field; use ringHash.minimumRingSize");
        if ring_hash.is_some() || maglev.is_some() {
            let message = "only one of minimumRingSize, ringHash and maglev can be given";
            cx.wrong(&old.at, old.value.to_string(), "nothing", message);
        }
    }
    let table = match (ring_hash, maglev) {
        (Some(_), Some(maglev)) => {
            cx.wrong(&maglev.at, "maglev", "nothing", "ringHash and maglev: give one");
            HashTable::Ring { minimum: 1024 }
        }
        (None, Some(Maglev { at: _, table_size })) => {
            HashTable::Maglev { size: slots(table_size, cx) }
        }
        (ring, None) => {
            let own = ring
                .as_ref()
                .and_then(|RingHash { minimum_ring_size, .. }| minimum_ring_size.as_ref());
            HashTable::Ring { minimum: points(own.or(minimum_ring_size.as_ref()), cx) }
        }
    };
    ConsistentHash { key, table }
}

fn header(name: &Spanned<String>, cx: &mut Cx<'_>) -> Option<HashKey> {
    match name.value.to_ascii_lowercase().as_str() {
        ":authority" | "host" => Some(HashKey::Authority),
        ":path" => Some(HashKey::Path),
        ":method" => Some(HashKey::Method),
        lower => match http::HeaderName::from_bytes(lower.as_bytes()) {
            Ok(name) => Some(HashKey::Header(name)),
            Err(_) => {
                let found = format!("{:?}", name.value);
                cx.wrong(&name.at, found, "the name of a header", "no header's name");
                None
            }
        },
    }
}

/// RFC 6265 §4.1.1.
fn cookie(mirror: &HttpCookie, cx: &mut Cx<'_>) -> Option<HashCookie> {
    let HttpCookie { at: _, name, path, ttl, attributes } = mirror;
    let token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let value = |text: &str| text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b';');
    let mut wrong = |text: &Spanned<String>, expected: &str| {
        let found = format!("{:?}", text.value);
        cx.wrong(&text.at, found, expected, "it can't be a part of a cookie");
    };
    let name = name.as_ref()?;
    if !token(&name.value) {
        wrong(name, "the name of a cookie");
        return None;
    }
    let mut text = String::new();
    let mut add = |name: &str, value: Option<&str>| {
        let value = value.map(|value| format!("={value}")).unwrap_or_default();
        // Writing to a string doesn't fail.
        let written = write!(text, "; {name}{value}");
        debug_assert!(written.is_ok());
    };
    if let Some(path) = path.as_ref().filter(|path| !path.value.is_empty()) {
        if !value(&path.value) {
            wrong(path, "a path");
        }
        add("Path", Some(&path.value));
    }
    let mut seen = Vec::new();
    for CookieAttribute { at: _, name, value: given } in &attributes.0 {
        let Some(name) = name else { continue };
        if !token(&name.value) || seen.contains(&name.value.to_ascii_lowercase()) {
            wrong(name, "the name of an attribute, each once");
        }
        seen.push(name.value.to_ascii_lowercase());
        if let Some(given) = given.as_ref().filter(|given| !value(&given.value)) {
            wrong(given, "an attribute's value");
        }
        add(&name.value, given.as_ref().map(|given| given.value.as_str()));
    }
    if !seen.iter().any(|name| name == "httponly") {
        add("HttpOnly", None);
    }
    Some(HashCookie {
        name: name.value.as_str().into(),
        ttl: ttl.as_ref().map(|ttl| ttl.value),
        attributes: text.into(),
    })
}

fn points(size: Option<&Spanned<u32>>, cx: &mut Cx<'_>) -> u32 {
    let Some(size) = size.filter(|size| size.value != 0) else { return 1024 };
    if size.value > MOST_POINTS {
        let expected = format!("at most {MOST_POINTS}");
        cx.wrong(&size.at, size.value.to_string(), expected, "a ring has no more points");
    }
    size.value.min(MOST_POINTS)
}

fn slots(size: &Option<Spanned<u32>>, cx: &mut Cx<'_>) -> u32 {
    let Some(size) = size else { return 65_537 };
    if size.value >= MOST_SLOTS || !is_prime(size.value) {
        let expected = format!("a prime below {MOST_SLOTS}");
        cx.wrong(&size.at, size.value.to_string(), expected, "no size of Maglev's table");
        return 65_537;
    }
    size.value
}

fn is_prime(number: u32) -> bool {
    let divides = |by: u32| number.is_multiple_of(by);
    number >= 2 && !(2..).take_while(|by| u64::from(*by).pow(2) <= number.into()).any(divides)
}

fn warmup_time(duration: &Spanned<Duration>, cx: &mut Cx<'_>) -> Option<Duration> {
    if duration.value < SHORTEST {
        let found = format!("{:?}", duration.value);
        cx.wrong(&duration.at, found, "at least 1ms", "an endpoint that is never new");
        return None;
    }
    durations::warn_of_parts(Some(duration), cx);
    Some(duration.value)
}

fn warming(mirror: &WarmupMirror, cx: &mut Cx<'_>) -> Option<Warmup> {
    let WarmupMirror { at: _, duration, minimum_percent, aggression } = mirror;
    let duration = duration.as_ref()?;
    let duration = warmup_time(duration, cx)?;
    let minimum = minimum_percent.as_ref().map_or(10.0, |percent| {
        if !(0.0..=100.0).contains(&percent.value) {
            cx.wrong(&percent.at, percent.value.to_string(), "0 to 100", "not a percentage");
        }
        percent.value.clamp(0.0, 100.0)
    });
    let aggression = aggression.as_ref().map_or(1.0, |aggression| {
        if aggression.value > 0.0 && aggression.value.is_finite() {
            return aggression.value;
        }
        let found = aggression.value.to_string();
        cx.wrong(&aggression.at, found, "a number above 0", "no load would ever come");
        1.0
    });
    Some(Warmup { duration, minimum_percent: minimum, aggression })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_others() {
        for prime in [2, 3, 5, 65_537, 5_000_011] {
            assert!(is_prime(prime), "{prime}");
        }
        for other in [0, 1, 4, 9, 65_536, 65_535, 4_294_967_295] {
            assert!(!is_prime(other), "{other}");
        }
    }
}
