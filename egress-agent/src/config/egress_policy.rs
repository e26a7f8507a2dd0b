//! Mirrors of `EgressPolicy` and `ClusterEgressPolicy`: which pods may reach what.

use super::{
    decode::{Dict, List, Records, Spanned, choice, record},
    rate_limit::RateLimit,
};
use crate::types::Port;

record! {
    /// `EgressPolicy.spec`.
    struct EgressPolicy {
        /// Which pods of the policy's namespace it is for.
        "podSelector" pod_selector: Option<PodSelector> = "every pod of the namespace",
        /// What happens to what no policy allows to these pods.
        "mode" mode: Option<Spanned<EgressMode>> = "`Enforce`",
        /// Through which gateway.
        "gateway" gateway: Option<EgressGateway> = "the first of `gateways` in `mesh.yaml`",
        /// What the pods may reach. Rules are alternatives; an empty list allows nothing. At most 64.
        "rules" rules: Records<EgressRule> = required,
    }
}

record! {
    /// `ClusterEgressPolicy.spec`.
    struct ClusterEgressPolicy {
        /// In which namespaces the pods are; `{}` is every namespace.
        "namespaceSelector" namespace_selector: Option<PodSelector> = required,
        /// Which pods there.
        "podSelector" pod_selector: Option<PodSelector> = "every pod of the namespaces",
        /// What happens to what no policy allows to these pods.
        "mode" mode: Option<Spanned<EgressMode>> = "`Enforce`",
        /// Through which gateway.
        "gateway" gateway: Option<EgressGateway> = "the first of `gateways` in `mesh.yaml`",
        /// What the pods may reach. Rules are alternatives; an empty list allows nothing. At most 64.
        "rules" rules: Records<EgressRule> = required,
    }
}

choice! {
    /// What happens to what no policy allows.
    enum EgressMode {
        /// It is refused.
        Enforce = "Enforce",
        /// It passes the gateway and is marked in the access log.
        Audit = "Audit",
    }
}

record! {
    /// A label selector, as everywhere in Kubernetes. All conditions must hold; without any it selects everything.
    struct PodSelector {
        /// Labels with their values.
        "matchLabels" match_labels: Dict<Spanned<String>> = "none",
        /// Conditions on labels. At most 16.
        "matchExpressions" match_expressions: Records<LabelExpression> = "none",
    }
}

record! {
    /// A condition on one label.
    struct LabelExpression {
        /// The label's key.
        "key" key: Option<Spanned<String>> = required,
        /// `In` and `NotIn` compare with `values`; `Exists` and `DoesNotExist` take none. `NotIn` and `DoesNotExist` hold where the label is absent.
        "operator" operator: Option<Spanned<SelectorOperator>> = required,
        /// Values. At most 64.
        "values" values: List<String> = "none",
    }
}

choice! {
    /// How a label is compared.
    enum SelectorOperator {
        /// One of the values.
        In = "In",
        /// None of the values.
        NotIn = "NotIn",
        /// Any value.
        Exists = "Exists",
        /// Absent.
        DoesNotExist = "DoesNotExist",
    }
}

record! {
    /// A gateway's Service, one of `gateways` in `mesh.yaml`.
    struct EgressGateway {
        /// Its namespace.
        "namespace" namespace: Option<Spanned<String>> = required,
        /// Its name.
        "name" name: Option<Spanned<String>> = required,
    }
}

record! {
    /// Hosts, and how they may be reached.
    struct EgressRule {
        /// DNS names, IP addresses, or `*.example.com` for every name below one. 1 to 64.
        "hosts" hosts: List<String> = required,
        /// Ports, each with its protocol. 1 to 16.
        "ports" ports: Records<EgressPort> = required,
        /// The gateway takes HTTP in clear from the pods and starts TLS to the host, whose certificate it verifies. For ports of protocol `HTTP`.
        "originateTLS" originate_tls: Option<OriginateTls> = "the gateway sends what it takes",
        /// Which requests. For ports of protocol `HTTP`.
        "http" http: Option<EgressHttp> = "every request",
        /// What each of the pods may ask of each of the hosts; on all ports of the rule together.
        "rateLimit" rate_limit: Option<RateLimit> = "unlimited",
    }
}

record! {
    /// A port that pods dial.
    struct EgressPort {
        /// Its number.
        "port" port: Option<Spanned<Port>> = required,
        /// `HTTP` in clear; `TLS`, which is passed through by its server name; `TCP`, any bytes, for a host that is one name or address.
        "protocol" protocol: Option<Spanned<EgressProtocol>> = required,
    }
}

choice! {
    /// What is spoken.
    enum EgressProtocol {
        /// HTTP in clear.
        Http = "HTTP",
        /// TLS with a server name.
        Tls = "TLS",
        /// Any bytes.
        Tcp = "TCP",
    }
}

record! {
    /// TLS from the gateway to the host.
    struct OriginateTls {
        /// The port at the host.
        "port" port: Option<Spanned<Port>> = "443",
    }
}

record! {
    /// Which requests are allowed. Both conditions must hold.
    struct EgressHttp {
        /// Methods, in capitals. At most 16.
        "methods" methods: List<String> = "every method",
        /// Paths and what is below them, by whole segments: `/v1` is `/v1` and `/v1/users`, not `/v10`. At most 64.
        "paths" paths: List<String> = "every path",
    }
}
