//! `accessLogFormat`: Envoy's format strings, parsed when the configuration is compiled.

mod operators;
mod parse;
mod peer;

use thiserror::Error;

use self::parse::parse;

pub use self::peer::PeerPart;
use super::AccessLogEncoding;

/// Envoy's default text format, chosen by `accessLogFormat: envoy`.
const ENVOY_DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% \
    %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% \
    %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// Istio's text format since 1.9, the default, also chosen by `accessLogFormat: istio`. For TLS it
/// says who went where, which [`ENVOY_DEFAULT`] does not.
const ISTIO: &str = "[%START_TIME%] \"%REQ(:METHOD)% \
    %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% \
    %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% \
    %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Keys of the JSON form, for the fields of [`ENVOY_DEFAULT`].
const JSON_DEFAULT: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
];

/// What is known of a client that speaks TLS to the gateway itself; both JSON forms have it.
const JSON_PEER: &[(&str, &str)] = &[("downstream_peer_uri_san", "%DOWNSTREAM_PEER_URI_SAN%")];

/// What [`ISTIO`] has besides.
const JSON_ISTIO: &[(&str, &str)] = &[
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("upstream_tls_group", "%UPSTREAM_TLS_GROUP%"),
    ("downstream_tls_group", "%DOWNSTREAM_TLS_GROUP%"),
];

/// Keys that every JSON line has by itself.
pub const JSON_OWN: [&str; 7] = [
    "reason",
    "workload",
    "workload_namespace",
    "source_principal",
    "tunnel_principal",
    "ech",
    "audit_policy",
];

/// A compiled format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// A line of text; the newline at its end is part of it.
    Text(Vec<Segment>),
    /// A JSON object with these keys, and those of [`JSON_OWN`].
    Json(Vec<(String, Vec<Segment>)>),
}

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

/// Why a format isn't one. The text says what was found and what would do.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LogFormatError {
    /// A `%` that begins no operator.
    #[error("found {found:?}, expected %OPERATOR%, or %% for a percent sign")]
    Syntax {
        /// What follows the percent sign.
        found: String,
    },
    /// An operator that isn't there.
    #[error(
        "found the unknown operator %{found}%, expected %{nearest}% or another of docs/telemetry.md"
    )]
    UnknownOperator {
        /// Its name.
        found: String,
        /// The one that looks most like it.
        nearest: &'static str,
    },
    /// A header that isn't kept.
    #[error(
        "found %{operator}({found})%, expected one of {expected}: no other header is kept for the log"
    )]
    UnknownHeader {
        /// `REQ` or `RESP`.
        operator: &'static str,
        /// The header.
        found: String,
        /// Those that are kept.
        expected: String,
    },
    /// An operator that takes none has arguments.
    #[error("found %{operator}({found})%, expected %{operator}% without arguments")]
    Argument {
        /// The operator.
        operator: String,
        /// What stands in its parentheses.
        found: String,
    },
    /// `:N` isn't a length.
    #[error("found the length {found:?} after %{operator}, expected a number of bytes from 1")]
    Length {
        /// The operator.
        operator: String,
        /// What stands after the colon.
        found: String,
    },
    /// The argument of `START_TIME` isn't a format.
    #[error("found the time format {found:?}, expected one as of strftime: {problem}")]
    Time {
        /// The format.
        found: String,
        /// What is wrong with it.
        problem: String,
    },
    /// With `accessLogEncoding: JSON` the format isn't an object of strings.
    #[error(
        "with accessLogEncoding JSON expected `istio`, `envoy`, nothing, or a JSON object whose values are format strings: {problem}"
    )]
    Json {
        /// What is wrong.
        problem: String,
    },
}

impl LogFormat {
    /// Compiles `accessLogFormat`: Istio's where it is absent and for `istio`, Envoy's default for
    /// `envoy`.
    ///
    /// # Errors
    /// [`LogFormatError`] with the first thing that is wrong.
    pub fn compile(
        format: Option<&str>,
        encoding: AccessLogEncoding,
    ) -> Result<Self, LogFormatError> {
        match (encoding, format) {
            (AccessLogEncoding::Text, None | Some("istio")) => parse(ISTIO).map(Self::Text),
            (AccessLogEncoding::Text, Some("envoy")) => parse(ENVOY_DEFAULT).map(Self::Text),
            (AccessLogEncoding::Text, Some(text)) if text.ends_with('\n') => {
                parse(text).map(Self::Text)
            }
            (AccessLogEncoding::Text, Some(text)) => parse(&format!("{text}\n")).map(Self::Text),
            (AccessLogEncoding::Json, Some("envoy")) => {
                keys(JSON_DEFAULT.iter().chain(JSON_PEER).copied())
            }
            (AccessLogEncoding::Json, None | Some("istio")) => {
                keys(JSON_DEFAULT.iter().chain(JSON_ISTIO).chain(JSON_PEER).copied())
            }
            (AccessLogEncoding::Json, Some(text)) => object(text),
        }
    }
}

/// Compiles the value of a header with the same operators.
///
/// # Errors
/// [`LogFormatError`] with the first thing that is wrong.
pub fn header_segments(text: &str) -> Result<Vec<Segment>, LogFormatError> {
    parse(text)
}

fn keys<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<LogFormat, LogFormatError> {
    let pairs = pairs.map(|(key, format)| Ok((key.to_owned(), parse(format)?)));
    pairs.collect::<Result<_, _>>().map(LogFormat::Json)
}

fn object(text: &str) -> Result<LogFormat, LogFormatError> {
    let problem = |problem: String| LogFormatError::Json { problem };
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| problem(error.to_string()))?;
    let mut pairs = Vec::new();
    for (key, value) in &object {
        if JSON_OWN.contains(&key.as_str()) {
            return Err(problem(format!("the key {key:?} is written by itself, leave it out")));
        }
        let Some(format) = value.as_str() else {
            return Err(problem(format!("found {value} for the key {key:?}")));
        };
        pairs.push((key.as_str(), format));
    }
    keys(pairs.into_iter())
}

#[cfg(test)]
mod tests;
