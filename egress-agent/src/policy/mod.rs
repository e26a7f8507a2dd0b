//! The compiled configuration: pure, no I/O.
//!
//! [`Snapshot`] is published whole on every change. The node derives its kernel plan from it, a
//! gateway its [`GatewayPolicy`]; so the two can't disagree.

mod authorization;
mod callers;
mod claims;
mod cluster;
mod consistent_hash;
mod cors;
mod credential_use;
mod decision;
mod denied_cidrs;
mod destination;
mod dial;
mod egress;
mod egress_address;
mod exemption;
#[cfg(test)]
mod fields;
mod gateway;
mod host_index;
mod hosts;
mod kept;
mod locality;
mod matching;
mod path;
mod place;
mod protocol;
mod rate;
mod rules;
mod scope;
mod server;
mod server_tls;
mod snapshot;
mod source_match;
mod text_match;
mod trace;
mod tunnel;
mod unmet;

pub use authorization::{
    Attribute, Authorization, AuthorizationAction, AuthorizationPolicy, AuthorizationRule,
    AuthorizationScope, Condition, Holds, RequestFacts, Subject, TextPattern, ValuePattern,
};
pub use callers::{Caller, Callers, OwnPort};
pub use claims::is_claim;
pub use cluster::{
    ClientTls, ClientTlsMode, Cluster, ClusterName, ConnectTarget, ConnectionPool, Discovery,
    Endpoint, HttpVersion, Keepalive, LoadBalancer, OutlierDetection, ProxyMethod, ProxyProtocol,
    RetryBudget, Warmup,
};
pub use consistent_hash::{
    ConsistentHash, HashCookie, HashKey, HashTable, hash_of, hash_of_address, hash_with,
};
pub use cors::CorsPolicy;
pub use credential_use::{
    BadCredential, CredentialFaults, CredentialUse, config_map_credential, config_map_of,
};
pub use decision::{
    Denied, Entry, HeaderOps, HeaderText, HttpAction, HttpRequest, HttpRoute, PortMode, RetryOn,
    RetryPolicy, TcpRoute, Termination, TlsConnection, TlsRoute, Upgrades,
};
pub use denied_cidrs::default_denied;
pub use destination::{Client, Clients, Destination, Provider, Reached, Refusal};
pub use dial::{AddressGuard, is_nat64_prefix};
pub use egress::{
    Dialled, EgressAccess, EgressMode, EgressPolicy, EgressRule, EgressScope, EgressTable, Grant,
    Granted, HttpLimits, LabelOperator, LabelRequirement, LabelSelector, NAMESPACE_NAME,
    NamespaceLabels, NotGranted, PathBelow,
};
pub use egress_address::{EgressAddressSet, EgressAddresses, egress_addresses};
pub use exemption::{ExemptDestination, Exemption, Transport};
pub use gateway::{Accepted, GatewayPolicy};
pub use host_index::HostIndex;
pub use hosts::{HostPattern, HostTable};
pub use kept::{Handle, Keeper, Kept};
pub use locality::{
    ClusterLocality, Distribution, EndpointPlace, GroupHealth, Locality, LocalityPattern,
    LocalitySetting, Origin, Preferences, REGION, SUBZONE, ZONE,
};
pub use path::{PathNormalization, normalise};
pub use place::{Place, Places};
pub use protocol::Protocol;
pub use rate::{Rate, RateLimit};
pub use rules::{
    Abort, Delay, FAULT, HttpMatch, HttpOutcome, HttpRule, Mirror, PathRewrite, Redirect,
    RedirectPort, RouteSet, Rules, Service, StageRules, Target, TcpMatch, TcpRule, TlsMatch,
    TlsRule, Weighted,
};
pub use scope::{Exported, Scoped, preferred};
pub use server::{EncryptedHello, Owner, Server, ServerProtocol};
pub use server_tls::{
    CipherSuite, CredentialFiles, CredentialSource, Inside, KeyGroup, KeyGroups, ServerTls,
    ServerTlsMode, TlsVersion,
};
pub use snapshot::{
    AccessLogEncoding, DEFAULT_SET, Direct, DirectTarget, ENCAPSULATION_PORTS, Enforcement,
    EnforcementOverride, GatewayGroup, MeshConfig, NodeAction, NodePolicy, NodeRoute, OutboundMode,
    Snapshot, WorkloadSet,
};
pub use source_match::{SourceMatch, has_labels};
pub use text_match::TextMatch;
pub use trace::{Step, traced};
pub use tunnel::{Hop, TunnelTls};
