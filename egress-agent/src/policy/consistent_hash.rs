//! Consistent hashing: requests with one key go to one endpoint, as long as it is there.

use std::{net::IpAddr, sync::Arc, time::Duration};

use twox_hash::XxHash64;

/// `loadBalancer.consistentHash`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsistentHash {
    /// What of a request is hashed; `None` is nothing, so that endpoints are chosen at random.
    pub key: Option<HashKey>,
    /// How an endpoint follows from the hash.
    pub table: HashTable,
}

/// What of a request is hashed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HashKey {
    /// A header's value.
    Header(http::HeaderName),
    /// The authority (`:authority`, `host`).
    Authority,
    /// The path with its query (`:path`).
    Path,
    /// The method (`:method`).
    Method,
    /// A cookie's value.
    Cookie(HashCookie),
    /// The address that the connection came from.
    SourceIp,
    /// The value of a query parameter.
    Query(Arc<str>),
}

/// A cookie that is hashed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HashCookie {
    /// Its name.
    pub name: Arc<str>,
    /// Whether a client without it gets one, and for how long; zero is a session.
    pub ttl: Option<Duration>,
    /// What follows its value and lifetime in `Set-Cookie`: `; Path=/; HttpOnly`.
    pub attributes: Arc<str>,
}

/// How an endpoint follows from a hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashTable {
    /// Points on a ring, each endpoint's in proportion to its weight.
    Ring {
        /// At least so many points in all.
        minimum: u32,
    },
    /// Maglev (Eisenbud et al. 2016).
    Maglev {
        /// Slots of the table, a prime.
        size: u32,
    },
}

impl ConsistentHash {
    /// The hash of a connection that is no HTTP: only its source is known.
    #[must_use]
    pub fn of_source(&self, source: IpAddr) -> Option<u64> {
        matches!(self.key, Some(HashKey::SourceIp)).then(|| hash_of_address(source))
    }
}

/// Envoy's hash of a value: xxHash64 without seed.
#[must_use]
pub fn hash_of(value: &[u8]) -> u64 {
    XxHash64::oneshot(0, value)
}

/// The same with a seed: the hash of what comes before.
#[must_use]
pub fn hash_with(seed: u64, value: &[u8]) -> u64 {
    XxHash64::oneshot(seed, value)
}

/// Of an address, without its port.
#[must_use]
pub fn hash_of_address(source: IpAddr) -> u64 {
    hash_of(source.to_canonical().to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // https://github.com/Cyan4973/xxHash, the reference implementation's own checks.
        assert_eq!(hash_of(b""), 0xef46_db37_51d8_e999);
        assert_eq!(hash_of(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(hash_of(b"abc"), 0x44bc_2cf5_ad77_0999);
    }

    #[test]
    fn only_the_source_of_a_raw_connection_is_hashed() {
        let of = |key| {
            let table = HashTable::Ring { minimum: 1024 };
            ConsistentHash { key: Some(key), table }.of_source("192.0.2.1".parse().unwrap())
        };
        assert_eq!(of(HashKey::SourceIp), Some(hash_of(b"192.0.2.1")));
        assert_eq!(of(HashKey::Authority), None);
        let mapped = hash_of_address("::ffff:192.0.2.1".parse().unwrap());
        assert_eq!(of(HashKey::SourceIp), Some(mapped));
    }
}
