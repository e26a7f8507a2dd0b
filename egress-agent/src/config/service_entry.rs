//! Mirror of `ServiceEntry`: a service outside, in the registry.

use super::decode::{Dict, List, Records, Spanned, choice, record};
use crate::types::Port;

record! {
    /// `ServiceEntry.spec`.
    struct ServiceEntry {
        /// Names of the service: DNS names, or `*.example.com` for every name below one; `*example.com` and `*-a.example.com` for every longer name that ends so, without itself.
        "hosts" hosts: List<String> = required,
        /// Addresses (IP or CIDR) that identify a raw TCP service. CIDR only with resolution `NONE` or `STATIC`.
        "addresses" addresses: List<String> = "none",
        /// Ports of the service. Without any nothing of it is reached.
        "ports" ports: Records<ServicePort> = "none",
        /// Where the service is. A service entry with `MESH_INTERNAL` has no effect: services inside the mesh are not egress.
        "location" location: Option<Spanned<Location>> = "`MESH_EXTERNAL`",
        /// How the gateway finds the service's addresses.
        "resolution" resolution: Option<Spanned<Resolution>> = "`NONE`",
        /// Where the service really is, if not at its hosts' names.
        "endpoints" endpoints: Records<ServiceEndpoint> = "none",
        /// Namespaces whose workloads may use it: `.` (its own), `*` (all), or names.
        "exportTo" export_to: List<String> = "`*`",
        /// Names of which the upstream's certificate must hold one, where a destination rule originates TLS and names none itself.
        "subjectAltNames" subject_alt_names: List<String> = "the host",
    }
    unsupported {
        "workloadSelector": Refusal, "services inside the mesh are not egress, so the service entry has no effect; list `endpoints`";
    }
}

record! {
    /// A port of a service.
    struct ServicePort {
        /// The port that applications dial.
        "number" number: Option<Spanned<Port>> = required,
        /// Its name, unique within the service.
        "name" name: Option<Spanned<String>> = required,
        /// What is spoken: `HTTP`, `HTTP2`, `GRPC`, `HTTPS`, `TLS` or `TCP`. `GRPC-WEB` counts as `HTTP`; `MONGO`, `MYSQL`, `REDIS` and the like count as `TCP`.
        "protocol" protocol: Option<Spanned<String>> = "`TCP`",
        /// The port at the endpoints.
        "targetPort" target_port: Option<Spanned<Port>> = "`number`",
    }
}

record! {
    /// An endpoint of a service.
    struct ServiceEndpoint {
        /// An IP address (`STATIC`), or a DNS name (`DNS`).
        "address" address: Option<Spanned<String>> = required,
        /// Ports here by the service port's name.
        "ports" ports: Dict<Spanned<Port>> = "`targetPort`",
        /// Labels that destination rules' subsets select by.
        "labels" labels: Dict<Spanned<String>> = "none",
        /// Relative share of the load.
        "weight" weight: Option<Spanned<u32>> = "1",
        /// Where it is: `region/zone/subzone`, of which the last parts may be absent. `localityLbSetting` prefers by it.
        "locality" locality: Option<Spanned<String>> = "unknown",
    }
    unsupported {
        "network": Warning, "there is one network";
        "serviceAccount": Warning, "it names identities inside the mesh";
    }
}

choice! {
    /// Where a service is.
    enum Location {
        /// Outside.
        MeshExternal = "MESH_EXTERNAL",
        /// Inside.
        MeshInternal = "MESH_INTERNAL",
    }
}

choice! {
    /// How addresses are found.
    enum Resolution {
        /// The requested host is resolved.
        None = "NONE",
        /// `endpoints` hold addresses.
        Static = "STATIC",
        /// The host, or the endpoints' names, are resolved.
        Dns = "DNS",
        /// The same, and only one address is used at a time.
        DnsRoundRobin = "DNS_ROUND_ROBIN",
        /// The requested host, matched by a wildcard, is resolved.
        DynamicDns = "DYNAMIC_DNS",
    }
}
