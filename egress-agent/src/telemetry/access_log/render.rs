//! One entry to one line.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName};
use jiff::{Timestamp, Zoned, tz::TimeZone};

use super::{
    escape::{JsonEscaped, TextEscaped},
    refusals::Aggregate,
};
use crate::{
    config::{JSON_OWN, LogFormat},
    telemetry::{AccessLogEntry, ForwardedFor},
    types::{
        DownstreamTls, PeerCertificate, ShareOwner, TraceId,
        log::{AddressPart, Field, GrpcForm, PeerPart, Segment},
    },
};

/// Appends the line with its newline.
pub(super) fn render(format: &LogFormat, entry: &AccessLogEntry, line: &mut Vec<u8>) {
    match format {
        LogFormat::Text(segments) => text(segments, entry, line),
        LogFormat::Json(keys) => json(keys, entry, line),
    }
}

/// Appends the line about several refusals. No format shapes it: it tells of no single request.
pub(super) fn aggregate(format: &LogFormat, aggregate: &Aggregate, line: &mut Vec<u8>) {
    let Aggregate { owner, reason, count, first, last, address } = aggregate;
    let (namespace, name) = match owner {
        Some(ShareOwner::Workload { namespace, name }) => (Some(&**namespace), Some(&**name)),
        Some(ShareOwner::Address(_) | ShareOwner::Own) | None => (None, None),
    };
    // Of several owners, the last address would name one of them alone.
    let address = owner.as_ref().map(|_| SocketAddr::new(*address, 0));
    let values = [
        ("aggregated", Value::Number(*count)),
        ("reason", string(Some(reason.name()))),
        ("workload", string(name)),
        ("workload_namespace", string(namespace)),
        ("downstream_remote_address", address.map_or(Value::Unset, Value::Ip)),
        ("first", Value::Time(*first, None)),
        ("last", Value::Time(*last, None)),
    ];
    match format {
        LogFormat::Text(_) => {
            line.push(b'[');
            Value::Time(*last, None).write(&mut TextEscaped::new(line, None));
            line.push(b']');
            for (key, value) in values {
                line.push(b' ');
                line.extend_from_slice(key.as_bytes());
                line.push(b'=');
                value.write(&mut TextEscaped::new(line, None));
            }
            line.push(b'\n');
        }
        LogFormat::Json(_) => {
            for (index, (key, value)) in values.into_iter().enumerate() {
                line.push(if index == 0 { b'{' } else { b',' });
                json_key(key, line);
                json_value(&value, None, line);
            }
            line.extend_from_slice(b"}\n");
        }
    }
}

/// Headers that the value of a header may show.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// Those of the request.
    pub request: &'a HeaderMap,
    /// Those of the response, once it is there.
    pub response: Option<&'a HeaderMap>,
}

/// The value of a header; empty parts are left out, and so is what no header may hold.
pub fn header(segments: &[Segment], entry: &AccessLogEntry, heads: Heads<'_>) -> String {
    let mut text = String::new();
    for segment in segments {
        match segment {
            Segment::Literal(literal) => text.push_str(literal),
            Segment::Value { fields, max } => {
                let value = value(fields, entry, Some(heads));
                if !matches!(value, Value::Unset) {
                    let mut own = String::new();
                    value.write(&mut own);
                    let own = own.chars().filter(|c| matches!(c, ' '..='~'));
                    text.extend(own.take(max.unwrap_or(usize::MAX)));
                }
            }
        }
    }
    text
}

fn text(segments: &[Segment], entry: &AccessLogEntry, line: &mut Vec<u8>) {
    for segment in segments {
        match segment {
            Segment::Literal(literal) => line.extend_from_slice(literal.as_bytes()),
            Segment::Value { fields, max } => {
                value(fields, entry, None).write(&mut TextEscaped::new(line, *max));
            }
        }
    }
}

fn json(keys: &[(String, Vec<Segment>)], entry: &AccessLogEntry, line: &mut Vec<u8>) {
    line.push(b'{');
    for (key, segments) in keys {
        json_key(key, line);
        match &segments[..] {
            // One operator alone keeps its type.
            [Segment::Value { fields, max }] => json_value(&value(fields, entry, None), *max, line),
            segments => {
                line.push(b'"');
                for segment in segments {
                    match segment {
                        Segment::Literal(literal) => {
                            Value::Str(literal).write(&mut JsonEscaped::new(line, None));
                        }
                        Segment::Value { fields, max } => {
                            value(fields, entry, None).write(&mut JsonEscaped::new(line, *max));
                        }
                    }
                }
                line.push(b'"');
            }
        }
        line.push(b',');
    }
    let workload = entry.workload.as_deref();
    let tls = entry.downstream_tls.as_deref();
    let own = [
        string(entry.reason.map(|reason| reason.name())),
        string(workload.map(|workload| &*workload.name)),
        string(workload.map(|workload| &*workload.namespace.0)),
        string(tls.and_then(DownstreamTls::principal_name)),
        string(tls.and_then(DownstreamTls::tunnel_principal_name)),
        string(entry.encrypted_hello.then_some("present")),
        string(entry.audit.as_deref()),
        trace(entry),
    ];
    for (index, (key, value)) in JSON_OWN.into_iter().zip(own).enumerate() {
        if index > 0 {
            line.push(b',');
        }
        json_key(key, line);
        json_value(&value, None, line);
    }
    line.extend_from_slice(b"}\n");
}

fn trace(entry: &AccessLogEntry) -> Value<'static> {
    entry.trace_id().map_or(Value::Unset, Value::Trace)
}

fn json_key(key: &str, line: &mut Vec<u8>) {
    line.push(b'"');
    Value::Str(key).write(&mut JsonEscaped::new(line, None));
    line.extend_from_slice(b"\":");
}

fn json_value(value: &Value<'_>, max: Option<usize>, line: &mut Vec<u8>) {
    match value {
        Value::Unset => line.extend_from_slice(b"null"),
        Value::Number(_) if max.is_none() => value.write(&mut JsonEscaped::new(line, None)),
        Value::Str(_)
        | Value::Number(_)
        | Value::Header(_)
        | Value::Shown(_)
        | Value::Address(_)
        | Value::Ip(_)
        | Value::Addresses(..)
        | Value::Time(..)
        | Value::Trace(_) => {
            line.push(b'"');
            value.write(&mut JsonEscaped::new(line, max));
            line.push(b'"');
        }
    }
}

/// Names of the statuses of gRPC, by number, as Envoy writes them.
const GRPC_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// What a field holds.
enum Value<'a> {
    Unset,
    Str(&'a str),
    Number(u64),
    /// A number that Envoy has from a header, so that it is a string in JSON.
    Header(u64),
    Shown(&'a dyn fmt::Display),
    Address(SocketAddr),
    Ip(SocketAddr),
    /// Addresses before one, and that one.
    Addresses(&'a str, IpAddr),
    Time(SystemTime, Option<&'a str>),
    Trace(TraceId),
}

impl Value<'_> {
    fn write(&self, out: &mut dyn fmt::Write) {
        let written = match self {
            Self::Unset => out.write_str("-"),
            Self::Str(text) => out.write_str(text),
            Self::Number(number) | Self::Header(number) => write!(out, "{number}"),
            Self::Shown(shown) => write!(out, "{shown}"),
            Self::Address(addr) => write!(out, "{addr}"),
            Self::Ip(addr) => write!(out, "{}", addr.ip()),
            Self::Addresses(before, last) => write!(out, "{before},{last}"),
            Self::Time(time, format) => write_time(*time, *format, out),
            Self::Trace(id) => write!(out, "{id}"),
        };
        debug_assert!(written.is_ok(), "a line in memory takes everything");
    }
}

/// The first field that is set.
fn value<'a>(
    fields: &'a [Field],
    entry: &'a AccessLogEntry,
    heads: Option<Heads<'a>>,
) -> Value<'a> {
    fields
        .iter()
        .map(|field| field_value(field, entry, heads))
        .find(|value| !matches!(value, Value::Unset))
        .unwrap_or(Value::Unset)
}

fn field_value<'a>(
    field: &'a Field,
    entry: &'a AccessLogEntry,
    heads: Option<Heads<'a>>,
) -> Value<'a> {
    match field {
        Field::StartTime(format) => Value::Time(entry.start_time, format.as_deref()),
        Field::Method => string(entry.method.as_ref().map(http::Method::as_str)),
        Field::Path => string(entry.path.as_deref()),
        Field::OriginalPath => string(entry.original_path.as_deref()),
        Field::Protocol => string(entry.protocol.and_then(protocol)),
        Field::ResponseCode => Value::Number(entry.response_code.into()),
        Field::ResponseFlags => Value::Shown(&entry.response_flags),
        Field::ResponseCodeDetails => string(entry.response_code_details.as_deref()),
        Field::ConnectionTerminationDetails => {
            string(entry.connection_termination_details.as_deref())
        }
        Field::UpstreamTransportFailureReason => string(entry.upstream_failure.as_deref()),
        Field::BytesReceived => Value::Number(entry.bytes_received),
        Field::BytesSent => Value::Number(entry.bytes_sent),
        Field::Duration => Value::Number(milliseconds(entry.duration)),
        Field::UpstreamServiceTime => entry
            .upstream_service_time
            .map_or(Value::Unset, |time| Value::Header(milliseconds(time))),
        Field::ForwardedFor => forwarded_for(entry),
        Field::UserAgent => string(entry.user_agent.as_deref()),
        Field::RequestId => string(entry.request_id.as_deref()),
        Field::Authority => string(entry.authority.as_deref()),
        Field::UpstreamHost(part) => address(entry.upstream_host.map(|addr| addr.0), *part),
        Field::UpstreamCluster => {
            string(entry.upstream_cluster.as_ref().map(|cluster| &*cluster.0))
        }
        Field::UpstreamLocalAddress(part) => {
            address(entry.upstream_local.map(|addr| addr.0), *part)
        }
        Field::DownstreamLocalAddress(part) => address(Some(entry.downstream_local.0), *part),
        Field::DownstreamRemoteAddress(part) => address(Some(entry.downstream_remote.0), *part),
        Field::RequestedServerName => string(entry.requested_server_name.as_deref()),
        Field::RouteName => string(entry.route_name.as_deref()),
        Field::DownstreamTlsVersion => string(entry.downstream_tls.as_ref().map(|tls| tls.version)),
        Field::DownstreamTlsCipher => string(entry.downstream_tls.as_ref().map(|tls| tls.cipher)),
        Field::DownstreamTlsGroup => {
            string(entry.downstream_tls.as_ref().and_then(|tls| tls.group))
        }
        Field::UpstreamTlsGroup => string(entry.upstream_tls_group),
        Field::DownstreamTransportFailureReason => string(entry.downstream_failure.as_deref()),
        Field::TraceId => trace(entry),
        Field::GrpcStatus(form) => entry.grpc_status.map_or(Value::Unset, |code| match form {
            GrpcForm::Number => Value::Number(code.into()),
            GrpcForm::Name => GRPC_NAMES
                .get(usize::from(code))
                .map_or(Value::Number(code.into()), |name| Value::Str(name)),
        }),
        // A format of the log names none: they are not kept so long.
        Field::RequestHeader(name) => first(heads.map(|heads| heads.request), name),
        Field::ResponseHeader(name) => first(heads.and_then(|heads| heads.response), name),
        Field::Peer(part) => entry.peer().map_or(Value::Unset, |peer| of_peer(peer, *part)),
    }
}

/// The first value of a header. One that is not text is not shown.
fn first<'a>(headers: Option<&'a HeaderMap>, name: &HeaderName) -> Value<'a> {
    let value = headers.and_then(|headers| headers.get(name));
    string(value.and_then(|value| std::str::from_utf8(value.as_bytes()).ok()))
}

fn forwarded_for(entry: &AccessLogEntry) -> Value<'_> {
    let client = entry.downstream_remote.ip();
    match &entry.forwarded_for {
        None => Value::Unset,
        Some(ForwardedFor::Client) => Value::Ip(SocketAddr::new(client, 0)),
        Some(ForwardedFor::After(before)) => Value::Addresses(before, client),
    }
}

fn of_peer(peer: &PeerCertificate, part: PeerPart) -> Value<'_> {
    string(Some(match part {
        PeerPart::UriSan => &peer.uri_sans,
        PeerPart::DnsSan => &peer.dns_sans,
        PeerPart::Subject => &peer.subject,
        PeerPart::Issuer => &peer.issuer,
        PeerPart::Serial => &peer.serial,
        PeerPart::Fingerprint => &peer.fingerprint,
        PeerPart::Start => return Value::Time(peer.not_before, None),
        PeerPart::End => return Value::Time(peer.not_after, None),
    }))
}

fn string(text: Option<&str>) -> Value<'_> {
    text.filter(|text| !text.is_empty()).map_or(Value::Unset, Value::Str)
}

fn address(addr: Option<SocketAddr>, part: AddressPart) -> Value<'static> {
    let Some(addr) = addr else { return Value::Unset };
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    match part {
        AddressPart::Whole => Value::Address(addr),
        AddressPart::Ip => Value::Ip(addr),
        AddressPart::Port => Value::Number(addr.port().into()),
    }
}

fn protocol(version: http::Version) -> Option<&'static str> {
    match version {
        http::Version::HTTP_10 => Some("HTTP/1.0"),
        http::Version::HTTP_11 => Some("HTTP/1.1"),
        http::Version::HTTP_2 => Some("HTTP/2"),
        _ => None,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// As `format` says, or ISO 8601 with milliseconds as Envoy writes it.
fn write_time(time: SystemTime, format: Option<&str>, out: &mut dyn fmt::Write) -> fmt::Result {
    // Fails only beyond the year 9999.
    let Ok(timestamp) = Timestamp::try_from(time) else { return out.write_str("-") };
    let date = Zoned::new(timestamp, TimeZone::UTC);
    if let Some(format) = format {
        // A format that can't be written was refused when the configuration was read.
        return match jiff::fmt::strtime::format(format, &date) {
            Ok(text) => out.write_str(&text),
            Err(_) => out.write_str("-"),
        };
    }
    write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        date.month(),
        date.day(),
        date.hour(),
        date.minute(),
        date.second(),
        date.millisecond()
    )
}
