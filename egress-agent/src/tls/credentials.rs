//! The credentials of a process, kept equal to their source: for the servers that terminate TLS, and
//! for the tunnels of a node.
//!
//! A change that can't be used changes nothing: the last good credential stays as long as it is
//! valid. Connections that are open stay open across a change, unless the certificate of their
//! other side no longer verifies ([`Credentials::client_ends`], [`Credentials::gateway_ends`]).

mod live;
mod originated;
mod served;
mod shares;
mod slot;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use self::{
    originated::Originated,
    served::Served,
    shares::Shared,
    slot::{CredentialSlot, CredentialSlots, CredentialSpec},
};
pub use self::{served::Unusable, slot::CredentialState};
use super::{
    credential::{CredentialLocations, CredentialStore, Located},
    workload_api::{WorkloadApi, WorkloadMaterial},
};
use crate::{
    policy::{BadCredential, ClientTls, CredentialFaults, CredentialUse, ServerTls, TunnelTls},
    source::{FileContents, FileSet, Secrets, Timing, Watched, Watcher},
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
    places: CredentialLocations,
    state: Mutex<State>,
    /// Replaced as a whole, so that looking a configuration up takes no lock.
    served: ArcSwap<Served>,
    /// Other files are to be watched.
    moved: Notify,
    /// Counts changes of what is served.
    epoch: watch::Sender<u64>,
    /// Whether the Workload API, where it is a source, answered or failed to.
    answered: watch::Sender<bool>,
    /// See [`Credentials::faults`].
    faults: watch::Sender<Arc<CredentialFaults>>,
}

/// What is wanted, and what is known of it.
#[derive(Debug, Default)]
struct State {
    slots: CredentialSlots,
    /// Those of TLS that this process originates.
    originated: Originated,
    /// As last read.
    files: FileContents,
    /// As the Workload API last gave it.
    given: WorkloadMaterial,
    /// Which resources name which credentials.
    uses: Arc<[CredentialUse]>,
}

impl Credentials {
    /// Credentials in these places; none are wanted yet.
    #[must_use]
    pub fn new(places: CredentialLocations) -> Self {
        Self { places, ..Self::default() }
    }

    /// The next configuration originates TLS with these settings, and shows these credentials to proxies.
    /// Connections read their files by themselves; here the Secrets among them are asked for and judged.
    pub fn originate<'a>(
        &self,
        settings: impl IntoIterator<Item = &'a ClientTls>,
        proxies: impl IntoIterator<Item = &'a str>,
    ) {
        let originated = Originated::new(self.secrets(), settings, proxies);
        self.state().originated.replace(originated);
    }

    /// The next configuration names credentials so: each namespace has a share of the Secrets that are asked for.
    pub fn attribute(&self, uses: &Arc<[CredentialUse]>) {
        self.state().uses = Arc::clone(uses);
    }

    /// What is wrong with credentials, by the resources that name them.
    #[must_use]
    pub fn faults(&self) -> watch::Receiver<Arc<CredentialFaults>> {
        self.faults.subscribe()
    }

    fn secrets(&self) -> Option<&Secrets> {
        match &self.places.credentials {
            Some(CredentialStore::Secrets(secrets)) => Some(secrets),
            Some(CredentialStore::Directory(_)) | None => None,
        }
    }

    /// Asks for the Secrets of these slots and of what is originated, and waits for an answer on each.
    async fn ask_for_secrets(&self, slots: &CredentialSlots) {
        let Some(secrets) = self.secrets() else { return };
        let Shared { within, beyond } = {
            let state = self.state();
            let mut names: BTreeSet<String> = state.originated.names().map(Into::into).collect();
            names.extend(slots.keys().filter_map(CredentialSpec::named).map(Into::into));
            let is_read =
                |name: &str| Located::secrets(name).iter().any(|one| secrets.is_read(one));
            shares::share(names, &state.uses, is_read)
        };
        let of = |name: &String| Located::secrets(name);
        let beyond = beyond
            .iter()
            .flat_map(|(name, why)| of(name).into_iter().map(move |one| (one, why.clone())));
        secrets.want(within.iter().flat_map(of).collect(), &beyond.collect());
        if timeout(READING, secrets.settled()).await.is_err() {
            tracing::error!(
                "the API server has not given every Secret of credentials within {} s; connections \
                 that need one are refused until it does",
                READING.as_secs()
            );
        }
    }

    /// A new configuration has these servers and tunnels. Their files are read before this returns,
    /// so that the first connection finds them; but no file system holds it up for longer than some
    /// seconds, and neither the runtime's thread nor a connection waits for one.
    pub async fn configure(
        &self,
        servers: impl IntoIterator<Item = Arc<ServerTls>>,
        tunnels: impl IntoIterator<Item = Arc<TunnelTls>>,
    ) {
        let mut slots = CredentialSlots::new();
        for settings in servers {
            for spec in CredentialSpec::others(&settings) {
                slots.entry(spec).or_default();
            }
            slots.entry(CredentialSpec::by_server(&settings)).or_default().servers.push(settings);
        }
        for settings in tunnels {
            slots.entry(CredentialSpec::by_tunnel(&settings)).or_default().tunnels.push(settings);
        }
        for (spec, slot) in &mut slots {
            slot.locate(&self.places, spec);
        }
        let files = files(&slots);
        let read = timeout(READING, spawn_blocking(move || read_at_rest(&files))).await;
        self.ask_for_secrets(&slots).await;
        if self.places.workload_api.is_some() && slots.keys().any(CredentialSpec::is_own) {
            let mut answered = self.answered.subscribe();
            // Without an answer there is a fault to tell, in the state.
            timeout(ANSWER, answered.wait_for(|answered| *answered)).await.ok();
        }
        let mut state = self.state();
        let mut old = std::mem::replace(&mut state.slots, slots);
        for (spec, slot) in &mut state.slots {
            if let Some(old) = old.remove(spec) {
                slot.inherit(old);
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
        tokio::join!(self.watch_files(), self.watch_secrets(), self.watch_workload_api());
    }

    async fn watch_secrets(&self) {
        let Some(secrets) = self.secrets() else { return };
        let mut changes = secrets.changes();
        loop {
            changes.next().await;
            // Of several that come together, none is missed by a look in between.
            timeout(READING, secrets.settled()).await.ok();
            self.judge(&mut self.state(), SystemTime::now());
        }
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
            let files = files(&self.state().slots);
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
        self.served.load().server(settings)
    }

    /// The configuration to connect to a gateway with: TLS 1.3 and `h2` alone, with a certificate of
    /// ours, and verifying the gateway's identity. It is the same one (`Arc::ptr_eq`) until the
    /// credential changes: what a pool holds that was made with another one should take no new
    /// streams.
    ///
    /// # Errors
    /// There is no usable certificate now.
    pub fn client(&self, settings: &TunnelTls) -> Result<Arc<ClientConfig>, Unusable> {
        self.served.load().client(settings)
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
            state.slots.iter().map(|(spec, slot)| slot.state(spec)).collect();
        states.extend(state.originated.states());
        // One that is good for one purpose and not for another shows its worse side.
        states.sort_by(|a, b| (&a.name, a.current).cmp(&(&b.name, b.current)));
        states.dedup_by(|a, b| a.name == b.name);
        states
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_faults(
        &self,
        uses: &[CredentialUse],
        states: impl IntoIterator<Item = CredentialState>,
    ) {
        // Files are reported where they are: in the log and by `status`.
        if self.secrets().is_none() {
            return;
        }
        let now = faults_by_resource(uses, states);
        self.faults.send_if_modified(|faults| {
            let changed = **faults != now;
            if changed {
                *faults = Arc::new(now);
            }
            changed
        });
    }

    /// Takes what was read, as far as it is good, and rebuilds what depends on it.
    fn judge(&self, state: &mut State, now: SystemTime) {
        let State { slots, originated, files, given, uses } = state;
        let paths = slots.values().flat_map(CredentialSlot::paths);
        let with_secrets = self.secrets().map(|secrets| files.with(secrets.read(paths)));
        let files = with_secrets.as_ref().unwrap_or(files);
        originated.judge(self.places.credentials.as_ref());
        let before = self.served.load();
        let mut served = Served::default();
        let mut changed = false;
        for (spec, slot) in slots.iter_mut() {
            changed |= slot.take(spec, files, given, now);
        }
        for slot in slots.values() {
            slot.serve(&before, slots, &mut served);
        }
        drop(before);
        let slots = slots.iter().map(|(spec, slot)| slot.state(spec));
        self.publish_faults(uses, slots.chain(originated.states()));
        self.served.store(Arc::new(served));
        if changed {
            self.epoch.send_modify(|epoch| *epoch += 1);
        }
    }
}

/// Faults by the resources that name the credentials: the first of each credential.
fn faults_by_resource(
    uses: &[CredentialUse],
    states: impl IntoIterator<Item = CredentialState>,
) -> CredentialFaults {
    let first = |state: CredentialState| {
        let fault = state.problems.into_iter().next()?;
        let bad =
            BadCredential { name: state.name.clone(), fault, in_use: state.not_after.is_some() };
        Some((state.name, bad))
    };
    let by_name: BTreeMap<String, BadCredential> = states.into_iter().filter_map(first).collect();
    let mut faults = CredentialFaults::new();
    for named in uses {
        if let Some(bad) = by_name.get(&*named.name) {
            let of_resource = faults.entry(named.resource.to_string()).or_default();
            if !of_resource.contains(bad) {
                of_resource.push(bad.clone());
            }
        }
    }
    faults
}

fn files(slots: &CredentialSlots) -> FileSet {
    slots.values().filter_map(CredentialSlot::files).collect()
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
