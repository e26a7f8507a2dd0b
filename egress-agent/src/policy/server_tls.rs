//! TLS that a gateway's server ends: what the configuration says of it.

use std::{fmt, path::PathBuf, sync::Arc};

use crate::types::TrustDomain;

/// TLS settings of a server. Equal ones are one and the same to a client: a connection that was
/// accepted under these settings may ask for every host that is served under them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServerTls {
    /// Whether clients show certificates.
    pub mode: ServerTlsMode,
    /// Where the server's own certificate is, and the roots for its clients'.
    pub credential: CredentialSource,
    /// Where other certificates of the server are, in the order in which they are written. A client is shown the
    /// one that fits it.
    pub other_certificates: Vec<CredentialSource>,
    /// What is inside.
    pub inside: InnerProtocol,
    /// Oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Newest version that is spoken; never older than `min_version`.
    pub max_version: TlsVersion,
    /// Cipher suites for TLS 1.2, the preferred one first; empty for all. Those of TLS 1.3 are
    /// fixed, as Envoy has them.
    pub cipher_suites: Vec<CipherSuite>,
    /// Groups of the key exchange.
    pub key_groups: KeyGroups,
    /// A client's certificate must hold one of these names; empty for any.
    pub subject_alt_names: Vec<String>,
    /// It must be for one of these keys (base64 of the SHA-256 of the SubjectPublicKeyInfo), or be
    /// one of `hashes`; both empty for any.
    pub spki_pins: Vec<String>,
    /// Lower-case hexadecimal SHA-256 of certificates.
    pub hashes: Vec<String>,
}

impl ServerTls {
    /// Where all of the server's certificates are, the first one first.
    pub fn certificates(&self) -> impl Iterator<Item = &CredentialSource> {
        std::iter::once(&self.credential).chain(&self.other_certificates)
    }
}

/// `tls.mode`, for modes that terminate TLS.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ServerTlsMode {
    /// `SIMPLE`: clients aren't asked.
    Simple,
    /// `MUTUAL`: they must show one that the CA signed.
    Mutual,
    /// `OPTIONAL_MUTUAL`: they may; one that is shown must be good.
    OptionalMutual,
    /// `ISTIO_MUTUAL`: they must show one with the SPIFFE ID of a workload in this trust domain.
    IstioMutual(TrustDomain),
}

impl ServerTlsMode {
    /// Whether a client is asked for its certificate.
    #[must_use]
    pub fn asks(&self) -> bool {
        !matches!(self, Self::Simple)
    }
}

impl fmt::Display for ServerTlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Simple => "SIMPLE",
            Self::Mutual => "MUTUAL",
            Self::OptionalMutual => "OPTIONAL_MUTUAL",
            Self::IstioMutual(_) => "ISTIO_MUTUAL",
        })
    }
}

/// Where a certificate, its key and the roots for the other side are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum CredentialSource {
    /// In files that the configuration names.
    Files(CredentialFiles),
    /// In the directory of this name among the credentials (`credentialName`).
    Named(Arc<str>),
    /// The gateway's own identity in the mesh.
    Own,
}

impl fmt::Display for CredentialSource {
    /// As metrics and messages name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(files) => files.certificate.display().fmt(f),
            Self::Named(name) => f.write_str(name),
            Self::Own => f.write_str("identity"),
        }
    }
}

/// PEM files of one credential.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CredentialFiles {
    /// The chain, the leaf first.
    pub certificate: PathBuf,
    /// The leaf's key.
    pub private_key: PathBuf,
    /// Roots for the other side's certificates.
    pub ca_certificates: Option<PathBuf>,
    /// Revocation lists of these CAs.
    pub ca_crl: Option<PathBuf>,
}

/// What TLS carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum InnerProtocol {
    /// HTTP/1.1 or HTTP/2, as ALPN settles it.
    Http,
    /// Any bytes.
    Tcp,
}

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

macro_rules! cipher_suites {
    ($($variant:ident = $name:literal;)*) => {
        /// Cipher suites of TLS 1.2 that can be chosen: ephemeral keys and authenticated encryption
        /// only.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum CipherSuite { $(#[doc = $name] $variant,)* }

        impl CipherSuite {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// OpenSSL's name, which Envoy and Istio use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

cipher_suites! {
    EcdsaAes128 = "ECDHE-ECDSA-AES128-GCM-SHA256";
    RsaAes128 = "ECDHE-RSA-AES128-GCM-SHA256";
    EcdsaAes256 = "ECDHE-ECDSA-AES256-GCM-SHA384";
    RsaAes256 = "ECDHE-RSA-AES256-GCM-SHA384";
    EcdsaChaCha = "ECDHE-ECDSA-CHACHA20-POLY1305";
    RsaChaCha = "ECDHE-RSA-CHACHA20-POLY1305";
}

macro_rules! key_groups {
    ($($variant:ident = $name:literal;)*) => {
        /// Groups of the key exchange, in the order in which they are preferred by default.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum KeyGroup { $(#[doc = $name] $variant,)* }

        impl KeyGroup {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// BoringSSL's name, which Envoy and Istio use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

key_groups! {
    X25519MlKem768 = "X25519MLKEM768";
    X25519 = "X25519";
    P256 = "P-256";
    P384 = "P-384";
}

/// `tlsDefaults.ecdhCurves`: the groups that are used, the preferred one first; never none.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KeyGroups(pub Arc<[KeyGroup]>);

impl Default for KeyGroups {
    fn default() -> Self {
        Self(KeyGroup::ALL.into())
    }
}
