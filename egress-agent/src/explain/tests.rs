//! What is explained is what the data path decides: the kernel's hook and the gateway's functions are
//! asked besides, and must say the same.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
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
    reason::Reason,
};
use http::Method;
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::select,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use super::{ExplainRequest, Explanation, Outcome, Scheme, Url, Verdict, explain};
use crate::{
    bpf::{Contents, PlanInputs, PolicyEvaluator, policy_id},
    config::{
        Severity,
        scaling::random::configuration,
        testing::{MESH, compile_with},
    },
    policy::{
        Accepted, Cluster, Denied, EntryPoint, GatewayPolicy, Hop, HttpRequest, HttpRoute,
        InnerProtocol, Snapshot, TlsConnection, TlsRoute,
    },
    types::{
        AssertedWorkload, GatewayIdentity, Host, Namespace, OriginalDst, OriginalPort, Port,
        Source, UpstreamAddr, Workload,
    },
};

/// Configurations that compile, and questions about each.
const CONFIGURATIONS: u32 = 600;
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

/// Egress and authorization policies and the other hop, which the random resources have nothing of, and raw TCP
/// through the gateway as in Istio's task, whose three resources hardly ever fit each other by chance.
const MORE: [&str; 10] = [
    "",
    "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: hop, namespace: \
     istio-system}\nspec: {host: istio-egressgateway.istio-system.svc.cluster.local, trafficPolicy: \
     {tls: {mode: ISTIO_MUTUAL}}}\n",
    "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\nmetadata: {name: p, namespace: \
     apps}\nspec: {podSelector: {matchLabels: {app: batch}}, rules: [{hosts: [a.example], ports: \
     [{port: 80, protocol: HTTP}]}]}\n",
    "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\nmetadata: {name: p, namespace: \
     team}\nspec: {rules: [{hosts: ['*.example'], ports: [{port: 80, protocol: HTTP}], http: {methods: \
     [GET], paths: [/v1]}}, {hosts: [x.example, b.test], ports: [{port: 443, protocol: TLS}]}, {hosts: \
     [198.51.100.7], ports: [{port: 5432, protocol: TCP}]}]}\n",
    "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: hop, namespace: \
     istio-system}\nspec: {host: istio-egressgateway.istio-system.svc.cluster.local, trafficPolicy: \
     {tls: {mode: ISTIO_MUTUAL}}}\n---\napiVersion: egress-enforcer.io/v1alpha1\nkind: \
     EgressPolicy\nmetadata: {name: p, namespace: team}\nspec: {rules: [{hosts: ['*.example'], ports: \
     [{port: 80, protocol: HTTP}, {port: 443, protocol: TLS}]}, {hosts: [198.51.100.7], ports: \
     [{port: 5432, protocol: TCP}]}]}\n",
    "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\nmetadata: {name: p, namespace: \
     team}\nspec: {mode: Audit, rules: [{hosts: [absent.invalid], ports: [{port: 80, protocol: HTTP}, \
     {port: 443, protocol: TLS}]}]}\n",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny, namespace: \
     istio-system}\nspec: {action: DENY, rules: [{from: [{source: {namespaces: [team]}}]}]}\n",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: allow, namespace: \
     istio-system}\nspec: {action: ALLOW, rules: [{to: [{operation: {paths: ['/v1/*']}}]}]}\n",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: methods, namespace: \
     istio-system}\nspec: {action: DENY, rules: [{to: [{operation: {methods: [POST]}}]}]}\n",
    "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: db, namespace: istio-system}\nspec: \
     {hosts: [db.test.invalid], ports: [{number: 15000, name: tcp, protocol: TCP}], resolution: \
     DNS}\n---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: db, namespace: \
     istio-system}\nspec: {selector: {istio: egressgateway}, servers: [{port: {number: 15432, name: tcp, \
     protocol: TCP}, hosts: [db.test.invalid]}]}\n---\napiVersion: networking.istio.io/v1\nkind: \
     VirtualService\nmetadata: {name: db, namespace: istio-system}\nspec: {hosts: [db.test.invalid], gateways: \
     [mesh, db], tcp: [{match: [{gateways: [mesh], port: 15000}], route: [{destination: {host: \
     istio-egressgateway.istio-system.svc.cluster.local, port: {number: 15432}}}]}, {match: [{gateways: [db], port: \
     15432}], route: [{destination: {host: db.test.invalid, port: {number: 15000}}}]}]}\n",
];

/// What the maps hold, with no flow that began outside.
struct Maps<'a>(PolicyEvaluator<'a>);

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
        // A policy in audit mode, or one that marks it for audit, is named behind it.
        let cluster = cluster.and_then(|cluster| cluster.split("; ").next());
        match (outcome.verdict, cluster) {
            (Verdict::Allowed, Some(cluster)) => Self::Cluster(cluster.into()),
            (Verdict::Allowed, None) => Self::Passes,
            (Verdict::Answered, _) => Self::Answer,
            (Verdict::Refused, _) => Self::Refused(outcome.reason.clone(), outcome.detail.clone()),
        }
    }
}

/// Who decided.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum By {
    Node,
    Gateway,
    GatewayThroughTunnel,
}

/// What the node's hook and the gateway do with a connection to this address.
fn data_path(snapshot: &Arc<Snapshot>, question: &ExplainRequest, address: IpAddr) -> (By, Done) {
    let gateways = &snapshot.mesh.gateways;
    let facts = PlanInputs {
        resolved: [(question.url.host.clone(), vec![address])].into(),
        healthy: gateways.iter().flat_map(|group| group.endpoints.clone()).collect(),
        tunnel: vec!["127.0.0.1:15001".parse().unwrap()],
        generation: 7,
        max_groups: 64,
        ..PlanInputs::default()
    };
    let (mut contents, _) = Contents::desired(snapshot, &facts);
    // As it would be enforced.
    contents.policies.values_mut().for_each(|policy| policy.mode = mode::ENFORCE);
    let maps = Maps(PolicyEvaluator::from(&contents));
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
        return (By::Gateway, at_gateway(snapshot, question, address, Hop::Plain, port));
    }
    if judgement.tunnel().is_some() {
        let done = at_gateway(snapshot, question, address, Hop::Tunnel, question.url.port);
        return (By::GatewayThroughTunnel, done);
    }
    let reason = judgement.reason().name().to_owned();
    let done = match judgement.system_call() {
        Ok(()) => Done::Passes,
        Err(_) => Done::Refused(reason, "the node refuses it".into()),
    };
    (By::Node, done)
}

fn at_gateway(
    snapshot: &Arc<Snapshot>,
    question: &ExplainRequest,
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
    question: &ExplainRequest,
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
            policy.claimed(&client, peer, Some(&AssertedWorkload::of(&question.workload)), own)?
        }
    };
    let dialled = OriginalDst(SocketAddr::new(address, question.url.port.0.get()));
    if let Accepted::Tcp(route) = policy.accept(&source, hop, port, dialled)? {
        return Ok(reached(policy, &route.cluster, route.host.as_ref()));
    }
    let host = &question.url.host;
    match question.url.scheme {
        Scheme::Http => {
            let entry = if hop == Hop::Plain { EntryPoint::Mesh } else { EntryPoint::Tunnel };
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
                    InnerProtocol::Http => {
                        http(policy, question, &source, EntryPoint::Server(&termination), port)
                    }
                    InnerProtocol::Tcp => {
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
    question: &ExplainRequest,
    source: &Source,
    entry: EntryPoint<'_>,
    port: OriginalPort,
) -> Result<Done, Denied> {
    let inside = matches!(entry, EntryPoint::Server(_));
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
        // Most policies are about these.
        "x.example",
        "198.51.100.7",
        "198.51.100.7",
        "10.1.2.3",
        "169.254.169.254",
        "192.0.2.10",
        "[2001:db8::7]",
    ];
    let schemes = ["http", "https", "tls", "tcp"];
    let paths = ["/", "/other", "/v1/x", "/v1/../admin", "/v1/%2e%2e/admin"];
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
type AskedPair = (usize, String, &'static str, Option<&'static str>);

fn asking() -> impl Strategy<Value = AskedPair> {
    let methods = select(vec!["GET", "POST"]);
    let address = select(vec!["198.51.100.7", "203.0.113.7", "10.1.2.3", "2001:db8::7"]);
    (0..4_usize, url(), methods, option::weighted(0.3, address))
}

/// What the pairs of a run were about.
#[derive(Debug, Default)]
struct Counts {
    pairs: usize,
    /// By scheme, who decided, and whether it was refused.
    kinds: BTreeMap<(&'static str, By, bool), usize>,
    /// Why it was refused.
    reasons: BTreeMap<String, usize>,
    /// Pairs with another answer for another method, and for another path.
    by_method: usize,
    by_path: usize,
    /// Pairs that an egress policy refuses, and allows with another method, and below another path.
    policy_method: usize,
    policy_path: usize,
}

impl Counts {
    fn count(&mut self, snapshot: &Arc<Snapshot>, question: &ExplainRequest, at: IpAddr) {
        let (by, done) = data_path(snapshot, question, at);
        self.pairs += 1;
        let scheme = match question.url.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Tls => "tls",
            Scheme::Tcp => "tcp",
        };
        let is_refused = matches!(done, Done::Refused(..));
        *self.kinds.entry((scheme, by, is_refused)).or_default() += 1;
        if let Done::Refused(reason, _) = &done {
            *self.reasons.entry(reason.clone()).or_default() += 1;
        }
        let other = if question.method == Method::GET { Method::POST } else { Method::GET };
        let differs = |other: &ExplainRequest| data_path(snapshot, other, at).1 != done;
        let method = ExplainRequest { method: other, ..question.clone() };
        self.by_method += usize::from(differs(&method));
        let below = |path: &str| {
            let url = Url { path: path.into(), ..question.url.clone() };
            ExplainRequest { url, ..question.clone() }
        };
        self.by_path += usize::from(differs(&below("/other")));
        // The sentence of a refusal names the method, so another refusal is no other answer.
        if matches!(&done, Done::Refused(reason, _) if reason == Reason::EgressPolicyDenied.name())
        {
            let allows = |other: &ExplainRequest| {
                !matches!(data_path(snapshot, other, at).1, Done::Refused(..))
            };
            self.policy_method += usize::from(allows(&method));
            self.policy_path += usize::from(allows(&below("/v1/x")));
        }
    }

    fn of(&self, wanted: impl Fn(&str, By, bool) -> bool) -> usize {
        let kinds = self.kinds.iter();
        kinds
            .filter(|((scheme, by, refused), _)| wanted(scheme, *by, *refused))
            .map(|(_, n)| n)
            .sum()
    }
}

/// What is refused or not compiled decides nothing, so the property would hold of it without a question.
#[test]
fn what_the_random_resources_lack_is_in_force() {
    for more in MORE {
        let all = compile_with(&[more], WORKLOADS).unwrap_or_else(|p| panic!("{p}")).warnings;
        assert!(all.iter().all(|p| p.severity == Severity::Warning), "{more}: {all:?}");
    }
}

#[test]
fn explanations_agree_with_the_data_path() {
    // The policy that limits methods and paths takes part more often: few of the questions are about what it limits.
    let more = [&MORE[..], &[MORE[3]; 4]].concat();
    let strategy = (
        configuration(),
        select(SETTINGS.to_vec()),
        select(more),
        vec(asking(), QUESTIONS..=QUESTIONS),
    );
    let counts = Mutex::new(Counts::default());
    // The same pairs in each run, so that what they are about is no matter of chance.
    let config =
        ProptestConfig { cases: CONFIGURATIONS, max_global_rejects: 20_000, ..<_>::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(&strategy, |((text, mesh), settings, more, questions)| {
            let mesh = format!("{WORKLOADS}{settings}{mesh}");
            // A configuration that does not compile decides nothing.
            let compiled = compile_with(&[&text, more], &mesh);
            prop_assume!(compiled.is_ok());
            let snapshot = Arc::new(compiled.unwrap().snapshot);
            for (workload, url, method, address) in questions {
                let question = ExplainRequest {
                    workload: Arc::clone(&snapshot.mesh.workloads[workload]),
                    url: Url::parse(&url).unwrap(),
                    method: method.parse().unwrap(),
                    headers: http::HeaderMap::new(),
                    address: address.map(|address| address.parse().unwrap()),
                };
                let (dialled, _) = super::question::dialled(&snapshot, &question);
                let explanation = explain(&snapshot, &question);
                let (_, expected) = data_path(&snapshot, &question, dialled);
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
                counts.lock().unwrap().count(&snapshot, &question, dialled);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let counts = counts.into_inner().unwrap();
    println!("{counts:#?}");
    assert!(counts.pairs >= 10_000, "{counts:#?}");
    // Each verdict is a good part of all, of each scheme, and of whatever decides.
    for refused in [false, true] {
        let all = counts.of(|_, _, is| is == refused);
        assert!(all * 5 > counts.pairs, "refused {refused}: {all} of {counts:#?}");
        for wanted in ["http", "https", "tls", "tcp"] {
            let some = counts.of(|scheme, _, is| scheme == wanted && is == refused);
            assert!(some > 100, "{wanted}, refused {refused}: {some} of {counts:#?}");
        }
        for wanted in [By::Node, By::Gateway, By::GatewayThroughTunnel] {
            let some = counts.of(|_, by, is| by == wanted && is == refused);
            assert!(some > 10, "{wanted:?}, refused {refused}: {some} of {counts:#?}");
            for spoken in ["http", "https", "tls", "tcp"] {
                let of = |scheme: &str, by, is| scheme == spoken && by == wanted && is == refused;
                let some = counts.of(of);
                assert!(
                    some > 2,
                    "{spoken} by {wanted:?}, refused {refused}: {some} of {counts:#?}"
                );
            }
        }
    }
    // Raw TCP has no name, so what allows it through a plain gateway is the port alone.
    let by_port = counts.of(|scheme, by, is| scheme == "tcp" && by == By::Gateway && !is);
    assert!(by_port > 10, "{by_port} of {counts:#?}");
    // Methods, paths and every kind of policy have decided.
    assert!(counts.by_method > 0 && counts.by_path > 0, "{counts:#?}");
    assert!(counts.policy_method > 0 && counts.policy_path > 0, "{counts:#?}");
    for reason in [
        Reason::NoRoute,
        Reason::HostNotInRegistry,
        Reason::NoMatchingRule,
        Reason::AuthorizationPolicyDenied,
        Reason::EgressPolicyDenied,
    ] {
        let some = counts.reasons.get(reason.name()).copied().unwrap_or(0);
        assert!(some > 0, "{}: {some} of {counts:#?}", reason.name());
    }
    assert!(MESH.contains("apps"), "the settings that the workloads are added to");
}
