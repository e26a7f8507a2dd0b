//! Credentials of TLS that a gateway originates, where they are Secrets. Each connection reads them by itself;
//! here they are judged, so that a fault is reported before a connection needs them.

use std::collections::{BTreeMap, BTreeSet};

use super::slot::CredentialState;
use crate::{
    policy::{ClientTls, ClientTlsMode},
    source::Secrets,
    tls::{
        Alpn, TrustRoots,
        config::{Files, build},
        credential::CredentialStore,
    },
};

/// The settings that name a credential, and what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Originated {
    settings: Vec<(String, ClientTls)>,
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
        Self { settings: all, faults: BTreeMap::new() }
    }

    /// Those of the next configuration. What was logged is not logged again.
    pub(super) fn replace(&mut self, next: Self) {
        self.settings = next.settings;
        self.faults.retain(|name, _| self.settings.iter().any(|(known, _)| known == name));
    }

    /// The names of their credentials.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.settings.iter().map(|(name, _)| name.as_str())
    }

    /// Looks what is wrong now, and logs what is new.
    pub(super) fn judge(&mut self, store: Option<&CredentialStore>) {
        let nobody = TrustRoots::new(rustls::RootCertStore::empty());
        let mut faults = BTreeMap::new();
        for (name, tls) in &self.settings {
            let built = Files::of(tls, store)
                .and_then(|files| build(tls, &files, Alpn::None, &nobody).map(drop));
            if let Err(error) = built {
                let error = error.to_string();
                if self.faults.get(name) != Some(&error) {
                    tracing::error!(
                        "certificate {name}: {error}; connections that need it are refused"
                    );
                }
                faults.insert(name.clone(), error);
            }
        }
        self.faults = faults;
    }

    /// How each fares.
    pub(super) fn states(&self) -> Vec<CredentialState> {
        let names: BTreeSet<&String> = self.settings.iter().map(|(name, _)| name).collect();
        let state = |name: &String| {
            let fault = self.faults.get(name);
            CredentialState {
                name: name.clone(),
                current: fault.is_none(),
                not_after: None,
                id: None,
                problems: fault.cloned().into_iter().collect(),
            }
        };
        names.into_iter().map(state).collect()
    }
}
