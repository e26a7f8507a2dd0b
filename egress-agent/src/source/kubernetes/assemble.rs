//! The task that puts the updates of all kinds together and publishes the whole.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    objects::KnownObjects,
    state::{Changed, State, Update},
};
use crate::{
    pods::Pod,
    source::{Files, Rollout, verdicts::Verdicts},
};

/// After an update no other for so long means that a change is whole: `kubectl apply` of five resources
/// is five updates.
const QUIET: Duration = Duration::from_millis(50);
/// But no change waits longer than this.
const AT_MOST: Duration = Duration::from_millis(500);
/// A pod is wanted at once; only a burst of them is taken together.
const PODS: Duration = Duration::from_millis(5);

/// What is published.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// The configuration; `None` before every first list is complete.
    pub files: watch::Receiver<Option<Arc<Files>>>,
    /// The pods; `None` before their first list is complete.
    pub pods: watch::Receiver<Option<Arc<Vec<Pod>>>>,
}

pub(super) struct Assembler {
    updates: mpsc::Receiver<Update>,
    state: State,
    files: watch::Sender<Option<Arc<Files>>>,
    pods: watch::Sender<Option<Arc<Vec<Pod>>>>,
    objects: watch::Sender<Arc<KnownObjects>>,
    /// Who wants to know which nodes run agents.
    rollout: Option<Rollout>,
}

/// What the task listens to that reports on objects.
pub(super) struct Reporting {
    pub(super) objects: watch::Receiver<Arc<KnownObjects>>,
    pub(super) judged: watch::Receiver<Arc<Verdicts>>,
}

/// When something is due.
#[derive(Debug, Default)]
struct NextDue {
    at: Option<Instant>,
    last: Option<Instant>,
}

impl NextDue {
    fn put_off(&mut self, quiet: Duration, at_most: Duration) {
        let now = Instant::now();
        let last = *self.last.get_or_insert(now + at_most);
        self.at = Some((now + quiet).min(last));
    }

    async fn wait(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

impl Assembler {
    pub(super) fn new(
        updates: mpsc::Receiver<Update>,
        rollout: Option<Rollout>,
    ) -> (Self, Kubernetes, Reporting) {
        let (objects, objects_receiver) = watch::channel(Arc::default());
        let (judged, judged_receiver) = watch::channel(Arc::default());
        let reporting = Reporting { objects: objects_receiver, judged: judged_receiver };
        let (files, files_receiver) = watch::channel(None);
        let (pods, pods_receiver) = watch::channel(None);
        let published = Kubernetes { files: files_receiver, pods: pods_receiver };
        let state = State::reporting(judged);
        (Self { updates, state, files, pods, objects, rollout }, published, reporting)
    }

    pub(super) async fn run(mut self) {
        let (mut files, mut pods, mut objects) =
            (NextDue::default(), NextDue::default(), NextDue::default());
        loop {
            tokio::select! {
                update = self.updates.recv() => match update.map(|update| self.state.take(update)) {
                    None => return,
                    Some(Changed::Nothing) => {}
                    Some(Changed::Objects) => objects.put_off(QUIET, AT_MOST),
                    Some(Changed::Configuration) => {
                        files.put_off(QUIET, AT_MOST);
                        objects.put_off(QUIET, AT_MOST);
                    }
                    Some(Changed::Pods) => {
                        pods.put_off(PODS, QUIET);
                        // The first list of pods may have been the last that was missing.
                        if self.files.borrow().is_none() {
                            files.put_off(QUIET, AT_MOST);
                        }
                    }
                },
                () = objects.wait() => {
                    objects = NextDue::default();
                    // A node's agent reports on none.
                    if self.objects.receiver_count() > 0 {
                        self.objects.send_replace(Arc::new(self.state.objects()));
                    }
                }
                () = pods.wait() => {
                    pods = NextDue::default();
                    self.pods.send_replace(self.state.pods());
                }
                () = files.wait() => {
                    files = NextDue::default();
                    // Whoever sees the configuration sees the pods that it was put together with.
                    if std::mem::take(&mut pods).at.is_some() {
                        self.pods.send_replace(self.state.pods());
                    }
                    if let Some(rollout) = &self.rollout {
                        rollout.set_nodes(self.state.agents());
                    }
                    if let Some(whole) = self.state.files() {
                        self.files.send_replace(Some(Arc::new(whole)));
                    }
                }
                () = self.files.closed() => return,
            }
        }
    }
}
