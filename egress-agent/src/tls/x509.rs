//! What certificates and revocation lists say, for people and for the log. Whether they are to be
//! trusted is not decided here.

use std::{
    fmt::Write as _,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use rustls::crypto::{aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, hash::Hash};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer,
    revocation_list::CertificateRevocationList, time::ASN1Time,
};

use crate::types::{PeerCertificate, SpiffeId};

/// A certificate in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateInfo {
    /// Subject.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// Serial number, in lower-case hexadecimal.
    pub serial: String,
    /// Start of its validity.
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
    /// DNS names and addresses.
    pub dns_names: Vec<String>,
    /// URI names.
    pub uris: Vec<String>,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// SHA-256, in lower-case hexadecimal.
    pub fingerprint: String,
}

/// A revocation list in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CrlInfo {
    /// Whose certificates it is about.
    pub issuer: String,
    /// When the next one is due; from then on it proves nothing.
    pub next_update: Option<SystemTime>,
    /// How many it revokes.
    pub revoked: usize,
}

impl CertificateInfo {
    /// Reads a certificate; `None` if it isn't one.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut info = Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: hex(unsigned(certificate.raw_serial())),
            not_before: time(certificate.validity().not_before),
            not_after: time(certificate.validity().not_after),
            dns_names: Vec::new(),
            uris: Vec::new(),
            is_ca: certificate.is_ca(),
            fingerprint: hex(&sha256(der)),
        };
        let names = certificate.subject_alternative_name().ok()?;
        for name in names.map(|names| &names.value.general_names[..]).unwrap_or_default() {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "another crate's enum, which may grow"
            )]
            match name {
                GeneralName::DNSName(name) => info.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => info.uris.push((*uri).to_owned()),
                GeneralName::IPAddress(bytes) => info.dns_names.extend(address(bytes)),
                _ => {}
            }
        }
        Some(info)
    }

    /// The SPIFFE ID: of exactly one URI name (X.509-SVID §2).
    ///
    /// # Errors
    /// What was found, and what was expected.
    pub fn spiffe_id(&self) -> Result<SpiffeId, String> {
        match &self.uris[..] {
            [uri] => SpiffeId::parse(uri).map_err(|error| format!("found {uri:?}: {error}")),
            [] => Err("found no URI name, expected a SPIFFE ID".into()),
            uris => Err(format!(
                "found {} URI names ({}), expected one SPIFFE ID alone",
                uris.len(),
                uris.join(", ")
            )),
        }
    }

    /// As the access log shows it.
    #[must_use]
    pub fn into_peer(self) -> PeerCertificate {
        PeerCertificate {
            principal: self.spiffe_id().ok(),
            uri_sans: self.uris.join(","),
            dns_sans: self.dns_names.join(","),
            subject: self.subject,
            issuer: self.issuer,
            serial: self.serial,
            fingerprint: self.fingerprint,
            not_before: self.not_before,
            not_after: self.not_after,
        }
    }
}

impl CrlInfo {
    /// Reads a list; `None` if it isn't one.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (_, list) = CertificateRevocationList::from_der(der).ok()?;
        Some(Self {
            issuer: list.issuer().to_string(),
            next_update: list.next_update().map(time),
            revoked: list.iter_revoked_certificates().count(),
        })
    }
}

/// Without the zero byte that keeps a large number positive (X.690 §8.3).
fn unsigned(serial: &[u8]) -> &[u8] {
    match serial {
        [0, rest @ ..] if !rest.is_empty() => rest,
        serial => serial,
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::from(v6).to_string())
}

/// Times before 1970 are as long ago as any.
fn time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A date in UTC, as people write it.
#[must_use]
pub fn date(time: SystemTime) -> String {
    match Timestamp::try_from(time) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => "a date beyond the calendar".into(),
    }
}

/// Seconds since 1970; 0 for what is before.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whole days from `now` to `end`; negative once it is over.
#[must_use]
pub fn days_left(end: SystemTime, now: SystemTime) -> i64 {
    const DAY: u64 = 86_400;
    let days = |span: Duration| i64::try_from(span.as_secs() / DAY).unwrap_or(i64::MAX);
    match end.duration_since(now) {
        Ok(left) => days(left),
        Err(over) => -days(over.duration()) - 1,
    }
}

/// SHA-256, by the provider that TLS uses.
pub(super) fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13();
    let hash: Option<&dyn Hash> = suite.map(|suite| suite.common.hash_provider);
    hash.map(|hash| hash.hash(bytes).as_ref().to_vec()).unwrap_or_default()
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string can't fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// Base64 with padding (RFC 4648 §4).
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = (group >> (18 - 6 * digit)) & 63;
            let digit = if digit > chunk.len() { b'=' } else { DIGITS[value as usize] };
            text.push(char::from(digit));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_those_of_the_standards() {
        assert_eq!(hex(&[0, 0x1f, 0xff]), "001fff");
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            hex(&sha256(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn days_are_whole_ones() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let day = Duration::from_secs(86_400);
        let second = Duration::from_secs(1);
        assert_eq!(days_left(now + day * 3 + second, now), 3);
        assert_eq!(days_left(now + day * 3 - second, now), 2);
        assert_eq!(days_left(now, now), 0);
        assert_eq!(days_left(now - second, now), -1);
        assert_eq!(days_left(now - day * 2, now), -3);
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        assert_eq!(CertificateInfo::parse(b""), None);
        assert_eq!(CertificateInfo::parse(b"\x30\x03\x02\x01\x01"), None);
        assert_eq!(CrlInfo::parse(b"\x30\x00"), None);
    }
}
