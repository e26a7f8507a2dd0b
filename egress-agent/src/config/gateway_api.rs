//! The resources of the Gateway API as they are read. Those of other controllers are among them, and one that
//! cannot be read holds nothing else back: what is wrong with a resource is kept with it, and reported where it is
//! used.

use std::rc::Rc;

use super::{
    api_gateway::ApiGateway,
    api_policies::{BackendTlsPolicy, ReferenceGrant},
    decode::{Cx, Record, Report, SourcePosition},
    http_route::{GrpcRoute, HttpRoute},
    meta::{Meta, warn_about_unknown},
    problem::{Problem, Severity},
    stream_route::{TcpRoute, TlsRoute},
    yaml::{Node, Value},
};

/// The group.
pub(super) const GROUP: &str = "gateway.networking.k8s.io";
/// The kinds, each in every version that a release serves, the newest first.
const KINDS: [(&str, &[&str]); 7] = [
    ("Gateway", &["v1", "v1beta1"]),
    ("HTTPRoute", &["v1", "v1beta1"]),
    ("GRPCRoute", &["v1", "v1alpha2"]),
    ("TLSRoute", &["v1", "v1alpha3", "v1alpha2"]),
    ("TCPRoute", &["v1", "v1alpha2"]),
    ("BackendTLSPolicy", &["v1", "v1alpha3"]),
    ("ReferenceGrant", &["v1", "v1beta1"]),
];
/// Kinds of the group that have no meaning here.
pub(super) const OTHER_KINDS: [&str; 3] = ["GatewayClass", "ListenerSet", "UDPRoute"];
/// What messages and the API server's events call a `Gateway`: Istio has a kind of that name too.
pub(super) const GATEWAY: &str = "Gateway.gateway.networking.k8s.io";
/// Another name for a Gateway's service.
pub(super) const NAME_OVERRIDE: &str = "gateway.istio.io/name-override";

/// The kinds: group, name, versions.
pub(super) fn kinds() -> impl Iterator<Item = (&'static str, &'static str, &'static [&'static str])>
{
    KINDS.into_iter().map(|(kind, versions)| (GROUP, kind, versions))
}

/// A resource.
#[derive(Clone, Debug)]
pub(super) struct Read<T> {
    /// Who it is.
    pub(super) meta: Rc<Meta>,
    /// What it says, as far as it could be read.
    pub(super) spec: Option<T>,
    /// What was wrong with it.
    pub(super) problems: Vec<Problem>,
}

/// All resources of the Gateway API, by kind.
#[derive(Debug, Default)]
pub(super) struct GatewayApi {
    /// `Gateway`s, each with the name of its service where an annotation gives one.
    pub(super) gateways: Vec<(Read<ApiGateway>, Option<String>)>,
    pub(super) http: Vec<Read<HttpRoute>>,
    pub(super) grpc: Vec<Read<GrpcRoute>>,
    pub(super) tls: Vec<Read<TlsRoute>>,
    pub(super) tcp: Vec<Read<TcpRoute>>,
    pub(super) tls_policies: Vec<Read<BackendTlsPolicy>>,
    pub(super) grants: Vec<Read<ReferenceGrant>>,
}

impl GatewayApi {
    /// Reads a resource of one of the kinds. `told` is what is wrong with its metadata.
    pub(super) fn add(&mut self, kind: &str, meta: Meta, node: &Node, told: Vec<Problem>) {
        let meta = Rc::new(meta);
        match kind {
            "Gateway" => {
                let annotations = node.get("metadata").and_then(|m| m.get("annotations"));
                let name = annotations.and_then(|all| all.text(NAME_OVERRIDE)).map(Into::into);
                self.gateways.push((read(meta, node, told), name));
            }
            "HTTPRoute" => self.http.push(read(meta, node, told)),
            "GRPCRoute" => self.grpc.push(read(meta, node, told)),
            "TLSRoute" => self.tls.push(read(meta, node, told)),
            "TCPRoute" => self.tcp.push(read(meta, node, told)),
            "BackendTLSPolicy" => self.tls_policies.push(read(meta, node, told)),
            _ => self.grants.push(read(meta, node, told)),
        }
    }

    /// The oldest first; of the same age, or where it is not known, by namespace and name.
    pub(super) fn sort(&mut self) {
        self.gateways.sort_by(|(a, _), (b, _)| order(&a.meta).cmp(&order(&b.meta)));
        self.http.sort_by(|a, b| order(&a.meta).cmp(&order(&b.meta)));
        self.grpc.sort_by(|a, b| order(&a.meta).cmp(&order(&b.meta)));
        self.tls.sort_by(|a, b| order(&a.meta).cmp(&order(&b.meta)));
        self.tcp.sort_by(|a, b| order(&a.meta).cmp(&order(&b.meta)));
        self.tls_policies.sort_by(|a, b| order(&a.meta).cmp(&order(&b.meta)));
    }
}

/// What resources are sorted by.
pub(super) fn order(meta: &Meta) -> impl Ord {
    (meta.created.is_none(), meta.created.clone(), meta.namespace.clone(), meta.name.clone())
}

fn read<T: Record>(meta: Rc<Meta>, node: &Node, told: Vec<Problem>) -> Read<T> {
    let mut report = Report::default();
    let file = Rc::clone(&meta.file);
    let mut cx = Cx { report: &mut report, file: &file, resource: Some(&meta.label) };
    warn_about_unknown(node, &mut cx);
    let spec = node.get("spec").filter(|spec| spec.value != Value::Null);
    let at = SourcePosition::root(spec.map_or(node.line, |spec| spec.line), "spec");
    let spec = match spec {
        Some(node) => T::decode_record(node, &at, &mut cx),
        None => {
            cx.wrong(&at, "nothing", "a mapping", "the field \"spec\" is missing");
            None
        }
    };
    let problems = told.into_iter().chain(report.into_parts().0).map(refusal).collect();
    Read { meta, spec, problems }
}

/// What is wrong is answered by refusing. A field that is not known may be a condition or a limit.
fn refusal(mut problem: Problem) -> Problem {
    const IGNORED: &str = "; it has no effect";
    let unknown = problem.message.starts_with("unknown field");
    if unknown || problem.severity == Severity::Error {
        problem.severity = Severity::Refusal;
        let reason = ", which may be a condition or a limit, so what it belongs to is refused";
        problem.message = problem.message.replace(IGNORED, reason);
    }
    problem
}
