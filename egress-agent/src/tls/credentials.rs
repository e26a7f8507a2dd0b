//! The credentials that the gateway's servers use, kept equal to their files.
//!
//! A change that can't be used changes nothing: the last good credential stays as long as it is
//! valid. Connections that are open stay open across every change.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use thiserror::Error;
use tokio::{sync::Notify, time::sleep};

use super::{
    credential::{Credential, CredentialFault, Inspection, Located, Needs, Places},
    server,
    x509::{date, days_left},
};
use crate::{
    policy::{CredentialSource, ServerTls, ServerTlsMode},
    source::{FileContents, FileSet, Timing, Watched, Watcher},
    types::SpiffeId,
};

/// How often the files that were read are judged again: a certificate becomes valid, or ceases to
/// be, without a change of its file.
const JUDGE: Duration = Duration::from_secs(30);
/// Tries to read files while nobody changes them.
const TRIES: usize = 5;

/// One a process, shared by its workers.
#[derive(Debug, Default)]
pub struct Credentials {
    places: Places,
    held: Mutex<BTreeMap<Wanted, Held>>,
    /// Replaced as a whole, so that looking a server up takes no lock.
    served: ArcSwap<HashMap<Arc<ServerTls>, Result<Served, Unusable>>>,
    /// Other files are to be watched.
    moved: Notify,
}

/// A credential, and what it must be good for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Wanted {
    source: CredentialSource,
    needs: Needs,
}

/// What is known of a credential.
#[derive(Debug, Default)]
struct Held {
    /// Where its files are; absent where no directory is known.
    located: Option<Located>,
    good: Option<Good>,
    /// What is wrong with the files as last read.
    faults: Vec<CredentialFault>,
    servers: Vec<Arc<ServerTls>>,
}

#[derive(Debug)]
struct Good {
    credential: Arc<Credential>,
    /// Fingerprints of chain and roots, and the revocation lists.
    marks: Marks,
}

type Marks = (Vec<String>, Vec<Vec<u8>>);

#[derive(Clone, Debug)]
struct Served {
    config: Arc<ServerConfig>,
    credential: Arc<Credential>,
}

/// A server can't take connections for want of a certificate.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the gateway has no usable certificate for this server: {0}")]
pub struct Unusable(String);

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
    /// Credentials in these directories; none are wanted yet.
    #[must_use]
    pub fn new(places: Places) -> Self {
        Self { places, ..Self::default() }
    }

    /// A new configuration has these servers. Their files are read before this returns, so that the
    /// first connection finds them.
    pub fn configure(&self, servers: impl IntoIterator<Item = Arc<ServerTls>>) {
        let mut by_need: BTreeMap<Wanted, Vec<Arc<ServerTls>>> = BTreeMap::new();
        for settings in servers {
            by_need.entry(wanted(&settings)).or_default().push(settings);
        }
        let mut held = self.held();
        let mut old = std::mem::take(&mut *held);
        for (wanted, servers) in by_need {
            let mut entry = old.remove(&wanted).unwrap_or_default();
            entry.servers = servers;
            entry.located = match self.places.locate(&wanted.source) {
                Ok(located) => Some(located),
                Err(fault) => {
                    entry.replace_faults(&wanted.source, vec![fault]);
                    None
                }
            };
            held.insert(wanted, entry);
        }
        let files = files(&held);
        self.judge(&mut held, &read_at_rest(&files), SystemTime::now());
        drop(held);
        self.moved.notify_one();
    }

    /// Follows the files, for ever.
    pub async fn watch(&self) {
        loop {
            let mut watcher = Watcher::new(files(&self.held()), Timing::default());
            let mut last = None;
            loop {
                tokio::select! {
                    read = watcher.next() => last = Some(read),
                    () = self.moved.notified() => break,
                    () = sleep(JUDGE) => {}
                }
                if let Some(read) = &last {
                    self.judge(&mut self.held(), read, SystemTime::now());
                }
            }
        }
    }

    /// The configuration to accept a connection with.
    ///
    /// # Errors
    /// There is no usable certificate now.
    pub fn server(&self, settings: &ServerTls) -> Result<Arc<ServerConfig>, Unusable> {
        match self.served.load().get(settings) {
            Some(Ok(served)) if served.credential.not_after > SystemTime::now() => {
                Ok(Arc::clone(&served.config))
            }
            Some(Ok(served)) => {
                Err(Unusable(format!("it expired on {}", date(served.credential.not_after))))
            }
            Some(Err(unusable)) => Err(unusable.clone()),
            None => Err(Unusable("its files were not read yet".into())),
        }
    }

    /// How every credential fares.
    #[must_use]
    pub fn states(&self) -> Vec<CredentialState> {
        let held = self.held();
        let state = |(wanted, held): (&Wanted, &Held)| CredentialState {
            name: wanted.source.to_string(),
            current: held.good.is_some() && !held.faults.iter().any(CredentialFault::is_fatal),
            not_after: held.good.as_ref().map(|good| good.credential.not_after),
            id: held.good.as_ref().and_then(|good| good.credential.id.clone()),
            problems: held.faults.iter().map(ToString::to_string).collect(),
        };
        let mut states: Vec<CredentialState> = held.iter().map(state).collect();
        // One that is good for one purpose and not for another shows its worse side.
        states.sort_by(|a, b| (&a.name, a.current).cmp(&(&b.name, b.current)));
        states.dedup_by(|a, b| a.name == b.name);
        states
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Wanted, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was read, as far as it is good, and rebuilds what depends on it.
    fn judge(&self, held: &mut BTreeMap<Wanted, Held>, read: &FileContents, now: SystemTime) {
        let before = self.served.load_full();
        let mut served = HashMap::new();
        for (wanted, held) in held {
            if let Some(located) = held.located.clone() {
                held.take(wanted, Inspection::of(read, &located, &wanted.needs, now), now);
            }
            for settings in &held.servers {
                let config = match &held.good {
                    None => Err(held.unusable()),
                    Some(good) => match before.get(settings) {
                        // The same credential keeps its sessions.
                        Some(Ok(same)) if Arc::ptr_eq(&same.credential, &good.credential) => {
                            Ok(same.clone())
                        }
                        _ => serve(settings, &good.credential),
                    },
                };
                served.insert(Arc::clone(settings), config);
            }
        }
        self.served.store(Arc::new(served));
    }
}

impl Held {
    fn take(&mut self, wanted: &Wanted, inspection: Inspection, now: SystemTime) {
        let Inspection { chain, roots, crls: _, faults, credential } = inspection;
        let name = &wanted.source;
        if let Some(credential) = credential {
            let fingerprints = chain.iter().chain(&roots).map(|info| info.fingerprint.clone());
            let lists = credential.crls.iter().map(|list| list.as_ref().to_vec());
            let marks: Marks = (fingerprints.collect(), lists.collect());
            if self.good.as_ref().is_none_or(|good| good.marks != marks) {
                let end = credential.not_after;
                tracing::info!(
                    "certificate {name} is in use, valid until {} ({} days)",
                    date(end),
                    days_left(end, now)
                );
                self.good = Some(Good { credential: Arc::new(credential), marks });
            }
        }
        self.replace_faults(name, faults);
    }

    /// Tells of faults when they are new.
    fn replace_faults(&mut self, name: &CredentialSource, faults: Vec<CredentialFault>) {
        if self.faults != faults {
            for fault in &faults {
                let stays = match &self.good {
                    _ if !fault.is_fatal() => String::new(),
                    Some(good) => {
                        let end = date(good.credential.not_after);
                        format!("; the last good one stays in use until {end}")
                    }
                    None => "; connections that need it are refused".into(),
                };
                tracing::error!("certificate {name}: {fault}{stays}");
            }
        }
        self.faults = faults;
    }

    fn unusable(&self) -> Unusable {
        let faults = self.faults.iter().filter(|fault| fault.is_fatal());
        Unusable(faults.map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }
}

fn wanted(settings: &ServerTls) -> Wanted {
    let identity = match &settings.mode {
        ServerTlsMode::IstioMutual(domain) => Some(domain.clone()),
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => None,
    };
    let needs = Needs { roots: settings.mode.asks(), identity };
    Wanted { source: settings.credential.clone(), needs }
}

fn serve(settings: &Arc<ServerTls>, credential: &Arc<Credential>) -> Result<Served, Unusable> {
    match server::build(settings, credential) {
        Ok(config) => Ok(Served { config: Arc::new(config), credential: Arc::clone(credential) }),
        Err(why) => {
            tracing::error!("certificate {}: {why}", settings.credential);
            Err(Unusable(why))
        }
    }
}

fn files(held: &BTreeMap<Wanted, Held>) -> FileSet {
    held.values().filter_map(|held| held.located.as_ref()).map(Located::files).collect()
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
