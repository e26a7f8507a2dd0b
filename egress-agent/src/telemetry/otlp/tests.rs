//! What a record becomes, attribute by attribute.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use egress_ebpf::reason::Reason;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    trace::v1 as trace,
};
use prost::Message as _;

use super::*;
use crate::{
    policy::ClusterName,
    telemetry::{
        AccessLogEntry, FlowLog, ResponseFlag, Telemetry,
        flow_tests::{dropped, redirected},
    },
    types::{ClientAddr, LocalAddr, Namespace, Port, UpstreamAddr, Workload},
};

fn entry() -> AccessLogEntry {
    let start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
    let local = LocalAddr("192.0.2.10:80".parse().unwrap());
    AccessLogEntry {
        duration: Duration::from_micros(48_900),
        workload: Some(Arc::new(Workload {
            name: "sleep".into(),
            namespace: Namespace("default".into()),
            labels: [].into(),
            addresses: vec![],
            cgroups: vec![],
            interface: None,
            node: None,
            service_account: "default".into(),
        })),
        ..AccessLogEntry::new(start, local, ClientAddr("10.244.1.10:40404".parse().unwrap()))
    }
}

/// A request that was served, in a client's trace.
fn request() -> AccessLogEntry {
    AccessLogEntry {
        protocol: Some(http::Version::HTTP_11),
        method: Some(http::Method::GET),
        path: Some("/politics?page=2".into()),
        authority: Some("edition.cnn.com".into()),
        user_agent: Some("curl/7.88.1".into()),
        request_id: Some("a7d2d5f0-5c1b-4d0b-9a86-3a1b3a4a7f4e".into()),
        response_code: 200,
        response_code_details: Some("via_upstream".into()),
        bytes_sent: 150_793,
        upstream_service_time: Some(Duration::from_millis(47)),
        upstream_host: Some(UpstreamAddr("151.101.1.67:443".parse().unwrap())),
        upstream_local: Some(LocalAddr("192.0.2.10:55394".parse().unwrap())),
        upstream_cluster: Some(ClusterName::outbound(
            Port::new(443).unwrap(),
            "",
            "edition.cnn.com",
        )),
        route_name: Some("default".into()),
        span: Some(Box::new(Span {
            trace_id: [0xab; 16],
            span_id: [0xcd; 8],
            parent_id: Some([0xef; 8]),
            sampled: true,
            state: "a=1".into(),
        })),
        ..entry()
    }
}

/// A connection that was refused.
fn refused() -> AccessLogEntry {
    AccessLogEntry {
        requested_server_name: Some("evil.example.net".into()),
        response_flags: ResponseFlag::NoRouteFound.into(),
        upstream_cluster: Some(ClusterName::black_hole()),
        reason: Some(Reason::HostNotInRegistry),
        detail: Some("no ServiceEntry names evil.example.net with port 443".into()),
        bytes_received: 517,
        ..entry()
    }
}

fn value(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => format!("{text:?}"),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(holds)) => holds.to_string(),
        other => panic!("{other:?}"),
    }
}

fn pairs(pairs: &[KeyValue], text: &mut String) {
    for pair in pairs {
        writeln!(text, "  {} = {}", pair.key, value(pair.value.as_ref())).unwrap();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn log(record: &LogRecord) -> String {
    let mut text = format!(
        "time: {}\nobserved: {}\nseverity: {} {}\nevent: {}\ntrace: {}\nspan: {}\nflags: {}\nbody: {}\n",
        record.time_unix_nano,
        record.observed_time_unix_nano,
        record.severity_number,
        record.severity_text,
        record.event_name,
        hex(&record.trace_id),
        hex(&record.span_id),
        record.flags,
        value(record.body.as_ref()),
    );
    pairs(&record.attributes, &mut text);
    text
}

fn span(span: &trace::Span) -> String {
    let mut text = format!(
        "name: {}\nkind: {:?}\nfrom: {}\nto: {}\ntrace: {}\nspan: {}\nparent: {}\nstate: {}\nflags: {:#x}\n\
         status: {:?}\n",
        span.name,
        span.kind(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        hex(&span.trace_id),
        hex(&span.span_id),
        hex(&span.parent_span_id),
        span.trace_state,
        span.flags,
        span.status.as_ref().map(|status| (status.code(), &status.message)),
    );
    pairs(&span.attributes, &mut text);
    text
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/telemetry/otlp/testdata").join(name);
    if std::env::var_os("EGRESS_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} is not what EGRESS_BLESS=1 writes", path.display());
}

fn telemetry() -> (Telemetry, Arc<Exports>) {
    let queue = |signal| Arc::new(Queue::new(signal));
    let traces = Traces { queue: queue(Signal::Traces), sampler: Sampler::default() };
    let exports = Arc::new(Exports { logs: Some(queue(Signal::Logs)), traces: Some(traces) });
    let telemetry = Telemetry::default();
    telemetry.exports.set(Arc::clone(&exports)).unwrap();
    (telemetry, exports)
}

fn records(queue: &Queue) -> Vec<Vec<u8>> {
    queue.take(usize::MAX).unwrap_or_default().records
}

fn logs(exports: &Exports) -> Vec<LogRecord> {
    let all = records(exports.logs.as_ref().unwrap());
    all.iter().map(|record| LogRecord::decode(&**record).unwrap()).collect()
}

fn spans(exports: &Exports) -> Vec<trace::Span> {
    let all = records(&exports.traces.as_ref().unwrap().queue);
    all.iter().map(|record| trace::Span::decode(&**record).unwrap()).collect()
}

#[test]
fn a_request_is_a_record_and_a_span_of_one_trace() {
    let (telemetry, exports) = telemetry();
    telemetry.request_finished(&request());
    let [record] = &logs(&exports)[..] else { panic!("one record") };
    golden("request.txt", &log(record));
    let [own] = &spans(&exports)[..] else { panic!("one span") };
    golden("span.txt", &span(own));
    assert_eq!((&record.trace_id, &record.span_id), (&own.trace_id, &own.span_id));
}

#[test]
fn a_refused_connection_is_a_record_without_a_span() {
    let (telemetry, exports) = telemetry();
    telemetry.connection_finished(&refused());
    let [record] = &logs(&exports)[..] else { panic!("one record") };
    golden("refused.txt", &log(record));
    assert_eq!(spans(&exports), []);
}

#[test]
fn what_is_not_sampled_is_no_span_but_its_record_has_the_trace() {
    let (telemetry, exports) = telemetry();
    let mut entry = request();
    entry.span.as_mut().unwrap().sampled = false;
    telemetry.request_finished(&entry);
    assert_eq!(spans(&exports), []);
    let [record] = &logs(&exports)[..] else { panic!("one record") };
    assert_eq!((&record.trace_id[..], record.flags), (&[0xab; 16][..], 0));
}

#[test]
fn a_failed_request_is_an_error_and_a_strange_method_is_no_name() {
    let (telemetry, exports) = telemetry();
    let mut entry = request();
    entry.response_code = 403;
    entry.reason = Some(Reason::HostNotInRegistry);
    entry.detail = Some("no ServiceEntry names it".into());
    entry.method = Some("BREW".parse().unwrap());
    telemetry.request_finished(&entry);
    let [own] = &spans(&exports)[..] else { panic!("one span") };
    let status = own.status.as_ref().unwrap();
    assert_eq!(status.code(), trace::status::StatusCode::Error);
    assert_eq!((&*status.message, &*own.name), ("no ServiceEntry names it", "HTTP"));
}

#[test]
fn long_texts_of_a_client_are_cut() {
    let (telemetry, exports) = telemetry();
    let mut entry = request();
    entry.user_agent = Some("x".repeat(60_000).into());
    entry.path = Some(format!("/{}", "y".repeat(60_000)).into());
    telemetry.request_finished(&entry);
    let all = records(exports.logs.as_ref().unwrap());
    assert!(all[0].len() < 24 << 10, "{}", all[0].len());
}

#[test]
fn flows_of_a_node_are_records() {
    let (_, exports) = telemetry();
    let flows = FlowLog::default();
    flows.push(dropped());
    flows.export_to(Arc::clone(&exports));
    flows.push(dropped());
    flows.push(redirected());
    let [denied, sent] = &logs(&exports)[..] else {
        panic!("two records: the first came too early")
    };
    golden("denied.txt", &log(denied));
    golden("redirected.txt", &log(sent));
}

#[test]
fn a_gateway_exports_its_log_and_not_its_flows_too() {
    let (telemetry, exports) = telemetry();
    telemetry.connection_finished(&refused());
    assert_eq!(telemetry.flows.history().len(), 1);
    assert_eq!(logs(&exports).len(), 1);
}
