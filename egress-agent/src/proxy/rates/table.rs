//! What each workload has asked of each host, where a rate limit counts it; one table for all workers.
//!
//! A bucket that is full again says nothing and is forgotten. The table has room for [`CAPACITY`] buckets, of
//! which a workload has its share (`types::within_share`): who asks for thousands of names below a wildcard
//! is refused, and never gets rid of what it has used up.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::time::{Duration, Instant};

use crate::{
    policy::{Rate, RateLimit},
    types::{ShareOwner, within_share},
};

/// Buckets of all workloads together; about 300 bytes each.
const CAPACITY: usize = 65_536;
/// One workload alone has an eighth of them.
const SHARES: usize = 7;
/// How often the table is looked through for what is full, where new hosts come.
const SWEEP_AT_LEAST: Duration = Duration::from_secs(60);
/// And where a workload has no room.
const SWEEP_AT_MOST: Duration = Duration::from_secs(1);

/// The table.
#[derive(Debug)]
pub struct Rates {
    pub(super) began: Instant,
    pub(super) table: Mutex<Table>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) owners: HashMap<ShareOwner, HashMap<Key, Arc<Bucket>>>,
    count: usize,
    /// When it was last looked through for what is full.
    swept: Option<Instant>,
}

/// A limit's label, and the host.
pub(super) type Key = (Arc<str>, Arc<str>);

/// The moments at which a workload's tokens of each kind are all there again.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) requests: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum RateUnit {
    /// An HTTP request.
    Request,
    /// A connection.
    Connection,
}

/// Why something is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) enum Limited {
    /// A limit is reached.
    Rate {
        /// What is counted.
        what: RateUnit,
        /// The limit.
        rate: Rate,
        /// Who sets it.
        label: Arc<str>,
    },
    /// The workload asks for more hosts than can be counted.
    Hosts,
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate { what, rate, label } => {
                let what = match what {
                    RateUnit::Request => "requests",
                    RateUnit::Connection => "connections",
                };
                let Rate { per_second, burst } = rate;
                write!(
                    f,
                    "{label} allows each workload {per_second} {what} a second to each host, {burst} at once"
                )
            }
            Self::Hosts => f.write_str(
                "the workload has asked for more hosts than its share of the rate limits' table counts",
            ),
        }
    }
}

/// Every limit for a workload and host, with what was used of it.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Meters(Option<Arc<[Meter]>>);

#[derive(Debug)]
struct Meter {
    limit: Arc<RateLimit>,
    bucket: Arc<Bucket>,
    began: Instant,
}

impl Default for Rates {
    fn default() -> Self {
        Self { began: Instant::now(), table: Mutex::default() }
    }
}

impl Rates {
    /// The limits for this workload and host.
    ///
    /// # Errors
    /// [`Limited::Hosts`].
    pub(in super::super) fn meters<'a>(
        &self,
        limits: impl Iterator<Item = &'a Arc<RateLimit>>,
        owner: impl Fn() -> ShareOwner,
        host: impl FnOnce() -> Arc<str>,
    ) -> Result<Meters, Limited> {
        let mut limits = limits.peekable();
        if limits.peek().is_none() {
            return Ok(Meters::default());
        }
        self.meters_at(limits, owner, host, Instant::now())
    }

    fn meters_at<'a>(
        &self,
        limits: impl Iterator<Item = &'a Arc<RateLimit>>,
        owner: impl Fn() -> ShareOwner,
        host: impl FnOnce() -> Arc<str>,
        now: Instant,
    ) -> Result<Meters, Limited> {
        let mut limits = limits.peekable();
        if limits.peek().is_none() {
            return Ok(Meters::default());
        }
        let (owner, host) = (owner(), host());
        let meters = limits.map(|limit| {
            let key = (Arc::clone(&limit.label), Arc::clone(&host));
            let bucket = self.bucket(&owner, key, now).ok_or(Limited::Hosts)?;
            Ok(Meter { limit: Arc::clone(limit), bucket, began: self.began })
        });
        Ok(Meters(Some(meters.collect::<Result<_, _>>()?)))
    }

    pub(super) fn bucket(&self, owner: &ShareOwner, key: Key, now: Instant) -> Option<Arc<Bucket>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = table.owners.get(owner).and_then(|owned| owned.get(&key)) {
            return Some(Arc::clone(known));
        }
        let age = now.saturating_duration_since(table.swept.unwrap_or(self.began));
        if age >= SWEEP_AT_LEAST || (age >= SWEEP_AT_MOST && !table.has_room(owner)) {
            table.swept = Some(now);
            table.sweep(moment(self.began, now));
        }
        if !table.has_room(owner) {
            return None;
        }
        let bucket = Arc::<Bucket>::default();
        table.owners.entry(owner.clone()).or_default().insert(key, Arc::clone(&bucket));
        table.count += 1;
        Some(bucket)
    }
}

impl Table {
    fn has_room(&self, owner: &ShareOwner) -> bool {
        let used = self.owners.get(owner).map_or(0, HashMap::len);
        within_share(used, self.count, CAPACITY, SHARES)
    }

    /// Forgets what is full again and not in use.
    fn sweep(&mut self, now: u64) {
        self.owners.retain(|_, owned| {
            owned.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_full(now));
            !owned.is_empty()
        });
        self.count = self.owners.values().map(HashMap::len).sum();
    }
}

/// Nanoseconds by the table's clock; never 0.
pub(super) fn moment(began: Instant, now: Instant) -> u64 {
    let since = now.saturating_duration_since(began).as_nanos();
    u64::try_from(since).unwrap_or(u64::MAX).max(1)
}

impl Bucket {
    fn of(&self, what: RateUnit) -> &AtomicU64 {
        match what {
            RateUnit::Request => &self.requests,
            RateUnit::Connection => &self.connections,
        }
    }

    pub(super) fn is_full(&self, now: u64) -> bool {
        [&self.requests, &self.connections, &self.bytes]
            .iter()
            .all(|full| full.load(Relaxed) <= now)
    }
}

impl Meter {
    fn rate(&self, what: RateUnit) -> Option<Rate> {
        match what {
            RateUnit::Request => self.limit.requests,
            RateUnit::Connection => self.limit.connections,
        }
    }
}

impl Meters {
    fn all(&self) -> &[Meter] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether nothing is limited.
    pub(super) fn are_none(&self) -> bool {
        self.0.is_none()
    }

    /// Counts one, of each limit, or of none where one of them is reached.
    ///
    /// # Errors
    /// [`Limited::Rate`].
    pub(in super::super) fn count(&self, what: RateUnit) -> Result<(), Limited> {
        if self.are_none() {
            return Ok(());
        }
        self.count_at(what, Instant::now())
    }

    fn count_at(&self, what: RateUnit, now: Instant) -> Result<(), Limited> {
        for (done, meter) in self.all().iter().enumerate() {
            let Some(rate) = meter.rate(what) else { continue };
            let now = moment(meter.began, now);
            let taken = |full| rate.take(full, now, 1);
            if meter.bucket.of(what).fetch_update(Relaxed, Relaxed, taken).is_ok() {
                continue;
            }
            for before in &self.all()[..done] {
                if let Some(rate) = before.rate(what) {
                    before.bucket.of(what).fetch_sub(rate.span(1), Relaxed);
                }
            }
            return Err(Limited::Rate { what, rate, label: Arc::clone(&meter.limit.label) });
        }
        Ok(())
    }

    /// Whether bytes are limited.
    pub(in super::super) fn paces(&self) -> bool {
        self.all().iter().any(|meter| meter.limit.bytes.is_some())
    }

    /// Counts bytes that have moved.
    pub(super) fn moved(&self, bytes: u64, now: Instant) {
        for meter in self.all() {
            let Some(rate) = meter.limit.bytes else { continue };
            let now = moment(meter.began, now);
            let spent = |full| Some(rate.spend(full, now, bytes));
            // It never refuses.
            meter.bucket.bytes.fetch_update(Relaxed, Relaxed, spent).ok();
        }
    }

    /// How many bytes may move now, and where that is fewer than `least`, when there will be as many.
    pub(super) fn allowance(&self, least: u64, now: Instant) -> (u64, Option<Instant>) {
        let (mut allowed, mut until) = (u64::MAX, None);
        for meter in self.all() {
            let Some(rate) = meter.limit.bytes else { continue };
            let now = moment(meter.began, now);
            let full = meter.bucket.bytes.load(Relaxed);
            allowed = allowed.min(rate.left(full, now).max(1));
            let ready = rate.ready(full, least);
            if ready > now {
                until = until.max(Some(meter.began + Duration::from_nanos(ready)));
            }
        }
        (allowed, until)
    }
}

#[cfg(test)]
mod tests;
