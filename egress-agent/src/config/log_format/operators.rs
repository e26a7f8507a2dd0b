//! What operators and headers a format may name.

use std::fmt::Write as _;

use crate::types::log::{AddressPart, Field, GrpcForm, PeerPart};

/// Operators without arguments. Envoy has more; what the gateway doesn't know is refused.
pub(super) const OPERATORS: &[(&str, Field)] = &[
    ("PROTOCOL", Field::Protocol),
    ("RESPONSE_CODE", Field::ResponseCode),
    ("GRPC_STATUS", Field::GrpcStatus(GrpcForm::Name)),
    ("GRPC_STATUS_NUMBER", Field::GrpcStatus(GrpcForm::Number)),
    ("RESPONSE_FLAGS", Field::ResponseFlags),
    ("RESPONSE_CODE_DETAILS", Field::ResponseCodeDetails),
    ("CONNECTION_TERMINATION_DETAILS", Field::ConnectionTerminationDetails),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Field::UpstreamTransportFailureReason),
    ("BYTES_RECEIVED", Field::BytesReceived),
    ("BYTES_SENT", Field::BytesSent),
    ("DURATION", Field::Duration),
    ("UPSTREAM_HOST", Field::UpstreamHost(AddressPart::Whole)),
    ("UPSTREAM_REMOTE_ADDRESS", Field::UpstreamHost(AddressPart::Whole)),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Field::UpstreamHost(AddressPart::Ip)),
    ("UPSTREAM_REMOTE_PORT", Field::UpstreamHost(AddressPart::Port)),
    ("UPSTREAM_CLUSTER", Field::UpstreamCluster),
    ("UPSTREAM_CLUSTER_RAW", Field::UpstreamCluster),
    ("UPSTREAM_LOCAL_ADDRESS", Field::UpstreamLocalAddress(AddressPart::Whole)),
    ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Field::UpstreamLocalAddress(AddressPart::Ip)),
    ("UPSTREAM_LOCAL_PORT", Field::UpstreamLocalAddress(AddressPart::Port)),
    ("DOWNSTREAM_LOCAL_ADDRESS", Field::DownstreamLocalAddress(AddressPart::Whole)),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Field::DownstreamLocalAddress(AddressPart::Ip)),
    ("DOWNSTREAM_LOCAL_PORT", Field::DownstreamLocalAddress(AddressPart::Port)),
    ("DOWNSTREAM_REMOTE_ADDRESS", Field::DownstreamRemoteAddress(AddressPart::Whole)),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Field::DownstreamRemoteAddress(AddressPart::Ip)),
    ("DOWNSTREAM_REMOTE_PORT", Field::DownstreamRemoteAddress(AddressPart::Port)),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Field::DownstreamRemoteAddress(AddressPart::Whole)),
    (
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        Field::DownstreamRemoteAddress(AddressPart::Ip),
    ),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", Field::DownstreamRemoteAddress(AddressPart::Port)),
    ("REQUESTED_SERVER_NAME", Field::RequestedServerName),
    ("ROUTE_NAME", Field::RouteName),
    ("TRACE_ID", Field::TraceId),
    ("DOWNSTREAM_TLS_VERSION", Field::DownstreamTlsVersion),
    ("DOWNSTREAM_TLS_CIPHER", Field::DownstreamTlsCipher),
    ("DOWNSTREAM_TLS_GROUP", Field::DownstreamTlsGroup),
    ("UPSTREAM_TLS_GROUP", Field::UpstreamTlsGroup),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", Field::DownstreamTransportFailureReason),
    ("DOWNSTREAM_PEER_URI_SAN", Field::Peer(PeerPart::UriSan)),
    ("DOWNSTREAM_PEER_DNS_SAN", Field::Peer(PeerPart::DnsSan)),
    ("DOWNSTREAM_PEER_SUBJECT", Field::Peer(PeerPart::Subject)),
    ("DOWNSTREAM_PEER_ISSUER", Field::Peer(PeerPart::Issuer)),
    ("DOWNSTREAM_PEER_SERIAL", Field::Peer(PeerPart::Serial)),
    ("DOWNSTREAM_PEER_FINGERPRINT_256", Field::Peer(PeerPart::Fingerprint)),
    ("DOWNSTREAM_PEER_CERT_V_START", Field::Peer(PeerPart::Start)),
    ("DOWNSTREAM_PEER_CERT_V_END", Field::Peer(PeerPart::End)),
];

/// Request headers that `%REQ(…)%` may name; others aren't kept for the log.
pub(super) const REQUEST_HEADERS: &[(&str, Field)] = &[
    (":METHOD", Field::Method),
    (":PATH", Field::Path),
    ("X-ENVOY-ORIGINAL-PATH", Field::OriginalPath),
    (":AUTHORITY", Field::Authority),
    ("HOST", Field::Authority),
    ("USER-AGENT", Field::UserAgent),
    ("X-FORWARDED-FOR", Field::ForwardedFor),
    ("X-REQUEST-ID", Field::RequestId),
];

/// Response headers that `%RESP(…)%` may name.
pub(super) const RESPONSE_HEADERS: &[(&str, Field)] = &[
    (":STATUS", Field::ResponseCode),
    ("X-ENVOY-UPSTREAM-SERVICE-TIME", Field::UpstreamServiceTime),
];

/// The operator that looks most like it.
pub(super) fn nearest(found: &str) -> &'static str {
    let like = |name: &str| strsim::jaro_winkler(found, name);
    let known = OPERATORS.iter().map(|(name, _)| *name).chain(["START_TIME", "REQ", "RESP"]);
    known.max_by(|a, b| like(a).total_cmp(&like(b))).unwrap_or("START_TIME")
}

/// All names, for a message.
pub(super) fn names(known: &[(&str, Field)]) -> String {
    let mut text = String::new();
    for (name, _) in known {
        let separator = if text.is_empty() { "" } else { ", " };
        // Writing to a string can't fail.
        if write!(text, "{separator}{name}").is_err() {
            break;
        }
    }
    text
}
