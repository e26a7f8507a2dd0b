//! Mirror of `loadBalancer` of a destination rule.

use std::time::Duration;

use super::decode::{Dict, List, Records, Spanned, choice, record};

record! {
    /// `loadBalancer`.
    struct LoadBalancerSettings {
        /// The method. `LEAST_CONN` is the old name of `LEAST_REQUEST`; `PASSTHROUGH` counts as `LEAST_REQUEST`, because the address that an application dialled is never trusted.
        "simple" simple: Option<Spanned<SimpleLb>> = "`LEAST_REQUEST`",
        /// Choose by a hash instead, so that what has the same key goes to the same endpoint.
        "consistentHash" consistent_hash: Option<ConsistentHash> = "none",
        /// New endpoints get their share little by little, with `ROUND_ROBIN` and `LEAST_REQUEST`; not those of a wildcard.
        "warmup" warmup: Option<Warmup> = "none",
        /// Old form of `warmup.duration`.
        "warmupDurationSecs" warmup_duration: Option<Spanned<Duration>> = "none",
        /// Which endpoints are preferred for where they and the gateway are. It takes the place of the mesh's. Not for wildcards.
        "localityLbSetting" locality: Option<LocalityLbSetting> = "`mesh.yaml`'s",
    }
    unsupported {
        "zoneAwareLbSetting": Warning, "use `localityLbSetting`";
    }
}

record! {
    /// `localityLbSetting`, of a destination rule or of `mesh.yaml`. Where the gateway is follows from `localities` in `mesh.yaml` and, in Kubernetes, from its node's labels; where endpoints are, from their `locality`. With `outlierDetection` the nearest endpoints are preferred (subzone, zone, region, elsewhere), and the next ones take what ejected ones leave; without it, only `distribute` has an effect.
    struct LocalityLbSetting {
        /// Shares of localities, given by where the gateway is. Excludes `failover` and `failoverPriority`.
        "distribute" distribute: Records<LocalityShare> = "none",
        /// Which region takes over from the gateway's. Other regions come after it.
        "failover" failover: Records<RegionFailover> = "any other",
        /// Labels, the first one first: endpoints that have the gateway's value of all are preferred, then those that have it of all but the last. `label=value` asks for that value. The labels of a locality are `topology.kubernetes.io/region`, `topology.kubernetes.io/zone` and `topology.istio.io/subzone`.
        "failoverPriority" failover_priority: List<String> = "the locality",
        /// `false` prefers none.
        "enabled" enabled: Option<Spanned<bool>> = "`true`",
    }
}

record! {
    /// `distribute`.
    struct LocalityShare {
        /// Where the gateway is: `region/zone/subzone`; `*` at the end is anything. The first entry that it is in counts.
        "from" from: Option<Spanned<String>> = required,
        /// Of a hundred requests, how many go to which localities. They make 100 together, and what is not named gets none.
        "to" to: Dict<Spanned<u32>> = required,
    }
}

record! {
    /// `failover`.
    struct RegionFailover {
        /// The gateway's region.
        "from" from: Option<Spanned<String>> = required,
        /// The region that takes over.
        "to" to: Option<Spanned<String>> = required,
    }
}

choice! {
    /// `loadBalancer.simple`.
    enum SimpleLb {
        /// The default.
        Unspecified = "UNSPECIFIED",
        /// One after the other.
        RoundRobin = "ROUND_ROBIN",
        /// The less loaded of two.
        LeastRequest = "LEAST_REQUEST",
        /// Its old name.
        LeastConn = "LEAST_CONN",
        /// Any.
        Random = "RANDOM",
        /// The dialled address.
        Passthrough = "PASSTHROUGH",
    }
}

record! {
    /// `consistentHash`. One key of the four; TCP and TLS that is passed through know only the source.
    struct ConsistentHash {
        /// A header. A request without it goes anywhere. `:authority`, `:path` and `:method` are headers here.
        "httpHeaderName" http_header_name: Option<Spanned<String>> = "none",
        /// A cookie.
        "httpCookie" http_cookie: Option<HttpCookie> = "none",
        /// The address that the connection came from: the pod's.
        "useSourceIp" use_source_ip: Option<Spanned<bool>> = "`false`",
        /// A query parameter. A request without it goes anywhere.
        "httpQueryParameterName" http_query_parameter_name: Option<Spanned<String>> = "none",
        /// The hash leads to a point of a ring.
        "ringHash" ring_hash: Option<RingHash> = "with 1024 points",
        /// The hash leads to a slot of Maglev's table.
        "maglev" maglev: Option<Maglev> = "`ringHash`",
        /// Old form of `ringHash.minimumRingSize`.
        "minimumRingSize" minimum_ring_size: Option<Spanned<u32>> = "none",
    }
}

record! {
    /// `httpCookie`.
    struct HttpCookie {
        /// Its name.
        "name" name: Option<Spanned<String>> = required,
        /// Its path, where it is set.
        "path" path: Option<Spanned<String>> = "none",
        /// A client without the cookie gets one, for so long; `0s` is for its session. Without it such a request goes anywhere.
        "ttl" ttl: Option<Spanned<Duration>> = "none",
        /// Further attributes of the cookie, where it is set.
        "attributes" attributes: Records<CookieAttribute> = "none",
    }
}

record! {
    /// An attribute of a cookie.
    struct CookieAttribute {
        /// Its name, such as `SameSite`.
        "name" name: Option<Spanned<String>> = required,
        /// Its value.
        "value" value: Option<Spanned<String>> = "none",
    }
}

record! {
    /// `ringHash`.
    struct RingHash {
        /// Points in all, at least; at most 65536. Each endpoint has one in any case.
        "minimumRingSize" minimum_ring_size: Option<Spanned<u32>> = "1024",
    }
}

record! {
    /// `maglev`.
    struct Maglev {
        /// Slots, a prime below 5000011.
        "tableSize" table_size: Option<Spanned<u32>> = "65537",
    }
}

record! {
    /// `warmup`.
    struct Warmup {
        /// How long an endpoint is new. It is new beside others that were there before: those that the gateway finds when
        /// it first needs the service, or finds all at once, have their whole share.
        "duration" duration: Option<Spanned<Duration>> = required,
        /// The part of its share that it begins with, in percent.
        "minimumPercent" minimum_percent: Option<Spanned<f64>> = "10",
        /// How its part grows: evenly with 1, sooner with more.
        "aggression" aggression: Option<Spanned<f64>> = "1",
    }
}
