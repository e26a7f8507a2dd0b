//! What workloads have used of their limits, for the process that takes over: its buckets do not begin full.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::table::{Bucket, Rates, moment};
use crate::types::ShareOwner;

/// What one workload has used of one limit for one host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UsedRate {
    owner: Owner,
    /// The limit's label.
    limit: String,
    host: String,
    /// For so many nanoseconds the bucket is not full.
    #[serde(default)]
    requests: u64,
    #[serde(default)]
    connections: u64,
    #[serde(default)]
    bytes: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Owner {
    Workload { namespace: String, name: String },
    Address(IpAddr),
    Own,
}

impl From<&ShareOwner> for Owner {
    fn from(owner: &ShareOwner) -> Self {
        match owner {
            ShareOwner::Workload { namespace, name } => {
                Self::Workload { namespace: namespace.to_string(), name: name.to_string() }
            }
            ShareOwner::Address(addr) => Self::Address(*addr),
            ShareOwner::Own => Self::Own,
        }
    }
}

impl From<Owner> for ShareOwner {
    fn from(owner: Owner) -> Self {
        match owner {
            Owner::Workload { namespace, name } => {
                Self::Workload { namespace: namespace.into(), name: name.into() }
            }
            Owner::Address(addr) => Self::Address(addr),
            Owner::Own => Self::Own,
        }
    }
}

impl Rates {
    /// What is used of every bucket that is not full.
    #[must_use]
    pub fn used(&self) -> Vec<UsedRate> {
        self.used_at(Instant::now())
    }

    pub(super) fn used_at(&self, now: Instant) -> Vec<UsedRate> {
        let now = moment(self.began, now);
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets = table
            .owners
            .iter()
            .flat_map(|(owner, owned)| owned.iter().map(move |(key, bucket)| (owner, key, bucket)));
        let used = buckets.filter(|(_, _, bucket)| !bucket.is_full(now));
        let used = used.map(|(owner, (limit, host), bucket)| {
            let left = |full: u64| full.saturating_sub(now);
            UsedRate {
                owner: owner.into(),
                limit: limit.to_string(),
                host: host.to_string(),
                requests: left(bucket.requests.load(Relaxed)),
                connections: left(bucket.connections.load(Relaxed)),
                bytes: left(bucket.bytes.load(Relaxed)),
            }
        });
        used.collect()
    }

    /// Counts what was used in the process before, with what was used here meanwhile.
    pub fn count_used(&self, used: Vec<UsedRate>) {
        self.count_used_at(used, Instant::now());
    }

    pub(super) fn count_used_at(&self, used: Vec<UsedRate>, now: Instant) {
        // Limits and hosts have few names, and many buckets.
        let mut names = HashMap::<String, Arc<str>>::new();
        let mut name =
            |text: String| Arc::clone(names.entry(text).or_insert_with_key(|text| text[..].into()));
        for UsedRate { owner, limit, host, requests, connections, bytes } in used {
            let key = (name(limit), name(host));
            let owner = owner.into();
            // Without room the workload is refused, whatever it asks for.
            let Some(bucket) = self.bucket(&owner, key, now) else { continue };
            let now = moment(self.began, now);
            let Bucket { requests: of_requests, connections: of_connections, bytes: of_bytes } =
                &*bucket;
            for (full, used) in
                [(of_requests, requests), (of_connections, connections), (of_bytes, bytes)]
            {
                let more = |full: u64| (used > 0).then(|| full.max(now).saturating_add(used));
                // It refuses only where nothing is to be counted.
                full.fetch_update(Relaxed, Relaxed, more).ok();
            }
        }
    }
}
