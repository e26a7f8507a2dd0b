//! A pod may reach exactly what the policies allow that select it, whatever else there is.

use std::fmt::Write as _;

use proptest::prelude::*;

use crate::config::testing::{Gateway, MESH, file};

const NAMESPACES: [&str; 2] = ["red", "blue"];
const LABELS: [&str; 3] = ["a", "b", "c"];
const HOSTS: [&str; 6] = [
    "example.com",
    "www.example.com",
    "api.www.example.com",
    "*.example.com",
    "*.www.example.com",
    "other.example",
];
const ASKED: [&str; 5] =
    ["example.com", "www.example.com", "api.www.example.com", "x.example.com", "other.example"];
const METHODS: [&str; 2] = ["GET", "POST"];

#[derive(Clone, Debug)]
struct Rule {
    hosts: Vec<usize>,
    /// HTTP on 80, or else TLS on 443.
    http: bool,
    originate: bool,
    method: Option<usize>,
}

#[derive(Clone, Debug)]
struct Policy {
    /// `None` is the whole cluster.
    namespace: Option<usize>,
    label: Option<usize>,
    rules: Vec<Rule>,
}

fn rule() -> impl Strategy<Value = Rule> {
    let hosts = proptest::collection::vec(0..HOSTS.len(), 1..3);
    (hosts, any::<bool>(), any::<bool>(), proptest::option::of(0..METHODS.len())).prop_map(
        |(mut hosts, http, originate, method)| {
            hosts.sort_unstable();
            hosts.dedup();
            Rule { hosts, http, originate: http && originate, method: method.filter(|_| http) }
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let namespace = proptest::option::weighted(0.8, 0..NAMESPACES.len());
    let label = proptest::option::of(0..LABELS.len());
    let rules = proptest::collection::vec(rule(), 0..4);
    (namespace, label, rules).prop_map(|(namespace, label, rules)| Policy {
        namespace,
        label,
        rules,
    })
}

fn text(index: usize, policy: &Policy) -> String {
    let mut text = String::from("apiVersion: egress-enforcer.io/v1alpha1\n");
    let (kind, namespace, selector) = match policy.namespace {
        Some(namespace) => ("EgressPolicy", format!(", namespace: {}", NAMESPACES[namespace]), ""),
        None => ("ClusterEgressPolicy", String::new(), "  namespaceSelector: {}\n"),
    };
    write!(text, "kind: {kind}\nmetadata: {{name: p{index}{namespace}}}\nspec:\n{selector}")
        .unwrap();
    if let Some(label) = policy.label {
        writeln!(text, "  podSelector: {{matchLabels: {{app: {}}}}}", LABELS[label]).unwrap();
    }
    let rules = policy.rules.iter().map(|rule| {
        let hosts: Vec<_> = rule.hosts.iter().map(|host| format!("'{}'", HOSTS[*host])).collect();
        let (number, protocol) = if rule.http { (80, "HTTP") } else { (443, "TLS") };
        let originate = if rule.originate { ", originateTLS: {}" } else { "" };
        let limits =
            rule.method.map(|method| format!(", http: {{methods: [{}]}}", METHODS[method]));
        format!(
            "{{hosts: [{}], ports: [{{port: {number}, protocol: {protocol}}}]{originate}{}}}",
            hosts.join(", "),
            limits.unwrap_or_default()
        )
    });
    writeln!(text, "  rules: [{}]", rules.collect::<Vec<_>>().join(", ")).unwrap();
    text
}

/// By text alone.
fn names(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix),
        None => pattern == host,
    }
}

impl Policy {
    fn selects(&self, namespace: usize, label: usize) -> bool {
        self.namespace.is_none_or(|own| own == namespace)
            && self.label.is_none_or(|own| own == label)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_pod_gets_exactly_the_union_of_its_policies(
        policies in proptest::collection::vec(policy(), 0..7),
    ) {
        let files: Vec<_> = policies
            .iter()
            .enumerate()
            .map(|(i, policy)| file(&format!("{i}.yaml"), &text(i, policy)))
            .collect();
        let mut mesh = MESH.to_owned();
        for (n, namespace) in NAMESPACES.iter().enumerate() {
            for (l, label) in LABELS.iter().enumerate() {
                writeln!(mesh, "- {{name: w, namespace: {namespace}, labels: {{app: {label}}}, addresses: [10.1.{n}.{l}]}}").unwrap();
            }
        }
        let compiled = crate::config::compile(&files, Some(&file("mesh.yaml", &mesh))).unwrap();
        prop_assert!(compiled.warnings.is_empty(), "{:?}", compiled.warnings);
        let gateway = Gateway::of(compiled.snapshot);
        for n in 0..NAMESPACES.len() {
            for l in 0..LABELS.len() {
                let source = gateway.source(&format!("10.1.{n}.{l}"));
                let own = || policies.iter().filter(move |policy| policy.selects(n, l));
                for host in ASKED {
                    let about = |http: bool| {
                        let rules = own().flat_map(|policy| &policy.rules);
                        rules.filter(move |rule| {
                            rule.http == http
                                && rule.hosts.iter().any(|pattern| names(HOSTS[*pattern], host))
                        })
                    };
                    for (m, method) in METHODS.iter().enumerate() {
                        let allowing = || {
                            about(true).filter(|rule| rule.method.is_none_or(|only| only == m))
                        };
                        let answer = gateway.ask(&source, method, 80, host, "/", &[]);
                        let allowed = allowing().next().is_some();
                        prop_assert_eq!(answer.is_ok(), allowed, "{} {} from {}.{}", method, host, n, l);
                        // What one of them encrypts is not sent in clear because of another.
                        if let Ok(route) = answer {
                            let encrypts = allowing().any(|rule| rule.originate);
                            prop_assert_eq!(route.cluster.tls.is_some(), encrypts);
                            prop_assert_eq!(route.host.to_string(), host);
                        }
                    }
                    let secure = gateway.tls_from(&source, 443, host);
                    prop_assert_eq!(secure.is_ok(), about(false).next().is_some(), "TLS to {}", host);
                }
            }
        }
        // Of a source that nobody knows no policy speaks.
        prop_assert!(ASKED.iter().all(|host| gateway.get(80, host, "/").is_err()));
    }
}
