//! Headers that the gateway takes out of every request.

use http::HeaderName;

/// What a server may not know of, or must not believe: fields by which a client could claim another
/// address, host, scheme or path than the gateway sees. Envoy removes or overwrites them at the edge.
const CLAIMS: [&str; 13] = [
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "x-cluster-client-ip",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-original-url",
    "x-rewrite-url",
];
/// Beginnings of others.
const CLAIM_PREFIXES: [&str; 4] =
    ["x-forwarded", "x-original-forwarded", "x-envoy-", "x-original-host"];

/// Headers about one connection and the framing of a message.
const FRAMING: [&str; 9] = [
    "host",
    "content-length",
    "expect",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "transfer-encoding",
    "http2-settings",
];

/// Whether the gateway takes a field out before rules and policies see a request.
#[must_use]
pub fn is_unseen(name: &HeaderName) -> bool {
    FRAMING.contains(&name.as_str()) || is_claim(name)
}

/// Whether a field makes such a claim. Many servers take `_` for `-`.
#[must_use]
pub fn is_claim(name: &HeaderName) -> bool {
    let text = name.as_str();
    // What they all begin with: most fields are none of them at a glance.
    if !text.starts_with(['c', 'f', 't', 'x']) {
        return false;
    }
    let hyphenated;
    let text = if text.contains('_') {
        hyphenated = text.replace('_', "-");
        &hyphenated
    } else {
        text
    };
    CLAIMS.contains(&text) || CLAIM_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}
