use std::fs;

use tempfile::TempDir;

use super::*;
use crate::{
    policy::CredentialSource,
    source::Watched as _,
    tls::testing::{ca, crl, early, expired, issue, params, write},
};

const ID: &str = "spiffe://cluster.local/ns/istio-system/sa/gateway";

fn look(dir: &Path, needs: &Needs) -> Inspection {
    let located = Located::directory(dir);
    Inspection::of(
        &located.files().read(),
        &WorkloadMaterial::default(),
        &located,
        needs,
        SystemTime::now(),
    )
}

fn identity() -> Needs {
    Needs { roots: true, identity: Some(TrustDomain::default()) }
}

/// The only fault, in words.
fn fault(inspection: &Inspection) -> String {
    let faults: Vec<_> = inspection.faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0].clone()
}

#[test]
fn a_good_one_is_taken_and_told() {
    let dir = TempDir::new().unwrap();
    let root = ca("root");
    write(dir.path(), &issue(&root, &params(&["gateway.example"], &[ID], 0x1f)), Some(&root));
    fs::write(dir.path().join("ca.crl"), crl(&root, &[7, 8], true)).unwrap();
    let inspection = look(dir.path(), &identity());
    assert_eq!(inspection.faults, []);
    let credential = inspection.credential.unwrap();
    assert_eq!(credential.id.unwrap().to_string(), ID);
    assert_eq!((credential.roots.len(), credential.crls.len()), (1, 1));
    let leaf = &inspection.chain[0];
    assert_eq!(leaf.serial, "1f");
    assert_eq!(
        (&leaf.dns_names[..], &leaf.uris[..]),
        (&["gateway.example".to_owned()][..], &[ID.to_owned()][..])
    );
    assert_eq!(leaf.fingerprint.len(), 64);
    assert!(inspection.roots[0].is_ca && !leaf.is_ca);
    assert_eq!(inspection.crls[0].revoked, 2);
}

#[test]
fn another_certificates_key_is_told() {
    let dir = TempDir::new().unwrap();
    let root = ca("root");
    let (certificate, _) = issue(&root, &params(&["a.example"], &[], 1));
    let (_, key) = issue(&root, &params(&["a.example"], &[], 2));
    write(dir.path(), &(certificate, key), None);
    let inspection = look(dir.path(), &Needs::default());
    assert!(inspection.credential.is_none());
    let fault = fault(&inspection);
    assert!(fault.contains("this key is not the one of the certificate in"), "{fault}");
    assert!(fault.contains("tls.key") && fault.contains("tls.crt"), "{fault}");
}

#[test]
fn dates_are_told() {
    let root = ca("root");
    let good = params(&["a.example"], &[], 1);
    for (params, wanted) in [
        (expired(good.clone()), "the certificate expired on 2021-02-03 00:00:00 UTC; renew it"),
        (early(good), "the certificate is not valid before 2090-01-01 00:00:00 UTC"),
    ] {
        let dir = TempDir::new().unwrap();
        write(dir.path(), &issue(&root, &params), None);
        let inspection = look(dir.path(), &Needs::default());
        assert!(inspection.credential.is_none());
        assert!(fault(&inspection).contains(wanted), "{inspection:?}");
    }
}

#[test]
fn an_identity_is_one_and_of_this_trust_domain() {
    let root = ca("root");
    let foreign = "spiffe://other.example/ns/a/sa/b";
    for (uris, wanted) in [
        (&[][..], "found no URI name, expected a SPIFFE ID"),
        (&[ID, foreign], "found 2 URI names"),
        (&["https://cluster.local/ns/a/sa/b"], "doesn't begin with spiffe://"),
        (
            &[foreign],
            "found the trust domain other.example (spiffe://other.example/ns/a/sa/b), expected cluster.local",
        ),
    ] {
        let dir = TempDir::new().unwrap();
        write(dir.path(), &issue(&root, &params(&["a.example"], uris, 1)), Some(&root));
        let inspection = look(dir.path(), &identity());
        assert!(inspection.credential.is_none());
        assert!(fault(&inspection).contains(wanted), "{inspection:?}");
        // Where no identity is asked for, none of it matters.
        assert!(look(dir.path(), &Needs { roots: true, identity: None }).credential.is_some());
    }
}

#[test]
fn roots_are_there_where_they_are_needed() {
    let root = ca("root");
    let leaf = issue(&root, &params(&["a.example"], &[], 1));
    let dir = TempDir::new().unwrap();
    write(dir.path(), &leaf, None);
    let mutual = Needs { roots: true, identity: None };
    assert!(look(dir.path(), &Needs::default()).credential.is_some());
    assert!(fault(&look(dir.path(), &mutual)).contains("the CA's certificates: found none of"));
    for (text, wanted) in [
        ("", "found no `BEGIN CERTIFICATE`"),
        ("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", "broken PEM"),
        ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "no X.509 certificate"),
    ] {
        fs::write(dir.path().join("ca.crt"), text).unwrap();
        let inspection = look(dir.path(), &mutual);
        assert!(inspection.credential.is_none(), "{text}");
        assert!(fault(&inspection).contains(wanted), "{inspection:?}");
    }
    // One that expired vouches for nobody.
    let mut old = expired(params(&[], &[], 1));
    old.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let old = old.self_signed(&key).unwrap().pem();
    fs::write(dir.path().join("ca.crt"), &old).unwrap();
    let inspection = look(dir.path(), &mutual);
    assert!(inspection.credential.is_none());
    assert!(inspection.faults[0].to_string().contains("expired on 2021-02-03"), "{inspection:?}");
    fs::write(dir.path().join("ca.crt"), format!("{old}{}", root.pem())).unwrap();
    let both = look(dir.path(), &mutual);
    assert_eq!(both.credential.unwrap().roots.len(), 1);
    assert!(!both.faults[0].is_fatal());
}

#[test]
fn revocation_lists_are_read_and_their_age_is_told() {
    let dir = TempDir::new().unwrap();
    let root = ca("root");
    write(dir.path(), &issue(&root, &params(&["a.example"], &[], 1)), Some(&root));
    let mutual = Needs { roots: true, identity: None };
    fs::write(dir.path().join("ca.crl"), "nothing").unwrap();
    assert!(fault(&look(dir.path(), &mutual)).contains("found no `BEGIN X509 CRL`"));
    fs::write(dir.path().join("ca.crl"), crl(&root, &[], false)).unwrap();
    let old = look(dir.path(), &mutual);
    assert!(old.credential.is_some());
    assert!(fault(&old).contains("to be replaced by 2020-02-01"), "{old:?}");
    // A list that was named must be there.
    let located = Located {
        crl: vec![dir.path().join("gone.crl")],
        crl_named: true,
        ..Located::directory(dir.path())
    };
    let inspection = Inspection::of(
        &located.files().read(),
        &WorkloadMaterial::default(),
        &located,
        &mutual,
        SystemTime::now(),
    );
    assert!(inspection.credential.is_none());
    assert!(fault(&inspection).contains("gone.crl: the file does not exist"));
}

#[test]
fn a_chain_out_of_order_is_told() {
    let dir = TempDir::new().unwrap();
    let (root, other) = (ca("root"), ca("other"));
    let (leaf, key) = issue(&root, &params(&["a.example"], &[], 1));
    write(dir.path(), &(format!("{leaf}{}", other.pem()), key.clone()), None);
    let wrong = look(dir.path(), &Needs::default());
    assert!(fault(&wrong).contains("was issued by \"CN=root\", but is followed by \"CN=other\""));
    write(dir.path(), &(format!("{leaf}{}", root.pem()), key), None);
    assert_eq!(look(dir.path(), &Needs::default()).faults, []);
}

#[test]
fn credentials_are_found_by_name() {
    let dir = TempDir::new().unwrap();
    let root = ca("root");
    let places = CredentialLocations {
        credentials: Some(dir.path().into()),
        ..CredentialLocations::default()
    };
    let named = CredentialSource::Named("web".into());
    let look = |places: &CredentialLocations, source: &CredentialSource| {
        let located = places.locate(source)?;
        let needs = Needs { roots: true, identity: None };
        let found = Inspection::of(
            &located.files().read(),
            &WorkloadMaterial::default(),
            &located,
            &needs,
            SystemTime::now(),
        );
        Ok::<_, CredentialFault>(found.credential.is_some())
    };
    write(&dir.path().join("web"), &issue(&root, &params(&["a.example"], &[], 1)), None);
    assert_eq!(look(&places, &named), Ok(false));
    // Roots may have a Secret of their own.
    fs::create_dir(dir.path().join("web-cacert")).unwrap();
    fs::write(dir.path().join("web-cacert/ca.crt"), root.pem()).unwrap();
    assert_eq!(look(&places, &named), Ok(true));
    let none = look(&CredentialLocations::default(), &named).unwrap_err().to_string();
    assert!(none.contains("start the agent with --credentials-dir DIR"), "{none}");
    let none = look(&places, &CredentialSource::Own).unwrap_err().to_string();
    assert!(none.contains("--identity-dir DIR"), "{none}");
}
