//! A gateway's decisions as flows.

use egress_ebpf::reason::Reason;

use super::{FlowLog, FlowRecord, FlowVerdict, GATEWAY_HOOK, cut, kept_labels};
use crate::telemetry::{AccessLogEntry, ResponseFlags};

/// A host name's longest form (RFC 1035 §2.3.4, RFC 3986 lets an authority be longer). What the
/// history holds must be bounded in bytes too.
const HOST_BYTES: usize = 255;
/// The same for a sentence.
const DETAIL_BYTES: usize = 512;

impl FlowLog {
    /// A request or connection at the gateway is over. Refusals are remembered, and what only an egress
    /// policy in audit mode let pass; the rest is made into a flow only while somebody follows.
    pub fn decided(&self, entry: &AccessLogEntry) {
        if entry.reason.is_some() || is_audited(entry) || self.is_followed() {
            self.push(FlowRecord::from(entry));
        }
    }
}

impl From<&AccessLogEntry> for FlowRecord {
    fn from(entry: &AccessLogEntry) -> Self {
        let host = entry.authority.as_deref().or(entry.requested_server_name.as_deref());
        let protocol = match entry.protocol {
            Some(version) => format!("{version:?}"),
            None if entry.requested_server_name.is_some() => "TLS".into(),
            None => "TCP".into(),
        };
        let (workload, namespace) = entry
            .workload
            .as_ref()
            .map(|workload| (workload.name.to_string(), workload.namespace.0.to_string()))
            .unzip();
        let detail = entry.detail.as_ref().or(entry.upstream_failure.as_ref());
        // It failed besides, or it is what enforcement would refuse.
        let audit = is_audited(entry) && entry.reason.is_none();
        let reason = if audit { Some(Reason::EgressPolicyDenied) } else { entry.reason };
        Self {
            time: entry.start_time + entry.duration,
            hook: GATEWAY_HOOK.into(),
            verdict: reason.map_or(FlowVerdict::Allow, verdict),
            reason: reason.map(|reason| reason.name().into()),
            audit,
            set: None,
            workload,
            namespace,
            labels: entry.workload.as_ref().map(|of| kept_labels(&of.labels)).unwrap_or_default(),
            pid: None,
            executable: None,
            command: None,
            container: None,
            cgroup: None,
            interface: None,
            source_address: Some(entry.downstream_remote.ip()),
            source_port: Some(entry.downstream_remote.0.port()),
            destination_address: None,
            destination_port: Some(entry.downstream_local.0.port()),
            gateway: None,
            trace_id: entry.trace_id().map(|id| id.to_string()),
            host: host.map(|host| cut(host, HOST_BYTES)),
            protocol,
            ech: entry.encrypted_hello,
            upstream: entry.upstream_host.map(|upstream| upstream.0),
            response_code: (entry.response_code != 0).then_some(entry.response_code),
            response_flags: (entry.response_flags != ResponseFlags::default())
                .then(|| entry.response_flags.to_string()),
            detail: detail.map(|detail| cut(detail, DETAIL_BYTES)),
            server: None,
        }
    }
}

/// Whether it passed because an egress policy is in audit mode. Authorization policies mark by name and
/// namespace alone.
fn is_audited(entry: &AccessLogEntry) -> bool {
    let label = entry.audit.as_deref().unwrap_or_default();
    label.starts_with("EgressPolicy ") || label.starts_with("ClusterEgressPolicy ")
}

/// Whether policy said no, or it only went wrong.
fn verdict(reason: Reason) -> FlowVerdict {
    match reason {
        Reason::Exempt
        | Reason::Loopback
        | Reason::Internal
        | Reason::Gateway
        | Reason::Routed
        | Reason::Direct
        | Reason::Neighbour
        | Reason::Host
        | Reason::Reply
        | Reason::Tunneled => FlowVerdict::Allow,
        Reason::DeniedPrefix
        | Reason::GatewayPort
        | Reason::NoRoute
        | Reason::NoHealthyGateway
        | Reason::NoPolicy
        | Reason::NotRedirected
        | Reason::SpoofedSource
        | Reason::EtherType
        | Reason::IpOptions
        | Reason::ExtensionHeader
        | Reason::Fragment
        | Reason::Malformed
        | Reason::Protocol
        | Reason::Multicast
        | Reason::OriginalDstFull
        | Reason::Ipv6Only
        | Reason::UnknownInterface
        | Reason::UnknownWorkload
        | Reason::SpoofedNeighbour
        | Reason::AddressFamily
        | Reason::SocketFamily
        | Reason::OtherNamespace
        | Reason::Encapsulation
        | Reason::PartialChecksum
        | Reason::SpoofedHardware
        | Reason::ForgedError
        | Reason::NoTunnel
        | Reason::NoRecord
        | Reason::UnsolicitedAnswer
        | Reason::GatewayRefused
        | Reason::HostNotInRegistry
        | Reason::NoGatewayRoute
        | Reason::HostNotServed
        | Reason::BadRequest
        | Reason::NoServerName
        | Reason::InvalidServerName
        | Reason::EncryptedClientHello
        | Reason::WrongProtocol
        | Reason::UpgradeRefused
        | Reason::AddressRefused
        | Reason::Overflow
        | Reason::AuthorizationPolicyDenied
        | Reason::EgressPolicyDenied
        | Reason::ResolveOverflow
        | Reason::RateLimited
        | Reason::EgressAddressUnavailable
        | Reason::NotConfigured
        | Reason::RouteRefused
        | Reason::DownstreamTls
        | Reason::NoClientCertificate
        | Reason::UntrustedClient
        | Reason::ExpiredClient
        | Reason::RevokedClient
        | Reason::ClientIdentity
        | Reason::PlaintextHop
        | Reason::ClaimedWorkload
        | Reason::TlsPolicyUnavailable
        | Reason::InvalidRoute
        | Reason::NoMatchingRule => FlowVerdict::Deny,
        Reason::ResolveFailed
        | Reason::ConnectFailed
        | Reason::UpstreamTls
        | Reason::Timeout
        | Reason::Reset
        | Reason::NoHealthyUpstream
        | Reason::GatewayTls
        | Reason::GatewayUnreachable
        | Reason::NoServerCertificate => FlowVerdict::Fail,
    }
}
