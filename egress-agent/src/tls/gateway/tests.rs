//! Real handshakes between a node and a gateway: what is accepted, its refused twins, and what ends
//! a connection that is open.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use egress_ebpf::reason::Reason;
use rcgen::CertificateParams;
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::{
    net::PrefixedIo,
    policy::{
        CredentialFiles, CredentialSource, InnerProtocol, ServerTls, ServerTlsMode, TlsVersion,
    },
    tls::{
        AcceptError, CredentialLocations, Credentials, PeerEnded, Terminated, TlsError, accept,
        testing::{Ca, ca, ca_until, crl, early, expired, issue, params, until, write},
    },
    types::{DownstreamTls, Host, Namespace, SpiffeId, TrustDomain},
};

const GATEWAY: &str = "spiffe://cluster.local/ns/istio-system/sa/gateway";
const NODE: &str = "spiffe://cluster.local/ns/egress/sa/node";
const SOON: Duration = Duration::from_secs(30);

/// A node and a gateway, each with a directory for its identity, and their authority.
struct Site {
    dir: TempDir,
    root: Ca,
    node: Arc<Credentials>,
    gateway: Arc<Credentials>,
    server: Arc<ServerTls>,
    tunnel: Arc<TunnelTls>,
}

/// Both ends of a connection.
struct Open {
    node: TlsStream<TcpStream>,
    gateway: Terminated,
    known: DownstreamTls,
}

impl Site {
    async fn new() -> Self {
        let (dir, root) = (TempDir::new().unwrap(), ca("root"));
        let places = |name: &str| CredentialLocations {
            identity: Some(dir.path().join(name)),
            ..CredentialLocations::default()
        };
        let (node, gateway) = (
            Arc::new(Credentials::new(places("node"))),
            Arc::new(Credentials::new(places("gateway"))),
        );
        let site = Self {
            node,
            gateway,
            server: Arc::new(server()),
            tunnel: Arc::new(tunnel()),
            dir,
            root,
        };
        site.give("node", &params(&[], &[NODE], 2));
        site.give("gateway", &params(&[], &[GATEWAY], 1));
        site.configure().await;
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Gives one of them a certificate of the authority.
    fn give(&self, name: &str, params: &CertificateParams) {
        write(&self.at(name), &issue(&self.root, params), Some(&self.root));
    }

    /// Reads the files again.
    async fn configure(&self) {
        self.node.configure([], [Arc::clone(&self.tunnel)]).await;
        self.gateway.configure([Arc::clone(&self.server)], []).await;
    }

    /// Both ends' outcome of a handshake.
    async fn try_open(
        &self,
    ) -> (Result<TlsStream<TcpStream>, TlsError>, Result<(Terminated, DownstreamTls), AcceptError>)
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let deadline = Instant::now() + SOON;
        let connecting = async {
            let stream = TcpStream::connect(addr).await.unwrap();
            let config = self.node.client(&self.tunnel).unwrap();
            let failed = |error| TlsError::from_io(&error, &Host::Ip(addr.ip()));
            let connecting = TlsConnector::from(config).connect(addr.ip().into(), stream);
            let mut stream = connecting.await.map_err(failed)?;
            // With TLS 1.3 the client is done before its certificate is judged.
            let told = stream.read_exact(&mut [0]).await;
            told.map(|_| stream).map_err(failed)
        };
        let accepting = async {
            let (stream, _) = listener.accept().await.unwrap();
            let config = self.gateway.server(&self.server).unwrap();
            let (mut stream, known) =
                accept(config, PrefixedIo::new(Bytes::new(), stream), deadline)
                    .await
                    .map_err(|refused| refused.error)?;
            // It may have gone already.
            stream.write_all(b"y").await.ok();
            stream.flush().await.ok();
            Ok((stream.held_to(&self.gateway, &self.server), known))
        };
        tokio::join!(connecting, accepting)
    }

    async fn open(&self) -> Open {
        let (node, gateway) = self.try_open().await;
        let (node, (gateway, known)) = (node.unwrap(), gateway.unwrap());
        Open { node, gateway, known }
    }

    /// Why the node does not accept the gateway.
    async fn disbelief(&self) -> TlsError {
        let (node, gateway) = self.try_open().await;
        let error = node.map(drop).unwrap_err();
        assert_eq!(error.reason(), Reason::UpstreamTls);
        let told = gateway.map(drop).unwrap_err();
        assert_eq!(told.reason(), Reason::DownstreamTls, "{told}");
        error
    }
}

impl Open {
    /// What the gateway showed.
    fn gateway_chain(&self) -> Vec<CertificateDer<'static>> {
        self.node.get_ref().1.peer_certificates().unwrap().to_vec()
    }

    /// What the node showed.
    fn node_chain(&self) -> Vec<CertificateDer<'static>> {
        self.gateway.tls().peer_certificates().unwrap().to_vec()
    }
}

fn server() -> ServerTls {
    ServerTls {
        mode: ServerTlsMode::IstioMutual(TrustDomain::default()),
        credential: CredentialSource::Own,
        other_certificates: Vec::new(),
        inside: InnerProtocol::Http,
        min_version: TlsVersion::V1_3,
        max_version: TlsVersion::V1_3,
        key_groups: KeyGroups::default(),
        cipher_suites: Vec::new(),
        subject_alt_names: Vec::new(),
        spki_pins: Vec::new(),
        hashes: Vec::new(),
    }
}

fn tunnel() -> TunnelTls {
    TunnelTls {
        credential: CredentialSource::Own,
        subject_alt_names: Vec::new(),
        key_groups: KeyGroups::default(),
        trust_domain: TrustDomain::default(),
        namespace: Namespace("istio-system".into()),
        principal: None,
    }
}

fn loopback() -> Host {
    Host::Ip([127, 0, 0, 1].into())
}

#[tokio::test]
async fn a_node_and_a_gateway_know_each_other() {
    let mut site = Site::new().await;
    let open = site.open().await;
    assert_eq!(open.known.version, "TLSv1.3");
    assert_eq!(open.known.principal_name(), Some(NODE));
    let client = open.node.get_ref().1;
    assert_eq!(client.alpn_protocol(), Some(H2));
    // Nothing is resumed: every connection is verified whole.
    let again = site.open().await;
    assert_eq!(again.node.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    // The principal and names may be asked for.
    let id = SpiffeId::parse(GATEWAY).unwrap();
    site.tunnel = Arc::new(TunnelTls {
        principal: Some(id),
        subject_alt_names: vec!["other.example".into(), GATEWAY.into()],
        ..tunnel()
    });
    site.configure().await;
    site.open().await;
    // Files that a rule names do as well.
    let file = |name: &str| site.at("node").join(name);
    let files = CredentialFiles {
        certificate: file("tls.crt"),
        private_key: file("tls.key"),
        ca_certificates: Some(file("ca.crt")),
        ca_crl: None,
    };
    site.tunnel = Arc::new(TunnelTls { credential: CredentialSource::Files(files), ..tunnel() });
    site.configure().await;
    site.open().await;
}

#[tokio::test]
async fn no_other_gateway_is_accepted() {
    let mut site = Site::new().await;
    let good = || params(&[], &[GATEWAY], 1);
    for (gateway, wanted) in [
        (
            params(&[], &["spiffe://other.example/ns/istio-system/sa/gateway"], 3),
            "not for spiffe://cluster.local/ns/istio-system/sa/<any>",
        ),
        (
            params(&[], &["spiffe://cluster.local/ns/apps/sa/gateway"], 3),
            "issued for spiffe://cluster.local/ns/apps/sa/gateway",
        ),
    ] {
        // The gateway itself would not start to use such a certificate.
        site.server = Arc::new(ServerTls {
            mode: ServerTlsMode::Mutual,
            credential: files(&site, "gateway"),
            ..server()
        });
        site.give("gateway", &gateway);
        site.configure().await;
        let error = site.disbelief().await.to_string();
        assert!(error.contains(wanted), "{error}");
    }
    for (gateway, wanted) in [
        (params(&["127.0.0.1", "localhost"], &[], 3), "found no URI name"),
        (params(&[], &[GATEWAY, NODE], 3), "found 2 URI names"),
        (params(&[], &["https://cluster.local/"], 3), "begin with spiffe://"),
    ] {
        site.give("gateway", &gateway);
        site.configure().await;
        let error = site.disbelief().await.to_string();
        assert!(error.contains(wanted), "{error}");
    }
    site.give("gateway", &good());
    for (settings, wanted) in [
        (TunnelTls { principal: Some(SpiffeId::parse(NODE).unwrap()), ..tunnel() }, NODE),
        (
            TunnelTls { subject_alt_names: vec!["other.example".into()], ..tunnel() },
            "other.example",
        ),
    ] {
        site.tunnel = Arc::new(settings);
        site.configure().await;
        let error = site.disbelief().await.to_string();
        assert!(error.contains(wanted), "{error}");
    }
    site.tunnel = Arc::new(tunnel());
    site.configure().await;
    site.open().await;
    // Another authority's.
    let other = ca("other");
    write(&site.at("gateway"), &issue(&other, &good()), None);
    site.configure().await;
    assert!(matches!(site.disbelief().await, TlsError::UnknownIssuer { .. }));
}

/// The files of an identity, by their names.
fn files(site: &Site, name: &str) -> CredentialSource {
    let file = |file: &str| site.at(name).join(file);
    CredentialSource::Files(CredentialFiles {
        certificate: file("tls.crt"),
        private_key: file("tls.key"),
        ca_certificates: Some(file("ca.crt")),
        ca_crl: None,
    })
}

#[tokio::test]
async fn revoked_gateways_and_unknown_revocation_are_refused() {
    let site = Site::new().await;
    let list = site.at("node").join("ca.crl");
    fs::write(&list, crl(&site.root, &[7], true)).unwrap();
    site.configure().await;
    site.open().await;
    for (text, wanted) in [
        (crl(&site.root, &[1], true), "a revocation list names it"),
        (crl(&site.root, &[], false), "out of date"),
        (crl(&ca("other"), &[], true), "no revocation list covers its issuer"),
    ] {
        fs::write(&list, text).unwrap();
        site.configure().await;
        let error = site.disbelief().await;
        assert!(matches!(error, TlsError::Revoked { .. }), "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn a_gateway_with_tls_1_2_is_left() {
    let mut site = Site::new().await;
    let (min_version, max_version) = (TlsVersion::V1_2, TlsVersion::V1_2);
    site.server = Arc::new(ServerTls { min_version, max_version, ..server() });
    site.configure().await;
    let (node, gateway) = site.try_open().await;
    assert!(matches!(node.unwrap_err(), TlsError::Alert { .. } | TlsError::Protocol { .. }));
    assert_eq!(gateway.map(drop).unwrap_err().reason(), Reason::DownstreamTls);
}

#[tokio::test]
async fn without_a_good_identity_there_is_no_tunnel() {
    let site = Site::new().await;
    for (node, wanted) in [
        (expired(params(&[], &[NODE], 2)), "expired on"),
        (early(params(&[], &[NODE], 2)), "not valid before"),
        (params(&["node.example"], &[], 2), "found no URI name"),
        (params(&[], &["spiffe://other.example/ns/a/sa/b"], 2), "expected cluster.local"),
    ] {
        site.give("node", &node);
        let places = CredentialLocations {
            identity: Some(site.at("node")),
            ..CredentialLocations::default()
        };
        let fresh = Credentials::new(places);
        assert!(fresh.client(&site.tunnel).unwrap_err().to_string().contains("not read yet"));
        fresh.configure([], [Arc::clone(&site.tunnel)]).await;
        let error = fresh.client(&site.tunnel).unwrap_err().to_string();
        assert!(
            error.contains("the node has no usable certificate") && error.contains(wanted),
            "{error}"
        );
        // One that was good before stays.
        site.node.configure([], [Arc::clone(&site.tunnel)]).await;
        site.node.client(&site.tunnel).unwrap();
        assert!(!site.node.states()[0].current);
    }
    // Without roots, no gateway is accepted: the system's are never asked.
    site.give("node", &params(&[], &[NODE], 2));
    fs::remove_file(site.at("node").join("ca.crt")).unwrap();
    let fresh = Credentials::new(CredentialLocations {
        identity: Some(site.at("node")),
        ..CredentialLocations::default()
    });
    fresh.configure([], [Arc::clone(&site.tunnel)]).await;
    let error = fresh.client(&site.tunnel).unwrap_err().to_string();
    assert!(error.contains("the CA's certificates"), "{error}");
}

#[tokio::test]
async fn a_renewal_is_told_and_what_is_open_stays_good() {
    let site = Site::new().await;
    let open = site.open().await;
    let mut epoch = site.node.epoch();
    epoch.mark_unchanged();
    let before = site.node.client(&site.tunnel).unwrap();
    site.give("node", &params(&[], &[NODE], 5));
    site.give("gateway", &params(&[], &[GATEWAY], 6));
    site.configure().await;
    assert!(epoch.has_changed().unwrap());
    assert!(!Arc::ptr_eq(&before, &site.node.client(&site.tunnel).unwrap()));
    let (gateway, node) = (open.gateway_chain(), open.node_chain());
    site.node.gateway_still_good(&site.tunnel, &loopback(), &gateway).unwrap();
    site.gateway.client_still_good(&site.server, &node).unwrap();
    // A second root beside the first one changes nothing for it either.
    let second = ca("second");
    fs::write(site.at("gateway").join("ca.crt"), format!("{}{}", site.root.pem(), second.pem()))
        .unwrap();
    site.configure().await;
    site.gateway.client_still_good(&site.server, &node).unwrap();
    // Settings that are gone judge by what is still followed; without that, nobody can tell.
    let former =
        ServerTls { max_version: TlsVersion::V1_2, min_version: TlsVersion::V1_2, ..server() };
    site.gateway.client_still_good(&former, &node).unwrap();
    site.gateway.configure([], []).await;
    let error = site.gateway.client_still_good(&site.server, &node).unwrap_err();
    assert!(error.to_string().contains("no longer configured"), "{error}");
}

#[tokio::test]
async fn a_list_or_a_lost_root_ends_what_is_open() {
    let site = Site::new().await;
    let open = site.open().await;
    let (shown, client) = (open.gateway_chain(), open.node_chain());
    let host = loopback();
    // Each of these is read while the connection is waited for.
    let ends = async |change: &dyn Fn()| {
        let refused = site.gateway.client_ends(&site.server, &client);
        let server = site.node.gateway_ends(&site.tunnel, &host, &shown);
        let changing = async {
            change();
            site.configure().await;
        };
        let (refused, server, ()) =
            timeout(SOON, async { tokio::join!(refused, server, changing) }).await.unwrap();
        (refused.reason(), server)
    };
    let lists = |node: &[u64], gateway: &[u64]| {
        fs::write(site.at("gateway").join("ca.crl"), crl(&site.root, node, true)).unwrap();
        fs::write(site.at("node").join("ca.crl"), crl(&site.root, gateway, true)).unwrap();
    };
    // Lists with other certificates end nothing.
    lists(&[7], &[8]);
    site.configure().await;
    site.gateway.client_still_good(&site.server, &client).unwrap();
    site.node.gateway_still_good(&site.tunnel, &host, &shown).unwrap();
    let (refused, server) = ends(&|| lists(&[2], &[1])).await;
    assert_eq!(refused, Reason::RevokedClient);
    assert!(matches!(server, TlsError::Revoked { .. }), "{server}");
    // The gateway's end of the connection itself failed, and says why to all who share it.
    let Open { mut gateway, .. } = open;
    let ending = gateway.ending().unwrap();
    let error = timeout(SOON, gateway.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(PeerEnded::of(&error).unwrap().reason(), Reason::RevokedClient);
    assert_eq!(ending.get().unwrap().reason(), Reason::RevokedClient);
    lists(&[], &[]);
    site.configure().await;
    site.gateway.client_still_good(&site.server, &client).unwrap();
    // Another authority takes over, with lists of its own.
    let other = ca("other");
    let (refused, server) = ends(&|| {
        for (name, id) in [("node", NODE), ("gateway", GATEWAY)] {
            write(&site.at(name), &issue(&other, &params(&[], &[id], 9)), Some(&other));
            fs::remove_file(site.at(name).join("ca.crl")).unwrap();
        }
    })
    .await;
    assert_eq!(refused, Reason::UntrustedClient);
    assert!(matches!(server, TlsError::UnknownIssuer { .. }), "{server}");
}

#[tokio::test]
async fn what_expires_ends_without_a_change_of_files() {
    let site = Site::new().await;
    let end = SystemTime::now() + Duration::from_secs(6);
    site.give("node", &until(params(&[], &[NODE], 2), end));
    site.give("gateway", &until(params(&[], &[GATEWAY], 1), end));
    site.configure().await;
    let open = site.open().await;
    let (gateway, node) = (open.gateway_chain(), open.node_chain());
    let host = loopback();
    let client = site.gateway.client_ends(&site.server, &node);
    let server = site.node.gateway_ends(&site.tunnel, &host, &gateway);
    let (client, server) = timeout(SOON, async { tokio::join!(client, server) }).await.unwrap();
    assert_eq!(client.reason(), Reason::ExpiredClient, "{client}");
    assert!(matches!(server, TlsError::Expired { .. }), "{server}");
    assert!(SystemTime::now() >= end - Duration::from_secs(1));
    // And nobody can begin anything with them.
    assert!(site.node.client(&site.tunnel).unwrap_err().to_string().contains("it expired on"));
    assert!(site.gateway.server(&site.server).unwrap_err().to_string().contains("it expired on"));
}

#[tokio::test]
async fn a_root_that_expires_vouches_for_nobody_although_its_successor_is_no_good() {
    let site = Site::new().await;
    let end = SystemTime::now() + Duration::from_secs(6);
    let brief = ca_until("brief", end);
    write(&site.at("gateway"), &issue(&site.root, &params(&[], &[GATEWAY], 1)), Some(&brief));
    write(&site.at("node"), &issue(&brief, &params(&[], &[NODE], 2)), None);
    site.configure().await;
    let open = site.open().await;
    let node = open.node_chain();
    // The next one doesn't go with its key.
    let (_, key) = issue(&site.root, &params(&[], &[GATEWAY], 3));
    fs::write(site.at("gateway").join("tls.key"), key).unwrap();
    site.configure().await;
    site.gateway.client_still_good(&site.server, &node).unwrap();
    assert!(!site.gateway.states()[0].current);
    let over = async {
        while SystemTime::now() < end {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    over.await;
    site.configure().await;
    let error = site.gateway.client_still_good(&site.server, &node).unwrap_err();
    assert_eq!(error.reason(), Reason::UntrustedClient, "{error}");
}
