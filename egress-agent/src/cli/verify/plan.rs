//! What is tried: from the configuration, without I/O.

use std::{collections::BTreeSet, fmt, sync::Arc};

use crate::{
    explain::{Query, Scheme, Verdict},
    policy::{EgressAccess, EgressRule, HostPattern, Protocol, Snapshot},
};

/// Hosts that are asked at the most: a pod that may reach thousands need not ask all of them.
const MOST: usize = 50;
/// The host that nobody has (RFC 2606 §2).
const NOBODY: &str = "not-allowed.invalid";

/// A connection to a host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Check {
    /// Whom it goes to.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) what: CheckKind,
}

/// What is said on it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum CheckKind {
    /// An HTTP request with this method and path.
    Http { method: String, path: String },
    /// A TLS handshake for the host.
    Tls,
    /// Nothing.
    Tcp,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, what } = self;
        match what {
            CheckKind::Http { method, path } => write!(f, "{method} http://{host}:{port}{path}"),
            CheckKind::Tls => write!(f, "tls://{host}:{port}"),
            CheckKind::Tcp => write!(f, "tcp://{host}:{port}"),
        }
    }
}

impl Check {
    fn url(&self) -> String {
        let Self { host, port, what } = self;
        let (scheme, path) = match what {
            CheckKind::Http { path, .. } => (Scheme::Http, path.as_str()),
            CheckKind::Tls => (Scheme::Tls, ""),
            CheckKind::Tcp => (Scheme::Tcp, ""),
        };
        format!("{}://{host}:{port}{path}", scheme.name())
    }
}

/// What the pod may do, of what policies and the registry name: each single host. Whether it may is what
/// `egress-agent explain` says.
pub(super) fn allowed(snapshot: &Arc<Snapshot>, from: &str) -> Vec<Check> {
    let policies = snapshot.rules.egress.iter().flat_map(|policy| &policy.rules);
    let services = snapshot.rules.services.iter();
    let named: BTreeSet<Check> = policies
        .filter_map(|rule| by_rule(rule))
        .chain(services.filter_map(|of| {
            let what = match of.protocol {
                Protocol::Http => CheckKind::Http { method: "GET".into(), path: "/".into() },
                Protocol::Tls => CheckKind::Tls,
                Protocol::Tcp => CheckKind::Tcp,
            };
            check(&of.host, of.port.0.get(), what)
        }))
        .collect();
    let may = |check: &Check| {
        let method = match &check.what {
            CheckKind::Http { method, .. } => Some(method.clone()),
            CheckKind::Tls | CheckKind::Tcp => None,
        };
        let ask = Query { from: from.into(), url: check.url(), method, ..Query::default() };
        ask.answer(snapshot).is_ok_and(|said| said.outcome.verdict == Verdict::Allowed)
    };
    named.into_iter().filter(may).take(MOST).collect()
}

fn by_rule(rule: &EgressRule) -> Option<Check> {
    let what = match &rule.access {
        EgressAccess::Http { limits, .. } => {
            // What an answer to `GET` says can be read, and it changes nothing.
            let get = limits.methods.iter().find(|method| method.as_str() == "GET");
            let method = get.or(limits.methods.first()).map_or("GET", |method| method.as_str());
            let path = limits.paths.first().map_or("/", |path| &*path.text);
            CheckKind::Http { method: method.into(), path: path.into() }
        }
        EgressAccess::Tls => CheckKind::Tls,
        EgressAccess::Tcp { .. } => CheckKind::Tcp,
    };
    check(&rule.host, rule.port.0.get(), what)
}

fn check(host: &HostPattern, port: u16, what: CheckKind) -> Option<Check> {
    match host {
        HostPattern::Exact(host) => Some(Check { host: host.to_string(), port, what }),
        // Nobody knows a name below it.
        HostPattern::Below(_) | HostPattern::Ending(_) | HostPattern::Any => None,
    }
}

/// The same connection for a host that nobody allows; raw TCP names none.
pub(super) fn forbidden(check: &Check) -> Option<Check> {
    match check.what {
        CheckKind::Http { .. } | CheckKind::Tls => {
            Some(Check { host: NOBODY.into(), ..check.clone() })
        }
        CheckKind::Tcp => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{testing::golden, verify::survey, wrap::WIDTH},
        config,
        config::RawFile,
        pods::{Pod, PodUid},
        types::Namespace,
    };

    const MESH: &str = "\
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
clusterCidrs: [10.0.0.0/8]
gateways:
- service: istio-egressgateway.istio-system.svc.cluster.local
  labels: {istio: egressgateway}
  endpoints: [10.10.0.11]
enforcementOverrides:
- {name: trial, mode: audit, labels: {app: job}}
workloads:
- {name: web-0, namespace: shop, labels: {app: web}, addresses: [10.244.1.10]}
- {name: job-0, namespace: shop, labels: {app: job}, addresses: [10.244.1.11]}
";
    const POLICIES: &str = "\
apiVersion: egress-enforcer.io/v1alpha1
kind: EgressPolicy
metadata: {name: news, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  rules:
  - hosts: [edition.cnn.com, '*.example.com']
    ports: [{port: 80, protocol: HTTP}]
    http: {methods: [HEAD], paths: [/politics]}
  - hosts: [www.example.org]
    ports: [{port: 443, protocol: TLS}]
---
apiVersion: egress-enforcer.io/v1alpha1
kind: EgressPolicy
metadata: {name: other, namespace: shop}
spec:
  podSelector: {matchLabels: {app: job}}
  rules:
  - hosts: [other.example.org]
    ports: [{port: 443, protocol: TLS}]
";

    fn snapshot() -> Arc<Snapshot> {
        let file = |path: &str, text: &str| RawFile { path: path.into(), text: text.into() };
        let files = [file("policies.yaml", POLICIES)];
        let compiled = config::compile(&files, Some(&file("mesh.yaml", MESH)));
        Arc::new(compiled.map_err(|problems| format!("{problems:?}")).unwrap().snapshot)
    }

    #[test]
    fn a_pod_tries_what_it_may_reach_and_its_twin_for_another_host() {
        let snapshot = snapshot();
        let texts = |from: &str| {
            allowed(&snapshot, from).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let own = ["HEAD http://edition.cnn.com:80/politics", "tls://www.example.org:443"];
        assert_eq!(texts("shop/web-0"), own);
        assert_eq!(texts("shop/nobody"), Vec::<String>::new());
        let twins: Vec<String> = allowed(&snapshot, "shop/web-0")
            .iter()
            .filter_map(forbidden)
            .map(|check| check.to_string())
            .collect();
        assert_eq!(
            twins,
            ["HEAD http://not-allowed.invalid:80/politics", "tls://not-allowed.invalid:443"]
        );
        let tcp = Check { host: "a".into(), port: 22, what: CheckKind::Tcp };
        assert_eq!(forbidden(&tcp), None);
    }

    /// The same pods with more policies than a line has room for.
    fn many(rows: &[survey::Row]) -> Vec<survey::Row> {
        let policies = |row: &survey::Row| {
            let number = |n: usize| format!("EgressPolicy shop/{}-{n}", row.pod);
            (1..4).map(number).collect()
        };
        rows.iter().map(|row| survey::Row { policies: policies(row), ..row.clone() }).collect()
    }

    #[test]
    fn each_pod_shows_its_node_its_mode_and_its_policies() {
        let pod = |name: &str, namespace: &str, finished: bool| Pod {
            uid: PodUid::parse("0f3f1c1e-7a5b-4c3d-9e8f-0123456789ab").unwrap(),
            namespace: Namespace(namespace.into()),
            name: name.into(),
            labels: Default::default(),
            service_account: "default".into(),
            node: (name != "new-0").then(|| "node-1".into()),
            host_network: false,
            finished,
            addresses: Vec::new(),
        };
        let pods = [
            pod("web-0", "shop", false),
            pod("job-0", "shop", false),
            pod("new-0", "shop", false),
            pod("done-0", "shop", true),
            pod("web-0", "other", false),
        ];
        let rows = survey::rows(&snapshot(), "shop", &pods);
        assert_eq!(
            survey::text("shop", &rows, usize::MAX),
            "POD    NODE      MODE            POLICIES\n\
             job-0  node-1    audit           EgressPolicy shop/other\n\
             new-0  none yet  no address yet  none: Istio's resources decide, if any\n\
             web-0  node-1    enforce         EgressPolicy shop/news\n"
        );
        golden("verify.txt", &survey::text("shop", &many(&rows), WIDTH));
        assert_eq!(survey::text("empty", &[], usize::MAX), "no pods in empty\n");
    }
}
