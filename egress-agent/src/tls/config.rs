//! From a rule's settings and files to a rustls configuration.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use rustls::{
    CipherSuite, ClientConfig, CommonState, RootCertStore,
    client::WebPkiServerVerifier,
    crypto::{
        CryptoProvider, SupportedKxGroup,
        aws_lc_rs::{self, kx_group},
    },
};
use rustls_pki_types::CertificateDer;

use super::{
    TlsError,
    credential::{CredentialLocations, CredentialStore, Located},
    pem,
    verify::{Names, Verifier},
    x509::sha256,
};
use crate::{
    policy::{ClientTls, ClientTlsMode, CredentialSource, KeyGroup, KeyGroups, config_map_of},
    source::{FileContents, Secrets, Unreadable},
};

/// Which protocols are offered in the handshake (RFC 7301).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Alpn {
    /// None: raw TCP inside TLS.
    None,
    /// `http/1.1` alone.
    Http1,
    /// `h2` alone.
    Http2,
    /// Both, `h2` preferred: `get_ref().1.alpn_protocol()` of the connection is the outcome.
    Auto,
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::None => &[],
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
            Self::Auto => &[b"h2", b"http/1.1"],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// The roots that certificates are verified against where a rule names none.
#[derive(Clone, Debug)]
pub struct TrustRoots(Arc<RootCertStore>);

impl TrustRoots {
    /// The system's (`SSL_CERT_FILE` and `SSL_CERT_DIR` are respected), read once. Files that
    /// can't be read are logged; without any root every origination without `caCertificates`
    /// fails.
    #[must_use]
    pub fn system() -> Self {
        let loaded = rustls_native_certs::load_native_certs();
        for error in loaded.errors {
            tracing::warn!("system trust roots: {error}");
        }
        let mut roots = RootCertStore::empty();
        let (added, ignored) = roots.add_parsable_certificates(loaded.certs);
        tracing::debug!("{added} system trust roots, {ignored} not usable");
        if added == 0 {
            tracing::warn!(
                "the system has no trust roots (install ca-certificates): TLS origination works only with caCertificates"
            );
        }
        Self(Arc::new(roots))
    }

    /// Whether there is none: nothing can be verified.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub(super) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }

    /// These alone.
    #[must_use]
    pub fn new(roots: RootCertStore) -> Self {
        Self(Arc::new(roots))
    }
}

/// aws-lc-rs with AES-128-GCM first: the default's AES-256 costs more and protects the same.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider.kx_groups = KeyGroup::ALL.iter().map(|group| wire(*group)).collect();
    // The sort is stable, so TLS 1.3 stays before TLS 1.2 within each half; across them the
    // versions are negotiated before the suites.
    Arc::new(provider)
});

/// Our cryptography, for both sides.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// The same with these groups of the key exchange.
pub(super) fn provider_with(groups: &KeyGroups) -> Arc<CryptoProvider> {
    let kx_groups: Vec<_> = groups.0.iter().map(|group| wire(*group)).collect();
    let names = |list: &[&'static dyn SupportedKxGroup]| -> Vec<_> {
        list.iter().map(|group| group.name()).collect()
    };
    if names(&kx_groups) == names(&PROVIDER.kx_groups) {
        return provider();
    }
    Arc::new(CryptoProvider { kx_groups, ..CryptoProvider::clone(&PROVIDER) })
}

fn wire(group: KeyGroup) -> &'static dyn SupportedKxGroup {
    match group {
        KeyGroup::X25519MlKem768 => kx_group::X25519MLKEM768,
        KeyGroup::X25519 => kx_group::X25519,
        KeyGroup::P256 => kx_group::SECP256R1,
        KeyGroup::P384 => kx_group::SECP384R1,
    }
}

/// The group that a handshake settled on; `None` for a resumed session of TLS 1.2.
#[must_use]
pub fn negotiated_group(connection: &CommonState) -> Option<KeyGroup> {
    let settled = connection.negotiated_key_exchange_group()?.name();
    KeyGroup::ALL.iter().copied().find(|group| wire(*group).name() == settled)
}

/// What a file looked like when it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FileStamp {
    path: PathBuf,
    modified: Option<SystemTime>,
    len: Option<u64>,
    /// The SHA-256 of what a Secret holds.
    digest: Option<Vec<u8>>,
}

/// The files of a rule's TLS settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Files {
    /// Certificate and key.
    pair: Option<(PathBuf, PathBuf)>,
    roots: Option<PathBuf>,
    crl: Option<PathBuf>,
    /// What the Secrets hold, where the paths stand for keys of Secrets.
    secrets: Option<FileContents>,
}

impl Files {
    /// Those that the rule names, or those of its credential.
    pub(super) fn of(
        tls: &ClientTls,
        credentials: Option<&CredentialStore>,
    ) -> Result<Self, TlsError> {
        let (name, mutual) = match &tls.mode {
            ClientTlsMode::Simple => (None, None),
            ClientTlsMode::Mutual { client_certificate, private_key } => {
                (None, Some((client_certificate.clone(), private_key.clone())))
            }
            ClientTlsMode::SimpleNamed(name) => (Some((name, false)), None),
            ClientTlsMode::MutualNamed(name) => (Some((name, true)), None),
        };
        let Some((name, shows)) = name else {
            let (roots, crl) = (tls.ca_certificates.clone(), tls.ca_crl.clone());
            return Ok(Self { pair: mutual, roots, crl, secrets: None });
        };
        let places = CredentialLocations {
            credentials: credentials.cloned(),
            ..CredentialLocations::default()
        };
        let located = places.locate(&CredentialSource::Named(Arc::clone(name)));
        let located = located.map_err(|error| {
            file(Path::new(&format!("credentialName {name}")), error.to_string())
        })?;
        let secrets = match credentials {
            Some(CredentialStore::Secrets(secrets)) => Some(secrets.read(located.paths())),
            Some(CredentialStore::Directory(_)) | None => None,
        };
        let Located { certificate, private_key, roots, crl, crl_named: _, workload_api: _ } =
            located;
        // A key of a Secret that is not known may be there.
        let exists = |path: &Path| match &secrets {
            Some(secrets) => secrets.get(path) != Err(Unreadable::Absent),
            None => path.exists(),
        };
        // The first that is there, or else the first, which is missed by its name.
        let first =
            |paths: &[PathBuf]| paths.iter().find(|path| exists(path)).or(paths.first()).cloned();
        let pair = match (first(&certificate), first(&private_key)) {
            (Some(certificate), Some(key)) if shows => Some((certificate, key)),
            _ => None,
        };
        let (roots, crl) = (first(&roots), first(&crl).filter(|path| exists(path)));
        Ok(Self { pair, roots, crl, secrets })
    }

    /// How they look now.
    pub(super) fn stamps(&self) -> Vec<FileStamp> {
        let Self { pair, roots, crl, secrets } = self;
        let pair = pair.iter().flat_map(|(certificate, key)| [certificate, key]);
        let stamp = |path: &PathBuf| {
            if let Some(secrets) = secrets {
                let digest = secrets.get(path).ok().map(sha256);
                return FileStamp { path: path.clone(), modified: None, len: None, digest };
            }
            let metadata = fs::metadata(path).ok();
            let modified = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
            let len = metadata.map(|metadata| metadata.len());
            FileStamp { path: path.clone(), modified, len, digest: None }
        };
        pair.chain(roots).chain(crl).map(stamp).collect()
    }

    fn certificates(&self, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        pem::certificates(&self.read(path)?).map_err(|why| file(path, why))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, TlsError> {
        match &self.secrets {
            Some(secrets) => secrets.get(path).map(<[u8]>::to_vec).map_err(|error| {
                let why = if matches!(error, Unreadable::Absent) {
                    let kind = if config_map(path).is_some() { "ConfigMap" } else { "Secret" };
                    format!("there is no such {kind}, or no such key in it")
                } else {
                    error.to_string()
                };
                file(path, why)
            }),
            None => read(path),
        }
    }
}

/// Reads the files and builds the configuration.
pub(super) fn build(
    tls: &ClientTls,
    files: &Files,
    alpn: Alpn,
    system: &TrustRoots,
) -> Result<ClientConfig, TlsError> {
    let ClientTls {
        mode: _,
        sni: _,
        subject_alt_names,
        ca_certificates: _,
        ca_crl: _,
        key_groups,
        insecure_skip_verify,
    } = tls;
    let (roots, pins) = match &files.roots {
        Some(path) => {
            let certificates = files.certificates(path)?;
            (as_roots(path, &certificates)?, certificates)
        }
        None => (Arc::clone(&system.0), Vec::new()),
    };
    let names = match (insecure_skip_verify, &subject_alt_names[..]) {
        (true, _) => Names::Unverified,
        (false, []) => Names::Server,
        (false, names) => Names::Any(names.to_vec()),
    };
    let lists = match &files.crl {
        Some(path) => Some(revocation(files, path, &roots)?),
        None => None,
    };
    let verifier = Verifier::new(roots, names, lists, &PROVIDER).with_pins(pins);
    let builder = ClientConfig::builder_with_provider(provider_with(key_groups))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Protocol { host: "upstream".into(), why: error.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &files.pair {
        None => builder.with_no_client_auth(),
        Some((client_certificate, private_key)) => {
            let chain = files.certificates(client_certificate)?;
            let key = pem::private_key(&files.read(private_key)?)
                .map_err(|why| file(private_key, why))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                let path = client_certificate.display();
                file(private_key, format!("does not go with the certificate in {path}: {error}"))
            })?
        }
    };
    config.alpn_protocols = alpn.protocols();
    Ok(config)
}

/// What refuses certificates that a list revokes, or that no list that is up to date covers.
fn revocation(
    files: &Files,
    path: &Path,
    roots: &Arc<RootCertStore>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let lists = pem::crls(&files.read(path)?).map_err(|why| file(path, why))?;
    let provider = Arc::clone(&PROVIDER);
    WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider)
        .with_crls(lists)
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| file(path, error.to_string()))
}

fn as_roots(
    path: &Path,
    certificates: &[CertificateDer<'static>],
) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|error| {
            file(path, format!("holds a certificate that can't be a trust root: {error}"))
        })?;
    }
    Ok(Arc::new(roots))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the standard library's enum, which may grow")]
fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "the file does not exist".into(),
            io::ErrorKind::PermissionDenied => "this process may not read the file".into(),
            _ => format!("can't be read: {error}"),
        };
        file(path, why)
    })
}

fn file(path: &Path, why: String) -> TlsError {
    let path = config_map(path).unwrap_or_else(|| path.display().to_string());
    TlsError::File { path, why }
}

/// What messages call a key of a ConfigMap, if the path stands for one: it lies among the Secrets, by its credential's
/// name.
fn config_map(path: &Path) -> Option<String> {
    let mut parts = path.iter().rev().map_while(|part| part.to_str());
    let (key, credential) = (parts.next()?, parts.next()?);
    let (namespace, name) = config_map_of(credential).filter(|_| Secrets::has(path))?;
    Some(format!("ConfigMap {namespace}/{name}/{key}"))
}
