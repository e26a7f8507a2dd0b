//! The Secrets that credentials need: each is listed and watched by its name, and no other is asked for. Nothing
//! of what is in them is logged, not even where the server's answer can't be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
};

use data_encoding::BASE64;
use futures_util::StreamExt as _;
use kube::{
    Api, Client,
    runtime::watcher::{self, Error, Event, watcher},
};
use tokio::{task::JoinHandle, time::sleep};

use super::{kinds::Kind, objects::Object, pause::pause};
use crate::source::{Secret, Secrets};

/// Follows those that are wanted, for as long as the runtime lives.
pub(super) async fn run(client: Client, secrets: Secrets) {
    let mut wanted = secrets.wanted();
    let mut followed: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
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
            let task = || tokio::spawn(follow(client.clone(), secrets.clone(), name.clone()));
            followed.entry(name.clone()).or_insert_with(task);
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

async fn follow(client: Client, secrets: Secrets, name: String) {
    let kind = Kind::core("Secret", "secrets");
    let api: Api<Object> = Api::namespaced_with(client, secrets.namespace(), &kind);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stream = pin!(watcher(api, config));
    let (mut first, mut errors) = (Secret::Absent, 0_u32);
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                errors = 0;
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
                let why = reason(&error, secrets.namespace(), &name);
                // One alone is nothing: watches end.
                if errors == 1 {
                    tracing::warn!("Secret {}/{name}: {why}", secrets.namespace());
                }
                // A server that starts answers 403 and 404 too; what is known stays in any case.
                secrets.take(&name, Secret::Unknown(why));
                errors = errors.saturating_add(1);
                sleep(pause(errors)).await;
            }
        }
    }
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
fn reason(error: &Error, namespace: &str, name: &str) -> String {
    let error = match error {
        Error::InitialListFailed(error)
        | Error::WatchStartFailed(error)
        | Error::WatchFailed(error) => error,
        Error::WatchError(status) => return format!("the API server says {}", status.code),
        Error::NoResourceVersion => return "the API server's list has no version".into(),
    };
    match error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "this gateway has no right to list and watch the Secret {name} in {namespace}: name it in \
             gateway.credentials of the chart"
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
        let said = reason(&Error::WatchFailed(kube::Error::SerdeError(error)), "n", "web");
        assert!(!said.contains("c2VjcmV0"), "{said}");
    }

    #[test]
    fn a_missing_right_is_named() {
        let status = Status { code: 403, ..Status::default() };
        let error = Error::InitialListFailed(kube::Error::Api(Box::new(status)));
        let said = reason(&error, "istio-system", "web");
        assert!(said.contains("the Secret web in istio-system"), "{said}");
    }
}
