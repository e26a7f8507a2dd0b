//! From a name to addresses: one resolver a process, on a thread of its own.

mod addresses;
mod cache;
mod error;
mod limits;
mod negative;
mod queue;
mod scheduler;
mod server;

use std::{
    fmt, io,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, Either, Ready, ready};
use hickory_resolver::proto::rr::RecordType;
use tokio::{
    runtime,
    sync::{Notify, oneshot},
    task::{LocalSet, spawn_local},
    time::timeout,
};

pub use self::limits::LookupLimits;
use self::{
    addresses::ResolvedAddresses,
    cache::Addresses,
    scheduler::{LookupJob, LookupScheduler, Reply, Waiter},
    server::{Client, Files, NameServers},
};
pub use self::{error::ResolveError, server::ResolverSource};
use super::now;
use crate::types::ShareOwner;

/// How long a look-up may take before an old answer is used (RFC 8767 §5: the client response timer).
const STALE_ANSWER: Duration = Duration::from_millis(1800);

/// A question about a name.
#[derive(Clone, Copy, Debug)]
pub struct DnsQuestion<'a> {
    /// Who asks: whose share of the look-ups it takes.
    pub owner: &'a ShareOwner,
    /// The name.
    pub name: &'a str,
    /// How long the caller waits at most. An old answer is given in time.
    pub within: Duration,
}

/// The addresses of a DNS name, IPv4 first; never an empty list.
pub type Resolved = Result<Arc<[IpAddr]>, ResolveError>;

/// An answer: one that is there already, or one to wait for.
pub type Answer<'a> = Either<Ready<Resolved>, BoxFuture<'a, Resolved>>;

/// What stands between names and addresses; the resolver in production.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// Asks for the addresses of a DNS name.
    fn resolve<'a>(&'a self, question: DnsQuestion<'a>) -> Answer<'a>;
}

/// Asks DNS and remembers the answers. One a process: its bounds hold for all workers together, and
/// each workload has a share of them. Its thread ends when it is dropped.
pub struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    desk: Mutex<LookupScheduler<oneshot::Sender<Result<Addresses, ResolveError>>>>,
    /// There may be a look-up to make.
    work: Notify,
    over: AtomicBool,
}

impl Waiter for oneshot::Sender<Result<Addresses, ResolveError>> {
    fn is_waiting(&self) -> bool {
        !self.is_closed()
    }

    fn answer(self, answer: Result<Addresses, ResolveError>) {
        // Whoever has gone needs none.
        self.send(answer).ok();
    }
}

impl Resolver {
    /// Reads the configuration and starts the thread.
    ///
    /// # Errors
    /// `/etc/resolv.conf` can't be read or names no server, or the thread can't be started.
    pub fn new(source: ResolverSource, limits: LookupLimits) -> io::Result<Self> {
        Self::with_files(source, Files::default(), limits)
    }

    fn with_files(source: ResolverSource, files: Files, limits: LookupLimits) -> io::Result<Self> {
        let servers = NameServers::new(source, files)?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared {
            desk: Mutex::new(LookupScheduler::new(limits)),
            work: Notify::new(),
            over: AtomicBool::new(false),
        });
        let its = Arc::clone(&shared);
        thread::Builder::new()
            .name("resolver".into())
            .spawn(move || LocalSet::new().block_on(&runtime, serve(its, servers)))?;
        Ok(Self { shared })
    }
}

impl Resolve for Resolver {
    fn resolve<'a>(&'a self, question: DnsQuestion<'a>) -> Answer<'a> {
        let DnsQuestion { owner, name, within } = question;
        let mut receiver = None;
        let (reply, has_work) = {
            let mut desk = self.shared.desk();
            let reply = desk.ask(now().into_std(), owner, name, || {
                let (sender, its) = oneshot::channel();
                receiver = Some(its);
                sender
            });
            (reply, desk.has_work())
        };
        // An answer that is good for long gives its thread nothing to do.
        if has_work {
            self.shared.work.notify_one();
        }
        match (reply, receiver) {
            (Reply::Now(answer), _) => Either::Left(ready(answer)),
            (Reply::Later(_), None) => Either::Left(ready(Err(ended()))),
            (Reply::Later(None), Some(receiver)) => {
                Either::Right(Box::pin(
                    async move { receiver.await.unwrap_or_else(|_| Err(ended())) },
                ))
            }
            (Reply::Later(Some(stale)), Some(receiver)) => Either::Right(Box::pin(async move {
                let patience = STALE_ANSWER.min(within / 2);
                match timeout(patience, receiver).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(_)) | Err(_) => Ok(stale),
                }
            })),
        }
    }
}

fn ended() -> ResolveError {
    ResolveError::Failed("the resolver has ended".into())
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.work.notify_one();
    }
}

impl Shared {
    /// What a panic left behind there is still in order: no state spans a call.
    fn desk(
        &self,
    ) -> MutexGuard<'_, LookupScheduler<oneshot::Sender<Result<Addresses, ResolveError>>>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The resolver's thread: makes the look-ups that the desk hands out.
async fn serve(shared: Arc<Shared>, mut servers: NameServers) {
    while !shared.over.load(Ordering::Acquire) {
        servers.follow(Instant::now());
        loop {
            let Some(job) = shared.desk().next() else { break };
            spawn_local(look_up(Arc::clone(&shared), servers.client(), job));
        }
        shared.work.notified().await;
    }
}

async fn look_up(shared: Arc<Shared>, client: Client, job: LookupJob) {
    let v4 = client.records(&job.name, RecordType::A);
    let v6 = client.records(&job.name, RecordType::AAAA);
    let mut under_way = LookupGuard { shared: &shared, job: &job, result: None };
    let early = |found: &_| shared.desk().early(Instant::now(), &job, found);
    under_way.result = Some(addresses::both(v4, v6, early).await);
}

/// A look-up, reported to the desk whatever becomes of it: a panic must not leave its name behind as
/// one that is under way for ever.
struct LookupGuard<'a> {
    shared: &'a Shared,
    job: &'a LookupJob,
    result: Option<Result<ResolvedAddresses, ResolveError>>,
}

impl Drop for LookupGuard<'_> {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| Err(ended()));
        self.shared.desk().finish(Instant::now(), self.job, result);
        self.shared.work.notify_one();
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
