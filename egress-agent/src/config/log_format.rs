//! `accessLogFormat`: Envoy's format strings, parsed when the configuration is compiled.

mod error;
mod operators;
mod parse;
mod place;

pub use self::error::LogFormatError;
use self::parse::parse;
pub(super) use self::place::Place;
use crate::{policy::AccessLogEncoding, types::log::Segment};

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

/// What both JSON forms have besides: who asked, and for whom. Without these keys a line of TLS says neither.
const JSON_BOTH: &[(&str, &str)] = &[
    ("downstream_peer_uri_san", "%DOWNSTREAM_PEER_URI_SAN%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
];

/// What [`ISTIO`] has besides.
const JSON_ISTIO: &[(&str, &str)] = &[
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("upstream_tls_group", "%UPSTREAM_TLS_GROUP%"),
    ("downstream_tls_group", "%DOWNSTREAM_TLS_GROUP%"),
];

/// Keys that every JSON line has by itself.
pub const JSON_OWN: [&str; 8] = [
    "reason",
    "workload",
    "workload_namespace",
    "source_principal",
    "tunnel_principal",
    "ech",
    "audit_policy",
    "trace_id",
];

/// A compiled format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// A line of text; the newline at its end is part of it.
    Text(Vec<Segment>),
    /// A JSON object with these keys, and those of [`JSON_OWN`].
    Json(Vec<(String, Vec<Segment>)>),
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
            (AccessLogEncoding::Text, None | Some("istio")) => {
                parse(ISTIO, Place::Log).map(Self::Text)
            }
            (AccessLogEncoding::Text, Some("envoy")) => {
                parse(ENVOY_DEFAULT, Place::Log).map(Self::Text)
            }
            (AccessLogEncoding::Text, Some(text)) if text.ends_with('\n') => {
                parse(text, Place::Log).map(Self::Text)
            }
            (AccessLogEncoding::Text, Some(text)) => {
                parse(&format!("{text}\n"), Place::Log).map(Self::Text)
            }
            (AccessLogEncoding::Json, Some("envoy")) => {
                keys(JSON_DEFAULT.iter().chain(JSON_BOTH).copied())
            }
            (AccessLogEncoding::Json, None | Some("istio")) => {
                keys(JSON_DEFAULT.iter().chain(JSON_BOTH).chain(JSON_ISTIO).copied())
            }
            (AccessLogEncoding::Json, Some(text)) => object(text),
        }
    }
}

/// Compiles the value of a header with the same operators, which may show any header.
///
/// # Errors
/// [`LogFormatError`] with the first thing that is wrong.
pub(super) fn header_segments(text: &str, place: Place) -> Result<Vec<Segment>, LogFormatError> {
    parse(text, place)
}

fn keys<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<LogFormat, LogFormatError> {
    let pairs = pairs.map(|(key, format)| Ok((key.to_owned(), parse(format, Place::Log)?)));
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
