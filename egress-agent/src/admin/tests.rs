//! Every page as a user or a scraper sees it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use egress_ebpf::reason::Reason;
use http::{Method, Request, Response, StatusCode, header};

use super::{
    Admin, AdminListeners, AdminPorts, AdminSources, ConfigState, DrainManner, Listener, State,
    Status,
    routes::{self, Answer, Endpoint},
    ui::Ui,
};
use crate::{
    policy::{
        ClientTls, ClientTlsMode, Cluster, ClusterName, Discovery, GatewayGroup, Hop, LoadBalancer,
        MeshConfig, NodeAction, NodePolicy, NodeRoute, Snapshot,
    },
    policy::{DirectTarget, OutlierDetection},
    sys::listening::Sockets,
    telemetry::{AccessLogEntry, AdminRefusal, ResponseFlag, Telemetry},
    types::{ClientAddr, Host, LocalAddr, Namespace, OriginalPort, Port, UpstreamAddr, Workload},
};

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn cnn() -> ClusterName {
    ClusterName::outbound(port(443), "", "edition.cnn.com")
}

fn workload() -> Arc<Workload> {
    Arc::new(Workload {
        name: "sleep".into(),
        namespace: Namespace("default".into()),
        labels: [("app".to_owned(), "sleep".to_owned())].into(),
        addresses: vec!["10.0.0.5".parse().unwrap()],
        cgroups: Vec::new(),
        interface: None,
        node: None,
        service_account: "default".into(),
    })
}

fn entry() -> AccessLogEntry {
    AccessLogEntry {
        duration: Duration::from_millis(20),
        response_code: 200,
        bytes_received: 700,
        bytes_sent: 90_000,
        upstream_cluster: Some(cnn()),
        workload: Some(workload()),
        ..AccessLogEntry::new(
            SystemTime::UNIX_EPOCH,
            LocalAddr("192.0.2.10:443".parse().unwrap()),
            ClientAddr("10.0.0.5:40000".parse().unwrap()),
        )
    }
}

/// A gateway that has served a passthrough connection, a request and a refusal.
pub(super) fn telemetry() -> Telemetry {
    let telemetry = Telemetry::default();
    let stats = &telemetry.stats;
    stats.configure([&cnn()]);
    let cluster = stats.cluster(&cnn());
    drop(cluster.connection());
    cluster.add_rx(90_000);
    cluster.add_tx(700);
    let addr = UpstreamAddr("151.101.1.67:443".parse().unwrap());
    drop(stats.endpoint(&cnn(), addr).connection());
    cluster.set_membership(1, 1);
    stats.connection_opened(Some(&workload()), None, &cnn());
    telemetry.connection_finished(&entry());
    telemetry.request_finished(&entry());
    for grpc_status in [0, 0, 14, 77] {
        let grpc_status = Some(grpc_status);
        telemetry.request_finished(&AccessLogEntry { is_grpc: true, grpc_status, ..entry() });
    }
    // What happens to be in an answer of another kind.
    telemetry.request_finished(&AccessLogEntry { grpc_status: Some(5), ..entry() });
    stats.denied(Reason::HostNotInRegistry);
    drop(stats.black_hole().request());
    stats.black_hole().response(StatusCode::FORBIDDEN);
    telemetry.request_finished(&AccessLogEntry {
        response_code: 403,
        response_flags: ResponseFlag::NoRouteFound.into(),
        upstream_cluster: Some(ClusterName::black_hole()),
        workload: None,
        ..entry()
    });
    telemetry
}

pub(super) fn status() -> Status {
    let status = Status::default();
    let mesh = MeshConfig {
        cluster_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        gateways: vec![GatewayGroup {
            service: Host::parse("gw.example").unwrap(),
            labels: [("istio".to_owned(), "egressgateway".to_owned())].into(),
            endpoints: vec!["192.0.2.10".parse().unwrap()],
            other_addresses: Vec::new(),
            principal: None,
            tunnel: None,
            hop: Hop::Plain,
        }],
        workloads: vec![workload()],
        ..MeshConfig::default()
    };
    let node = NodePolicy {
        routes: vec![NodeRoute {
            port: Some(OriginalPort(port(443))),
            target: DirectTarget::Any,
            action: NodeAction::Redirect { group: 0, port: None, hop: Hop::Plain },
        }],
        ..NodePolicy::default()
    };
    let discovery = Discovery::Dns(vec![(Host::parse("edition.cnn.com").unwrap(), port(443))]);
    let cluster = Cluster {
        tls: Some(ClientTls {
            mode: ClientTlsMode::Mutual {
                client_certificate: "/etc/certs/cert.pem".into(),
                private_key: "/etc/certs/key.pem".into(),
            },
            sni: None,
            subject_alt_names: vec![],
            ca_certificates: None,
            ca_crl: None,
            key_groups: crate::policy::KeyGroups::default(),
            insecure_skip_verify: false,
        }),
        load_balancer: LoadBalancer::RoundRobin,
        outlier: Some(OutlierDetection {
            consecutive_errors: 5,
            gateway_errors: 2,
            local_origin_failures: None,
            base_ejection_time: Duration::from_millis(30_500),
            max_ejection_percent: 10,
        }),
        ..Cluster::new(cnn(), discovery)
    };
    status.set_config(ConfigState {
        snapshot: Some(Arc::new(Snapshot { mesh, node, ..Snapshot::default() })),
        clusters: vec![Arc::new(cluster)],
        current: true,
        accepted: 2,
        rejected: 1,
    });
    status
}

fn request(method: Method, target: &str, host: &str) -> http::request::Parts {
    let builder = Request::builder().method(method).uri(target).header(header::HOST, host);
    builder.body(()).unwrap().into_parts().0
}

/// With the page for browsers off.
fn respond(
    endpoint: Endpoint,
    request: &http::request::Parts,
    telemetry: &Telemetry,
    status: &Status,
) -> Response<String> {
    match routes::respond(endpoint, request, telemetry, status, &Ui::new(false)) {
        Answer::Whole(response) => response,
        Answer::Events(..) => panic!("{} streams", request.uri),
    }
}

fn get_from(endpoint: Endpoint, target: &str) -> Response<String> {
    let request = request(Method::GET, target, "localhost:15000");
    respond(endpoint, &request, &telemetry(), &status())
}

fn get(target: &str) -> String {
    let response = get_from(Endpoint::Admin, target);
    assert_eq!(response.status(), StatusCode::OK, "{target}: {}", response.body());
    response.into_body()
}

#[test]
fn stats_are_sorted_lines() {
    let text = get("/stats");
    let lines: Vec<_> = text.lines().collect();
    let mut sorted: Vec<_> = lines.iter().map(|line| line.rsplit_once(": ").unwrap()).collect();
    let unsorted = sorted.clone();
    sorted.sort_unstable();
    assert_eq!(unsorted, sorted);
    for line in [
        "cluster.outbound|443||edition.cnn.com.upstream_cx_total: 1",
        "cluster.outbound|443||edition.cnn.com.upstream_cx_active: 0",
        "cluster.outbound|443||edition.cnn.com.upstream_cx_rx_bytes_total: 90000",
        "cluster.outbound|443||edition.cnn.com.membership_healthy: 1",
        "cluster.BlackHoleCluster.upstream_rq_total: 1",
        "cluster.BlackHoleCluster.upstream_rq_4xx: 1",
        "cluster.PassthroughCluster.upstream_cx_total: 0",
        "egress.config.accepted: 2",
        "egress.config.current: 1",
        "egress.denied.host_not_in_registry: 1",
        "egress.denied.no_gateway_route: 0",
        "server.live: 1",
    ] {
        assert!(lines.contains(&line), "{line} in\n{text}");
    }
    // Every name of the reference is there.
    for name in [
        "upstream_cx_total",
        "upstream_cx_active",
        "upstream_cx_connect_fail",
        "upstream_cx_connect_timeout",
        "upstream_cx_rx_bytes_total",
        "upstream_cx_tx_bytes_total",
        "upstream_rq_total",
        "upstream_rq_active",
        "upstream_rq_2xx",
        "upstream_rq_4xx",
        "upstream_rq_5xx",
        "upstream_rq_timeout",
        "upstream_rq_retry",
        "upstream_rq_pending_overflow",
        "membership_healthy",
        "membership_total",
        "ssl.handshake",
        "ssl.connection_error",
        "outlier_detection.ejections_active",
    ] {
        let name = format!("cluster.outbound|443||edition.cnn.com.{name}: ");
        assert!(text.contains(&name), "{name}");
    }
}

#[test]
fn stats_can_be_filtered_and_come_as_json() {
    let target = "/stats?filter=edition%5C.cnn%5C.com.upstream_cx_t&usedonly";
    assert_eq!(
        get(target),
        "cluster.outbound|443||edition.cnn.com.upstream_cx_total: 1\n\
         cluster.outbound|443||edition.cnn.com.upstream_cx_tx_bytes_total: 700\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&get("/stats?format=json&filter=BlackHole.*rq_4xx")).unwrap();
    assert_eq!(
        json,
        serde_json::json!({ "stats": [
            { "name": "cluster.BlackHoleCluster.upstream_rq_4xx", "value": 1 },
        ]})
    );
    // The process goes on meanwhile, so the values are not compared.
    let names = |target: &str| -> Vec<String> {
        let text = get(target);
        text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    };
    assert_eq!(names("/stats?format=prometheus"), names("/stats/prometheus"));
    for (target, expected) in [
        ("/stats?filter=(", "filter=( isn't a regular expression"),
        ("/stats?filter=a%7B9999999%7D", "isn't a regular expression"),
        ("/stats?format=xml", "found format=xml, expected text, json or prometheus"),
    ] {
        let response = get_from(Endpoint::Admin, target);
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{target}");
        assert!(response.body().contains(expected), "{}", response.body());
    }
}

#[test]
fn clusters_name_their_endpoints() {
    let text = get("/clusters");
    for line in [
        "outbound|443||edition.cnn.com::observability_name::outbound|443||edition.cnn.com",
        "outbound|443||edition.cnn.com::default_priority::max_connections::4294967295",
        "outbound|443||edition.cnn.com::151.101.1.67:443::cx_active::0",
        "outbound|443||edition.cnn.com::151.101.1.67:443::cx_total::1",
        "outbound|443||edition.cnn.com::151.101.1.67:443::rq_total::0",
        "outbound|443||edition.cnn.com::151.101.1.67:443::hostname::edition.cnn.com",
        "BlackHoleCluster::observability_name::BlackHoleCluster",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

#[test]
fn prometheus_has_envoys_and_istios_names() {
    let response = get_from(Endpoint::Metrics, "/stats/prometheus");
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = response.into_body();
    let labels = "reporter=\"source\",source_workload=\"sleep\",\
        source_workload_namespace=\"default\",source_principal=\"unknown\",\
        destination_workload=\"unknown\",destination_workload_namespace=\"unknown\",\
        destination_principal=\"unknown\",destination_service=\"edition.cnn.com\",\
        destination_service_name=\"edition.cnn.com\",destination_service_namespace=\"unknown\",";
    let http = format!(
        "{labels}request_protocol=\"http\",response_code=\"200\",response_flags=\"-\",\
         connection_security_policy=\"unknown\""
    );
    let grpc = |status: &str| {
        format!(
            "istio_requests_total{{{labels}request_protocol=\"grpc\",response_code=\"200\",{status}\
             response_flags=\"-\",connection_security_policy=\"unknown\"}}"
        )
    };
    let tcp = format!(
        "{labels}request_protocol=\"tcp\",response_flags=\"-\",\
         connection_security_policy=\"unknown\""
    );
    for line in [
        "# TYPE envoy_cluster_upstream_cx_total counter",
        "envoy_cluster_upstream_cx_total{cluster_name=\"outbound|443||edition.cnn.com\"} 1",
        "# TYPE envoy_cluster_upstream_cx_active gauge",
        "envoy_cluster_upstream_rq{response_code_class=\"4xx\",cluster_name=\"BlackHoleCluster\"} 1",
        "envoy_cluster_ssl_handshake{cluster_name=\"outbound|443||edition.cnn.com\"} 0",
        "envoy_cluster_membership_healthy{cluster_name=\"outbound|443||edition.cnn.com\"} 1",
        "# TYPE istio_requests_total counter",
        &format!("istio_requests_total{{{http}}} 2"),
        &format!("{} 2", grpc("grpc_response_status=\"0\",")),
        &format!("{} 1", grpc("grpc_response_status=\"14\",")),
        // No status of gRPC's.
        &format!("{} 1", grpc("")),
        &format!("istio_tcp_connections_opened_total{{{tcp}}} 1"),
        &format!("istio_tcp_connections_closed_total{{{tcp}}} 1"),
        &format!("istio_tcp_received_bytes_total{{{tcp}}} 700"),
        &format!("istio_tcp_sent_bytes_total{{{tcp}}} 90000"),
        &format!("istio_request_duration_milliseconds_bucket{{{http},le=\"10\"}} 0"),
        &format!("istio_request_duration_milliseconds_bucket{{{http},le=\"25\"}} 2"),
        &format!("istio_request_duration_milliseconds_bucket{{{http},le=\"+Inf\"}} 2"),
        &format!("istio_request_duration_milliseconds_sum{{{http}}} 40.000"),
        &format!("istio_request_duration_milliseconds_count{{{http}}} 2"),
        "egress_denied_total{reason=\"host_not_in_registry\"} 1",
        "egress_denied_total{reason=\"no_healthy_upstream\"} 0",
        "egress_ready 1",
        "egress_config_reloads_total{result=\"rejected\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(
        text.contains(
            "destination_service=\"unknown\",destination_service_name=\"BlackHoleCluster\""
        )
    );
    assert_exposition(&text);
}

/// The format's own rules: one `# TYPE` a family, before its samples, which are not interleaved,
/// and no sample twice.
fn assert_exposition(text: &str) {
    let mut families = std::collections::HashSet::new();
    let mut samples = std::collections::HashSet::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            family = kind.split(' ').next().unwrap();
            assert!(families.insert(family), "{family} twice");
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(sample.starts_with(family), "{line} in the family {family}");
            assert!(samples.insert(sample), "{line} twice");
        }
    }
}

#[test]
fn the_configuration_is_shown_without_secrets() {
    let text = get("/config_dump");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["configuration"]["accepted"], 2);
    assert_eq!(json["mesh"]["outboundTrafficPolicy"]["mode"], "REGISTRY_ONLY");
    assert_eq!(json["mesh"]["clusterCidrs"][0], "10.0.0.0/8");
    assert_eq!(json["mesh"]["gateways"][0]["endpoints"][0], "192.0.2.10");
    assert_eq!(json["mesh"]["workloads"][0]["labels"]["app"], "sleep");
    assert_eq!(
        json["node"]["routes"][0],
        serde_json::json!({
            "port": 443, "target": "any",
            "action": { "redirect": { "gateway": "gw.example", "hop": "plain", "port": null } },
        })
    );
    let cluster = &json["clusters"][0];
    assert_eq!(cluster["name"], "outbound|443||edition.cnn.com");
    assert_eq!(cluster["discovery"]["dns"][0], "edition.cnn.com:443");
    assert_eq!(cluster["tls"]["mode"], "MUTUAL");
    assert_eq!(cluster["tls"]["privateKey"], "/etc/certs/key.pem");
    assert_eq!(cluster["connectionPool"]["connectTimeout"], "10s");
    assert_eq!(cluster["connectionPool"]["maxConnections"], serde_json::Value::Null);
    assert_eq!(cluster["outlierDetection"]["consecutive5xxErrors"], 5);
    assert_eq!(cluster["outlierDetection"]["consecutiveGatewayErrors"], 2);
    assert_eq!(cluster["outlierDetection"]["baseEjectionTime"], "30.5s");
    // Before the first configuration there is nothing to show, which is no error.
    let request = request(Method::GET, "/config_dump", "localhost");
    let empty = respond(Endpoint::Admin, &request, &Telemetry::default(), &Status::default());
    let json: serde_json::Value = serde_json::from_str(empty.body()).unwrap();
    assert_eq!(json["mesh"], serde_json::Value::Null);
}

#[test]
fn readiness() {
    let telemetry = Telemetry::default();
    let pages = [(Endpoint::Admin, "/ready"), (Endpoint::Health, "/healthz/ready")];
    let check = |status: &Status, code: u16, body: &str| {
        for (endpoint, page) in pages {
            let request = request(Method::GET, page, "localhost");
            let response = respond(endpoint, &request, &telemetry, status);
            assert_eq!((response.status().as_u16(), &**response.body()), (code, body), "{page}");
        }
    };
    check(&Status::default(), 503, "INITIALIZING\n");
    let status = status();
    check(&status, 200, "LIVE\n");
    status.set_fault("maps", Some("ROUTES is full".into()));
    check(&status, 503, "FAULTY\nmaps: ROUTES is full\n");
    status.set_fault("maps", None);
    status.set_draining();
    check(&status, 503, "DRAINING\n");
}

#[test]
fn server_info_and_help() {
    let json: serde_json::Value = serde_json::from_str(&get("/server_info")).unwrap();
    assert_eq!(json["state"], "LIVE");
    assert_eq!(json["configuration"]["rejected"], 1);
    assert!(json["version"].as_str().unwrap().starts_with("egress-agent/"));
    assert_eq!(get("/"), get("/help"));
    for page in ["/clusters", "/config_dump", "/ready", "/server_info", "/stats"] {
        assert!(get("/help").contains(&format!("  {page}: ")), "{page}");
    }
}

#[test]
fn what_is_not_there_or_not_allowed() {
    for (endpoint, target) in [
        (Endpoint::Admin, "/nothing"),
        (Endpoint::Admin, "/stats/"),
        (Endpoint::Admin, "/healthz/ready"),
        // What tells about the configuration is only on loopback.
        (Endpoint::Health, "/config_dump"),
        (Endpoint::Health, "/stats/prometheus"),
        (Endpoint::Metrics, "/config_dump"),
        (Endpoint::Metrics, "/stats"),
    ] {
        let response = get_from(endpoint, target);
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{target}");
        assert!(response.body().contains("pages:\n"), "{}", response.body());
    }
    let ask = |method: Method, host: &str| {
        respond(
            Endpoint::Admin,
            &request(method, "/stats", host),
            &Telemetry::default(),
            &Status::default(),
        )
    };
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let response = ask(method, "localhost");
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
    }
    assert_eq!(ask(Method::HEAD, "localhost").status(), StatusCode::OK);
    for host in ["localhost:15000", "LOCALHOST", "127.0.0.1:15000", "[::1]:15000", "10.0.0.1"] {
        assert_eq!(ask(Method::GET, host).status(), StatusCode::OK, "{host}");
    }
    for host in ["evil.example", "evil.example:15000", "localhost.evil.example", "a b", ""] {
        assert_eq!(ask(Method::GET, host).status(), StatusCode::FORBIDDEN, "{host}");
    }
}

fn sent(method: Method, target: &str, status: &Status) -> (u16, String) {
    let request = request(method, target, "localhost");
    let response = respond(Endpoint::Admin, &request, &telemetry(), status);
    (response.status().as_u16(), response.into_body())
}

#[test]
fn an_unknown_parameter_is_an_error() {
    let status = status();
    for (target, said) in [
        ("/stats?usedonyl", "did you mean usedonly?"),
        ("/clusters?fromat=json", "did you mean format?"),
        ("/config_dump?include_eds", "this page has resource"),
        ("/memory?x=1", "this page has none"),
        ("/clusters?format=xml", "expected text or json"),
        ("/config_dump?resource=clutsers", "expected one of configuration, mesh"),
    ] {
        let (code, text) = sent(Method::GET, target, &status);
        assert_eq!(code, 400, "{target}");
        assert!(text.contains(said), "{target}: {text}");
    }
    let (code, text) = sent(Method::GET, "/cluster", &status);
    assert_eq!(code, 404);
    assert!(text.contains("did you mean /clusters?"), "{text}");
}

/// Whatever page is added: it is in the documentation, and what it does not know it refuses.
#[test]
fn every_page_is_documented_and_refuses_what_it_lacks() {
    let documentation = include_str!("../../../docs/telemetry.md");
    let status = status();
    let help = get("/help");
    let lines = help.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(": "));
    let mut pages = 0;
    for (page, _) in lines {
        let (path, method) = match page.strip_suffix(" (POST)") {
            Some(path) => (path, Method::POST),
            None => (page, Method::GET),
        };
        let (code, text) = sent(method, &format!("{path}?nonsense=1"), &status);
        assert_eq!(code, 400, "{path}: {text}");
        assert!(text.contains("unknown parameter \"nonsense\""), "{path}: {text}");
        // The parts of the page for browsers are its own matter.
        let documented = documentation.contains(&format!("`{path}`"));
        assert!(documented || path.starts_with("/ui/"), "{path}");
        pages += 1;
    }
    assert!(pages > 15, "{help}");
    assert_eq!((status.state(), sent(Method::GET, "/ready", &status).0), (State::Live, 200));
}

#[test]
fn envoys_pages_have_envoys_forms() {
    let status = status();
    status.set_listeners(vec![Listener { name: "admin", address: "127.0.0.1:15000".into() }]);
    let json = |target: &str| -> serde_json::Value {
        let (code, text) = sent(Method::GET, target, &status);
        assert_eq!(code, 200, "{target}: {text}");
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(sent(Method::GET, "/listeners", &status).1, "admin::127.0.0.1:15000\n");
    let listener = &json("/listeners?format=json")["listener_statuses"][0];
    assert_eq!(listener["local_address"]["socket_address"]["port_value"], 15000);
    let clusters = json("/clusters?format=json");
    let of = clusters["cluster_statuses"].as_array().unwrap();
    let cnn = of.iter().find(|c| c["name"] == "outbound|443||edition.cnn.com").unwrap();
    let host = &cnn["host_statuses"][0];
    assert_eq!(host["hostname"], "edition.cnn.com", "{clusters:#}");
    let text = sent(Method::GET, "/clusters", &status).1;
    for stat in host["stats"].as_array().unwrap() {
        let address = &host["address"]["socket_address"];
        let line = format!(
            "outbound|443||edition.cnn.com::{}:{}::{}::{}\n",
            address["address"].as_str().unwrap(),
            address["port_value"],
            stat["name"].as_str().unwrap(),
            stat["value"].as_str().unwrap(),
        );
        assert!(text.contains(&line), "{line} in {text}");
    }
    assert!(json("/certs")["certificates"].as_array().unwrap().is_empty());
    assert!(json("/memory")["allocated"].is_string());
    assert_eq!(
        json("/server_info")["uptime_all_epochs"],
        json("/server_info")["uptime_current_epoch"]
    );
    let part = json("/config_dump?resource=clusters");
    assert_eq!(part.as_object().unwrap().len(), 1);
    assert_eq!(part["clusters"], json("/config_dump")["clusters"]);
}

#[test]
fn what_changes_something_wants_post_and_no_browser() {
    let status = status();
    for page in ["/healthcheck/fail", "/drain_listeners?graceful", "/logging?level=debug"] {
        let (code, text) = sent(Method::GET, page, &status);
        assert_eq!(code, 405, "{page}");
        assert!(text.contains("use POST"), "{text}");
        let mut from_page = request(Method::POST, page, "localhost");
        let origin = http::HeaderValue::from_static("http://localhost:15000");
        from_page.headers.insert(header::ORIGIN, origin);
        let response = respond(Endpoint::Admin, &from_page, &telemetry(), &status);
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{page}");
    }
    assert_eq!(status.state(), State::Live);
    assert_eq!(sent(Method::POST, "/healthcheck/fail", &status), (200, "OK\n".into()));
    assert_eq!(sent(Method::GET, "/ready", &status).0, 503);
    assert_eq!(sent(Method::POST, "/healthcheck/ok", &status), (200, "OK\n".into()));
    assert_eq!(sent(Method::GET, "/ready", &status).0, 200);
    // On the ports that others reach there is nothing of it.
    for endpoint in [Endpoint::Health, Endpoint::Metrics] {
        let request = request(Method::POST, "/healthcheck/fail", "localhost");
        let response = respond(endpoint, &request, &telemetry(), &status);
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_drain_is_asked_for_once_for_all() {
    let status = status();
    assert_eq!(sent(Method::POST, "/drain_listeners?graceful", &status).0, 200);
    assert_eq!(status.drain_asked().await, DrainManner::Graceful);
    assert_eq!(sent(Method::POST, "/drain_listeners", &status).0, 200);
    assert_eq!(status.drain_asked().await, DrainManner::AtOnce);
}

const ANY: AdminPorts = AdminPorts { admin: 0, health: 0, metrics: 0 };

fn start() -> Admin {
    let sources = AdminSources::default();
    Admin::start(ANY, sources, Arc::new(telemetry()), Arc::new(status())).unwrap()
}

fn exchange(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_serves_over_sockets() {
    let admin = start();
    let AdminPorts { admin: port, health, metrics } = admin.ports();
    let ask = |port: u16, path: &str| {
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        exchange(
            addr,
            &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        )
    };
    let answer = ask(port, "/stats?filter=edition.cnn.com.upstream_cx_total");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\ncluster.outbound|443||edition.cnn.com.upstream_cx_total: 1\n"),
        "{answer}"
    );
    assert!(ask(health, "/healthz/ready").ends_with("\r\n\r\nLIVE\n"));
    assert!(ask(metrics, "/stats/prometheus").contains("\nistio_requests_total{"));
    let head = exchange(
        SocketAddr::from(([127, 0, 0, 1], port)),
        "HEAD /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    // IPv6 too, where the machine has it.
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        let request = "GET /ready HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n";
        let answer = exchange(SocketAddr::from((Ipv6Addr::LOCALHOST, port)), request);
        assert!(answer.ends_with("LIVE\n"), "{answer}");
    }
    drop(admin);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it ends with its handle");
}

/// Of two processes with the same listeners, the one that leaves ends its connections with their next answer.
#[test]
fn whoever_leaves_answers_what_is_open_and_nothing_new() {
    let mut sockets = Sockets::default();
    let serve = |sockets: &mut Sockets, status: Status| {
        let listeners = AdminListeners::open(ANY, sockets).unwrap();
        let (sources, telemetry) = (AdminSources::default(), Arc::new(telemetry()));
        listeners.serve(sources, telemetry, Arc::new(status)).unwrap()
    };
    let first = serve(&mut sockets, status());
    let addr = SocketAddr::from(([127, 0, 0, 1], first.ports().health));
    let mut open = TcpStream::connect(addr).unwrap();
    open.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let ask = b"GET /healthz/ready HTTP/1.1\r\nHost: localhost\r\n\r\n";
    open.write_all(ask).unwrap();
    let mut answer = [0; 12];
    open.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");

    first.leave();
    let mut rest = String::new();
    open.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("LIVE\n"), "{rest}");
    // What is new waits for the other one, whose state it shows.
    let mut waiting = TcpStream::connect(addr).unwrap();
    waiting.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    waiting.write_all(ask).unwrap();
    let mut inherited = Sockets::inheriting(sockets.into_open());
    let second = serve(&mut inherited, Status::default());
    assert_eq!(second.ports(), first.ports());
    waiting.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
}

#[test]
fn the_admin_port_is_open_on_loopback_only() {
    // An address of this machine that isn't 127.0.0.1: the rest of 127.0.0.0/8 is enough to tell.
    let admin = start();
    let other: IpAddr = "127.0.0.2".parse().unwrap();
    assert!(TcpStream::connect((other, admin.ports().admin)).is_err());
    assert!(TcpStream::connect((other, admin.ports().health)).is_ok());
    assert!(TcpStream::connect((other, admin.ports().metrics)).is_ok());
}

#[test]
fn a_taken_port_is_a_clear_error() {
    let first = start();
    let ports = first.ports();
    for (taken, what) in [
        (AdminPorts { admin: ports.admin, ..ANY }, "admin"),
        (AdminPorts { health: ports.health, ..ANY }, "health"),
        (AdminPorts { metrics: ports.metrics, ..ANY }, "metrics"),
    ] {
        let error = Admin::start(taken, AdminSources::default(), Arc::default(), Arc::default());
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("the {what} endpoint can't listen on "))
                && error.ends_with("another process has the port"),
            "{error}"
        );
    }
}

#[test]
fn garbage_and_too_much_are_refused() {
    let admin = start();
    let addr = SocketAddr::from(([127, 0, 0, 1], admin.ports().admin));
    let garbage = exchange(addr, "\x16\x03\x01 garbage\r\n\r\n");
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    // The rest may not be taken any more: the refusal can come before it is sent.
    let written = stream.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(written.is_err() || read.is_err() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(!answer.contains("200 OK"));
}

#[test]
fn a_slow_client_is_cut_off_and_keeps_nobody_waiting() {
    let admin = start();
    let addr = SocketAddr::from(([127, 0, 0, 1], admin.ports().admin));
    let mut slow = TcpStream::connect(addr).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    slow.write_all(b"GET /ready HT").unwrap();
    let start = Instant::now();
    let answer =
        exchange(addr, "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.ends_with("LIVE\n"));
    assert!(start.elapsed() < Duration::from_secs(5));
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
}

#[test]
fn idle_connections_of_one_source_keep_no_other_waiting() {
    let telemetry = Arc::new(telemetry());
    let sources = AdminSources::default();
    let admin = Admin::start(ANY, sources, Arc::clone(&telemetry), Arc::new(status())).unwrap();
    let AdminPorts { admin: _, health, metrics } = admin.ports();
    for (endpoint, port) in [(1, health), (2, metrics)] {
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        // More than all places, and none of them says a word.
        let idle: Vec<_> = (0..300).map(|_| connect_from([127, 0, 0, 2], addr)).collect();
        let mut stream = connect_from([127, 0, 0, 3], addr);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let path = if port == health { "/healthz/ready" } else { "/stats/prometheus" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        // The oldest gave way to the later ones of their own source, long before their time was up.
        let closed = telemetry.stats.admin_refusals().get(endpoint, AdminRefusal::Overflow);
        assert!(closed >= 300 - 16, "{closed}");
        drop(idle);
    }
}

fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn every_value_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/telemetry.md");
    let document = std::fs::read_to_string(path).unwrap();
    let documented = |name: &str| document.contains(&format!("`{name}"));
    let key = format!("cluster.{}.", cnn());
    for line in get("/stats").lines() {
        let name = line.rsplit_once(": ").unwrap().0;
        // Reasons and other clusters' names are not listed one by one.
        if name.starts_with("egress.denied") || name.starts_with("egress.limit.") {
            continue;
        }
        let name = match name.strip_prefix("cluster.") {
            Some(_) => match name.strip_prefix(&key) {
                Some(name) => name,
                None => continue,
            },
            None => name,
        };
        assert!(documented(name), "{path} doesn't explain {name}");
    }
    for line in get("/stats/prometheus").lines() {
        let Some(family) = line.strip_prefix("# TYPE ") else { continue };
        let family = family.split(' ').next().unwrap();
        let cluster = family.starts_with("envoy_cluster_");
        assert!(cluster || documented(family), "{path} doesn't explain {family}");
    }
    for page in get("/help").lines().filter_map(|line| line.trim().split_once(": ")) {
        let page = page.0.trim_end_matches(" (POST)");
        assert!(documented(page), "{path} doesn't explain {page}");
    }
}
