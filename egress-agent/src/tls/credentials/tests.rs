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
    net::PrefixedIo,
    policy::{CredentialSource, InnerProtocol, ServerTlsMode, TlsVersion},
    tls::{
        AcceptError, Refused, accept,
        config::provider,
        pem,
        testing::{Ca, ca, crl, early, expired, issue, issue_rsa, params, write},
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
        let places = CredentialLocations {
            credentials: Some(dir.path().into()),
            identity: Some(web),
            ..CredentialLocations::default()
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
        let accepted = accept(config, PrefixedIo::new(Bytes::new(), stream), deadline).await;
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
        other_certificates: Vec::new(),
        inside: InnerProtocol::Http,
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

/// A client that speaks TLS 1.2 with these suites alone.
fn with_suites(root: &Ca, kind: &str) -> ClientConfig {
    let mut provider = rustls::crypto::CryptoProvider::clone(&provider());
    let is_wanted = |suite: rustls::CipherSuite| suite.as_str().unwrap_or("").contains(kind);
    provider.cipher_suites.retain(|suite| is_wanted(suite.suite()));
    client_of(root, provider, &[&TLS12])
}

/// A client that can verify signatures with RSA keys alone.
fn with_rsa_signatures(root: &Ca) -> ClientConfig {
    let mut provider = rustls::crypto::CryptoProvider::clone(&provider());
    let mut algorithms = provider.signature_verification_algorithms;
    let rsa = algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| scheme.as_str().unwrap_or("").starts_with("RSA_PSS"));
    algorithms.mapping = Vec::leak(rsa.copied().collect());
    provider.signature_verification_algorithms = algorithms;
    client_of(root, provider, rustls::DEFAULT_VERSIONS)
}

fn client_of(
    root: &Ca,
    provider: rustls::crypto::CryptoProvider,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

impl Site {
    /// The serial number of the certificate that a client is shown, or why the server shows none.
    fn shown(
        &self,
        settings: &ServerTls,
        client: ClientConfig,
        name: &str,
    ) -> Result<String, rustls::Error> {
        let config = self.credentials.server(settings).unwrap();
        let mut server = rustls::ServerConnection::new(config).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
        let mut bytes = Vec::new();
        while client.is_handshaking() {
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            for mut rest in [std::mem::take(&mut bytes).as_slice()] {
                while !rest.is_empty() {
                    server.read_tls(&mut rest).unwrap();
                    server.process_new_packets()?;
                }
            }
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            for mut rest in [std::mem::take(&mut bytes).as_slice()] {
                while !rest.is_empty() {
                    client.read_tls(&mut rest).unwrap();
                    client.process_new_packets().unwrap();
                }
            }
        }
        let leaf = &client.peer_certificates().unwrap()[0];
        Ok(crate::tls::CertificateInfo::parse(leaf).unwrap().serial)
    }

    /// Another credential beside `web`.
    fn give(&self, name: &str, pair: &(String, String)) {
        write(&self.dir.path().join(name), pair, None);
    }
}

/// The certificates of these names.
fn several(mode: ServerTlsMode, names: &[&str]) -> ServerTls {
    let named = |name: &&str| CredentialSource::Named((*name).into());
    let mut sources: Vec<_> = names.iter().map(named).collect();
    let credential = sources.remove(0);
    ServerTls { credential, other_certificates: sources, ..settings(mode) }
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_that_fits_it() {
    let site = Site::new();
    site.give("rsa", &issue_rsa(&site.root, &params(&["a.example"], &[], 0x22)));
    let (ecdsa, rsa) = (Ok("01".to_owned()), Ok("22".to_owned()));
    for names in [["web", "rsa"], ["rsa", "web"]] {
        let tls = several(ServerTlsMode::Simple, &names);
        let old = ServerTls { max_version: TlsVersion::V1_2, ..tls.clone() };
        // The server itself speaks no suite for the key that would be preferred.
        let of_rsa =
            ServerTls { cipher_suites: vec![crate::policy::CipherSuite::RsaAes256], ..old.clone() };
        let all = [&tls, &old, &of_rsa];
        site.credentials.configure(all.map(|tls| Arc::new(tls.clone())), []).await;
        let whole = || client_config(&site.root, None);
        let shown = |tls: &ServerTls, client| site.shown(tls, client, "a.example");
        // Of two that fit, the one with the ECDSA key, wherever it is written.
        assert_eq!(shown(&tls, whole()), ecdsa, "{names:?}");
        assert_eq!(shown(&old, whole()), ecdsa, "{names:?}");
        assert_eq!(shown(&tls, with_suites(&site.root, "ECDHE_ECDSA")), ecdsa, "{names:?}");
        assert_eq!(shown(&tls, with_suites(&site.root, "ECDHE_RSA")), rsa, "{names:?}");
        assert_eq!(shown(&tls, with_rsa_signatures(&site.root)), rsa, "{names:?}");
        assert_eq!(shown(&of_rsa, whole()), rsa, "{names:?}");
    }
    // With one alone, those that it does not fit are refused.
    for (name, kind) in [("web", "ECDHE_RSA"), ("rsa", "ECDHE_ECDSA")] {
        let tls = several(ServerTlsMode::Simple, &[name]);
        site.credentials.configure([Arc::new(tls.clone())], []).await;
        let refused = site.shown(&tls, with_suites(&site.root, kind), "a.example");
        assert!(refused.is_err(), "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_for_the_name_that_it_asks_for() {
    let site = Site::new();
    site.give("b", &issue_rsa(&site.root, &params(&["b.example", "*.b.example"], &[], 0x22)));
    let tls = several(ServerTlsMode::Simple, &["web", "b"]);
    site.credentials.configure([Arc::new(tls.clone())], []).await;
    for (name, serial) in [("a.example", "01"), ("b.example", "22"), ("x.b.example", "22")] {
        let shown = site.shown(&tls, client_config(&site.root, None), name);
        assert_eq!(shown.as_deref(), Ok(serial), "{name}");
    }
    // The name counts before the kind of key, but not before whether the client can verify it.
    let refused = site.connect_with(&tls, with_suites(&site.root, "ECDHE_RSA")).await;
    assert_eq!(refused.unwrap_err().reason(), Reason::DownstreamTls);
}

#[tokio::test]
async fn of_two_certificates_the_good_one_is_served() {
    let site = Site::new();
    let rsa = issue_rsa(&site.root, &params(&["a.example"], &[], 0x22));
    site.give("rsa", &rsa);
    let own = fs::read(site.web("tls.key")).unwrap();
    let simple = several(ServerTlsMode::Simple, &["web", "rsa"]);
    let mutual = several(ServerTlsMode::Mutual, &["web", "rsa"]);
    let configure =
        || site.credentials.configure([&simple, &mutual].map(|tls| Arc::new(tls.clone())), []);
    let shown = |kind| site.shown(&simple, with_suites(&site.root, kind), "a.example");
    let current = || {
        let states = site.credentials.states();
        states.into_iter().map(|state| (state.name, state.current)).collect::<Vec<_>>()
    };
    let states = |rsa, web| [("rsa".to_owned(), rsa), ("web".to_owned(), web)];
    // The first one is not good: what only it fits is refused. Who would be let in is not known either.
    fs::remove_file(site.web("tls.key")).unwrap();
    configure().await;
    assert_eq!(current(), states(true, false));
    assert_eq!(shown("ECDHE_RSA").as_deref(), Ok("22"));
    assert!(shown("ECDHE_ECDSA").is_err());
    let why = site.credentials.server(&mutual).unwrap_err().to_string();
    assert!(why.contains("tls.key"), "{why}");
    // It is good again: in use without a restart.
    fs::write(site.web("tls.key"), own).unwrap();
    configure().await;
    assert_eq!(current(), states(true, true));
    assert_eq!(shown("ECDHE_ECDSA").as_deref(), Ok("01"));
    let first = site.credentials.server(&simple).unwrap();
    configure().await;
    assert!(Arc::ptr_eq(&first, &site.credentials.server(&simple).unwrap()));
    // The other one is renewed, and then no longer good: its last good one stays.
    site.give("rsa", &issue_rsa(&site.root, &params(&["a.example"], &[], 0x33)));
    configure().await;
    assert_eq!(shown("ECDHE_RSA").as_deref(), Ok("33"));
    site.give("rsa", &(rsa.0.clone(), "broken".into()));
    configure().await;
    assert_eq!(current(), states(false, true));
    assert_eq!(shown("ECDHE_RSA").as_deref(), Ok("33"));
    let known = site.connect(&mutual, site.client(&good())).await.unwrap();
    assert_eq!(known.principal_name(), Some(CLIENT));
    // Neither: nothing is served.
    let none = several(ServerTlsMode::Simple, &["gone", "lost"]);
    site.credentials.configure([Arc::new(none.clone())], []).await;
    let why = site.credentials.server(&none).unwrap_err().to_string();
    assert!(why.contains("gone") && why.contains("lost"), "{why}");
}

#[tokio::test]
async fn a_certificate_that_expires_gives_way_to_the_other_one() {
    let site = Site::new();
    // An RSA key takes its time.
    site.give("rsa", &issue_rsa(&site.root, &params(&["a.example"], &[], 0x22)));
    let end = SystemTime::now() + Duration::from_secs(6);
    let brief = crate::tls::testing::until(params(&["a.example"], &[GATEWAY], 0x11), end);
    write(&site.dir.path().join("web"), &issue(&site.root, &brief), Some(&site.root));
    let tls = several(ServerTlsMode::Mutual, &["web", "rsa"]);
    site.credentials.configure([Arc::new(tls.clone())], []).await;
    let shown = || {
        let client = client_config(&site.root, site.client(&good()));
        site.shown(&tls, client, "a.example").unwrap()
    };
    assert_eq!(shown(), "11");
    while SystemTime::now() < end {
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(shown(), "22");
    // Clients are still held to the roots.
    let stranger = Some(issue(&ca("stranger"), &good()));
    let error = site.connect(&tls, stranger).await.unwrap_err();
    assert_eq!(error.reason(), Reason::UntrustedClient, "{error}");
}
