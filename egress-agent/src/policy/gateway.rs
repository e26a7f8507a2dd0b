//! What one gateway process decides.

mod accept;
mod authorize;
mod egress;
mod outcome;
mod passthrough;
mod raw_tcp;
mod refusal;
mod request;
mod sources;
mod stages;
mod tables;
mod tls;
mod tunnel;
mod tunnel_tls;

pub use accept::Accepted;

use std::{net::IpAddr, sync::Arc};

use egress_ebpf::reason::Reason;
use passthrough::{Passthrough, plain};
use stages::{StagePort, Stages};
use tables::{MeshPort, TcpEntry, TunnelTcp};

use super::{
    AddressGuard, Authorization, Callers, Client, ClientTls, Cluster, ClusterName, Denied, Direct,
    Discovery, EgressTable, Hop, HttpAction, Origin, OutboundMode, Owner, PortMode, Redirect,
    RedirectPort, RetryPolicy, ServerProtocol, ServerTls, Service, Snapshot, Target, has_labels,
    matching, preferred,
    trace::{self, Step},
};
use crate::types::{
    ConfigMap, GatewayIdentity, GatewayPort, Host, Namespace, OriginalPort, Source, Workload,
};

/// What one gateway process does: the snapshot seen with its labels.
///
/// A decision allocates nothing but what depends on the request: a refusal's sentence, a rewritten
/// path, a redirect's location.
#[derive(Debug)]
pub struct GatewayPolicy {
    snapshot: Arc<Snapshot>,
    /// The namespace of this process: its destination rules count at the gateway's stage.
    namespace: Namespace,
    workloads: ConfigMap<IpAddr, Arc<Workload>>,
    /// The cluster's nodes by their addresses, which are no workload's.
    nodes: ConfigMap<IpAddr, Arc<str>>,
    /// Whether this process belongs to the gateway group with this index.
    member: Vec<bool>,
    mesh: ConfigMap<OriginalPort, MeshPort>,
    stage: Stages,
    tcp: ConfigMap<OriginalPort, Vec<TcpEntry>>,
    /// Raw TCP as it was dialled: what comes through the tunnel bears its original destination.
    tunnel_tcp: ConfigMap<OriginalPort, Vec<TunnelTcp>>,
    /// Settings of the listener for tunnels, where there are any.
    tunnel: Option<Arc<ServerTls>>,
    guard: AddressGuard,
    callers: Callers,
    authorization: Authorization,
    /// `EgressPolicy` and `ClusterEgressPolicy`.
    egress: EgressTable,
    plain: Arc<HttpAction>,
    /// Of requests that need no rule of Istio's.
    unruled: Arc<HttpAction>,
    retry: Arc<RetryPolicy>,
    to_https: Redirect,
    /// Where hosts outside the registry are reached.
    passthrough: Passthrough,
    /// Where this gateway is.
    origin: Arc<Origin>,
    /// What a request that no service is for is counted in, where a rule answers it.
    nowhere: Arc<Cluster>,
}

impl GatewayPolicy {
    /// The view of a gateway process with this identity.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, identity: &GatewayIdentity) -> Self {
        let rules = &snapshot.rules;
        let groups = snapshot.mesh.gateways.iter();
        let member: Vec<_> = groups
            .map(|group| !group.labels.is_empty() && has_labels(&identity.labels, &group.labels))
            .collect();
        let servers: Vec<_> = rules
            .servers
            .iter()
            .filter(|s| !s.selector.is_empty() && has_labels(&identity.labels, &s.selector))
            .collect();
        let workloads = snapshot.mesh.workloads.iter();
        let nodes = snapshot.mesh.node_addresses.iter();
        let mesh = tables::mesh(rules);
        let services = tables::ServiceIndex::default();
        Self {
            workloads: workloads
                .flat_map(|w| w.addresses.iter().map(|ip| (ip.to_canonical(), Arc::clone(w))))
                .collect(),
            nodes: nodes.map(|(ip, name)| (*ip, Arc::clone(name))).collect(),
            passthrough: Passthrough::new(mesh.keys().copied(), snapshot.mesh.keepalive),
            mesh,
            stage: tables::stages(&servers, &rules.routes),
            tcp: tables::tcp(rules, &services, &member),
            tunnel_tcp: tables::tunnel_tcp(rules, &services, &member),
            tunnel: tunnel_tls::settings(&snapshot.mesh, &member),
            member,
            guard: AddressGuard::new(&snapshot.mesh).and(&identity.addresses),
            callers: Callers::new(&snapshot.mesh),
            authorization: Authorization::new(
                &rules.authorization,
                identity,
                &snapshot.mesh.root_namespace,
                &snapshot.mesh.trust_domain,
            ),
            egress: EgressTable::new(&rules.egress),
            plain: Arc::default(),
            unruled: Arc::new(HttpAction {
                upgrades: snapshot.mesh.upgrades,
                ..HttpAction::default()
            }),
            retry: Arc::default(),
            to_https: Redirect {
                status: http::StatusCode::MOVED_PERMANENTLY,
                scheme: Some("https".into()),
                authority: None,
                port: RedirectPort::Default,
                path: None,
            },
            nowhere: Arc::new(plain(
                ClusterName::black_hole(),
                Discovery::Static(Vec::new()),
                None,
            )),
            origin: Arc::new(Origin {
                locality: snapshot.mesh.locality_of(&identity.addresses).unwrap_or_default(),
                labels: identity.labels.clone(),
            }),
            namespace: identity.namespace.clone(),
            snapshot,
        }
    }

    /// The snapshot it was made from.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Who may use this process's own ports.
    #[must_use]
    pub fn callers(&self) -> &Callers {
        &self.callers
    }

    /// Whether a request could lead to this cluster as it is. Those of hosts that no service entry names
    /// are taken for current.
    #[must_use]
    pub fn has_cluster(&self, cluster: &Arc<Cluster>) -> bool {
        let all = &self.snapshot.rules.clusters;
        let start = all.partition_point(|other| other.name < cluster.name);
        let named = all.iter().skip(start).take_while(|other| other.name == cluster.name);
        let mut named = named.peekable();
        if named.peek().is_none() {
            return cluster.name == ClusterName::passthrough();
        }
        named.any(|other| Arc::ptr_eq(other, cluster) || other == cluster)
    }

    /// Every cluster that a request could lead to, one a name, for `/clusters`, `/stats` and health.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        let all = self.snapshot.rules.clusters.chunk_by(|a, b| a.name == b.name);
        all.filter_map(|variants| variants.first())
    }

    /// The settings of TLS that is originated.
    pub fn originating(&self) -> impl Iterator<Item = &ClientTls> {
        self.snapshot.rules.clusters.iter().filter_map(|cluster| cluster.tls.as_ref())
    }

    /// The TLS settings of every server of this process that terminates TLS, the listener for
    /// tunnels included.
    pub fn terminating(&self) -> impl Iterator<Item = Arc<ServerTls>> {
        let own = self.stage.all().flat_map(|stage| &stage.terminating);
        own.chain(&self.tunnel).cloned()
    }

    /// How to read a connection that was dialled on this port.
    #[must_use]
    pub fn port_mode(&self, port: OriginalPort) -> PortMode {
        let is_raw = self.tcp.contains_key(&port)
            || self.egress.takes_tcp(GatewayPort(port.0))
            || self.shared(port).is_some();
        if is_raw { PortMode::Tcp } else { self.named_mode(port, Hop::Plain) }
    }

    /// How to read a connection that no raw TCP service is for.
    fn named_mode(&self, port: OriginalPort, hop: Hop) -> PortMode {
        // Through the tunnel nobody speaks TLS to the gateway itself.
        let own = || {
            let mut stages = self.stage.on(GatewayPort(port.0));
            hop == Hop::Plain && stages.any(|(_, stage)| !stage.terminating.is_empty())
        };
        if self.snapshot.mesh.outbound == OutboundMode::AllowAny
            || self.mesh.get(&port).is_some_and(|mesh| mesh.speaks)
            || self.egress.allows_port(port)
            || own()
        {
            PortMode::Detect
        } else {
            PortMode::Closed(Reason::NoRoute)
        }
    }

    /// Whether the gateway may dial this address for a name that it resolved: never loopback,
    /// link-local, metadata, cluster-internal or the gateway's own addresses.
    #[must_use]
    pub fn may_dial(&self, addr: IpAddr) -> bool {
        self.guard.allows(addr)
    }

    /// The service that this source sees at this host and port.
    fn service(
        &self,
        port: OriginalPort,
        host: &Host,
        source: &Source,
    ) -> Option<(&MeshPort, &Service)> {
        let mesh = self.mesh.get(&port)?;
        let mut services = mesh.services.matches(host);
        let service = services.find_map(|all| preferred(all, source.namespace()))?;
        trace::note(|| Step::Service {
            entry: format!("ServiceEntry {}", service.name),
            host: service.host.to_string(),
            port: service.port,
            protocol: service.protocol.declared(),
        });
        Some((mesh, service))
    }

    /// What a host outside the registry is answered. `ALLOW_ANY` is not for sources that a policy confines.
    fn passthrough(
        &self,
        port: OriginalPort,
        host: &Host,
        source: &Source,
    ) -> Result<Arc<Cluster>, Denied> {
        match self.snapshot.mesh.outbound {
            OutboundMode::RegistryOnly => {
                let has_policies = !self.snapshot.rules.egress.is_empty();
                Err(refusal::unknown_host(host, port, has_policies))
            }
            OutboundMode::AllowAny => {
                if let Some(policy) = self.egress.confining(source) {
                    return Err(refusal::confined(host, port, policy));
                }
                Ok(self.passthrough.cluster(port))
            }
        }
    }

    /// The cluster of a service that no route leads through the gateway.
    fn direct(
        &self,
        service: &Service,
        host: &Host,
        source: &Source,
    ) -> Result<Arc<Cluster>, Denied> {
        self.allows_direct(service)?;
        let client = Client::of(source);
        service.destination.cluster(client, Some(host)).map(Arc::clone)
    }

    /// Whether a service may be reached although no route leads it through the gateway.
    fn allows_direct(&self, service: &Service) -> Result<(), Denied> {
        match self.snapshot.mesh.direct {
            Direct::Registry => Ok(()),
            Direct::Deny => Err(Denied {
                reason: Reason::NoGatewayRoute,
                detail: format!(
                    "no VirtualService leads {} port {} through a gateway",
                    service.host, service.port
                ),
                matched: None,
            }),
        }
    }

    /// The destination of a rule at the gateway's stage. `host` is the one that was asked for,
    /// where it is known.
    fn outside<'t>(
        &self,
        target: &'t Target,
        port: GatewayPort,
        source: &Source,
        host: Option<&Host>,
    ) -> Result<(&'t Arc<Cluster>, Option<&'t Host>), Denied> {
        match target {
            Target::Cluster { destination, host: named } => {
                let cluster = destination.cluster(self.client(source), named.as_ref().or(host))?;
                Ok((cluster, named.as_ref()))
            }
            Target::Gateway { .. } => Err(refusal::loops(port)),
            Target::Refused { reason, detail } => Err(refusal::denied(*reason, detail)),
        }
    }

    /// Who asks, at the gateway's stage.
    pub(super) fn client<'a>(&'a self, source: &'a Source) -> Client<'a> {
        let (gateway, labels) = (Some(&self.namespace), Some(&self.origin.labels));
        Client { source: source.namespace(), gateway, labels }
    }

    fn served(
        &self,
        group: usize,
        owner: &Owner,
        port: GatewayPort,
        host: &Host,
    ) -> Result<(&StagePort, &ServerProtocol), Denied> {
        let name = |group: usize| self.snapshot.mesh.gateways.get(group).map(|g| &g.service);
        if !self.member.get(group).is_some_and(|member| *member) {
            let other = name(group).map(ToString::to_string).unwrap_or_default();
            return Err(Denied {
                reason: Reason::HostNotServed,
                detail: format!("{host} is routed to {other}, and this gateway isn't part of it"),
                matched: None,
            });
        }
        self.served_on(owner, port, host).ok_or_else(|| Denied {
            reason: Reason::HostNotServed,
            detail: match owner {
                None => format!("no Gateway for this process serves {host} on port {port}"),
                Some(name) => format!("the Gateway {name} does not serve {host} on port {port}"),
            },
            matched: None,
        })
    }

    fn served_on(
        &self,
        owner: &Owner,
        port: GatewayPort,
        host: &Host,
    ) -> Option<(&StagePort, &ServerProtocol)> {
        let stage = self.stage.get(owner, port)?;
        let server = stage.served.get(host)?.as_ref()?;
        trace::note(|| Step::Server {
            port: server.port,
            protocol: server.protocol.to_string(),
            place: server.place.clone(),
        });
        Some((stage, &server.protocol))
    }
}

/// What the hop that a request took proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Secured {
    /// It took the way that the destination rule for the gateway asks for, in clear.
    No,
    /// It came through a tunnel that nobody asked for.
    Besides,
    /// It came through the tunnel, as the destination rule for the gateway asks.
    Tunnel,
}
