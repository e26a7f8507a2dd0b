//! Lines as a user sees them, field by field.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use egress_ebpf::reason::Reason;

use super::*;
use crate::{
    policy::{AccessLogEncoding, ClusterName},
    telemetry::{ForwardedFor, ResponseFlag},
    types::{
        ClientAddr, DownstreamTls, LocalAddr, Namespace, PeerCertificate, Port, SpiffeId,
        UpstreamAddr, Workload,
    },
};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The walkthrough's TLS origination: `curl http://edition.cnn.com/politics`.
pub(super) fn request() -> AccessLogEntry {
    AccessLogEntry {
        duration: Duration::from_micros(48_900),
        protocol: Some(http::Version::HTTP_2),
        method: Some(http::Method::GET),
        path: Some("/politics".into()),
        authority: Some("edition.cnn.com".into()),
        user_agent: Some("curl/7.64.0".into()),
        forwarded_for: Some(ForwardedFor::Client),
        request_id: Some("a7d2d5f0-5c1b-4d0b-9a86-3a1b3a4a7f4e".into()),
        response_code: 200,
        grpc_status: None,
        response_code_details: Some("via_upstream".into()),
        bytes_sent: 150_793,
        upstream_service_time: Some(Duration::from_millis(47)),
        upstream_host: Some(UpstreamAddr(addr("151.101.1.67:443"))),
        upstream_cluster: Some(ClusterName::outbound(
            Port::new(443).unwrap(),
            "",
            "edition.cnn.com",
        )),
        upstream_local: Some(LocalAddr(addr("192.0.2.10:55394"))),
        route_name: Some("default".into()),
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
        ..AccessLogEntry::new(
            SystemTime::UNIX_EPOCH + Duration::from_millis(1_592_308_843_052),
            LocalAddr(addr("192.0.2.10:80")),
            ClientAddr(addr("[::ffff:10.244.0.7]:40404")),
        )
    }
}

/// The walkthrough's passthrough: `curl https://edition.cnn.com/politics`.
fn connection() -> AccessLogEntry {
    AccessLogEntry {
        protocol: None,
        method: None,
        path: None,
        original_path: None,
        authority: None,
        user_agent: None,
        forwarded_for: None,
        request_id: None,
        response_code: 0,
        grpc_status: None,
        response_code_details: None,
        bytes_received: 778,
        bytes_sent: 155_228,
        upstream_service_time: None,
        downstream_local: LocalAddr(addr("192.0.2.10:443")),
        requested_server_name: Some("edition.cnn.com".into()),
        route_name: None,
        ..request()
    }
}

/// A host that isn't in the registry.
pub(super) fn refused() -> AccessLogEntry {
    AccessLogEntry {
        response_code: 403,
        grpc_status: None,
        response_flags: ResponseFlag::NoRouteFound.into(),
        response_code_details: Some("host_not_in_registry".into()),
        authority: Some("evil.example".into()),
        upstream_service_time: None,
        upstream_host: None,
        upstream_cluster: Some(ClusterName::black_hole()),
        upstream_local: None,
        upstream_tls_group: None,
        route_name: None,
        reason: Some(Reason::HostNotInRegistry),
        ..request()
    }
}

fn line(format: Option<&str>, encoding: AccessLogEncoding, entry: &AccessLogEntry) -> String {
    let mut line = Vec::new();
    render::render(&LogFormat::compile(format, encoding).unwrap(), entry, &mut line);
    String::from_utf8(line).unwrap()
}

fn text(format: Option<&str>, entry: &AccessLogEntry) -> String {
    line(format, AccessLogEncoding::Text, entry)
}

fn json(format: Option<&str>, entry: &AccessLogEntry) -> serde_json::Value {
    let line = line(format, AccessLogEncoding::Json, entry);
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    serde_json::from_str(&line).unwrap()
}

#[test]
fn envoys_default_line() {
    assert_eq!(
        text(Some("envoy"), &request()),
        "[2020-06-16T12:00:43.052Z] \"GET /politics HTTP/2\" 200 - 0 150793 48 47 \
         \"10.244.0.7\" \"curl/7.64.0\" \"a7d2d5f0-5c1b-4d0b-9a86-3a1b3a4a7f4e\" \
         \"edition.cnn.com\" \"151.101.1.67:443\"\n"
    );
}

#[test]
fn tcp_lines_begin_with_three_dashes_and_zero() {
    assert_eq!(
        text(Some("envoy"), &connection()),
        "[2020-06-16T12:00:43.052Z] \"- - -\" 0 - 778 155228 48 - \"-\" \"-\" \"-\" \"-\" \
         \"151.101.1.67:443\"\n"
    );
}

#[test]
fn refusals_carry_their_flag() {
    assert_eq!(
        text(Some("envoy"), &refused()),
        "[2020-06-16T12:00:43.052Z] \"GET /politics HTTP/2\" 403 NR 0 150793 48 - \
         \"10.244.0.7\" \"curl/7.64.0\" \"a7d2d5f0-5c1b-4d0b-9a86-3a1b3a4a7f4e\" \
         \"evil.example\" \"-\"\n"
    );
}

#[test]
fn istios_line() {
    assert_eq!(
        text(Some("istio"), &request()),
        "[2020-06-16T12:00:43.052Z] \"GET /politics HTTP/2\" 200 - via_upstream - \"-\" 0 150793 \
         48 47 \"10.244.0.7\" \"curl/7.64.0\" \"a7d2d5f0-5c1b-4d0b-9a86-3a1b3a4a7f4e\" \
         \"edition.cnn.com\" \"151.101.1.67:443\" outbound|443||edition.cnn.com 192.0.2.10:55394 \
         192.0.2.10:80 10.244.0.7:40404 - default\n"
    );
    assert_eq!(
        text(Some("istio"), &connection()),
        "[2020-06-16T12:00:43.052Z] \"- - -\" 0 - - - \"-\" 778 155228 48 - \"-\" \"-\" \"-\" \
         \"-\" \"151.101.1.67:443\" outbound|443||edition.cnn.com 192.0.2.10:55394 \
         192.0.2.10:443 10.244.0.7:40404 edition.cnn.com -\n"
    );
    let mut failed = request();
    failed.response_code = 503;
    failed.response_flags = ResponseFlag::UpstreamConnectionFailure.into();
    failed.response_flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
    failed.upstream_failure = Some("certificate expired on 2020-01-01".into());
    assert!(
        text(Some("istio"), &failed)
            .contains("503 UF,URX via_upstream - \"certificate expired on 2020-01-01\" 0")
    );
}

/// What nobody configured says of TLS who went where, also where it was refused.
#[test]
fn the_default_says_who_went_where_for_tls() {
    let refused = AccessLogEntry {
        response_flags: ResponseFlag::NoRouteFound.into(),
        upstream_host: None,
        upstream_cluster: Some(ClusterName::black_hole()),
        upstream_local: None,
        upstream_tls_group: None,
        reason: Some(Reason::HostNotInRegistry),
        ..connection()
    };
    for entry in [connection(), refused] {
        let cluster = entry.upstream_cluster.as_ref().unwrap().to_string();
        let line = text(None, &entry);
        for said in ["10.244.0.7:40404", "edition.cnn.com", &cluster] {
            assert!(line.contains(said), "{said}: {line}");
        }
        // Both forms of JSON say it, though Envoy's text does not.
        for format in [None, Some("istio"), Some("envoy")] {
            let object = json(format, &entry);
            assert_eq!(object["downstream_remote_address"], "10.244.0.7:40404", "{format:?}");
            assert_eq!(
                (&object["workload"], &object["workload_namespace"]),
                (&"sleep".into(), &"default".into())
            );
            assert_eq!(object["requested_server_name"], "edition.cnn.com", "{format:?}");
            assert_eq!(object["upstream_cluster"], cluster, "{format:?}");
            assert_eq!(object["reason"].as_str(), entry.reason.map(Reason::name));
        }
        // An object of the user's has its keys and those of every line, and nothing else.
        let own = json(Some(r#"{"upstream_cluster": "to %UPSTREAM_CLUSTER%"}"#), &entry);
        assert_eq!(own["upstream_cluster"], format!("to {cluster}"));
        assert_eq!(own.as_object().unwrap().len(), 1 + crate::config::JSON_OWN.len(), "{own}");
    }
}

#[test]
fn custom_lines() {
    let entry = request();
    for (format, expected) in [
        ("%START_TIME(%Y/%m/%d %H:%M:%S.%3f %s)%", "2020/06/16 12:00:43.052 1592308843\n"),
        ("100%% %REQ(USER-AGENT):4%|%REQ(x-request-id?host):3%", "100% curl|a7d\n"),
        ("%REQ(:PATH?:METHOD)% %RESP(:STATUS)%\n", "/politics 200\n"),
        ("%UPSTREAM_REMOTE_PORT% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "443 10.244.0.7\n"),
        ("%UPSTREAM_CLUSTER%\n%ROUTE_NAME%", "outbound|443||edition.cnn.com\ndefault\n"),
    ] {
        assert_eq!(text(Some(format), &entry), expected, "{format}");
    }
}

#[test]
fn an_encrypted_hello_and_a_normalised_path_are_marked() {
    let marked = json(None, &AccessLogEntry { encrypted_hello: true, ..request() });
    assert_eq!(marked["ech"], "present");
    let marked = json(None, &AccessLogEntry { audit: Some("a/b".into()), ..request() });
    assert_eq!(marked["audit_policy"], "a/b");
    let entry = AccessLogEntry { original_path: Some("/x/../politics".into()), ..request() };
    let format = "%REQ(:PATH)% %REQ(X-ENVOY-ORIGINAL-PATH)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%\n";
    let text = |entry| line(Some(format), AccessLogEncoding::Text, entry);
    assert_eq!(text(&entry), "/politics /x/../politics /x/../politics\n");
    assert_eq!(text(&request()), "/politics - /politics\n");
}

#[test]
fn json_has_envoys_names_and_ours() {
    let all = json(Some("istio"), &request());
    assert_eq!(
        all,
        serde_json::json!({
            "start_time": "2020-06-16T12:00:43.052Z",
            "method": "GET",
            "path": "/politics",
            "protocol": "HTTP/2",
            "response_code": 200,
            "response_flags": "-",
            "response_code_details": "via_upstream",
            "connection_termination_details": null,
            "upstream_transport_failure_reason": null,
            "bytes_received": 0,
            "bytes_sent": 150_793,
            "duration": 48,
            "upstream_service_time": "47",
            "x_forwarded_for": "10.244.0.7",
            "user_agent": "curl/7.64.0",
            "request_id": "a7d2d5f0-5c1b-4d0b-9a86-3a1b3a4a7f4e",
            "authority": "edition.cnn.com",
            "upstream_host": "151.101.1.67:443",
            "downstream_peer_uri_san": null,
            "upstream_cluster": "outbound|443||edition.cnn.com",
            "upstream_local_address": "192.0.2.10:55394",
            "downstream_local_address": "192.0.2.10:80",
            "downstream_remote_address": "10.244.0.7:40404",
            "requested_server_name": null,
            "upstream_tls_group": null,
            "downstream_tls_group": null,
            "route_name": "default",
            "reason": null,
            "workload": "sleep",
            "workload_namespace": "default",
            "source_principal": null,
            "tunnel_principal": null,
            "ech": null,
            "audit_policy": null,
            "trace_id": "6ae49de2b5297ca3",
        })
    );
    let refused = json(None, &refused());
    assert_eq!(refused["reason"], "host_not_in_registry");
    assert_eq!(refused["response_flags"], "NR");
    assert_eq!(refused["upstream_host"], serde_json::Value::Null);
    let custom = json(
        Some(r#"{"code": "%RESPONSE_CODE%", "who": "%REQ(HOST)% via %UPSTREAM_HOST%"}"#),
        &request(),
    );
    assert_eq!(custom["code"], 200);
    assert_eq!(custom["who"], "edition.cnn.com via 151.101.1.67:443");
    assert_eq!(custom["workload"], "sleep");
}

#[test]
fn a_clients_certificate_is_shown() {
    let id = "spiffe://cluster.local/ns/apps/sa/sleep";
    let peer = PeerCertificate {
        principal: Some(SpiffeId::parse(id).unwrap()),
        uri_sans: id.into(),
        dns_sans: "a.example,b.example".into(),
        subject: "CN=sleep, O=\"x\"".into(),
        issuer: "CN=root".into(),
        serial: "1f".into(),
        fingerprint: "ab".repeat(32),
        not_before: SystemTime::UNIX_EPOCH,
        not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(86_400),
    };
    let tls = DownstreamTls {
        version: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        group: Some("X25519MLKEM768"),
        peer: Some(peer),
        vouched: None,
    };
    let entry = AccessLogEntry { downstream_tls: Some(Arc::new(tls)), ..request() };
    for (format, expected) in [
        ("%DOWNSTREAM_PEER_URI_SAN%", id),
        ("%DOWNSTREAM_PEER_DNS_SAN%", "a.example,b.example"),
        ("%DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_PEER_ISSUER%", "CN=sleep, O=\\\"x\\\" CN=root"),
        ("%DOWNSTREAM_PEER_SERIAL% %DOWNSTREAM_PEER_FINGERPRINT_256:4%", "1f abab"),
        (
            "%DOWNSTREAM_PEER_CERT_V_START% %DOWNSTREAM_PEER_CERT_V_END%",
            "1970-01-01T00:00:00.000Z 1970-01-02T00:00:00.000Z",
        ),
        ("%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER%", "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        ("%DOWNSTREAM_TLS_GROUP%", "X25519MLKEM768"),
        ("%DOWNSTREAM_TRANSPORT_FAILURE_REASON%", "-"),
    ] {
        assert_eq!(text(Some(format), &entry), format!("{expected}\n"), "{format}");
        if !format.contains("FAILURE") {
            assert!(text(Some(format), &request()).starts_with('-'), "{format}");
        }
    }
    assert_eq!(json(None, &entry)["downstream_peer_uri_san"], id);
    assert_eq!(json(Some("istio"), &entry)["downstream_peer_uri_san"], id);
    let failure = "the client showed no certificate";
    let failed = AccessLogEntry { downstream_failure: Some(failure.into()), ..request() };
    assert_eq!(
        text(Some("%DOWNSTREAM_TRANSPORT_FAILURE_REASON%"), &failed),
        format!("{failure}\n")
    );
}

#[test]
fn clients_cannot_forge_lines() {
    let evil = "a\"b\\c\r\n[2020] \"GET\" \x1b[31m\u{7f}\u{85}\u{202e}ü\t\0";
    let entry = AccessLogEntry {
        path: Some(evil.into()),
        user_agent: Some(evil.into()),
        authority: Some(evil.into()),
        requested_server_name: Some(evil.into()),
        forwarded_for: Some(ForwardedFor::After(evil.into())),
        request_id: Some(evil.into()),
        ..request()
    };
    let line = text(Some("%REQ(USER-AGENT)%"), &entry);
    assert_eq!(
        line,
        "a\\\"b\\\\c\\r\\n[2020] \\\"GET\\\" \\x1b[31m\\x7f\\u{85}\\u{202e}ü\\t\\x00\n"
    );
    for format in [None, Some("istio")] {
        let line = text(format, &entry);
        assert_eq!(line.chars().filter(|c| c.is_control()).count(), 1, "{line}");
        // What the client sent is in the JSON form again, unharmed.
        assert_eq!(json(format, &entry)["user_agent"], evil);
        let raw = self::line(format, AccessLogEncoding::Json, &entry);
        assert_eq!(raw.chars().filter(|c| c.is_control()).count(), 1, "{raw}");
    }
}

#[test]
fn cut_values_end_at_a_character() {
    let entry = AccessLogEntry { user_agent: Some("aüß".into()), ..request() };
    for (max, expected) in [(1, "a\n"), (2, "a\n"), (3, "aü\n"), (5, "aüß\n"), (9, "aüß\n")] {
        assert_eq!(text(Some(&format!("%REQ(USER-AGENT):{max}%")), &entry), expected);
    }
}

#[test]
fn several_refusals_in_one_line() {
    let owner = ShareOwner::of(refused().workload.as_deref(), [10, 0, 0, 5].into());
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    let of = |owner| refusals::Aggregate {
        owner,
        reason: Reason::HostNotInRegistry,
        count: 12,
        first: SystemTime::UNIX_EPOCH,
        last,
        address: [10, 0, 0, 5].into(),
    };
    let line = |encoding, owner| {
        let mut line = Vec::new();
        render::aggregate(&LogFormat::compile(None, encoding).unwrap(), &of(owner), &mut line);
        String::from_utf8(line).unwrap()
    };
    assert_eq!(
        line(AccessLogEncoding::Text, Some(owner.clone())),
        "[1970-01-01T00:01:00.000Z] aggregated=12 reason=host_not_in_registry workload=sleep \
         workload_namespace=default downstream_remote_address=10.0.0.5 \
         first=1970-01-01T00:00:00.000Z last=1970-01-01T00:01:00.000Z\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&line(AccessLogEncoding::Json, Some(owner))).unwrap();
    assert_eq!(json["aggregated"], 12);
    assert_eq!(json["workload"], "sleep");
    assert_eq!(json["last"], "1970-01-01T00:01:00.000Z");
    let several: serde_json::Value =
        serde_json::from_str(&line(AccessLogEncoding::Json, None)).unwrap();
    assert_eq!(several["workload"], serde_json::Value::Null);
    assert_eq!(several["downstream_remote_address"], serde_json::Value::Null);
}

pub(super) fn mesh(file: Option<&Path>) -> MeshConfig {
    MeshConfig {
        access_log_file: file.map(|file| file.to_str().unwrap().into()),
        access_log_format: Some("%REQ(:PATH)%".into()),
        ..MeshConfig::default()
    }
}

fn log_path(log: &AccessLog, path: &str) {
    log.log(&AccessLogEntry { path: Some(path.into()), ..request() });
}

/// Waits for the writing thread, which has a deadline of its own of a twentieth of a second.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn lines_are_written_soon_and_at_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    fs::write(&file, "earlier\n").unwrap();
    let log = AccessLog::default();
    assert!(!log.is_on());
    log.configure(&mesh(Some(&file))).unwrap();
    assert!(log.is_on());
    log_path(&log, "/one");
    wait_for("the first line", || fs::read_to_string(&file).unwrap() == "earlier\n/one\n");
    log_path(&log, "/two");
    log.shutdown();
    assert_eq!(fs::read_to_string(&file).unwrap(), "earlier\n/one\n/two\n");
    log_path(&log, "/late");
    assert_eq!(
        log.counts(),
        AccessLogCounts { lines: 2, dropped: 1, write_failed: 0, reopened: 0 }
    );
}

#[test]
fn no_line_of_any_thread_is_lost_or_torn() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let log = Arc::new(AccessLog::default());
    log.configure(&mesh(Some(&file))).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for n in 0..1000 {
                    log_path(&log, &format!("/{thread}/{n}"));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    log.shutdown();
    let text = fs::read_to_string(&file).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 4000);
    assert!(lines.iter().all(|line| line.starts_with('/')));
}

#[test]
fn a_rotated_file_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (file, rotated) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let log = AccessLog::default();
    log.configure(&mesh(Some(&file))).unwrap();
    log_path(&log, "/before");
    wait_for("the line before", || log.counts().lines == 1);
    fs::rename(&file, &rotated).unwrap();
    log_path(&log, "/after");
    wait_for("the line after", || log.counts().lines == 2);
    assert_eq!(fs::read_to_string(&rotated).unwrap(), "/before\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "/after\n");
    assert_eq!(log.counts().reopened, 1);
}

#[test]
fn settings_change_while_running_and_bad_ones_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let log = AccessLog::default();
    log.configure(&mesh(Some(&one))).unwrap();
    let missing = dir.path().join("no/such/dir");
    let error = log.configure(&mesh(Some(&missing))).unwrap_err().to_string();
    assert!(error.contains("no/such/dir can't be opened for appending"), "{error}");
    let bad = MeshConfig { access_log_format: Some("%NOTHING%".into()), ..mesh(Some(&two)) };
    let error = log.configure(&bad).unwrap_err().to_string();
    assert!(error.contains("accessLogFormat: found the unknown operator %NOTHING%"), "{error}");
    log_path(&log, "/one");
    wait_for("a line in the first file", || log.counts().lines == 1);
    log.configure(&mesh(Some(&two))).unwrap();
    log_path(&log, "/two");
    wait_for("a line in the second file", || log.counts().lines == 2);
    log.configure(&mesh(None)).unwrap();
    assert!(!log.is_on());
    log_path(&log, "/off");
    log.shutdown();
    assert_eq!(fs::read_to_string(&one).unwrap(), "/one\n");
    assert_eq!(fs::read_to_string(&two).unwrap(), "/two\n");
}

#[test]
fn an_output_that_takes_nothing_blocks_nobody() {
    // Every write to it fails with "no space left on device".
    let log = AccessLog::default();
    log.configure(&mesh(Some(Path::new("/dev/full")))).unwrap();
    log_path(&log, "/lost");
    wait_for("the failed write", || log.counts().write_failed > 0);
    assert_eq!(log.counts().dropped, 1);

    // A pipe that nobody reads: the writer blocks, workers don't, and the loss is counted.
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    // Opened for both, so that opening it for writing finds a reader.
    let reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let log = AccessLog::default();
    log.configure(&mesh(Some(&pipe))).unwrap();
    let path = format!("/{}", "x".repeat(1000));
    let start = Instant::now();
    while log.counts().dropped == 0 {
        log_path(&log, &path);
        assert!(start.elapsed() < Duration::from_secs(10), "a full buffer drops lines");
    }
    let start = Instant::now();
    log.shutdown();
    let took = start.elapsed();
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(8), "{took:?}");
    drop(reader);

    // Nor does configuring it wait for a reader.
    let error = AccessLog::default().configure(&mesh(Some(&pipe))).unwrap_err().to_string();
    assert!(error.contains("pipe can't be opened for appending"), "{error}");
}
