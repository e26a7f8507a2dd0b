//! Which request gets which answer: pure, so that every shape is tested without a socket.

use http::{HeaderValue, Method, Response, StatusCode, header};
use regex::RegexBuilder;
use serde_json::json;

use super::{
    State, Status, clusters, dump, exposition, prometheus,
    query::parameter,
    stats::{self, Filter},
};
use crate::telemetry::Telemetry;

/// Which listener a request came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Endpoint {
    /// Loopback only: everything.
    Admin,
    /// Probes.
    Health,
    /// Prometheus.
    Metrics,
}

/// A page: its path and what it is.
type Page = (&'static str, &'static str);

const ADMIN: &[Page] = &[
    ("/", "this list"),
    ("/clusters", "every cluster and its endpoints, with counters"),
    ("/config_dump", "the configuration in force, as JSON"),
    ("/help", "this list"),
    ("/ready", "LIVE, or 503 and why not"),
    ("/server_info", "version, state and uptime, as JSON"),
    ("/stats", "counters and gauges: ?filter=<regex> ?usedonly ?format=text|json|prometheus"),
    ("/stats/prometheus", "the same for Prometheus"),
];
const HEALTH: &[Page] = &[("/healthz/ready", "200, or 503 and why not")];
const METRICS: &[Page] = &[("/stats/prometheus", "metrics for Prometheus")];

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl Endpoint {
    /// As metrics and messages name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Health => "health",
            Self::Metrics => "metrics",
        }
    }

    fn pages(self) -> &'static [Page] {
        match self {
            Self::Admin => ADMIN,
            Self::Health => HEALTH,
            Self::Metrics => METRICS,
        }
    }
}

/// Answers a request, of which only the head counts.
pub(super) fn respond(
    endpoint: Endpoint,
    request: &http::request::Parts,
    telemetry: &Telemetry,
    status: &Status,
) -> Response<String> {
    let path = request.uri.path();
    if endpoint == Endpoint::Admin && !is_own_host(request) {
        return plain(
            StatusCode::FORBIDDEN,
            "the admin endpoint answers to localhost and to IP addresses only\n".into(),
        );
    }
    if !endpoint.pages().iter().any(|(page, _)| *page == path) {
        let text = format!("no page {path:?} here\n\n{}", help(endpoint));
        return plain(StatusCode::NOT_FOUND, text);
    }
    if request.method != Method::GET && request.method != Method::HEAD {
        let text = format!("{path} only answers GET: nothing can be changed here\n");
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, text);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let query = request.uri.query().unwrap_or("");
    match path {
        "/ready" | "/healthz/ready" => ready(status),
        "/stats" => stats_page(query, telemetry, status),
        "/stats/prometheus" => {
            page(StatusCode::OK, exposition::CONTENT_TYPE, prometheus::text(telemetry, status))
        }
        "/clusters" => plain(StatusCode::OK, clusters::text(telemetry, &status.config())),
        "/config_dump" => page(StatusCode::OK, JSON, dump::json(&status.config())),
        "/server_info" => page(StatusCode::OK, JSON, server_info(telemetry, status)),
        _ => plain(StatusCode::OK, help(endpoint)),
    }
}

/// A page in a browser may make a name of its own resolve to this machine (DNS rebinding) and so
/// read what is here. Only a name that can't be another's is answered to.
fn is_own_host(request: &http::request::Parts) -> bool {
    let host = request.headers.get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    let Some(host) = request.uri.authority().map(http::uri::Authority::as_str).or(host) else {
        return true;
    };
    let Ok(host) = host.parse::<http::uri::Authority>() else { return false };
    let name = host.host();
    let ip = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || ip.parse::<std::net::IpAddr>().is_ok()
}

fn ready(status: &Status) -> Response<String> {
    let state = status.state();
    let mut text = format!("{}\n", state.name());
    for fault in status.faults() {
        text.push_str(&fault);
        text.push('\n');
    }
    let code = match state {
        State::Live => StatusCode::OK,
        State::Draining | State::Initializing | State::Faulty => StatusCode::SERVICE_UNAVAILABLE,
    };
    plain(code, text)
}

fn stats_page(query: &str, telemetry: &Telemetry, status: &Status) -> Response<String> {
    let mut filter = Filter { name: None, used_only: parameter(query, "usedonly").is_some() };
    if let Some(pattern) = parameter(query, "filter").filter(|pattern| !pattern.is_empty()) {
        match RegexBuilder::new(&pattern).size_limit(1 << 20).build() {
            Ok(regex) => filter.name = Some(regex),
            Err(error) => {
                let text = format!("filter={pattern} isn't a regular expression:\n{error}\n");
                return plain(StatusCode::BAD_REQUEST, text);
            }
        }
    }
    match parameter(query, "format").as_deref() {
        None | Some("" | "text") => plain(StatusCode::OK, stats::text(telemetry, status, &filter)),
        Some("json") => page(StatusCode::OK, JSON, stats::json(telemetry, status, &filter)),
        Some("prometheus") => {
            page(StatusCode::OK, exposition::CONTENT_TYPE, prometheus::text(telemetry, status))
        }
        Some(other) => plain(
            StatusCode::BAD_REQUEST,
            format!("found format={other}, expected text, json or prometheus\n"),
        ),
    }
}

fn server_info(telemetry: &Telemetry, status: &Status) -> String {
    let config = status.config();
    let info = json!({
        "version": concat!("egress-agent/", env!("CARGO_PKG_VERSION")),
        "state": status.state().name(),
        "faults": status.faults(),
        "uptime_current_epoch": format!("{}s", telemetry.stats.uptime()),
        "configuration": {
            "current": config.current,
            "accepted": config.accepted,
            "rejected": config.rejected,
        },
    });
    format!("{info:#}\n")
}

fn help(endpoint: Endpoint) -> String {
    let mut text = String::from("pages:\n");
    for (path, what) in endpoint.pages() {
        text.push_str(&format!("  {path}: {what}\n"));
    }
    text
}

fn plain(code: StatusCode, text: String) -> Response<String> {
    page(code, TEXT, text)
}

fn page(code: StatusCode, content_type: &'static str, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    // Names from the configuration must never be taken for a page's markup.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
