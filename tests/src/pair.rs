//! Two pods of one node as workloads, of which one is well-behaved and the other floods, and what both may
//! ask for.

use crate::{mtls::NODE_ID, plan, testbed::mesh_yaml};

/// Where an upstream takes connections and never answers.
pub const SILENT: u16 = 8091;
/// The host over plain HTTP.
pub const WEB_HOST: &str = "www.example.com";
/// Below it is every name; names below `dead` have a name server that does not answer.
pub const WILD: &str = "wild.example.com";

const SERVICE: &str = "istio-egressgateway.istio-system.svc.cluster.local";

/// The mesh: `a/good` at the first pod, `b/flood` at the second.
#[must_use]
pub fn mesh() -> String {
    with_workloads(&mesh_yaml(1), "")
}

/// The same with the app node's identity, for a tunnel: both workloads run on that node.
#[must_use]
pub fn mesh_mtls() -> String {
    let node = format!(
        "{}nodes:\n- name: app\n  principal: {NODE_ID}\n  addresses: [{}, \"{}\"]\n",
        mesh_yaml(1).replace("direct: registry", "direct: deny"),
        plan::APP,
        plan::APP_V6,
    );
    with_workloads(&node, ", node: app, serviceAccount: default")
}

fn with_workloads(mesh: &str, more: &str) -> String {
    format!(
        "{mesh}workloads:\n- {{name: good, namespace: a{more}, addresses: [{}, \"{}\"]}}\n\
         - {{name: flood, namespace: b{more}, addresses: [{}, \"{}\"]}}\n",
        plan::POD,
        plan::POD_V6,
        plan::NEIGHBOUR,
        plan::NEIGHBOUR_V6,
    )
}

/// A host over plain HTTP; one whose server never answers, on port [`SILENT`]; and every name below a
/// wildcard, with a name server that does not answer for some.
#[must_use]
pub fn routes() -> String {
    let silent = format!("resolution: STATIC\n  endpoints: [{{address: {}}}]", plan::WEB);
    route("web", WEB_HOST, "resolution: DNS", 80, PLAIN)
        + &route("silent", "silent.example.com", &silent, SILENT, PLAIN)
        + &route("wild", &format!("*.{WILD}"), "resolution: DYNAMIC_DNS", 80, PLAIN)
}

/// The host over plain HTTP alone, led through a tunnel with mutual TLS.
#[must_use]
pub fn routes_mtls() -> String {
    let rule = format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: hop}}
spec:
  host: {SERVICE}
  trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}
"
    );
    route("web", WEB_HOST, "resolution: DNS", 80, TUNNELLED) + &rule
}

/// Protocol and TLS of a gateway's server.
type Server = (&'static str, &'static str);
const PLAIN: Server = ("HTTP", "");
const TUNNELLED: Server = ("HTTPS", "\n    tls: {mode: ISTIO_MUTUAL}");

fn route(name: &str, host: &str, resolution: &str, port: u16, (protocol, tls): Server) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: ['{host}']
  ports: [{{number: {port}, name: http, protocol: HTTP}}]
  {resolution}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  selector: {{istio: egressgateway}}
  servers:
  - port: {{number: {port}, name: port, protocol: {protocol}}}
    hosts: ['{host}']{tls}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: ['{host}']
  gateways: [mesh, {name}]
  http:
  - match: [{{gateways: [mesh], port: {port}}}]
    route: [{{destination: {{host: {SERVICE}, port: {{number: {port}}}}}}}]
  - match: [{{gateways: [{name}], port: {port}}}]
    route: [{{destination: {{host: '{host}', port: {{number: {port}}}}}}}]
---
"
    )
}
