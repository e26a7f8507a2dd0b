//! The credentials of a process, kept equal to their source: for the servers that end TLS, and for
//! the tunnels of a node.
//!
//! A change that can't be used changes nothing: the last good credential stays as long as it is
//! valid. Connections that are open stay open across a change, unless their other side isn't good
//! any more ([`Credentials::client_ends`], [`Credentials::gateway_ends`]).

mod held;
mod live;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig};
use thiserror::Error;
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use self::held::{Held, Wanted};
use super::{
    client::ClientVerifier,
    credential::{Credential, Places},
    gateway::GatewayVerifier,
    workload_api::{Given, WorkloadApi},
    x509::date,
};
use crate::{
    policy::{ServerTls, TunnelTls},
    source::{FileContents, FileSet, Timing, Watched, Watcher},
    types::SpiffeId,
};

/// How often what was read is judged again: a certificate becomes valid, or ceases to be, without a
/// change of its file.
const JUDGE: Duration = Duration::from_secs(30);
/// Tries to read files while nobody changes them.
const TRIES: usize = 5;
/// How long a new configuration waits for its certificates. After it, connections that need one that
/// wasn't read are refused until it is.
const READING: Duration = Duration::from_secs(5);

/// And for the first answer of the Workload API.
const ANSWER: Duration = Duration::from_secs(2);

/// One a process, shared by its workers.
#[derive(Debug, Default)]
pub struct Credentials {
    places: Places,
    state: Mutex<State>,
    /// Replaced as a whole, so that looking a configuration up takes no lock.
    served: ArcSwap<Served>,
    /// Other files are to be watched.
    moved: Notify,
    /// Counts changes of what is served.
    epoch: watch::Sender<u64>,
    /// Whether the Workload API, where it is a source, answered or failed to.
    answered: watch::Sender<bool>,
}

/// What is wanted, and what is known of it.
#[derive(Debug, Default)]
struct State {
    held: BTreeMap<Wanted, Held>,
    /// As last read.
    files: FileContents,
    /// As the Workload API last gave it.
    given: Given,
}

/// What connections are made with.
#[derive(Debug, Default)]
struct Served {
    servers: HashMap<Arc<ServerTls>, Result<ServerEnd, Unusable>>,
    tunnels: HashMap<Arc<TunnelTls>, Result<TunnelEnd, Unusable>>,
}

#[derive(Clone, Debug)]
struct ServerEnd {
    config: Arc<ServerConfig>,
    /// Absent where clients aren't asked.
    verifier: Option<Arc<ClientVerifier>>,
    credential: Arc<Credential>,
}

#[derive(Clone, Debug)]
struct TunnelEnd {
    config: Arc<ClientConfig>,
    verifier: Arc<GatewayVerifier>,
    credential: Arc<Credential>,
}

/// Connections can't be made for want of a certificate.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{whose}: {why}")]
pub struct Unusable {
    whose: &'static str,
    why: String,
}

impl Unusable {
    fn server(why: impl Into<String>) -> Self {
        Self { whose: "the gateway has no usable certificate for this server", why: why.into() }
    }

    fn tunnel(why: impl Into<String>) -> Self {
        Self { whose: "the node has no usable certificate for this tunnel", why: why.into() }
    }
}

/// How a credential fares, for metrics and `status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialState {
    /// The credential's name, `identity`, or the certificate's file.
    pub name: String,
    /// Whether the files, as last read, are what is in use.
    pub current: bool,
    /// End of validity of what is in use.
    pub not_after: Option<SystemTime>,
    /// The identity of what is in use.
    pub id: Option<SpiffeId>,
    /// What is wrong with the files.
    pub problems: Vec<String>,
}

impl Credentials {
    /// Credentials in these places; none are wanted yet.
    #[must_use]
    pub fn new(places: Places) -> Self {
        Self { places, ..Self::default() }
    }

    /// A new configuration has these servers and tunnels. Their files are read before this returns,
    /// so that the first connection finds them; but no file system holds it up for longer than some
    /// seconds, and neither the runtime's thread nor a connection waits for one.
    pub async fn configure(
        &self,
        servers: impl IntoIterator<Item = Arc<ServerTls>>,
        tunnels: impl IntoIterator<Item = Arc<TunnelTls>>,
    ) {
        let mut wanted: BTreeMap<Wanted, Held> = BTreeMap::new();
        for settings in servers {
            wanted.entry(Wanted::by_server(&settings)).or_default().servers.push(settings);
        }
        for settings in tunnels {
            wanted.entry(Wanted::by_tunnel(&settings)).or_default().tunnels.push(settings);
        }
        for (wanted, held) in &mut wanted {
            held.locate(&self.places, wanted);
        }
        let files = files(&wanted);
        let read = timeout(READING, spawn_blocking(move || read_at_rest(&files))).await;
        if self.places.workload_api.is_some() && wanted.keys().any(Wanted::is_own) {
            let mut answered = self.answered.subscribe();
            // Without an answer there is a fault to tell, in the state.
            timeout(ANSWER, answered.wait_for(|answered| *answered)).await.ok();
        }
        let mut state = self.state();
        let mut old = std::mem::replace(&mut state.held, wanted);
        for (wanted, held) in &mut state.held {
            if let Some(old) = old.remove(wanted) {
                held.inherit(old);
            }
        }
        match read {
            Ok(Ok(read)) => state.files = read,
            Ok(Err(_)) | Err(_) => tracing::error!(
                "certificates can't be read within {} s; what was read before stays",
                READING.as_secs()
            ),
        }
        self.judge(&mut state, SystemTime::now());
        self.epoch.send_modify(|epoch| *epoch += 1);
        drop(state);
        self.moved.notify_one();
    }

    /// Follows the files and the Workload API, for ever.
    pub async fn watch(&self) {
        tokio::join!(self.watch_files(), self.watch_workload_api());
    }

    async fn watch_workload_api(&self) {
        let Some(socket) = &self.places.workload_api else { return };
        let api = WorkloadApi::new(socket.clone());
        api.follow(|answer| {
            let mut state = self.state();
            state.given.take(answer);
            self.judge(&mut state, SystemTime::now());
            drop(state);
            self.answered.send_replace(true);
        })
        .await;
    }

    async fn watch_files(&self) {
        loop {
            let files = files(&self.state().held);
            let mut watcher = Watcher::new(files, Timing::default());
            loop {
                let read = tokio::select! {
                    read = watcher.next() => Some(read),
                    () = self.moved.notified() => break,
                    () = sleep(JUDGE) => None,
                };
                let mut state = self.state();
                if let Some(read) = read {
                    state.files = read;
                }
                self.judge(&mut state, SystemTime::now());
            }
        }
    }

    /// The configuration to accept a connection with. It is the same one until the credential
    /// changes.
    ///
    /// # Errors
    /// There is no usable certificate now.
    pub fn server(&self, settings: &ServerTls) -> Result<Arc<ServerConfig>, Unusable> {
        match self.served.load().servers.get(settings) {
            Some(Ok(end)) => match end.credential.over(SystemTime::now()) {
                None => Ok(Arc::clone(&end.config)),
                Some(over) => Err(Unusable::server(over)),
            },
            Some(Err(unusable)) => Err(unusable.clone()),
            None => Err(Unusable::server(UNREAD)),
        }
    }

    /// The configuration to connect to a gateway with: TLS 1.3 and `h2` alone, with a certificate of
    /// ours, and verifying the gateway's identity. It is the same one (`Arc::ptr_eq`) until the credential changes: what a pool holds
    /// that was made with another one should take no new streams.
    ///
    /// # Errors
    /// There is no usable certificate now.
    pub fn client(&self, settings: &TunnelTls) -> Result<Arc<ClientConfig>, Unusable> {
        match self.served.load().tunnels.get(settings) {
            Some(Ok(end)) => match end.credential.over(SystemTime::now()) {
                None => Ok(Arc::clone(&end.config)),
                Some(over) => Err(Unusable::tunnel(over)),
            },
            Some(Err(unusable)) => Err(unusable.clone()),
            None => Err(Unusable::tunnel(UNREAD)),
        }
    }

    /// Changes whenever a certificate, a root or a revocation list does: then what is open is to be
    /// judged again.
    #[must_use]
    pub fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// How every credential fares.
    #[must_use]
    pub fn states(&self) -> Vec<CredentialState> {
        let state = self.state();
        let mut states: Vec<CredentialState> =
            state.held.iter().map(|(wanted, held)| held.state(wanted)).collect();
        // One that is good for one purpose and not for another shows its worse side.
        states.sort_by(|a, b| (&a.name, a.current).cmp(&(&b.name, b.current)));
        states.dedup_by(|a, b| a.name == b.name);
        states
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was read, as far as it is good, and rebuilds what depends on it.
    fn judge(&self, state: &mut State, now: SystemTime) {
        let State { held, files, given } = state;
        let before = self.served.load();
        let mut served = Served::default();
        let mut changed = false;
        for (wanted, held) in held {
            changed |= held.take(wanted, files, given, now);
            held.serve(&before, &mut served);
        }
        drop(before);
        self.served.store(Arc::new(served));
        if changed {
            self.epoch.send_modify(|epoch| *epoch += 1);
        }
    }
}

const UNREAD: &str = "it was not read yet";

impl Credential {
    /// What is over of it, if something is.
    fn over(&self, now: SystemTime) -> Option<String> {
        (self.not_after <= now).then(|| format!("it expired on {}", date(self.not_after)))
    }
}

fn files(held: &BTreeMap<Wanted, Held>) -> FileSet {
    held.values().filter_map(Held::files).collect()
}

/// Content that didn't change while it was read. After some tries it is taken as it is: the watcher
/// looks again.
fn read_at_rest(files: &FileSet) -> FileContents {
    let mut before = files.fingerprint();
    for _ in 0..TRIES {
        let read = files.read();
        let after = files.fingerprint();
        if before == after {
            return read;
        }
        before = after;
    }
    files.read()
}

#[cfg(test)]
mod tests;
