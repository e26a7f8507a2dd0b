//! Services, gateways' servers and routes in `/config_dump`.

use serde_json::{Value, json};

use super::json::{list, seconds};
use crate::policy::{
    Destination, Exported, HostPattern, HttpMatch, HttpOutcome, HttpRule, MeshConfig, Protocol,
    RouteSet, Rules, Server, ServerProtocol, ServerTlsMode, Service, SourceMatch, StageRules,
    Target, TcpRule, TextMatch, TlsRule, VisibleDestination, WeightedDestination,
};

/// What decisions are made of, but for clusters, which have a list of their own.
pub(super) fn rules(rules: &Rules, mesh: &MeshConfig) -> Value {
    json!({
        "services": list(&rules.services, |found| service(found)),
        "servers": list(&rules.servers, |found| server(found)),
        "routes": list(&rules.routes, |found| route_set(found, mesh)),
    })
}

fn hosts(hosts: &[HostPattern]) -> Value {
    list(hosts, |host| json!(host.to_string()))
}

fn exported(exported: &Exported) -> Value {
    match exported {
        Exported::All => json!("*"),
        Exported::To(namespaces) => list(namespaces, |namespace| json!(&*namespace.0)),
    }
}

fn service(service: &Service) -> Value {
    json!({
        "name": &*service.name,
        "host": service.host.to_string(),
        "port": service.port.0.get(),
        "protocol": match service.protocol {
            Protocol::Http => "HTTP",
            Protocol::Tls => "TLS",
            Protocol::Tcp => "TCP",
        },
        "exportTo": exported(&service.exported),
        "addresses": list(&service.addresses, |net| json!(net.to_string())),
        "cluster": &*service.cluster.name.0,
    })
}

fn server(server: &Server) -> Value {
    let tls = match &server.protocol {
        ServerProtocol::Terminate(tls) => Some(match tls.mode {
            ServerTlsMode::Simple => "SIMPLE",
            ServerTlsMode::Mutual => "MUTUAL",
            ServerTlsMode::OptionalMutual => "OPTIONAL_MUTUAL",
            ServerTlsMode::IstioMutual(_) => "ISTIO_MUTUAL",
        }),
        ServerProtocol::Passthrough(_) => Some("PASSTHROUGH"),
        ServerProtocol::Http { .. } | ServerProtocol::Tcp => None,
    };
    json!({
        "gateway": &*server.gateway,
        "of": server.owner.as_deref(),
        "selector": server.selector,
        "port": server.port.0.get(),
        "hosts": list(&server.hosts, |(namespace, host)| json!(match namespace {
            Some(namespace) => format!("{}/{host}", namespace.0),
            None => host.to_string(),
        })),
        "carries": match server.protocol.carries() {
            Protocol::Http => "HTTP",
            Protocol::Tls => "TLS",
            Protocol::Tcp => "TCP",
        },
        "tls": tls,
    })
}

fn route_set(set: &RouteSet, mesh: &MeshConfig) -> Value {
    let gateways = set.gateways.iter().map(|(name, rules)| (name.to_string(), stage(rules, mesh)));
    json!({
        "name": &*set.name,
        "exportTo": exported(&set.exported),
        "hosts": hosts(&set.hosts),
        "mesh": stage(&set.mesh, mesh),
        "gateways": gateways.collect::<serde_json::Map<_, _>>(),
    })
}

fn stage(rules: &StageRules, mesh: &MeshConfig) -> Value {
    json!({
        "http": list(&rules.http, |rule| http(rule, mesh)),
        "tls": list(&rules.tls, |rule| tls(rule, mesh)),
        "tcp": list(&rules.tcp, |rule| tcp(rule, mesh)),
    })
}

fn http(rule: &HttpRule, mesh: &MeshConfig) -> Value {
    json!({
        "name": rule.name.as_deref(),
        "matches": list(&rule.matches, http_match),
        "outcome": match &rule.outcome {
            HttpOutcome::Route(targets) => json!({ "route": weighted(targets, mesh) }),
            HttpOutcome::Redirect(redirect) => json!({ "redirect": redirect.status.as_u16() }),
            HttpOutcome::Respond(status, _) => json!({ "respond": status.as_u16() }),
        },
        "timeout": rule.timeout.map(seconds),
    })
}

fn http_match(found: &HttpMatch) -> Value {
    let names = |headers: &[(http::HeaderName, TextMatch)]| {
        list(headers, |(name, text)| json!({ name.as_str(): text_match(text) }))
    };
    json!({
        "port": found.port.map(|port| port.get()),
        "path": found.path.as_ref().map(text_match),
        "method": found.method.as_ref().map(text_match),
        "authority": found.authority.as_ref().map(text_match),
        "scheme": found.scheme.as_ref().map(text_match),
        "headers": names(&found.headers),
        "withoutHeaders": names(&found.without_headers),
        "query": list(&found.query, |(name, text)| json!({ (&**name): text_match(text) })),
        "source": source(&found.source),
    })
}

fn text_match(text: &TextMatch) -> Value {
    match text {
        TextMatch::Present => json!("present"),
        TextMatch::Exact(exact) => json!({ "exact": exact }),
        TextMatch::Prefix(prefix) => json!({ "prefix": prefix }),
        TextMatch::Regex(regex) => json!({ "regex": regex.as_str() }),
    }
}

fn tls(rule: &TlsRule, mesh: &MeshConfig) -> Value {
    json!({
        "matches": list(&rule.matches, |found| json!({
            "port": found.port.map(|port| port.get()),
            "sniHosts": hosts(&found.server_names),
            "source": source(&found.source),
        })),
        "route": weighted(&rule.targets, mesh),
    })
}

fn tcp(rule: &TcpRule, mesh: &MeshConfig) -> Value {
    json!({
        "matches": list(&rule.matches, |found| json!({
            "port": found.port.map(|port| port.get()),
            "destinationSubnets": list(&found.subnets, |net| json!(net.to_string())),
            "source": source(&found.source),
        })),
        "route": weighted(&rule.targets, mesh),
    })
}

fn source(source: &SourceMatch) -> Value {
    json!({
        "labels": source.labels,
        "namespace": source.namespace.as_ref().map(|namespace| &*namespace.0),
        "subnet": source.subnet.map(|subnet| subnet.to_string()),
    })
}

fn weighted(targets: &[WeightedDestination], mesh: &MeshConfig) -> Value {
    list(targets, |WeightedDestination { weight, target, .. }| {
        let to = match target {
            Target::Gateway { group, port, hop, owner } => json!({
                "gateway": mesh.gateways.get(*group).map(|gateway| gateway.service.to_string()),
                "port": port.0.get(),
                "hop": hop.name(),
                "of": owner.as_deref(),
            }),
            Target::Cluster { destination, .. } => json!({ "clusters": clusters(destination) }),
            Target::Refused { reason, detail } => {
                json!({ "refused": reason.name(), "detail": &**detail })
            }
        };
        json!({ "weight": weight, "to": to })
    })
}

/// The clusters of a destination, by who declares it and who asks.
pub(super) fn clusters(destination: &Destination) -> Value {
    let cluster = |reached: &VisibleDestination| reached.cluster.name.0.to_string();
    list(&destination.providers, |provider| {
        let clients = provider.by_client.iter();
        json!({
            "host": provider.host.to_string(),
            "namespace": &*provider.namespace.0,
            "cluster": cluster(&provider.others),
            "byClient": clients
                .map(|(clients, reached)| (clients.to_string(), json!(cluster(reached))))
                .collect::<serde_json::Map<_, _>>(),
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::{
        config::{self, RawFile},
        policy::Snapshot,
    };

    fn dump(files: &[(&str, &str)]) -> serde_json::Value {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| RawFile { path: (*path).into(), text: (*text).into() })
            .collect();
        let Snapshot { mesh, rules, .. } = config::compile(&files, None).unwrap().snapshot;
        super::rules(&rules, &mesh)
    }

    #[test]
    fn the_walkthroughs_routes_and_servers_are_shown() {
        let dump = dump(&[
            ("mesh.yaml", include_str!("../../../../deploy/example/mesh.yaml")),
            (
                "se.yaml",
                include_str!("../../../../deploy/example/2-http-gateway/service-entry.yaml"),
            ),
            ("gw.yaml", include_str!("../../../../deploy/example/2-http-gateway/gateway.yaml")),
            (
                "vs.yaml",
                include_str!("../../../../deploy/example/2-http-gateway/virtual-service.yaml"),
            ),
        ]);
        assert_eq!(dump["services"][0]["host"], "edition.cnn.com");
        let server = &dump["servers"][0];
        assert_eq!((&server["port"], &server["carries"]), (&80.into(), &"HTTP".into()));
        assert_eq!(server["hosts"][0], "edition.cnn.com");
        let route = &dump["routes"][0];
        let mesh = &route["mesh"]["http"][0];
        assert_eq!(mesh["matches"][0]["port"], 80);
        let to = &mesh["outcome"]["route"][0]["to"];
        assert_eq!(to["gateway"], "istio-egressgateway.istio-system.svc.cluster.local");
        let gateway = &route["gateways"]["default/istio-egressgateway"]["http"][0];
        let to = &gateway["outcome"]["route"][0]["to"];
        assert_eq!(to["clusters"][0]["cluster"], "outbound|80||edition.cnn.com");
    }
}
