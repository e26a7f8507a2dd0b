//! Reports to the API server what became of objects: the conditions of this product's own kinds, and an Event for
//! each other custom resource that does not compile or names a credential that can't be used.
//!
//! `Programmed` is written by one gateway alone: see [`Rollout::is_reporter`]. Of the rest, every gateway reports. Each writes what it has compiled, by server-side apply under one field manager, and only
//! what differs from what the object shows; so all of one version agree, and the first that writes is the last. A
//! gateway that is behind never overwrites what another one has said of a newer generation. An Event's name follows
//! from what it says, so the second gateway's is there already.

mod api;
mod conditions;
mod cut;
mod listeners;
mod plan;
mod programmed;

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

use self::{
    api::CONTROLLER,
    plan::{DueWrites, ReportedState, Write, WriteKind},
    programmed::Programming,
};
use super::{
    kinds::CUSTOM,
    objects::{ConditionKind, KnownObjects, Object},
};
use crate::{
    policy::CredentialFaults,
    source::{Rollout, verdicts::Verdicts},
};

/// Who owns the condition `Accepted`, and `Programmed`: an apply by one manager takes away what it does not repeat.
const MANAGER: &str = "egress-gateway";
const PROGRAMMED_MANAGER: &str = "egress-gateway-programmed";
/// Between two writes: a thousand objects that change at once are a minute's work, and no burden.
const PACE: Duration = Duration::from_millis(50);
/// After a write that failed.
const PAUSE: Duration = Duration::from_secs(30);
/// What a write of `Programmed` waits for each agent: the write is an event for every one, and a node that comes
/// changes all policies.
const PER_AGENT: Duration = Duration::from_millis(1);
/// For how long what agents say is taken together.
const TOGETHER: Duration = Duration::from_millis(250);
/// Between two looks at agents that fall silent.
const LOOK: Duration = Duration::from_secs(5);

/// What the gateway reports on, besides what it compiles.
#[derive(Clone, Debug)]
pub struct Reports {
    /// What is wrong with the credentials that objects name, by what messages call the objects.
    pub credentials: watch::Receiver<Arc<CredentialFaults>>,
    /// Which agents have which policies in force.
    pub rollout: Rollout,
}

/// Writes until the sources end.
pub(super) async fn run(
    client: Client,
    mut known: watch::Receiver<Arc<KnownObjects>>,
    mut judged: watch::Receiver<Arc<Verdicts>>,
    reports: Reports,
) {
    let Reports { credentials: mut faults, rollout } = reports;
    let mut changes = rollout.changes();
    let (mut told, mut programming) = (ReportedState::default(), Programming::default());
    let mut failed = false;
    loop {
        let (objects, verdicts) =
            (known.borrow_and_update().clone(), judged.borrow_and_update().clone());
        let of_credentials = faults.borrow_and_update().clone();
        changes.mark_unchanged();
        let now = Instant::now();
        let DueWrites { writes, again } = told.due(&objects, &verdicts, &of_credentials, now);
        let (mut late, pace) = match rollout.is_reporter(now) {
            true => {
                let view = rollout.view(now);
                let agents = u32::try_from(view.agents).unwrap_or(u32::MAX);
                (programming.due(&objects, &verdicts, &view, now), PACE.max(PER_AGENT * agents))
            }
            false => (DueWrites::default(), PACE),
        };
        let mut pause = again.into_iter().chain(late.again).chain([now + LOOK]).min();
        // What is true of agents now may not be when many others are written: no more than for a second.
        let most = (Duration::from_secs(1).as_millis() / pace.as_millis().max(1)).max(1);
        let most = usize::try_from(most).unwrap_or(1);
        if late.writes.len() > most || writes.len() > most {
            pause = Some(now);
        }
        if writes.len() > most {
            late.writes.clear();
        }
        let paces = writes.iter().map(|_| PACE).chain(late.writes.iter().map(|_| pace));
        let paces: Vec<Duration> = paces.take(writes.len() + most).collect();
        for (write, pace) in writes.into_iter().chain(late.writes).zip(paces) {
            let now = Instant::now();
            match perform(&client, &write).await {
                Ok(()) => {
                    failed = false;
                    match &write.what {
                        WriteKind::Condition(ConditionKind::Programmed, _) => {
                            programming.wrote(&write, now)
                        }
                        WriteKind::Condition(ConditionKind::Accepted, _)
                        | WriteKind::Status(_)
                        | WriteKind::Event { .. } => {
                            told.wrote(&write, now);
                        }
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::warn!("can't report on {} to the API server: {error}", write.name);
                    }
                    pause = Some(now + PAUSE);
                    break;
                }
            }
            sleep(pace).await;
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
            changed = faults.changed() => if changed.is_err() { return },
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                // Thousands of nodes follow a change one after the other.
                sleep(TOGETHER).await;
            }
            () = wait => {}
        }
    }
}

async fn perform(client: &Client, write: &Write) -> Result<(), kube::Error> {
    let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    let Some(custom) = CUSTOM.get(write.object.kind) else { return Ok(()) };
    let object = &write.object;
    match &write.what {
        WriteKind::Condition(of, condition) => {
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
                    "type": of.name(),
                    "status": if condition.holds { "True" } else { "False" },
                    "observedGeneration": condition.generation,
                    "reason": condition.reason,
                    "message": condition.message,
                    "lastTransitionTime": since,
                }]},
            });
            let manager = match of {
                ConditionKind::Accepted => MANAGER,
                ConditionKind::Programmed => PROGRAMMED_MANAGER,
            };
            let how = PatchParams::apply(manager).force();
            match api.patch_status(&object.name, &how, &Patch::Apply(&applied)).await {
                Ok(_) => Ok(()),
                // Deleted meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Err(error) => Err(error),
            }
        }
        WriteKind::Status(status) => {
            let Some(kind) = custom.versions().into_iter().next() else { return Ok(()) };
            let namespace = object.namespace.as_deref().unwrap_or_default();
            let api: Api<Object> = Api::namespaced_with(client.clone(), namespace, &kind);
            let mut status = status.clone();
            conditions::stamp(&mut status, &now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            let version = object.api.as_ref().and_then(|api| api.version.clone());
            // A list of parents is replaced as a whole, those of other controllers with it: only as it was read.
            let applied = json!({
                "apiVersion": custom.api_version(),
                "kind": custom.kind,
                "metadata": {
                    "name": object.name, "namespace": namespace, "resourceVersion": version,
                },
                "status": status,
            });
            let how = PatchParams::apply(MANAGER).force();
            match api.patch_status(&object.name, &how, &Patch::Apply(&applied)).await {
                Ok(_) => Ok(()),
                // Deleted or changed meanwhile: what is there now is looked at again.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                Err(error) => Err(error),
            }
        }
        WriteKind::Event { name, why, note } => {
            let (reason, action) = why.names();
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
                "reason": reason,
                "action": action,
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
