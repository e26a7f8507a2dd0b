//! Listing and watching one kind for as long as anybody wants it.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use http::Request;
use kube::{
    Api, Client,
    core::Status,
    runtime::watcher::{self, Error, Event, watcher},
};
use tokio::{sync::mpsc, time::sleep};

use super::{
    kinds::Kind,
    objects::Object,
    pause::{SOONEST, pause},
    step::{Key, Step},
};

/// For how long a kind must be missing until it is asked whether it is defined at all: a server that starts,
/// and one that has just learnt of the kind, says that it is missing too.
const MISSING: Duration = Duration::from_secs(3);
/// Between two such questions.
const AGAIN: Duration = Duration::from_secs(10);
/// For how long a server must refuse until it counts as one that has started, where it may not be asked.
const UNSURE: Duration = Duration::from_secs(60);
/// Where a server says whether it has started. Kubernetes lets everybody ask.
const READY: &str = "/readyz";

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

    /// Whether the server has the kind's definition.
    async fn definition(&self) -> Definition {
        let Some(kind) = self.kinds.first() else { return Definition::Unknown };
        let api: Api<Object> = Api::all_with(self.client.clone(), &Kind::definition());
        match api.get_metadata(&kind.definition_name()).await {
            Ok(_) => Definition::Present,
            Err(kube::Error::Api(status)) if is_absent(&status) => Definition::Absent,
            Err(_) => Definition::Unknown,
        }
    }

    /// Whether the server has started: one that starts refuses, and does not know, what it will answer soon.
    async fn readiness(&self) -> Readiness {
        let Ok(request) = Request::get(READY).body(Vec::new()) else { return Readiness::Unknown };
        match self.client.request_text(request).await {
            Ok(_) => Readiness::Ready,
            // There is no right to ask, or a proxy before it that does not know the path.
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => {
                Readiness::Unknown
            }
            Err(_) => Readiness::Starts,
        }
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
pub(super) async fn follow<T, U>(
    of: Follow,
    updates: mpsc::Sender<U>,
    convert: impl Fn(&Object) -> Option<T>,
    wrap: impl Fn(Step<T>) -> U,
) {
    let config = match &of.fields {
        Some(fields) => watcher::Config::default().fields(fields),
        None => watcher::Config::default(),
    };
    let mut trouble = FailureHistory::of(&of.kinds);
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
                    let empty = match next.absence {
                        Absence::No => false,
                        Absence::Ask => trouble.decide(of.definition().await),
                        Absence::AskReadiness => {
                            trouble.decide_refused(of.readiness().await, Instant::now())
                        }
                    };
                    if empty {
                        if next.absence == Absence::AskReadiness {
                            tracing::info!("the API server has no {what} for this agent");
                        }
                        if updates.send(wrap(Step::Replace(Vec::new()))).await.is_err() {
                            return;
                        }
                    } else if next.absence == Absence::Ask && trouble.keeps() {
                        let stays = match trouble.known {
                            true => "what was known of them stays in force",
                            false => "no configuration is put in force until it does",
                        };
                        tracing::warn!(
                            "the API server does not serve {what}, and does not say that they have no \
                             definition; {stays}"
                        );
                    }
                    if let Some(text) = next.told {
                        tracing::warn!("the API server on {what}: {text}; what was known stays");
                    }
                    tokio::select! {
                        () = sleep(trouble.soon().unwrap_or(next.pause)) => {}
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

/// Whether there is no right to read the kind, or the server does not know of it yet.
fn is_forbidden(error: &Error) -> bool {
    let (Error::InitialListFailed(error) | Error::WatchStartFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// What the server says of a kind's definition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Definition {
    Present,
    Absent,
    /// There is no right to read it, or no answer.
    Unknown,
}

/// Whether the server has looked for a definition and found none. One that starts answers 404 too, in plain
/// text: it does not know yet what definitions are.
fn is_absent(status: &Status) -> bool {
    status.code == 404
        && status.reason == "NotFound"
        && status.details.as_ref().is_some_and(|details| details.kind == Kind::definition().plural)
}

/// What the server says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Readiness {
    Ready,
    /// It starts, or does not answer.
    Starts,
    /// There is no right to ask.
    Unknown,
}

/// What is known of a kind's absence after an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Absence {
    /// Nothing.
    No,
    /// Whether it is defined must be asked.
    Ask,
    /// Whether the server has started must be asked.
    AskReadiness,
}

/// Which kind may be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum KindPresence {
    /// One that every server has: that it seems to be missing is a server that starts.
    #[default]
    Always,
    /// One that is installed, by its definition.
    Defined,
    /// One without which less is known and more is denied.
    Optional,
}

/// The failures so far. A state machine: the caller passes the time in.
#[derive(Debug, Default)]
struct FailureHistory {
    presence: KindPresence,
    /// Errors in a row.
    errors: u32,
    /// Since when the kind is missing.
    missing: Option<Instant>,
    /// When the definition was asked for last.
    asked: Option<Instant>,
    /// It was told that there is no object.
    empty: bool,
    /// The server has said that it is ready: what it refuses from now on is no sign of a start.
    ready: bool,
    /// It was told that the objects stay.
    kept: bool,
    /// A list was complete.
    known: bool,
    told: bool,
}

/// What to do after an error.
#[derive(Debug)]
struct AfterError {
    pause: Duration,
    absence: Absence,
    /// What to log: the first of a row, if it isn't that the kind is missing.
    told: Option<String>,
}

impl FailureHistory {
    fn of(kinds: &[Kind]) -> Self {
        let presence = match kinds {
            kinds if kinds.iter().any(Kind::is_custom) => KindPresence::Defined,
            kinds if kinds.iter().any(|kind| kind.is_optional) => KindPresence::Optional,
            _ => KindPresence::Always,
        };
        Self { presence, ..Self::default() }
    }

    fn after(&mut self, error: &Error, now: Instant) -> AfterError {
        self.errors = self.errors.saturating_add(1);
        if self.presence == KindPresence::Optional && (is_missing(error) || is_forbidden(error)) {
            return self.after_refusal(now);
        }
        if self.presence != KindPresence::Defined || !is_missing(error) {
            self.missing = None;
            let told = (!self.told && self.errors > 1).then(|| error.to_string());
            self.told |= told.is_some();
            return AfterError { pause: pause(self.errors), absence: Absence::No, told };
        }
        let since = *self.missing.get_or_insert(now);
        let waited = now.duration_since(since) >= MISSING;
        let again = self.asked.is_none_or(|asked| now.duration_since(asked) >= AGAIN);
        let ask = !self.empty && waited && again;
        // Every version is asked in turn, so the pause is short as long as this is news.
        let settled = self.empty || self.asked.is_some();
        if ask {
            self.asked = Some(now);
        }
        let absence = if ask { Absence::Ask } else { Absence::No };
        AfterError {
            pause: if settled { pause(self.errors) } else { SOONEST },
            absence,
            told: None,
        }
    }

    /// A server that starts says the same for a while. What was known stays; what never was counts as empty when
    /// the server is ready and still says so.
    fn after_refusal(&mut self, now: Instant) -> AfterError {
        let since = *self.missing.get_or_insert(now);
        let waited = now.duration_since(since) >= MISSING;
        let ask = waited && !self.known && !self.empty;
        let absence = if ask { Absence::AskReadiness } else { Absence::No };
        AfterError { pause: if waited { pause(self.errors) } else { SOONEST }, absence, told: None }
    }

    /// Whether what the server refuses counts as empty from now on. An agent that starts again takes what an
    /// earlier one left in the kernel for the last known, and replaces it by its own first configuration: so that
    /// must not come from a server that does not know its own objects yet.
    fn decide_refused(&mut self, readiness: Readiness, now: Instant) -> bool {
        // The refusal that counts is one after the server was ready.
        let was_ready = self.ready;
        self.ready = readiness == Readiness::Ready;
        let unsure = self.missing.is_some_and(|since| now.duration_since(since) >= UNSURE);
        self.empty = match readiness {
            Readiness::Ready => was_ready,
            Readiness::Starts => false,
            Readiness::Unknown => unsure,
        };
        self.empty
    }

    /// The pause before the refusal that decides.
    fn soon(&self) -> Option<Duration> {
        (self.ready && !self.empty).then_some(SOONEST)
    }

    /// Whether the kind has no objects from now on. Each kind can restrict: a missing `AuthorizationPolicy`
    /// denies nothing, a missing `DestinationRule` asks for no TLS. So what was known stays until the server says
    /// that the definition is deleted; its objects are gone then. Where nobody may ask, it does not say so.
    fn decide(&mut self, definition: Definition) -> bool {
        self.empty = match definition {
            Definition::Absent => true,
            Definition::Present | Definition::Unknown => false,
        };
        if self.empty {
            self.known = false;
        }
        self.empty
    }

    /// Whether it is news that the objects stay.
    fn keeps(&mut self) -> bool {
        !std::mem::replace(&mut self.kept, true)
    }

    /// The server has answered. Whether that is news worth telling.
    fn is_over(&mut self, complete: bool) -> bool {
        self.known |= complete;
        let told = self.told;
        *self = Self { known: self.known, presence: self.presence, ..Self::default() };
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kubernetes::pause::LATEST;

    fn error(code: u16) -> Error {
        let status = Status { code, ..Status::default() };
        Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    /// Whether the kind is asked about after this error, and empty with this answer.
    fn empty_after(
        trouble: &mut FailureHistory,
        code: u16,
        now: Instant,
        definition: Definition,
    ) -> Option<bool> {
        let ask = trouble.after(&error(code), now).absence == Absence::Ask;
        ask.then(|| trouble.decide(definition))
    }

    #[test]
    fn a_kind_that_was_never_there_is_empty_when_it_is_missing_for_a_while() {
        for (definition, empty) in [
            (Definition::Absent, true),
            // Nobody may ask: it may be installed, and restrict.
            (Definition::Unknown, false),
            // It is installed, in a version that is not known: it may restrict.
            (Definition::Present, false),
        ] {
            let (start, mut trouble) = (
                Instant::now(),
                FailureHistory { presence: KindPresence::Defined, ..FailureHistory::default() },
            );
            let mut after = |code, seconds| {
                let now = start + Duration::from_secs(seconds);
                empty_after(&mut trouble, code, now, definition)
            };
            assert_eq!([after(404, 0), after(404, 2)], [None, None]);
            // The server starts. Whether the kind exists is not known yet.
            assert_eq!([after(503, 3), after(404, 4)], [None, None]);
            assert_eq!(after(404, 7), Some(empty), "{definition:?}");
            assert_eq!(after(404, 30), (!empty).then_some(false), "it was told already");
        }
    }

    #[test]
    fn what_was_known_stays_until_the_definition_is_deleted() {
        let (start, mut trouble) = (
            Instant::now(),
            FailureHistory { presence: KindPresence::Defined, ..FailureHistory::default() },
        );
        assert!(!trouble.is_over(true));
        let mut after = |seconds, definition| {
            empty_after(&mut trouble, 404, start + Duration::from_secs(seconds), definition)
        };
        assert_eq!(after(0, Definition::Absent), None, "too soon to ask");
        assert_eq!(after(3, Definition::Unknown), Some(false));
        assert_eq!(after(5, Definition::Absent), None, "too soon to ask again");
        for minutes in 1..60 {
            assert_eq!(after(minutes * 60, Definition::Unknown), Some(false));
            assert_eq!(after(minutes * 60 + 30, Definition::Present), Some(false));
        }
        assert_eq!(after(4000, Definition::Absent), Some(true));
        assert_eq!(after(5000, Definition::Absent), None, "it was told already");
    }

    #[test]
    fn only_an_answer_about_the_definition_says_that_it_is_deleted() {
        let status = |text: serde_json::Value| serde_json::from_value::<Status>(text).unwrap();
        let absent = serde_json::json!({
            "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404,
            "details": {"name": "x", "group": "apiextensions.k8s.io", "kind": "customresourcedefinitions"},
        });
        assert!(is_absent(&status(absent.clone())));
        let mut other = absent.clone();
        other["details"]["kind"] = "pods".into();
        let mut forbidden = absent;
        forbidden["code"] = 403.into();
        // A server that starts: 404 in plain text.
        let plain = serde_json::json!({"code": 404, "reason": "Failed to parse error data"});
        for text in [other, forbidden, plain] {
            assert!(!is_absent(&status(text.clone())), "{text}");
        }
    }

    #[test]
    fn other_errors_never_say_that_there_is_nothing() {
        let (start, mut trouble) = (Instant::now(), FailureHistory::default());
        // Not even 404, of a kind that every server has.
        for (second, code) in (0..600).zip([401, 403, 404, 429, 500, 503].into_iter().cycle()) {
            let next = trouble.after(&error(code), start + Duration::from_secs(second));
            assert!(next.absence == Absence::No && next.pause <= LATEST, "{next:?}");
        }
    }

    #[test]
    fn what_only_tells_of_the_cluster_holds_nothing_up() {
        let start = Instant::now();
        let optional =
            || FailureHistory { presence: KindPresence::Optional, ..FailureHistory::default() };
        let absence = |trouble: &mut FailureHistory, code, seconds| {
            trouble.after(&error(code), start + Duration::from_secs(seconds)).absence
        };
        // After this refusal, where the server says this of itself.
        let refused = |trouble: &mut FailureHistory, code, seconds, readiness| {
            let now = start + Duration::from_secs(seconds);
            let ask = trouble.after(&error(code), now).absence == Absence::AskReadiness;
            ask.then(|| trouble.decide_refused(readiness, now))
        };
        for code in [403, 404] {
            let mut trouble = optional();
            assert_eq!(
                absence(&mut trouble, code, 0),
                Absence::No,
                "a server that starts says so too"
            );
            // However long it takes to start.
            for seconds in (3..600).step_by(5) {
                assert_eq!(refused(&mut trouble, code, seconds, Readiness::Starts), Some(false));
                assert_eq!(trouble.soon(), None);
            }
            assert_eq!(refused(&mut trouble, code, 600, Readiness::Ready), Some(false));
            assert_eq!(trouble.soon(), Some(SOONEST));
            // It was another one of several servers.
            assert_eq!(refused(&mut trouble, code, 601, Readiness::Starts), Some(false));
            assert_eq!(refused(&mut trouble, code, 602, Readiness::Ready), Some(false));
            assert_eq!(refused(&mut trouble, code, 603, Readiness::Ready), Some(true));
            assert_eq!(absence(&mut trouble, code, 609), Absence::No, "it was told already");
            // Where nobody may ask, time tells.
            let mut trouble = optional();
            assert_eq!(absence(&mut trouble, code, 0), Absence::No);
            assert_eq!(refused(&mut trouble, code, 59, Readiness::Unknown), Some(false));
            assert_eq!(refused(&mut trouble, code, 60, Readiness::Unknown), Some(true));
            // What was known stays.
            let mut trouble = optional();
            trouble.is_over(true);
            assert_eq!(absence(&mut trouble, code, 0), Absence::No);
            assert_eq!(absence(&mut trouble, code, 60), Absence::No);
        }
        // A server that is away says nothing of it.
        let mut trouble = optional();
        assert_eq!(absence(&mut trouble, 503, 0), Absence::No);
        assert_eq!(absence(&mut trouble, 503, 60), Absence::No);
    }

    #[test]
    fn trouble_is_told_once_and_its_end_too() {
        let (now, mut trouble) = (Instant::now(), FailureHistory::default());
        assert!(trouble.after(&error(503), now).told.is_none(), "one alone is nothing");
        assert!(trouble.after(&error(503), now).told.is_some());
        assert!(trouble.after(&error(503), now).told.is_none());
        assert!(trouble.is_over(false) && !trouble.is_over(false));
    }
}
