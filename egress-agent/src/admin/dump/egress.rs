//! Egress policies in `/config_dump`.

use serde_json::{Value, json};

use super::{json::list, rates::rate_limit, rules::clusters};
use crate::policy::{EgressAccess, EgressPolicy, EgressRule, EgressScope, MeshConfig};

/// One policy, with what it allows.
pub(super) fn policy(policy: &EgressPolicy, mesh: &MeshConfig) -> Value {
    let (namespace, selector) = match &policy.scope {
        EgressScope::Namespace(namespace) => (Some(&*namespace.0), None),
        EgressScope::Cluster(selector, _) => (None, Some(selector.to_string())),
    };
    json!({
        "name": &*policy.label,
        "namespace": namespace,
        "namespaceSelector": selector,
        "podSelector": policy.pods.to_string(),
        "mode": policy.mode.name(),
        "rules": list(&policy.rules, |found| rule(found, mesh)),
    })
}

fn rule(rule: &EgressRule, mesh: &MeshConfig) -> Value {
    let gateway = mesh.gateways.get(rule.group).map(|gateway| gateway.service.to_string());
    json!({
        "host": rule.host.to_string(),
        "port": rule.port.0.get(),
        "access": access(&rule.access),
        "gateway": gateway,
        "hop": rule.hop.name(),
        "clusters": clusters(&rule.destination),
        "rateLimit": rule.rate.as_deref().map(rate_limit),
    })
}

fn access(access: &EgressAccess) -> Value {
    match access {
        EgressAccess::Http { limits, originates } => json!({
            "protocol": "HTTP",
            "originateTLS": originates,
            "methods": list(&limits.methods, |method| json!(method.as_str())),
            "paths": list(&limits.paths, |path| json!(&*path.text)),
        }),
        EgressAccess::Tls => json!({ "protocol": "TLS" }),
        EgressAccess::Tcp { at } => json!({ "protocol": "TCP", "gatewayPort": at.0.get() }),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        config::{self, RawFile},
        policy::Snapshot,
    };

    #[test]
    fn a_policy_is_shown_by_its_own_name() {
        let files = [
            ("mesh.yaml", include_str!("../../../../deploy/example-policy/mesh.yaml")),
            (
                "policy.yaml",
                include_str!(
                    "../../../../deploy/example-policy/2-tls-origination/egress-policy.yaml"
                ),
            ),
        ];
        let files = files.map(|(path, text)| RawFile { path: path.into(), text: text.into() });
        let Snapshot { mesh, rules, .. } = config::compile(&files, None).unwrap().snapshot;
        let policy = super::policy(&rules.egress[0], &mesh);
        assert_eq!(policy["name"], "EgressPolicy shop/news");
        assert_eq!(
            (&policy["podSelector"], &policy["mode"]),
            (&"app=web".into(), &"Enforce".into())
        );
        let rule = &policy["rules"][0];
        assert_eq!((&rule["host"], &rule["port"]), (&"edition.cnn.com".into(), &80.into()));
        assert_eq!(rule["access"]["methods"], serde_json::json!(["GET", "HEAD"]));
        assert_eq!(rule["clusters"][0]["cluster"], "outbound|443||edition.cnn.com");
    }
}
