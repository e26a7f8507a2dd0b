//! Whom tunnels trust, and what they show: a narrow door to the process's credentials.

use std::{net::IpAddr, sync::Arc};

use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use crate::{policy::TunnelTls, tls, types::Host};

/// Credentials for tunnels.
pub trait Credentials: Send + Sync {
    /// The TLS client for these settings, as of now: the same [`Arc`] as long as neither certificate
    /// nor roots nor revocation lists change.
    ///
    /// # Errors
    /// Why there is none.
    fn client(&self, tls: &TunnelTls) -> Result<Arc<ClientConfig>, String>;

    /// Changes when a certificate, a root or a revocation list does.
    fn epoch(&self) -> watch::Receiver<u64>;

    /// Completes when a gateway that showed this chain isn't to be trusted any longer, and says why:
    /// it is revoked, it has expired, its root was withdrawn.
    fn ends<'a>(
        &'a self,
        tls: &'a TunnelTls,
        gateway: IpAddr,
        chain: &'a [CertificateDer<'static>],
    ) -> LocalBoxFuture<'a, String>;
}

impl Credentials for tls::Credentials {
    fn client(&self, tls: &TunnelTls) -> Result<Arc<ClientConfig>, String> {
        self.client(tls).map_err(|unusable| unusable.to_string())
    }

    fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch()
    }

    fn ends<'a>(
        &'a self,
        tls: &'a TunnelTls,
        gateway: IpAddr,
        chain: &'a [CertificateDer<'static>],
    ) -> LocalBoxFuture<'a, String> {
        async move { self.gateway_ends(tls, &Host::Ip(gateway), chain).await.to_string() }
            .boxed_local()
    }
}
