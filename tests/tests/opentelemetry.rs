//! What a collector of OpenTelemetry gets from both roles, and what it does not.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::mpsc,
    time::Duration,
};

use egress_tests::{
    ca::{Authority, issue_pem},
    cgroup,
    collector::{Collected, Collector, attribute},
    manifests::Walkthrough,
    plan,
    process::{Finished, Place, Process},
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until_is},
};
use opentelemetry_proto::tonic::{
    logs::v1::LogRecord,
    trace::v1::{Span, status::StatusCode},
};

/// Where collectors listen: an external address, at the outside.
const COLLECTOR: &str = "203.0.113.20:4318";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
/// How long a dropped dial may go on.
const DIAL: Duration = Duration::from_secs(4);

/// A testbed whose pod is known as shop/web, with the walkthrough's TLS origination.
fn testbed() -> Testbed {
    let testbed = Testbed::test(1).expect("a testbed");
    let mount = cgroup::mount_point().expect("cgroup2");
    let below =
        testbed.pod().cgroup.strip_prefix(mount).expect("below the mount").display().to_string();
    let mesh = format!(
        "{}enableTracing: true\nworkloads:\n- name: web\n  namespace: shop\n  addresses: [{}]\n  cgroups: \
         [/{below}]\n  interface: {}\n",
        mesh_yaml(1),
        plan::POD,
        plan::POD_INTERFACE
    );
    testbed.apply_mesh(&mesh).expect("a mesh.yaml");
    let files = Walkthrough::example().expect("the walkthrough");
    files.tls_origination.apply(&testbed).expect("its TLS origination");
    testbed
}

/// The environment that docs/telemetry.md shows, with this collector in the place of its own.
fn documented(endpoint: &str, certificate: Option<&Path>) -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/telemetry.md");
    let page = fs::read_to_string(page).expect("docs/telemetry.md");
    let block =
        page.split("```ini\n").find(|block| block.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT="));
    let block = block.and_then(|block| block.split("```").next()).expect("an example");
    let mut all = Vec::new();
    for line in block.lines() {
        let (name, value) = line.split_once('=').expect("NAME=VALUE");
        let value = match (name, certificate) {
            ("OTEL_EXPORTER_OTLP_ENDPOINT", _) => endpoint.to_owned(),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", Some(path)) => path.display().to_string(),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", None) => continue,
            _ => value.to_owned(),
        };
        all.push((name.to_owned(), value));
    }
    assert!(all.len() >= 4, "{all:?}");
    all
}

fn with_env(place: &Place, env: Vec<(String, String)>) -> Place {
    let mut place = place.clone();
    place.env.extend(env);
    place
}

fn gateway(testbed: &Testbed, env: Vec<(String, String)>) -> Process {
    let place = with_env(testbed.gateway(0), env);
    testbed.start_gateway_at(&place, testbed.agent(), 0, &[]).expect("a gateway")
}

fn collector(testbed: &Testbed, tls: Option<&(String, String)>) -> Collector {
    let address: SocketAddr = COLLECTOR.parse().expect("an address");
    Collector::start(&testbed.outside().ns, address, tls).expect("a collector")
}

/// A certificate for the collector's address, and a file with who vouches for it.
fn certificate(testbed: &Testbed) -> ((String, String), std::path::PathBuf) {
    let authority = Authority::new("collectors").expect("an authority");
    let host = COLLECTOR.split(':').next().expect("an address");
    let issued = issue_pem(&authority, host).expect("a certificate");
    let roots = testbed.dir().join("collector-ca.pem");
    fs::write(&roots, authority.pem()).expect("a file");
    (issued, roots)
}

fn curl(testbed: &Testbed, args: &[&str]) -> Finished {
    let all: Vec<&str> = ["-s", "-w", "\n%{http_code}"].iter().chain(args).copied().collect();
    testbed.pod().run("curl", &all).expect("curl")
}

/// Waits until a request is served: routes and names are there.
fn served(testbed: &Testbed) {
    let ask = || curl(testbed, &["http://edition.cnn.com/headers"]).stdout;
    until_is(SOON, "a served request", ask, |text| text.ends_with("200")).expect("an answer");
}

/// What the collector has, once this is among it.
fn once(collector: &Collector, what: &str, there: impl Fn(&Collected) -> bool) -> Collected {
    until_is(SOON, what, || collector.collected(), |got| there(got)).expect(what)
}

fn record<'a>(got: &'a Collected, path: &str) -> Option<&'a LogRecord> {
    got.logs.iter().find(|log| attribute(&log.attributes, "url.path").as_deref() == Some(path))
}

fn span<'a>(got: &'a Collected, path: &str) -> Option<&'a Span> {
    got.spans.iter().find(|span| attribute(&span.attributes, "url.path").as_deref() == Some(path))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the origin saw of a header.
fn seen<'a>(answer: &'a Finished, name: &str) -> Option<&'a str> {
    answer.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The gateway's metric with these labels.
fn metric(testbed: &Testbed, series: &str) -> Option<u64> {
    let url = "http://localhost:15090/stats/prometheus";
    let text = testbed.gateway(0).run("curl", &["-s", url]).expect("curl").stdout;
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn a_request_reaches_the_collector_as_a_record_and_a_span_of_its_trace() {
    let testbed = testbed();
    let (issued, roots) = certificate(&testbed);
    let collector = collector(&testbed, Some(&issued));
    let env = documented(&format!("https://{COLLECTOR}"), Some(&roots));
    let _gateway = gateway(&testbed, env);
    let _node = testbed.start_node().unwrap();
    served(&testbed);
    let header = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let answer = curl(
        &testbed,
        &["-H", &header, "-H", "tracestate: a=1,b=2", "http://edition.cnn.com/headers?of=mine"],
    );
    assert!(answer.stdout.ends_with("200"), "{answer:?}");
    let sent = seen(&answer, "traceparent").expect("a traceparent at the origin").to_owned();
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-01"), "{sent}");
    assert!(!sent.contains(PARENT), "the origin's parent is the gateway's span: {sent}");
    assert_eq!(seen(&answer, "tracestate"), Some("a=1,b=2"));
    let of_trace = |got: &Collected| {
        got.spans.iter().any(|span| hex(&span.trace_id) == TRACE)
            && got.logs.iter().any(|log| hex(&log.trace_id) == TRACE)
    };
    let got = once(&collector, "record and span", of_trace);
    assert_eq!(got.unreadable, Vec::<String>::new());
    let own = got.spans.iter().find(|span| hex(&span.trace_id) == TRACE).unwrap();
    assert_eq!(sent, format!("00-{TRACE}-{}-01", hex(&own.span_id)));
    assert_eq!((hex(&own.parent_span_id).as_str(), own.trace_state.as_str()), (PARENT, "a=1,b=2"));
    assert_eq!((own.name.as_str(), own.status.as_ref()), ("GET", None));
    let log = got.logs.iter().find(|log| hex(&log.trace_id) == TRACE).unwrap();
    assert_eq!(log.span_id, own.span_id);
    for (key, value) in [
        ("url.path", "/headers"),
        ("url.query", "of=mine"),
        ("server.address", "edition.cnn.com"),
        ("http.response.status_code", "200"),
        ("egress.workload", "web"),
        ("egress.workload_namespace", "shop"),
    ] {
        assert_eq!(attribute(&log.attributes, key).as_deref(), Some(value), "{key}");
        assert_eq!(attribute(&own.attributes, key).as_deref(), Some(value), "{key}");
    }
    let resource = &got.resources[0];
    assert_eq!(attribute(resource, "service.name").as_deref(), Some("shop-egress"));
    assert_eq!(attribute(resource, "deployment.environment.name").as_deref(), Some("production"));
    assert!(got.heads.iter().all(|head| head.contains_key("authorization")), "{:?}", got.heads);
}

#[test]
fn the_clients_decision_and_a_malformed_parent_count_as_they_should() {
    let testbed = testbed();
    let collector = collector(&testbed, None);
    let _gateway = gateway(&testbed, documented(&format!("http://{COLLECTOR}"), None));
    let _node = testbed.start_node().unwrap();
    served(&testbed);
    // What the client does not sample is recorded in the log, and is no span.
    let header = format!("traceparent: 00-{TRACE}-{PARENT}-00");
    let answer = curl(&testbed, &["-H", &header, "http://edition.cnn.com/headers?unsampled"]);
    let sent = seen(&answer, "traceparent").expect("a traceparent");
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00"), "{sent}");
    // A parent that is none begins a new trace, without the state of the old one.
    let header = format!("traceparent: 00-{TRACE}-{PARENT}");
    let answer = curl(
        &testbed,
        &["-H", &header, "-H", "tracestate: a=1", "http://edition.cnn.com/headers?malformed"],
    );
    let sent = seen(&answer, "traceparent").expect("a traceparent").to_owned();
    assert!(!sent.contains(TRACE) && sent.ends_with("-01"), "{sent}");
    assert_eq!(seen(&answer, "tracestate"), None);
    // What is refused has a record and a span, too.
    let refused =
        curl(&testbed, &["-H", "Host: unknown.example", "http://edition.cnn.com/refused"]);
    assert!(refused.stdout.ends_with("403"), "{refused:?}");
    let got = once(&collector, "what was refused", |got| {
        record(got, "/refused").is_some() && span(got, "/refused").is_some()
    });
    assert!(!got.spans.iter().any(|span| hex(&span.trace_id) == TRACE), "it was not sampled");
    assert!(got.logs.iter().any(|log| hex(&log.trace_id) == TRACE));
    assert!(got.spans.iter().any(|span| sent.contains(&hex(&span.trace_id))));
    let log = record(&got, "/refused").unwrap();
    assert_eq!(log.severity_text, "WARN");
    let reason = attribute(&log.attributes, "egress.reason");
    assert_eq!(reason.as_deref(), Some("host_not_in_registry"));
    let own = span(&got, "/refused").unwrap();
    assert_eq!(own.status.as_ref().map(|status| status.code()), Some(StatusCode::Error));
    assert_eq!(own.span_id, log.span_id);
}

#[test]
fn flows_of_a_node_reach_a_collector_that_the_pod_does_not_reach() {
    let testbed = testbed();
    let (issued, roots) = certificate(&testbed);
    let collector = collector(&testbed, Some(&issued));
    let _gateway = testbed.start_gateway(0).unwrap();
    let env = documented(&format!("https://{COLLECTOR}"), Some(&roots));
    let _node = testbed.start_node_at(&with_env(testbed.app(), env), &testbed.node_args()).unwrap();
    served(&testbed);
    let (host, port) = COLLECTOR.split_once(':').unwrap();
    let dial = format!("exec 3<>/dev/tcp/{host}/{port}");
    let dialled = testbed.pod().run_for(DIAL, "bash", &["-c", &dial]).unwrap();
    assert!(!dialled.ok(), "the pod must not reach it: {dialled:?}");
    let of = |log: &LogRecord, verdict: &str, port: &str| {
        let is = |key, value: &str| attribute(&log.attributes, key).as_deref() == Some(value);
        is("egress.verdict", verdict)
            && is("destination.port", port)
            && is("egress.workload", "web")
            && is("egress.workload_namespace", "shop")
    };
    let got = once(&collector, "both flows", |got| {
        got.logs.iter().any(|log| of(log, "redirect", "80"))
            && got.logs.iter().any(|log| of(log, "deny", port))
    });
    let denied = got.logs.iter().find(|log| of(log, "deny", port)).unwrap();
    assert_eq!(
        (denied.event_name.as_str(), denied.severity_text.as_str()),
        ("egress.flow", "WARN")
    );
    assert_eq!(attribute(&denied.attributes, "destination.address").as_deref(), Some(host));
    assert_eq!(attribute(&denied.attributes, "egress.reason").as_deref(), Some("no_route"));
    assert!(got.spans.is_empty(), "a node has no spans");
}

#[test]
fn a_collector_whose_certificate_does_not_verify_gets_nothing() {
    let testbed = testbed();
    let (_, roots) = certificate(&testbed);
    let other = Authority::new("somebody").unwrap();
    let host = COLLECTOR.split(':').next().unwrap();
    let collector = collector(&testbed, Some(&issue_pem(&other, host).unwrap()));
    let gateway = gateway(&testbed, documented(&format!("https://{COLLECTOR}"), Some(&roots)));
    let _node = testbed.start_node().unwrap();
    served(&testbed);
    let failures = || metric(&testbed, "egress_otlp_failures_total{signal=\"logs\"}");
    until_is(SOON, "a failed attempt", failures, |seen| seen.unwrap_or_default() > 0).unwrap();
    assert_eq!(metric(&testbed, "egress_otlp_up{signal=\"logs\"}"), Some(0));
    assert_eq!(metric(&testbed, "egress_otlp_records_total{signal=\"logs\"}"), Some(0));
    assert_eq!(collector.collected().heads.len(), 0, "not one request");
    let control = testbed.gateway_control(0);
    let args = ["status", "--control", &control.to_string_lossy()];
    let status = testbed.gateway(0).run(&testbed.agent().to_string_lossy(), &args).unwrap();
    let words: Vec<&str> = status.stdout.split_whitespace().collect();
    assert!(words.join(" ").contains("export of logs over OTLP fails"), "{}", status.stdout);
    let log = gateway.stderr();
    assert!(log.contains("can't be exported") && log.contains("TLS: "), "{log}");
    assert!(!log.contains("Bearer"), "headers are secrets: {log}");
}

#[test]
fn a_silent_collector_delays_no_request() {
    let testbed = testbed();
    // It accepts connections and never answers.
    let (report, bound) = mpsc::channel();
    let bind = move || drop(report.send(TcpListener::bind(COLLECTOR)));
    testbed.outside().ns.spawn(bind).unwrap().join().unwrap();
    let _listener = bound.recv().unwrap().unwrap();
    let mut env = documented(&format!("http://{COLLECTOR}"), None);
    // No attempt ends within this test.
    env.push(("OTEL_EXPORTER_OTLP_TIMEOUT".into(), "300000".into()));
    let _gateway = gateway(&testbed, env);
    let _node = testbed.start_node().unwrap();
    for _ in 0..20 {
        served(&testbed);
    }
    let waiting = || metric(&testbed, "egress_otlp_queue_bytes{signal=\"traces\"}");
    let ask = || {
        served(&testbed);
        waiting()
    };
    until_is(SOON, "records behind the batch that is not taken", ask, |seen| {
        seen.unwrap_or_default() > 0
    })
    .unwrap();
    for signal in ["logs", "traces"] {
        let of = |name: &str| metric(&testbed, &format!("{name}{{signal=\"{signal}\"}}"));
        assert_eq!(of("egress_otlp_failures_total"), Some(0), "the first attempt goes on");
        assert_eq!(of("egress_otlp_records_total"), Some(0));
    }
}

#[test]
fn settings_that_cannot_be_met_stop_the_start() {
    let testbed = testbed();
    for (name, value, what) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "found `http/json`, expected http/protobuf"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "found `sometimes`, expected always_on"),
    ] {
        let mut env = vec![("OTEL_EXPORTER_OTLP_ENDPOINT".into(), format!("http://{COLLECTOR}"))];
        env.push((name.into(), value.into()));
        for (place, args) in
            [(testbed.gateway(0), testbed.gateway_args()), (testbed.app(), testbed.node_args())]
        {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let place = with_env(place, env.clone());
            let ended = place.run(&testbed.agent().to_string_lossy(), &args).unwrap();
            assert!(ended.code == 1 && ended.stderr.contains(what), "{args:?}: {ended:?}");
            assert!(ended.stderr.contains(name), "{ended:?}");
        }
    }
}
