//! One credential: what it must be good for, and the last good one.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::SystemTime};

use super::served::{ReadyServer, ReadyTunnel, Served, Unusable};
use crate::{
    policy::{CredentialSource, ServerTls, ServerTlsMode, TunnelTls},
    source::{FileContents, FileSet},
    tls::{
        CredentialLocations, Inspection, Located, Needs,
        credential::{Credential, CredentialFault},
        workload_api::WorkloadMaterial,
        x509::{date, days_left},
    },
    types::SpiffeId,
};

/// A credential, and what it must be good for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct CredentialSpec {
    source: CredentialSource,
    needs: Needs,
}

impl CredentialSpec {
    pub(super) fn by_server(settings: &ServerTls) -> Self {
        let identity = match &settings.mode {
            ServerTlsMode::IstioMutual(domain) => Some(domain.clone()),
            ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => None,
        };
        let needs = Needs { roots: settings.mode.asks(), identity };
        Self { source: settings.credential.clone(), needs }
    }

    /// Of the server's other certificates; the roots for clients' are the first one's.
    pub(super) fn others(settings: &ServerTls) -> impl Iterator<Item = Self> {
        let sources = settings.other_certificates.iter();
        sources.map(|source| Self { source: source.clone(), needs: Needs::default() })
    }

    /// The name of a `credentialName`.
    pub(super) fn named(&self) -> Option<&str> {
        match &self.source {
            CredentialSource::Named(name) => Some(name),
            CredentialSource::Files(_) | CredentialSource::Own => None,
        }
    }

    /// Whether it is the process's own identity.
    pub(super) fn is_own(&self) -> bool {
        self.source == CredentialSource::Own
    }

    /// The gateway accepts no client without an identity of the mesh.
    pub(super) fn by_tunnel(settings: &TunnelTls) -> Self {
        let needs = Needs { roots: true, identity: Some(settings.trust_domain.clone()) };
        Self { source: settings.credential.clone(), needs }
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

/// All credentials, by what they must be good for.
pub(super) type CredentialSlots = BTreeMap<CredentialSpec, CredentialSlot>;

/// What is known of a credential.
#[derive(Debug, Default)]
pub(super) struct CredentialSlot {
    /// Where its files are; absent where no directory is known.
    located: Option<Located>,
    pub(super) good: Option<UsableCredential>,
    /// What is wrong with the files as last read.
    faults: Vec<CredentialFault>,
    /// What was logged of it.
    told: Vec<CredentialFault>,
    pub(super) servers: Vec<Arc<ServerTls>>,
    pub(super) tunnels: Vec<Arc<TunnelTls>>,
}

#[derive(Debug)]
pub(super) struct UsableCredential {
    pub(super) credential: Arc<Credential>,
    marks: Fingerprints,
}

/// What makes one credential differ from another: the fingerprints of its chain and of the roots that
/// are in their time, and the revocation lists with whether they are out of date.
type Fingerprints = (Vec<String>, Vec<(Vec<u8>, bool)>);

impl CredentialSlot {
    /// Finds its files.
    pub(super) fn locate(&mut self, places: &CredentialLocations, spec: &CredentialSpec) {
        match places.locate(&spec.source) {
            Ok(located) => self.located = Some(located),
            Err(fault) => self.faults = vec![fault],
        }
    }

    /// What an earlier configuration knew of the same credential.
    pub(super) fn inherit(&mut self, old: Self) {
        self.good = old.good;
        self.told = old.told;
        if self.located.is_some() {
            self.faults = old.faults;
        }
    }

    pub(super) fn files(&self) -> Option<FileSet> {
        self.located.as_ref().map(Located::files)
    }

    /// Where it is looked for.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.located.iter().flat_map(Located::paths)
    }

    /// Takes what was read, if it is good. Whether what is in use changed.
    pub(super) fn take(
        &mut self,
        spec: &CredentialSpec,
        read: &FileContents,
        given: &WorkloadMaterial,
        now: SystemTime,
    ) -> bool {
        let name = &spec.source;
        let Some(located) = &self.located else {
            self.log_fault(name);
            return false;
        };
        let inspection = Inspection::of(read, given, located, &spec.needs, now);
        let marks = marks(&inspection, now);
        let Inspection { faults, credential, .. } = inspection;
        let mut changed = false;
        match credential {
            Some(credential) => {
                if self.good.as_ref().is_none_or(|good| good.marks != marks) {
                    let end = credential.not_after;
                    tracing::info!(
                        "certificate {name} is in use, valid until {} ({} days)",
                        date(end),
                        days_left(end, now)
                    );
                    self.good = Some(UsableCredential { credential: Arc::new(credential), marks });
                    changed = true;
                }
            }
            None => {
                if let Some(good) = &mut self.good
                    && let Some(pruned) = good.credential.without_expired_roots(now)
                {
                    good.credential = Arc::new(pruned);
                    changed = true;
                }
            }
        }
        self.faults = faults;
        self.log_fault(name);
        changed
    }

    /// Tells of faults when they are new.
    fn log_fault(&mut self, name: &CredentialSource) {
        if self.faults == self.told {
            return;
        }
        for fault in &self.faults {
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
        self.told.clone_from(&self.faults);
    }

    /// Adds what it serves; what didn't change since `before` stays the same. `all` has the servers' other
    /// certificates.
    pub(super) fn serve(&self, before: &Served, all: &CredentialSlots, served: &mut Served) {
        for settings in &self.servers {
            served.servers.insert(Arc::clone(settings), self.ready(settings, before, all));
        }
        for settings in &self.tunnels {
            let ready = match &self.good {
                None => Err(Unusable::tunnel(self.why())),
                Some(good) => match before.tunnels.get(settings) {
                    Some(Ok(same)) if Arc::ptr_eq(&same.credential, &good.credential) => {
                        Ok(same.clone())
                    }
                    _ => ReadyTunnel::new(settings, &good.credential).map_err(|why| {
                        tracing::error!("certificate {}: {why}", settings.credential);
                        Unusable::tunnel(why)
                    }),
                },
            };
            served.tunnels.insert(Arc::clone(settings), ready);
        }
    }

    /// Of a server's certificates those that are good are served. Without the first one there are no roots for
    /// clients' certificates: where clients are asked for theirs, it is needed.
    fn ready(
        &self,
        settings: &Arc<ServerTls>,
        before: &Served,
        all: &CredentialSlots,
    ) -> Result<ReadyServer, Unusable> {
        if self.good.is_none() && settings.mode.asks() {
            return Err(Unusable::server(self.why()));
        }
        let others: Vec<&Self> =
            CredentialSpec::others(settings).filter_map(|spec| all.get(&spec)).collect();
        let slots = || std::iter::once(self).chain(others.iter().copied());
        let good = slots().filter_map(|slot| slot.good.as_ref());
        let credentials: Vec<_> = good.map(|good| Arc::clone(&good.credential)).collect();
        if credentials.is_empty() {
            return Err(Unusable::server(slots().map(Self::why).collect::<Vec<_>>().join("; ")));
        }
        match before.servers.get(settings) {
            Some(Ok(same)) if same.shows(&credentials) => Ok(same.clone()),
            _ => ReadyServer::new(settings, credentials).map_err(|why| {
                tracing::error!("certificate {}: {why}", settings.credential);
                Unusable::server(why)
            }),
        }
    }

    pub(super) fn state(&self, spec: &CredentialSpec) -> CredentialState {
        CredentialState {
            name: spec.source.to_string(),
            current: self.good.is_some() && !self.faults.iter().any(CredentialFault::is_fatal),
            not_after: self.good.as_ref().map(|good| good.credential.not_after),
            id: self.good.as_ref().and_then(|good| good.credential.id.clone()),
            problems: self.faults.iter().map(ToString::to_string).collect(),
        }
    }

    fn why(&self) -> String {
        let faults = self.faults.iter().filter(|fault| fault.is_fatal());
        faults.map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

fn marks(inspection: &Inspection, now: SystemTime) -> Fingerprints {
    let Inspection { chain, roots, crls, credential, .. } = inspection;
    let roots = roots.iter().filter(|root| root.not_after > now);
    let fingerprints = chain.iter().chain(roots).map(|info| info.fingerprint.clone());
    let lists = credential.iter().flat_map(|credential| &credential.crls);
    let lists = lists
        .zip(crls)
        .map(|(der, info)| (der.as_ref().to_vec(), info.next_update.is_some_and(|due| due <= now)));
    (fingerprints.collect(), lists.collect())
}
