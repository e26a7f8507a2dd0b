//! The taint that keeps pods off a node until enforcement stands. The agent removes it from its own node, and
//! no other one: a node registers with it, and the scheduler places nothing there that does not tolerate it.

use std::pin::pin;

use futures_util::StreamExt as _;
use http::{Request, header};
use kube::{
    Api, Client,
    runtime::watcher::{self, Event, watcher},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use super::{kinds::Kind, objects::Object, pause::pause};

/// Which taint, and when it goes.
#[derive(Clone, Debug)]
pub struct StartupTaint {
    /// The node.
    pub node: String,
    /// The taint's key.
    pub key: String,
    /// Whether enforcement stands.
    pub ready: watch::Receiver<bool>,
}

/// Removes it whenever the node has it, from when enforcement stands on: a node that registers again, as after a
/// change of kubelet's configuration, gets it again.
pub(super) async fn run(client: Client, taint: StartupTaint) {
    let StartupTaint { node, key, mut ready } = taint;
    if ready.wait_for(|ready| *ready).await.is_err() {
        return;
    }
    let mut errors = 0_u32;
    loop {
        let api: Api<Object> = Api::all_with(client.clone(), &Kind::core("Node", "nodes"));
        let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
        let mut stream = pin!(watcher(api, config));
        while let Some(event) = stream.next().await {
            let failed = match event {
                Ok(Event::InitApply(object) | Event::Apply(object)) => {
                    match remove(&client, &node, &object, &key).await {
                        Ok(true) => {
                            tracing::info!(
                                "removed the taint {key} from this node: enforcement stands"
                            );
                            None
                        }
                        Ok(false) => None,
                        // Somebody else has changed the node; it is reported anew.
                        Err(kube::Error::Api(status)) if status.code == 409 => None,
                        Err(error) => Some(error.to_string()),
                    }
                }
                Ok(Event::Init | Event::InitDone | Event::Delete(_)) => None,
                Err(error) => Some(error.to_string()),
            };
            let Some(error) = failed else {
                errors = 0;
                continue;
            };
            if errors == 1 {
                tracing::warn!(
                    "can't look after the taint {key} of this node: {error}; as long as it has the \
                     taint, pods stay off it"
                );
            }
            errors = errors.saturating_add(1);
            sleep(pause(errors)).await;
            break;
        }
    }
}

/// Whether there was one to remove.
async fn remove(
    client: &Client,
    node: &str,
    object: &Object,
    key: &str,
) -> Result<bool, kube::Error> {
    let Some(patch) = removal(object, key) else { return Ok(false) };
    let request = Request::patch(format!("/api/v1/nodes/{node}"))
        .header(header::CONTENT_TYPE, "application/json-patch+json")
        .body(patch.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request::<Value>(request).await.map(|_| true)
}

/// The changes that take the taint from the node as it is; `None` where it has none of this key. Each is made only
/// where the taint still is in its place, so no other one ever goes with it.
fn removal(object: &Object, key: &str) -> Option<Value> {
    let taints = object.spec.as_ref()?["taints"].as_array()?;
    let places = taints.iter().enumerate().filter(|(_, taint)| taint["key"] == key);
    // From the last one on: what is removed moves only what comes after it.
    let changes: Vec<Value> = places
        .rev()
        .flat_map(|(index, _)| {
            [
                json!({"op": "test", "path": format!("/spec/taints/{index}/key"), "value": key}),
                json!({"op": "remove", "path": format!("/spec/taints/{index}")}),
            ]
        })
        .collect();
    (!changes.is_empty()).then(|| changes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_taint_of_this_key_goes() {
        let node = |taints: Value| -> Object {
            let text = json!({"metadata": {"name": "n"}, "spec": {"taints": taints}});
            serde_json::from_value(text).unwrap()
        };
        let (own, other) = ("egress-enforcer.io/starting", "node.kubernetes.io/not-ready");
        let all = json!([
            {"key": own, "effect": "NoSchedule"},
            {"key": other, "effect": "NoSchedule"},
            {"key": own, "effect": "NoExecute"},
        ]);
        let expected = json!([
            {"op": "test", "path": "/spec/taints/2/key", "value": own},
            {"op": "remove", "path": "/spec/taints/2"},
            {"op": "test", "path": "/spec/taints/0/key", "value": own},
            {"op": "remove", "path": "/spec/taints/0"},
        ]);
        assert_eq!(removal(&node(all), own), Some(expected));
        assert_eq!(removal(&node(json!([{"key": other}])), own), None);
        assert_eq!(removal(&node(json!([])), own), None);
        let bare: Object = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
        assert_eq!(removal(&bare, own), None);
    }
}
