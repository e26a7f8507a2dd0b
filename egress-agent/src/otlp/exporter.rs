//! The thread that sends.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::future::join_all;
use rustix::system::uname;
use tokio::{
    runtime,
    sync::watch,
    time::{sleep, timeout},
};

use super::{client::Client, deliver::deliver, request::Head, settings::Settings};
use crate::telemetry::{Exports, Queue, Signal, Traces};

/// How long records are gathered before they are sent.
const GATHER: Duration = Duration::from_secs(1);
/// About how many bytes are sent at once.
const BATCH: usize = 512 << 10;
/// How long the end of the process waits for what is left.
const STOP: Duration = Duration::from_secs(2);

/// Sends what waits, until it is stopped.
#[derive(Debug)]
pub struct Exporter {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// Starts the export that the environment asks for; `None` where it asks for none. `service` is the
/// process's name where the environment gives it no other, `node` the Kubernetes node or empty, and `signals` the
/// kinds of records that the process has.
///
/// # Errors
/// The environment asks for something that isn't possible, or a thread can't be started.
pub fn start(
    service: &str,
    node: &str,
    signals: &[Signal],
) -> anyhow::Result<Option<(Arc<Exports>, Exporter)>> {
    let mut own = vec![
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("host.name", uname().nodename().to_string_lossy().into_owned()),
    ];
    if !node.is_empty() {
        own.push(("k8s.node.name", node.to_owned()));
    }
    let settings = Settings::from_env(service, &own)?.of(signals);
    if !settings.is_on() {
        return Ok(None);
    }
    start_with(settings).map(Some)
}

/// The same with settings from anywhere.
///
/// # Errors
/// Certificates can't be used, or a thread can't be started.
pub(super) fn start_with(settings: Settings) -> anyhow::Result<(Arc<Exports>, Exporter)> {
    let head = Head::new(&settings.resource);
    let mut all = Vec::new();
    let mut queue = |signal: Signal, target| -> anyhow::Result<_> {
        let client = Client::new(target).map_err(anyhow::Error::msg);
        let client =
            client.with_context(|| format!("{} can't be exported over TLS", signal.name()))?;
        tracing::info!("{} are exported to {}", signal.name(), client.url());
        let queue = Arc::new(Queue::new(signal));
        all.push((client, Arc::clone(&queue)));
        Ok(queue)
    };
    let logs = settings.logs.map(|target| queue(Signal::Logs, target)).transpose()?;
    let traces = settings.traces.map(|target| queue(Signal::Traces, target)).transpose()?;
    let traces = traces.map(|queue| Traces { queue, sampler: settings.sampler });
    let (stop, stopped) = watch::channel(false);
    let thread = spawn(all, head, stopped).context("can't start the exporter's thread")?;
    Ok((Arc::new(Exports { logs, traces }), Exporter { stop, thread }))
}

impl Exporter {
    /// Sends what is left, for two seconds at most, and ends the thread.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::warn!("the exporter's thread has failed");
        }
    }
}

fn spawn(
    all: Vec<(Client, Arc<Queue>)>,
    head: Head,
    stopped: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("otlp".into()).spawn(move || {
        runtime.block_on(async {
            let mut ending = stopped.clone();
            let sending = all
                .into_iter()
                .map(|(client, queue)| send(client, queue, head.clone(), stopped.clone()));
            let limit = async {
                ending.wait_for(|stop| *stop).await.ok();
                sleep(STOP).await;
            };
            tokio::select! {
                _ = join_all(sending) => {}
                () = limit => tracing::warn!("the last records were not exported in time"),
            }
        });
        // A look-up that hangs is not waited for.
        runtime.shutdown_background();
    })
}

/// Sends what comes into one queue.
async fn send(
    mut client: Client,
    queue: Arc<Queue>,
    head: Head,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        // Whoever could stop it may be gone, too.
        let is_last = *stopped.borrow_and_update() || stopped.has_changed().is_err();
        if !is_last {
            tokio::select! {
                () = queue.filled() => {}
                _ = stopped.changed() => {}
            }
            tokio::select! {
                // More than one that gathers makes no smaller batch.
                _ = timeout(GATHER, queue.urgent()) => {}
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        }
        while let Some(batch) = queue.take(BATCH) {
            let body = client.packed(head.body(&batch));
            let count = batch.count();
            drop(batch);
            deliver(&mut client, &queue, body, count).await;
        }
        if is_last {
            return;
        }
    }
}
