//! TLS with a service of the operator's own, apart from the data path: a collector of telemetry.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    TrustRoots,
    config::provider,
    pem,
    verify::{Names, Verifier},
};

/// How a collector is verified, and what it is shown. Files are read for each connection, so that a
/// certificate that was replaced counts from the next one on.
#[derive(Debug)]
pub struct CollectorTls {
    name: ServerName<'static>,
    alpn: &'static str,
    roots: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl CollectorTls {
    /// For a collector of this name or address. `alpn` is the name of the protocol that it is asked for (RFC 7301).
    /// `roots` takes the place of the system's roots.
    ///
    /// # Errors
    /// The name isn't one, or a file can't be used.
    pub fn new(
        host: &str,
        alpn: &'static str,
        roots: Option<PathBuf>,
        identity: Option<(PathBuf, PathBuf)>,
    ) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| format!("`{host}` is no name that a certificate can have"))?;
        let own = Self { name, alpn, roots, identity };
        own.connector()?;
        Ok(own)
    }

    /// With what the files hold now.
    ///
    /// # Errors
    /// A file can't be used.
    pub fn connector(&self) -> Result<TlsConnector, String> {
        let roots = match &self.roots {
            None => TrustRoots::system(),
            Some(path) => TrustRoots::new(listed(path)?),
        };
        if roots.is_empty() {
            return Err(
                "the system has no trust roots: install ca-certificates, or name a file with \
                        OTEL_EXPORTER_OTLP_CERTIFICATE"
                    .into(),
            );
        }
        // As strict as with external hosts.
        let verifier = Verifier::new(roots.store(), Names::Server, None, &provider());
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = pem::certificates(&read(certificate)?);
                let chain = chain.map_err(|what| named(certificate, what))?;
                let private = pem::private_key(&read(key)?).map_err(|what| named(key, what))?;
                let config = builder.with_client_auth_cert(chain, private);
                config.map_err(|error| named(key, error))?
            }
        };
        config.alpn_protocols = vec![self.alpn.as_bytes().to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// The handshake; nothing is sent before the certificate is verified.
    ///
    /// # Errors
    /// The collector is not who it should be, or the connection breaks.
    pub async fn connect(
        &self,
        connector: &TlsConnector,
        stream: TcpStream,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
        connector.connect(self.name.clone(), stream).await
    }
}

fn listed(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(&read(path)?).map_err(|what| named(path, what))? {
        roots.add(certificate).map_err(|error| named(path, error))?;
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| named(path, error))
}

fn named(path: &Path, what: impl std::fmt::Display) -> String {
    format!("{}: {what}", path.display())
}
