//! Credentials of TLS that a gateway originates, where they are Secrets. Each connection reads them by itself;
//! here they are judged, so that a fault is reported before a connection needs them.

use std::collections::{BTreeMap, BTreeSet};

use super::slot::CredentialState;
use crate::{
    policy::{ClientTls, ClientTlsMode},
    source::Secrets,
    tls::{
        Alpn, TrustRoots, basic,
        config::{Files, build},
        credential::CredentialStore,
    },
};

/// The settings that name a credential, and what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Originated {
    settings: Vec<(String, ClientTls)>,
    /// Those that are shown to proxies.
    proxies: BTreeSet<String>,
    faults: BTreeMap<String, String>,
}

fn named(tls: &ClientTls) -> Option<&str> {
    match &tls.mode {
        ClientTlsMode::SimpleNamed(name) | ClientTlsMode::MutualNamed(name) => Some(name),
        ClientTlsMode::Simple | ClientTlsMode::Mutual { .. } => None,
    }
}

impl Originated {
    /// Of these settings; none where credentials are no Secrets.
    pub(super) fn new<'a>(
        secrets: Option<&Secrets>,
        settings: impl IntoIterator<Item = &'a ClientTls>,
        proxies: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut all: Vec<(String, ClientTls)> = Vec::new();
        if secrets.is_some() {
            for tls in settings {
                let Some(name) = named(tls) else { continue };
                // What a name and its verification need; not for whom.
                let tls = ClientTls { sni: None, subject_alt_names: Vec::new(), ..tls.clone() };
                let one = (name.to_owned(), tls);
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
        let proxies = proxies.into_iter().filter(|_| secrets.is_some()).map(Into::into).collect();
        Self { settings: all, proxies, faults: BTreeMap::new() }
    }

    /// Those of the next configuration. What was logged is not logged again.
    pub(super) fn replace(&mut self, next: Self) {
        (self.settings, self.proxies) = (next.settings, next.proxies);
        let known: BTreeSet<&str> = self.settings.iter().map(|(name, _)| name.as_str()).collect();
        let is_known = |name: &str| known.contains(name) || self.proxies.contains(name);
        self.faults.retain(|name, _| is_known(name));
    }

    /// The names of their credentials.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let proxies = self.proxies.iter().map(String::as_str);
        self.settings.iter().map(|(name, _)| name.as_str()).chain(proxies)
    }

    /// Looks what is wrong now, and logs what is new.
    pub(super) fn judge(&mut self, store: Option<&CredentialStore>) {
        let nobody = TrustRoots::new(rustls::RootCertStore::empty());
        let certificates = self.settings.iter().filter_map(|(name, tls)| {
            let built = Files::of(tls, store)
                .and_then(|files| build(tls, &files, Alpn::None, &nobody).map(drop));
            Some((name, "certificate", built.err()?.to_string()))
        });
        let shown = self.proxies.iter().filter_map(|name| match store {
            Some(CredentialStore::Secrets(secrets)) => {
                Some((name, "credential", basic::fault(secrets, name)?))
            }
            Some(CredentialStore::Directory(_)) | None => None,
        });
        let mut faults = BTreeMap::new();
        for (name, what, error) in certificates.chain(shown) {
            if self.faults.get(name) != Some(&error) {
                tracing::error!("{what} {name}: {error}; connections that need it are refused");
            }
            faults.insert(name.clone(), error);
        }
        self.faults = faults;
    }

    /// How each fares.
    pub(super) fn states(&self) -> Vec<CredentialState> {
        let names: BTreeSet<&str> = self.names().collect();
        let state = |name: &str| {
            let fault = self.faults.get(name);
            CredentialState {
                name: name.into(),
                current: fault.is_none(),
                not_after: None,
                id: None,
                problems: fault.cloned().into_iter().collect(),
            }
        };
        names.into_iter().map(state).collect()
    }
}
