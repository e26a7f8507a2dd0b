//! All resources to one snapshot.

mod authorization;
mod clusters;
mod conditions;
mod destinations;
mod egress;
mod gateways;
mod http;
mod keepalive;
mod mesh;
mod node;
mod nodes;
mod providers;
mod routes;
mod server_tls;
mod services;
mod traffic;
mod unreachable;
mod ways;
mod workloads;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

#[cfg(test)]
pub(in crate::config) use egress::{
    MAX_EXPRESSIONS, MAX_HOSTS, MAX_LABELS, MAX_METHODS, MAX_PATH, MAX_PATHS, MAX_PORTS, MAX_RULES,
    MAX_VALUES,
};

use clusters::Rule;
use providers::Wanted;
use services::Entry;

use super::{
    Compiled, Discovered, Problems, RawFile,
    decode::{At, Cx, Report, Spot, nearest},
    resource::{Meta, Resource, Resources},
    virtual_service::VirtualService,
};
use crate::{
    policy::{
        AddressGuard, Cluster, ClusterName, Destination, Exported, HostPattern, HttpVersion,
        MeshConfig, Protocol, Rules, Server, Service, Snapshot,
    },
    types::{Namespace, OriginalPort},
};

/// What compilation knows so far.
struct Compiler<'r> {
    report: &'r mut Report,
    mesh: MeshConfig,
    /// Whether there is a `mesh.yaml`: without one no gateway is known.
    mesh_given: bool,
    places: mesh::Places,
    /// Whether there is a cluster, whose pods are not in `mesh.yaml`.
    workloads_come_and_go: bool,
    guard: AddressGuard,
    entries: Vec<Entry>,
    /// Hosts that egress policies name, by the namespace whose destination rules count for them.
    egress_hosts: BTreeSet<(Namespace, HostPattern)>,
    rules: Vec<Rule>,
    servers: Vec<Arc<Server>>,
    /// Names of all gateways, those included whose servers have errors.
    gateways: Vec<String>,
    /// Whether servers are missing because of errors in them, told already.
    broken_gateways: bool,
    /// Virtual services that others delegate to.
    delegates: &'r [Resource<VirtualService>],
    /// By name; those of one name differ in their settings.
    clusters: BTreeMap<ClusterName, Vec<Arc<Cluster>>>,
    destinations: HashMap<Wanted, Arc<Destination>>,
}

/// See [`super::compile()`].
pub(super) fn compile(
    files: &[RawFile],
    mesh: Option<&RawFile>,
    discovered: &Discovered,
) -> Result<Compiled, Problems> {
    let mut report = Report::default();
    let is_mesh = |file: &&RawFile| {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        name == "mesh.yaml" || name == "mesh.yml"
    };
    let settings = mesh.or_else(|| files.iter().find(is_mesh));
    let others = files.iter().filter(|file| settings.is_none_or(|mesh| mesh.path != file.path));
    let resources = Resources::read(others, &mut report);
    let (mesh, places) = mesh::compile(settings, discovered, &mut report);
    let compiler = Compiler {
        guard: AddressGuard::new(&mesh),
        mesh,
        mesh_given: settings.is_some(),
        places,
        workloads_come_and_go: discovered.gateways.is_some(),
        entries: Vec::new(),
        egress_hosts: BTreeSet::new(),
        rules: Vec::new(),
        servers: Vec::new(),
        gateways: Vec::new(),
        broken_gateways: false,
        delegates: &resources.delegates,
        clusters: BTreeMap::new(),
        destinations: HashMap::new(),
        report: &mut report,
    };
    let snapshot = compiler.run(&resources);
    let Report { mut problems, fatal } = report;
    problems.sort_by(super::Problem::by_place);
    problems.dedup();
    if fatal {
        return Err(Problems(problems));
    }
    Ok(Compiled { snapshot, warnings: problems })
}

impl Compiler<'_> {
    fn run(mut self, resources: &Resources) -> Snapshot {
        let entries = resources.entries.iter();
        self.entries = entries
            .filter(|entry| !self.targeted(&resources.guards, &entry.meta.full_name()))
            .collect::<Vec<_>>()
            .into_iter()
            .filter_map(|entry| self.entry(entry))
            .collect();
        let authorization = self.guards(&resources.guards);
        let mut drafts = self.egress_drafts(resources);
        self.egress_hosts = self.named_by(&drafts);
        self.rules = resources.rules.iter().filter_map(|rule| self.rule(rule)).collect();
        let servers: Vec<(Meta, _)> = resources
            .gateways
            .iter()
            .map(|gateway| (gateway.meta.clone(), self.gateway(gateway)))
            .collect();
        self.tunnels();
        self.check_gateways(&servers);
        self.gateways = servers.iter().map(|(meta, _)| meta.full_name()).collect();
        let given = resources.gateways.iter().zip(&servers);
        self.broken_gateways = given
            .into_iter()
            .any(|(gateway, (_, read))| gateway.spec.servers.0.len() != read.len());
        self.servers = servers.into_iter().flat_map(|(_, servers)| servers).collect();
        let services = self.services();
        self.check_rules();
        self.check_delegates(&resources.routes);
        let routes: Vec<_> =
            resources.routes.iter().map(|route| Arc::new(self.route_set(route))).collect();
        self.check_routes(&resources.routes, &routes);
        self.check_reach(&resources.gateways, &resources.routes);
        let ports = self.ports(&services, &routes, &resources.routes);
        self.one_gateway_a_port(&mut drafts, &ports);
        let egress = self.egress(drafts, &resources.namespaces);
        let node = self.node(&services, &routes, &resources.routes, &egress, ports);
        Snapshot {
            mesh: self.mesh,
            node,
            rules: Rules {
                services,
                servers: self.servers,
                routes,
                clusters: self.clusters.into_values().flatten().collect(),
                egress,
                authorization,
            },
        }
    }

    /// The registry, one service a host and port of an entry.
    fn services(&mut self) -> Vec<Arc<Service>> {
        let mut services: Vec<Arc<Service>> = Vec::new();
        let mut places: BTreeMap<(HostPattern, OriginalPort), Vec<usize>> = BTreeMap::new();
        for index in 0..self.entries.len() {
            let Some(entry) = self.entries.get(index) else { continue };
            let (name, own) = (Arc::<str>::from(entry.meta.full_name()), entry.meta.clone());
            let pairs: Vec<_> = entry
                .hosts
                .iter()
                .flat_map(|host| entry.ports.iter().map(move |port| (host.clone(), port)))
                .map(|(host, port)| (host, port.number, port.protocol))
                .collect();
            let (exported, addresses) = (entry.exported.clone(), entry.addresses.clone());
            for (host, number, protocol) in pairs {
                let port = OriginalPort(number);
                let others = places.entry((host.clone(), port)).or_default();
                let first = others.iter().filter_map(|index| services.get(*index));
                let first = first.into_iter().find(|first| {
                    overlaps((&first.namespace, &first.exported), (&own.namespace, &exported))
                });
                if let Some(first) = first {
                    let code = if first.protocol == protocol { "IST0109" } else { "IST0177" };
                    let message = format!(
                        "{host} port {port} is declared by ServiceEntry {} too; the first one's \
                         settings are used by workloads that see both and are of neither's \
                         namespace",
                        first.name
                    );
                    let message = if first.namespace == own.namespace {
                        format!(
                            "{host} port {port} is declared by ServiceEntry {} too; the first \
                             one's settings are used",
                            first.name
                        )
                    } else {
                        message
                    };
                    let at = Spot::root(own.line, "spec").field("hosts");
                    own.cx(self.report).note(super::Severity::Refusal, &at, message).code =
                        Some(code);
                }
                others.push(services.len());
                let Some((cluster, destination)) = self.own_destination(index, &host, number)
                else {
                    continue;
                };
                services.push(Arc::new(Service {
                    name: Arc::clone(&name),
                    namespace: own.namespace.clone(),
                    host,
                    port,
                    protocol,
                    exported: exported.clone(),
                    addresses: addresses.clone(),
                    cluster,
                    destination,
                }));
            }
        }
        services
    }

    /// The index of the gateway service of this name.
    fn group(&self, name: &str) -> Option<usize> {
        group_named(&self.mesh, name)
    }
}

/// Whether two resources for the same host are in each other's way: some namespace sees both, and
/// neither, or each, is its own.
fn overlaps(a: (&Namespace, &Exported), b: (&Namespace, &Exported)) -> bool {
    match (a.1, b.1) {
        (Exported::All, Exported::All) => true,
        (Exported::All, Exported::To(names)) | (Exported::To(names), Exported::All) => {
            names.iter().any(|name| (name == a.0) == (name == b.0))
        }
        (Exported::To(names), Exported::To(others)) => names
            .iter()
            .filter(|name| others.contains(name))
            .any(|name| (name == a.0) == (name == b.0)),
    }
}

/// The index of a gateway service, by its full name or without the cluster's domain.
fn group_named(mesh: &MeshConfig, name: &str) -> Option<usize> {
    mesh.gateways.iter().position(|group| {
        group.service.as_name().is_some_and(|full| {
            let rest = full.strip_prefix(name);
            rest.is_some_and(|rest| matches!(rest, "" | ".svc.cluster.local" | ".cluster.local"))
        })
    })
}

/// What a declared protocol means here.
fn protocol(text: Option<&At<String>>, cx: &mut Cx<'_>) -> Option<(Protocol, HttpVersion)> {
    const KNOWN: [&str; 6] = ["HTTP", "HTTP2", "GRPC", "HTTPS", "TLS", "TCP"];
    let Some(text) = text else { return Some((Protocol::Tcp, HttpVersion::Auto)) };
    match text.value.to_ascii_uppercase().as_str() {
        "HTTP" | "GRPC-WEB" => Some((Protocol::Http, HttpVersion::Auto)),
        "HTTP2" | "GRPC" => Some((Protocol::Http, HttpVersion::Http2)),
        "HTTPS" | "TLS" => Some((Protocol::Tls, HttpVersion::Auto)),
        "TCP" => Some((Protocol::Tcp, HttpVersion::Auto)),
        "MONGO" | "MYSQL" | "REDIS" | "POSTGRES" | "CASSANDRA" => {
            cx.warn(&text.at, format!("{} is treated as TCP", text.value));
            Some((Protocol::Tcp, HttpVersion::Auto))
        }
        _ => {
            let hint = nearest(&text.value, KNOWN.into_iter());
            let hint = hint.map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
            let expected = format!("one of {}", KNOWN.join(", "));
            cx.wrong(
                &text.at,
                format!("{:?}", text.value),
                expected,
                format!("unknown protocol{hint}"),
            );
            None
        }
    }
}
