//! Mirror of `AuthorizationPolicy`: who may ask the gateway for what.

use super::decode::{Dict, List, Records, Spanned, choice, record};

record! {
    /// `AuthorizationPolicy.spec`.
    struct AuthorizationPolicy {
        /// The gateways that it is for. Without it, all of the policy's namespace; in the root namespace, all.
        "selector" selector: Option<PolicySelector> = "every gateway of the namespace",
        /// What happens to what a rule matches.
        "action" action: Option<Spanned<PolicyAction>> = "`ALLOW`",
        /// Alternatives. Without any nothing matches: `ALLOW` denies everything then. `{}` matches everything.
        "rules" rules: Records<PolicyRule> = "none",
    }
    unsupported {
        "provider": Error, "external authorizers are not supported";
        "targetRef": Error, "select gateways by `selector`";
        "targetRefs": Error, "select gateways by `selector`";
    }
}

choice! {
    /// What a policy does.
    enum PolicyAction {
        /// Allows what matches; everything else is denied.
        Allow = "ALLOW",
        /// Denies what matches, before anything is allowed.
        Deny = "DENY",
        /// Marks what matches in the access log (`audit_policy`).
        Audit = "AUDIT",
        /// Asks another service, which is not supported: what matches is denied.
        Custom = "CUSTOM",
    }
}

record! {
    /// Selects gateways.
    struct PolicySelector {
        /// Labels of the gateway's processes.
        "matchLabels" match_labels: Dict<Spanned<String>> = "any",
    }
}

record! {
    /// A rule: `from`, `to` and `when` must all hold.
    struct PolicyRule {
        /// Alternatives.
        "from" from: Records<PolicyFrom> = "any source",
        /// Alternatives.
        "to" to: Records<PolicyTo> = "any operation",
        /// Further conditions; all must hold.
        "when" when: Records<PolicyCondition> = "none",
    }
}

record! {
    /// One alternative of `from`.
    struct PolicyFrom {
        /// Conditions on the source; all must hold.
        "source" source: Option<PolicySource> = required,
    }
}

record! {
    /// Conditions on the source. Lists are alternatives. `*` is any value, `x*` a beginning and `*x` an end.
    struct PolicySource {
        /// Identities that a certificate proves, as `cluster.local/ns/shop/sa/web`. Over a plain hop nothing is proven: nothing is allowed by them.
        "principals" principals: List<String> = "any",
        /// None of these.
        "notPrincipals" not_principals: List<String> = "none",
        /// Not supported: a condition on them allows nothing.
        "requestPrincipals" request_principals: List<String> = "any",
        /// Not supported: a condition on them allows nothing.
        "notRequestPrincipals" not_request_principals: List<String> = "none",
        /// Namespaces of the workload, as its certificate or its address says.
        "namespaces" namespaces: List<String> = "any",
        /// None of these.
        "notNamespaces" not_namespaces: List<String> = "none",
        /// Service accounts, `namespace/name` or a name in the policy's namespace; no patterns.
        "serviceAccounts" service_accounts: List<String> = "any",
        /// None of these.
        "notServiceAccounts" not_service_accounts: List<String> = "none",
        /// Addresses or networks that the connection comes from: the pod's.
        "ipBlocks" ip_blocks: List<String> = "any",
        /// None of these.
        "notIpBlocks" not_ip_blocks: List<String> = "none",
        /// Addresses or networks of the original client, which `numTrustedProxies` proxies name in `X-Forwarded-For`.
        "remoteIpBlocks" remote_ip_blocks: List<String> = "any",
        /// None of these.
        "notRemoteIpBlocks" not_remote_ip_blocks: List<String> = "none",
        /// Trust domains of identities that a certificate proves.
        "trustDomains" trust_domains: List<String> = "any",
        /// None of these.
        "notTrustDomains" not_trust_domains: List<String> = "none",
    }
}

record! {
    /// One alternative of `to`.
    struct PolicyTo {
        /// Conditions on the operation; all must hold.
        "operation" operation: Option<PolicyOperation> = required,
    }
}

record! {
    /// Conditions on the operation. Only `ports` can hold for connections that are not HTTP (TLS passthrough, TCP): a `DENY` rule denies them as if the others held.
    struct PolicyOperation {
        /// Hosts, with patterns, compared without regard to case.
        "hosts" hosts: List<String> = "any",
        /// None of these.
        "notHosts" not_hosts: List<String> = "none",
        /// Ports of the gateway's server.
        "ports" ports: List<String> = "any",
        /// None of these.
        "notPorts" not_ports: List<String> = "none",
        /// Methods, with patterns.
        "methods" methods: List<String> = "any",
        /// None of these.
        "notMethods" not_methods: List<String> = "none",
        /// Paths without query, with patterns.
        "paths" paths: List<String> = "any",
        /// None of these.
        "notPaths" not_paths: List<String> = "none",
    }
}

record! {
    /// A further condition.
    struct PolicyCondition {
        /// `source.ip`, `remote.ip`, `source.namespace`, `source.principal`, `source.serviceAccount`, `source.trustDomain`, `destination.port`, `connection.sni` or `request.headers[NAME]`.
        "key" key: Option<Spanned<String>> = required,
        /// Any of these, with patterns where the attribute is a text.
        "values" values: List<String> = "any",
        /// None of these.
        "notValues" not_values: List<String> = "none",
    }
}
