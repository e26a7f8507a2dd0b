//! Mirror of `mesh.yaml`: mesh-wide settings, with Istio's names where MeshConfig has one.

use std::time::Duration;

use super::{
    decode::{Dict, List, Records, Spanned, choice, record},
    destination_rule::TcpKeepalive,
    load_balancer::LocalityLbSetting,
};
use crate::types::Port;

record! {
    /// `mesh.yaml`.
    struct Mesh {
        /// What happens to hosts that no service entry names.
        "outboundTrafficPolicy" outbound_traffic_policy: Option<OutboundTrafficPolicy> = "`REGISTRY_ONLY`",
        /// How paths are normalised before rules are asked.
        "pathNormalization" path_normalization: Option<PathNormalization> = "`BASE`",
        /// What becomes of TLS that is forwarded with an encrypted ClientHello inside (ECH), or with random bytes in its place, as current browsers send to every server: `deny` refuses it. The outer server name decides in any case; the log marks it.
        "encryptedClientHello" encrypted_client_hello: Option<Spanned<HelloChoice>> = "`allow`",
        /// Whether a client may upgrade its connection to WebSocket where no virtual service says it. Other protocols need `websocketUpgrade: true`, or a match on the header `upgrade`. Egress policies allow WebSocket likewise, and no other protocol.
        "webSocket" web_socket: Option<Spanned<WebSocketChoice>> = "`allow`",
        /// Where the gateway's access log goes: a file, or none where empty.
        "accessLogFile" access_log_file: Option<Spanned<String>> = "`/dev/stdout`",
        /// Its format: Envoy's operators; `istio` stands for Istio's format, `envoy` for Envoy's default.
        "accessLogFormat" access_log_format: Option<Spanned<String>> = "Istio's format",
        /// Its encoding.
        "accessLogEncoding" access_log_encoding: Option<Spanned<Encoding>> = "`TEXT`",
        /// Whether the gateway makes a span of each HTTP request, and passes the trace on in `traceparent` (W3C). Spans go where the gateway's environment says (`OTEL_EXPORTER_OTLP_ENDPOINT`); without it this has no effect.
        "enableTracing" enable_tracing: Option<Spanned<bool>> = "`false`",
        /// How long an HTTP request may go without a byte of its body or of its response, in either direction. A route's longer `timeout` takes its place for that route.
        "streamIdleTimeout" stream_idle_timeout: Option<Spanned<Duration>> = "`5m`",
        /// Whether a request with `Expect: 100-continue` is forwarded with it, and the upstream's answer relayed (RFC 9110 section 10.1.1). With `false` the gateway answers `100 Continue` itself once the request has a route, and takes the expectation out.
        "proxy100Continue" proxy_100_continue: Option<Spanned<bool>> = "`true`",
        /// How long the gateway keeps an HTTP connection that waits for a request after its address has left the host's DNS answer. Requests take other connections at once; an HTTP/2 connection ends with its last request. TCP and TLS connections that are relayed stay.
        "addressDrainTime" address_drain_time: Option<Spanned<Duration>> = "`5s`",
        /// Probes of the gateway on silent connections to external hosts, where a destination rule doesn't set them.
        "tcpKeepalive" tcp_keepalive: Option<TcpKeepalive> = "as each field says",
        /// TLS of gateways and nodes, towards external hosts, of servers that terminate TLS, and of tunnels.
        "tlsDefaults" tls_defaults: Option<TlsDefaults> = "as each field says",
        /// The trust domain of identities.
        "trustDomain" trust_domain: Option<Spanned<String>> = "`cluster.local`",
        /// The namespace of mesh-wide settings.
        "rootNamespace" root_namespace: Option<Spanned<String>> = "`istio-system`",
        /// How verdicts are carried out: `audit` reports what would be refused, and lets it pass.
        "enforcement" enforcement: Option<Spanned<Enforcing>> = "`enforce`",
        /// With `enforcement: audit`: redirects are carried out, so that gateways see and decide what would go there. Enforcement always redirects.
        "redirect" redirect: Option<Spanned<bool>> = "`false`",
        /// Sets of workloads with a mode of their own; the first that a workload is in counts.
        "enforcementOverrides" enforcement_overrides: Records<MeshOverride> = "none",
        /// Workloads of the platform that reach something past the gateways: the cluster's DNS servers their upstreams, network plug-ins what they need. The first that a workload is in counts, before all of `enforcementOverrides`. The agent logs each and `status` shows it.
        "exemptions" exemptions: Records<MeshExemption> = "none",
        /// What happens to a service that no route leads through a gateway: `deny` refuses it, `registry` serves it as a sidecar would.
        "direct" direct: Option<Spanned<DirectMode>> = "`deny`",
        /// Networks inside the cluster: pods, services, nodes. Traffic to them is not egress.
        "clusterCidrs" cluster_cidrs: List<String> = "none",
        /// Whether the networks that an API server tells of are inside too: of pods and nodes by its nodes, of Services by its ServiceCIDRs, and both by kubeadm's ConfigMap. With `false` only `clusterCidrs` are.
        "discoverClusterCidrs" discover_cluster_cidrs: Option<Spanned<bool>> = "`true`",
        /// Networks refused in any case, besides the cloud's metadata services (`169.254.0.0/16`, `fe80::/10`, `fd00:ec2::254/128`, `100.100.100.200/32`, `168.63.129.16/32`).
        "deniedCidrs" denied_cidrs: List<String> = "none",
        /// Prefixes under which this network's NAT64 reaches IPv4 (RFC 6052), besides `64:ff9b::/96` and `64:ff9b:1::/48`: an address below one is judged by the IPv4 address in it. Of 32, 40, 48, 56, 64 or 96 bits.
        "nat64Prefixes" nat64_prefixes: List<String> = "none",
        /// Istio's settings of proxies; here for the gateway.
        "defaultConfig" default_config: Option<DefaultConfig> = "none",
        /// UDP ports at which in-cluster hosts may decapsulate packets (VXLAN, Geneve, WireGuard, …) and forward them: closed to workloads, at every in-cluster address. The list replaces the default.
        "encapsulationPorts" encapsulation_ports: Option<List<Port>> = "`1701`, `2152`, `2268`, `3544`, `4341`, `4342`, `4500`, `4754`, `4755`, `4789`, `4790`, `4791`, `5247`, `5555`, `6080`, `6081`, `6635`, `6636`, `6784`, `8285`, `8472`, `9899`, `48879`, `51820`, `51821`, `51871`",
        /// Addresses of the gateway that it dials from, for certain workloads or routes, so that external hosts see tenants apart. The first entry that selects a workload counts; the annotation `egress-enforcer.io/egress-address` of a virtual service, and then that of a gateway, comes before.
        "egressAddresses" egress_addresses: Records<MeshEgressAddresses> = "as the host's routes say",
        /// Which endpoints of external services gateways prefer for where they are, where a destination rule doesn't say it.
        "localityLbSetting" locality_setting: Option<LocalityLbSetting> = "the nearest, with `outlierDetection`",
        /// Where gateways are: the first entry with an address of the gateway's host counts. With an API server the labels of its node say the same (`topology.kubernetes.io/region`, `topology.kubernetes.io/zone`, `topology.istio.io/subzone`).
        "localities" localities: Records<MeshLocality> = "none",
        /// What the operator adds to the refusals of HTTP requests, for the people who meet them.
        "refusals" refusals: Option<Refusals> = "none",
        /// The gateway services, where there is no Kubernetes to ask.
        "gateways" gateways: Records<MeshGateway> = "none",
        /// The application nodes, where there is no Kubernetes to ask: who may speak for the workloads there, through the tunnel to a gateway.
        "nodes" nodes: Records<MeshNode> = "none",
        /// The identity that node agents prove to gateways, a SPIFFE ID of the mesh's trust domain. With `--source kubernetes` it makes every node of the API server one of `nodes`, with its addresses of type `InternalIP`: its agent may speak for the pods that the API server has on that node.
        "nodePrincipal" node_principal: Option<Spanned<String>> = "none",
        /// The workloads, where there is no Kubernetes to ask.
        "workloads" workloads: Records<MeshWorkload> = "none",
    }
    unsupported {
        "connectTimeout": Warning, "set `connectionPool.tcp.connectTimeout` in a destination rule";
        "discoverySelectors": Warning, "all files are read";
        "extensionProviders": Warning, "there are none";
    }
}

record! {
    /// `refusals`. It follows the gateway's own line in the body of the answer.
    struct Refusals {
        /// A sentence or two, on one line: whom to ask, for example. At most 500 bytes.
        "message" message: Option<Spanned<String>> = "none",
        /// Where to read more or to ask for access: a URL.
        "link" link: Option<Spanned<String>> = "none",
    }
}

record! {
    /// `tlsDefaults`.
    struct TlsDefaults {
        /// The groups of the key exchange, the preferred one first. A list without `X25519MLKEM768` (a hybrid with ML-KEM, which protects what is recorded today from tomorrow's quantum computers) switches it off.
        "ecdhCurves" ecdh_curves: Option<List<Curve>> = "`X25519MLKEM768`, `X25519`, `P-256`, `P-384`",
    }
    unsupported {
        "minProtocolVersion": Warning, "TLS 1.2 and 1.3 are spoken; a server's own `tls.minProtocolVersion` counts";
        "cipherSuites": Warning, "a server's own `tls.cipherSuites` counts";
    }
}

choice! {
    /// `tlsDefaults.ecdhCurves`.
    enum Curve {
        /// Hybrid with ML-KEM.
        X25519MlKem768 = "X25519MLKEM768",
        /// RFC 7748.
        X25519 = "X25519",
        /// `secp256r1`.
        P256 = "P-256",
        /// `secp384r1`.
        P384 = "P-384",
    }
}

record! {
    /// `outboundTrafficPolicy`.
    struct OutboundTrafficPolicy {
        /// `REGISTRY_ONLY` refuses them; `ALLOW_ANY` lets them pass through the gateway, never directly.
        "mode" mode: Option<Spanned<Outbound>> = "`REGISTRY_ONLY`",
    }
}

choice! {
    /// `outboundTrafficPolicy.mode`.
    enum Outbound {
        /// Refuse unknown hosts.
        RegistryOnly = "REGISTRY_ONLY",
        /// Serve them.
        AllowAny = "ALLOW_ANY",
    }
}

record! {
    /// `defaultConfig`. Other settings of sidecars have no effect.
    struct DefaultConfig {
        /// What is in front of the gateway.
        "gatewayTopology" gateway_topology: Option<GatewayTopology> = "nothing",
    }
}

record! {
    /// `defaultConfig.gatewayTopology`.
    struct GatewayTopology {
        /// How many trusted proxies are between applications and the gateway: so many addresses at the end of `X-Forwarded-For` are logged, before the peer's. They are never forwarded.
        "numTrustedProxies" num_trusted_proxies: Option<Spanned<u32>> = "`0`",
    }
}

record! {
    /// `pathNormalization`. The normalised path is what rules match, what is rewritten, forwarded and logged; queries are never touched.
    struct PathNormalization {
        /// `NONE` leaves paths as they come. `BASE` (`DEFAULT`) decodes unreserved characters, resolves dot segments and turns backslashes into slashes. `MERGE_SLASHES` makes one of repeated slashes, too. `DECODE_AND_MERGE_SLASHES` decodes `%2F` and `%5C` before.
        "normalization" normalization: Option<Spanned<Normalization>> = "`BASE`",
    }
}

choice! {
    /// `pathNormalization.normalization`.
    enum Normalization {
        /// As `BASE`.
        Default = "DEFAULT",
        /// Nothing.
        None = "NONE",
        /// RFC 3986.
        Base = "BASE",
        /// And slashes.
        MergeSlashes = "MERGE_SLASHES",
        /// And encoded slashes.
        DecodeAndMergeSlashes = "DECODE_AND_MERGE_SLASHES",
    }
}

choice! {
    /// `encryptedClientHello`, of the mesh or of a server.
    enum HelloChoice {
        /// Forward.
        Allow = "allow",
        /// Refuse.
        Deny = "deny",
    }
}

choice! {
    /// `webSocket`.
    enum WebSocketChoice {
        /// As in Istio.
        Allow = "allow",
        /// Refuse.
        Deny = "deny",
    }
}

choice! {
    /// `accessLogEncoding`.
    enum Encoding {
        /// Lines of text.
        Text = "TEXT",
        /// JSON objects.
        Json = "JSON",
    }
}

choice! {
    /// `enforcement`, of the mesh or of a set of workloads.
    enum Enforcing {
        /// Carry out verdicts.
        Enforce = "enforce",
        /// Report them.
        Audit = "audit",
    }
}

choice! {
    /// `direct`.
    enum DirectMode {
        /// Refuse.
        Deny = "deny",
        /// Serve.
        Registry = "registry",
    }
}

record! {
    /// A set of workloads with its mode. One without `namespaces` and `labels` is refused.
    struct MeshOverride {
        /// Its name in `status`, metrics and the log: letters, digits, `-`, `_` and `.`, at most 63. `default` is taken by the workloads that are in no set.
        "name" name: Option<Spanned<String>> = required,
        /// The workloads in any of these namespaces.
        "namespaces" namespaces: Option<List<String>> = "no condition",
        /// The workloads with all of these labels.
        "labels" labels: Dict<Spanned<String>> = "no condition",
        /// How verdicts on them are carried out.
        "mode" mode: Option<Spanned<Enforcing>> = required,
        /// With `mode: audit`: redirects are carried out, so that gateways see and decide what would go there.
        "redirect" redirect: Option<Spanned<bool>> = "`false`",
    }
}

record! {
    /// Addresses to dial from. One without `namespaces` and `labels` is for virtual services of any namespace that name it.
    struct MeshEgressAddresses {
        /// Its name.
        "name" name: Option<Spanned<String>> = required,
        /// Addresses of the gateway's host. A workload keeps to one of each family: each pod by itself, all addresses of one entry of `workloads` together. What the gateway does not have, or has of another family only, is refused (`egress_address_unavailable`).
        "addresses" addresses: List<String> = required,
        /// The workloads in any of these namespaces.
        "namespaces" namespaces: List<String> = "no condition",
        /// The workloads with all of these labels.
        "labels" labels: Dict<Spanned<String>> = "no condition",
    }
}

record! {
    /// Where gateways with these addresses are.
    struct MeshLocality {
        /// `region/zone/subzone`, or its first parts.
        "locality" locality: Option<Spanned<String>> = required,
        /// Addresses (IP or CIDR) of gateways' hosts.
        "addresses" addresses: List<String> = required,
    }
}

record! {
    /// Workloads that reach something past the gateways. One needs `namespaces`, and `labels` or `serviceAccounts`: whoever may make such a pod has the exemption.
    struct MeshExemption {
        /// Its name, of the same form as that of an override, and unique among both.
        "name" name: Option<Spanned<String>> = required,
        /// The workloads in any of these namespaces.
        "namespaces" namespaces: Option<List<String>> = required,
        /// The workloads with all of these labels.
        "labels" labels: Dict<Spanned<String>> = "no condition",
        /// The workloads with any of these service accounts.
        "serviceAccounts" service_accounts: List<String> = "no condition",
        /// What they reach past the gateways. Nothing else that is external is open to them, not what routes lead to either. Without it, nothing of theirs is judged.
        "to" to: Option<Records<ExemptTo>> = "everything",
    }
}

record! {
    /// What an exempt workload reaches.
    struct ExemptTo {
        /// The networks. `deniedCidrs` stay closed.
        "cidrs" cidrs: List<String> = required,
        /// The ports.
        "ports" ports: Records<ExemptPort> = required,
    }
}

record! {
    /// A port of `exemptions[].to`.
    struct ExemptPort {
        /// Its number.
        "port" port: Option<Spanned<Port>> = required,
        /// `TCP` or `UDP`.
        "protocol" protocol: Option<Spanned<ExemptProtocol>> = "`TCP`",
    }
}

choice! {
    /// The protocol of a port of `exemptions[].to`.
    enum ExemptProtocol {
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
    }
}

record! {
    /// A gateway service.
    struct MeshGateway {
        /// Its full name, as destinations give it.
        "service" service: Option<Spanned<String>> = required,
        /// Labels of its processes. With `--source kubernetes`, the selector of the Service of this name where they are left out.
        "labels" labels: Dict<Spanned<String>> = "the Service's, in Kubernetes; required otherwise",
        /// Their addresses. With `--source kubernetes`, those of the Service of this name where it is left out.
        "endpoints" endpoints: Option<List<String>> = "the Service's, in Kubernetes; required otherwise",
        /// Further addresses of their hosts: of the other family, or of a second interface. No traffic is sent there, and workloads reach none of their ports.
        "otherAddresses" other_addresses: List<String> = "none",
        /// Their identity, a SPIFFE ID. Without it, a node accepts any identity of the service's namespace in the trust domain.
        "principal" principal: Option<Spanned<String>> = "any of the namespace",
    }
}

record! {
    /// An application node.
    struct MeshNode {
        /// Its name, which workloads give.
        "name" name: Option<Spanned<String>> = required,
        /// The identity that its agent proves to gateways, a SPIFFE ID of the mesh's trust domain.
        "principal" principal: Option<Spanned<String>> = required,
        /// The addresses that its agent speaks from. Nodes that share an identity are told apart by them.
        "addresses" addresses: List<String> = "any",
    }
}

record! {
    /// A workload.
    struct MeshWorkload {
        /// Its name.
        "name" name: Option<Spanned<String>> = required,
        /// Its namespace.
        "namespace" namespace: Option<Spanned<String>> = "`default`",
        /// Its labels.
        "labels" labels: Dict<Spanned<String>> = "none",
        /// Its addresses. A workload on the host's network has none of its own: leave them out there.
        "addresses" addresses: List<String> = "none",
        /// Its cgroups, as paths below the cgroup2 mount (`/pods/web`), each with all cgroups below it that no other workload names. One that doesn't exist yet is found when it appears.
        "cgroups" cgroups: List<String> = "none",
        /// The host side of its interface, by name. Where `--pod-interface` gives a pattern, it tells whose the interface is.
        "interface" interface: Option<Spanned<String>> = "none",
        /// The node that it runs on, by its name in `nodes`. Without it, no node may speak for it through the tunnel.
        "node" node: Option<Spanned<String>> = "none",
        /// Its service account, which is part of its identity.
        "serviceAccount" service_account: Option<Spanned<String>> = "`default`",
    }
}
