//! Addresses, ports and names.

/// Where the clients and the origins are.
pub(super) const WORLD: &str = "198.51.100.1";
/// Where the proxy is.
pub(super) const PROXY: &str = "198.51.100.2";
/// The origins' ports: in clear, with TLS, for what is passed through, and for what is passed in bulk.
pub(super) const HTTP: u16 = 8080;
pub(super) const HTTPS: u16 = 8443;
pub(super) const PASS: u16 = 9443;
pub(super) const PASS_BULK: u16 = 9444;

/// The hosts of these, in this order.
pub(super) fn hosts() -> [&'static str; 4] {
    ["web.bench.example", "tls.bench.example", "pass.bench.example", "bulk.bench.example"]
}
