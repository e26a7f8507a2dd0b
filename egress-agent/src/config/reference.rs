//! `docs/configuration.md`, from the mirrors themselves.

use std::fmt::Write as _;

use super::{
    api_gateway::ApiGateway,
    api_policies::{BackendTlsPolicy, ReferenceGrant},
    authorization_policy::AuthorizationPolicy,
    decode::{FieldDoc, RecordDoc},
    destination_rule::DestinationRule,
    egress_policy::{ClusterEgressPolicy, EgressPolicy},
    fields,
    gateway::Gateway,
    http_route::{GrpcRoute, HttpRoute},
    mesh::Mesh,
    problem::Severity,
    service_entry::ServiceEntry,
    stream_route::{TcpRoute, TlsRoute},
    virtual_service::VirtualService,
};

const HEAD: &str = "\
# Configuration reference

<!-- Generated from the types: `EGRESS_BLESS=1 cargo test -p egress-agent --lib config::reference` \
writes it, and the same test without the variable fails where the two differ. -->

The agent reads Istio's resources from a directory of YAML files (`--config DIR`): `ServiceEntry`, \
`Gateway`, `DestinationRule` and `VirtualService` of `networking.istio.io/v1`, `v1beta1` or \
`v1alpha3`, one schema for the three, `AuthorizationPolicy` of `security.istio.io`, the Gateway API (`gateway.networking.k8s.io`), \
and `EgressPolicy` and `ClusterEgressPolicy` of `egress-enforcer.io/v1alpha1`; several documents a file, `kind: List` too. Settings of the whole mesh are in `mesh.yaml`.

This page has the fields that have an effect. The section \"Fields of Istio's resources\" counts all fields of Istio's \
kinds, and [a list](reference/istio-fields.md) says of each whether it works, is refused or is ignored.

- A resource without `metadata.namespace` is in `default`.
- What is wrong is reported all at once, each with file, line, resource, field, what was found and \
what was expected: `egress-agent check PATH…`. A configuration with errors changes nothing; the last \
good one stays in force.
- What `check` calls `refused` is refused or passed over, and holds nothing else back: a reference to \
what doesn't exist, a rule that asks for TLS and can't be applied, a resource that another one takes \
precedence over. So deleting a resource takes effect at once, whatever still names it.
- A field that isn't known is a warning, with the nearest known name. Fields in the spelling of old \
examples (`sni_hosts`) are accepted with a warning.
- Resources of other kinds in the same files are ignored, with a warning.
- A file has at most 4 MiB, a configuration at most 400 000 resources, a regular expression at most \
256 KiB when compiled.

Names are relative to the resource's namespace: a gateway `name` is `namespace/name`, a service \
`name` is `name.namespace.svc.cluster.local`.

Ports are numbers wherever a resource refers to one: the current APIs have no field for the name of a port in a \
destination, a match, `portLevelSettings`, a `backendRef` or a `parentRef`, whose `sectionName` is a listener's name, \
and `targetPort` of a service entry is a number, too. Names of ports count in `endpoints[].ports` of a service entry \
alone, which give each port of the service another number at that endpoint. What a Service's own `targetPort` says, \
a number or a name, has no part: a connection keeps its port up to the gateway, which serves every port, and the ports \
of a Service of type ExternalName are those of the host that it names.

Whose resource counts, where several are for one host:

- What a rule means follows from what its host is: a gateway's service (`gateways` in `mesh.yaml`) or a \
host of a service entry. How the name is spelled doesn't matter.
- `exportTo` comes first: what a namespace doesn't see decides nothing there. Of what it sees, its own \
resources come first, then the oldest: by `metadata.creationTimestamp`, or where that is absent in the \
order of files and documents.
- Destination rules are looked for in the client's namespace, then the service entry's, then the root \
namespace, and in each the most specific host counts. At the gateway's stage the client is the gateway. \
Several rules of a namespace for one host count as one: the subsets of all, and the first traffic policy.
- A rule that asks for TLS and doesn't count in this way is never ignored: what it is for is refused \
(`tls_policy_unavailable`), unless the rule that counts says `DISABLE`.
- A request for a known host that no rule matches is answered 404, as in Istio (`no_matching_rule`); what \
policy refuses is answered 403.
";

/// The reference of every supported field, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    out.push_str(FIELDS);
    out.push_str(&fields::counts());
    for (title, intro, root) in [
        ("mesh.yaml", MESH, Mesh::doc()),
        ("ServiceEntry", SERVICE_ENTRY, ServiceEntry::doc()),
        ("Gateway", GATEWAY, Gateway::doc()),
        ("DestinationRule", DESTINATION_RULE, DestinationRule::doc()),
        ("VirtualService", VIRTUAL_SERVICE, VirtualService::doc()),
        ("AuthorizationPolicy", AUTHORIZATION_POLICY, AuthorizationPolicy::doc()),
        ("Gateway of the Gateway API", GATEWAY_API, ApiGateway::doc()),
        ("HTTPRoute", HTTP_ROUTE, HttpRoute::doc()),
        ("GRPCRoute", GRPC_ROUTE, GrpcRoute::doc()),
        ("TLSRoute", TLS_ROUTE, TlsRoute::doc()),
        ("TCPRoute", TCP_ROUTE, TcpRoute::doc()),
        ("BackendTLSPolicy", BACKEND_TLS_POLICY, BackendTlsPolicy::doc()),
        ("ReferenceGrant", REFERENCE_GRANT, ReferenceGrant::doc()),
        ("EgressPolicy", EGRESS_POLICY, EgressPolicy::doc()),
        ("ClusterEgressPolicy", CLUSTER_EGRESS_POLICY, ClusterEgressPolicy::doc()),
    ] {
        // Writing to a string doesn't fail.
        let written = write!(out, "\n## {title}\n\n{intro}");
        debug_assert!(written.is_ok());
        let path = if title == "mesh.yaml" { "" } else { "spec" };
        let mut tables = Tables { out: &mut out, seen: Vec::new() };
        tables.record(path, &root);
    }
    out
}

const FIELDS: &str = "
## Fields of Istio's resources

[The list of fields](reference/istio-fields.md) has every field of Istio's kinds, with what becomes of it: it works, \
is refused and why, or is ignored and why that is harmless. A field that may stand in several places is counted at \
each:

";

const MESH: &str = "Settings of the whole mesh: `--mesh FILE`, or `mesh.yaml` in the directory of \
resources. Without it no gateway is known, and everything is refused.\n";
const SERVICE_ENTRY: &str = "A service outside. What no ServiceEntry names isn't in the registry.\n\n\
The annotation `egress-enforcer.io/rate-limit` limits what each workload may ask of each host of the service; its \
value is the mapping `rateLimit` of an EgressPolicy (see below), as YAML or JSON: \
`'{requests: {perSecond: 10, burst: 20}}'`. It holds for what Istio's resources let through, not for what an \
egress policy allows.\n";
const GATEWAY: &str = "What the gateway processes with certain labels serve.\n\n\
The annotation `egress-enforcer.io/egress-address` says which address of the gateway's host is dialled from for all that \
its servers route, as it does on a virtual service, whose own comes first.\n";
const DESTINATION_RULE: &str = "How a destination is reached. Settings of a port come before those \
of a subset, those before the rule's; the rule with the most specific host wins.\n\n\
The annotation `egress-enforcer.io/tunnel-credential` names what the proxy of a `tunnel` is shown: a directory of this \
name in the gateway's `--credentials-dir` with the files `username` and `password`, as Kubernetes mounts a Secret of \
type `kubernetes.io/basic-auth`; with an API server the Secret of this name in the gateway's namespace. A rule of the root namespace may name any, one of another namespace those alone whose \
names begin with the namespace and a dot (`shop.proxy` in `shop`): else what needs the rule is refused.\n";
const VIRTUAL_SERVICE: &str = "Which way traffic takes. A request is routed in two stages: at the `mesh` stage, \
by the port that was dialled, to the gateway's service; at the gateway's stage, by the port that the \
first one's destination names, to the service outside. Matches in one list are alternatives, the \
conditions in a match all hold, the first rule that matches wins.\n\n\
The annotation `egress-enforcer.io/egress-address` says which address of the gateway its destinations are dialled \
from: the name of an entry of `egressAddresses` in mesh.yaml, or addresses, separated by commas. A virtual service \
of the root namespace may name anything; one of another namespace an entry that lists the namespace in `namespaces`, \
an entry with neither `namespaces` nor `labels`, and addresses of such entries. What it may not name, and an address \
that the gateway does not have, is refused (`egress_address_unavailable`).\n";

const AUTHORIZATION_POLICY: &str = "Who may ask a gateway for what, besides what the routes say \
(`security.istio.io/v1`, `v1beta1`). A policy is for the gateways of its namespace that it selects, one in the \
root namespace for those of every namespace. What a rule of `DENY` matches is denied; then, where a policy of \
`ALLOW` is for the gateway, what no rule of them matches. It is asked for each request, and for each TLS or TCP \
connection that is forwarded, not for what `direct: registry` lets past the gateway.\n\n\
A condition that nobody can decide allows nothing and denies whatever else holds: what only HTTP has, on \
another connection; the namespace or service account of a source that no workload is known for; a principal \
that no certificate proves; a path that servers read in two ways; a value or an attribute that is not \
supported, which `check` calls `refused`. A policy with a field that is not known denies everything at its \
gateways. So do `EnvoyFilter`, `WasmPlugin` and `RequestAuthentication` for a gateway; a `Sidecar` that hides \
hosts denies everything to the workloads of its namespace, and to sources that are not known. The annotation \
`istio.io/dry-run: \"true\"` puts a policy out of force.\n";

const GATEWAY_API: &str = "What gateway processes serve, in the Gateway API's words (`gateway.networking.k8s.io/v1`, \
`v1beta1`; label of messages: `Gateway.gateway.networking.k8s.io`). Its resources are translated to Istio's, as Istio does \
itself, and compiled with them: both kinds of resources work together. `deploy/example-gateway-api` has the walkthrough.\n\n\
- **Classes.** `egress-enforcer` and `istio`; a `GatewayClass` is not needed. Gateways of other classes, and routes for \
them alone, are passed over.\n\
- **The gateway's service.** Nothing is deployed for a Gateway. Its service has the name `NAME-CLASS` in its namespace, such \
as `cnn-egress-gateway-istio.default.svc.cluster.local`, or the one of the annotation `gateway.istio.io/name-override`. \
Where `gateways` in mesh.yaml list it, that gateway serves the Gateway; `addresses` name another one. Otherwise the first \
of `gateways` serves it: what is routed to that name reaches the listeners of this Gateway alone, so Gateways of several \
namespaces don't disturb each other, even with the same ports and hosts. A destination rule for that name asks for the \
tunnel, as for any gateway's service.\n\
- **Two stages.** A route with a `ServiceEntry` as its parent is for traffic that leaves applications, and its backend is \
the Gateway's Service; a route with the Gateway as its parent leads on, and its backend is a host of a service entry \
(`kind: Hostname`). A route in the service entry's namespace is for all that see the service entry, one in another \
namespace for its own workloads.\n\
- **What cannot be carried out is refused** and holds nothing else back: a rule with a backend that is not valid or not \
granted, with a filter or a field that is not supported or not known, answers 500 (`invalid_route`); a condition that \
cannot be read refuses its whole route; a listener that cannot be served has no effect; a `BackendTLSPolicy` that \
cannot be applied leaves its destination refused. Raw TCP has the gateway's port for itself: a `TCPRoute` for a port \
that is taken has no effect.\n\
- **Conditions** in `status` are not written. From the API server, Events say what is refused, and \
`egress-agent check` says it of files.\n";
const HTTP_ROUTE: &str = "Rules for HTTP (`v1`, `v1beta1`). The annotation \
`egress-enforcer.io/egress-address` of a VirtualService is for routes too, and that of a Gateway for a Gateway.\n";
const GRPC_ROUTE: &str =
    "Rules for gRPC (`v1`, `v1alpha2`). They and those of HTTPRoutes for one host are one list.\n";
const TLS_ROUTE: &str = "Where TLS goes, by its server name (`v1`, `v1alpha3`, `v1alpha2`). At a listener that \
terminates TLS it is what is inside.\n";
const TCP_ROUTE: &str =
    "Where raw TCP goes (`v1`, `v1alpha2`). The oldest one of a listener counts.\n";
const BACKEND_TLS_POLICY: &str = "TLS that the gateway starts to a backend (`v1`, `v1alpha3`); it is a \
DestinationRule of the policy's namespace, and comes before others for the same host there. Certificates are always \
verified.\n";
const REFERENCE_GRANT: &str = "Allows references from other namespaces: of routes at a Gateway to a `Service`, of a \
Gateway to a `Secret` (`v1`, `v1beta1`). One that is not understood allows nothing. Routes for traffic that leaves \
applications need none, as in Istio.\n";

const EGRESS_POLICY: &str = "Which pods may reach what, in one resource \
(`egress-enforcer.io/v1alpha1`, short name `egp`). It needs no other resource: not the ServiceEntry, the \
Gateway, the VirtualService and the DestinationRule that say the same in Istio's words.\n\n\
- **Union.** A pod may reach what any of the policies allows that select it, and besides what Istio's resources \
let it reach. Rules only add; what restricts is an AuthorizationPolicy, which is asked after both. A wildcard of \
one policy and a name below it in another don't hide each other. Of two rules for one request the one with \
`originateTLS` is used.\n\
- **Own pods alone.** A policy has no effect on a pod that it does not select, whatever hosts both name. With \
`outboundTrafficPolicy.mode: ALLOW_ANY` a pod that a policy selects reaches only what policies and Istio's \
resources name.\n\
- **Default gateway.** Without `gateway` traffic goes through the first of `gateways` in `mesh.yaml`. Where a \
destination rule asks for mutual TLS to that gateway's service, traffic goes through the tunnel. All of one port \
goes to one gateway, because the node sees no names: a rule for a port that an older resource sends to another \
gateway is refused.\n\
- **Destination rules** for the host count as for a ServiceEntry of the policy's namespace. `originateTLS` always \
verifies the certificate.\n\
- **Raw TCP** of one name takes the port at the node where no other name does. Of several, the node tells them \
apart by the addresses that it resolves; any other address leads to the name that the workload is allowed on the \
port, if it is a single one.\n\
- **Rate limits** are counted for each workload and host, in each gateway process on its own. Where several rules \
allow the same, the limits of all of them hold. What is beyond a limit is refused (`rate_limited`): HTTP with 429, \
TLS and raw TCP by closing the connection; of bytes, a transfer \
waits, as long as idle limits let it. Each pod counts by itself; \
of `workloads` in mesh.yaml, all addresses of one entry count together. A wildcard of a ServiceEntry with endpoints \
of its own is one host, whatever name is asked for below it.\n\
- **`mode: Audit`**: what neither the policies nor Istio's resources name passes the gateway instead of being \
refused, and the access log marks it (`audit_policy`). It is for HTTP and TLS on ports that lead to the gateway; \
the node refuses everything else as ever. A pod that an enforced policy selects too is under enforcement.\n\n\
A policy that is not valid, or has a field that is not known, is `refused`: it allows nothing and holds nothing \
else back. The [definitions](../deploy/crds) let an API server refuse most of it at once.\n";
const CLUSTER_EGRESS_POLICY: &str = "The same for pods of several namespaces, written by who runs the \
cluster (short name `cegp`). Its destination rules are those of a ServiceEntry of the root namespace. Labels of \
a namespace come from the API server, or from documents of kind `Namespace` among the files; of a namespace that \
is not known only its name counts (`kubernetes.io/metadata.name`).\n";

struct Tables<'a> {
    out: &'a mut String,
    seen: Vec<&'static str>,
}

impl Tables<'_> {
    fn record(&mut self, path: &str, record: &RecordDoc) {
        if self.seen.contains(&record.name) {
            return;
        }
        self.seen.push(record.name);
        let title = if path.is_empty() { "top level" } else { path };
        self.line(&format!("\n### `{}`\n", title));
        self.line("| field | type | default | meaning |");
        self.line("|---|---|---|---|");
        let fields = (record.fields)();
        for field in &fields {
            self.line(&row(field));
        }
        for bad in record.unsupported {
            let what = match bad.severity {
                Severity::Error | Severity::Refusal => "refused",
                Severity::Warning => "ignored, with a warning",
            };
            self.line(&format!("| `{}` | | | *not supported, {what}*: {} |", bad.key, bad.why));
        }
        for field in fields {
            if let Some(nested) = &field.nested {
                let dot = if path.is_empty() { "" } else { "." };
                let list = if field.type_name.starts_with("list") { "[]" } else { "" };
                self.record(&format!("{path}{dot}{}{list}", field.key), nested);
            }
        }
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }
}

fn row(field: &FieldDoc) -> String {
    let FieldDoc { key, type_name, default, doc, nested } = field;
    let default = if *default == "required" { "**required**" } else { default };
    let kind = match nested {
        Some(nested) => format!("{type_name} (`{}`)", nested.name),
        None => type_name.clone(),
    };
    format!("| `{key}` | {kind} | {default} | {} |", doc.trim())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_page_says_what_the_types_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let wanted = reference();
        if std::env::var_os("EGRESS_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &wanted).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "{} differs from the types; write it with\n    EGRESS_BLESS=1 cargo test -p egress-agent --lib config::reference",
            path.display()
        );
    }

    #[test]
    fn every_field_has_a_meaning() {
        fn check(record: &RecordDoc, depth: usize) {
            assert!(depth < 10, "{}", record.name);
            for field in (record.fields)() {
                assert!(field.doc.trim().ends_with('.'), "{}.{}", record.name, field.key);
                assert!(!field.default.is_empty(), "{}.{}", record.name, field.key);
                if let Some(nested) = &field.nested {
                    check(nested, depth + 1);
                }
            }
        }
        for root in [
            Mesh::doc(),
            ServiceEntry::doc(),
            Gateway::doc(),
            DestinationRule::doc(),
            VirtualService::doc(),
            AuthorizationPolicy::doc(),
            ApiGateway::doc(),
            HttpRoute::doc(),
            GrpcRoute::doc(),
            TlsRoute::doc(),
            TcpRoute::doc(),
            BackendTlsPolicy::doc(),
            ReferenceGrant::doc(),
            EgressPolicy::doc(),
            ClusterEgressPolicy::doc(),
        ] {
            check(&root, 0);
        }
    }
}
