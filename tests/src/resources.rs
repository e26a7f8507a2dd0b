//! Resources that several tests configure.

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
