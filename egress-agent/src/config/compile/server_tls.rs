//! `tls` of a gateway's server.

use std::{path::PathBuf, sync::Arc};

use super::super::{
    decode::{Cx, List, SourcePosition, Spanned, nearest},
    gateway::{ServerMode, ServerTls as Mirror, TlsProtocol},
};
use super::mesh::encrypted_hello;
use crate::policy::{
    CipherSuite, CredentialFiles, CredentialSource, InnerProtocol, MeshConfig, Protocol,
    ServerProtocol, ServerTls, ServerTlsMode, TlsVersion,
};

/// What the server does with TLS.
pub(super) fn compile(
    kind: Protocol,
    inside: InnerProtocol,
    tls: &Mirror,
    mesh: &MeshConfig,
    cx: &mut Cx<'_>,
) -> Option<ServerProtocol> {
    let mode_at = tls.mode.as_ref().map_or_else(|| tls.at.field("mode"), |mode| mode.at.clone());
    let mode = tls.mode.as_ref().map_or(ServerMode::Simple, |mode| mode.value);
    if kind == Protocol::Tcp {
        let found = format!("{mode} on a port of protocol TCP");
        let message = match mode {
            ServerMode::Passthrough => "only TLS can be passed through by its server name",
            ServerMode::Simple
            | ServerMode::Mutual
            | ServerMode::IstioMutual
            | ServerMode::OptionalMutual
            | ServerMode::AutoPassthrough => {
                "a port with tls carries TLS (any bytes inside) or HTTPS (HTTP inside)"
            }
        };
        cx.wrong(&mode_at, found, "protocol TLS or HTTPS", message);
        return None;
    }
    if let Some(choice) = tls.encrypted_client_hello.as_ref()
        && mode != ServerMode::Passthrough
    {
        cx.warn(
            &choice.at,
            "has no effect: where TLS is terminated here the inner ClientHello isn't read",
        );
    }
    let mode = match mode {
        ServerMode::Passthrough => {
            for file in own_files(tls).into_iter().flatten() {
                cx.warn(&file.at, "has no effect: PASSTHROUGH doesn't touch TLS");
            }
            let choice = encrypted_hello(tls.encrypted_client_hello.as_ref());
            return Some(ServerProtocol::Passthrough(choice.unwrap_or(mesh.encrypted_hello)));
        }
        ServerMode::AutoPassthrough => {
            let expected = "PASSTHROUGH, or a mode that terminates TLS";
            let message = "not supported: the gateway forwards by virtual services only";
            cx.wrong(&mode_at, "AUTO_PASSTHROUGH", expected, message);
            return None;
        }
        ServerMode::Simple => ServerTlsMode::Simple,
        ServerMode::Mutual => ServerTlsMode::Mutual,
        ServerMode::OptionalMutual => ServerTlsMode::OptionalMutual,
        ServerMode::IstioMutual => ServerTlsMode::IstioMutual(mesh.trust_domain.clone()),
    };
    // All of them are read before giving up, so that every error is told.
    let credentials = credentials(&mode, tls, cx);
    let versions = versions(tls, cx);
    let cipher_suites = cipher_suites(&tls.cipher_suites, cx);
    let spki_pins = pins(&tls.verify_certificate_spki, spki, "the base64 of a SHA-256", cx);
    let hashes = pins(&tls.verify_certificate_hash, hash, "a SHA-256 in hexadecimal", cx);
    let subject_alt_names = tls.subject_alt_names.iter().map(|name| name.value.clone()).collect();
    if mode == ServerTlsMode::Simple {
        let lists =
            [&tls.subject_alt_names, &tls.verify_certificate_spki, &tls.verify_certificate_hash];
        for text in lists.into_iter().filter_map(|list| list.iter().next()) {
            cx.warn(&text.at, "has no effect: SIMPLE asks clients for no certificate");
        }
    }
    let (min_version, max_version) = versions?;
    let (credential, other_certificates) = credentials?;
    Some(ServerProtocol::Terminate(Arc::new(ServerTls {
        mode,
        credential,
        other_certificates,
        inside,
        min_version,
        max_version,
        cipher_suites: cipher_suites?,
        key_groups: mesh.key_groups.clone(),
        subject_alt_names,
        spki_pins: spki_pins?,
        hashes: hashes?,
    })))
}

/// Every field that names a file or a credential.
fn own_files(tls: &Mirror) -> [Option<&Spanned<String>>; 7] {
    let listed = tls.tls_certificates.0.first();
    [
        tls.credential_names.first(),
        listed.and_then(|listed| listed.server_certificate.as_ref()),
        tls.server_certificate.as_ref(),
        tls.private_key.as_ref(),
        tls.ca_certificates.as_ref(),
        tls.ca_crl.as_ref(),
        tls.credential_name.as_ref(),
    ]
}

/// Where the server's certificates are: of the first one, which has the roots for its clients' too, and of the
/// others.
type Sources = (CredentialSource, Vec<CredentialSource>);

fn credentials(mode: &ServerTlsMode, tls: &Mirror, cx: &mut Cx<'_>) -> Option<Sources> {
    if let ServerTlsMode::IstioMutual(_) = mode {
        if let Some(file) = own_files(tls).into_iter().flatten().next() {
            let message = "ISTIO_MUTUAL takes the gateway's own certificate (`--identity-dir`); use \
                           MUTUAL for files or a credential";
            cx.wrong(&file.at, format!("{:?}", file.value), "nothing", message);
            return None;
        }
        return Some((CredentialSource::Own, Vec::new()));
    }
    one_form(tls, cx)?;
    let names: Vec<_> = tls.credential_name.iter().chain(&tls.credential_names).collect();
    if names.is_empty() { in_files(mode, tls, cx) } else { named(&names, tls, cx) }
}

/// Reports a certificate in the singular beside a list, as Istio does: nobody knows which of both is meant.
fn one_form(tls: &Mirror, cx: &mut Cx<'_>) -> Option<()> {
    let one = tls.server_certificate.as_ref().or(tls.private_key.as_ref());
    let files = one.filter(|_| !tls.tls_certificates.0.is_empty());
    let name = tls.credential_name.as_ref().filter(|_| !tls.credential_names.is_empty());
    let (beside, list) = match (name, files) {
        (Some(name), _) => (name, "credentialNames"),
        (None, Some(file)) => (file, "tlsCertificates"),
        (None, None) => return Some(()),
    };
    let message = "a certificate is named alone or in the list, not both; move it into the list";
    cx.wrong(&beside.at, format!("{:?}", beside.value), format!("{list} alone"), message);
    None
}

/// Those that `credentialName` or `credentialNames` name.
fn named(names: &[&Spanned<String>], tls: &Mirror, cx: &mut Cx<'_>) -> Option<Sources> {
    let listed = tls.tls_certificates.0.first();
    let others = [
        tls.server_certificate.as_ref().or(listed.and_then(|one| one.server_certificate.as_ref())),
        tls.private_key.as_ref().or(listed.and_then(|one| one.private_key.as_ref())),
        tls.ca_certificates.as_ref().or(listed.and_then(|one| one.ca_certificates.as_ref())),
    ];
    for file in others.into_iter().flatten() {
        cx.warn(&file.at, "has no effect: credentialName stands for all files, as in Istio");
    }
    if let Some(file) = &tls.ca_crl {
        let message = "credentialName stands for all files; a list that is not looked at would \
                       let revoked certificates in. Put it into the credential as ca.crl";
        cx.wrong(&file.at, format!("{:?}", file.value), "nothing", message);
        return None;
    }
    let mut sources = Vec::new();
    for name in names {
        if !is_name(&name.value) {
            let expected = "the name of a directory below --credentials-dir: lower-case letters, \
                            digits, hyphens and dots";
            cx.wrong(&name.at, format!("{:?}", name.value), expected, "not a credential's name");
            return None;
        }
        let source = CredentialSource::Named(name.value.as_str().into());
        if sources.contains(&source) {
            cx.warn(&name.at, format!("{} is listed twice", name.value));
        } else {
            cx.names_credential(&name.value);
            sources.push(source);
        }
    }
    let others = sources.split_off(1);
    Some((sources.pop()?, others))
}

/// Those in files that the server names.
fn in_files(mode: &ServerTlsMode, tls: &Mirror, cx: &mut Cx<'_>) -> Option<Sources> {
    let listed = &tls.tls_certificates.0;
    let mut pairs: Vec<_> =
        listed.iter().map(|one| (&one.at, &one.server_certificate, &one.private_key)).collect();
    if pairs.is_empty() {
        pairs.push((&tls.at, &tls.server_certificate, &tls.private_key));
    }
    let mut required =
        |spot: &SourcePosition, file: Option<&Spanned<String>>, field: &'static str, what: &str| {
            let given = file.filter(|file| !file.value.is_empty());
            if given.is_none() {
                let message = format!("mode {mode} needs {what}");
                cx.wrong(&spot.field(field), "nothing", "a file, or credentialName", message);
            }
            given.map(|file| PathBuf::from(&file.value))
        };
    let mut files = Vec::new();
    for (spot, certificate, key) in pairs {
        let what = "the server's certificate";
        let certificate = required(spot, certificate.as_ref(), "serverCertificate", what);
        files.push((certificate, required(spot, key.as_ref(), "privateKey", "its key")));
    }
    let of_first = listed.first().and_then(|one| one.ca_certificates.as_ref());
    let roots = tls.ca_certificates.as_ref().or(of_first);
    let ca_certificates = if mode.asks() {
        let what = "the roots that sign client certificates";
        Some(required(&tls.at, roots, "caCertificates", what)?)
    } else {
        for file in [roots, tls.ca_crl.as_ref()].into_iter().flatten() {
            cx.warn(&file.at, "has no effect: SIMPLE asks clients for no certificate");
        }
        None
    };
    for more in listed.iter().skip(1).filter_map(|one| one.ca_certificates.as_ref()) {
        let message =
            "has no effect: the roots are those of the server, or of its first certificate";
        cx.warn(&more.at, message);
    }
    let (mut ca_certificates, mut ca_crl) = (
        ca_certificates,
        tls.ca_crl.as_ref().filter(|_| mode.asks()).map(|file| PathBuf::from(&file.value)),
    );
    let mut sources = Vec::new();
    for (certificate, private_key) in files {
        sources.push(CredentialSource::Files(CredentialFiles {
            certificate: certificate?,
            private_key: private_key?,
            // Clients are held to the roots of the first one.
            ca_certificates: ca_certificates.take(),
            ca_crl: ca_crl.take(),
        }));
    }
    let others = sources.split_off(1);
    Some((sources.pop()?, others))
}

/// A name as Kubernetes gives to Secrets (RFC 1123); it can't leave the directory.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=253).contains(&text.len())
        && text.chars().all(allowed)
        && text.starts_with(ends)
        && text.ends_with(ends)
        && !text.contains("..")
}

fn versions(tls: &Mirror, cx: &mut Cx<'_>) -> Option<(TlsVersion, TlsVersion)> {
    let min = match tls.min_protocol_version.as_ref().map(|min| (min.value, min)) {
        None | Some((TlsProtocol::Auto | TlsProtocol::V1_2, _)) => TlsVersion::V1_2,
        Some((TlsProtocol::V1_0 | TlsProtocol::V1_1, min)) => {
            cx.warn(&min.at, format!("{} is not spoken; the oldest is TLSV1_2", min.value));
            TlsVersion::V1_2
        }
        Some((TlsProtocol::V1_3, _)) => TlsVersion::V1_3,
    };
    let max = match tls.max_protocol_version.as_ref().map(|max| (max.value, max)) {
        None | Some((TlsProtocol::Auto | TlsProtocol::V1_3, _)) => TlsVersion::V1_3,
        Some((TlsProtocol::V1_2, _)) => TlsVersion::V1_2,
        Some((TlsProtocol::V1_0 | TlsProtocol::V1_1, max)) => {
            let message = "TLS below 1.2 is not spoken, so nothing would be left";
            cx.wrong(&max.at, max.value.to_string(), "TLSV1_2 or TLSV1_3", message);
            return None;
        }
    };
    if min > max {
        let at = tls.max_protocol_version.as_ref().map_or(&tls.at, |max| &max.at);
        let message = "maxProtocolVersion is older than minProtocolVersion: no version is left";
        cx.wrong(at, "TLSV1_2", "TLSV1_3, or an older minProtocolVersion", message);
        return None;
    }
    Some((min, max))
}

fn cipher_suites(list: &List<String>, cx: &mut Cx<'_>) -> Option<Vec<CipherSuite>> {
    let (mut suites, mut unknown) = (Vec::new(), Vec::new());
    for name in list {
        match CipherSuite::ALL.iter().find(|suite| suite.name() == name.value) {
            Some(suite) if suites.contains(suite) => {
                cx.warn(&name.at, format!("{} is listed twice", name.value));
            }
            Some(suite) => suites.push(*suite),
            None => unknown.push(name),
        }
    }
    let none_is_left = suites.is_empty();
    for name in &unknown {
        let names = CipherSuite::ALL.iter().map(|suite| suite.name());
        let near = nearest(&name.value, names);
        let hint = near.map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
        let message = format!(
            "{} is not spoken (only suites for TLS 1.2 with ephemeral keys and GCM or ChaCha20 can be \
             chosen)",
            name.value
        );
        if none_is_left {
            let names: Vec<_> = CipherSuite::ALL.iter().map(|suite| suite.name()).collect();
            let expected = format!("one of {}", names.join(", "));
            let message = format!("{message}; no cipher suite is left{hint}");
            cx.wrong(&name.at, format!("{:?}", name.value), expected, message);
        } else {
            cx.warn(&name.at, format!("{message}; it is left out{hint}"));
        }
    }
    if none_is_left && !unknown.is_empty() { None } else { Some(suites) }
}

/// Each in its normal form.
fn pins(
    list: &List<String>,
    normal: fn(&str) -> Option<String>,
    expected: &str,
    cx: &mut Cx<'_>,
) -> Option<Vec<String>> {
    let mut good = true;
    let mut pins = Vec::new();
    for text in list {
        match normal(&text.value) {
            Some(pin) => pins.push(pin),
            None => {
                good = false;
                cx.wrong(&text.at, format!("{:?}", text.value), expected, "not a fingerprint");
            }
        }
    }
    good.then_some(pins)
}

/// 32 bytes are 43 digits of base64 and one `=`.
fn spki(text: &str) -> Option<String> {
    let digits = text.strip_suffix('=')?;
    let digit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
    (digits.len() == 43 && digits.chars().all(digit)).then(|| text.to_owned())
}

fn hash(text: &str) -> Option<String> {
    let colons = text.len() == 95 && text.split(':').all(|pair| pair.len() == 2);
    let digits = if colons { text.replace(':', "") } else { text.to_owned() };
    let good = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| digits.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_their_directory() {
        for name in ["a", "edition-cnn-com", "a.b", "0", &"a".repeat(253)] {
            assert!(is_name(name), "{name}");
        }
        for name in
            ["", ".", "..", "../a", "a/b", "/a", "a..b", "-a", "a-", "A", "a b", &"a".repeat(254)]
        {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn fingerprints_have_one_form() {
        let plain = "ab".repeat(32);
        let colons = ["AB"; 32].join(":");
        assert_eq!(hash(&plain), Some(plain.clone()));
        assert_eq!(hash(&colons), Some(plain.clone()));
        for text in ["", "ab", &plain[1..], &format!("{plain}0"), &"zz".repeat(32)] {
            assert_eq!(hash(text), None, "{text}");
        }
        let pin = "NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A=";
        assert_eq!(spki(pin).as_deref(), Some(pin));
        for text in ["", "=", &pin[1..], &pin[..43], &pin.replace('+', "-")] {
            assert_eq!(spki(text), None, "{text}");
        }
    }
}
