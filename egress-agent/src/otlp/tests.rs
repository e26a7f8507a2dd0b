//! The environment, and a collector of this process's own.

use std::{
    convert::Infallible,
    io::Read as _,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse},
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::any_value::Value,
    logs::v1::LogRecord,
    trace::v1::Span,
};
use prost::Message as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{
    client::{Answer, SendError, Status},
    deliver::{Outcome, outcome},
    exporter::start_with,
    request::Head,
    *,
};
use crate::{
    telemetry::{AccessLogEntry, Batch, Exports, Root, Sampler, Telemetry},
    tls::testing::{ca, issue, params},
    types::{ClientAddr, LocalAddr},
};

fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let get = |name: &str| {
        variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
    };
    Settings::read(&get, "egress-gateway", &[("service.version", "1".into())])
}

fn faults(variables: &[(&str, &str)]) -> Vec<String> {
    read(variables).unwrap_err().0
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

#[test]
fn without_an_endpoint_nothing_is_exported() {
    for variables in [
        &[][..],
        &[(ENDPOINT, "")],
        &[(ENDPOINT, "http://c:4318"), ("OTEL_SDK_DISABLED", "true")],
        &[
            (ENDPOINT, "http://c:4318"),
            ("OTEL_LOGS_EXPORTER", "none"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ],
        // Somebody else's settings, which are not ours to judge.
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"), ("OTEL_TRACES_SAMPLER", "jaeger_remote")],
    ] {
        assert!(!read(variables).unwrap().is_on(), "{variables:?}");
    }
}

#[test]
fn one_endpoint_is_for_both_signals_and_each_can_have_its_own() {
    let both = read(&[(ENDPOINT, "http://collector:4318/base")]).unwrap();
    let url = |target: &Option<Target>| target.as_ref().unwrap().endpoint.url();
    assert_eq!(url(&both.logs), "http://collector:4318/base/v1/logs");
    assert_eq!(url(&both.traces), "http://collector:4318/base/v1/traces");
    assert_eq!(both.sampler, Sampler { root: Root::AlwaysOn, parent_based: true });
    let logs = both.logs.unwrap();
    assert_eq!((logs.timeout, logs.headers.len()), (Duration::from_secs(10), 0));
    let own = read(&[
        (ENDPOINT, "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://logs.example/in"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x-key=a%20b,x-other=1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=general"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "250"),
    ])
    .unwrap();
    assert_eq!(url(&own.logs), "https://logs.example/in");
    let (logs, traces) = (own.logs.unwrap(), own.traces.unwrap());
    assert_eq!(logs.timeout, Duration::from_millis(250));
    assert_eq!(logs.headers[0].1, "a b");
    assert!(logs.headers[0].1.is_sensitive());
    assert_eq!(traces.headers[0].1, "general");
    let named = read(&[("OTEL_LOGS_EXPORTER", "otlp")]).unwrap();
    assert_eq!(url(&named.logs), "http://localhost:4318/v1/logs");
    assert_eq!(named.traces, None);
    let logs = read(&[(ENDPOINT, "http://c:4318"), ("OTEL_TRACES_EXPORTER", "none")]).unwrap();
    assert!(logs.logs.is_some() && logs.traces.is_none());
}

#[test]
fn a_protocol_has_its_own_port_and_path() {
    let all = read(&[
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces.example/base/"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
    ])
    .unwrap();
    let (logs, traces) = (all.logs.unwrap(), all.traces.unwrap());
    assert_eq!((logs.protocol, logs.compression), (Protocol::Grpc, Compression::Gzip));
    let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    assert_eq!(logs.endpoint.url(), format!("http://localhost:4317{path}"));
    assert_eq!((traces.protocol, traces.compression), (Protocol::Grpc, Compression::None));
    let path = "/base/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    assert_eq!(traces.endpoint.path, path);
    let one = read(&[(ENDPOINT, "http://c:1"), ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc")]);
    let one = one.unwrap();
    let protocols = [one.logs, one.traces].map(|target| target.unwrap().protocol);
    assert_eq!(protocols, [Protocol::Grpc, Protocol::Http]);
}

#[test]
fn what_the_process_says_of_itself_can_be_said_otherwise() {
    let own = read(&[(ENDPOINT, "http://c:4318")]).unwrap().resource;
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(own, [pair("service.name", "egress-gateway"), pair("service.version", "1")]);
    let other = read(&[
        (ENDPOINT, "http://c:4318"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=x, k8s.cluster.name=a%2Cb,service.version=2"),
        ("OTEL_SERVICE_NAME", "egress"),
    ]);
    let expected = [
        pair("k8s.cluster.name", "a,b"),
        pair("service.name", "egress"),
        pair("service.version", "2"),
    ];
    assert_eq!(other.unwrap().resource, expected);
}

#[test]
fn samplers_have_their_standard_names() {
    let sampler = |name, argument| {
        let variables = [
            (ENDPOINT, "http://c:4318"),
            ("OTEL_TRACES_SAMPLER", name),
            ("OTEL_TRACES_SAMPLER_ARG", argument),
        ];
        read(&variables).unwrap().sampler
    };
    for (name, root, parent_based) in [
        ("always_on", Root::AlwaysOn, false),
        ("always_off", Root::AlwaysOff, false),
        ("traceidratio", Root::ratio(0.25), false),
        ("parentbased_always_on", Root::AlwaysOn, true),
        ("parentbased_always_off", Root::AlwaysOff, true),
        ("parentbased_traceidratio", Root::ratio(0.25), true),
    ] {
        assert_eq!(sampler(name, "0.25"), Sampler { root, parent_based }, "{name}");
    }
    assert_eq!(sampler("traceidratio", "").root, Root::ratio(1.0));
}

#[test]
fn every_variable_that_cannot_be_used_is_named() {
    for (name, value, what) in [
        (ENDPOINT, "collector:4318", "expected http:// or https://"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "ftp://x", "expected http:// or https://"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "found `http/json`, expected http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "gRPC", "found `gRPC`, expected http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "found `zstd`, expected none or gzip"),
        ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "deflate", "expected none or gzip"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "found `10s`, expected milliseconds"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "expected milliseconds"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret-without-equals", "expected NAME=VALUE"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret%0a", "the value of `x-key` can't be sent"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x key=secret", "header 1 has no usable name"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "content-length=secret", "the agent's own"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem", "expected both or none"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert.pem", "expected both or none"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem", "expected https://"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "expected always_on"),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "expected a number from 0 to 1"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a", "expected KEY=VALUE"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz", "percent-encoded"),
        ("OTEL_SDK_DISABLED", "maybe", "expected true or false"),
        ("OTEL_LOGS_EXPORTER", "console", "expected otlp or none"),
        ("OTEL_PROPAGATORS", "b3", "expected tracecontext"),
    ] {
        let all = faults(&[(name, value), (ENDPOINT, "http://collector:4318")]);
        assert!(all.iter().any(|fault| fault.contains(what)), "{name}={value}: {all:?}");
        assert!(all.iter().all(|fault| fault.starts_with("OTEL_")), "{all:?}");
        assert!(
            !all.iter().any(|fault| fault.contains("secret")),
            "no message repeats a secret: {all:?}"
        );
    }
    let all = faults(&[
        (ENDPOINT, "http://c"),
        ("OTEL_TRACES_SAMPLER", "x"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "y"),
    ]);
    assert!(all.len() >= 2, "all at once: {all:?}");
}

#[test]
fn a_body_is_the_message_of_the_protocol() {
    let head = Head::new(&[("service.name".into(), "egress-gateway".into())]);
    let record = |name: &str| LogRecord { event_name: name.into(), ..LogRecord::default() };
    let all = ["one", "two", &"x".repeat(300)].map(record);
    let batch = Batch { records: all.iter().map(LogRecord::encode_to_vec).collect() };
    let body = head.body(&batch);
    let read = ExportLogsServiceRequest::decode(&*body).unwrap();
    let [resource] = &read.resource_logs[..] else { panic!("one resource: {read:?}") };
    let [scope] = &resource.scope_logs[..] else { panic!("one scope: {read:?}") };
    assert_eq!(scope.log_records, all);
    assert_eq!(scope.scope.as_ref().unwrap().name, "egress-agent");
    let attributes = &resource.resource.as_ref().unwrap().attributes;
    let value = attributes[0].value.as_ref().unwrap().value.clone();
    assert_eq!(value, Some(Value::StringValue("egress-gateway".into())));
    assert_eq!(read.encode_to_vec(), body, "as the library itself writes it");
    // Spans have the same numbers.
    let span = Span { name: "GET".into(), ..Span::default() };
    let body = head.body(&Batch { records: vec![span.encode_to_vec()] });
    let read = ExportTraceServiceRequest::decode(&*body).unwrap();
    assert_eq!(read.resource_spans[0].scope_spans[0].spans, [span]);
    assert_eq!(read.encode_to_vec(), body);
}

fn answer(status: u16, body: Vec<u8>) -> Result<Answer, SendError> {
    let status = Status::Http(StatusCode::from_u16(status).unwrap());
    Ok(Answer { status, retry_after: Some(Duration::from_secs(7)), body: body.into() })
}

#[test]
fn what_is_tried_again_is_what_the_protocol_says() {
    let none = Outcome::Taken { rejected: 0, why: String::new() };
    assert_eq!(outcome(answer(200, Vec::new())), none);
    assert_eq!(outcome(answer(200, b"not protobuf".into())), none);
    let partial = ExportLogsServiceResponse {
        partial_success: Some(ExportLogsPartialSuccess {
            rejected_log_records: 3,
            error_message: "too old".into(),
        }),
    };
    let some = Outcome::Taken { rejected: 3, why: "too old".into() };
    assert_eq!(outcome(answer(200, partial.encode_to_vec())), some);
    for status in [429, 502, 503, 504] {
        let Outcome::Again { after, .. } = outcome(answer(status, Vec::new())) else {
            panic!("{status}")
        };
        assert_eq!(after, Some(Duration::from_secs(7)));
    }
    for status in [301, 400, 401, 403, 404, 413, 500] {
        assert!(matches!(outcome(answer(status, Vec::new())), Outcome::Rejected(_)), "{status}");
    }
    let grpc = |code, details: bool| {
        let status = Status::Grpc { code, message: "too \u{1b}[1m old".into() };
        let retry_after = details.then_some(Duration::ZERO);
        outcome(Ok(Answer { status, retry_after, body: Bytes::new() }))
    };
    assert_eq!(grpc(0, false), none);
    for code in [1, 4, 10, 11, 14, 15] {
        assert!(matches!(grpc(code, false), Outcome::Again { .. }), "{code}");
    }
    assert!(matches!(grpc(8, true), Outcome::Again { .. }));
    for code in [2, 3, 5, 6, 7, 8, 9, 12, 13, 16, 99] {
        assert!(matches!(grpc(code, false), Outcome::Rejected(_)), "{code}");
    }
    let silent = Err(SendError::Timeout(Duration::from_secs(1)));
    assert!(matches!(outcome(silent), Outcome::Again { after: None, .. }));
}

/// What a collector has got: path, head and body of each request.
type Got = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

/// A collector that answers the first requests with `statuses`, and the others with 200.
async fn collector(tls: Option<TlsAcceptor>, statuses: &'static [u16]) -> (SocketAddr, Got) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, got) = (listener.local_addr().unwrap(), Got::default());
    let seen = Arc::clone(&got);
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            let (seen, tls) = (Arc::clone(&seen), tls.clone());
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let seen = Arc::clone(&seen);
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let mut seen = seen.lock().unwrap();
                        let status = statuses.get(seen.len()).copied().unwrap_or(200);
                        seen.push((head.uri.path().into(), head.headers, body));
                        let answer =
                            Response::builder().status(status).body(Full::<Bytes>::default());
                        Ok::<_, Infallible>(answer.unwrap())
                    }
                });
                let served = match tls {
                    None => http1::Builder::new().serve_connection(TokioIo::new(io), service).await,
                    Some(tls) => match tls.accept(io).await {
                        Ok(io) => {
                            http1::Builder::new().serve_connection(TokioIo::new(io), service).await
                        }
                        Err(_) => return,
                    },
                };
                drop(served);
            });
        }
    });
    (addr, got)
}

fn finished(exports: &Arc<Exports>) {
    let telemetry = Telemetry::default();
    telemetry.exports.set(Arc::clone(exports)).unwrap();
    let local = LocalAddr("192.0.2.10:443".parse().unwrap());
    let client = ClientAddr("10.0.0.5:40000".parse().unwrap());
    telemetry.connection_finished(&AccessLogEntry::new(SystemTime::UNIX_EPOCH, local, client));
}

async fn until(what: &str, mut ask: impl FnMut() -> bool) {
    let waiting = async {
        while !ask() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_what_waits_and_is_asked_again_where_it_was_busy() {
    let (addr, got) = collector(None, &[503]).await;
    let settings = read(&[
        (ENDPOINT, &format!("http://{addr}")),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc"),
    ]);
    let (exports, exporter) = start_with(settings.unwrap()).unwrap();
    finished(&exports);
    until("an answer of 503, and then of 200", || got.lock().unwrap().len() == 2).await;
    until("a count", || exports.reports()[0].exported == 1).await;
    let got = got.lock().unwrap().clone();
    let [first, second] = &got[..] else { panic!("two requests") };
    assert_eq!((&*first.0, &first.2), ("/v1/logs", &second.2));
    assert_eq!(first.1[header::CONTENT_TYPE], "application/x-protobuf");
    assert_eq!(first.1[header::AUTHORIZATION], "Bearer abc");
    assert_eq!(first.1[header::HOST], addr.to_string().as_str());
    let read = ExportLogsServiceRequest::decode(first.2.clone()).unwrap();
    assert_eq!(read.resource_logs[0].scope_logs[0].log_records.len(), 1);
    let report = &exports.reports()[0];
    assert_eq!((report.failures, report.failure.clone(), report.lost), (1, None, [0; 3]));
    tokio::task::spawn_blocking(|| exporter.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_is_sent_when_the_process_ends() {
    let (addr, got) = collector(None, &[]).await;
    let (exports, exporter) =
        start_with(read(&[(ENDPOINT, &format!("http://{addr}"))]).unwrap()).unwrap();
    for _ in 0..5 {
        finished(&exports);
    }
    tokio::task::spawn_blocking(|| exporter.stop()).await.unwrap();
    let records = |(_, _, body): &(_, _, Bytes)| {
        let read = ExportLogsServiceRequest::decode(body.clone()).unwrap();
        read.resource_logs[0].scope_logs[0].log_records.len()
    };
    assert_eq!(got.lock().unwrap().iter().map(records).sum::<usize>(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_batch_is_lost_and_counted() {
    let (addr, got) = collector(None, &[400]).await;
    let (exports, exporter) =
        start_with(read(&[(ENDPOINT, &format!("http://{addr}"))]).unwrap()).unwrap();
    finished(&exports);
    until("a loss", || exports.reports()[0].lost == [0, 0, 1]).await;
    assert!(exports.warnings()[0].contains("it answers 400"), "{:?}", exports.warnings());
    finished(&exports);
    until("the next one", || exports.reports()[0].exported == 1).await;
    assert_eq!(got.lock().unwrap().len(), 2);
    tokio::task::spawn_blocking(|| exporter.stop()).await.unwrap();
}

fn acceptor(ca: &crate::tls::testing::Ca, name: &str) -> TlsAcceptor {
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let (certificate, key) = issue(ca, &params(&[name], &[], 1));
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn over_tls(addr: SocketAddr, roots: &Path) -> Settings {
    let url = format!("https://localhost:{}", addr.port());
    read(&[(ENDPOINT, &url), ("OTEL_EXPORTER_OTLP_CERTIFICATE", &roots.display().to_string())])
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_whose_certificate_verifies_gets_it() {
    let (own, dir) = (ca("collectors"), TempDir::new().unwrap());
    let roots = dir.path().join("ca.pem");
    std::fs::write(&roots, own.pem()).unwrap();
    let (addr, got) = collector(Some(acceptor(&own, "localhost")), &[]).await;
    let (exports, exporter) = start_with(over_tls(addr, &roots)).unwrap();
    finished(&exports);
    until("a request", || got.lock().unwrap().len() == 1).await;
    tokio::task::spawn_blocking(|| exporter.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_whose_certificate_does_not_verify_gets_nothing() {
    let (own, other, dir) = (ca("collectors"), ca("somebody"), TempDir::new().unwrap());
    let roots = dir.path().join("ca.pem");
    std::fs::write(&roots, own.pem()).unwrap();
    for (ca, name) in [(&other, "localhost"), (&own, "elsewhere.example")] {
        let (addr, got) = collector(Some(acceptor(ca, name)), &[]).await;
        let (exports, exporter) = start_with(over_tls(addr, &roots)).unwrap();
        finished(&exports);
        until("a failure", || exports.reports()[0].failures > 0).await;
        let warnings = exports.warnings();
        assert!(warnings[0].contains("TLS: "), "{warnings:?}");
        tokio::task::spawn_blocking(|| exporter.stop()).await.unwrap();
        assert_eq!(got.lock().unwrap().len(), 0, "not one request");
    }
}

#[test]
fn certificates_that_cannot_be_used_stop_the_start() {
    let dir = TempDir::new().unwrap();
    let addr = "127.0.0.1:1".parse().unwrap();
    let missing = start_with(over_tls(addr, &dir.path().join("ca.pem"))).unwrap_err();
    assert!(format!("{missing:#}").contains("ca.pem: No such file"), "{missing:#}");
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let error = start_with(over_tls(addr, &empty)).unwrap_err();
    assert!(format!("{error:#}").contains("expected PEM certificates"), "{error:#}");
}

/// A collector over gRPC, of the agent's own stack: it answers with a message, and with these statuses first.
async fn grpc_collector(statuses: &'static [u32]) -> (SocketAddr, Got) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, got) = (listener.local_addr().unwrap(), Got::default());
    let seen = Arc::clone(&got);
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let seen = Arc::clone(&seen);
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let mut seen = seen.lock().unwrap();
                        let status = statuses.get(seen.len()).copied().unwrap_or(0);
                        seen.push((head.uri.path().into(), head.headers, body));
                        let trailers: HeaderMap = [
                            ("grpc-status", status.to_string()),
                            ("grpc-message", "busy%20now".into()),
                        ]
                        .into_iter()
                        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                        .collect::<HeaderMap>();
                        let message = Full::new(Bytes::from_static(&[0; 5]));
                        let body = message.with_trailers(async move { Some(Ok(trailers)) });
                        let answer =
                            Response::builder().header(header::CONTENT_TYPE, "application/grpc");
                        Ok::<_, Infallible>(answer.body(body).unwrap())
                    }
                });
                let server = http2::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(io), service).await);
            });
        }
    });
    (addr, got)
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut read).unwrap();
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_over_grpc_gets_compressed_messages_and_is_asked_again() {
    let (addr, got) = grpc_collector(&[14]).await;
    let settings = read(&[
        (ENDPOINT, &format!("http://{addr}")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc"),
    ]);
    let (exports, exporter) = start_with(settings.unwrap()).unwrap();
    finished(&exports);
    until("UNAVAILABLE, and then OK", || got.lock().unwrap().len() == 2).await;
    until("a count", || exports.reports()[0].exported == 1).await;
    let got = got.lock().unwrap().clone();
    let [first, second] = &got[..] else { panic!("two requests") };
    assert_eq!(first.0, "/opentelemetry.proto.collector.logs.v1.LogsService/Export");
    assert_eq!(first.2, second.2);
    let header = |name: &str| first.1[name].to_str().unwrap();
    assert_eq!((header("content-type"), header("te")), ("application/grpc", "trailers"));
    assert_eq!((header("grpc-encoding"), header("authorization")), ("gzip", "Bearer abc"));
    assert_eq!(header("grpc-timeout"), "10000m");
    let length = u32::try_from(first.2.len() - 5).unwrap();
    assert_eq!((first.2[0], &first.2[1..5]), (1, &length.to_be_bytes()[..]));
    let read = ExportLogsServiceRequest::decode(&*gunzip(&first.2[5..])).unwrap();
    assert_eq!(read.resource_logs[0].scope_logs[0].log_records.len(), 1);
    assert_eq!((exports.reports()[0].failures, exports.reports()[0].lost), (1, [0; 3]));
    tokio::task::spawn_blocking(|| exporter.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_collector_over_grpc_does_not_want_is_counted_and_said() {
    let (addr, _got) = grpc_collector(&[16]).await;
    let settings =
        read(&[(ENDPOINT, &format!("http://{addr}")), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    let (exports, exporter) = start_with(settings.unwrap()).unwrap();
    finished(&exports);
    until("a failure", || exports.reports()[0].failure.is_some()).await;
    let report = &exports.reports()[0];
    let why = report.failure.clone().unwrap();
    assert!(why.contains("gRPC status 16: busy now"), "{why}");
    assert_eq!(report.exported, 0);
    tokio::task::spawn_blocking(|| exporter.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_compressed_where_it_is_asked_for() {
    let (addr, got) = collector(None, &[]).await;
    let settings = read(&[
        (ENDPOINT, &format!("http://{addr}")),
        ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip"),
    ]);
    let (exports, exporter) = start_with(settings.unwrap()).unwrap();
    finished(&exports);
    tokio::task::spawn_blocking(|| exporter.stop()).await.unwrap();
    let got = got.lock().unwrap().clone();
    let (_, headers, body) = &got[0];
    assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
    assert_eq!(headers[header::CONTENT_LENGTH], body.len().to_string().as_str());
    let read = ExportLogsServiceRequest::decode(&*gunzip(body)).unwrap();
    assert_eq!(read.resource_logs[0].scope_logs[0].log_records.len(), 1);
}
