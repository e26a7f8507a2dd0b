//! The snapshot that both roles derive their part from.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::{IpNet, Ipv6Net};

use super::{
    CredentialUse, DirectTarget, EgressAddressSet, EncryptedHello, ExemptDestination, Exemption,
    Hop, Keepalive, KeyGroups, Locality, LocalitySetting, PathNormalization, ResourceStarts, Rules,
    TunnelTls, Upgrades, default_denied,
};
use crate::types::{
    GatewayPort, Host, Labels, Namespace, Node, OriginalPort, Port, Revisions, Selector, SpiffeId,
    TrustDomain, Workload,
};

/// One accepted configuration, immutable.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Mesh-wide settings.
    pub mesh: MeshConfig,
    /// What the node enforces.
    pub node: NodePolicy,
    /// What gateways decide by.
    pub rules: Rules,
    /// Where the resources are written.
    pub places: Arc<ResourceStarts>,
    /// Which resources name which credentials.
    pub credential_uses: Arc<[CredentialUse]>,
    /// Which revisions of the product's own resources it was made of, where an API server has them.
    pub revisions: Arc<Revisions>,
}

/// `accessLogEncoding`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessLogEncoding {
    /// One line of text.
    Text,
    /// One JSON object a line.
    Json,
}

/// `mesh.yaml`, compiled.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// `egressAddresses`: the first entry that selects a workload counts.
    pub egress_addresses: Vec<EgressAddressSet>,
    /// `outboundTrafficPolicy.mode`.
    pub outbound: OutboundMode,
    /// `direct`.
    pub direct: Direct,
    /// `encryptedClientHello`.
    pub encrypted_hello: EncryptedHello,
    /// `webSocket`: what clients may upgrade to by a rule that does not say it.
    pub upgrades: Upgrades,
    /// `pathNormalization`.
    pub path_normalization: PathNormalization,
    /// `enforcement`.
    pub enforcement: Enforcement,
    /// `enforcementOverrides`, in file order: the first that a workload is in counts.
    pub overrides: Vec<EnforcementOverride>,
    /// `exemptions`, in file order: the first that a workload is in counts, before all overrides.
    pub exemptions: Vec<Exemption>,
    /// `accessLogFile`: a path, `/dev/stdout`, or none.
    pub access_log_file: Option<String>,
    /// `accessLogFormat`: Istio's where absent; `envoy` names Envoy's default.
    pub access_log_format: Option<String>,
    /// `accessLogEncoding`.
    pub access_log_encoding: AccessLogEncoding,
    /// `enableTracing`: each HTTP request has a span, if spans are exported at all.
    pub tracing: bool,
    /// `streamIdleTimeout`: how long a request may go without a byte; the gateway's own limit where
    /// absent.
    pub stream_idle_timeout: Option<Duration>,
    /// `proxy100Continue`: who expects `100 Continue` waits for the upstream's.
    pub forward_continue: bool,
    /// `addressDrainTime`: how long connections that wait for a request stay open after their address
    /// has left the host's DNS answer.
    pub address_drain_time: Duration,
    /// `tlsDefaults.ecdhCurves`: groups of the key exchange, on every leg.
    pub key_groups: KeyGroups,
    /// `tcpKeepalive`, where a destination rule has none.
    pub keepalive: Option<Keepalive>,
    /// `trustDomain`.
    pub trust_domain: TrustDomain,
    /// `rootNamespace`.
    pub root_namespace: Namespace,
    /// `clusterCidrs`: in-cluster addresses.
    pub cluster_cidrs: Vec<IpNet>,
    /// `deniedCidrs`: what is denied in any case, the cloud's metadata service by default.
    pub denied_cidrs: Vec<IpNet>,
    /// `nat64Prefixes`: where the network translates to IPv4.
    pub nat64_prefixes: Vec<Ipv6Net>,
    /// `defaultConfig.gatewayTopology.numTrustedProxies`.
    pub trusted_proxies: usize,
    /// `encapsulationPorts`: UDP ports at which in-cluster hosts may decapsulate packets.
    pub encapsulation_ports: BTreeSet<Port>,
    /// `localityLbSetting`, where a destination rule has none; `None` where it is switched off.
    pub locality_setting: Option<LocalitySetting>,
    /// `localities`: where gateways with these addresses are, the first one first.
    pub localities: Vec<(IpNet, Locality)>,
    /// Where nodes are, as the API server tells it.
    pub node_localities: HashMap<Arc<str>, Locality>,
    /// `refusals`: lines after the gateway's own in the body of a refusal.
    pub refusal_note: Option<Arc<str>>,
    /// `gateways`, in file order: their index is their group.
    pub gateways: Vec<GatewayGroup>,
    /// The addresses of the cluster's nodes, as the API server tells them.
    pub node_addresses: HashMap<IpAddr, Arc<str>>,
    /// Addresses by which the cluster's nodes are reached from outside, as the API server tells them.
    pub node_external_addresses: Vec<IpAddr>,
    /// `nodes`.
    pub nodes: Vec<Arc<Node>>,
    /// `workloads`.
    pub workloads: Vec<Arc<Workload>>,
}

impl MeshConfig {
    /// Where a host with these addresses is: as `localities` say, or as its node's labels do, whether it has the
    /// node's own address or that of a pod there.
    #[must_use]
    pub fn locality_of(&self, addresses: &[IpAddr]) -> Option<Locality> {
        let own: Vec<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
        let is_own = |ip: &IpAddr| own.contains(&ip.to_canonical());
        let given = self.localities.iter().find(|(net, _)| own.iter().any(|ip| net.contains(ip)));
        if let Some((_, given)) = given {
            return Some(given.clone());
        }
        let of_node = own.iter().find_map(|ip| self.node_addresses.get(ip));
        let of_pod = || {
            let pods = self.workloads.iter().filter(|pod| pod.node.is_some());
            pods.into_iter().find(|pod| pod.addresses.iter().any(is_own))?.node.as_ref()
        };
        if self.node_localities.is_empty() {
            return None;
        }
        self.node_localities.get(of_node.or_else(of_pod)?).cloned()
    }
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            egress_addresses: Vec::new(),
            outbound: OutboundMode::RegistryOnly,
            direct: Direct::Deny,
            encrypted_hello: EncryptedHello::default(),
            upgrades: Upgrades::WebSocket,
            path_normalization: PathNormalization::default(),
            enforcement: Enforcement::Enforce,
            overrides: Vec::new(),
            exemptions: Vec::new(),
            access_log_file: Some("/dev/stdout".into()),
            access_log_format: None,
            access_log_encoding: AccessLogEncoding::Text,
            tracing: false,
            stream_idle_timeout: None,
            forward_continue: true,
            address_drain_time: Duration::from_secs(5),
            key_groups: KeyGroups::default(),
            keepalive: None,
            trust_domain: TrustDomain::default(),
            root_namespace: Namespace("istio-system".into()),
            cluster_cidrs: Vec::new(),
            denied_cidrs: default_denied(),
            nat64_prefixes: Vec::new(),
            trusted_proxies: 0,
            encapsulation_ports: ENCAPSULATION_PORTS.into_iter().filter_map(Port::new).collect(),
            locality_setting: Some(LocalitySetting::default()),
            localities: Vec::new(),
            node_localities: HashMap::new(),
            refusal_note: None,
            gateways: Vec::new(),
            node_addresses: HashMap::new(),
            node_external_addresses: Vec::new(),
            nodes: Vec::new(),
            workloads: Vec::new(),
        }
    }
}

/// The UDP ports of protocols that carry packets and that hosts take them out of, by IANA's registry
/// and by the defaults of Linux and of what is usual in clusters: L2TP, GTP-U, AMT, Teredo, LISP, ESP
/// in UDP, GRE in UDP and the same with DTLS, VXLAN (of IANA, of Linux, with a generic protocol, of
/// Cisco), RDMA over Ethernet (RoCEv2), CAPWAP, FOU, GUE, Geneve, MPLS in UDP and the same with DTLS,
/// Weave, flannel's UDP, SCTP in UDP, WireGuard, and Cilium's.
pub const ENCAPSULATION_PORTS: [u16; 26] = [
    1701, 2152, 2268, 3544, 4341, 4342, 4500, 4754, 4755, 4789, 4790, 4791, 5247, 5555, 6080, 6081,
    6635, 6636, 6784, 8285, 8472, 9899, 48879, 51820, 51821, 51871,
];

/// `outboundTrafficPolicy.mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutboundMode {
    /// Hosts that aren't in the registry are refused.
    RegistryOnly,
    /// They are served by the gateway, as `PassthroughCluster`. Never directly.
    AllowAny,
}

/// `direct`: a service without a route through a gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direct {
    /// Refused.
    Deny,
    /// Served as a sidecar would.
    Registry,
}

/// `enforcement`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enforcement {
    /// Verdicts are carried out.
    Enforce,
    /// They are only reported.
    Audit,
    /// Refusals are only reported, and redirects carried out.
    AuditRedirect,
    /// There are none: nothing is judged. Only an exemption says so.
    Exempt,
}

impl Enforcement {
    /// As the configuration has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
            Self::AuditRedirect => "audit_redirect",
            Self::Exempt => "exempt",
        }
    }
}

/// One of `enforcementOverrides`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EnforcementOverride {
    /// Its name, unique and never [`DEFAULT_SET`].
    pub name: Arc<str>,
    /// Whom it is about.
    pub selector: Selector,
    /// How verdicts on them are carried out.
    pub mode: Enforcement,
}

/// The name of the set of workloads that no override is about.
pub const DEFAULT_SET: &str = "default";

/// Workloads whose verdicts are carried out in one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkloadSet<'a> {
    /// What it is called in `status`, metrics, events and the log.
    pub name: &'a str,
    /// How verdicts are carried out.
    pub mode: Enforcement,
    /// Who is in it, unless another set has them; `None` is everybody else.
    pub selector: Option<&'a Selector>,
    /// What they reach past the gateways, and nothing else that is external; `None` where the routes of
    /// everybody count.
    pub to: Option<&'a [ExemptDestination]>,
}

impl MeshConfig {
    /// All sets of workloads, the default first. A set's place in this list is the number of its
    /// policy in the kernel.
    pub fn sets(&self) -> impl Iterator<Item = WorkloadSet<'_>> {
        let mode = self.enforcement;
        let default = WorkloadSet { name: DEFAULT_SET, mode, selector: None, to: None };
        let others = self.overrides.iter().map(|set| WorkloadSet {
            name: &set.name,
            mode: set.mode,
            selector: Some(&set.selector),
            to: None,
        });
        let exempt = self.exemptions.iter().map(|set| WorkloadSet {
            name: &set.name,
            mode: if set.to.is_some() { Enforcement::Enforce } else { Enforcement::Exempt },
            selector: Some(&set.selector),
            to: set.to.as_deref(),
        });
        std::iter::once(default).chain(others).chain(exempt)
    }

    /// Whether any workload is under enforcement.
    #[must_use]
    pub fn enforces(&self) -> bool {
        self.sets().any(|set| set.mode == Enforcement::Enforce)
    }

    /// The place of the workload's set in [`Self::sets`].
    #[must_use]
    pub fn set_of(&self, workload: &Workload) -> usize {
        let exempt = self.exemptions.iter().position(|set| set.is_for(workload));
        if let Some(index) = exempt {
            return index + 1 + self.overrides.len();
        }
        let mine = |set: &EnforcementOverride| set.selector.matches(workload);
        self.overrides.iter().position(mine).map_or(0, |index| index + 1)
    }
}

/// A gateway service: name, labels of its processes, endpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayGroup {
    /// Its fully qualified name.
    pub service: Host,
    /// Labels of its processes.
    pub labels: Labels,
    /// Their addresses, healthy or not.
    pub endpoints: Vec<IpAddr>,
    /// Further addresses of their hosts, where nothing is sent.
    pub other_addresses: Vec<IpAddr>,
    /// The identity of its processes, where it is known (`gateways[].principal`).
    pub principal: Option<SpiffeId>,
    /// How a node proves itself to it, and it to the node, where a destination rule asks for that
    /// on any port.
    pub tunnel: Option<Arc<TunnelTls>>,
    /// The hop of traffic that no route leads to one of its ports.
    pub hop: Hop,
}

/// What the node lets out, and where to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodePolicy {
    /// All routes; where two cover a flow the longer prefix wins.
    pub routes: Vec<NodeRoute>,
    /// The resources that they are of, one a route: `VirtualService default/name`.
    pub origins: Vec<Arc<str>>,
}

/// One route of the node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NodeRoute {
    /// The port that the application dials; `None` is every port (`ALLOW_ANY`).
    pub port: Option<OriginalPort>,
    /// Which addresses it is for.
    pub target: DirectTarget,
    /// What happens.
    pub action: NodeAction,
}

/// What happens to a flow that a [`NodeRoute`] covers. All of them are TCP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NodeAction {
    /// To a gateway of the group with this index, keeping the port.
    Redirect {
        /// Index in [`MeshConfig::gateways`].
        group: usize,
        /// The port at the gateway where it differs (raw TCP services).
        port: Option<GatewayPort>,
        /// Whether it goes there as it is, or through the tunnel.
        hop: Hop,
    },
    /// Straight to the address it asked for.
    Direct,
}
