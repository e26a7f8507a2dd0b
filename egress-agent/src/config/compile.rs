//! All resources to one snapshot.

mod authorization;
mod balance;
mod clusters;
mod common_settings;
mod compiler;
mod conditions;
mod destinations;
mod direct;
mod durations;
mod egress;
mod egress_addresses;
mod entry;
mod exemptions;
mod fits;
mod gateways;
mod http;
mod implied;
mod index;
mod keepalive;
mod locality;
mod lookup;
mod mesh;
mod node;
mod nodes;
mod overlaps;
mod places;
mod pools;
mod precedence;
mod providers;
mod rates;
mod reachability;
mod refusals;
mod registry;
mod routes;
mod rule;
mod server_tls;
mod services;
mod shared_targets;
mod traffic;
mod two_modes;
mod unreachable;
mod validators;
mod whole_ports;
mod workloads;
mod yielding;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

#[cfg(test)]
pub(in crate::config) use egress::{
    MAX_HOSTS, MAX_METHODS, MAX_PATH, MAX_PATHS, MAX_PORTS, MAX_RULES,
};
#[cfg(test)]
pub(in crate::config) use rates::MAX_RATE;

use compiler::Compiler;
use index::{DestinationRules, EgressHosts, Entries, Groups, Hints};
use overlaps::Declared;
use registry::Registry;

use super::{
    Compiled, Discovered, Problems, RawFile,
    decode::{Report, SourcePosition},
    resource::{Meta, Resource, Resources},
    translate::{self, Translated, World},
};
use crate::{
    policy::{AddressGuard, HostPattern, Rules, Service, Snapshot},
    types::OriginalPort,
};

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
    let mut resources = Resources::read(others, &mut report);
    let (mesh, places) = mesh::compile(settings, discovered, &mut report);
    let in_cluster = discovered.gateways.is_some();
    let world = World { mesh: &mesh, in_cluster, trials: validators::TRIALS };
    let Translated { shared, listeners } =
        translate::translate(&mut resources, &world, &mut report);
    let mut groups = Groups::from(&mesh);
    groups.share(shared);
    let compiler = Compiler {
        guard: AddressGuard::new(&mesh),
        groups,
        mesh,
        mesh_given: settings.is_some(),
        places,
        workloads_come_and_go: in_cluster,
        entries: Entries::default(),
        egress_hosts: EgressHosts::default(),
        rules: DestinationRules::default(),
        servers: Vec::new(),
        by_gateway: HashMap::new(),
        by_port: HashMap::new(),
        gateways: HashSet::new(),
        gateway_addresses: HashMap::new(),
        broken_gateways: false,
        delegates: &resources.delegates,
        delegates_by_name: by_name(&resources.delegates),
        hops: HashMap::new(),
        hints: Hints::default(),
        host_names: OnceCell::new(),
        gateway_names: OnceCell::new(),
        clusters: BTreeMap::new(),
        destinations: HashMap::new(),
        report: &mut report,
    };
    let mut snapshot = compiler.run(&resources);
    snapshot.credential_uses = report.take_credentials();
    let (mut problems, fatal) = report.into_parts();
    problems.sort_by(super::Problem::by_place);
    problems.dedup();
    if fatal {
        return Err(Problems(problems));
    }
    Ok(Compiled { snapshot, warnings: problems, listeners })
}

impl Compiler<'_> {
    fn run(mut self, resources: &Resources) -> Snapshot {
        let targets = authorization::targets(&resources.guards);
        let mut entries = Vec::with_capacity(resources.entries.len());
        for entry in &resources.entries {
            if !self.is_targeted(&targets, &entry.meta.full_name()) {
                entries.extend(self.entry(entry));
            }
        }
        let known = Entries::from(entries);
        let implied = implied::entries(&known, &resources.routes);
        self.entries = known.with(implied);
        let authorization = self.guards(&resources.guards);
        let mut drafts = self.egress_drafts(resources);
        self.egress_hosts = self.named_by(&drafts);
        let rules: Vec<_> = resources.rules.iter().filter_map(|rule| self.rule(rule)).collect();
        self.rules = rules.into();
        let servers: Vec<(Meta, _)> = resources
            .gateways
            .iter()
            .map(|gateway| (gateway.meta.clone(), self.gateway(gateway)))
            .collect();
        self.tunnels();
        self.check_gateways(&servers);
        self.gateways = servers.iter().map(|(meta, _)| meta.full_name()).collect();
        self.read_gateway_addresses(&resources.gateways);
        let given = resources.gateways.iter().zip(&servers);
        self.broken_gateways = given
            .into_iter()
            .any(|(gateway, (_, read))| gateway.spec.servers.0.len() != read.len());
        self.servers = servers.into_iter().flat_map(|(_, servers)| servers).collect();
        for (index, server) in self.servers.iter().enumerate() {
            self.by_port.entry(server.port).or_default().push(index);
        }
        self.by_gateway = index::by_gateway(&self.servers, &mut self.groups, &self.mesh);
        let services = self.services();
        self.check_rules();
        self.check_delegates(&resources.routes);
        let mut routes: Vec<_> =
            resources.routes.iter().map(|route| Arc::new(self.route_set(route))).collect();
        self.check_routes(&resources.routes, &routes);
        self.check_reach(&resources.gateways, &resources.routes);
        let registry = Registry::of(&services);
        let ports = self.ports(&registry, &routes, &resources.routes);
        let raw = self.raw_groups(&registry, &routes);
        self.one_gateway_a_port(&mut drafts, &ports, raw);
        let egress = self.egress(drafts, &resources.namespaces);
        let mut all = ports.clone();
        self.egress_ports(&egress, &mut all);
        self.yield_ports(&mut routes, &resources.routes, &all);
        let (node, shared_tcp) = self.node(&registry, &routes, &resources.routes, &egress, ports);
        Snapshot {
            mesh: self.mesh,
            node,
            places: Arc::new(places::all(resources)),
            credential_uses: Arc::default(),
            revisions: Arc::default(),
            rules: Rules {
                services,
                servers: self.servers,
                routes,
                clusters: self.clusters.into_values().flatten().collect(),
                egress,
                authorization,
                shared_tcp,
            },
        }
    }

    /// The registry, one service a host and port of an entry.
    fn services(&mut self) -> Vec<Arc<Service>> {
        let mut services: Vec<Arc<Service>> = Vec::new();
        let mut declared: HashMap<(HostPattern, OriginalPort), Declared> = HashMap::new();
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
                let Some((cluster, destination)) = self.own_destination(index, &host, number)
                else {
                    continue;
                };
                let earlier = declared.entry((host.clone(), port)).or_default();
                let first = earlier.add(services.len(), (&own.namespace, &exported));
                let first = first.and_then(|first| services.get(first));
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
                    let at = SourcePosition::root(own.line, "spec").field("hosts");
                    own.cx(self.report).note(super::Severity::Refusal, &at, message).code =
                        Some(code);
                }
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
}

/// Resources by full name, the first of each.
fn by_name<T>(resources: &[Resource<T>]) -> HashMap<String, &Resource<T>> {
    let mut all = HashMap::with_capacity(resources.len());
    for resource in resources {
        all.entry(resource.meta.full_name()).or_insert(resource);
    }
    all
}
