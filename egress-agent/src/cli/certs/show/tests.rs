use std::time::Duration;

use super::*;
use crate::cli::{
    testing::golden,
    wrap::{WIDTH, fitted},
};

const DAY: Duration = Duration::from_hours(24);

/// 2026-11-30, noon.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_040_000)
}

/// A certificate with these days to live.
fn certificate(subject: &str, issuer: &str, days_left: i32) -> Certificate {
    let left = DAY * days_left.unsigned_abs();
    let not_after = if days_left < 0 { now() - left } else { now() + left };
    Certificate {
        subject: subject.into(),
        issuer: issuer.into(),
        serial: "ab".into(),
        fingerprint_sha256: "00".repeat(32),
        spiffe_id: None,
        uris: Vec::new(),
        names: Vec::new(),
        ca: subject == issuer,
        not_before: now() - DAY * 60,
        not_after,
        days_left: days_left.into(),
    }
}

fn fault(severity: &'static str, message: &str) -> Fault {
    Fault { severity, message: message.into() }
}

/// As a terminal shows them: an identity with its chain, a server's certificate of many names, one that has expired,
/// and one that isn't there.
#[test]
fn certificates_are_shown_in_80_columns() {
    let root = || certificate("CN=root.cluster.local", "CN=root.cluster.local", 3000);
    let issuer = "O=example, CN=an intermediate authority of cluster.local for the mesh";
    let id = "spiffe://cluster.local/ns/istio-system/sa/istio-egressgateway";
    let own = CredentialReport {
        name: "the own identity".into(),
        used_by: vec![
            "the tunnel to istio-egressgateway.istio-system.svc.cluster.local".into(),
            "Gateway istio-system/istio-egressgateway port 443 (ISTIO_MUTUAL)".into(),
        ],
        chain: vec![
            Certificate { uris: vec![id.into()], ..certificate("CN=workload", issuer, 1) },
            certificate(issuer, "CN=root.cluster.local", 400),
        ],
        roots: vec![root()],
        revocation_lists: vec![
            Crl { issuer: "CN=root.cluster.local".into(), revoked: 2, next_update: None },
            Crl {
                issuer: issuer.into(),
                revoked: 0,
                next_update: Some("2026-12-07T12:00:00Z".into()),
            },
        ],
        problems: Vec::new(),
    };
    let names = (0..6).map(|number| format!("name-{number}.example.com"));
    let server = CredentialReport {
        name: "web".into(),
        used_by: vec!["Gateway apps/web port 443 (MUTUAL)".into()],
        chain: vec![Certificate {
            names: names.collect(),
            ..certificate("CN=web", "CN=root.cluster.local", -3)
        }],
        roots: Vec::new(),
        revocation_lists: Vec::new(),
        problems: vec![
            fault("error", "the certificate expired on 2026-11-27; renew it"),
            fault(
                "warning",
                "the CA's certificates: found none of ca.crt, cacert and root-cert.pem in \
                 /etc/egress/credentials/web",
            ),
        ],
    };
    let missing = CredentialReport {
        name: "idle".into(),
        used_by: Vec::new(),
        chain: Vec::new(),
        roots: Vec::new(),
        revocation_lists: Vec::new(),
        problems: vec![fault("error", "there is no directory /etc/egress/credentials/idle")],
    };
    let report = CertificatesReport { certificates: vec![own, server, missing] };
    let mut shown = Vec::new();
    text(&report, &mut shown).unwrap();
    golden("certs.txt", &fitted(&String::from_utf8(shown).unwrap(), WIDTH));
}
