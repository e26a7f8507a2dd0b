//! What is written, against exchanges of a real API server.

use super::*;

/// Sends what was recorded, and compares what is answered.
async fn is_written_as(
    name: &str,
    shared: &Arc<Shared>,
    kind: &'static str,
    change: impl Fn(&mut Value),
) -> Value {
    let recorded = recorded(name);
    let own = |text: &str| text.replace("egress.example.com", "egress-enforcer.io");
    let mut body: Value = serde_json::from_str(&own(&recorded.sent)).unwrap_or_default();
    change(&mut body);
    let apply = kind.contains("apply-patch");
    let patches = apply || kind.contains("json-patch");
    let mut target = own(&recorded.target);
    if apply && !target.contains('?') {
        target += "?fieldManager=test";
    }
    let sent = serve::Sent {
        method: match (patches, recorded.sent.is_empty()) {
            (true, _) => http::Method::PATCH,
            (false, true) => http::Method::DELETE,
            (false, false) => http::Method::POST,
        },
        kind: Some(http::HeaderValue::from_static(kind)),
        body: body.to_string().into(),
    };
    let response = send(shared, &target, "secret", sent).await;
    assert_eq!(response.status().as_u16(), recorded.status, "{name}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let (said, real): (Value, Value) =
        (serde_json::from_slice(&body).unwrap(), serde_json::from_str(&recorded.body).unwrap());
    same_shape(name, &said, &real);
    for field in ["kind", "status", "reason", "code"].into_iter().filter(|f| real[f].is_string()) {
        assert_eq!(said[field], real[field], "{name}: {field}");
    }
    said
}

const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";

#[tokio::test]
async fn events_are_taken_as_by_a_real_server() {
    let shared = shared();
    is_written_as("event-missing-fields-422", &shared, JSON, |_| {}).await;
    let said = is_written_as("event-create", &shared, JSON, |_| {}).await;
    assert_eq!(said["regarding"]["name"], "p0");
    let twice = recorded("event-create");
    let sent = serve::Sent {
        method: http::Method::POST,
        kind: Some(http::HeaderValue::from_static(JSON)),
        body: twice.sent.into(),
    };
    let response = send(&shared, &twice.target, "secret", sent).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let real: Value = serde_json::from_str(&recorded("create-exists-409").body).unwrap();
    let said: Value = serde_json::from_slice(&body).unwrap();
    same_shape("create-exists-409", &said, &real);
    assert_eq!((&said["code"], &said["reason"]), (&real["code"], &real["reason"]));
}

#[tokio::test]
async fn objects_come_and_go_as_with_a_real_server() {
    let shared = shared();
    is_written_as("create-201", &shared, JSON, |_| {}).await;
    is_written_as("delete-200", &shared, JSON, |_| {}).await;
    is_written_as("delete-absent-404", &shared, JSON, |_| {}).await;
    for name in ["discovery-api", "discovery-group-networking.istio.io-v1"] {
        let recorded = recorded(name);
        let (status, _, body) = ask(&shared, &recorded.target, "secret", 0).await;
        assert_eq!(status, recorded.status, "{name}");
        let (said, real): (Value, Value) =
            (serde_json::from_str(&body).unwrap(), serde_json::from_str(&recorded.body).unwrap());
        assert_eq!(
            (&said["kind"], &said["groupVersion"]),
            (&real["kind"], &real["groupVersion"]),
            "{name}"
        );
        // Each of Istio's kinds that the double has is what a real server says it is.
        for kind in said["resources"].as_array().into_iter().flatten() {
            let real = real["resources"].as_array().unwrap();
            let same = real.iter().find(|real| real["name"] == kind["name"]).unwrap();
            for field in ["kind", "singularName", "namespaced"] {
                assert_eq!(kind[field], same[field], "{name}: {kind}");
            }
        }
    }
}

#[tokio::test]
async fn a_patch_is_made_as_by_a_real_server() {
    let shared = shared();
    let real: Value = serde_json::from_str(&recorded("patch-json").body).unwrap();
    let mut object = real.clone();
    object["data"]["b"] = json!("1");
    put(&shared, [object]);
    let kind = "application/json-patch+json";
    let said = is_written_as("patch-json", &shared, kind, |_| {}).await;
    assert_eq!(said["data"], real["data"]);
    is_written_as("patch-json-test-fails", &shared, kind, |_| {}).await;
}

#[tokio::test]
async fn a_status_is_applied_as_by_a_real_server() {
    let shared = shared();
    let kind = Resource::egress("egresspolicies", "EgressPolicy");
    shared.store().add_kind(kind);
    is_written_as("cr-status-absent-404", &shared, APPLY, |_| {}).await;
    let real: Value = serde_json::from_str(&recorded("cr-status-apply").body).unwrap();
    let object = json!({
        "kind": "EgressPolicy", "metadata": {"name": "a", "namespace": "rec"},
        "spec": real["spec"], "status": {"dropped": true},
    });
    put(&shared, [object.clone()]);
    is_written_as("cr-status-invalid-422", &shared, APPLY, |_| {}).await;
    // This kind's conditions need more fields than the recorded one's.
    let whole = |body: &mut Value| {
        let condition = &mut body["status"]["conditions"][0];
        (condition["reason"], condition["message"]) = (json!("Accepted"), json!(""));
        condition["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
    };
    let first = is_written_as("cr-status-apply", &shared, APPLY, whole).await;
    assert_eq!(first["status"]["conditions"][0]["type"], "Accepted");
    assert_eq!(first["status"]["dropped"], Value::Null, "through the object itself it is dropped");
    // The same again changes nothing, and a status is no new generation.
    let again = is_written_as("cr-status-apply", &shared, APPLY, whole).await;
    assert_eq!(first["metadata"], again["metadata"]);
    assert_eq!(first["metadata"]["generation"], 1);
    let mut changed = object;
    changed["spec"]["port"] = json!(8443);
    put(&shared, [changed]);
    let query = crate::kubernetes::store::Query {
        plural: "egresspolicies".into(),
        version: "v1alpha1".into(),
        namespace: Some("rec".into()),
        ..Default::default()
    };
    let now = shared.store().get(&query, "a").unwrap();
    assert_eq!((&now["metadata"]["generation"], &now["status"]), (&json!(2), &first["status"]));
}
