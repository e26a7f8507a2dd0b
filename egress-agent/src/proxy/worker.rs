//! Worker threads: a runtime, a core, listeners and connections of their own each.

use std::{
    cell::RefCell,
    io,
    net::TcpListener as StdListener,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    runtime,
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};

use super::{
    Drain, Limiter, Limits, PolicyCell, Rates, Worker,
    accept::{Listening, accept},
    http,
};
use crate::{
    net::{
        Buffers, ClusterStates, Connector, Dialer, LookupLimits, Resolve, Resolver, ResolverSource,
    },
    sys::{process::pin_to_core, spare::SpareDescriptors},
    telemetry::Telemetry,
    tls::{CredentialStore, Credentials, Originator, TrustRoots},
};

/// After the drain's deadline: for the connections to reset themselves.
const AFTER_EXPIRY: Duration = Duration::from_secs(1);

/// How often a worker looks whether memory is short.
const SHED: Duration = Duration::from_millis(250);

/// What one worker listens on.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Where connections of applications come in.
    pub captured: Vec<StdListener>,
    /// Where nodes open their tunnels.
    pub tunnels: Vec<StdListener>,
}

/// What all workers share.
#[derive(Clone, Debug)]
pub struct WorkersConfig {
    /// The policy in force.
    pub policy: PolicyCell,
    /// Counters and access log.
    pub telemetry: Arc<Telemetry>,
    /// Which DNS server is asked.
    pub resolver: ResolverSource,
    /// How much it is asked, by all workers together.
    pub lookups: LookupLimits,
    /// What originated TLS trusts.
    pub roots: TrustRoots,
    /// Where those of `credentialName` are, for originated TLS.
    pub credential_store: Option<CredentialStore>,
    /// What TLS that ends here shows and asks for.
    pub credentials: Arc<Credentials>,
    /// Load and health of upstreams.
    pub states: Arc<ClusterStates>,
    /// What workloads have asked of hosts, where that is limited.
    pub rates: Arc<Rates>,
    /// Deadlines and limits, of each worker.
    pub limits: Limits,
}

/// Running workers.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<(Drain, JoinHandle<()>)>,
}

impl Workers {
    /// Starts a worker for each set of listeners, on one of `cores` each if there are any.
    ///
    /// # Errors
    /// A thread or its runtime can't be made, or the resolver's configuration can't be read.
    /// Workers that were started are drained again.
    pub fn start(
        config: &WorkersConfig,
        listeners: Vec<Listeners>,
        cores: &[usize],
    ) -> io::Result<Self> {
        let resolver: Arc<dyn Resolve> = Arc::new(Resolver::new(config.resolver, config.lookups)?);
        let mut workers = Self { threads: Vec::new() };
        let mut cores = cores.iter().cycle();
        for (number, listeners) in listeners.into_iter().enumerate() {
            let drain = Drain::default();
            let resolver = Arc::clone(&resolver);
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let (config, its_drain) = (config.clone(), drain.clone());
            let core = cores.next().copied();
            let thread =
                thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                    if let Some(core) = core
                        && let Err(error) = pin_to_core(core)
                    {
                        tracing::warn!("worker {number} can't stay on core {core}: {error}");
                    }
                    let stats = Arc::clone(config.telemetry.stats.limits());
                    let limits = config.limits;
                    let dialer = Dialer::new(resolver, Rc::new(Connector), config.states);
                    let worker = Worker {
                        http: http::Shared::new(limits.idle_upstreams, &config.policy, &dialer),
                        policy: config.policy,
                        telemetry: config.telemetry,
                        dialer,
                        originator: Originator::new(config.roots)
                            .with_credentials(config.credential_store),
                        credentials: config.credentials,
                        buffers: Buffers::new(limits.pipes),
                        limits,
                        rates: config.rates,
                        limiter: Limiter::new(limits, stats),
                        drain: its_drain,
                    };
                    let local = LocalSet::new();
                    runtime.block_on(local.run_until(work(Rc::new(worker), listeners)));
                })?;
            workers.threads.push((drain, thread));
        }
        Ok(workers)
    }

    /// The end of each, to be started and expired from elsewhere while [`Self::join`] waits.
    #[must_use]
    pub fn drains(&self) -> Vec<Drain> {
        self.threads.iter().map(|(drain, _)| drain.clone()).collect()
    }

    /// Waits until all are done.
    pub fn join(mut self) {
        for (_, thread) in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker's thread panicked");
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (drain, _) in &self.threads {
            drain.expire();
        }
    }
}

/// Gives memory back while the process is short of it, a connection at a time.
async fn shed(worker: Rc<Worker>) {
    loop {
        sleep(SHED).await;
        worker.limiter.shed();
    }
}

/// A worker from its first connection to its last.
pub(super) async fn work(worker: Rc<Worker>, listeners: Listeners) {
    let mut accepting = Vec::new();
    let spare = Rc::new(RefCell::new(SpareDescriptors::new(1)));
    let shedding = spawn_local(shed(Rc::clone(&worker)));
    let rousing = spawn_local(Rc::clone(&worker.limiter).rouse(worker.drain.clone()));
    let Listeners { captured, tunnels } = listeners;
    let captured = captured.into_iter().map(|listener| (listener, Listening::Captured));
    let tunnels = tunnels.into_iter().map(|listener| (listener, Listening::Tunnels));
    for (listener, kind) in captured.chain(tunnels) {
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                let task = accept(Rc::clone(&worker), listener, kind, Rc::clone(&spare));
                accepting.push(spawn_local(task));
            }
            Err(error) => tracing::error!("a listener can't be used: {error}"),
        }
    }
    for task in accepting {
        // They end when draining starts; a panic there must not keep the worker from its end.
        if task.await.is_err() {
            tracing::error!("an accepting task panicked");
        }
    }
    tokio::select! {
        () = worker.limiter.empty() => {}
        () = worker.drain.expired() => {
            timeout(AFTER_EXPIRY, worker.limiter.empty()).await.ok();
        }
    }
    shedding.abort();
    rousing.abort();
}

#[cfg(test)]
mod tests;
