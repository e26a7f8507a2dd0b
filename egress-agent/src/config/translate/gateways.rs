//! `Gateway` of the Gateway API to Istio's: one for each listener.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    super::{
        api_gateway::{ApiGateway, GatewayAddress},
        decode::{Dict, Records, Report, SourcePosition, Spanned},
        gateway::Gateway,
        gateway_api::Read,
        listener_status::{ListenerStatus, ListenerStatuses},
        meta::Meta,
        names,
        problem::{Severity, StatusReason},
        resource::Resource,
    },
    grants::Grants,
    listeners::{Listener, listener},
    notes::{at, refuse_for, take},
    servers::server,
    world::World,
};
use crate::{
    policy::{HostPattern, MeshConfig},
    types::Port,
};

/// The classes whose Gateways are served.
const CLASSES: [&str; 2] = ["egress-enforcer", "istio"];
/// The service of a Gateway that has no gateway of its own: another one serves it besides.
#[derive(Clone, Debug)]
pub(in crate::config) struct SharedService {
    /// Its full name.
    pub(in crate::config) name: String,
    /// The Gateway: `default/cnn-egress-gateway`.
    pub(in crate::config) owner: Arc<str>,
    /// The index of the gateway that serves it.
    pub(in crate::config) group: usize,
}

/// What Gateways come to.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    /// Istio's Gateways, one a listener.
    pub(super) made: Vec<Resource<Gateway>>,
    /// Services of Gateways without a gateway of their own.
    pub(super) shared: Vec<SharedService>,
    /// The listeners, by namespace and name of their Gateway.
    pub(super) listeners: HashMap<(String, String), Vec<Listener>>,
    /// Every Gateway.
    listed: Vec<Listed>,
    /// Gateways of other classes.
    pub(super) foreign: HashSet<(String, String)>,
    /// The services of Gateways.
    pub(super) services: HashSet<String>,
}

/// A Gateway, as far as the status of its listeners is concerned.
#[derive(Debug)]
struct Listed {
    /// What messages call it.
    label: String,
    /// Namespace and name.
    key: (String, String),
    /// Of each of its listeners the place among those that were read, if it is one, and whether it is served.
    listeners: Vec<(Option<usize>, bool)>,
}

impl Gateways {
    /// What became of the listeners, once the routes were looked at.
    pub(super) fn statuses(&self) -> ListenerStatuses {
        let of = |Listed { label, key, listeners }: &Listed| {
            let read = self.listeners.get(key).map(Vec::as_slice).unwrap_or_default();
            let statuses = listeners.iter().map(|(index, is_served)| {
                match index.and_then(|index| read.get(index)) {
                    Some(listener) => ListenerStatus {
                        kinds: listener.kinds.clone(),
                        routes: listener.routes.borrow().clone(),
                        is_served: *is_served,
                    },
                    None => ListenerStatus::default(),
                }
            });
            (label.clone(), statuses.collect())
        };
        self.listed.iter().map(of).collect()
    }
}

pub(super) fn translate(
    gateways: &[(Read<ApiGateway>, Option<String>)],
    grants: &Grants,
    world: &World<'_>,
    report: &mut Report,
) -> Gateways {
    let mut found = Gateways::default();
    for (gateway, name) in gateways {
        let Read { meta, spec, problems } = gateway;
        let key = (meta.namespace.0.to_string(), meta.name.clone());
        let Some(spec) = spec else {
            take(problems, report);
            found.listeners.insert(key, Vec::new());
            continue;
        };
        let class = spec.class.as_ref().map_or("", |class| class.value.as_str());
        if !CLASSES.contains(&class) {
            if !world.in_cluster
                && let Some(class) = &spec.class
            {
                let message = format!("ignored: {:?} is another controller's class", class.value);
                meta.cx(report).warn(&class.at, message).expected = Some(CLASSES.join(" or "));
            }
            found.foreign.insert(key);
            continue;
        }
        take(problems, report);
        // What asks for more than can be carried out serves nothing.
        let is_whole = problems.iter().all(|problem| problem.severity == Severity::Warning);
        let own = name.clone().unwrap_or_else(|| format!("{}-{class}", meta.name));
        let service = format!("{own}.{}.svc.cluster.local", meta.namespace.0);
        let groups = match is_whole {
            true => groups(meta, spec, &service, world, &mut found, report),
            false => None,
        };
        let Groups { indices, owner } = groups.unwrap_or_default();
        let (mut listeners, mut listed) = (Vec::new(), Vec::new());
        let mirrors = spec.listeners.0.iter();
        let all: Vec<_> = mirrors.map(|mirror| listener(meta, mirror, report)).collect();
        let conflicts = conflicts(&all);
        for ((mirror, read), conflict) in spec.listeners.0.iter().zip(all).zip(conflicts) {
            let Some(read) = read else {
                listed.push((None, false));
                continue;
            };
            let server = match conflict {
                None => server(meta, mirror, &read, grants, world, report),
                Some((reason, why)) => {
                    refuse_for(reason, meta, &mirror.at, why, report);
                    None
                }
            };
            let server = server.filter(|_| is_whole);
            listed.push((Some(listeners.len()), server.is_some() && !indices.is_empty()));
            if let Some(server) = server {
                for index in &indices {
                    let selector = world.mesh.gateways.get(*index).map(|group| &group.labels);
                    let spec = Gateway {
                        selector: dict(selector.into_iter().flatten(), &mirror.at),
                        servers: Records(vec![server.clone()]),
                        owner: owner.clone(),
                        ..Gateway::empty(&spec.at)
                    };
                    let name = format!("{}/{}", meta.name, read.name);
                    let meta = Meta { name, ..Meta::clone(meta) };
                    found.made.push(Resource { meta, spec });
                }
            }
            listeners.push(read);
        }
        found.services.insert(service);
        let label = meta.label.clone();
        found.listed.push(Listed { label, key: key.clone(), listeners: listed });
        found.listeners.insert(key, listeners);
    }
    found
}

/// Why listeners cannot be served beside others. Neither of two is: nobody knows which of both is meant.
fn conflicts(all: &[Option<Listener>]) -> Vec<Option<(StatusReason, String)>> {
    let mut by_place: HashMap<(Port, &HostPattern), Vec<&Listener>> = HashMap::new();
    for listener in all.iter().flatten() {
        by_place.entry((listener.port, &listener.host)).or_default().push(listener);
    }
    let conflict = |own: &Option<Listener>| {
        let own = own.as_ref()?;
        let there = by_place.get(&(own.port, &own.host))?;
        let other = there.iter().find(|other| !std::ptr::eq(**other, own))?;
        let name = &other.name;
        let why = format!("the listener {name} has its port and host; neither has an effect");
        Some((own.conflict(other), why))
    };
    all.iter().map(conflict).collect()
}

/// Which gateways serve a Gateway.
#[derive(Default)]
struct Groups {
    /// Indices in `gateways` of `mesh.yaml`.
    indices: Vec<usize>,
    owner: Option<Arc<str>>,
}

fn groups(
    meta: &Meta,
    spec: &ApiGateway,
    service: &str,
    world: &World<'_>,
    found: &mut Gateways,
    report: &mut Report,
) -> Option<Groups> {
    let named = |name: &str, mesh: &MeshConfig| {
        mesh.gateways.iter().position(|group| group.service.to_string() == name)
    };
    if !spec.addresses.0.is_empty() {
        let mut indices = Vec::new();
        for GatewayAddress { at: spot, kind, value } in &spec.addresses.0 {
            let Some(value) = value else { continue };
            let kind = kind.as_ref().map_or("IPAddress", |kind| kind.value.as_str());
            let index = match (kind, value.value.parse::<IpAddr>()) {
                ("Hostname", _) => named(&names::expand(&value.value, &meta.namespace), world.mesh),
                ("IPAddress", Ok(addr)) => world.mesh.gateways.iter().position(|group| {
                    group.endpoints.contains(&addr) || group.other_addresses.contains(&addr)
                }),
                _ => None,
            };
            match index {
                Some(index) if !indices.contains(&index) => indices.push(index),
                Some(_) => {}
                None => {
                    let message = "no gateway in mesh.yaml has this service or address; what is routed to the \
                                   Gateway there is refused";
                    let found = Some(format!("{kind} {:?}", value.value));
                    meta.cx(report).dangling(spot, message).found = found;
                }
            }
        }
        return Some(Groups { indices, owner: None });
    }
    if let Some(index) = named(service, world.mesh) {
        return Some(Groups { indices: vec![index], owner: None });
    }
    if world.mesh.gateways.is_empty() {
        let message = "mesh.yaml names no gateway, so nothing serves this Gateway";
        meta.cx(report).dangling(&spec.at, message);
        return None;
    }
    // Nothing is deployed for a Gateway: the first gateway serves it, and keeps it apart from all others.
    let owner: Arc<str> = meta.full_name().into();
    let (name, group) = (service.to_owned(), 0);
    found.shared.push(SharedService { name, owner: Arc::clone(&owner), group });
    Some(Groups { indices: vec![0], owner: Some(owner) })
}

fn dict<'a>(
    labels: impl Iterator<Item = (&'a String, &'a String)>,
    spot: &SourcePosition,
) -> Dict<Spanned<String>> {
    Dict(labels.map(|(key, value)| (at(key.clone(), spot), at(value.clone(), spot))).collect())
}
