//! Reports to the API server what became of objects: the condition `Accepted` of this product's own kinds, and an
//! Event for each other custom resource that does not compile.
//!
//! Every gateway reports. Each writes what it has compiled, by server-side apply under one field manager, and only
//! what differs from what the object shows; so all of one version agree, and the first that writes is the last. A
//! gateway that is behind never overwrites what another one has said of a newer generation. An Event's name follows
//! from what it says, so the second gateway's is there already.

mod plan;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    core::Request,
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use self::plan::{Due, Told, Write};
use super::{
    kinds::CUSTOM,
    objects::{ACCEPTED, KnownObjects, Object},
};
use crate::source::verdicts::Verdicts;

/// Who owns the condition.
const MANAGER: &str = "egress-gateway";
/// Who is named in Events.
const CONTROLLER: &str = "egress-enforcer.io/gateway";
/// Between two writes: a thousand objects that change at once are a minute's work, and no burden.
const PACE: Duration = Duration::from_millis(50);
/// After a write that failed.
const PAUSE: Duration = Duration::from_secs(30);

/// Writes until the sources end.
pub(super) async fn run(
    client: Client,
    mut known: watch::Receiver<Arc<KnownObjects>>,
    mut judged: watch::Receiver<Arc<Verdicts>>,
) {
    let mut told = Told::default();
    let mut failed = false;
    loop {
        let (objects, verdicts) =
            (known.borrow_and_update().clone(), judged.borrow_and_update().clone());
        let Due { writes, again } = told.due(&objects, &verdicts, Instant::now());
        let mut pause = again;
        for write in writes {
            let now = Instant::now();
            match perform(&client, &write).await {
                Ok(()) => {
                    failed = false;
                    told.wrote(&write, now);
                }
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::warn!("can't report on {} to the API server: {error}", write.name);
                    }
                    pause = Some(now + PAUSE);
                    break;
                }
            }
            sleep(PACE).await;
        }
        let wait = async {
            match pause {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        if failed {
            wait.await;
            continue;
        }
        tokio::select! {
            changed = known.changed() => if changed.is_err() { return },
            changed = judged.changed() => if changed.is_err() { return },
            () = wait => {}
        }
    }
}

async fn perform(client: &Client, write: &Write) -> Result<(), kube::Error> {
    let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    let Some(custom) = CUSTOM.get(write.object.kind) else { return Ok(()) };
    let object = &write.object;
    match &write.what {
        plan::What::Condition(condition) => {
            let Some(kind) = custom.versions().into_iter().next() else { return Ok(()) };
            let api: Api<Object> = match &object.namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
                None => Api::all_with(client.clone(), &kind),
            };
            let since = condition.since.clone();
            let since = since.unwrap_or_else(|| now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            let applied = json!({
                "apiVersion": custom.api_version(),
                "kind": custom.kind,
                "metadata": {"name": object.name, "namespace": object.namespace},
                "status": {"conditions": [{
                    "type": ACCEPTED,
                    "status": if condition.holds { "True" } else { "False" },
                    "observedGeneration": condition.generation,
                    "reason": condition.reason,
                    "message": condition.message,
                    "lastTransitionTime": since,
                }]},
            });
            let how = PatchParams::apply(MANAGER).force();
            match api.patch_status(&object.name, &how, &Patch::Apply(&applied)).await {
                Ok(_) => Ok(()),
                // Deleted meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Err(error) => Err(error),
            }
        }
        plan::What::Event { name, note } => {
            let namespace = object.namespace.as_deref().unwrap_or("default");
            let event = json!({
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                // A MicroTime has six digits after the point.
                "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
                "reportingController": CONTROLLER,
                "reportingInstance": MANAGER,
                "type": "Warning",
                "reason": "NotAccepted",
                "action": "Compile",
                "note": note,
                "regarding": {
                    "apiVersion": custom.api_version(),
                    "kind": custom.kind,
                    "namespace": namespace,
                    "name": object.name,
                    "uid": object.uid,
                },
            });
            let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
            let body = serde_json::to_vec(&event).map_err(kube::Error::SerdeError)?;
            let request = Request::new(path).create(&PostParams::default(), body);
            let request = request.map_err(kube::Error::BuildRequest)?;
            match client.request::<Value>(request).await {
                Ok(_) => Ok(()),
                // Another gateway has said it.
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                Err(error) => Err(error),
            }
        }
    }
}
