//! What connections are made with: the TLS configurations that the last good credentials allow.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use rustls::{ClientConfig, ServerConfig};
use thiserror::Error;

use crate::{
    policy::{ServerTls, TunnelTls},
    tls::{
        client::ClientVerifier,
        credential::Credential,
        gateway::{self, GatewayVerifier},
        server,
        x509::date,
    },
};

/// What connections are made with.
#[derive(Debug, Default)]
pub(super) struct Served {
    pub(super) servers: HashMap<Arc<ServerTls>, Result<ReadyServer, Unusable>>,
    pub(super) tunnels: HashMap<Arc<TunnelTls>, Result<ReadyTunnel, Unusable>>,
}

impl Served {
    /// The configuration of a server.
    pub(super) fn server(&self, settings: &ServerTls) -> Result<Arc<ServerConfig>, Unusable> {
        match self.servers.get(settings) {
            Some(Ok(ready)) => match over(&ready.credentials, SystemTime::now()) {
                None => Ok(Arc::clone(&ready.config)),
                Some(over) => Err(Unusable::server(over)),
            },
            Some(Err(unusable)) => Err(unusable.clone()),
            None => Err(Unusable::server(UNREAD)),
        }
    }

    /// The configuration of a tunnel to a gateway.
    pub(super) fn client(&self, settings: &TunnelTls) -> Result<Arc<ClientConfig>, Unusable> {
        match self.tunnels.get(settings) {
            Some(Ok(ready)) => {
                match over(std::slice::from_ref(&ready.credential), SystemTime::now()) {
                    None => Ok(Arc::clone(&ready.config)),
                    Some(over) => Err(Unusable::tunnel(over)),
                }
            }
            Some(Err(unusable)) => Err(unusable.clone()),
            None => Err(Unusable::tunnel(UNREAD)),
        }
    }
}

const UNREAD: &str = "it was not read yet";

/// When the last of these certificates expired, if none of them is valid.
fn over(credentials: &[Arc<Credential>], now: SystemTime) -> Option<String> {
    let end = credentials.iter().map(|credential| credential.not_after).max()?;
    (end <= now).then(|| format!("it expired on {}", date(end)))
}

/// What accepts connections of one server.
#[derive(Clone, Debug)]
pub(super) struct ReadyServer {
    pub(super) config: Arc<ServerConfig>,
    /// Absent where clients aren't asked.
    pub(super) verifier: Option<Arc<ClientVerifier>>,
    /// The first has the roots for clients' certificates, where they are asked.
    credentials: Vec<Arc<Credential>>,
}

impl ReadyServer {
    pub(super) fn new(
        settings: &Arc<ServerTls>,
        credentials: Vec<Arc<Credential>>,
    ) -> Result<Self, String> {
        let verifier =
            match credentials.first().filter(|_| settings.mode.asks()) {
                Some(credential) => {
                    let verifier = ClientVerifier::new(Arc::clone(settings), credential);
                    Some(Arc::new(verifier.map_err(|error| {
                        format!("client certificates can't be verified: {error}")
                    })?))
                }
                None => None,
            };
        let config = Arc::new(server::build(settings, &credentials, verifier.as_ref())?);
        Ok(Self { config, verifier, credentials })
    }

    /// Whether it shows these and no others.
    pub(super) fn shows(&self, credentials: &[Arc<Credential>]) -> bool {
        self.credentials.len() == credentials.len()
            && self.credentials.iter().zip(credentials).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

/// What opens tunnels of one kind.
#[derive(Clone, Debug)]
pub(super) struct ReadyTunnel {
    pub(super) config: Arc<ClientConfig>,
    pub(super) verifier: Arc<GatewayVerifier>,
    pub(super) credential: Arc<Credential>,
}

impl ReadyTunnel {
    pub(super) fn new(
        settings: &Arc<TunnelTls>,
        credential: &Arc<Credential>,
    ) -> Result<Self, String> {
        let verifier = Arc::new(GatewayVerifier::new(Arc::clone(settings), credential)?);
        let config = Arc::new(gateway::build(&verifier, credential, &settings.key_groups)?);
        Ok(Self { config, verifier, credential: Arc::clone(credential) })
    }
}

/// No connection can be made, because there is no usable certificate.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{whose}: {why}")]
pub struct Unusable {
    whose: &'static str,
    why: String,
}

impl Unusable {
    pub(super) fn server(why: impl Into<String>) -> Self {
        Self { whose: "the gateway has no usable certificate for this server", why: why.into() }
    }

    pub(super) fn tunnel(why: impl Into<String>) -> Self {
        Self { whose: "the node has no usable certificate for this tunnel", why: why.into() }
    }
}
