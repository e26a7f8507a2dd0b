//! The Secrets that credentials need: each is listed and watched by its name, and no other is asked for. Nothing
//! of what is in them is logged, not even where the server's answer can't be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use data_encoding::BASE64;
use futures_util::StreamExt as _;
use kube::{
    Api, Client,
    runtime::watcher::{self, Error, Event, watcher},
};
use tokio::{task::JoinHandle, time::sleep};

use super::{kinds::Kind, objects::Object, pause::pause};
use crate::{
    policy::config_map_of,
    source::{Secret, Secrets},
};

/// Follows those that are wanted, for as long as the runtime lives.
pub(super) async fn run(client: Client, secrets: Secrets) {
    let mut wanted = secrets.wanted();
    let mut followed: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
    let refused = Arc::<Refused>::default();
    loop {
        let names: BTreeSet<String> = wanted.borrow_and_update().clone();
        followed.retain(|name, task| {
            let stays = names.contains(name);
            if !stays {
                task.abort();
            }
            stays
        });
        for name in names {
            let (secrets, refused) = (secrets.clone(), Arc::clone(&refused));
            let task = || tokio::spawn(follow(client.clone(), secrets, name.clone(), refused));
            followed.entry(name.clone()).or_insert_with(task);
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

/// How many Secrets the API server refuses to give. The more there are, the less often each is asked for again: who
/// names a hundred that the gateway may not read costs the API server no more requests than who names ten.
#[derive(Debug, Default)]
struct Refused(AtomicU32);

/// Between two requests of all those that are refused.
const REFUSED_EVERY: Duration = Duration::from_millis(250);

impl Refused {
    fn count(self: &Arc<Self>) -> RefusedSecret {
        self.0.fetch_add(1, Ordering::Relaxed);
        RefusedSecret(Arc::clone(self))
    }

    /// How long each waits.
    fn pause(&self) -> Duration {
        REFUSED_EVERY * self.0.load(Ordering::Relaxed)
    }
}

/// One of them, for as long as this value lives.
#[derive(Debug)]
struct RefusedSecret(Arc<Refused>);

impl Drop for RefusedSecret {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn follow(client: Client, secrets: Secrets, name: String, all_refused: Arc<Refused>) {
    let SecretLocation { kind, plural, namespace, object, content } =
        SecretLocation::of(&name, secrets.namespace());
    let api: Api<Object> = Api::namespaced_with(client, namespace, &Kind::core(kind, plural));
    let config = watcher::Config::default().fields(&format!("metadata.name={object}"));
    let mut stream = pin!(watcher(api, config));
    let (mut first, mut errors) = (Secret::Absent, 0_u32);
    let mut refused = None;
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                errors = 0;
                refused = None;
                match event {
                    Event::Init => first = Secret::Absent,
                    Event::InitApply(object) => first = content(&object),
                    Event::InitDone => {
                        secrets.take(&name, std::mem::replace(&mut first, Secret::Absent));
                    }
                    Event::Apply(object) => secrets.take(&name, content(&object)),
                    Event::Delete(_) => secrets.take(&name, Secret::Absent),
                }
            }
            Err(error) => {
                let why = reason(&error, kind, namespace, object);
                // One alone is nothing: watches end.
                if errors == 1 {
                    tracing::warn!("{kind} {namespace}/{object}: {why}");
                }
                // A server that starts answers 403 and 404 too; what is known stays in any case.
                secrets.take(&name, Secret::Unknown(why));
                errors = errors.saturating_add(1);
                if is_refused(&error) {
                    refused.get_or_insert_with(|| all_refused.count());
                } else {
                    refused = None;
                }
                let least = refused.as_ref().map_or(Duration::ZERO, |one| one.0.pause());
                sleep(pause(errors).max(least)).await;
            }
        }
    }
}

/// Where the object is that a credential's name stands for.
struct SecretLocation<'a> {
    kind: &'static str,
    plural: &'static str,
    namespace: &'a str,
    object: &'a str,
    content: fn(&Object) -> Secret,
}

impl<'a> SecretLocation<'a> {
    fn of(name: &'a str, own: &'a str) -> Self {
        match config_map_of(name) {
            Some((namespace, object)) => {
                Self { kind: "ConfigMap", plural: "configmaps", namespace, object, content: text }
            }
            None => {
                Self { kind: "Secret", plural: "secrets", namespace: own, object: name, content }
            }
        }
    }
}

/// Whether there is no right to read it.
fn is_refused(error: &Error) -> bool {
    let (Error::InitialListFailed(error) | Error::WatchStartFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// The values of a ConfigMap's keys.
fn text(object: &Object) -> Secret {
    let data = object.data.iter().flat_map(|data| &data.0);
    Secret::Present(data.map(|(key, value)| (key.clone(), value.clone().into_bytes())).collect())
}

/// The values of its keys. One that is no base64 makes the whole unknown: part of a credential is none.
fn content(object: &Object) -> Secret {
    let data = object.data.iter().flat_map(|data| &data.0);
    let decoded =
        data.map(|(key, value)| Some((key.clone(), BASE64.decode(value.as_bytes()).ok()?)));
    match decoded.collect() {
        Some(data) => Secret::Present(data),
        None => Secret::Unknown("a value of it is not base64".into()),
    }
}

/// What to say of an error. The texts of those that are about a body would show it.
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn reason(error: &Error, kind: &str, namespace: &str, name: &str) -> String {
    let error = match error {
        Error::InitialListFailed(error)
        | Error::WatchStartFailed(error)
        | Error::WatchFailed(error) => error,
        Error::WatchError(status) => return format!("the API server says {}", status.code),
        Error::NoResourceVersion => return "the API server's list has no version".into(),
    };
    match error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "this gateway has no right to list and watch the {kind} {name} in {namespace}: name it in \
             gateway.{} of the chart",
            if kind == "Secret" { "credentials" } else { "caConfigMaps" }
        ),
        kube::Error::Api(status) => format!("the API server says {}", status.code),
        kube::Error::SerdeError(_) => "the API server's answer can't be read".into(),
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::Auth(_) => {
            "the API server can't be reached".into()
        }
        _ => "it can't be read from the API server".into(),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use serde_json::json;

    use super::*;

    fn object(data: &serde_json::Value) -> Object {
        let text = json!({"metadata": {"name": "web", "namespace": "n"}, "data": data});
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn values_are_decoded_and_broken_ones_are_no_part_of_a_credential() {
        let whole = json!({"tls.crt": "MTIz", "tls.key": "NDU2"});
        let expected = [("tls.crt", b"123"), ("tls.key", b"456")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_vec()));
        assert_eq!(content(&object(&whole)), Secret::Present(expected.into()));
        let broken = json!({"tls.crt": "MTIz", "tls.key": "not base64"});
        assert!(matches!(content(&object(&broken)), Secret::Unknown(_)));
        for none in [json!(null), json!({})] {
            assert_eq!(content(&object(&none)), Secret::Present(BTreeMap::new()));
        }
    }

    #[test]
    fn no_value_is_shown() {
        let shown = format!("{:?}", object(&json!({"tls.key": "c2VjcmV0"})));
        assert!(shown.contains("tls.key") && !shown.contains("c2VjcmV0"), "{shown}");
        // serde's message quotes what it found.
        let error = serde_json::from_str::<Object>("{\"metadata\": \"c2VjcmV0\"}").unwrap_err();
        assert!(error.to_string().contains("c2VjcmV0"), "{error}");
        let said =
            reason(&Error::WatchFailed(kube::Error::SerdeError(error)), "Secret", "n", "web");
        assert!(!said.contains("c2VjcmV0"), "{said}");
    }

    #[test]
    fn the_more_are_refused_the_less_often_each_is_asked_for() {
        let all = Arc::<Refused>::default();
        let some: Vec<RefusedSecret> = (0..4).map(|_| all.count()).collect();
        assert_eq!(all.pause(), Duration::from_secs(1));
        let more: Vec<RefusedSecret> = (0..396).map(|_| all.count()).collect();
        assert_eq!(all.pause(), Duration::from_secs(100));
        drop((some, more));
        assert_eq!(all.pause(), Duration::ZERO);
        let of = |code| {
            let status = Status { code, ..Status::default() };
            Error::InitialListFailed(kube::Error::Api(Box::new(status)))
        };
        assert!(is_refused(&of(403)) && !is_refused(&of(503)));
    }

    #[test]
    fn a_missing_right_is_named() {
        let status = Status { code: 403, ..Status::default() };
        let error = Error::InitialListFailed(kube::Error::Api(Box::new(status)));
        let said = reason(&error, "Secret", "istio-system", "web");
        assert!(said.contains("the Secret web in istio-system"), "{said}");
        assert!(said.contains("gateway.credentials"), "{said}");
        let said = reason(&error, "ConfigMap", "shop", "roots");
        assert!(said.contains("the ConfigMap roots in shop"), "{said}");
        assert!(said.contains("gateway.caConfigMaps"), "{said}");
    }

    #[test]
    fn a_config_map_is_read_as_it_is_and_in_its_namespace() {
        let place = SecretLocation::of("ConfigMap:shop.roots", "istio-system");
        assert_eq!((place.kind, place.namespace, place.object), ("ConfigMap", "shop", "roots"));
        let found = (place.content)(&object(&json!({"ca.crt": "-----BEGIN"})));
        assert_eq!(found, Secret::Present([("ca.crt".to_owned(), b"-----BEGIN".to_vec())].into()));
        let place = SecretLocation::of("shop.web", "istio-system");
        assert_eq!(
            (place.kind, place.namespace, place.object),
            ("Secret", "istio-system", "shop.web")
        );
    }
}
