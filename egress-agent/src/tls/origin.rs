//! TLS origination: from a rule's settings to a verified connection.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ClientConfig;
use rustls_pki_types::{DnsName, ServerName};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Alpn, CredentialStore, TlsError, TrustRoots,
    config::{FileStamp, Files, build, negotiated_group},
};
use crate::{
    net::RelayIo,
    policy::ClientTls,
    telemetry::{TlsPeer, count_handshake},
    types::{Host, UpstreamAddr},
};

/// How long files are taken for unchanged.
const RECHECK: Duration = Duration::from_secs(1);
/// Configurations kept; over it all are forgotten, which costs their sessions.
const CACHED: usize = 1024;

/// Originates TLS. One a worker; configurations are cached by the full value of the rule and the
/// files' times of change, so sessions are resumed.
#[derive(Debug)]
pub struct Originator {
    system: TrustRoots,
    /// Where those of `credentialName` are.
    credentials: Option<CredentialStore>,
    cache: RefCell<HashMap<ClientTls, HashMap<Alpn, Cached>>>,
}

#[derive(Debug)]
struct Cached {
    config: Arc<ClientConfig>,
    stamps: Vec<FileStamp>,
    checked: Instant,
}

impl Originator {
    /// `system` is trusted where a rule names no `caCertificates`.
    #[must_use]
    pub fn new(system: TrustRoots) -> Self {
        Self { system, credentials: None, cache: RefCell::default() }
    }

    /// The same, with those of `credentialName`.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Option<CredentialStore>) -> Self {
        self.credentials = credentials;
        self
    }

    /// Where those that `credentialName` names are.
    #[must_use]
    pub fn credentials(&self) -> Option<&CredentialStore> {
        self.credentials.as_ref()
    }

    /// Reads what the rule asks for, so that no upstream is dialled where that can't be had. The verified name
    /// is the rule's SNI or, without one, `host`, or the address that is dialled. An address is not sent as SNI
    /// (RFC 6066 §3).
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn prepare(
        &self,
        tls: &ClientTls,
        host: Option<&Host>,
        alpn: Alpn,
    ) -> Result<ClientHandshake, TlsError> {
        let verified = tls.sni.as_ref().or(host).map(verified).transpose()?;
        let connector = TlsConnector::from(self.config(tls, alpn)?);
        Ok(ClientHandshake { connector, verified })
    }

    /// The configuration for this rule, read again if its files changed.
    fn config(&self, tls: &ClientTls, alpn: Alpn) -> Result<Arc<ClientConfig>, TlsError> {
        let now = Instant::now();
        let files = Files::of(tls, self.credentials.as_ref())?;
        let mut cache = self.cache.borrow_mut();
        if let Some(cached) = cache.get_mut(tls).and_then(|by_alpn| by_alpn.get_mut(&alpn)) {
            if now < cached.checked + RECHECK {
                return Ok(Arc::clone(&cached.config));
            }
            if cached.stamps == files.stamps() {
                cached.checked = now;
                return Ok(Arc::clone(&cached.config));
            }
        }
        // The stamps come first: a file that changes in between is read again next time.
        let stamps = files.stamps();
        let config = Arc::new(build(tls, &files, alpn, &self.system)?);
        if cache.len() >= CACHED {
            cache.clear();
        }
        let cached = Cached { config: Arc::clone(&config), stamps, checked: now };
        cache.entry(tls.clone()).or_default().insert(alpn, cached);
        Ok(config)
    }
}

/// A handshake that only lacks a connection.
pub struct ClientHandshake {
    connector: TlsConnector,
    /// `None` for the address that is dialled.
    verified: Option<(ServerName<'static>, Host)>,
}

impl ClientHandshake {
    /// Handshakes on `stream`, which leads to `addr`, as the client.
    ///
    /// # Errors
    /// [`TlsError`]; the stream is gone then, and nothing of the caller's was sent on it.
    pub async fn run(
        self,
        stream: TcpStream,
        addr: UpstreamAddr,
        deadline: Instant,
    ) -> Result<TlsStream<TcpStream>, TlsError> {
        let (name, host) = match self.verified {
            Some(verified) => verified,
            None => verified(&Host::Ip(addr.ip()))?,
        };
        match timeout_at(deadline, self.connector.connect(name, stream)).await {
            Ok(Ok(stream)) => {
                if let Some(group) = negotiated_group(stream.get_ref().1) {
                    count_handshake(TlsPeer::Upstream, group);
                }
                Ok(stream)
            }
            Ok(Err(error)) => Err(TlsError::from_io(&error, &host)),
            Err(_) => Err(TlsError::Timeout { host: host.to_string() }),
        }
    }
}

/// The name that a certificate has to be for, with what messages call it.
fn verified(host: &Host) -> Result<(ServerName<'static>, Host), TlsError> {
    Ok((server_name(host)?, host.clone()))
}

fn server_name(host: &Host) -> Result<ServerName<'static>, TlsError> {
    match host {
        Host::Ip(ip) => Ok(ServerName::IpAddress((*ip).into())),
        Host::Name(name) => match DnsName::try_from(name.to_string()) {
            Ok(name) => Ok(ServerName::DnsName(name)),
            Err(_) => Err(TlsError::Protocol {
                host: name.to_string(),
                why: "no certificate can be issued for this name".into(),
            }),
        },
    }
}

impl RelayIo for TlsStream<TcpStream> {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    fn reset(&self) {
        self.get_ref().0.reset();
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.get_mut().0.poll_gone(cx)
    }
}

#[cfg(test)]
mod tests;
