//! `mesh.yaml` to mesh-wide settings.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use super::super::{
    Discovered, RawFile,
    decode::{Cx, List, Report, SourcePosition, Spanned},
    log_format::LogFormat,
    mesh::{
        Curve, DirectMode, Encoding, HelloChoice, Mesh, MeshGateway, Normalization, Outbound,
        WebSocketChoice,
    },
    names,
    resource::documents,
};
use super::{
    egress_addresses, exemptions, keepalive::keepalive, locality, nodes, refusals, two_modes,
    workloads,
};
use crate::{
    policy::{
        AccessLogEncoding, Direct, EncryptedHello, GatewayGroup, Hop, KeyGroup, KeyGroups,
        Locality, LocalitySetting, MeshConfig, OutboundMode, PathNormalization, Upgrades,
        is_nat64_prefix,
    },
    types::{Host, Namespace, TrustDomain},
};

/// Endpoints that the kernel's map holds for a gateway.
const MAX_ENDPOINTS: usize = egress_ebpf::abi::GROUP_ENDPOINTS;

/// Where the file names its gateways, for what is found later.
#[derive(Default)]
pub(super) struct GatewayPositions {
    pub(super) file: String,
    /// In the order of [`MeshConfig::gateways`], if all of them can be read.
    pub(super) gateways: Vec<SourcePosition>,
    /// Only `clusterCidrs` are inside.
    only_given: bool,
}

/// Compiles the file; where there is none, or it can't be read, the defaults.
pub(super) fn compile(
    file: Option<&RawFile>,
    discovered: &Discovered,
    report: &mut Report,
) -> (MeshConfig, GatewayPositions) {
    let (mut mesh, places) = read(file, discovered, report);
    if !places.only_given {
        for net in &discovered.cluster_cidrs {
            if !mesh.cluster_cidrs.contains(net) {
                mesh.cluster_cidrs.push(*net);
            }
        }
    }
    let name = file.map_or("mesh.yaml", |file| file.path.as_str());
    let mut cx = Cx { report, file: name, resource: None };
    doubt(&mesh.cluster_cidrs, &places, discovered, &mut cx);
    (mesh, places)
}

/// Says what of the cluster's networks was found and cannot be right, and what is missing. Both are external,
/// and so denied.
fn doubt(inside: &[IpNet], places: &GatewayPositions, discovered: &Discovered, cx: &mut Cx<'_>) {
    let at = SourcePosition::root(1, "clusterCidrs");
    if !places.only_given {
        for net in &discovered.refused_cidrs {
            let message = format!(
                "the API server tells of the network {net}, which no cluster can have; it is external. \
                 Name the cluster's networks here"
            );
            cx.warn(&at, message);
        }
    }
    let is_inside = |addr: &&IpAddr| inside.iter().any(|net| net.contains(*addr));
    if let Some(addr) = discovered.api_service.iter().find(|addr| !is_inside(addr)) {
        let message = format!(
            "the Service kubernetes has the address {addr}, which is in no network of the cluster that is \
             known: what pods send to Services is refused. Name the network of Services here"
        );
        cx.warn(&at, message);
    }
}

fn read(
    file: Option<&RawFile>,
    discovered: &Discovered,
    report: &mut Report,
) -> (MeshConfig, GatewayPositions) {
    let Some(file) = file else { return Default::default() };
    let mut documents = documents(file, report);
    let mut cx = Cx { report, file: &file.path, resource: None };
    if documents.len() > 1 {
        cx.error(&SourcePosition::root(documents[1].line, ""), "mesh.yaml has one document");
    }
    if documents.is_empty() {
        return Default::default();
    }
    let node = documents.swap_remove(0);
    // Istio's own file wraps the settings where it belongs to an installation.
    let (node, name) = match node.get("meshConfig") {
        Some(inner) => (inner, "meshConfig"),
        None => (&node, ""),
    };
    match Mesh::decode_record(node, &SourcePosition::root(node.line, name), &mut cx) {
        Some(mesh) => {
            let gateways = mesh.gateways.0.iter().map(|gateway| gateway.at.clone()).collect();
            let only_given =
                mesh.discover_cluster_cidrs.as_ref().is_some_and(|discover| !discover.value);
            let places = GatewayPositions { file: file.path.clone(), gateways, only_given };
            (settings(mesh, discovered, &mut cx), places)
        }
        None => Default::default(),
    }
}

fn settings(mesh: Mesh, discovered: &Discovered, cx: &mut Cx<'_>) -> MeshConfig {
    let Mesh {
        at: _,
        outbound_traffic_policy,
        path_normalization,
        encrypted_client_hello,
        web_socket,
        access_log_file,
        access_log_format,
        access_log_encoding,
        enable_tracing,
        stream_idle_timeout,
        proxy_100_continue,
        address_drain_time,
        tcp_keepalive,
        tls_defaults,
        trust_domain,
        root_namespace,
        enforcement,
        redirect,
        enforcement_overrides,
        exemptions: exempt,
        direct,
        cluster_cidrs,
        discover_cluster_cidrs: _,
        denied_cidrs,
        nat64_prefixes,
        default_config,
        encapsulation_ports,
        egress_addresses,
        locality_setting,
        localities,
        refusals,
        gateways,
        nodes,
        node_principal,
        workloads: named,
    } = mesh;
    let default = MeshConfig::default();
    let outbound = outbound_traffic_policy.and_then(|policy| policy.mode);
    let encoding = match access_log_encoding.map(|encoding| encoding.value) {
        None | Some(Encoding::Text) => AccessLogEncoding::Text,
        Some(Encoding::Json) => AccessLogEncoding::Json,
    };
    if let Some(format) = &access_log_format
        && let Err(error) = LogFormat::compile(Some(&format.value), encoding)
    {
        cx.error(&format.at, error.to_string());
    }
    let mut denied = default.denied_cidrs;
    denied.extend(networks(&denied_cidrs, cx));
    let trust_domain = trust_domain
        .and_then(|domain| names::trust_domain(&domain, cx))
        .unwrap_or(default.trust_domain);
    let nodes = nodes::nodes(&nodes.0, &trust_domain, cx);
    let principal = node_principal.and_then(|text| nodes::principal(&text, &trust_domain, cx));
    let nodes = nodes::with_found(nodes, principal.as_ref(), &discovered.nodes);
    let workloads = workloads::workloads(&named.0, &nodes, cx);
    let overrides = workloads::overrides(&enforcement_overrides.0, &workloads, cx);
    let exemptions = exemptions::exemptions(&exempt.0, &overrides, cx);
    let settings = MeshConfig {
        egress_addresses: egress_addresses::sets(&egress_addresses.0, cx),
        outbound: match outbound.map(|mode| mode.value) {
            None | Some(Outbound::RegistryOnly) => OutboundMode::RegistryOnly,
            Some(Outbound::AllowAny) => OutboundMode::AllowAny,
        },
        direct: match direct.map(|direct| direct.value) {
            None | Some(DirectMode::Deny) => Direct::Deny,
            Some(DirectMode::Registry) => Direct::Registry,
        },
        encrypted_hello: encrypted_hello(encrypted_client_hello.as_ref()).unwrap_or_default(),
        upgrades: match web_socket.map(|choice| choice.value) {
            None | Some(WebSocketChoice::Allow) => Upgrades::WebSocket,
            Some(WebSocketChoice::Deny) => Upgrades::Nothing,
        },
        path_normalization: match path_normalization
            .and_then(|paths| paths.normalization)
            .map(|normalization| normalization.value)
        {
            Some(Normalization::None) => PathNormalization::None,
            None | Some(Normalization::Default | Normalization::Base) => PathNormalization::Base,
            Some(Normalization::MergeSlashes) => PathNormalization::MergeSlashes,
            Some(Normalization::DecodeAndMergeSlashes) => PathNormalization::DecodeAndMergeSlashes,
        },
        enforcement: workloads::mode(enforcement.as_ref(), redirect.as_ref(), "everything", cx),
        overrides,
        exemptions,
        access_log_file: match access_log_file {
            None => default.access_log_file,
            Some(file) => (!file.value.is_empty()).then_some(file.value),
        },
        access_log_format: access_log_format.map(|format| format.value),
        access_log_encoding: encoding,
        tracing: enable_tracing.map_or(default.tracing, |enable| enable.value),
        stream_idle_timeout: stream_idle_timeout.and_then(|timeout| {
            if timeout.value.is_zero() {
                let message = "a request whose peers are gone would never end; give a long time";
                cx.wrong(&timeout.at, "0", "a duration above 0", message);
            }
            (!timeout.value.is_zero()).then_some(timeout.value)
        }),
        forward_continue: proxy_100_continue
            .map_or(default.forward_continue, |forward| forward.value),
        address_drain_time: address_drain_time
            .map_or(default.address_drain_time, |time| time.value),
        key_groups: tls_defaults
            .and_then(|tls| tls.ecdh_curves)
            .map_or(default.key_groups, |curves| key_groups(&curves, cx)),
        keepalive: tcp_keepalive.as_ref().map(|settings| keepalive(settings, cx)),
        root_namespace: root_namespace
            .map_or(default.root_namespace, |name| Namespace(name.value.into())),
        cluster_cidrs: networks(&cluster_cidrs, cx),
        denied_cidrs: denied,
        nat64_prefixes: translated(&nat64_prefixes, cx),
        trusted_proxies: default_config
            .and_then(|config| config.gateway_topology)
            .and_then(|topology| topology.num_trusted_proxies)
            .map_or(0, |number| usize::try_from(number.value).unwrap_or(usize::MAX)),
        encapsulation_ports: encapsulation_ports.map_or(default.encapsulation_ports, |ports| {
            ports.iter().map(|port| port.value).collect()
        }),
        locality_setting: match &locality_setting {
            Some(given) => locality::setting(given, cx),
            None => Some(LocalitySetting::default()),
        },
        localities: locality::of_gateways(&localities.0, cx),
        node_localities: discovered
            .localities
            .iter()
            .map(|(node, text)| (node.as_str().into(), Locality::parse(text)))
            .collect(),
        refusal_note: refusals.and_then(|refusals| refusals::note(&refusals, cx)),
        gateways: groups(&gateways.0, &trust_domain, discovered, cx),
        nodes,
        node_addresses: nodes::addresses_of(&discovered.nodes),
        node_external_addresses: discovered.external_addresses.clone(),
        trust_domain,
        workloads,
    };
    two_modes::warn(&named.0, &settings, cx);
    settings
}

fn networks(list: &List<String>, cx: &mut Cx<'_>) -> Vec<IpNet> {
    list.iter().filter_map(|text| names::network(text, cx)).collect()
}

/// The choice, where one is made.
pub(super) fn encrypted_hello(choice: Option<&Spanned<HelloChoice>>) -> Option<EncryptedHello> {
    choice.map(|choice| match choice.value {
        HelloChoice::Allow => EncryptedHello::Allow,
        HelloChoice::Deny => EncryptedHello::Deny,
    })
}

fn key_groups(curves: &List<Curve>, cx: &mut Cx<'_>) -> KeyGroups {
    let mut groups = Vec::new();
    for curve in curves {
        let group = match curve.value {
            Curve::X25519MlKem768 => KeyGroup::X25519MlKem768,
            Curve::X25519 => KeyGroup::X25519,
            Curve::P256 => KeyGroup::P256,
            Curve::P384 => KeyGroup::P384,
        };
        if groups.contains(&group) {
            cx.error(&curve.at, format!("{} is listed twice", group.name()));
        }
        groups.push(group);
    }
    // An empty list is none, as in Istio.
    if groups.is_empty() { KeyGroups::default() } else { KeyGroups(groups.into()) }
}

fn translated(list: &List<String>, cx: &mut Cx<'_>) -> Vec<Ipv6Net> {
    let mut prefixes = Vec::new();
    for text in list {
        let Some(net) = names::network(text, cx) else { continue };
        match is_nat64_prefix(&net) {
            Some(net) => prefixes.push(net),
            None => {
                let expected = "an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits";
                let found = format!("{:?}", text.value);
                cx.wrong(&text.at, found, expected, "no prefix of NAT64 (RFC 6052 section 2.2)");
            }
        }
    }
    prefixes
}

fn groups(
    gateways: &[MeshGateway],
    trust_domain: &TrustDomain,
    discovered: &Discovered,
    cx: &mut Cx<'_>,
) -> Vec<GatewayGroup> {
    let mut groups: Vec<GatewayGroup> = Vec::new();
    for MeshGateway { at, service, labels, endpoints, other_addresses, principal } in gateways {
        let Some(service) = service else { continue };
        let Some(name) = names::host(service, cx) else { continue };
        if groups.iter().any(|group| group.service == name) {
            cx.error(&service.at, format!("the gateway {name} is listed twice"));
            continue;
        }
        let found = discovered.gateways.as_ref();
        let found = found.and_then(|gateways| gateways.get(&name.to_string()));
        let endpoints_at = at.field("endpoints");
        let endpoints = match (endpoints, found) {
            (Some(endpoints), _) => names::addresses(endpoints, cx),
            (None, Some(found)) => found.endpoints.clone(),
            (None, None) => {
                no_endpoints(&endpoints_at, &name, discovered, cx);
                Vec::new()
            }
        };
        if endpoints.len() > MAX_ENDPOINTS {
            let found = endpoints.len().to_string();
            cx.wrong(
                &endpoints_at,
                found,
                format!("at most {MAX_ENDPOINTS}"),
                "too many endpoints",
            );
        }
        let mut labels = names::labels(labels);
        if let Some(found) = found.filter(|_| labels.is_empty()) {
            labels.clone_from(&found.labels);
        }
        if labels.is_empty() && (found.is_some() || discovered.gateways.is_none()) {
            let message = "without labels no process would belong to this gateway";
            cx.error(&at.field("labels"), message);
        }
        let principal = principal.as_ref();
        groups.push(GatewayGroup {
            service: name,
            labels,
            endpoints,
            // A Service's own address leads to the gateway's ports by another way.
            other_addresses: names::addresses(other_addresses, cx)
                .into_iter()
                .chain(found.into_iter().flat_map(|found| found.other_addresses.iter().copied()))
                .collect(),
            principal: principal.and_then(|text| nodes::principal(text, trust_domain, cx)),
            // Both come from the destination rules for the service.
            tunnel: None,
            hop: Hop::Plain,
        });
    }
    groups
}

/// A gateway that nothing says anything of: a mistake in files; in a cluster its Service may still come.
fn no_endpoints(at: &SourcePosition, name: &Host, discovered: &Discovered, cx: &mut Cx<'_>) {
    if discovered.gateways.is_none() {
        cx.wrong(at, "nothing", "a list of addresses", "the field \"endpoints\" is missing");
    } else {
        let message = format!(
            "there is no Service {name} in the gateways' namespace; what is routed to it is refused"
        );
        cx.warn(at, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile_in;

    fn compiled(text: &str, discovered: &Discovered) -> (Vec<IpNet>, String) {
        let file = RawFile { path: "mesh.yaml".into(), text: text.into() };
        let compiled = compile_in(discovered, &[], Some(&file)).unwrap();
        let warned: Vec<String> = compiled.warnings.iter().map(ToString::to_string).collect();
        (compiled.snapshot.mesh.cluster_cidrs, warned.join("\n"))
    }

    #[test]
    fn what_is_found_is_inside_unless_only_what_is_given_is() {
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>();
        let discovered = Discovered {
            gateways: Some(Default::default()),
            cluster_cidrs: nets(&["10.96.0.0/12"]),
            refused_cidrs: nets(&["0.0.0.0/0"]),
            api_service: vec!["10.96.0.1".parse().unwrap()],
            nodes: Default::default(),
            external_addresses: Vec::new(),
            localities: Default::default(),
        };
        let (inside, warned) = compiled("clusterCidrs: [10.244.0.0/16]\n", &discovered);
        assert_eq!(inside, nets(&["10.244.0.0/16", "10.96.0.0/12"]));
        assert!(warned.contains("0.0.0.0/0, which no cluster can have"), "{warned}");
        assert!(!warned.contains("Service kubernetes"), "{warned}");
        let alone = "clusterCidrs: [10.244.0.0/16]\ndiscoverClusterCidrs: false\n";
        let (inside, warned) = compiled(alone, &discovered);
        assert_eq!(inside, nets(&["10.244.0.0/16"]));
        assert!(warned.contains("the address 10.96.0.1, which is in no network"), "{warned}");
        assert!(!warned.contains("0.0.0.0/0"), "{warned}");
        // Nothing is found: nothing is inside, and that is said.
        let nothing = Discovered { cluster_cidrs: Vec::new(), ..discovered };
        let (inside, warned) = compiled("outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n", &nothing);
        assert_eq!(inside, nets(&[]));
        assert!(warned.contains("what pods send to Services is refused"), "{warned}");
    }
}
