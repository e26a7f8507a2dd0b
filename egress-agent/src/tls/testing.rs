//! Certificates made on the spot.

use std::{fs, path::Path, time::SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// An authority.
pub(crate) type Ca = CertifiedIssuer<'static, KeyPair>;

/// An authority of this name.
pub(crate) fn ca(name: &str) -> Ca {
    authority(name, CertificateParams::default())
}

/// The same, until then.
pub(crate) fn ca_until(name: &str, end: SystemTime) -> Ca {
    authority(name, until(CertificateParams::default(), end))
}

fn authority(name: &str, mut params: CertificateParams) -> Ca {
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate's settings, for clients and servers.
pub(crate) fn params(names: &[&str], uris: &[&str], serial: u64) -> CertificateParams {
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names).unwrap();
    for uri in uris {
        params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
    }
    params.serial_number = Some(SerialNumber::from(serial));
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// The same, with a time that is over.
pub(crate) fn expired(mut params: CertificateParams) -> CertificateParams {
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 2, 3));
    params
}

/// The same, with a time that hasn't come.
pub(crate) fn early(mut params: CertificateParams) -> CertificateParams {
    (params.not_before, params.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1));
    params
}

/// The same, valid until then; certificates count whole seconds.
pub(crate) fn until(mut params: CertificateParams, end: SystemTime) -> CertificateParams {
    params.not_after =
        date_time_ymd(1970, 1, 1) + end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    params
}

/// Certificate and key, PEM.
pub(crate) fn issue(ca: &Ca, params: &CertificateParams) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

/// The same with an RSA key.
pub(crate) fn issue_rsa(ca: &Ca, params: &CertificateParams) -> (String, String) {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

/// A revocation list with these serial numbers, PEM; up to date or not.
pub(crate) fn crl(ca: &Ca, serials: &[u64], current: bool) -> String {
    let (this_update, next_update) = if current {
        (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1))
    } else {
        (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1))
    };
    let revoked = serials.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update,
        next_update,
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(ca).unwrap().pem().unwrap()
}

/// Writes a credential as a Secret's directory has it.
pub(crate) fn write(dir: &Path, (certificate, key): &(String, String), roots: Option<&Ca>) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("tls.crt"), certificate).unwrap();
    fs::write(dir.join("tls.key"), key).unwrap();
    if let Some(roots) = roots {
        fs::write(dir.join("ca.crt"), roots.pem()).unwrap();
    }
}
