//! `DestinationRule` to clusters' settings, by Istio's precedence: port over subset over rule.

use std::{path::PathBuf, sync::Arc};

use super::{
    super::{
        decode::{At, Cx},
        destination_rule::{
            ClientMode, ClientTlsSettings, ConnectionPoolSettings, DestinationRule, H2Upgrade,
            HttpPool, LoadBalancerSettings, OutlierSettings, PortPolicy, SimpleLb, Subset, TcpPool,
            TrafficPolicy,
        },
        names,
        resource::{Meta, Resource},
    },
    Compiler,
    services::Entry,
};
use crate::{
    policy::{
        ClientTls, ClientTlsMode, Cluster, ClusterName, ConnectionPool, Exported, HostPattern,
        HttpVersion, LoadBalancer, OutlierDetection,
    },
    types::{Host, Labels, Namespace, Port},
};

/// A destination rule, read.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) meta: Meta,
    pub(super) host: HostPattern,
    exported: Exported,
    policy: Policy,
    subsets: Vec<RuleSubset>,
}

#[derive(Debug)]
struct RuleSubset {
    name: String,
    labels: Labels,
    policy: Policy,
}

/// Settings, each absent where it isn't given, with those of single ports.
#[derive(Clone, Debug, Default)]
struct Policy {
    settings: Settings,
    ports: Vec<(Port, Settings)>,
}

#[derive(Clone, Debug, Default)]
struct Settings {
    load_balancer: Option<LoadBalancer>,
    pool: Option<(ConnectionPool, bool)>,
    outlier: Option<Option<OutlierDetection>>,
    /// `Some(None)` is `DISABLE`.
    tls: Option<Option<ClientTls>>,
}

impl Policy {
    /// What holds on a port. Settings of a port inherit nothing, as Istio documents.
    fn on(&self, port: Port) -> Settings {
        let own = self.ports.iter().find(|(number, _)| *number == port);
        own.map_or_else(|| self.settings.clone(), |(_, settings)| settings.clone())
    }
}

impl Settings {
    fn or(self, base: Self) -> Self {
        Self {
            load_balancer: self.load_balancer.or(base.load_balancer),
            pool: self.pool.or(base.pool),
            outlier: self.outlier.or(base.outlier),
            tls: self.tls.or(base.tls),
        }
    }
}

impl Compiler<'_> {
    /// Reads a destination rule.
    pub(super) fn rule(&mut self, resource: &Resource<DestinationRule>) -> Option<Rule> {
        let Resource { meta, spec } = resource;
        let DestinationRule { at: _, host, traffic_policy, subsets, export_to } = spec;
        let host_text = host.as_ref()?;
        let full = names::expand(&host_text.value, &meta.namespace);
        let internal = self.group(&full).is_some() || names::is_in_cluster(&full);
        let mut cx = meta.cx(self.report);
        let host = names::pattern_of(&full, host_text, &mut cx)?;
        let policy = traffic_policy.as_ref().map(|p| policy(p, internal, &mut cx));
        let policy = policy.unwrap_or_default();
        let mut read: Vec<RuleSubset> = Vec::new();
        for Subset { at: _, name, labels, traffic_policy } in &subsets.0 {
            let Some(name) = name else { continue };
            if read.iter().any(|subset| subset.name == name.value) {
                cx.error(&name.at, format!("the subset {:?} is defined twice", name.value));
                continue;
            }
            let own = traffic_policy.as_ref().map(|p| self::policy(p, internal, &mut cx));
            read.push(RuleSubset {
                name: name.value.clone(),
                labels: names::labels(labels),
                policy: own.unwrap_or_default(),
            });
        }
        Some(Rule {
            meta: meta.clone(),
            host,
            exported: names::exported(export_to, &meta.namespace),
            policy,
            subsets: read,
        })
    }

    /// The rules for a host: of those that cover it and are visible, the most specific.
    fn rules_for(&self, host: &HostPattern, client: &Namespace) -> Vec<&Rule> {
        let mut found: Vec<&Rule> = Vec::new();
        for rule in &self.rules {
            if !rule.host.covers(host) || !rule.exported.includes(Some(client)) {
                continue;
            }
            match found.first() {
                Some(best) if best.host == rule.host => found.push(rule),
                Some(best) if !best.host.covers(&rule.host) => {}
                _ => found = vec![rule],
            }
        }
        found
    }

    /// Whether a destination rule for the host has this subset.
    pub(super) fn has_subset(&self, host: &HostPattern, subset: &str, client: &Namespace) -> bool {
        let mut rules = self.rules_for(host, client).into_iter();
        rules.any(|rule| rule.subsets.iter().any(|s| s.name == subset))
    }

    /// The cluster of a service's port; its subset is known to exist.
    pub(super) fn cluster(
        &mut self,
        entry: usize,
        host: &HostPattern,
        port: Port,
        subset: &str,
        client: &Namespace,
    ) -> Option<Arc<Cluster>> {
        let name = ClusterName::outbound(port, subset, &host.to_string());
        if let Some(cluster) = self.clusters.get(&name) {
            return Some(Arc::clone(cluster));
        }
        let entry = self.entries.get(entry)?;
        let service = entry.port(port)?;
        let rules = self.rules_for(host, client);
        let chosen = rules.iter().find_map(|r| r.subsets.iter().find(|s| s.name == subset));
        let base = rules.first().map(|rule| rule.policy.on(port)).unwrap_or_default();
        let labels = chosen.map(|subset| subset.labels.clone()).unwrap_or_default();
        let settings = match chosen {
            // The subset's own settings for the port replace everything, as the rule's do.
            Some(subset) if subset.policy.ports.iter().any(|(number, _)| *number == port) => {
                subset.policy.on(port)
            }
            Some(subset) => subset.policy.settings.clone().or(base),
            None => base,
        };
        let (pool, upgrade) = settings.pool.unwrap_or_default();
        let cluster = Arc::new(Cluster {
            discovery: entry.discovery(host, service, &labels),
            http: if upgrade { HttpVersion::Http2 } else { service.http },
            tls: settings.tls.flatten().map(|tls| with_names(tls, entry)),
            load_balancer: settings.load_balancer.unwrap_or(LoadBalancer::LeastRequest),
            pool,
            outlier: settings.outlier.flatten(),
            name: name.clone(),
        });
        self.clusters.insert(name, Arc::clone(&cluster));
        Some(cluster)
    }

    /// Warns about rules for hosts that don't exist, and about two for one host.
    pub(super) fn check_rules(&mut self) {
        let mut seen: Vec<(&HostPattern, &Exported, String)> = Vec::new();
        for rule in &self.rules {
            let mut cx = rule.meta.cx(self.report);
            let at = super::super::decode::Spot::root(rule.meta.line, "spec").field("host");
            let known = self.entries.iter().flat_map(|entry| &entry.hosts);
            let covers = known.into_iter().any(|h| rule.host.covers(h) || h.covers(&rule.host));
            let name = rule.host.to_string();
            let group = super::group_named(&self.mesh, &name).is_some();
            let excused = names::is_in_cluster(&name) && !self.mesh_given;
            if !(covers || group || excused) {
                let message = format!(
                    "no ServiceEntry and no gateway is named {name}; the rule has no effect"
                );
                cx.warn(&at, message).code = Some("IST0174");
            }
            match seen
                .iter()
                .find(|(host, exported, _)| **host == rule.host && **exported == rule.exported)
            {
                Some((.., other)) => {
                    cx.warn(&at, format!("{other} is for the same host; its traffic policy is used, and the subsets of both"));
                }
                None => seen.push((&rule.host, &rule.exported, rule.meta.label.clone())),
            }
        }
    }
}

/// `subjectAltNames` of the service entry, where the rule names none.
fn with_names(mut tls: ClientTls, entry: &Entry) -> ClientTls {
    if tls.subject_alt_names.is_empty() {
        tls.subject_alt_names.clone_from(&entry.subject_alt_names);
    }
    tls
}

fn policy(policy: &TrafficPolicy, internal: bool, cx: &mut Cx<'_>) -> Policy {
    let TrafficPolicy {
        at: _,
        load_balancer,
        connection_pool,
        outlier_detection,
        tls,
        port_level_settings,
    } = policy;
    let one = |lb: &Option<LoadBalancerSettings>,
               pool: &Option<ConnectionPoolSettings>,
               outlier: &Option<OutlierSettings>,
               tls: &Option<ClientTlsSettings>,
               code: &'static str,
               cx: &mut Cx<'_>| Settings {
        load_balancer: lb.as_ref().map(load_balancing),
        pool: pool.as_ref().map(|pool| connection_pool_of(pool, cx)),
        outlier: outlier.as_ref().map(|outlier| outlier_detection_of(outlier, cx)),
        tls: tls.as_ref().map(|tls| client_tls(tls, internal, code, cx)),
    };
    let settings = one(load_balancer, connection_pool, outlier_detection, tls, "IST0128", cx);
    let mut ports: Vec<(Port, Settings)> = Vec::new();
    for entry in &port_level_settings.0 {
        let PortPolicy { at, port, load_balancer, connection_pool, outlier_detection, tls } = entry;
        let own = one(load_balancer, connection_pool, outlier_detection, tls, "IST0129", cx);
        let Some(number) = port.as_ref().and_then(|port| port.number.as_ref()) else { continue };
        if ports.iter().any(|(port, _)| *port == number.value) {
            cx.error(&number.at, format!("port {} is listed twice", number.value));
            continue;
        }
        if settings.tls.as_ref().is_some_and(Option::is_some) && own.tls.is_none() {
            cx.warn(at, format!("settings of a port inherit nothing: port {} has no tls, so it is reached without, though the rule has it", number.value));
        }
        ports.push((number.value, own));
    }
    Policy { settings, ports }
}

fn load_balancing(settings: &LoadBalancerSettings) -> LoadBalancer {
    match settings.simple.as_ref().map(|simple| simple.value) {
        Some(SimpleLb::RoundRobin) => LoadBalancer::RoundRobin,
        Some(SimpleLb::Random) => LoadBalancer::Random,
        None
        | Some(
            SimpleLb::Unspecified
            | SimpleLb::LeastRequest
            | SimpleLb::LeastConn
            | SimpleLb::Passthrough,
        ) => LoadBalancer::LeastRequest,
    }
}

fn connection_pool_of(
    settings: &ConnectionPoolSettings,
    cx: &mut Cx<'_>,
) -> (ConnectionPool, bool) {
    let mut pool = ConnectionPool::default();
    let mut upgrade = false;
    let not_zero = |limit: &Option<At<u32>>, cx: &mut Cx<'_>| {
        let limit = limit.as_ref()?;
        if limit.value == 0 {
            cx.wrong(&limit.at, "0", "a number above 0", "this would refuse everything");
        }
        Some(limit.value)
    };
    if let Some(TcpPool { at: _, max_connections, connect_timeout, idle_timeout }) = &settings.tcp {
        pool.max_connections = not_zero(max_connections, cx).unwrap_or(pool.max_connections);
        if let Some(timeout) = connect_timeout {
            if timeout.value.is_zero() {
                cx.wrong(&timeout.at, "0", "a duration above 0", "no connection could be made");
            }
            pool.connect_timeout = timeout.value;
        }
        pool.idle_timeout = idle_timeout.as_ref().map_or(pool.idle_timeout, |t| t.value);
    }
    if let Some(http) = &settings.http {
        let HttpPool {
            at: _,
            http2_max_requests,
            http1_max_pending_requests,
            max_requests_per_connection,
            idle_timeout,
            h2_upgrade_policy,
        } = http;
        let pending = not_zero(http1_max_pending_requests, cx);
        pool.max_requests =
            not_zero(http2_max_requests, cx).or(pending).unwrap_or(pool.max_requests);
        pool.max_requests_per_connection =
            max_requests_per_connection.as_ref().map_or(0, |max| max.value);
        pool.idle_timeout = idle_timeout.as_ref().map_or(pool.idle_timeout, |t| t.value);
        upgrade = h2_upgrade_policy.as_ref().is_some_and(|p| p.value == H2Upgrade::Upgrade);
    }
    (pool, upgrade)
}

fn outlier_detection_of(settings: &OutlierSettings, cx: &mut Cx<'_>) -> Option<OutlierDetection> {
    let OutlierSettings {
        at: _,
        consecutive_5xx_errors,
        consecutive_gateway_errors,
        consecutive_errors,
        base_ejection_time,
        max_ejection_percent,
    } = settings;
    let errors = consecutive_5xx_errors
        .as_ref()
        .or(consecutive_gateway_errors.as_ref())
        .or(consecutive_errors.as_ref())
        .map_or(5, |errors| errors.value);
    let percent = max_ejection_percent.as_ref();
    let max_ejection_percent = percent.map_or(10, |percent| {
        u8::try_from(percent.value).ok().filter(|p| *p <= 100).unwrap_or_else(|| {
            cx.wrong(&percent.at, percent.value.to_string(), "0 to 100", "not a percentage");
            100
        })
    });
    let base = base_ejection_time.as_ref();
    (errors > 0).then(|| OutlierDetection {
        consecutive_errors: errors,
        base_ejection_time: base.map_or(std::time::Duration::from_secs(30), |t| t.value),
        max_ejection_percent,
    })
}

/// `internal` says that the rule is for a service in the cluster, a gateway among them.
fn client_tls(
    settings: &ClientTlsSettings,
    internal: bool,
    code: &'static str,
    cx: &mut Cx<'_>,
) -> Option<ClientTls> {
    let ClientTlsSettings {
        at,
        mode,
        client_certificate,
        private_key,
        ca_certificates,
        subject_alt_names,
        sni,
        insecure_skip_verify,
    } = settings;
    let path = |file: &Option<At<String>>| file.as_ref().map(|f| PathBuf::from(&f.value));
    let mode_at = mode.as_ref().map_or(at, |mode| &mode.at);
    let mode = match mode.as_ref().map_or(ClientMode::Disable, |mode| mode.value) {
        ClientMode::Disable => return None,
        mode if internal => {
            cx.wrong(mode_at, mode.to_string(), "DISABLE, or no tls", "TLS between the application and the gateway (the mTLS hop) is not supported yet; nothing is sent in clear instead");
            return None;
        }
        ClientMode::IstioMutual => {
            cx.wrong(
                mode_at,
                "ISTIO_MUTUAL",
                "SIMPLE or MUTUAL",
                "the mesh's certificates are not supported yet",
            );
            return None;
        }
        ClientMode::Simple => {
            if let Some(file) = client_certificate.as_ref().or(private_key.as_ref()) {
                cx.warn(
                    &file.at,
                    "has no effect with mode SIMPLE; say MUTUAL to show a certificate",
                );
            }
            ClientTlsMode::Simple
        }
        ClientMode::Mutual => match (path(client_certificate), path(private_key)) {
            (Some(client_certificate), Some(private_key)) => {
                ClientTlsMode::Mutual { client_certificate, private_key }
            }
            (certificate, _) => {
                let missing =
                    if certificate.is_none() { "clientCertificate" } else { "privateKey" };
                cx.wrong(
                    &at.field(missing),
                    "nothing",
                    "a file",
                    "mode MUTUAL needs clientCertificate and privateKey",
                );
                return None;
            }
        },
    };
    let insecure = insecure_skip_verify.as_ref().filter(|skip| skip.value);
    if let Some(skip) = insecure {
        cx.warn(&skip.at, "the upstream's certificate is not verified: anyone on the way can read and change what is sent").code = Some(code);
    }
    let sni = sni.as_ref().and_then(|sni| match names::host(sni, cx)? {
        name @ Host::Name(_) => Some(name),
        Host::Ip(_) => {
            cx.wrong(
                &sni.at,
                format!("{:?}", sni.value),
                "a DNS name",
                "a server name is no address (RFC 6066 §3)",
            );
            None
        }
    });
    Some(ClientTls {
        mode,
        sni,
        subject_alt_names: subject_alt_names.iter().map(|name| name.value.clone()).collect(),
        ca_certificates: path(ca_certificates),
        insecure_skip_verify: insecure.is_some(),
    })
}
