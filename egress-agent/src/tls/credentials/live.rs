//! Judging connections that are open already: a certificate that verified at the handshake may have
//! expired, been revoked, or lost its root since.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::server::danger::ClientCertVerifier as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::time::sleep;

use super::{
    Credentials,
    served::{ReadyServer, ReadyTunnel},
    slot::CredentialSpec,
};
use crate::{
    policy::{ServerTls, TunnelTls},
    tls::{AcceptError, TlsError, x509::CertificateInfo},
    types::Host,
};

/// The longest sleep while nothing changes: the system clock may be set.
const LOOK: Duration = Duration::from_secs(30);

impl Credentials {
    /// Whether a client of this server would be let in with its certificates if it came now. A
    /// client that showed none is.
    ///
    /// # Errors
    /// Why it wouldn't.
    pub fn client_still_good(
        &self,
        settings: &ServerTls,
        chain: &[CertificateDer<'_>],
    ) -> Result<(), AcceptError> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Ok(()) };
        let end = match self.served.load().servers.get(settings) {
            Some(end) => end.clone().map_err(|unusable| unusable.to_string()),
            None => self.former_server(settings),
        };
        let verifier = end.map_err(AcceptError::Untrusted)?.verifier;
        let Some(verifier) = verifier else { return Ok(()) };
        match verifier.verify_client_cert(leaf, intermediates, UnixTime::now()) {
            Ok(_) => Ok(()),
            Err(error) => Err(AcceptError::from_rustls(&error)),
        }
    }

    /// Whether the certificates of a gateway of this service would verify now.
    ///
    /// # Errors
    /// Why it wouldn't.
    pub fn gateway_still_good(
        &self,
        settings: &TunnelTls,
        gateway: &Host,
        chain: &[CertificateDer<'_>],
    ) -> Result<(), TlsError> {
        let refuse = |why: String| TlsError::Certificate { host: gateway.to_string(), why };
        let end = match self.served.load().tunnels.get(settings) {
            Some(end) => end.clone().map_err(|unusable| unusable.to_string()),
            None => self.former_tunnel(settings),
        };
        let verifier = end.map_err(refuse)?.verifier;
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(refuse("it showed none".into()));
        };
        verifier
            .check(leaf, intermediates, UnixTime::now())
            .map_err(|error| TlsError::from_rustls(&error, gateway.to_string()))
    }

    /// Completes when a client isn't to be served any longer; never for one that showed no
    /// certificate.
    pub async fn client_ends(
        &self,
        settings: &ServerTls,
        chain: &[CertificateDer<'_>],
    ) -> AcceptError {
        self.ends(chain, || self.client_still_good(settings, chain)).await
    }

    /// Completes when a gateway isn't to be spoken to any longer.
    pub async fn gateway_ends(
        &self,
        settings: &TunnelTls,
        gateway: &Host,
        chain: &[CertificateDer<'_>],
    ) -> TlsError {
        self.ends(chain, || self.gateway_still_good(settings, gateway, chain)).await
    }

    /// Settings that the configuration no longer has still judge what was accepted under them, as
    /// long as their credential is followed.
    fn former_server(&self, settings: &ServerTls) -> Result<ReadyServer, String> {
        let state = self.state();
        let slot = state.slots.get(&CredentialSpec::by_server(settings));
        let good = slot.and_then(|slot| slot.good.as_ref()).ok_or(GONE)?;
        ReadyServer::new(&Arc::new(settings.clone()), vec![Arc::clone(&good.credential)])
    }

    fn former_tunnel(&self, settings: &TunnelTls) -> Result<ReadyTunnel, String> {
        let state = self.state();
        let slot = state.slots.get(&CredentialSpec::by_tunnel(settings));
        let good = slot.and_then(|slot| slot.good.as_ref()).ok_or(GONE)?;
        ReadyTunnel::new(&Arc::new(settings.clone()), &good.credential)
    }

    /// Judges when something changed, and when a certificate of the chain expires.
    async fn ends<E>(&self, chain: &[CertificateDer<'_>], judge: impl Fn() -> Result<(), E>) -> E {
        let ends = chain.iter().filter_map(|der| Some(CertificateInfo::parse(der)?.not_after));
        let end = ends.min();
        let mut changes = self.epoch.subscribe();
        loop {
            changes.mark_unchanged();
            if let Err(error) = judge() {
                return error;
            }
            loop {
                let left = end.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
                let nap = left.unwrap_or(LOOK).min(LOOK);
                // The sender lives as long as `self`.
                tokio::select! {
                    _ = changes.changed() => break,
                    () = sleep(nap) => {}
                }
                if end.is_some_and(|end| end <= SystemTime::now()) {
                    // A certificate is valid in the second in which it ends (RFC 5280 §4.1.2.5).
                    sleep(Duration::from_secs(1)).await;
                    break;
                }
            }
        }
    }
}

/// A revocation could no longer be noticed.
const GONE: &str = "the certificates under which it was accepted are no longer configured";
