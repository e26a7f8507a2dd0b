//! One process after another: the upgrade that was asked for, the process before this one, and the one
//! after.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    channel::{Channel, Message},
    successor::{Program, Successor, UpgradeError, upgrade},
};
use crate::{
    admin::{
        State, Status,
        control::{UpgradeAnswer, UpgradeRefusal, UpgradeReport},
    },
    proxy::UsedRate,
    sys::{listening::Named, service::notify},
};

/// The process before this one as long as it drains; zero for none.
pub(crate) type Draining = Arc<AtomicU32>;

/// Something that changes what this process is for.
pub(crate) enum Event {
    /// Another process accepts connections: this one is to stop, and then to [`Succession::release`] it.
    Replaced,
    /// The process before this one has counted this for its rate limits.
    RatesUsed(Vec<UsedRate>),
    /// The process before this one accepts none.
    InCharge,
    /// The process that had taken over has ended, with this status.
    Orphaned(String),
}

/// An upgrade under way.
struct Running {
    task: JoinHandle<Result<Successor, UpgradeError>>,
    answer: oneshot::Sender<UpgradeAnswer>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The process that it started ends with it.
        self.task.abort();
    }
}

/// What comes before and after this process. At most two processes serve connections at a time.
pub(crate) struct Succession {
    program: Program,
    /// Until they are handed over or closed.
    sockets: Option<Arc<Vec<Named>>>,
    requests: mpsc::Receiver<oneshot::Sender<UpgradeAnswer>>,
    status: Arc<Status>,
    draining: Draining,
    before: Option<Channel>,
    running: Option<Running>,
    after: Option<(Successor, Option<oneshot::Sender<UpgradeAnswer>>)>,
    /// How long this process goes on with what runs, once it is replaced.
    drain: Duration,
}

impl Succession {
    pub(crate) fn new(
        program: Program,
        sockets: Vec<Named>,
        requests: mpsc::Receiver<oneshot::Sender<UpgradeAnswer>>,
        status: Arc<Status>,
        drain: Duration,
    ) -> Self {
        Self {
            program,
            sockets: Some(Arc::new(sockets)),
            requests,
            status,
            draining: Draining::default(),
            before: None,
            running: None,
            after: None,
            drain,
        }
    }

    /// The process before this one as long as it drains, for reports.
    pub(crate) fn draining(&self) -> Draining {
        Arc::clone(&self.draining)
    }

    /// This process accepts connections, and so does the one before, at the other end of the channel.
    pub(crate) fn follow(&mut self, pid: u32, channel: Channel) {
        self.draining.store(pid, Relaxed);
        self.before = Some(channel);
    }

    /// The next event. Dropping it loses nothing.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                Some(answer) = self.requests.recv() => self.begin(answer),
                upgraded = upgraded(&mut self.running) => {
                    if self.conclude(upgraded) {
                        return Event::Replaced;
                    }
                }
                message = receive(self.before.as_ref()) => match message {
                    Some(Message::Rates { used }) => return Event::RatesUsed(used),
                    Some(Message::Released {}) => return Event::InCharge,
                    Some(other) => tracing::warn!(
                        "the process before this one sent the message `{}`, which is not expected now",
                        other.name()
                    ),
                    None => {
                        let pid = self.draining.swap(0, Relaxed);
                        self.before = None;
                        tracing::info!("process {pid}, which this one replaced, has ended");
                        return Event::InCharge;
                    }
                },
                why = ended(&mut self.after) => return Event::Orphaned(why),
            }
        }
    }

    fn begin(&mut self, answer: oneshot::Sender<UpgradeAnswer>) {
        let sockets = match self.refusal() {
            Ok(sockets) => sockets,
            Err(why) => {
                // Whoever asked may have gone.
                answer.send(Err(UpgradeRefusal::Refused(why))).ok();
                return;
            }
        };
        let in_use = self.status.certificates().into_iter();
        let in_use = in_use.filter(|credential| credential.not_after.is_some());
        let credentials = in_use.map(|credential| credential.name).collect();
        let program = self.program.clone();
        let task = tokio::spawn(async move { upgrade(&program, &sockets, credentials).await });
        self.running = Some(Running { task, answer });
    }

    /// The sockets to hand over, or why there is no upgrade now.
    fn refusal(&self) -> Result<Arc<Vec<Named>>, String> {
        if let Some((successor, _)) = &self.after {
            return Err(format!("process {} has taken over already", successor.pid));
        }
        if self.running.is_some() {
            return Err("an upgrade is under way".into());
        }
        let before = self.draining.load(Relaxed);
        if before != 0 {
            return Err(format!(
                "process {before}, which this one replaced, still drains: wait until it ends, or end it with \
                 `kill -TERM {before}`"
            ));
        }
        if std::process::id() == 1 {
            return Err("it is process 1, with which its container ends: replace the pod".into());
        }
        if self.status.state() == State::Draining {
            return Err(
                "it is marked as failed (/healthcheck/fail), which a new process would not be"
                    .into(),
            );
        }
        self.sockets.clone().ok_or_else(|| "it accepts no connections".into())
    }

    /// Whether another process serves.
    fn conclude(&mut self, upgraded: Result<Successor, UpgradeError>) -> bool {
        let answer = self.running.take().map(|mut running| {
            let (nobody, _) = oneshot::channel();
            std::mem::replace(&mut running.answer, nobody)
        });
        match upgraded {
            Ok(successor) => {
                self.after = Some((successor, answer));
                true
            }
            Err(error) => {
                tracing::error!("upgrade: {error}; this process goes on");
                if let Some(answer) = answer {
                    answer.send(Err(UpgradeRefusal::Failed(error.to_string()))).ok();
                }
                false
            }
        }
    }

    /// This process no longer accepts connections, and the one after is the service's main process. It goes on
    /// with what workloads have used of their rate limits.
    pub(crate) async fn release(&mut self, used: Vec<UsedRate>) {
        self.close();
        let Some((successor, answer)) = &mut self.after else { return };
        let report = UpgradeReport {
            pid: successor.pid,
            version: successor.version.clone(),
            replaced: std::process::id(),
            drain_seconds: self.drain.as_secs(),
        };
        notify(&format!("MAINPID={}\n", successor.pid));
        successor.release(used).await;
        tracing::info!(
            "process {} (version {}) has taken over; what runs here may go on for at most {} s",
            report.pid,
            report.version,
            report.drain_seconds
        );
        if let Some(answer) = answer.take() {
            answer.send(Ok(report)).ok();
        }
    }

    /// Gives up an upgrade under way, and this process's hold on the listeners: from here on the kernel
    /// takes connections only for whoever accepts them.
    pub(crate) fn close(&mut self) {
        self.running = None;
        self.sockets = None;
    }
}

async fn upgraded(running: &mut Option<Running>) -> Result<Successor, UpgradeError> {
    match running {
        Some(Running { task, .. }) => match task.await {
            Ok(upgraded) => upgraded,
            Err(_) => Err(UpgradeError::Failed("the upgrade was given up".into())),
        },
        None => pending().await,
    }
}

/// What the process before says; `None` once it has ended.
async fn receive(before: Option<&Channel>) -> Option<Message> {
    match before {
        Some(channel) => channel.receive().await.ok().flatten(),
        None => pending().await,
    }
}

async fn ended(after: &mut Option<(Successor, Option<oneshot::Sender<UpgradeAnswer>>)>) -> String {
    match after {
        Some((successor, _)) => successor.ended().await,
        None => pending().await,
    }
}
