//! The pieces that a compiled format is made of.

use http::HeaderName;

use super::peer::PeerPart;

/// A piece of a format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Segment {
    /// Written as it stands.
    Literal(String),
    /// `%OPERATOR%`.
    Value {
        /// What to write: the first of these that is set.
        fields: Vec<Field>,
        /// `:N`, at most so many bytes.
        max: Option<usize>,
    },
}

/// What an operator names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Field {
    /// `%START_TIME%`, with a `strftime` format where given.
    StartTime(Option<String>),
    /// `%REQ(:METHOD)%`.
    Method,
    /// `%REQ(:PATH)%`: normalised.
    Path,
    /// `%REQ(X-ENVOY-ORIGINAL-PATH)%`: as the client sent it, where that differs.
    OriginalPath,
    /// `%PROTOCOL%`.
    Protocol,
    /// `%RESPONSE_CODE%`, `%RESP(:STATUS)%`.
    ResponseCode,
    /// `%RESPONSE_FLAGS%`.
    ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`.
    ResponseCodeDetails,
    /// `%CONNECTION_TERMINATION_DETAILS%`.
    ConnectionTerminationDetails,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    UpstreamTransportFailureReason,
    /// `%BYTES_RECEIVED%`.
    BytesReceived,
    /// `%BYTES_SENT%`.
    BytesSent,
    /// `%DURATION%`, milliseconds.
    Duration,
    /// `%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%`, milliseconds.
    UpstreamServiceTime,
    /// `%REQ(X-FORWARDED-FOR)%`.
    ForwardedFor,
    /// `%REQ(USER-AGENT)%`.
    UserAgent,
    /// `%REQ(X-REQUEST-ID)%`.
    RequestId,
    /// `%REQ(:AUTHORITY)%`, `%REQ(HOST)%`.
    Authority,
    /// `%UPSTREAM_HOST%`, `%UPSTREAM_REMOTE_ADDRESS%`, `…_WITHOUT_PORT%`, `%UPSTREAM_REMOTE_PORT%`.
    UpstreamHost(AddressPart),
    /// `%UPSTREAM_CLUSTER%`, `%UPSTREAM_CLUSTER_RAW%`.
    UpstreamCluster,
    /// `%UPSTREAM_LOCAL_ADDRESS%` and its parts.
    UpstreamLocalAddress(AddressPart),
    /// `%DOWNSTREAM_LOCAL_ADDRESS%` and its parts.
    DownstreamLocalAddress(AddressPart),
    /// `%DOWNSTREAM_REMOTE_ADDRESS%`, `%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%` and their parts.
    DownstreamRemoteAddress(AddressPart),
    /// `%REQUESTED_SERVER_NAME%`.
    RequestedServerName,
    /// `%ROUTE_NAME%`.
    RouteName,
    /// `%DOWNSTREAM_TLS_VERSION%`.
    DownstreamTlsVersion,
    /// `%DOWNSTREAM_TLS_GROUP%`.
    DownstreamTlsGroup,
    /// `%UPSTREAM_TLS_GROUP%`.
    UpstreamTlsGroup,
    /// `%DOWNSTREAM_TLS_CIPHER%`.
    DownstreamTlsCipher,
    /// `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`.
    DownstreamTransportFailureReason,
    /// `%DOWNSTREAM_PEER_URI_SAN%` and the like.
    Peer(PeerPart),
    /// `%TRACE_ID%`: what the client's node calls the connection, too.
    TraceId,
    /// `%GRPC_STATUS%`, `%GRPC_STATUS_NUMBER%`.
    GrpcStatus(GrpcForm),
    /// `%REQ(…)%` of any other header, in values of headers alone.
    RequestHeader(HeaderName),
    /// `%RESP(…)%` of any other header, in values of a response's headers alone.
    ResponseHeader(HeaderName),
}

/// How a status of gRPC is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrpcForm {
    /// `PermissionDenied`.
    Name,
    /// `7`.
    Number,
}

/// Which part of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressPart {
    /// `192.0.2.1:443`.
    Whole,
    /// `192.0.2.1`.
    Ip,
    /// `443`.
    Port,
}
