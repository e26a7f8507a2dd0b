//! Mirror of `fault` of a virtual service's rule.

use std::time::Duration;

use super::decode::{Spanned, record};

record! {
    /// `fault`.
    struct Fault {
        /// Wait first.
        "delay" delay: Option<Delay> = "none",
        /// Answer with an error.
        "abort" abort: Option<Abort> = "none",
    }
}

record! {
    /// `fault.delay`.
    struct Delay {
        /// How long. This or `exponentialDelay`.
        "fixedDelay" fixed_delay: Option<Spanned<Duration>> = "none",
        /// How long on average: each time another one, exponentially distributed, at most ten times this.
        "exponentialDelay" exponential_delay: Option<Spanned<Duration>> = "none",
        /// How often.
        "percentage" percentage: Option<Percentage> = "never",
        /// Old form of `percentage`.
        "percent" percent: Option<Spanned<u32>> = "none",
    }
}

record! {
    /// `fault.abort`.
    struct Abort {
        /// The status. This or `grpcStatus`.
        "httpStatus" http_status: Option<Spanned<u32>> = "none",
        /// The status of gRPC, by name (`UNAVAILABLE`) or number. A request that is not gRPC is answered 200, as by Envoy.
        "grpcStatus" grpc_status: Option<Spanned<String>> = "none",
        /// How often.
        "percentage" percentage: Option<Percentage> = "never",
        /// Old form of `percentage`, which a current API server drops; in force with a warning.
        "percent" percent: Option<Spanned<u32>> = "none",
    }
    unsupported {
        "http2Error": Error, "use `httpStatus` or `grpcStatus`";
    }
}

record! {
    /// A share.
    struct Percentage {
        /// From 0 to 100.
        "value" value: Option<Spanned<f64>> = "0",
    }
}
