//! Real handshakes: what each mode lets in, and its refused twins.

use std::{fs, path::Path};

use bytes::Bytes;
use egress_ebpf::reason::Reason;
use rcgen::CertificateParams;
use rustls::{ClientConfig, RootCertStore, version::TLS12};
use rustls_pki_types::{ServerName, pem::PemObject as _};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::{
    net::Rewound,
    policy::{CredentialSource, Inside, ServerTlsMode, TlsVersion},
    tls::{
        AcceptError, Refused, accept,
        config::provider,
        pem,
        testing::{Ca, ca, crl, early, expired, issue, params, write},
    },
    types::{DownstreamTls, TrustDomain},
};

const GATEWAY: &str = "spiffe://cluster.local/ns/istio-system/sa/gateway";
const CLIENT: &str = "spiffe://cluster.local/ns/apps/sa/sleep";
const SOON: Duration = Duration::from_secs(20);

/// A directory of credentials with one, `web`, which is the identity too, and its authority.
struct Site {
    dir: TempDir,
    root: Ca,
    credentials: Credentials,
}

type Pair = Option<(String, String)>;

impl Site {
    fn new() -> Self {
        let (dir, root) = (TempDir::new().unwrap(), ca("root"));
        let web = dir.path().join("web");
        write(&web, &issue(&root, &params(&["a.example"], &[GATEWAY], 1)), Some(&root));
        let places = Places {
            credentials: Some(dir.path().into()),
            identity: Some(web),
            ..Places::default()
        };
        Self { dir, root, credentials: Credentials::new(places) }
    }

    fn web(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("web").join(name)
    }

    /// A client's certificate of this authority.
    fn client(&self, params: &CertificateParams) -> Pair {
        Some(issue(&self.root, params))
    }

    /// One connection with these settings: what the server knows of it, or why there is none.
    async fn connect(
        &self,
        settings: &ServerTls,
        client: Pair,
    ) -> Result<DownstreamTls, AcceptError> {
        self.connect_with(settings, client_config(&self.root, client)).await
    }

    async fn connect_with(
        &self,
        settings: &ServerTls,
        client: ClientConfig,
    ) -> Result<DownstreamTls, AcceptError> {
        let config = self.credentials.server(settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let client = tokio::spawn(async move {
            let stream = TcpStream::connect(addr).await.unwrap();
            let name = ServerName::try_from("a.example").unwrap();
            let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
            stream.write_all(b"x").await?;
            stream.read_exact(&mut [0]).await
        });
        let (stream, _) = listener.accept().await.unwrap();
        let deadline = Instant::now() + SOON;
        let accepted = accept(config, Rewound::new(Bytes::new(), stream), deadline).await;
        match accepted {
            Ok((mut stream, known)) => {
                stream.read_exact(&mut [0]).await.unwrap();
                stream.write_all(b"y").await.unwrap();
                stream.flush().await.unwrap();
                client.await.unwrap().unwrap();
                Ok(known)
            }
            Err(Refused { error, stream }) => {
                drop(stream);
                assert!(client.await.unwrap().is_err(), "the client wasn't told: {error}");
                Err(error)
            }
        }
    }
}

fn client_config(root: &Ca, client: Pair) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match client {
        Some((chain, key)) => {
            let chain = pem::certificates(chain.as_bytes()).unwrap();
            let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    }
}

fn settings(mode: ServerTlsMode) -> ServerTls {
    let credential = match mode {
        ServerTlsMode::IstioMutual(_) => CredentialSource::Own,
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            CredentialSource::Named("web".into())
        }
    };
    ServerTls {
        mode,
        credential,
        inside: Inside::Http,
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        key_groups: crate::policy::KeyGroups::default(),
        cipher_suites: Vec::new(),
        subject_alt_names: Vec::new(),
        spki_pins: Vec::new(),
        hashes: Vec::new(),
    }
}

fn istio() -> ServerTlsMode {
    ServerTlsMode::IstioMutual(TrustDomain::default())
}

fn good() -> CertificateParams {
    params(&["client.example"], &[CLIENT], 2)
}

#[tokio::test]
async fn each_mode_takes_its_clients_and_no_others() {
    let site = Site::new();
    let stranger = Some(issue(&ca("stranger"), &good()));
    for mode in
        [ServerTlsMode::Simple, ServerTlsMode::Mutual, ServerTlsMode::OptionalMutual, istio()]
    {
        let tls = settings(mode.clone());
        site.credentials.configure([Arc::new(tls.clone())], []).await;
        // With a good certificate.
        let known = site.connect(&tls, site.client(&good())).await.unwrap();
        assert_eq!((known.version, known.cipher), ("TLSv1.3", "TLS_AES_128_GCM_SHA256"));
        let seen = known.principal().map(ToString::to_string);
        assert_eq!(seen, mode.asks().then(|| CLIENT.to_owned()), "{mode}");
        assert_eq!(known.principal_name(), seen.as_deref());
        // Without one.
        let without = site.connect(&tls, None).await;
        let reason = without.as_ref().map_err(AcceptError::reason);
        match mode {
            ServerTlsMode::Simple | ServerTlsMode::OptionalMutual => {
                assert_eq!(without.unwrap().peer, None, "{mode}");
            }
            ServerTlsMode::Mutual | ServerTlsMode::IstioMutual(_) => {
                assert_eq!(reason.unwrap_err(), Reason::NoClientCertificate, "{mode}");
            }
        }
        if !mode.asks() {
            continue;
        }
        // With bad ones.
        for (client, wanted) in [
            (stranger.clone(), Reason::UntrustedClient),
            (site.client(&expired(good())), Reason::ExpiredClient),
            (site.client(&early(good())), Reason::ExpiredClient),
        ] {
            let error = site.connect(&tls, client).await.unwrap_err();
            assert_eq!(error.reason(), wanted, "{mode}: {error}");
        }
    }
}

#[tokio::test]
async fn the_mesh_takes_identities_of_its_own_trust_domain() {
    let site = Site::new();
    let (mesh, mutual) = (settings(istio()), settings(ServerTlsMode::Mutual));
    site.credentials.configure([Arc::new(mesh.clone()), Arc::new(mutual.clone())], []).await;
    for (uris, wanted) in [
        (&["spiffe://other.example/ns/apps/sa/sleep"][..], "expected cluster.local"),
        (&[], "found no URI name"),
        (&[CLIENT, GATEWAY], "found 2 URI names"),
        (&["spiffe://cluster.local/workload"], "expected /ns/<namespace>/sa/<service account>"),
    ] {
        let client = site.client(&params(&["client.example"], uris, 3));
        let error = site.connect(&mesh, client.clone()).await.unwrap_err();
        assert_eq!(error.reason(), Reason::ClientIdentity, "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
        // MUTUAL asks for nothing but the CA's signature.
        let known = site.connect(&mutual, client).await.unwrap();
        assert_eq!(known.peer.unwrap().uri_sans, uris.join(","));
    }
}

#[tokio::test]
async fn names_and_fingerprints_narrow_it_down() {
    let site = Site::new();
    let (chain, key) = site.client(&good()).unwrap();
    let leaf = pem::certificates(chain.as_bytes()).unwrap().remove(0);
    let info = crate::tls::CertificateInfo::parse(&leaf).unwrap();
    let webpki = webpki::EndEntityCert::try_from(&leaf).unwrap();
    let spki =
        super::super::x509::base64(&super::super::x509::sha256(&webpki.subject_public_key_info()));
    let zero = "A".repeat(43) + "=";
    let base = || settings(ServerTlsMode::Mutual);
    let names = |name: &str| ServerTls { subject_alt_names: vec![name.into()], ..base() };
    let pins = |pin: &str| ServerTls { spki_pins: vec![pin.into()], ..base() };
    let hashes = |hash: &str| ServerTls { hashes: vec![hash.into()], ..base() };
    for (tls, allowed) in [
        (names(CLIENT), true),
        (names("client.example"), true),
        (names(GATEWAY), false),
        (names("other.example"), false),
        (pins(&spki), true),
        (pins(&zero), false),
        (hashes(&info.fingerprint), true),
        (hashes(&"0".repeat(64)), false),
        // One of both lists is enough.
        (ServerTls { spki_pins: vec![zero.clone()], ..hashes(&info.fingerprint) }, true),
    ] {
        site.credentials.configure([Arc::new(tls.clone())], []).await;
        let known = site.connect(&tls, Some((chain.clone(), key.clone()))).await;
        let reason = known.map(|_| ()).map_err(|error| error.reason());
        let wanted = if allowed { Ok(()) } else { Err(Reason::ClientIdentity) };
        assert_eq!(reason, wanted, "{tls:?}");
    }
}

#[tokio::test]
async fn revoked_certificates_are_refused_and_so_is_doubt() {
    let site = Site::new();
    let tls = settings(ServerTlsMode::Mutual);
    fs::write(site.web("ca.crl"), crl(&site.root, &[7], true)).unwrap();
    site.credentials.configure([Arc::new(tls.clone())], []).await;
    site.connect(&tls, site.client(&params(&[], &[CLIENT], 8))).await.unwrap();
    let revoked = site.client(&params(&[], &[CLIENT], 7));
    let error = site.connect(&tls, revoked.clone()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::RevokedClient, "{error}");
    // A list that is out of date proves nothing.
    fs::write(site.web("ca.crl"), crl(&site.root, &[], false)).unwrap();
    site.credentials.configure([Arc::new(tls.clone())], []).await;
    let error = site.connect(&tls, site.client(&good())).await.unwrap_err();
    assert_eq!(error.reason(), Reason::RevokedClient, "{error}");
    // Nor does another CA's.
    fs::write(site.web("ca.crl"), crl(&ca("other"), &[], true)).unwrap();
    site.credentials.configure([Arc::new(tls.clone())], []).await;
    let error = site.connect(&tls, site.client(&good())).await.unwrap_err();
    assert_eq!(error.reason(), Reason::RevokedClient, "{error}");
    fs::remove_file(site.web("ca.crl")).unwrap();
    site.credentials.configure([Arc::new(tls.clone())], []).await;
    site.connect(&tls, revoked).await.unwrap();
}

#[tokio::test]
async fn versions_below_the_minimum_are_refused() {
    let site = Site::new();
    let old = || {
        let mut roots = RootCertStore::empty();
        roots.add(site.root.der().clone()).unwrap();
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    };
    let tls = settings(ServerTlsMode::Simple);
    let new = ServerTls { min_version: TlsVersion::V1_3, ..tls.clone() };
    let rsa =
        ServerTls { cipher_suites: vec![crate::policy::CipherSuite::EcdsaChaCha], ..tls.clone() };
    site.credentials.configure([&tls, &new, &rsa].map(|tls| Arc::new(tls.clone())), []).await;
    let known = site.connect_with(&tls, old()).await.unwrap();
    assert_eq!((known.version, known.cipher), ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"));
    let known = site.connect_with(&rsa, old()).await.unwrap();
    assert_eq!(known.cipher, "ECDHE-ECDSA-CHACHA20-POLY1305");
    let error = site.connect_with(&new, old()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::DownstreamTls, "{error}");
    assert!(error.to_string().contains("minProtocolVersion"), "{error}");
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_is_heard() {
    let site = Site::new();
    let tls = settings(ServerTlsMode::Simple);
    site.credentials.configure([Arc::new(tls.clone())], []).await;
    let error = site.connect_with(&tls, client_config(&ca("other"), None)).await.unwrap_err();
    assert_eq!(error.reason(), Reason::DownstreamTls);
    assert!(error.to_string().contains("does not accept the server's certificate"), "{error}");
}

#[tokio::test]
async fn clients_that_are_asked_are_asked_every_time() {
    let site = Site::new();
    let (simple, mutual) = (settings(ServerTlsMode::Simple), settings(ServerTlsMode::Mutual));
    site.credentials.configure([&simple, &mutual].map(|tls| Arc::new(tls.clone())), []).await;
    assert!(site.credentials.server(&simple).unwrap().session_storage.can_cache());
    let asked = site.credentials.server(&mutual).unwrap();
    assert!(!asked.session_storage.can_cache() && asked.send_tls13_tickets == 0);
}

#[tokio::test]
async fn the_last_good_one_stays_while_it_is_valid() {
    let site = Site::new();
    let tls = settings(ServerTlsMode::Mutual);
    let configure = || site.credentials.configure([Arc::new(tls.clone())], []);
    let state = || site.credentials.states().remove(0);
    configure().await;
    let first = site.credentials.server(&tls).unwrap();
    assert!(state().current && state().problems.is_empty());
    assert_eq!((state().name.as_str(), state().id.unwrap().to_string().as_str()), ("web", GATEWAY));
    // Nothing changed: sessions are kept.
    configure().await;
    assert!(Arc::ptr_eq(&first, &site.credentials.server(&tls).unwrap()));
    // A key that isn't the certificate's, an empty CA file, an expired certificate.
    let (_, key) = issue(&site.root, &good());
    let own = fs::read(site.web("tls.key")).unwrap();
    fs::write(site.web("tls.key"), key).unwrap();
    configure().await;
    assert!(Arc::ptr_eq(&first, &site.credentials.server(&tls).unwrap()));
    assert!(!state().current && state().problems[0].contains("replace both"), "{:?}", state());
    fs::write(site.web("tls.key"), own).unwrap();
    fs::write(site.web("ca.crt"), "").unwrap();
    configure().await;
    assert!(Arc::ptr_eq(&first, &site.credentials.server(&tls).unwrap()));
    let old = issue(&site.root, &expired(params(&["a.example"], &[], 9)));
    write(&site.dir.path().join("web"), &old, Some(&site.root));
    configure().await;
    assert!(Arc::ptr_eq(&first, &site.credentials.server(&tls).unwrap()));
    assert!(state().not_after.unwrap() > SystemTime::now());
    // A new one takes over.
    let new = issue(&site.root, &params(&["a.example"], &[GATEWAY], 10));
    write(&site.dir.path().join("web"), &new, None);
    configure().await;
    assert!(!Arc::ptr_eq(&first, &site.credentials.server(&tls).unwrap()));
    assert!(state().current);
    // A server that is gone is forgotten.
    site.credentials.configure([], []).await;
    assert!(site.credentials.states().is_empty() && site.credentials.server(&tls).is_err());
}

#[tokio::test]
async fn without_a_good_one_there_is_none() {
    let site = Site::new();
    fs::remove_file(site.web("tls.key")).unwrap();
    let tls = settings(ServerTlsMode::Simple);
    site.credentials.configure([Arc::new(tls.clone())], []).await;
    let why = site.credentials.server(&tls).unwrap_err().to_string();
    assert!(
        why.contains("no usable certificate for this server") && why.contains("tls.key"),
        "{why}"
    );
    let gone = ServerTls { credential: CredentialSource::Named("gone".into()), ..tls };
    site.credentials.configure([Arc::new(gone.clone())], []).await;
    assert!(site.credentials.server(&gone).is_err());
}

#[tokio::test]
async fn files_are_followed() {
    let site = Site::new();
    let tls = settings(ServerTlsMode::Mutual);
    site.credentials.configure([Arc::new(tls.clone())], []).await;
    let first = site.credentials.server(&tls).unwrap();
    let dir: &Path = &site.dir.path().join("web");
    let followed = timeout(SOON, async {
        tokio::select! {
            () = site.credentials.watch() => {}
            () = async {
                let new = issue(&site.root, &params(&["a.example"], &[GATEWAY], 10));
                write(dir, &new, None);
                while Arc::ptr_eq(&first, &site.credentials.server(&tls).unwrap()) {
                    sleep(Duration::from_millis(10)).await;
                }
            } => {}
        }
    });
    followed.await.expect("the new certificate is taken");
    site.connect(&tls, site.client(&good())).await.unwrap();
}
