//! A node on loopback: the tunnel's thread, records and credentials that a test makes up.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use arc_swap::ArcSwap;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::watch,
};

use super::{port, wait::until, waypoint::Waypoint};
use crate::{
    policy::{CredentialSource, TunnelTls},
    sys::socket::listeners,
    telemetry::FlowLog,
    tls::testing::{self, Ca},
    tunnel::{
        CallingProcess, Credentials, Drain, Group, Limits, Origin, Origins, Refusal, Settings,
        Stats, Tunnel, TunnelConfig,
    },
    types::{
        ClientAddr, DEFAULT_SERVICE_ACCOUNT, Labels, Namespace, OriginalDst, TrustDomain, Workload,
    },
};

/// Records as the kernel would make them.
#[derive(Default)]
pub(super) struct Records(Mutex<HashMap<SocketAddr, Origin>>);

impl Origins for Records {
    fn take(&self, peer: ClientAddr) -> Option<Origin> {
        self.0.lock().unwrap().remove(&peer.0)
    }

    fn process(&self, origin: &Origin) -> CallingProcess {
        CallingProcess {
            pid: u32::try_from(origin.socket).ok(),
            executable: Some("/usr/bin/curl".into()),
            command: Some("curl".into()),
            cgroup: Some("/kubepods/web".into()),
            container: Some("aa".into()),
        }
    }
}

/// Credentials that a test replaces.
pub(super) struct Provider {
    client: ArcSwap<Result<Arc<ClientConfig>, String>>,
    epoch: watch::Sender<u64>,
    distrusted: watch::Sender<bool>,
}

impl Provider {
    pub(super) fn new(client: Result<ClientConfig, String>) -> Arc<Self> {
        Arc::new(Self {
            client: ArcSwap::from_pointee(client.map(Arc::new)),
            epoch: watch::Sender::new(0),
            distrusted: watch::Sender::new(false),
        })
    }

    pub(super) fn replace(&self, client: ClientConfig) {
        self.client.store(Arc::new(Ok(Arc::new(client))));
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    pub(super) fn distrust(&self) {
        self.distrusted.send_replace(true);
    }
}

impl Credentials for Provider {
    fn client(&self, _: &TunnelTls) -> Result<Arc<ClientConfig>, String> {
        (**self.client.load()).clone()
    }

    fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    fn ends<'a>(
        &'a self,
        _: &'a TunnelTls,
        _: IpAddr,
        chain: &'a [CertificateDer<'static>],
    ) -> LocalBoxFuture<'a, String> {
        assert!(!chain.is_empty(), "the gateway's chain is known");
        let mut distrusted = self.distrusted.subscribe();
        async move {
            distrusted.wait_for(|distrusted| *distrusted).await.unwrap();
            "it was revoked".to_owned()
        }
        .boxed_local()
    }
}

/// A client of this authority's, which trusts it.
pub(super) fn client(ca: &Ca) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let uri = "spiffe://cluster.local/ns/egress/sa/node";
    let (chain, key) = testing::issue(ca, &testing::params(&[], &[uri], 1));
    let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// A node, its tunnel running.
pub(super) struct Node {
    pub(super) listener: SocketAddr,
    pub(super) stats: Arc<Stats>,
    pub(super) flows: Arc<FlowLog>,
    pub(super) provider: Arc<Provider>,
    pub(super) tunnel: Option<Tunnel>,
    records: Arc<Records>,
}

impl Node {
    /// With one gateway, which it trusts.
    pub(super) fn start(gateway: &Waypoint, limits: Limits) -> Self {
        let provider = Provider::new(Ok(client(&gateway.ca)));
        Self::with(vec![gateway.addr], provider, limits)
    }

    pub(super) fn with(healthy: Vec<SocketAddr>, provider: Arc<Provider>, limits: Limits) -> Self {
        let of = listeners(([127, 0, 0, 1], 0).into(), 1).unwrap();
        let listener = of[0].local_addr().unwrap();
        let (stats, flows) = (Arc::<Stats>::default(), Arc::<FlowLog>::default());
        let records = Arc::<Records>::default();
        let config = TunnelConfig {
            settings: Arc::new(ArcSwap::from_pointee(settings(healthy))),
            origins: Arc::<Records>::clone(&records),
            credentials: Arc::<Provider>::clone(&provider),
            stats: Arc::clone(&stats),
            flows: Arc::clone(&flows),
            limits,
            drain: Drain::default(),
        };
        let tunnel = Some(Tunnel::start(&config, vec![of]).unwrap());
        Self { listener, stats, flows, provider, tunnel, records }
    }

    /// A connection of the first pod that the kernel redirected here.
    pub(super) async fn dial(&self, port: u16) -> (TcpStream, SocketAddr) {
        self.dial_from("127.0.0.1", port).await
    }

    pub(super) async fn dial_from(&self, from: &str, port: u16) -> (TcpStream, SocketAddr) {
        let (stream, peer) = self.attempt(from, port).await;
        (stream.unwrap(), peer)
    }

    /// One that may be reset while it is made.
    pub(super) async fn attempt(
        &self,
        from: &str,
        port: u16,
    ) -> (std::io::Result<TcpStream>, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        let peer = socket.local_addr().unwrap();
        let original = OriginalDst(SocketAddr::from(([198, 51, 100, 7], port)));
        let origin = Origin { original, group: 0, cgroup: 0, socket: SOCKET };
        self.records.0.lock().unwrap().insert(peer, origin);
        (socket.connect(self.listener).await, peer)
    }

    /// One connection that is served.
    pub(super) async fn echo(&self) {
        self.echo_from("127.0.0.1").await;
    }

    pub(super) async fn echo_from(&self, from: &str) {
        let (mut pod, _) = self.dial_from(from, port::ECHO).await;
        pod.write_all(b"echo").await.unwrap();
        pod.shutdown().await.unwrap();
        let mut got = Vec::new();
        pod.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"echo");
    }

    /// One that is reset, and counted so.
    pub(super) async fn is_reset(&self, port: u16, refusal: Refusal) {
        let before = self.refused(refusal);
        let error = match self.attempt("127.0.0.1", port).await.0 {
            Ok(mut pod) => {
                // It may be too late to write.
                pod.write_all(SECRET).await.ok();
                pod.read_u8().await.expect_err("it is refused")
            }
            Err(error) => error,
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        until(|| self.refused(refusal) == before + 1).await;
        let flows = self.flows.history();
        assert_eq!(flows.last().unwrap().reason.as_deref(), Some(refusal.reason().name()));
    }

    pub(super) fn refused(&self, refusal: Refusal) -> u64 {
        self.stats.refused().find(|(of, _)| *of == refusal).unwrap().1
    }
}

/// The number of each socket, which here is that of its process.
pub(super) const SOCKET: u64 = 4711;

/// What mustn't be seen where it doesn't belong.
pub(super) const SECRET: &[u8] = b"the pod's own words";

fn settings(healthy: Vec<SocketAddr>) -> Settings {
    let tls = TunnelTls {
        credential: CredentialSource::Own,
        subject_alt_names: Vec::new(),
        key_groups: crate::policy::KeyGroups::default(),
        trust_domain: TrustDomain::default(),
        namespace: Namespace("istio-system".into()),
        principal: None,
    };
    let workload = |name: &str, addr: &str| {
        let addr: IpAddr = addr.parse().unwrap();
        let workload = Workload {
            name: name.into(),
            namespace: Namespace("shop".into()),
            labels: Labels::new(),
            addresses: vec![addr],
            cgroups: Vec::new(),
            interface: None,
            node: None,
            service_account: match name {
                "web" => DEFAULT_SERVICE_ACCOUNT.into(),
                name => name.into(),
            },
        };
        (addr, Arc::new(workload))
    };
    let group = Group { service: "gateway.istio-system".into(), tls: Some(Arc::new(tls)), healthy };
    Settings {
        groups: vec![group],
        addresses: [workload("web", "127.0.0.1"), workload("job", "127.0.0.2")].into(),
        cgroups: HashMap::new(),
        trust_domain: TrustDomain::default(),
    }
}

/// Bytes in which none can be missing unseen.
pub(super) fn patterned(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}
