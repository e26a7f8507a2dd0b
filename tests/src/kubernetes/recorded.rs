//! The double against exchanges of a real API server.

mod writes;

use std::{fs, path::Path, sync::Arc};

use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{Mood, Resource, Shared, serve};

/// One exchange.
struct Recorded {
    target: String,
    /// What is sent along; empty for a request that reads.
    sent: String,
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

fn recorded(name: &str) -> Recorded {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/kubernetes");
    let text = fs::read_to_string(directory.join(format!("{name}.http"))).unwrap();
    let (request, response) = text.split_once("\nHTTP/1.1 ").unwrap();
    let (head, body) = response.split_once("\n\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').next().unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    Recorded {
        target: request.split(' ').nth(1).unwrap().to_owned(),
        sent: request
            .split_once("\n\n")
            .map(|(_, sent)| sent.trim().to_owned())
            .unwrap_or_default(),
        status,
        headers: headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
        body: body.to_owned(),
    }
}

impl Recorded {
    fn events(&self) -> Vec<Value> {
        let lines = self.body.lines().filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared::new("secret"))
}

async fn send(
    shared: &Arc<Shared>,
    target: &str,
    token: &str,
    sent: serve::Sent,
) -> http::Response<http_body_util::combinators::BoxBody<bytes::Bytes, std::convert::Infallible>> {
    serve::respond(target, Some(&format!("Bearer {token}")), sent, Arc::clone(shared)).await
}

/// What the double answers, a watch's first events included.
async fn ask(
    shared: &Arc<Shared>,
    target: &str,
    token: &str,
    events: usize,
) -> (u16, Vec<(String, String)>, String) {
    let response = send(shared, target, token, serve::Sent::default()).await;
    let status = response.status().as_u16();
    let headers = response.headers().iter();
    let headers = headers
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let (mut body, mut text) = (response.into_body(), String::new());
    while let Some(frame) = body.frame().await {
        text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        if events > 0 && text.lines().count() >= events {
            break;
        }
    }
    (status, headers, text)
}

/// Status, the headers that a client acts on, and what a `Status` says.
async fn is_answered_as(name: &str, shared: &Arc<Shared>, token: &str) {
    let recorded = recorded(name);
    let (status, headers, body) = ask(shared, &recorded.target, token, 0).await;
    assert_eq!(status, recorded.status, "{name}: {body}");
    for wanted in ["content-type", "cache-control"] {
        let of =
            |headers: &[(String, String)]| headers.iter().find(|(name, _)| name == wanted).cloned();
        assert_eq!(of(&headers), of(&recorded.headers), "{name}");
    }
    let waits =
        |headers: &[(String, String)]| headers.iter().any(|(name, _)| name == "retry-after");
    assert_eq!(waits(&headers), waits(&recorded.headers), "{name}");
    let (Ok(said), Ok(real)) =
        (serde_json::from_str::<Value>(&body), serde_json::from_str::<Value>(&recorded.body))
    else {
        assert_eq!(body, recorded.body, "{name}");
        return;
    };
    same_shape(name, &said, &real);
    for field in ["kind", "apiVersion", "status", "reason", "code"] {
        assert_eq!(said[field], real[field], "{name}: {field}");
    }
}

/// Every field that the double writes the real server writes too, with a value of the same kind.
fn same_shape(name: &str, said: &Value, real: &Value) {
    match (said, real) {
        (Value::Object(said), Value::Object(real)) => {
            for (key, value) in said {
                let found = real.get(key).unwrap_or_else(|| panic!("{name}: {key} isn't written"));
                same_shape(name, value, found);
            }
        }
        (Value::Array(said), Value::Array(real)) => {
            said.iter().zip(real).for_each(|(said, real)| same_shape(name, said, real));
        }
        (said, real) => {
            assert_eq!(
                std::mem::discriminant(said),
                std::mem::discriminant(real),
                "{name}: {said} {real}"
            );
        }
    }
}

fn put(shared: &Shared, objects: impl IntoIterator<Item = Value>) {
    objects.into_iter().for_each(|object| shared.store().put(object).unwrap());
}

#[tokio::test]
async fn refusals_are_those_of_a_real_server() {
    let shared = shared();
    is_answered_as("unauthorized-bad-token", &shared, "wrong").await;
    is_answered_as("get-gone-404", &shared, "secret").await;
    is_answered_as("crd-absent-list-404", &shared, "secret").await;
    for (name, code) in [
        ("list-while-apiserver-starts-403", 403),
        ("list-right-after-crd-changed", 429),
        ("crd-list-while-apiserver-starts-503", 503),
    ] {
        shared.mood.send_replace(Mood::Starts(code));
        is_answered_as(name, &shared, "secret").await;
    }
}

#[tokio::test]
async fn objects_and_lists_are_those_of_a_real_server() {
    for (name, kind) in [
        ("list-limit-1", "Pod"),
        ("endpointslice-list-by-service", "EndpointSlice"),
        ("named-secret-list-by-field", "Secret"),
    ] {
        let shared = shared();
        let real: Value = serde_json::from_str(&recorded(name).body).unwrap();
        // One more, so that a list of two is cut.
        let mut items: Vec<Value> = real["items"].as_array().unwrap().clone();
        let mut more = items[0].clone();
        more["metadata"]["name"] = json!("zzz");
        more["metadata"]["labels"] = json!({});
        items.push(more);
        for item in &mut items {
            item["kind"] = json!(kind);
        }
        put(&shared, items);
        is_answered_as(name, &shared, "secret").await;
    }
    let shared = shared();
    put(&shared, [serde_json::from_str(&recorded("namespace-get").body).unwrap()]);
    is_answered_as("namespace-get", &shared, "secret").await;
}

#[tokio::test]
async fn watches_are_those_of_a_real_server() {
    // The history doesn't reach so far back.
    let compacted = shared();
    compacted.store().compact();
    let expired = recorded("watch-expired-410-in-stream");
    let target = expired.target.replace("=337", "=1");
    let (status, _, body) = ask(&compacted, &target, "secret", 0).await;
    let (said, real): (Value, Value) =
        (serde_json::from_str(&body).unwrap(), expired.events().remove(0));
    assert_eq!(status, expired.status);
    same_shape("watch-expired-410-in-stream", &said, &real);
    for (said, real) in [
        (&said["type"], &real["type"]),
        (&said["object"]["code"], &real["object"]["code"]),
        (&said["object"]["reason"], &real["object"]["reason"]),
    ] {
        assert_eq!(said, real);
    }

    // What leaves the selection is deleted, with its new state.
    let shared = shared();
    let real = recorded("watch-label-leaves-and-enters");
    let from = shared.store().version();
    let events = real.events();
    let pod = |labels: Value| {
        let mut pod = events[0]["object"].clone();
        pod["metadata"]["labels"] = labels;
        pod
    };
    put(
        &shared,
        [
            json!({"egress": "on"}),
            json!({"egress": "off"}),
            json!({"egress": "on"}),
            json!({"egress": "on", "x": "y"}),
        ]
        .map(pod),
    );
    let name = events[0]["object"]["metadata"]["name"].as_str().unwrap().to_owned();
    shared.store().remove("pods", "rec", &name);
    let target = real.target.replace("resourceVersion=380", &format!("resourceVersion={from}"));
    let (_, _, body) = ask(&shared, &target, "secret", events.len()).await;
    let said: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds =
        |events: &[Value]| events.iter().map(|event| event["type"].clone()).collect::<Vec<_>>();
    assert_eq!(kinds(&said), kinds(&events));

    // A Secret by its name: another one is not reported.
    let real = recorded("named-secret-watch-by-field");
    let changed = real.events().remove(0);
    let mut other = changed["object"].clone();
    other["metadata"]["name"] = json!("other");
    put(&shared, [changed["object"].clone()]);
    let from = shared.store().version();
    let mut renewed = changed["object"].clone();
    renewed["data"]["tls.crt"] = json!("Y2VydDM=");
    put(&shared, [other, renewed]);
    let target = real.target.replace("resourceVersion=400", &format!("resourceVersion={from}"));
    let (_, _, body) = ask(&shared, &target, "secret", 1).await;
    let said: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said.len(), 1, "{body}");
    assert_eq!(said[0]["type"], changed["type"]);
    same_shape("named-secret-watch-by-field", &said[0], &changed);

    // A bookmark says its kind and its version, and nothing else.
    let real = recorded("watch-bookmarks-crd-quiet").events().remove(0);
    let query = super::store::Query {
        plural: "serviceentries".into(),
        version: "v1".into(),
        ..Default::default()
    };
    let said = shared.store().bookmark(&query, 586, false);
    assert_eq!(said, real);
}

#[test]
fn a_kind_that_comes_again_has_no_history() {
    let shared = shared();
    let before = shared.store().version();
    shared.store().remove_kind("virtualservices");
    let query = super::store::Query {
        plural: "virtualservices".into(),
        version: "v1".into(),
        ..Default::default()
    };
    assert!(shared.store().after(&query, before).is_err());
    shared.store().add_kind(Resource::istio("virtualservices", "VirtualService"));
    assert!(matches!(
        shared.store().after(&query, before),
        Err(super::store::Refusal::Expired(..))
    ));
}
