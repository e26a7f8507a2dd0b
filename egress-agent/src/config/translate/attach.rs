//! Which parents take a route, and for which hosts.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use super::{
    super::{
        decode::{List, Report, Spanned},
        gateway_api::GROUP,
        meta::Meta,
        problem::StatusReason,
        references::ParentRef,
        resource::Resource,
        service_entry::ServiceEntry,
    },
    gateways::Gateways,
    listeners::{Listener, Protocol},
    notes::{at, refuse_for},
};
use crate::{
    policy::{HostPattern, NamespaceLabels},
    types::Port,
};

/// The group of Istio's kinds.
pub(super) const ISTIO: &str = "networking.istio.io";

/// Everything that routes can be for.
pub(super) struct Parents<'a> {
    pub(super) gateways: &'a Gateways,
    pub(super) entries: &'a HashMap<(&'a str, &'a str), &'a Resource<ServiceEntry>>,
    /// Hosts of them that are Services.
    pub(super) services: &'a HashSet<&'a str>,
    pub(super) labels: &'a NamespaceLabels,
}

/// A route, as far as its parents matter.
#[derive(Clone, Copy)]
pub(super) struct AttachingRoute<'a> {
    pub(super) kind: &'static str,
    pub(super) meta: &'a Meta,
    pub(super) parents: &'a [ParentRef],
    /// Its own hosts; without any all of its parents' are meant.
    pub(super) hosts: &'a [HostPattern],
}

/// A host that a route is for, at one parent.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    /// The host that both name.
    pub(super) host: HostPattern,
    /// As the route names it.
    pub(super) named: Option<HostPattern>,
    pub(super) stage: Stage,
}

/// Where a route is asked.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Where traffic leaves the application.
    Mesh {
        /// The port that was dialled.
        port: Option<Spanned<Port>>,
        /// For workloads of which namespaces.
        export_to: List<String>,
    },
    /// At a listener of this name, which speaks this.
    Listener(Rc<str>, Protocol),
}

impl Parents<'_> {
    /// The hosts of a route, and its parents.
    pub(super) fn attach(&self, asking: AttachingRoute<'_>, report: &mut Report) -> Vec<Attached> {
        let mut all = Vec::new();
        for parent in asking.parents {
            let group = parent.group.as_ref().map_or(GROUP, |group| group.value.as_str());
            let kind = parent.kind.as_ref().map_or("Gateway", |kind| kind.value.as_str());
            match (group, kind) {
                (GROUP, "Gateway") => self.at_gateway(parent, asking, &mut all, report),
                (ISTIO, "ServiceEntry") => self.at_entry(parent, asking, &mut all, report),
                (ISTIO, "Hostname") => at_hostname(parent, asking, &mut all, report),
                ("", "Service") => self.at_service(parent, asking, &mut all, report),
                // Other controllers'.
                _ => {}
            }
        }
        all
    }

    fn at_gateway(
        &self,
        parent: &ParentRef,
        asking: AttachingRoute<'_>,
        all: &mut Vec<Attached>,
        report: &mut Report,
    ) {
        let ParentRef { at: spot, group: _, kind: _, namespace, name, section_name, port } = parent;
        let Some(name) = name else { return };
        let own = &asking.meta.namespace;
        let namespace = namespace.as_ref().map_or(&*own.0, |namespace| namespace.value.as_str());
        let key = (namespace.to_owned(), name.value.clone());
        if self.gateways.foreign.contains(&key) {
            return;
        }
        let Some(listeners) = self.gateways.listeners.get(&key) else {
            let message = format!(
                "there is no Gateway {namespace}/{} of the Gateway API; the route has no effect there",
                name.value
            );
            asking.meta.cx(report).dangling(&name.at, message);
            return;
        };
        let mut why = String::from("no listener has this name and port");
        let mut reason = StatusReason::NoMatchingParent;
        let before = all.len();
        let wanted = |listener: &&Listener| {
            section_name.as_ref().is_none_or(|wanted| wanted.value == listener.name)
                && port.as_ref().is_none_or(|port| port.value == listener.port)
        };
        let gateway = crate::types::Namespace(namespace.into());
        for listener in listeners.iter().filter(wanted) {
            if !listener.kinds.contains(&asking.kind) {
                reason = StatusReason::NotAllowedByListeners;
                why = format!("the listener {} takes no {}", listener.name, asking.kind);
            } else if !listener.namespaces.allows(&gateway, own, self.labels) {
                reason = StatusReason::NotAllowedByListeners;
                why =
                    format!("the listener {} takes no route of namespace {}", listener.name, own.0);
            } else {
                let hosts = common(asking.hosts, std::slice::from_ref(&listener.host));
                let own = hosts.into_iter().filter(|(host, _)| is_own(host, listener, listeners));
                let own: Vec<_> = own.collect();
                if own.is_empty() {
                    reason = StatusReason::NoMatchingListenerHostname;
                    why = format!("the listener {} is for none of its hosts", listener.name);
                } else {
                    listener.routes.borrow_mut().insert(asking.meta.label.clone());
                }
                let stage = Stage::Listener(Rc::clone(&listener.full_name), listener.protocol);
                all.extend(own.into_iter().map(|(host, named)| Attached {
                    host,
                    named,
                    stage: stage.clone(),
                }));
            }
        }
        if all.len() == before {
            let message =
                format!("Gateway {namespace}/{} does not take the route: {why}", name.value);
            refuse_for(reason, asking.meta, spot, message, report);
        }
    }

    fn at_entry(
        &self,
        parent: &ParentRef,
        asking: AttachingRoute<'_>,
        all: &mut Vec<Attached>,
        report: &mut Report,
    ) {
        let Some(name) = &parent.name else { return };
        let own = &*asking.meta.namespace.0;
        let namespace = parent.namespace.as_ref().map_or(own, |n| n.value.as_str());
        let Some(entry) = self.entries.get(&(namespace, name.value.as_str())) else {
            let message = format!("there is no ServiceEntry {namespace}/{}", name.value);
            asking.meta.cx(report).dangling(&name.at, message);
            return;
        };
        let hosts = entry.spec.hosts.iter().filter_map(|text| HostPattern::parse(&text.value).ok());
        // A route beside the service is for whoever sees the service, another one for its own namespace.
        let export_to = match namespace == own {
            // What nobody sees is no route's.
            true if entry.spec.export_to.iter().any(|to| to.value == "~") => return,
            true => entry.spec.export_to.clone(),
            false => vec![at(".".into(), &name.at)],
        };
        at_mesh(parent, asking, &hosts.collect::<Vec<_>>(), export_to, all, report);
    }

    /// Services of type ExternalName are hosts of service entries. Others are not left for.
    fn at_service(
        &self,
        parent: &ParentRef,
        asking: AttachingRoute<'_>,
        all: &mut Vec<Attached>,
        report: &mut Report,
    ) {
        let Some(name) = &parent.name else { return };
        let own = &*asking.meta.namespace.0;
        let namespace = parent.namespace.as_ref().map_or(own, |n| n.value.as_str());
        let full = format!("{}.{namespace}.svc.cluster.local", name.value);
        let is_known = self.services.contains(full.as_str());
        let Some(host) = HostPattern::parse(&full).ok().filter(|_| is_known) else { return };
        let export_to = match namespace == own {
            true => Vec::new(),
            false => vec![at(".".into(), &name.at)],
        };
        at_mesh(parent, asking, &[host], export_to, all, report);
    }
}

fn at_hostname(
    parent: &ParentRef,
    asking: AttachingRoute<'_>,
    all: &mut Vec<Attached>,
    report: &mut Report,
) {
    let Some(name) = &parent.name else { return };
    match HostPattern::parse(&name.value) {
        Ok(HostPattern::Any) | Err(_) => {
            let message = "this is no host that a route can be for";
            refuse_for(StatusReason::NoMatchingParent, asking.meta, &name.at, message, report);
        }
        Ok(host) => {
            let export_to = vec![at(".".into(), &name.at)];
            at_mesh(parent, asking, &[host], export_to, all, report);
        }
    }
}

fn at_mesh(
    parent: &ParentRef,
    asking: AttachingRoute<'_>,
    hosts: &[HostPattern],
    export_to: List<String>,
    all: &mut Vec<Attached>,
    report: &mut Report,
) {
    let hosts = common(asking.hosts, hosts);
    if hosts.is_empty() {
        let message = "none of the route's hosts is one of this parent's; it has no effect there";
        let reason = StatusReason::NoMatchingListenerHostname;
        refuse_for(reason, asking.meta, &parent.at, message, report);
    }
    if let Some(section) = &parent.section_name {
        let message = "has no effect: a section is a Gateway's; give a port";
        asking.meta.cx(report).warn(&section.at, message);
    }
    let stage = Stage::Mesh { port: parent.port.clone(), export_to };
    all.extend(hosts.into_iter().map(|(host, named)| Attached {
        host,
        named,
        stage: stage.clone(),
    }));
}

/// The hosts that a route and its parent both name, each with the route's.
fn common(
    route: &[HostPattern],
    parent: &[HostPattern],
) -> Vec<(HostPattern, Option<HostPattern>)> {
    if route.is_empty() {
        return parent.iter().map(|host| (host.clone(), None)).collect();
    }
    let pairs = route.iter().flat_map(|own| parent.iter().map(move |host| (own, host)));
    pairs.filter_map(|(own, host)| Some((own.intersect(host)?, Some(own.clone())))).collect()
}

/// Whether a host is this listener's, and not that of a listener that names it more exactly.
fn is_own(host: &HostPattern, listener: &Listener, all: &[Listener]) -> bool {
    !all.iter().any(|other| {
        other.port == listener.port
            && other.protocol == listener.protocol
            && other.host != listener.host
            && listener.host.covers(&other.host)
            && other.host.covers(host)
    })
}
