//! A certificate authority made on the spot, and the certificates of the outside's servers: good
//! ones, and each kind of bad one.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::{
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The authority.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// Key generation fails.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Its certificate, for those who are to trust it.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn issue(&self, params: CertificateParams) -> Result<Arc<CertifiedKey>> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        certified(certificate, &key)
    }
}

/// A certificate and its key, PEM, for a client or a server of a test.
///
/// # Errors
/// Key generation fails.
pub fn issue_pem(authority: &Authority, name: &str) -> Result<(String, String)> {
    issue_for(authority, name, &KeyPair::generate()?)
}

/// The same with an RSA key; the others have ECDSA keys.
///
/// # Errors
/// Key generation fails.
pub fn issue_rsa_pem(authority: &Authority, name: &str) -> Result<(String, String)> {
    issue_for(authority, name, &KeyPair::generate_for(&PKCS_RSA_SHA256)?)
}

fn issue_for(authority: &Authority, name: &str, key: &KeyPair) -> Result<(String, String)> {
    let certificate = params(name)?.signed_by(key, &authority.issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// What a certificate of a client or a gateway says.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// DNS name.
    pub name: &'a str,
    /// URI name.
    pub uri: &'a str,
    /// Serial number, for revocation.
    pub serial: u64,
    /// When it is valid.
    pub time: Time,
}

/// When a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Time {
    /// Now.
    Now,
    /// It was.
    Over,
    /// It will be.
    ToCome,
    /// Until then; certificates count whole seconds.
    Until(SystemTime),
}

/// A certificate and its key, PEM, that both sides of mutual TLS can show.
///
/// # Errors
/// Key generation fails, or the URI isn't ASCII.
pub fn issue_mutual(authority: &Authority, subject: &Subject<'_>) -> Result<(String, String)> {
    let mut params = params(subject.name)?;
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    params.subject_alt_names.push(SanType::URI(subject.uri.try_into()?));
    params.serial_number = Some(SerialNumber::from(subject.serial));
    (params.not_before, params.not_after) = match subject.time {
        Time::Now => (params.not_before, params.not_after),
        Time::Over => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
        Time::ToCome => (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1)),
        Time::Until(end) => {
            (params.not_before, date_time_ymd(1970, 1, 1) + end.duration_since(UNIX_EPOCH)?)
        }
    };
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority.issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// A revocation list, PEM, with these serial numbers.
///
/// # Errors
/// It can't be signed.
pub fn revocation_list(authority: &Authority, serials: &[u64]) -> Result<String> {
    let time = date_time_ymd(2020, 1, 1);
    let revoked_certs = serials.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: time,
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: time,
        next_update: date_time_ymd(2090, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(params.signed_by(&authority.issuer)?.pem()?)
}

fn params(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn certified(certificate: rcgen::Certificate, key: &KeyPair) -> Result<Arc<CertifiedKey>> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = aws_lc_rs::sign::any_supported_type(&key).context("unusable key")?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.into()], signer)))
}

/// The outside's certificates, chosen by server name.
#[derive(Debug)]
pub struct Certificates {
    by_name: Vec<(&'static str, Arc<CertifiedKey>)>,
    default: Arc<CertifiedKey>,
}

impl Certificates {
    /// Makes them.
    ///
    /// # Errors
    /// Key generation fails.
    pub fn new(authority: &Authority) -> Result<Self> {
        let mut expired = params("expired.example.com")?;
        expired.not_before = date_time_ymd(2020, 1, 1);
        expired.not_after = date_time_ymd(2021, 1, 1);
        let key = KeyPair::generate()?;
        let self_signed = certified(params("self-signed.example.com")?.self_signed(&key)?, &key)?;
        let stranger = Authority::new("Unknown authority")?;
        let mut by_name = vec![
            ("expired.example.com", authority.issue(expired)?),
            ("self-signed.example.com", self_signed),
            ("wrong-name.example.com", authority.issue(params("other.example.com")?)?),
            ("unknown-ca.example.com", stranger.issue(params("unknown-ca.example.com")?)?),
        ];
        for name in [
            crate::plan::HOST,
            "www.example.com",
            "v6.example.com",
            "evil.example.net",
            "payments.example.com",
            "packages.example.org",
        ] {
            by_name.push((name, authority.issue(params(name)?)?));
        }
        let default = authority.issue(params("*.wild.example.com")?)?;
        Ok(Self { by_name, default })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let found = self.by_name.iter().find(|(host, _)| Some(*host) == name);
        Some(found.map_or(&self.default, |(_, key)| key).clone())
    }
}
