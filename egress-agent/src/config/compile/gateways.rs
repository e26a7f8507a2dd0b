//! `Gateway` to servers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    super::{
        decode::{Cx, Spanned},
        gateway::{Gateway, GatewayServerPort, Server as Mirror, ServerTls},
        names,
        resource::{Meta, Resource},
    },
    Compiler, egress_addresses, places, server_tls,
};
use crate::{
    policy::{HostPattern, InnerProtocol, MeshConfig, Owner, Protocol, Server, ServerProtocol},
    types::{GatewayPort, Labels, Namespace},
};

/// What a server serves: processes, a port, and a host for a namespace or for all.
type Served<'a> = (&'a Labels, &'a Owner, GatewayPort, &'a HostPattern, Option<&'a Namespace>);

impl Compiler<'_> {
    /// Reads a gateway's servers.
    pub(super) fn gateway(&mut self, resource: &Resource<Gateway>) -> Vec<Arc<Server>> {
        let Resource { meta, spec } = resource;
        let Gateway { at, selector, servers, owner } = spec;
        let mut cx = meta.cx(self.report);
        let selector = names::labels(selector);
        if selector.is_empty() {
            cx.warn(&at.field("selector"), "without a selector this Gateway is for no process");
        } else if self.mesh_given && self.groups.selected(&selector, &self.mesh).is_empty() {
            let message = "no gateway in mesh.yaml has these labels";
            cx.warn(&at.field("selector"), message).code = Some("IST0101");
        }
        if servers.0.is_empty() && !cx.has_told("spec.servers") {
            let message =
                "a current API server refuses a Gateway without servers; it serves nothing";
            cx.warn(&at.field("servers"), message);
        }
        let mut names = HashSet::new();
        for name in servers.0.iter().filter_map(|server| server.port.as_ref()?.name.as_ref()) {
            if !names.insert(name.value.as_str()) {
                let message = "a current API server refuses two ports of one name";
                cx.warn(&name.at, message).found = Some(format!("{:?}", name.value));
            }
        }
        let servers = servers.0.iter();
        let of = (&selector, owner);
        servers.filter_map(|mirror| server(mirror, meta, of, &self.mesh, &mut cx)).collect()
    }

    /// Reads where gateways dial from, as their annotations say.
    pub(super) fn read_gateway_addresses(&mut self, gateways: &[Resource<Gateway>]) {
        for Resource { meta, spec: _ } in gateways {
            let mut cx = meta.cx(self.report);
            let read = egress_addresses::annotated(meta, &self.mesh, &mut cx).transpose();
            self.gateway_addresses.extend(read.map(|read| (meta.full_name(), read)));
        }
    }

    /// Two servers for the same processes, port and host: IST0145.
    pub(super) fn check_gateways(&mut self, servers: &[(Meta, Vec<Arc<Server>>)]) {
        let mut seen: HashMap<Served<'_>, &Arc<str>> = HashMap::new();
        for (meta, servers) in servers {
            for server in servers.iter().filter(|server| !server.selector.is_empty()) {
                for (namespace, host) in &server.hosts {
                    let namespace = namespace.as_ref();
                    let key = (&server.selector, &server.owner, server.port, host, namespace);
                    let Some(other) = seen.insert(key, &server.gateway) else { continue };
                    let at = super::super::decode::SourcePosition::root(meta.line, "spec")
                        .field("servers");
                    let message = format!(
                        "{host} on port {} is served by Gateway {other} already, for the same processes",
                        server.port
                    );
                    meta.cx(self.report).warn(&at, message).code = Some("IST0145");
                }
            }
        }
    }
}

pub(super) fn server(
    mirror: &Mirror,
    meta: &Meta,
    (selector, owner): (&Labels, &Owner),
    mesh: &MeshConfig,
    cx: &mut Cx<'_>,
) -> Option<Arc<Server>> {
    let Mirror { at, port, hosts, tls, name: _ } = mirror;
    names::host_count(hosts, at, cx);
    let GatewayServerPort { at: port_at, number, name, protocol } = port.as_ref()?;
    if name.is_none() {
        let message = "a current API server refuses a port without a name";
        cx.warn(&port_at.field("name"), message);
    }
    let read: Vec<_> = hosts.iter().filter_map(|host| scoped(host, meta, cx)).collect();
    let (kind, _) = super::services::protocol(Some(protocol.as_ref()?), cx)?;
    let protocol = server_protocol(kind, protocol.as_ref()?, tls.as_ref(), at, mesh, cx)?;
    Some(Arc::new(Server {
        gateway: meta.full_name().into(),
        selector: selector.clone(),
        port: GatewayPort(number.as_ref()?.value),
        hosts: read,
        protocol,
        owner: owner.clone(),
        place: places::at(meta, at),
    }))
}

/// `host`, `namespace/host`, `./host`, `*/host`.
fn scoped(
    text: &Spanned<String>,
    meta: &Meta,
    cx: &mut Cx<'_>,
) -> Option<(Option<Namespace>, HostPattern)> {
    let (namespace, host) = match text.value.split_once('/') {
        Some((namespace, host)) => (namespace, host),
        None => ("*", text.value.as_str()),
    };
    let namespace = match namespace {
        "*" => None,
        "." => Some(meta.namespace.clone()),
        name => Some(Namespace(name.into())),
    };
    let read = names::pattern_of(host, text, cx)?;
    if matches!(read, HostPattern::Ending(_)) {
        let message = "a wildcard of a Gateway stands for whole labels; give the part of a label in the \
                       hosts of VirtualServices";
        cx.wrong(&text.at, format!("{:?}", text.value), "a host, *. and a host, or *", message);
        return None;
    }
    Some((namespace, read))
}

fn server_protocol(
    kind: Protocol,
    protocol: &Spanned<String>,
    tls: Option<&ServerTls>,
    at: &super::super::decode::SourcePosition,
    mesh: &MeshConfig,
    cx: &mut Cx<'_>,
) -> Option<ServerProtocol> {
    let redirect = tls.and_then(|tls| tls.https_redirect.as_ref()).is_some_and(|r| r.value);
    match (kind, tls) {
        (Protocol::Http, None) => Some(ServerProtocol::Http { https_redirect: false }),
        (Protocol::Http, Some(tls)) => {
            if let Some(mode) = tls.mode.as_ref() {
                cx.wrong(
                    &mode.at,
                    format!("mode on a port of protocol {}", protocol.value),
                    "protocol HTTPS or TLS",
                    "a server for HTTP has no TLS but httpsRedirect",
                );
                return None;
            }
            Some(ServerProtocol::Http { https_redirect: redirect })
        }
        (Protocol::Tcp, None) => Some(ServerProtocol::Tcp),
        (Protocol::Tls, None) => {
            cx.wrong(
                &at.field("tls"),
                "nothing",
                "tls with a mode, such as PASSTHROUGH or SIMPLE",
                format!("protocol {} needs tls settings", protocol.value),
            );
            None
        }
        (Protocol::Tls | Protocol::Tcp, Some(tls)) => {
            let inside = match protocol.value.to_ascii_uppercase().as_str() {
                "HTTPS" => InnerProtocol::Http,
                _ => InnerProtocol::Tcp,
            };
            server_tls::compile(kind, inside, tls, mesh, cx)
        }
    }
}
