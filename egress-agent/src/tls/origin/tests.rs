use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::policy::{ClientTlsMode, KeyGroup, KeyGroups};

/// Only counts where a rule names no host.
const UNUSED: UpstreamAddr = UpstreamAddr(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9));

const SECRET: &[u8] = b"only for the right one";

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca(name: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

/// A certificate and its key.
struct Leaf {
    cert: rcgen::Certificate,
    key: KeyPair,
}

impl Leaf {
    fn signed(params: &CertificateParams, ca: &Ca) -> Self {
        let key = KeyPair::generate().unwrap();
        Self { cert: params.signed_by(&key, ca).unwrap(), key }
    }

    fn own(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        Self { cert: params.self_signed(&key).unwrap(), key }
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

fn roots(ca: &Ca) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    roots
}

fn simple() -> ClientTls {
    ClientTls {
        mode: ClientTlsMode::Simple,
        sni: None,
        subject_alt_names: Vec::new(),
        ca_certificates: None,
        ca_crl: None,
        key_groups: KeyGroups::default(),
        insecure_skip_verify: false,
    }
}

/// What the server saw of one connection.
#[derive(Debug)]
struct Seen {
    server_name: Option<String>,
    resumed: bool,
    client_certificate: bool,
    data: Vec<u8>,
}

fn server_config(leaf: &Leaf, clients: Option<&Ca>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier: Arc<dyn ClientCertVerifier> = match clients {
        Some(ca) => {
            WebPkiClientVerifier::builder_with_provider(roots(ca).into(), Arc::clone(&provider))
                .build()
                .unwrap()
        }
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![leaf.cert.der().clone()], leaf.key())
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// A TLS server that takes one connection.
async fn serve(config: &Arc<ServerConfig>) -> (TcpStream, JoinHandle<Option<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let acceptor = TlsAcceptor::from(Arc::clone(config));
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.ok()?;
        let mut data = Vec::new();
        stream.read_to_end(&mut data).await.ok();
        let tls = stream.get_ref().1;
        Some(Seen {
            server_name: tls.server_name().map(str::to_owned),
            resumed: tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            client_certificate: tls.peer_certificates().is_some(),
            data,
        })
    });
    (client, task)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

async fn handshake(
    originator: &Originator,
    tls: &ClientTls,
    host: &Host,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, TlsError> {
    originator.prepare(tls, Some(host), Alpn::Auto)?.run(stream, UNUSED, soon()).await
}

/// One origination: what came of it, and what the server saw.
async fn attempt(
    originator: &Originator,
    tls: &ClientTls,
    host: &str,
    config: &Arc<ServerConfig>,
) -> Result<Seen, TlsError> {
    let (stream, server) = serve(config).await;
    let host = Host::parse(host).unwrap();
    match handshake(originator, tls, &host, stream).await {
        Ok(mut stream) => {
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            stream.write_all(SECRET).await.unwrap();
            stream.shutdown().await.unwrap();
            // The end of the server's side: its tickets were read.
            stream.read_to_end(&mut Vec::new()).await.ok();
            Ok(server.await.unwrap().unwrap())
        }
        Err(error) => {
            if let Some(seen) = server.await.unwrap() {
                assert_eq!(seen.data, b"", "sent although {error}");
            }
            Err(error)
        }
    }
}

fn trusting(ca: &Ca) -> Originator {
    Originator::new(TrustRoots::new(roots(ca)))
}

#[tokio::test]
async fn a_good_certificate_is_accepted_and_the_name_is_sent() {
    let ca = ca("root");
    let leaf = Leaf::signed(&params(&["a.example", "*.wild.example"]), &ca);
    let config = Arc::new(server_config(&leaf, None));
    let originator = trusting(&ca);
    let seen = attempt(&originator, &simple(), "a.example", &config).await.unwrap();
    assert_eq!(seen.server_name.as_deref(), Some("a.example"));
    assert_eq!(seen.data, SECRET);
    assert!(!seen.client_certificate);
    // The next handshake is short.
    let again = attempt(&originator, &simple(), "a.example", &config).await.unwrap();
    assert!(again.resumed);
    attempt(&originator, &simple(), "x.wild.example", &config).await.unwrap();
    // The rule's SNI is sent and verified instead of the host.
    let tls = ClientTls { sni: Some(Host::parse("a.example").unwrap()), ..simple() };
    let seen = attempt(&originator, &tls, "other.example", &config).await.unwrap();
    assert_eq!(seen.server_name.as_deref(), Some("a.example"));
}

#[tokio::test]
async fn an_address_is_verified_and_not_sent() {
    let ca = ca("root");
    let leaf = Leaf::signed(&params(&["192.0.2.1"]), &ca);
    let config = Arc::new(server_config(&leaf, None));
    let seen = attempt(&trusting(&ca), &simple(), "192.0.2.1", &config).await.unwrap();
    assert_eq!(seen.server_name, None);
    let error = attempt(&trusting(&ca), &simple(), "192.0.2.2", &config).await.unwrap_err();
    assert!(
        matches!(&error, TlsError::WrongName { expected, .. } if expected == "192.0.2.2"),
        "{error:?}"
    );
}

#[tokio::test]
async fn another_name_is_refused_and_both_are_told() {
    let ca = ca("root");
    let leaf = Leaf::signed(&params(&["other.example", "www.other.example"]), &ca);
    let config = Arc::new(server_config(&leaf, None));
    let error = attempt(&trusting(&ca), &simple(), "a.example", &config).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the certificate was issued for other.example, www.other.example, not for a.example"
    );
    assert_eq!(error.reason(), egress_ebpf::reason::Reason::UpstreamTls);
}

#[tokio::test]
async fn dates_are_checked_and_told() {
    let ca = ca("root");
    let mut old = params(&["a.example"]);
    (old.not_before, old.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 2, 3));
    let config = Arc::new(server_config(&Leaf::signed(&old, &ca), None));
    let error = attempt(&trusting(&ca), &simple(), "a.example", &config).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the certificate of a.example expired on 2021-02-03 00:00:00 UTC"
    );
    let mut early = params(&["a.example"]);
    (early.not_before, early.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1));
    let config = Arc::new(server_config(&Leaf::signed(&early, &ca), None));
    let error = attempt(&trusting(&ca), &simple(), "a.example", &config).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the certificate of a.example is not valid before 2090-01-01 00:00:00 UTC"
    );
}

#[tokio::test]
async fn nobody_vouches() {
    let (trusted, stranger) = (ca("root"), ca("stranger"));
    let leaf = Leaf::signed(&params(&["a.example"]), &stranger);
    let config = Arc::new(server_config(&leaf, None));
    let error = attempt(&trusting(&trusted), &simple(), "a.example", &config).await.unwrap_err();
    assert_eq!(error, TlsError::UnknownIssuer { host: "a.example".into() });
    // Whether or not it is marked as a CA's, as `openssl req -x509` does.
    for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let mut params = params(&["a.example"]);
        params.is_ca = is_ca;
        let config = Arc::new(server_config(&Leaf::own(&params), None));
        let error =
            attempt(&trusting(&trusted), &simple(), "a.example", &config).await.unwrap_err();
        assert_eq!(error, TlsError::SelfSigned { host: "a.example".into() });
        assert!(error.to_string().starts_with("self-signed certificate"));
    }
    // The rule may say that nobody is to ask.
    let tls = ClientTls { insecure_skip_verify: true, ..simple() };
    attempt(&trusting(&trusted), &tls, "a.example", &config).await.unwrap();
}

#[tokio::test]
async fn ca_certificates_replace_the_systems_roots() {
    let dir = TempDir::new().unwrap();
    let (system, ours) = (ca("system"), ca("ours"));
    let path = dir.path().join("ca.pem");
    fs::write(&path, ours.pem()).unwrap();
    let tls = ClientTls { ca_certificates: Some(path), ..simple() };
    let originator = trusting(&system);
    let by_ours = Arc::new(server_config(&Leaf::signed(&params(&["a.example"]), &ours), None));
    let by_system = Arc::new(server_config(&Leaf::signed(&params(&["a.example"]), &system), None));
    attempt(&originator, &tls, "a.example", &by_ours).await.unwrap();
    let error = attempt(&originator, &tls, "a.example", &by_system).await.unwrap_err();
    assert!(matches!(error, TlsError::UnknownIssuer { .. }), "{error:?}");
    attempt(&originator, &simple(), "a.example", &by_system).await.unwrap();
}

#[tokio::test]
async fn subject_alt_names_replace_the_host() {
    let ca = ca("root");
    let mut with_uri = params(&["a.example", "*.wild.example"]);
    let uri = "spiffe://mesh.example/ns/x/sa/y";
    with_uri.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    let config = Arc::new(server_config(&Leaf::signed(&with_uri, &ca), None));
    let with = |names: &[&str]| ClientTls {
        subject_alt_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..simple()
    };
    let originator = trusting(&ca);
    for names in [&["a.example"][..], &[uri], &["x.wild.example"], &["no.example", "a.example"]] {
        attempt(&originator, &with(names), "other.example", &config).await.unwrap();
    }
    for names in [&["b.example"][..], &["spiffe://mesh.example/ns/x/sa/z"], &["wild.example"]] {
        let error = attempt(&originator, &with(names), "a.example", &config).await.unwrap_err();
        let TlsError::WrongName { expected, presented } = &error else { panic!("{error:?}") };
        assert_eq!(expected, names[0]);
        assert_eq!(presented, &format!("a.example, *.wild.example, {uri}"));
    }
}

fn write_pair(dir: &Path, leaf: &Leaf) -> ClientTlsMode {
    let (client_certificate, private_key) = (dir.join("tls.crt"), dir.join("tls.key"));
    fs::write(&client_certificate, leaf.cert.pem()).unwrap();
    fs::write(&private_key, leaf.key.serialize_pem()).unwrap();
    ClientTlsMode::Mutual { client_certificate, private_key }
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_read_again_when_it_changes() {
    let dir = TempDir::new().unwrap();
    let (ca, stranger) = (ca("root"), ca("stranger"));
    let leaf = Leaf::signed(&params(&["a.example"]), &ca);
    let config = Arc::new(server_config(&leaf, Some(&ca)));
    let good = Leaf::signed(&params(&["client.example"]), &ca);
    let tls = ClientTls { mode: write_pair(dir.path(), &good), ..simple() };
    let originator = trusting(&ca);
    let seen = attempt(&originator, &tls, "a.example", &config).await.unwrap();
    assert!(seen.client_certificate);
    // Another key under the same name: noticed by the files' time.
    let before = originator.config(&tls, Alpn::Auto).unwrap();
    write_pair(dir.path(), &Leaf::signed(&params(&["longer.client.example"]), &stranger));
    originator.cache.borrow_mut().get_mut(&tls).unwrap().get_mut(&Alpn::Auto).unwrap().checked -=
        RECHECK;
    assert!(!Arc::ptr_eq(&before, &originator.config(&tls, Alpn::Auto).unwrap()));
    // TLS 1.3 lets the client finish first: the refusal comes with the first read.
    let (stream, server) = serve(&config).await;
    let host = Host::parse("a.example").unwrap();
    if let Ok(mut stream) = handshake(&originator, &tls, &host, stream).await {
        let error = stream.read(&mut [0; 8]).await.unwrap_err();
        let error = TlsError::from_io(&error, &host);
        assert!(error.to_string().contains("client certificate"), "{error}");
    }
    assert!(server.await.unwrap().is_none());
    // And without any.
    let (stream, server) = serve(&config).await;
    if let Ok(mut stream) = handshake(&originator, &simple(), &host, stream).await {
        let error = stream.read(&mut [0; 8]).await.unwrap_err();
        let error = TlsError::from_io(&error, &host);
        assert!(error.to_string().contains("it wants a client certificate"), "{error}");
    }
    assert!(server.await.unwrap().is_none());
}

#[tokio::test]
async fn a_credential_is_found_by_its_name() {
    let dir = TempDir::new().unwrap();
    let ca = ca("root");
    let leaf = Leaf::signed(&params(&["a.example"]), &ca);
    let client = Leaf::signed(&params(&["client.example"]), &ca);
    let secret = dir.path().join("client-credential");
    fs::create_dir(&secret).unwrap();
    write_pair(&secret, &client);
    fs::write(secret.join("ca.crt"), ca.pem()).unwrap();
    // The system trusts nobody: the roots are the credential's.
    let nobody = || Originator::new(TrustRoots::new(RootCertStore::empty()));
    let originator = nobody().with_credentials(Some(dir.path().into()));
    let name = || "client-credential".into();
    let mutual = ClientTls { mode: ClientTlsMode::MutualNamed(name()), ..simple() };
    let wants = Arc::new(server_config(&leaf, Some(&ca)));
    assert!(attempt(&originator, &mutual, "a.example", &wants).await.unwrap().client_certificate);
    let one_way = ClientTls { mode: ClientTlsMode::SimpleNamed(name()), ..simple() };
    let config = Arc::new(server_config(&leaf, None));
    let seen = attempt(&originator, &one_way, "a.example", &config).await.unwrap();
    assert!(!seen.client_certificate);
    // What isn't there is named.
    let gone = ClientTls { mode: ClientTlsMode::MutualNamed("gone".into()), ..simple() };
    let error = attempt(&originator, &gone, "a.example", &config).await.unwrap_err().to_string();
    assert!(error.contains("gone") && error.contains("does not exist"), "{error}");
    let error = attempt(&nobody(), &mutual, "a.example", &config).await.unwrap_err().to_string();
    assert!(error.contains("--credentials-dir"), "{error}");
}

#[tokio::test]
async fn revoked_certificates_are_refused() {
    use crate::tls::testing::{ca, crl};

    let dir = TempDir::new().unwrap();
    let ca = ca("root");
    let list = dir.path().join("ca.crl");
    let mut with_serial = params(&["a.example"]);
    with_serial.serial_number = Some(rcgen::SerialNumber::from(7));
    let leaf = Leaf::signed(&with_serial, &ca);
    let config = Arc::new(server_config(&leaf, None));
    let tls = ClientTls { ca_crl: Some(list.clone()), ..simple() };
    for (serials, current, says) in
        [(&[8][..], true, None), (&[7, 8], true, Some("revoked")), (&[8], false, Some(""))]
    {
        fs::write(&list, crl(&ca, serials, current)).unwrap();
        let answer = attempt(&trusting(&ca), &tls, "a.example", &config).await;
        match (answer, says) {
            (Ok(_), None) => {}
            (Err(error), Some(says)) => assert!(error.to_string().contains(says), "{error}"),
            (answer, says) => panic!("{serials:?} {current}: {answer:?}, expected {says:?}"),
        }
    }
    // A list of another authority covers nobody here.
    fs::write(&list, crl(&crate::tls::testing::ca("other"), &[], true)).unwrap();
    attempt(&trusting(&ca), &tls, "a.example", &config).await.unwrap_err();
    // Names are compared all the same.
    fs::write(&list, crl(&ca, &[], true)).unwrap();
    let error = attempt(&trusting(&ca), &tls, "b.example", &config).await.unwrap_err();
    assert!(error.to_string().contains("a.example"), "{error}");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let dir = TempDir::new().unwrap();
    let ca = ca("root");
    let config = Arc::new(server_config(&Leaf::signed(&params(&["a.example"]), &ca), None));
    let originator = trusting(&ca);
    let (gone, empty, broken) =
        (dir.path().join("gone"), dir.path().join("empty"), dir.path().join("broken"));
    fs::write(&empty, "nothing here\n").unwrap();
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    for (path, what) in
        [(gone, "does not exist"), (empty, "BEGIN CERTIFICATE"), (broken, "broken PEM")]
    {
        let tls = ClientTls { ca_certificates: Some(path.clone()), ..simple() };
        let error = attempt(&originator, &tls, "a.example", &config).await.unwrap_err().to_string();
        assert!(error.contains(what) && error.contains(path.to_str().unwrap()), "{error}");
    }
    let (one, other) = (Leaf::own(&params(&["c.example"])), Leaf::own(&params(&["c.example"])));
    let mode = write_pair(dir.path(), &one);
    fs::write(dir.path().join("tls.key"), other.key.serialize_pem()).unwrap();
    let tls = ClientTls { mode, ..simple() };
    let error = attempt(&originator, &tls, "a.example", &config).await.unwrap_err().to_string();
    assert!(error.contains("does not go with the certificate"), "{error}");
}

/// A server that answers the ClientHello with these bytes, and says what it read after them.
async fn answering(bytes: &'static [u8]) -> (TcpStream, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = vec![0; 4096];
        let len = stream.read(&mut seen).await.unwrap();
        seen.truncate(len);
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut seen).await.ok();
        seen
    });
    (client, task)
}

#[tokio::test]
async fn upstreams_that_answer_something_else() {
    let originator = trusting(&ca("root"));
    let host = Host::parse("a.example").unwrap();
    for (bytes, sentence) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "a.example does not speak TLS on this port"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "a.example does not speak TLS on this port"),
        (
            b"",
            "the connection to a.example broke during the TLS handshake: it was closed without a word",
        ),
        (
            &[21, 3, 3, 0, 2, 2, 112],
            "a.example refused the TLS handshake: UnrecognisedName, it does not serve this name",
        ),
    ] {
        let (stream, server) = answering(bytes).await;
        let result = handshake(&originator, &simple(), &host, stream).await;
        assert_eq!(result.err().map(|error| error.to_string()).as_deref(), Some(sentence));
        let sent = server.await.unwrap();
        assert_eq!(sent[0], 22, "the first bytes are a handshake record");
    }
}

#[tokio::test]
async fn a_silent_upstream_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let host = Host::parse("a.example").unwrap();
    let deadline = Instant::now() + Duration::from_millis(30);
    let prepared = trusting(&ca("root")).prepare(&simple(), Some(&host), Alpn::Auto).unwrap();
    let result = prepared.run(stream, UNUSED, deadline).await;
    assert_eq!(result.err(), Some(TlsError::Timeout { host: "a.example".into() }));
}

/// Which group a handshake with a server of these groups settles on, and whether it took a second round.
async fn settle(tls: &ClientTls, groups: &[KeyGroup]) -> Result<(KeyGroup, bool), TlsError> {
    let ca = ca("root");
    let leaf = Leaf::signed(&params(&["a.example"]), &ca);
    let mut config = server_config(&leaf, None);
    let groups = KeyGroups(groups.into());
    let provider = super::super::config::provider_with(&groups);
    config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&config.cert_resolver));
    let (client, server) = serve(&Arc::new(config)).await;
    let originator = Originator::new(TrustRoots::new(roots(&ca)));
    let host = Host::parse("a.example").unwrap();
    let stream =
        originator.prepare(tls, Some(&host), Alpn::Http1)?.run(client, UNUSED, soon()).await;
    let outcome = stream.map(|stream| {
        let tls = stream.get_ref().1;
        let again = tls.handshake_kind() == Some(rustls::HandshakeKind::FullWithHelloRetryRequest);
        (negotiated_group(tls).unwrap(), again)
    });
    server.abort();
    outcome
}

#[tokio::test]
async fn the_hybrid_group_is_preferred_and_can_be_switched_off() {
    let all = KeyGroup::ALL;
    let hybrid = KeyGroup::X25519MlKem768;
    assert_eq!(settle(&simple(), all).await.unwrap(), (hybrid, false));
    assert_eq!(settle(&simple(), &[hybrid]).await.unwrap(), (hybrid, false));
    // A server that knows nothing of it loses no time, and one that has others is asked again.
    assert_eq!(settle(&simple(), &all[1..]).await.unwrap(), (KeyGroup::X25519, false));
    assert_eq!(settle(&simple(), &[KeyGroup::P256]).await.unwrap(), (KeyGroup::P256, true));
    let off = ClientTls { key_groups: KeyGroups(all[1..].into()), ..simple() };
    assert_eq!(settle(&off, all).await.unwrap().0, KeyGroup::X25519);
    let refused = settle(&off, &[hybrid]).await.unwrap_err().to_string();
    assert!(refused.contains("no cipher suite, group or signature in common"), "{refused}");
    assert!(refused.contains("none with CBC, DHE or RSA"), "{refused}");
}

/// Writes `pinned` as the rule's `caCertificates`, and connects to a server that shows `shown`.
async fn attempt_pinned(pinned: &Leaf, shown: &Leaf, host: &str) -> Result<(), TlsError> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("ca.pem");
    fs::write(&path, pinned.cert.pem()).unwrap();
    let tls = ClientTls { ca_certificates: Some(path), ..simple() };
    let config = Arc::new(server_config(shown, None));
    attempt(&trusting(&ca("system")), &tls, host, &config).await.map(drop)
}

#[tokio::test]
async fn a_certificate_that_the_rule_lists_itself_is_accepted_whatever_it_is_marked_as() {
    for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let own = |change: &dyn Fn(&mut CertificateParams)| {
            let mut params = params(&["a.example"]);
            params.is_ca = is_ca;
            change(&mut params);
            Leaf::own(&params)
        };
        let good = own(&|_| {});
        attempt_pinned(&good, &good, "a.example").await.unwrap();
        // Its name, its time and its purpose count all the same.
        let error = attempt_pinned(&good, &good, "b.example").await.unwrap_err();
        assert!(matches!(error, TlsError::WrongName { .. }), "{error:?}");
        let old = own(&|params| params.not_after = date_time_ymd(2020, 1, 1));
        let error = attempt_pinned(&old, &old, "a.example").await.unwrap_err();
        assert!(matches!(error, TlsError::Expired { .. }), "{error:?}");
        let early = own(&|params| params.not_before = date_time_ymd(2090, 1, 1));
        let error = attempt_pinned(&early, &early, "a.example").await.unwrap_err();
        assert!(matches!(error, TlsError::NotYetValid { .. }), "{error:?}");
        let client = own(&|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        let error = attempt_pinned(&client, &client, "a.example").await.unwrap_err();
        assert!(matches!(error, TlsError::Certificate { .. }), "{error:?}");
        // Another one of the same name, from another key, belongs to no list.
        let other = own(&|_| {});
        let error = attempt_pinned(&good, &other, "a.example").await.unwrap_err();
        let refused = matches!(error, TlsError::SelfSigned { .. } | TlsError::Certificate { .. });
        assert!(refused, "{error:?}");
    }
}

/// A server whose certificate an intermediate signed, which `change` makes; the root is trusted.
async fn attempt_through(
    root: impl Fn(&mut CertificateParams),
    intermediate: impl Fn(&mut CertificateParams),
    leaf: impl Fn(&mut CertificateParams),
) -> Result<(), TlsError> {
    let mut root_params = CertificateParams::default();
    root_params.distinguished_name.push(DnType::CommonName, "root");
    root_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root(&mut root_params);
    let root = CertifiedIssuer::self_signed(root_params, KeyPair::generate().unwrap()).unwrap();
    let mut between = CertificateParams::default();
    between.distinguished_name.push(DnType::CommonName, "intermediate");
    between.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    intermediate(&mut between);
    let between = CertifiedIssuer::signed_by(between, KeyPair::generate().unwrap(), &root).unwrap();
    let mut leaf_params = params(&["a.example"]);
    leaf(&mut leaf_params);
    let leaf = Leaf::signed(&leaf_params, &between);
    let provider = super::super::config::provider();
    let key = provider.key_provider.load_private_key(leaf.key()).unwrap();
    // Without a look at the certificate, which the library's own way takes.
    let chain = vec![leaf.cert.der().clone(), between.der().clone()];
    let shown = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    attempt(&trusting(&root), &simple(), "a.example", &Arc::new(config)).await.map(drop)
}

/// What x509-limbo asks for, and where a decision was left to us, what docs/certificates.md says.
#[tokio::test]
async fn chains_are_judged_as_documented() {
    let unknown = || {
        let mut extension =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0]);
        extension.set_criticality(true);
        extension
    };
    let asis = |_: &mut CertificateParams| {};
    attempt_through(asis, asis, asis).await.unwrap();
    // Critical and unknown, in the server's certificate and in an intermediate one.
    let critical = |params: &mut CertificateParams| params.custom_extensions.push(unknown());
    attempt_through(asis, asis, critical).await.unwrap_err();
    attempt_through(asis, critical, asis).await.unwrap_err();
    // An intermediate certificate that is no CA's, or whose key must not sign certificates.
    attempt_through(asis, |params| params.is_ca = IsCa::ExplicitNoCa, asis).await.unwrap_err();
    let usage = |purposes: &[KeyUsagePurpose]| {
        let purposes = purposes.to_vec();
        move |params: &mut CertificateParams| params.key_usages = purposes.clone()
    };
    attempt_through(asis, usage(&[KeyUsagePurpose::CrlSign]), asis).await.unwrap_err();
    attempt_through(asis, usage(&[KeyUsagePurpose::KeyCertSign]), asis).await.unwrap();
    // Of a root the name and the key count alone (RFC 5280 §6.1.1): not its time, nor its usage.
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    attempt_through(expired, asis, asis).await.unwrap();
    attempt_through(usage(&[KeyUsagePurpose::CrlSign]), asis, asis).await.unwrap();
    attempt_through(asis, expired, asis).await.unwrap_err();
}
