//! Listing and watching one kind for as long as anybody wants it.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use kube::{
    Api, Client,
    runtime::watcher::{self, Error, Event, watcher},
};
use tokio::{sync::mpsc, time::sleep};

use super::{
    Key,
    objects::{Kind, Object},
    state::{Step, Update},
};

/// The first pause after an error, and the longest.
const SOONEST: Duration = Duration::from_millis(200);
const LATEST: Duration = Duration::from_secs(5);
/// For how long a kind must be missing until it counts as having no objects: a server that starts, and
/// one that has just learnt of the kind, says so too.
const MISSING: Duration = Duration::from_secs(3);
/// The same for a kind that was there.
const GONE: Duration = Duration::from_secs(10);

/// What to follow.
pub(super) struct Follow {
    pub(super) client: Client,
    /// The kind in each version that may be served, the best one first.
    pub(super) kinds: Vec<Kind>,
    /// All where absent.
    pub(super) namespace: Option<String>,
    /// The field selector.
    pub(super) fields: Option<String>,
}

impl Follow {
    /// Nothing yet.
    pub(super) fn of(client: &Client) -> Self {
        Self { client: client.clone(), kinds: Vec::new(), namespace: None, fields: None }
    }

    fn api(&self, version: usize) -> Option<Api<Object>> {
        let kind = self.kinds.get(version % self.kinds.len().max(1))?;
        let client = self.client.clone();
        Some(match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, kind),
            None => Api::all_with(client, kind),
        })
    }
}

/// Reports until nobody listens. `convert` takes from an object what counts; `None` is as if it were not
/// there.
pub(super) async fn follow<T>(
    of: Follow,
    updates: mpsc::Sender<Update>,
    convert: impl Fn(&Object) -> Option<T>,
    wrap: impl Fn(Step<T>) -> Update,
) {
    let config = match &of.fields {
        Some(fields) => watcher::Config::default().fields(fields),
        None => watcher::Config::default(),
    };
    // The server's own kinds are never missing: that they seem to be is a server that starts.
    let mut trouble =
        Trouble { custom: of.kinds.iter().any(Kind::is_custom), ..Trouble::default() };
    for version in 0.. {
        let Some(api) = of.api(version) else { return };
        let mut stream = pin!(watcher(api, config.clone()));
        let mut first = Vec::new();
        loop {
            let step = match stream.next().await {
                Some(Ok(Event::Init)) => {
                    first.clear();
                    continue;
                }
                Some(Ok(Event::InitApply(object))) => {
                    first.extend(convert(&object).map(|value| (key(&object), value)));
                    continue;
                }
                Some(Ok(Event::InitDone)) => Step::Replace(std::mem::take(&mut first)),
                Some(Ok(Event::Apply(object))) => match convert(&object) {
                    Some(value) => Step::Put(key(&object), value),
                    None => Step::Remove(key(&object)),
                },
                Some(Ok(Event::Delete(object))) => Step::Remove(key(&object)),
                Some(Err(error)) => {
                    let what = of.kinds.first().map_or("", |kind| kind.plural);
                    let next = trouble.after(&error, Instant::now());
                    tracing::debug!("{what}: {error}");
                    if next.is_empty && updates.send(wrap(Step::Replace(Vec::new()))).await.is_err()
                    {
                        return;
                    }
                    if let Some(text) = next.told {
                        tracing::warn!("the API server on {what}: {text}; what was known stays");
                    }
                    tokio::select! {
                        () = sleep(next.pause) => {}
                        () = updates.closed() => return,
                    }
                    if is_missing(&error) { break } else { continue }
                }
                None => break,
            };
            if trouble.is_over(step.is_complete()) {
                let what = of.kinds.first().map_or("", |kind| kind.plural);
                tracing::info!("the API server answers again on {what}");
            }
            if updates.send(wrap(step)).await.is_err() {
                return;
            }
        }
    }
}

/// Namespace and name.
fn key(object: &Object) -> Key {
    let metadata = &object.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// Whether the server doesn't know the kind, or not in this version.
fn is_missing(error: &Error) -> bool {
    let (Error::InitialListFailed(error) | Error::WatchStartFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// The failures so far. A state machine: the caller passes the time in.
#[derive(Debug, Default)]
struct Trouble {
    /// The kind may not be installed.
    custom: bool,
    /// Errors in a row.
    errors: u32,
    /// Since when the kind is missing.
    missing: Option<Instant>,
    /// It was told that there is no object.
    empty: bool,
    /// A list was complete.
    known: bool,
    told: bool,
}

/// What to do after an error.
#[derive(Debug)]
struct Next {
    pause: Duration,
    /// There is no such kind, and so no object of it.
    is_empty: bool,
    /// What to log: the first of a row, if it isn't that the kind is missing.
    told: Option<String>,
}

impl Trouble {
    fn after(&mut self, error: &Error, now: Instant) -> Next {
        self.errors = self.errors.saturating_add(1);
        if !self.custom || !is_missing(error) {
            self.missing = None;
            let told = (!self.told && self.errors > 1).then(|| error.to_string());
            self.told |= told.is_some();
            return Next { pause: self.pause(), is_empty: false, told };
        }
        let since = *self.missing.get_or_insert(now);
        let limit = if self.known { GONE } else { MISSING };
        let is_empty = !self.empty && now.duration_since(since) >= limit;
        if is_empty {
            (self.empty, self.known) = (true, false);
        }
        // Every version is asked in turn, so the pause is short as long as this is news.
        Next { pause: if self.empty { self.pause() } else { SOONEST }, is_empty, told: None }
    }

    fn pause(&self) -> Duration {
        let doubled = SOONEST * 2_u32.saturating_pow(self.errors.min(10));
        let longest = doubled.min(LATEST);
        // Thousands of agents must not come back at one moment.
        let random = uuid::Uuid::new_v4().as_u128() % 256;
        longest.mul_f64(0.5 + f64::from(u8::try_from(random).unwrap_or(0)) / 512.0)
    }

    /// The server has answered. Whether that is news worth telling.
    fn is_over(&mut self, complete: bool) -> bool {
        self.known |= complete;
        let told = self.told;
        *self = Self { known: self.known, custom: self.custom, ..Self::default() };
        told
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn error(code: u16) -> Error {
        let status = Status { code, ..Status::default() };
        Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_kind_is_empty_only_when_it_is_missing_for_a_while() {
        let custom = Trouble { custom: true, ..Trouble::default() };
        let (start, mut trouble) = (Instant::now(), custom);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!trouble.after(&error(404), at(0)).is_empty);
        assert!(!trouble.after(&error(404), at(2)).is_empty);
        // The server starts. Whether the kind exists is not known yet.
        assert!(!trouble.after(&error(503), at(3)).is_empty);
        assert!(!trouble.after(&error(404), at(4)).is_empty);
        assert!(trouble.after(&error(404), at(7)).is_empty);
        assert!(!trouble.after(&error(404), at(30)).is_empty, "it was told already");
        // Once it was there, it takes longer.
        assert!(trouble.is_over(true), "the 503 was reported");
        assert!(!trouble.after(&error(404), at(40)).is_empty);
        assert!(!trouble.after(&error(404), at(49)).is_empty);
        assert!(trouble.after(&error(404), at(50)).is_empty);
    }

    #[test]
    fn other_errors_never_say_that_there_is_nothing() {
        let (start, mut trouble) = (Instant::now(), Trouble::default());
        // Not even 404, of a kind that every server has.
        for (second, code) in (0..600).zip([401, 403, 404, 429, 500, 503].into_iter().cycle()) {
            let next = trouble.after(&error(code), start + Duration::from_secs(second));
            assert!(!next.is_empty && next.pause <= LATEST, "{next:?}");
        }
    }

    #[test]
    fn trouble_is_told_once_and_its_end_too() {
        let (now, mut trouble) = (Instant::now(), Trouble::default());
        assert!(trouble.after(&error(503), now).told.is_none(), "one alone is nothing");
        assert!(trouble.after(&error(503), now).told.is_some());
        assert!(trouble.after(&error(503), now).told.is_none());
        assert!(trouble.is_over(false) && !trouble.is_over(false));
    }
}
