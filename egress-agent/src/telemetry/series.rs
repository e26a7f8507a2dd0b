//! Istio's standard metrics: requests and connections by who asked, whom, and what came of it.
//!
//! Every label's values come from the configuration or from a fixed set, never from a request's
//! bytes, and the number of series is bounded besides.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{AccessLogEntry, ResponseFlags, shard::Counters};
use crate::{
    policy::ClusterName,
    types::{DownstreamTls, Workload},
};

/// The highest status of gRPC. An upstream may send any number, and each would be a series.
const UNAUTHENTICATED: u8 = 16;

/// What tells one series from another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SeriesKey<'a> {
    /// `source_workload`, `source_workload_namespace`.
    pub source: Option<(&'a str, &'a str)>,
    /// `source_principal`: the SPIFFE ID that the client proved.
    pub principal: Option<&'a str>,
    /// The cluster, which names `destination_service`.
    pub cluster: Option<&'a str>,
    /// `request_protocol`.
    pub protocol: RequestProtocol,
    /// `response_code`; 0 for TCP.
    pub response_code: u16,
    /// `grpc_response_status`: of gRPC alone, and only a status that gRPC knows.
    pub grpc_status: Option<u8>,
    /// `response_flags`.
    pub response_flags: ResponseFlags,
}

/// `request_protocol`, with Istio's names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum RequestProtocol {
    /// HTTP of any version.
    Http,
    /// gRPC over it.
    Grpc,
    /// TCP and TLS passthrough.
    Tcp,
}

impl RequestProtocol {
    /// Whether requests are counted, and not connections.
    #[must_use]
    pub const fn has_requests(self) -> bool {
        match self {
            Self::Http | Self::Grpc => true,
            Self::Tcp => false,
        }
    }

    /// The label's value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

impl<'a> SeriesKey<'a> {
    pub(super) fn request(entry: &'a AccessLogEntry) -> Self {
        Self {
            source: entry.workload.as_deref().map(source),
            principal: entry.downstream_tls.as_deref().and_then(DownstreamTls::principal_name),
            cluster: entry.upstream_cluster.as_ref().map(|name| &*name.0),
            protocol: if entry.is_grpc { RequestProtocol::Grpc } else { RequestProtocol::Http },
            response_code: entry.response_code,
            grpc_status: entry.grpc_status.filter(|code| entry.is_grpc && *code <= UNAUTHENTICATED),
            response_flags: entry.response_flags,
        }
    }

    pub(super) fn opened(
        workload: Option<&'a Workload>,
        tls: Option<&'a DownstreamTls>,
        cluster: &'a ClusterName,
    ) -> Self {
        Self {
            source: workload.map(source),
            principal: tls.and_then(DownstreamTls::principal_name),
            cluster: Some(&cluster.0),
            protocol: RequestProtocol::Tcp,
            response_code: 0,
            grpc_status: None,
            response_flags: ResponseFlags::default(),
        }
    }

    pub(super) fn closed(entry: &'a AccessLogEntry) -> Self {
        let protocol = RequestProtocol::Tcp;
        Self { protocol, response_code: 0, grpc_status: None, ..Self::request(entry) }
    }

    /// What is counted here once there are too many series.
    fn overflow(self) -> Self {
        Self { source: None, principal: None, cluster: None, grpc_status: None, ..self }
    }
}

fn source(workload: &Workload) -> (&str, &str) {
    (&workload.name, &workload.namespace.0)
}

/// The upper bounds of `istio_request_duration_milliseconds`, Istio's own, in milliseconds.
pub const DURATION_BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

const OPENED: usize = 0;
const CLOSED: usize = 1;
const RECEIVED: usize = 2;
const SENT: usize = 3;
const MICROSECONDS: usize = 4;
/// One more than there are bounds: the last is without bound.
const FIRST_BUCKET: usize = 5;
const CELLS: usize = FIRST_BUCKET + DURATION_BUCKETS.len() + 1;

/// The counters of one combination of labels.
#[derive(Debug)]
pub struct Series {
    source: Option<(Box<str>, Box<str>)>,
    principal: Option<Box<str>>,
    cluster: Option<Box<str>>,
    protocol: RequestProtocol,
    response_code: u16,
    grpc_status: Option<u8>,
    response_flags: ResponseFlags,
    counters: Counters<CELLS>,
}

impl Series {
    fn new(key: &SeriesKey<'_>) -> Self {
        Self {
            source: key.source.map(|(name, namespace)| (name.into(), namespace.into())),
            principal: key.principal.map(Into::into),
            cluster: key.cluster.map(Into::into),
            protocol: key.protocol,
            response_code: key.response_code,
            grpc_status: key.grpc_status,
            response_flags: key.response_flags,
            counters: Counters::new(),
        }
    }

    /// Its labels.
    #[must_use]
    pub fn key(&self) -> SeriesKey<'_> {
        SeriesKey {
            source: self.source.as_ref().map(|(name, namespace)| (&**name, &**namespace)),
            principal: self.principal.as_deref(),
            cluster: self.cluster.as_deref(),
            protocol: self.protocol,
            response_code: self.response_code,
            grpc_status: self.grpc_status,
            response_flags: self.response_flags,
        }
    }

    pub(super) fn request(&self, duration: Duration) {
        let milliseconds = duration.as_secs_f64() * 1e3;
        let bucket = DURATION_BUCKETS.partition_point(|bound| *bound < milliseconds);
        self.counters.add(FIRST_BUCKET + bucket, 1);
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.counters.add(MICROSECONDS, microseconds);
    }

    pub(super) fn opened(&self) {
        self.counters.add(OPENED, 1);
    }

    pub(super) fn closed(&self, received: u64, sent: u64) {
        self.counters.add(CLOSED, 1);
        self.counters.add(RECEIVED, received);
        self.counters.add(SENT, sent);
    }

    /// How many requests took at most each bound of [`DURATION_BUCKETS`], all of them last.
    #[must_use]
    pub fn durations(&self) -> [u64; DURATION_BUCKETS.len() + 1] {
        let mut below = 0;
        std::array::from_fn(|bucket| {
            below += self.counters.get(FIRST_BUCKET + bucket);
            below
        })
    }

    /// Microseconds that all requests took together.
    #[must_use]
    pub fn microseconds(&self) -> u64 {
        self.counters.get(MICROSECONDS)
    }

    /// Connections opened.
    #[must_use]
    pub fn connections_opened(&self) -> u64 {
        self.counters.get(OPENED)
    }

    /// Connections closed.
    #[must_use]
    pub fn connections_closed(&self) -> u64 {
        self.counters.get(CLOSED)
    }

    /// Bytes received from and sent to clients, over connections that are closed.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.counters.get(RECEIVED), self.counters.get(SENT))
    }
}

/// Series of one table; beyond them only the codes of HTTP, flags and protocols are told apart.
const MAX_SERIES: usize = 4096;
/// Series that a thread remembers before it forgets them all.
const MAX_CACHED: usize = 1024;

/// All series, with a cache a thread so that counting takes no lock.
#[derive(Debug)]
pub(super) struct SeriesTable {
    /// Tells this table from others in the threads' caches.
    id: u64,
    all: Mutex<BTreeMap<OwnedKey, Arc<Series>>>,
}

type OwnedKey = (
    Option<(Box<str>, Box<str>)>,
    Option<Box<str>>,
    Option<Box<str>>,
    RequestProtocol,
    u16,
    Option<u8>,
    u32,
);

impl Default for SeriesTable {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Relaxed), all: Mutex::default() }
    }
}

/// By hash of the table and the key; the few that share a hash are told apart by their keys.
type Cache = HashMap<u64, Vec<(u64, Arc<Series>)>>;

thread_local!(static CACHE: RefCell<Cache> = RefCell::default());

impl SeriesTable {
    pub(super) fn with(&self, key: &SeriesKey<'_>, count: impl FnOnce(&Series)) {
        let mut hasher = DefaultHasher::new();
        (self.id, key).hash(&mut hasher);
        let hash = hasher.finish();
        CACHE.with_borrow_mut(|cache| {
            let cached = cache.get(&hash).and_then(|series| {
                series.iter().find(|(table, series)| *table == self.id && series.key() == *key)
            });
            if let Some((_, series)) = cached {
                count(series);
                return;
            }
            let series = self.find(key);
            count(&series);
            if cache.len() >= MAX_CACHED {
                cache.clear();
            }
            // Only a series of exactly this key: the one for the overflow has another.
            if series.key() == *key {
                cache.entry(hash).or_default().push((self.id, series));
            }
        });
    }

    fn find(&self, key: &SeriesKey<'_>) -> Arc<Series> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let owned = owned(key);
        if let Some(series) = all.get(&owned) {
            return Arc::clone(series);
        }
        if all.len() < MAX_SERIES {
            return Arc::clone(all.entry(owned).or_insert_with(|| Arc::new(Series::new(key))));
        }
        // Codes and flags are few, so this is bounded too.
        let key = key.overflow();
        Arc::clone(all.entry(self::owned(&key)).or_insert_with(|| Arc::new(Series::new(&key))))
    }

    pub(super) fn all(&self) -> Vec<Arc<Series>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }
}

fn owned(key: &SeriesKey<'_>) -> OwnedKey {
    (
        key.source.map(|(name, namespace)| (name.into(), namespace.into())),
        key.principal.map(Into::into),
        key.cluster.map(Into::into),
        key.protocol,
        key.response_code,
        key.grpc_status,
        key.response_flags.bits(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cluster: &str, code: u16) -> SeriesKey<'_> {
        SeriesKey {
            source: Some(("curl", "default")),
            principal: None,
            cluster: Some(cluster),
            protocol: RequestProtocol::Http,
            response_code: code,
            grpc_status: None,
            response_flags: ResponseFlags::default(),
        }
    }

    #[test]
    fn threads_and_tables_keep_their_series_apart() {
        let (one, two) = (Arc::new(SeriesTable::default()), SeriesTable::default());
        two.with(&key("a", 200), |series| series.request(Duration::from_millis(3)));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let one = Arc::clone(&one);
                std::thread::spawn(move || {
                    for _ in 0..100 {
                        one.with(&key("a", 200), |s| s.request(Duration::from_millis(1)));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(one.all().len(), 1);
        assert_eq!(one.all()[0].durations().last(), Some(&300));
        assert_eq!(two.all()[0].durations().last(), Some(&1));
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let table = SeriesTable::default();
        for n in 0..(MAX_SERIES + 500) {
            table.with(&key(&format!("cluster {n}"), 200), |s| s.request(Duration::ZERO));
        }
        let all = table.all();
        assert_eq!(all.len(), MAX_SERIES + 1);
        let overflow = all.iter().find(|series| series.key().cluster.is_none()).unwrap();
        assert_eq!(overflow.durations().last(), Some(&500));
        let total: u64 = all.iter().map(|series| series.durations()[0]).sum();
        assert_eq!(total, u64::try_from(MAX_SERIES + 500).unwrap());
    }

    #[test]
    fn durations_are_cumulative_with_inclusive_bounds() {
        let series = Series::new(&key("a", 200));
        for micros in [400, 500, 501, 1_000, 4_000_000_000] {
            series.request(Duration::from_micros(micros));
        }
        let durations = series.durations();
        assert_eq!(durations[..3], [2, 4, 4]);
        assert_eq!(durations[DURATION_BUCKETS.len() - 1..], [4, 5]);
        assert_eq!(series.microseconds(), 4_000_002_401);
    }
}
