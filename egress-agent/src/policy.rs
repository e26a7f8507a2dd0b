//! The compiled configuration: pure, no I/O.
//!
//! [`Snapshot`] is published whole on every change. The node derives its kernel plan from it, a
//! gateway its [`GatewayPolicy`]; so the two can't disagree.

mod authorization;
mod callers;
mod claims;
mod cluster;
mod cluster_handles;
mod consistent_hash;
mod cors;
mod credential_use;
mod decision;
mod denied_cidrs;
mod destination;
mod dial;
mod direct_target;
mod egress;
mod egress_address;
mod exemption;
#[cfg(test)]
mod fields;
mod gateway;
mod host_index;
mod hosts;
mod locality;
mod matching;
mod path;
mod protocol;
mod rate;
mod resource_path;
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
    AuthorizationScope, Condition, RequestFacts, Subject, TextPattern, Truth, ValuePattern,
};
pub use callers::{Caller, Callers, OwnPort};
pub use claims::{is_claim, is_unseen};
pub use cluster::{
    ClientTls, ClientTlsMode, Cluster, ClusterName, ConnectTarget, ConnectionPool, Discovery,
    Endpoint, HttpVersion, Keepalive, LoadBalancer, OutlierDetection, ProxyMethod, ProxyProtocol,
    RetryBudget, Warmup,
};
pub use cluster_handles::{ClusterHandles, HandleKind, HandleOwner};
pub use consistent_hash::{
    ConsistentHash, HashCookie, HashKey, HashTable, hash_of, hash_of_address, hash_with,
};
pub use cors::CorsPolicy;
pub use credential_use::{
    BadCredential, CredentialFaults, CredentialUse, config_map_credential, config_map_of,
};
pub use decision::{
    Denied, EntryPoint, HeaderOps, HeaderText, HttpAction, HttpRequest, HttpRoute, PortMode,
    RetryOn, RetryPolicy, TcpRoute, Termination, TlsConnection, TlsRoute, Upgrades,
};
pub use denied_cidrs::default_denied;
pub use destination::{Client, Clients, Destination, Provider, Refusal, VisibleDestination};
pub use dial::{AddressGuard, is_nat64_prefix};
pub use direct_target::{DirectTarget, SharedPort};
pub use egress::{
    EgressAccess, EgressMode, EgressPolicy, EgressRule, EgressScope, EgressTable, Grant,
    HttpLimits, LabelOperator, LabelRequirement, LabelSelector, MatchedRule, NAMESPACE_NAME,
    NamespaceLabels, NotGranted, PathBelow, TcpTarget,
};
pub use egress_address::{EgressAddressSet, EgressAddresses, egress_addresses};
pub use exemption::{ExemptDestination, Exemption, Transport};
pub use gateway::{Accepted, GatewayPolicy};
pub use host_index::HostIndex;
pub use hosts::{HostPattern, HostTable};
pub use locality::{
    ClusterLocality, Distribution, EndpointPlace, GroupHealth, Locality, LocalityPattern,
    LocalitySetting, Origin, Preferences, REGION, SUBZONE, ZONE,
};
pub use path::{PathNormalization, normalise};
pub use protocol::Protocol;
pub use rate::{Rate, RateLimit};
pub use resource_path::{ResourcePath, ResourceStarts};
pub use rules::{
    Abort, Delay, FAULT, HttpMatch, HttpOutcome, HttpRule, Mirror, PathRewrite, Redirect,
    RedirectPort, RouteSet, Rules, Service, StageRules, Target, TcpMatch, TcpRule, TlsMatch,
    TlsRule, WeightedDestination,
};
pub use scope::{Exported, Scoped, preferred};
pub use server::{EncryptedHello, Owner, Server, ServerProtocol};
pub use server_tls::{
    CipherSuite, CredentialFiles, CredentialSource, InnerProtocol, KeyGroup, KeyGroups, ServerTls,
    ServerTlsMode, TlsVersion,
};
pub use snapshot::{
    AccessLogEncoding, DEFAULT_SET, Direct, ENCAPSULATION_PORTS, Enforcement, EnforcementOverride,
    GatewayGroup, MeshConfig, NodeAction, NodePolicy, NodeRoute, OutboundMode, Snapshot,
    WorkloadSet,
};
pub use source_match::{SourceMatch, has_labels};
pub use text_match::TextMatch;
pub use trace::{Step, traced};
pub use tunnel::{Hop, TunnelTls};
