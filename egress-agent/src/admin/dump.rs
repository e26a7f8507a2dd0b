//! `/config_dump`: the configuration in force. Paths of keys are shown, keys are not: the snapshot
//! doesn't hold any.

mod balance;
mod egress;
mod json;
mod rates;
mod rules;

use serde_json::{Value, json};

use self::{
    balance::{consistent_hash, egress_addresses, locality, warmup},
    json::{list, seconds},
    rates::rate_limit,
};
use super::ConfigState;
use crate::{
    policy::{
        AccessLogEncoding, ClientTls, ClientTlsMode, Cluster, ConnectionPool, Direct, DirectTarget,
        Discovery, GatewayGroup, HttpVersion, Keepalive, LoadBalancer, MeshConfig, NodeAction,
        NodeRoute, OutboundMode, OutlierDetection, ProxyProtocol,
    },
    types::{Node, Workload},
};

/// The parts that `/config_dump?resource=` names.
pub(super) const RESOURCES: [&str; 6] =
    ["configuration", "mesh", "node", "gateway", "egressPolicies", "clusters"];

/// The whole configuration, or one of [`RESOURCES`], pretty-printed.
pub(super) fn json(config: &ConfigState, resource: Option<&str>) -> String {
    let snapshot = config.snapshot.as_deref();
    let of = |name: &str| match name {
        "configuration" => json!({
            "current": config.current,
            "accepted": config.accepted,
            "rejected": config.rejected,
        }),
        "mesh" => json!(snapshot.map(|snapshot| mesh(&snapshot.mesh))),
        "node" => json!(snapshot.map(|snapshot| json!({
            "routes": list(&snapshot.node.routes, |route| node_route(route, &snapshot.mesh)),
        }))),
        "gateway" => {
            json!(snapshot.map(|snapshot| rules::rules(&snapshot.rules, &snapshot.mesh)))
        }
        "egressPolicies" => json!(snapshot.map(|snapshot| {
            list(&snapshot.rules.egress, |found| egress::policy(found, &snapshot.mesh))
        })),
        _ => list(&config.clusters, |found| cluster(found)),
    };
    let wanted = RESOURCES.iter().filter(|name| resource.is_none_or(|wanted| wanted == **name));
    let dump: serde_json::Map<String, Value> =
        wanted.map(|name| ((*name).to_owned(), of(name))).collect();
    format!("{:#}\n", Value::Object(dump))
}

fn mesh(mesh: &MeshConfig) -> Value {
    json!({
        "outboundTrafficPolicy": { "mode": match mesh.outbound {
            OutboundMode::RegistryOnly => "REGISTRY_ONLY",
            OutboundMode::AllowAny => "ALLOW_ANY",
        }},
        "direct": match mesh.direct {
            Direct::Deny => "deny",
            Direct::Registry => "registry",
        },
        "enforcement": mesh.enforcement.name(),
        "enforcementOverrides": list(&mesh.overrides, |set| json!({
            "name": &*set.name,
            "namespaces": list(&set.selector.namespaces, |namespace| json!(&*namespace.0)),
            "labels": set.selector.labels,
            "mode": set.mode.name(),
        })),
        "exemptions": list(&mesh.exemptions, |set| json!(set.to_string())),
        "accessLogFile": mesh.access_log_file,
        "accessLogFormat": mesh.access_log_format,
        "accessLogEncoding": match mesh.access_log_encoding {
            AccessLogEncoding::Text => "TEXT",
            AccessLogEncoding::Json => "JSON",
        },
        "enableTracing": mesh.tracing,
        "clusterCidrs": list(&mesh.cluster_cidrs, |net| json!(net.to_string())),
        "deniedCidrs": list(&mesh.denied_cidrs, |net| json!(net.to_string())),
        "encapsulationPorts": mesh.encapsulation_ports.iter().map(|port| port.get()).collect::<Vec<_>>(),
        "egressAddresses": list(&mesh.egress_addresses, |set| json!({
            "from": egress_addresses(&set.from),
            "selector": set.selector.to_string(),
        })),
        "refusals": mesh.refusal_note.as_deref(),
        "gateways": list(&mesh.gateways, gateway),
        "nodes": list(&mesh.nodes, |found| mesh_node(found)),
        "workloads": list(&mesh.workloads, |found| workload(found)),
    })
}

fn gateway(gateway: &GatewayGroup) -> Value {
    json!({
        "service": gateway.service.to_string(),
        "labels": gateway.labels,
        "endpoints": gateway.endpoints,
        "principal": gateway.principal.as_ref().map(ToString::to_string),
        "hop": gateway.hop.name(),
        "tunnel": gateway.tunnel.as_deref().map(|tunnel| json!({
            "credential": tunnel.credential.to_string(),
            "subjectAltNames": tunnel.subject_alt_names,
            "trustDomain": tunnel.trust_domain.to_string(),
            "namespace": &*tunnel.namespace.0,
        })),
    })
}

fn mesh_node(node: &Node) -> Value {
    json!({
        "name": &*node.name,
        "principal": node.principal.to_string(),
        "addresses": node.addresses,
    })
}

fn workload(workload: &Workload) -> Value {
    json!({
        "name": &*workload.name,
        "namespace": &*workload.namespace.0,
        "labels": workload.labels,
        "addresses": workload.addresses,
        "cgroups": workload.cgroups,
        "interface": workload.interface.as_deref(),
        "node": workload.node.as_deref(),
        "serviceAccount": &*workload.service_account,
    })
}

fn node_route(route: &NodeRoute, mesh: &MeshConfig) -> Value {
    let target = match &route.target {
        DirectTarget::Any => json!("any"),
        DirectTarget::Net(net) => json!(net.to_string()),
        DirectTarget::Name(host) => json!(host.to_string()),
    };
    let action = match route.action {
        NodeAction::Redirect { group, port, hop } => json!({ "redirect": {
            "gateway": mesh.gateways.get(group).map(|gateway| gateway.service.to_string()),
            "port": port.map(|port| port.0.get()),
            "hop": hop.name(),
        }}),
        NodeAction::Direct => json!("direct"),
    };
    json!({ "port": route.port.map(|port| port.0.get()), "target": target, "action": action })
}

fn cluster(cluster: &Cluster) -> Value {
    json!({
        "name": &*cluster.name.0,
        "discovery": match &cluster.discovery {
            Discovery::Dns(names) => json!({
                "dns": list(names, |(host, port)| json!(format!("{host}:{port}"))),
            }),
            Discovery::Static(endpoints) => json!({
                "static": list(endpoints, |endpoint| json!({
                    "address": endpoint.addr.to_string(),
                    "weight": endpoint.weight,
                })),
            }),
            Discovery::Request(port) => json!({ "requestHostOnPort": port.get() }),
        },
        "http": match cluster.http {
            HttpVersion::Auto => "auto",
            HttpVersion::Client => "client",
            HttpVersion::Http2 => "http2",
        },
        "tls": cluster.tls.as_ref().map(tls),
        "loadBalancer": match cluster.load_balancer {
            LoadBalancer::LeastRequest => "LEAST_REQUEST",
            LoadBalancer::RoundRobin => "ROUND_ROBIN",
            LoadBalancer::Random => "RANDOM",
            LoadBalancer::First => "FIRST",
        },
        "consistentHash": cluster.hash.as_deref().map(consistent_hash),
        "warmup": cluster.warmup.as_ref().map(warmup),
        "locality": cluster.locality.as_deref().map(locality),
        "egressAddresses": cluster.from.as_deref().map(egress_addresses),
        "proxyProtocol": cluster.proxy_protocol.map(|version| match version {
            ProxyProtocol::V1 => "V1",
            ProxyProtocol::V2 => "V2",
        }),
        "tunnel": cluster.connect.as_ref().map(ToString::to_string),
        "tunnelMethod": cluster.connect.as_ref().map(|target| target.method.name()),
        "retryBudget": cluster.retry_budget.as_ref().map(|budget| json!({
            "percent": budget.percent,
            "minRetryConcurrency": budget.minimum,
        })),
        "connectionPool": pool(&cluster.pool),
        "outlierDetection": cluster.outlier.as_ref().map(outlier),
        "rateLimit": cluster.rate.as_deref().map(rate_limit),
    })
}

fn tls(tls: &ClientTls) -> Value {
    let name = match &tls.mode {
        ClientTlsMode::SimpleNamed(name) | ClientTlsMode::MutualNamed(name) => Some(&**name),
        ClientTlsMode::Simple | ClientTlsMode::Mutual { .. } => None,
    };
    let (mode, certificate, key) = match &tls.mode {
        ClientTlsMode::Simple | ClientTlsMode::SimpleNamed(_) => ("SIMPLE", None, None),
        ClientTlsMode::MutualNamed(_) => ("MUTUAL", None, None),
        ClientTlsMode::Mutual { client_certificate, private_key } => {
            ("MUTUAL", Some(client_certificate), Some(private_key))
        }
    };
    json!({
        "mode": mode,
        "clientCertificate": certificate,
        "privateKey": key,
        "credentialName": name,
        "sni": tls.sni.as_ref().map(ToString::to_string),
        "subjectAltNames": tls.subject_alt_names,
        "caCertificates": tls.ca_certificates,
        "caCrl": tls.ca_crl,
        "insecureSkipVerify": tls.insecure_skip_verify,
    })
}

fn pool(pool: &ConnectionPool) -> Value {
    // What is without limit is null rather than a number that looks like one.
    let limit = |limit: u32| (limit != u32::MAX).then_some(limit);
    json!({
        "maxConnections": limit(pool.max_connections),
        "connectTimeout": seconds(pool.connect_timeout),
        "idleTimeout": seconds(pool.idle_timeout),
        "tcpIdleTimeout": pool.tcp_idle_timeout.map(seconds),
        "tcpKeepalive": pool.keepalive.map(keepalive),
        "maxRequestsPerConnection":
            Some(pool.max_requests_per_connection).filter(|requests| *requests != 0),
        "maxRequests": limit(pool.max_requests),
        "maxConcurrentStreams": limit(pool.max_concurrent_streams),
        "maxRetries": limit(pool.max_retries),
        "maxConnectionDuration": pool.max_connection_duration.map(seconds),
    })
}

fn outlier(outlier: &OutlierDetection) -> Value {
    json!({
        "consecutive5xxErrors": outlier.consecutive_errors,
        "consecutiveGatewayErrors": outlier.gateway_errors,
        "consecutiveLocalOriginFailures": outlier.local_origin_failures,
        "baseEjectionTime": seconds(outlier.base_ejection_time),
        "maxEjectionPercent": outlier.max_ejection_percent,
    })
}

fn keepalive(keepalive: Keepalive) -> Value {
    json!({
        "time": seconds(keepalive.time),
        "interval": seconds(keepalive.interval),
        "probes": keepalive.probes,
    })
}
