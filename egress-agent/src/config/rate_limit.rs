//! Mirror of `rateLimit`, a field of egress policies and an annotation of service entries.

use super::decode::{Spanned, record};

record! {
    /// What each workload may ask of each host, local to a gateway.
    struct RateLimit {
        /// HTTP requests. Beyond them the answer is 429.
        "requests" requests: Option<RateOf> = "unlimited",
        /// Connections of TLS that is passed through, and of raw TCP. Beyond them a connection is closed.
        "connections" connections: Option<RateOf> = "unlimited",
        /// Bytes of bodies, and of connections that are relayed, in both directions together. Beyond them a transfer waits.
        "bytes" bytes: Option<RateOf> = "unlimited",
    }
}

record! {
    /// So much a second.
    struct RateOf {
        /// How many a second, on average; from 1 to 2147483647.
        "perSecond" per_second: Option<Spanned<u32>> = required,
        /// How many at once, after a pause; from 1 to 2147483647.
        "burst" burst: Option<Spanned<u32>> = "`perSecond`",
    }
}
