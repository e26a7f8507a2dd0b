//! What is explained is what the data path decides: the kernel's hook and the gateway's functions are
//! asked besides, and must say the same.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use egress_ebpf::{
    abi::{
        FlowKey, FlowPlace, FlowState, GatewayKey, Globals, PodAddress, PodPort, PolicyId, Route,
        RouteKey, mode,
    },
    addr::{Addr, PortBe},
    decide::{PolicyRules, PolicyView},
    hooks,
    inbound::FlowTable,
    packet::{Flow, protocol},
};
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::TestRunner};

use super::{Explanation, Outcome, Question, Scheme, Url, Verdict, explain};
use crate::{
    bpf::{Contents, Facts, Judge, policy_id},
    config::{
        scaling::random::configuration,
        testing::{MESH, compile_with},
    },
    policy::{
        Accepted, Cluster, Denied, Entry, GatewayPolicy, Hop, HttpRequest, HttpRoute, Inside,
        Snapshot, TlsConnection, TlsRoute,
    },
    types::{
        Claim, GatewayIdentity, Host, Namespace, OriginalDst, OriginalPort, Port, Source,
        UpstreamAddr, Workload,
    },
};

/// Configurations that compile, and questions about each.
const CONFIGURATIONS: u32 = 500;
const QUESTIONS: usize = 20;

/// More workloads than `testdata/mesh.yaml` has, one of them without an address, and settings.
const WORKLOADS: &str = "\
- {name: web, namespace: team, labels: {app: web}, addresses: [10.0.0.6], node: n1}
- {name: batch, namespace: apps, labels: {app: batch}, addresses: [10.0.0.7, 'fd00::7'], node: n1}
- {name: lost, namespace: team, labels: {app: lost}, cgroups: [/pods/lost]}
nodes: [{name: n1, principal: spiffe://cluster.local/ns/istio-system/sa/node, addresses: [192.0.2.1]}]
clusterCidrs: [10.0.0.0/8]
";

const SETTINGS: [&str; 4] = [
    "",
    "enforcement: audit\n",
    "enforcementOverrides: [{name: dev, namespaces: [team], mode: audit}]\n",
    "pathNormalization: {normalization: NONE}\n",
];

/// Egress policies and the other hop, which the random resources have nothing of.
const MORE: [&str; 5] = [
    "",
    "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: hop, namespace: \
     istio-system}\nspec: {host: istio-egressgateway.istio-system.svc.cluster.local, trafficPolicy: \
     {tls: {mode: ISTIO_MUTUAL}}}\n",
    "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\nmetadata: {name: p, namespace: \
     apps}\nspec: {podSelector: {matchLabels: {app: batch}}, rules: [{hosts: [a.example], ports: \
     [{port: 80, protocol: HTTP}]}]}\n",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny, namespace: \
     istio-system}\nspec: {action: DENY, rules: [{from: [{source: {namespaces: [team]}}]}]}\n",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: allow, namespace: \
     istio-system}\nspec: {action: ALLOW, rules: [{to: [{operation: {paths: ['/v1/*']}}]}]}\n",
];

/// What the maps hold, with no flow that began outside.
struct Maps<'a>(Judge<'a>);

impl PolicyView for Maps<'_> {
    fn globals(&self) -> Globals {
        self.0.globals()
    }
    fn policy(&self, policy: PolicyId) -> PolicyRules {
        self.0.policy(policy)
    }
    fn is_denied(&self, addr: &Addr) -> bool {
        self.0.is_denied(addr)
    }
    fn is_internal(&self, addr: &Addr) -> bool {
        self.0.is_internal(addr)
    }
    fn is_gateway(&self, key: &GatewayKey) -> bool {
        self.0.is_gateway(key)
    }
    fn route(&self, key: &RouteKey) -> Option<Route> {
        self.0.route(key)
    }
    fn interface(&self, ifindex: u32) -> Option<PodPort> {
        self.0.interface(ifindex)
    }
    fn is_pod_address(&self, key: &PodAddress) -> bool {
        self.0.is_pod_address(key)
    }
}

impl FlowTable for Maps<'_> {
    fn now(&self) -> u64 {
        0
    }
    fn flow(&self, _: &FlowKey) -> Option<FlowState> {
        None
    }
    fn next_turn(&self, _: &FlowPlace) -> u32 {
        0
    }
    fn place(&self, _: &FlowPlace, _: &FlowKey) -> Option<FlowKey> {
        None
    }
    fn insert_flow(&self, _: &FlowKey, _: FlowState) {}
    fn change_flow(&self, _: &FlowKey, _: FlowState, _: FlowState) {}
    fn end_flow(&self, _: &FlowKey) {}
    fn refused_syn(&self, _: u32) -> u64 {
        0
    }
    fn refuse_syn(&self, _: u32, _: u64) {}
}

/// What the data path does: a cluster, an answer of the gateway's, or a refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Done {
    /// Past every gateway.
    Passes,
    Cluster(String),
    Answer,
    Refused(String, String),
}

impl From<&Outcome> for Done {
    fn from(outcome: &Outcome) -> Self {
        let cluster = outcome.detail.strip_prefix("the gateway sends it to ");
        match (outcome.verdict, cluster) {
            (Verdict::Allowed, Some(cluster)) => Self::Cluster(cluster.into()),
            (Verdict::Allowed, None) => Self::Passes,
            (Verdict::Answered, _) => Self::Answer,
            (Verdict::Refused, _) => Self::Refused(outcome.reason.clone(), outcome.detail.clone()),
        }
    }
}

/// What the node's hook and the gateway do with a connection to this address.
fn data_path(snapshot: &Arc<Snapshot>, question: &Question, address: IpAddr) -> Done {
    let gateways = &snapshot.mesh.gateways;
    let facts = Facts {
        resolved: [(question.url.host.clone(), vec![address])].into(),
        healthy: gateways.iter().flat_map(|group| group.endpoints.clone()).collect(),
        tunnel: vec!["127.0.0.1:15001".parse().unwrap()],
        generation: 7,
        max_groups: 64,
        ..Facts::default()
    };
    let (mut contents, _) = Contents::desired(snapshot, &facts);
    // As it would be enforced.
    contents.policies.values_mut().for_each(|policy| policy.mode = mode::ENFORCE);
    let maps = Maps(Judge::from(&contents));
    let flow = Flow {
        source: Addr::from(IpAddr::from([10, 0, 0, 5])),
        source_port: PortBe::new(40_000),
        destination: Addr::from(address),
        destination_port: PortBe::new(question.url.port.0.get()),
        protocol: protocol::TCP,
        ..Flow::UNKNOWN
    };
    let policy = policy_id(snapshot.mesh.set_of(&question.workload));
    let judgement = hooks::socket(flow, true, policy, 3, &maps);
    if let Some(target) = judgement.redirect() {
        let port = OriginalPort(Port::new(target.port.get()).unwrap());
        return at_gateway(snapshot, question, address, Hop::Plain, port);
    }
    if judgement.tunnel().is_some() {
        return at_gateway(snapshot, question, address, Hop::Tunnel, question.url.port);
    }
    let reason = judgement.reason().name().to_owned();
    match judgement.system_call() {
        Ok(()) => Done::Passes,
        Err(_) => Done::Refused(reason, "the node refuses it".into()),
    }
}

fn at_gateway(
    snapshot: &Arc<Snapshot>,
    question: &Question,
    address: IpAddr,
    hop: Hop,
    port: OriginalPort,
) -> Done {
    let identity = GatewayIdentity {
        labels: [("istio".into(), "egressgateway".into())].into(),
        namespace: Namespace("istio-system".into()),
        addresses: vec!["192.0.2.10".parse().unwrap()],
    };
    let policy = GatewayPolicy::new(Arc::clone(snapshot), &identity);
    match decided(&policy, question, address, hop, port) {
        Ok(done) => done,
        Err(Denied { reason, detail, .. }) => Done::Refused(reason.name().into(), detail),
    }
}

fn decided(
    policy: &GatewayPolicy,
    question: &Question,
    address: IpAddr,
    hop: Hop,
    port: OriginalPort,
) -> Result<Done, Denied> {
    let Workload { addresses, .. } = &*question.workload;
    let own = addresses.first().copied();
    let source = match hop {
        Hop::Plain => policy.source(own.unwrap_or(IpAddr::from([0; 4]))),
        Hop::Tunnel => {
            let mesh = &policy.snapshot().mesh;
            let node = mesh.nodes.iter().find(|n| Some(&n.name) == question.workload.node.as_ref());
            let client = node.map_or_else(
                || question.workload.principal(&mesh.trust_domain),
                |node| node.principal.clone(),
            );
            let peer = node.map_or(IpAddr::from([0; 4]), |node| node.addresses[0]);
            policy.claimed(&client, peer, Some(&Claim::of(&question.workload)), own)?
        }
    };
    let dialled = OriginalDst(SocketAddr::new(address, question.url.port.0.get()));
    if let Accepted::Tcp(route) = policy.accept(&source, hop, port, dialled)? {
        return Ok(reached(policy, &route.cluster, route.host.as_ref()));
    }
    let host = &question.url.host;
    match question.url.scheme {
        Scheme::Http => {
            let entry = if hop == Hop::Plain { Entry::Mesh } else { Entry::Tunnel };
            http(policy, question, &source, entry, port)
        }
        Scheme::Https | Scheme::Tls => {
            if host.as_name().is_none() {
                return Ok(Done::Refused(
                    "no_server_name".into(),
                    "TLS without a server name".into(),
                ));
            }
            let connection =
                TlsConnection { source: &source, port, server_name: host, hop, encrypted: false };
            match policy.tls(&connection)? {
                TlsRoute::Forward(route) => {
                    Ok(reached(policy, &route.cluster, route.host.as_ref()))
                }
                TlsRoute::Terminate(termination) => match termination.tls.inside {
                    Inside::Http => {
                        http(policy, question, &source, Entry::Server(&termination), port)
                    }
                    Inside::Tcp => {
                        let route = policy.tcp_inside(&termination, host, &source)?;
                        Ok(reached(policy, &route.cluster, route.host.as_ref()))
                    }
                },
            }
        }
        Scheme::Tcp => {
            let detail = format!("neither HTTP nor TLS was spoken on port {port}");
            Ok(Done::Refused("wrong_protocol".into(), detail))
        }
    }
}

fn http(
    policy: &GatewayPolicy,
    question: &Question,
    source: &Source,
    entry: Entry<'_>,
    port: OriginalPort,
) -> Result<Done, Denied> {
    let inside = matches!(entry, Entry::Server(_));
    let normal =
        crate::policy::normalise(&question.url.path, policy.snapshot().mesh.path_normalization);
    let HttpRoute { cluster, host, action, .. } = policy.http(&HttpRequest {
        source,
        entry,
        port,
        host: &question.url.host,
        authority: &question.url.authority,
        scheme: if inside { "https" } else { "http" },
        method: &question.method,
        path_and_query: normal.as_deref().unwrap_or(&question.url.path),
        headers: &question.headers,
        server_name: inside.then_some(&question.url.host),
        remote: Some(source.addr),
    })?;
    if action.redirect.is_some() || action.respond.is_some() {
        return Ok(Done::Answer);
    }
    Ok(reached(policy, &cluster, Some(&host)))
}

/// A cluster, unless its only address must not be dialled.
fn reached(policy: &GatewayPolicy, cluster: &Cluster, host: Option<&Host>) -> Done {
    use crate::policy::Discovery;
    let ip = |host: &Host| match host {
        Host::Ip(ip) => Some(UpstreamAddr(SocketAddr::new(*ip, 1))),
        Host::Name(_) => None,
    };
    let known: Vec<UpstreamAddr> = match &cluster.discovery {
        Discovery::Static(endpoints) => endpoints.iter().map(|e| UpstreamAddr(e.addr)).collect(),
        Discovery::Dns(names) => names.iter().filter_map(|(name, _)| ip(name)).collect(),
        Discovery::Request(_) => host.and_then(ip).into_iter().collect(),
    };
    match known.first() {
        Some(first) if known.iter().all(|addr| !policy.may_dial(addr.ip())) => {
            let name = host.map_or_else(|| cluster.name.to_string(), Host::to_string);
            let first = first.ip();
            let detail = format!("{name} is at {first}, which the gateway must not dial");
            Done::Refused("address_refused".into(), detail)
        }
        _ => Done::Cluster(cluster.name.to_string()),
    }
}

fn url() -> impl Strategy<Value = String> {
    let hosts = [
        "a.example",
        "b.a.example",
        "x.a.example",
        "c.b.a.example",
        "x.example",
        "b.test",
        "absent.invalid",
        "198.51.100.7",
        "10.1.2.3",
        "169.254.169.254",
        "192.0.2.10",
        "[2001:db8::7]",
    ];
    let schemes = ["http", "https", "tls", "tcp"];
    let paths = ["/", "/v1/x", "/v1/../admin", "/v1/%2e%2e/admin"];
    let port = option::of(select(vec![80_u16, 443, 5432, 15000]));
    (select(schemes.to_vec()), select(hosts.to_vec()), port, select(paths.to_vec())).prop_map(
        |(scheme, host, port, path)| {
            let port = port.or((scheme == "tcp").then_some(5432));
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("{scheme}://{host}{port}{path}")
        },
    )
}

/// A workload by its number, a URL, a method, and the address of the name.
type Asking = (usize, String, &'static str, Option<&'static str>);

fn asking() -> impl Strategy<Value = Asking> {
    let methods = select(vec!["GET", "POST"]);
    let address = select(vec!["198.51.100.7", "203.0.113.7", "10.1.2.3", "2001:db8::7"]);
    (0..4_usize, url(), methods, option::weighted(0.3, address))
}

#[test]
fn explanations_agree_with_the_data_path() {
    let strategy = (
        configuration(),
        select(SETTINGS.to_vec()),
        select(MORE.to_vec()),
        vec(asking(), QUESTIONS..=QUESTIONS),
    );
    let (configurations, pairs) = (AtomicU32::new(0), AtomicU32::new(0));
    let (passed, sent, answered, refused) = Default::default();
    let kinds: [&AtomicU32; 4] = [&passed, &sent, &answered, &refused];
    let mut runner = TestRunner::new(ProptestConfig {
        cases: CONFIGURATIONS,
        max_global_rejects: 20_000,
        ..<_>::default()
    });
    runner
        .run(&strategy, |((text, mesh), settings, more, questions)| {
            let mesh = format!("{WORKLOADS}{settings}{mesh}");
            // A configuration that does not compile decides nothing.
            let compiled = compile_with(&[&text, more], &mesh);
            prop_assume!(compiled.is_ok());
            let snapshot = Arc::new(compiled.unwrap().snapshot);
            configurations.fetch_add(1, Ordering::Relaxed);
            for (workload, url, method, address) in questions {
                let question = Question {
                    workload: Arc::clone(&snapshot.mesh.workloads[workload]),
                    url: Url::parse(&url).unwrap(),
                    method: method.parse().unwrap(),
                    headers: http::HeaderMap::new(),
                    address: address.map(|address| address.parse().unwrap()),
                };
                let (dialled, _) = super::question::dialled(&snapshot, &question);
                let explanation = explain(&snapshot, &question);
                let expected = data_path(&snapshot, &question, dialled);
                let Explanation { outcome, enforced, .. } = &explanation;
                let told = Done::from(enforced.as_ref().unwrap_or(outcome));
                // The address that is only given is not the gateway's, so it is asked about apart.
                let told = match (&told, address) {
                    (Done::Refused(reason, _), Some(_)) if reason == "address_refused" => {
                        prop_assert!(matches!(expected, Done::Cluster(_) | Done::Refused(..)));
                        expected.clone()
                    }
                    _ => told,
                };
                prop_assert_eq!(&told, &expected, "{} {:#?}\n{}", url, explanation, text);
                if enforced.is_some() {
                    prop_assert_eq!(outcome.verdict, Verdict::Allowed);
                }
                let kind = match expected {
                    Done::Passes => 0,
                    Done::Cluster(_) => 1,
                    Done::Answer => 2,
                    Done::Refused(..) => 3,
                };
                kinds[kind].fetch_add(1, Ordering::Relaxed);
                pairs.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let counts = kinds.map(|kind| kind.load(Ordering::Relaxed));
    let pairs = pairs.load(Ordering::Relaxed);
    println!("{configurations:?} configurations, {pairs} pairs: {counts:?}");
    assert!(pairs >= 10_000, "{pairs}");
    // None of these is left out by the configurations that are made; few answer by themselves.
    let [passed, sent, _, refused] = counts;
    assert!(passed > 10 && sent > 10 && refused > 10, "{counts:?}");
    assert!(MESH.contains("apps"), "the settings that the workloads are added to");
}
