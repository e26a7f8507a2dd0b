//! Resources that several tests configure.

use crate::{plan, testbed::mesh_yaml};

/// A `ServiceEntry`: a host with HTTP on port 80 and TLS on port 443, found by DNS. It ends with the
/// separator of documents.
#[must_use]
pub fn web_service(name: &str, host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{host}]
  ports:
  - {{number: 80, name: http, protocol: HTTP}}
  - {{number: 443, name: tls, protocol: TLS}}
  resolution: DNS
---
"
    )
}

/// A host over plain HTTP on this port, through the gateway on the same one: its `ServiceEntry`, with this
/// `resolution`, a `Gateway` and a `VirtualService`. It ends with the separator of documents.
#[must_use]
pub fn routed_host(name: &str, host: &str, resolution: &str, port: u16) -> String {
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
  - port: {{number: {port}, name: http, protocol: HTTP}}
    hosts: ['{host}']
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: ['{host}']
  gateways: [mesh, {name}]
  http:
  - match: [{{gateways: [mesh], port: {port}}}]
    route: [{{destination: {{host: istio-egressgateway.istio-system.svc.cluster.local, port: {{number: {port}}}}}}}]
  - match: [{{gateways: [{name}], port: {port}}}]
    route: [{{destination: {{host: '{host}', port: {{number: {port}}}}}}}]
---
"
    )
}

/// The mesh with both pods as workloads: `good`, which behaves well, and `flood`.
#[must_use]
pub fn good_and_flood() -> String {
    format!(
        "{}workloads:\n- {{name: good, namespace: a, addresses: [{}, \"{}\"]}}\n\
         - {{name: flood, namespace: b, addresses: [{}, \"{}\"]}}\n",
        mesh_yaml(1),
        plan::POD,
        plan::POD_V6,
        plan::NEIGHBOUR,
        plan::NEIGHBOUR_V6,
    )
}
