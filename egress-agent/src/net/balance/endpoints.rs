//! The endpoints of a cluster: an array that is replaced as a whole, of numbers that change in place.
//! Neither a dial nor the end of a connection takes a lock.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::{policy::OutlierDetection, types::UpstreamAddr};

/// Endpoints remembered per cluster before those without load or ejection are forgotten.
const ENDPOINTS: usize = 4096;
/// An ejection never lasts longer (Envoy's `max_ejection_time`).
const LONGEST_EJECTION: Duration = Duration::from_secs(300);

/// What is known of one endpoint.
#[derive(Debug, Default)]
pub(super) struct EndpointState {
    /// Connections that stand.
    pub(super) connections: AtomicU32,
    /// Requests under way, and connections that carry something other than HTTP.
    pub(super) active: AtomicU32,
    /// Errors in a row.
    errors: AtomicU32,
    /// Those in a row that say that nothing behind the endpoint answers.
    gateway_errors: AtomicU32,
    /// Failures of connections in a row, where they are counted by themselves.
    failures: AtomicU32,
    /// Ejections so far: each lasts longer than the one before.
    ejections: AtomicU32,
    /// When it is back, as a [`ClusterInstant`]; 0 where it was never ejected.
    ejected_until: AtomicU64,
}

impl EndpointState {
    fn is_ejected(&self, now: ClusterInstant) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now.0
    }

    fn is_in_use(&self, now: ClusterInstant) -> bool {
        self.connections.load(Ordering::Relaxed) > 0
            || self.active.load(Ordering::Relaxed) > 0
            || self.is_ejected(now)
    }

    /// Nothing counts of what was counted so far.
    fn begin_anew(&self) {
        [&self.errors, &self.gateway_errors, &self.failures].into_iter().for_each(reset);
    }

    fn restore(&self) {
        self.begin_anew();
        self.ejections.store(0, Ordering::Relaxed);
        self.ejected_until.store(0, Ordering::Relaxed);
    }
}

/// How an exchange with an endpoint ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exchange {
    /// Well.
    Good,
    /// With an answer that is an error of the server itself.
    ServerError,
    /// With an answer that is an error of a gateway: 502, 503 or 504.
    GatewayError,
    /// Without an answer: the connection failed, or TLS did.
    Failed,
}

/// Stores 0 where it is not there already.
fn reset(count: &AtomicU32) {
    if count.load(Ordering::Relaxed) != 0 {
        count.store(0, Ordering::Relaxed);
    }
}

/// Nanoseconds by a cluster's own clock; never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct ClusterInstant(u64);

/// The endpoints in the order of their addresses.
type Array = Box<[(UpstreamAddr, Arc<EndpointState>)]>;

/// All endpoints of a cluster that were dialled, up to [`ENDPOINTS`] without load or ejection.
#[derive(Debug)]
pub(super) struct Endpoints {
    array: ArcSwap<Array>,
    /// When the last ejection ends: from then on no endpoint has to be checked.
    last_until: AtomicU64,
    /// Held while an endpoint is ejected: the share that may be ejected counts for all together.
    ejecting: Mutex<()>,
    began: Instant,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            array: ArcSwap::from_pointee(Array::default()),
            last_until: AtomicU64::new(0),
            ejecting: Mutex::new(()),
            began: Instant::now(),
        }
    }
}

fn find(array: &Array, addr: UpstreamAddr) -> Option<&Arc<EndpointState>> {
    let at = array.binary_search_by_key(&addr, |(known, _)| *known).ok()?;
    array.get(at).map(|(_, state)| state)
}

impl Endpoints {
    fn moment(&self, instant: Instant) -> ClusterInstant {
        let since = instant.saturating_duration_since(self.began).as_nanos();
        ClusterInstant(u64::try_from(since).unwrap_or(u64::MAX).max(1))
    }

    fn now(&self) -> ClusterInstant {
        self.moment(Instant::now())
    }

    /// The endpoint's numbers, which begin at zero.
    pub(super) fn get(&self, addr: UpstreamAddr) -> Arc<EndpointState> {
        if let Some(known) = find(&self.array.load(), addr) {
            return Arc::clone(known);
        }
        let new = Arc::<EndpointState>::default();
        let now = self.now();
        self.array.rcu(|old| with(old, addr, &new, now));
        // Another thread may have been quicker, or may have forgotten it since.
        find(&self.array.load(), addr).map_or(new, Arc::clone)
    }

    /// The load of an endpoint.
    pub(super) fn load(&self, addr: UpstreamAddr) -> u32 {
        find(&self.array.load(), addr).map_or(0, |state| state.active.load(Ordering::Relaxed))
    }

    /// The moment to ask about ejections at; `None` where no endpoint is ejected.
    fn ejecting_now(&self) -> Option<ClusterInstant> {
        let last = self.last_until.load(Ordering::Relaxed);
        if last == 0 {
            return None;
        }
        let now = self.now();
        (last > now.0).then_some(now)
    }

    /// Leaves those of the list that are not ejected.
    pub(super) fn retain_healthy<T>(&self, list: &mut Vec<T>, addr: impl Fn(&T) -> UpstreamAddr) {
        let Some(now) = self.ejecting_now() else { return };
        let array = self.array.load();
        list.retain(|one| !find(&array, addr(one)).is_some_and(|state| state.is_ejected(now)));
    }

    /// How many are ejected.
    pub(super) fn ejected(&self) -> usize {
        let Some(now) = self.ejecting_now() else { return 0 };
        self.array.load().iter().filter(|(_, state)| state.is_ejected(now)).count()
    }

    /// Ends all ejections: the rule that they came from is gone.
    pub(super) fn restore(&self) {
        let _ejecting = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        self.array.load().iter().for_each(|(_, state)| state.restore());
        self.last_until.store(0, Ordering::Relaxed);
    }

    /// Takes how an exchange with an endpoint ended. Of `total` endpoints at least one may be ejected,
    /// as in Envoy; more only up to the percentage.
    pub(super) fn judge(
        &self,
        endpoint: &EndpointState,
        how: Exchange,
        rule: OutlierDetection,
        total: usize,
    ) {
        // Whatever was answered, the connection was none that failed.
        if how != Exchange::Failed {
            reset(&endpoint.failures);
        }
        if matches!(how, Exchange::Good | Exchange::ServerError) {
            reset(&endpoint.gateway_errors);
        }
        let errors = (&endpoint.errors, rule.consecutive_errors);
        let gateway = (&endpoint.gateway_errors, rule.gateway_errors);
        let counted: &[(&AtomicU32, u32)] = match (how, rule.local_origin_failures) {
            (Exchange::Good, _) => return reset(&endpoint.errors),
            (Exchange::Failed, Some(most)) => &[(&endpoint.failures, most)],
            (Exchange::Failed, None) | (Exchange::GatewayError, _) => &[errors, gateway],
            (Exchange::ServerError, _) => &[errors],
        };
        let more = |errors: u32| Some(errors.saturating_add(1));
        for (count, _) in counted {
            // It never fails: there is always a next number.
            let _counted = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
        let is_due = || {
            let due = |(count, most): &(&AtomicU32, u32)| {
                *most > 0 && count.load(Ordering::Relaxed) >= *most
            };
            counted.iter().any(due)
        };
        if !is_due() {
            return;
        }
        let _ejecting = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let instant = Instant::now();
        let now = self.moment(instant);
        // Another thread may have ejected it, or a good answer may have come since.
        if endpoint.is_ejected(now) || !is_due() {
            return;
        }
        let ejected = self.ejected();
        if ejected > 0 && (ejected + 1) * 100 > total * usize::from(rule.max_ejection_percent) {
            return;
        }
        // As in Envoy, where an endpoint that is back begins anew: one number may have been close to its limit when
        // the other one reached its own.
        endpoint.begin_anew();
        let before = endpoint.ejections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        let times = before.unwrap_or(0).saturating_add(1);
        let time = rule.base_ejection_time.saturating_mul(times);
        let longest = LONGEST_EJECTION.max(rule.base_ejection_time);
        let ClusterInstant(until) = self.moment(instant + time.min(longest));
        endpoint.ejected_until.store(until, Ordering::Relaxed);
        self.last_until.fetch_max(until, Ordering::Relaxed);
    }

    /// When the endpoint is back.
    #[cfg(test)]
    pub(super) fn ejected_until(&self, addr: UpstreamAddr) -> Instant {
        let until = self.get(addr).ejected_until.load(Ordering::Relaxed);
        self.began + Duration::from_nanos(until)
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.array.load().len()
    }
}

/// The array with one more endpoint, if that isn't there; where it is full, without those that nothing
/// would be lost of.
fn with(
    old: &Arc<Array>,
    addr: UpstreamAddr,
    new: &Arc<EndpointState>,
    now: ClusterInstant,
) -> Arc<Array> {
    let Err(at) = old.binary_search_by_key(&addr, |(known, _)| *known) else {
        return Arc::clone(old);
    };
    let (before, after) = old.split_at(at);
    let full = old.len() >= ENDPOINTS;
    let stays = |(_, state): &&(UpstreamAddr, Arc<EndpointState>)| !full || state.is_in_use(now);
    let before = before.iter().filter(stays).cloned();
    let after = after.iter().filter(stays).cloned();
    Arc::new(before.chain([(addr, Arc::clone(new))]).chain(after).collect())
}
