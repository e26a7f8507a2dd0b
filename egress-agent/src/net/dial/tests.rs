use std::sync::Arc;

use egress_ebpf::reason::Reason;
use tokio::net::TcpListener;

use super::*;
use crate::{
    net::testing::Outside,
    policy::{ClusterName, GatewayPolicy, LoadBalancer, Snapshot},
    types::{GatewayIdentity, Labels, Namespace},
};

fn cluster(discovery: Discovery) -> Cluster {
    let name = ClusterName("outbound|443||test.example".into());
    Cluster { load_balancer: LoadBalancer::RoundRobin, ..Cluster::new(name, discovery) }
}

fn policy() -> GatewayPolicy {
    let identity = GatewayIdentity {
        labels: Labels::new(),
        namespace: Namespace("test".into()),
        addresses: Vec::new(),
    };
    GatewayPolicy::new(Arc::new(Snapshot::default()), &identity)
}

fn names(names: &[&str]) -> Discovery {
    let port = Port::new(443).unwrap();
    Discovery::Dns(names.iter().map(|name| (Host::parse(name).unwrap(), port)).collect())
}

async fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Where `a.example` has one address, which leads to `real`.
fn one_address(real: SocketAddr) -> Dialer {
    let outside = Outside::default().name("a.example", &["198.51.100.7"]);
    outside.route("198.51.100.7:443", real).dialer()
}

#[tokio::test]
async fn the_resolved_address_is_dialled_and_the_place_is_held() {
    let (_listener, real) = server().await;
    let dialer = one_address(real);
    let mut cluster = cluster(names(&["a.example"]));
    cluster.pool.max_connections = 1;
    let upstream = dialer.dial(&policy(), &cluster, None, &ShareOwner::Own).await.unwrap();
    assert_eq!(upstream.addr.to_string(), "198.51.100.7:443");
    assert_eq!(upstream.failed_attempts, 0);
    let over = dialer.dial(&policy(), &cluster, None, &ShareOwner::Own).await.unwrap_err();
    assert!(matches!(over, DialError::Overflow { limit: 1, .. }), "{over:?}");
    drop(upstream);
    dialer.dial(&policy(), &cluster, None, &ShareOwner::Own).await.unwrap();
}

#[tokio::test]
async fn a_source_with_less_than_its_share_gets_the_next_place() {
    let (_listener, real) = server().await;
    let dialer = one_address(real);
    let mut cluster = cluster(names(&["a.example"]));
    cluster.pool.max_connections = 2;
    let [greedy, late] = [1, 2].map(|last| ShareOwner::of(None, [192, 0, 2, last].into()));
    let policy = policy();
    let dial = |owner| dialer.dial(&policy, &cluster, None, owner);
    // Alone it has all places.
    let first = dial(&greedy).await.unwrap();
    let second = dial(&greedy).await.unwrap();
    assert!(matches!(dial(&greedy).await, Err(DialError::Overflow { limit: 2, .. })));
    let next = async {
        drop(first);
        let over = dial(&greedy).await;
        assert!(matches!(over, Err(DialError::Overflow { .. })), "the place is another's");
    };
    let (waited, ()) = tokio::join!(biased; dial(&late), next);
    let waited = waited.unwrap();
    // Both have their share.
    assert!(dial(&late).await.is_err() && dial(&greedy).await.is_err());
    drop((second, waited));
}

#[tokio::test]
async fn a_dead_address_is_passed_over_and_counted() {
    let (_listener, real) = server().await;
    let dialer = Outside::default()
        .name("a.example", &["198.51.100.1", "198.51.100.2", "2001:db8::1"])
        .route("198.51.100.2:443", real)
        .dialer();
    let mut failed = 0;
    for _ in 0..2 {
        let upstream = dialer
            .dial(&policy(), &cluster(names(&["a.example"])), None, &ShareOwner::Own)
            .await
            .unwrap();
        assert_eq!(upstream.addr.to_string(), "198.51.100.2:443");
        failed += upstream.failed_attempts;
    }
    assert_eq!(failed, 2, "round robin starts with the dead one once; then IPv6 has its turn");
}

#[tokio::test]
async fn addresses_inside_are_never_dialled() {
    let (_listener, real) = server().await;
    for inside in ["127.0.0.1", "169.254.169.254", "::1", "fe80::1"] {
        let outside = Outside::default().name("evil.example", &[inside]);
        let addr = SocketAddr::new(inside.parse().unwrap(), 443).to_string();
        let dialer = outside.route(&addr, real).dialer();
        let by_name = dialer
            .dial(&policy(), &cluster(names(&["evil.example"])), None, &ShareOwner::Own)
            .await;
        let error = by_name.unwrap_err();
        assert!(matches!(error, DialError::AddressRefused { .. }), "{error:?}");
        assert_eq!(error.reason(), Reason::AddressRefused);
        let request = cluster(Discovery::Request(Port::new(443).unwrap()));
        let host = Host::parse(inside).unwrap();
        let error =
            dialer.dial(&policy(), &request, Some(&host), &ShareOwner::Own).await.unwrap_err();
        assert!(matches!(error, DialError::AddressRefused { .. }), "{error:?}");
    }
    // Beside an external address it is left out.
    let dialer = Outside::default()
        .name("mixed.example", &["127.0.0.1", "198.51.100.7"])
        .route("127.0.0.1:443", real)
        .route("198.51.100.7:443", real)
        .dialer();
    for _ in 0..4 {
        let upstream = dialer
            .dial(&policy(), &cluster(names(&["mixed.example"])), None, &ShareOwner::Own)
            .await
            .unwrap();
        assert_eq!(upstream.addr.to_string(), "198.51.100.7:443");
    }
}

#[tokio::test]
async fn failures_say_what_happened() {
    let dialer = Outside::default().name("dead.example", &["198.51.100.1"]).dialer();
    let error = dialer
        .dial(&policy(), &cluster(names(&["none.example"])), None, &ShareOwner::Own)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "none.example could not be resolved: no such name (NXDOMAIN)");
    let error = dialer
        .dial(&policy(), &cluster(names(&["dead.example"])), None, &ShareOwner::Own)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "198.51.100.1:443: connection refused");
    let nobody = cluster(Discovery::Static(Vec::new()));
    let error = dialer.dial(&policy(), &nobody, None, &ShareOwner::Own).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NoHealthyUpstream);
}

/// Never connects.
#[derive(Debug)]
struct Silent;

impl Connect for Silent {
    fn connect(
        &self,
        _: UpstreamAddr,
        _: Option<IpAddr>,
    ) -> future::LocalBoxFuture<'_, Result<TcpStream, ConnectError>> {
        Box::pin(future::pending())
    }
}

#[tokio::test]
async fn silence_ends_at_the_connect_timeout_for_all_addresses_together() {
    let resolver = Outside::default().name("a.example", &["198.51.100.1", "198.51.100.2"]);
    let dialer =
        Dialer::new(Arc::new(resolver), Rc::new(Silent), Arc::new(ClusterStates::default()));
    let mut cluster = cluster(names(&["a.example"]));
    cluster.pool.connect_timeout = Duration::from_millis(60);
    let start = Instant::now();
    let error = dialer.dial(&policy(), &cluster, None, &ShareOwner::Own).await.unwrap_err();
    assert!(matches!(error, DialError::Timeout { .. }), "{error:?}");
    assert!(
        start.elapsed() >= Duration::from_millis(55) && start.elapsed() < Duration::from_secs(5)
    );
}

/// Answers at one address only; all others are silent, and written down in their order.
#[derive(Debug)]
struct OnlyAt {
    addr: SocketAddr,
    real: SocketAddr,
    tried: std::cell::RefCell<Vec<SocketAddr>>,
}

impl Connect for OnlyAt {
    fn connect(
        &self,
        addr: UpstreamAddr,
        _: Option<IpAddr>,
    ) -> future::LocalBoxFuture<'_, Result<TcpStream, ConnectError>> {
        self.tried.borrow_mut().push(addr.0);
        Box::pin(async move {
            if addr.0 == self.addr {
                return Ok(TcpStream::connect(self.real).await?);
            }
            future::pending().await
        })
    }
}

async fn dial_only(names: &[&str], addr: &str) -> (Upstream, Vec<String>) {
    let (listener, real) = server().await;
    let resolver = Outside::default().name("a.example", names);
    let tried = std::cell::RefCell::default();
    let connector = Rc::new(OnlyAt { addr: addr.parse().unwrap(), real, tried });
    let states = Arc::new(ClusterStates::default());
    let dialer =
        Dialer::new(Arc::new(resolver), Rc::<OnlyAt>::clone(&connector) as Rc<dyn Connect>, states);
    let mut cluster = cluster(self::names(&["a.example"]));
    cluster.load_balancer = LoadBalancer::RoundRobin;
    let upstream = dialer.dial(&policy(), &cluster, None, &ShareOwner::Own).await.unwrap();
    drop(listener);
    let tried = connector.tried.borrow().iter().map(|addr| addr.ip().to_string()).collect();
    (upstream, tried)
}

#[tokio::test]
async fn silent_addresses_of_one_family_do_not_hide_the_other() {
    let all = ["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "2001:db8::7"];
    let (upstream, tried) = dial_only(&all, "[2001:db8::7]:443").await;
    assert_eq!(upstream.addr.to_string(), "[2001:db8::7]:443");
    assert_eq!(tried[..2], ["198.51.100.1", "2001:db8::7"], "IPv6 has the second turn");
    let all = ["198.51.100.1", "2001:db8::1", "2001:db8::2", "2001:db8::3"];
    let (upstream, tried) = dial_only(&all, "198.51.100.1:443").await;
    assert_eq!(upstream.addr.to_string(), "198.51.100.1:443");
    assert_eq!(tried[0], "198.51.100.1");
}

#[tokio::test]
async fn sixteen_addresses_are_tried_within_the_deadline() {
    let all: Vec<_> = (1..=20).map(|n| format!("198.51.100.{n}")).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let (upstream, tried) = dial_only(&all, "198.51.100.16:443").await;
    assert_eq!(upstream.addr.to_string(), "198.51.100.16:443");
    assert_eq!(tried.len(), 16);
}

#[tokio::test]
async fn silent_connections_are_probed_as_configured() {
    let (_listener, real) = server().await;
    let outside = Outside::default().name("a.example", &["198.51.100.7"]);
    let dialer = outside.route("198.51.100.7:443", real).dialer();
    let own =
        Keepalive { time: Duration::from_secs(3), interval: Duration::from_secs(2), probes: 4 };
    for (set, expected) in [(None, Keepalive::default()), (Some(own), own)] {
        let mut cluster = cluster(names(&["a.example"]));
        cluster.pool.keepalive = set;
        let upstream = dialer.dial(&policy(), &cluster, None, &ShareOwner::Own).await.unwrap();
        let socket = socket2::SockRef::from(&upstream.stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), expected.time);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), expected.interval);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), expected.probes);
    }
}
