//! Mirror of `fault` of a virtual service's rule.

use std::time::Duration;

use super::decode::{At, record};

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
        "fixedDelay" fixed_delay: Option<At<Duration>> = "none",
        /// How long on average: each time another one, exponentially distributed, at most ten times this.
        "exponentialDelay" exponential_delay: Option<At<Duration>> = "none",
        /// How often.
        "percentage" percentage: Option<Percentage> = "never",
        /// Old form of `percentage`.
        "percent" percent: Option<At<u32>> = "none",
    }
}

record! {
    /// `fault.abort`.
    struct Abort {
        /// The status. This or `grpcStatus`.
        "httpStatus" http_status: Option<At<u32>> = "none",
        /// The status of gRPC, by name (`UNAVAILABLE`) or number. A request that is not gRPC is answered 200, as by Envoy.
        "grpcStatus" grpc_status: Option<At<String>> = "none",
        /// How often.
        "percentage" percentage: Option<Percentage> = "never",
        /// Old form of `percentage`.
        "percent" percent: Option<At<u32>> = "none",
    }
    unsupported {
        "http2Error": Error, "use `httpStatus` or `grpcStatus`";
    }
}

record! {
    /// A share.
    struct Percentage {
        /// From 0 to 100.
        "value" value: Option<At<f64>> = "0",
    }
}
