//! Which request gets which answer: pure, so that every shape is tested without a socket.

use std::time::SystemTime;

use http::{HeaderValue, Method, Response, StatusCode, header};
use regex::RegexBuilder;

use super::{
    DrainManner, State, Status, clusters, dump, exposition, info, logging, prometheus,
    query::parameter,
    stats::{self, Filter},
    ui::{self, Events, Ui},
};
use crate::telemetry::{Telemetry, log_filter};

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

/// A page.
struct Page {
    path: &'static str,
    /// What it is, with its parameters.
    what: &'static str,
    /// The parameters that it takes.
    parameters: &'static [&'static str],
    /// Whether it changes something, and so answers to `POST` alone.
    changes: bool,
}

const fn shows(
    path: &'static str,
    what: &'static str,
    parameters: &'static [&'static str],
) -> Page {
    Page { path, what, parameters, changes: false }
}

const fn changes(
    path: &'static str,
    what: &'static str,
    parameters: &'static [&'static str],
) -> Page {
    Page { path, what, parameters, changes: true }
}

const ADMIN: &[Page] = &[
    shows("/", "this list", &[]),
    shows("/certs", "certificates in use and when they expire, as JSON", &[]),
    shows(
        "/clusters",
        "every cluster and its endpoints, with counters: ?format=text|json",
        &["format"],
    ),
    shows("/config_dump", "the configuration in force, as JSON: ?resource=<part>", &["resource"]),
    changes("/drain_listeners", "accept nothing new, end what is open: ?graceful", &["graceful"]),
    changes("/healthcheck/fail", "answer 503 to health checks", &[]),
    changes("/healthcheck/ok", "answer health checks as usual again", &[]),
    shows("/help", "this list", &[]),
    shows("/listeners", "what is listened on: ?format=text|json", &["format"]),
    Page {
        path: "/logging",
        what: "the level of messages; POST changes it: ?level=<level>",
        parameters: &["level"],
        changes: false,
    },
    shows("/memory", "memory of the process, as JSON", &[]),
    shows("/ready", "LIVE, or 503 and why not", &[]),
    shows("/server_info", "version, state and uptime, as JSON", &[]),
    shows(
        "/stats",
        "counters and gauges: ?filter=<regex> ?usedonly ?format=text|json|prometheus",
        &["filter", "usedonly", "format"],
    ),
    shows("/stats/prometheus", "the same for Prometheus", &[]),
    shows("/ui", "the page for a browser, with --admin-ui", &[]),
    shows("/ui/flows", "flows as they happen, as server-sent events", &[]),
    shows("/ui/page.css", "of the page", &[]),
    shows("/ui/page.js", "of the page", &[]),
    shows("/ui/summary", "what the page shows, as JSON", &[]),
];
const HEALTH: &[Page] = &[shows("/healthz/ready", "200, or 503 and why not", &[])];
const METRICS: &[Page] = &[shows("/stats/prometheus", "metrics for Prometheus", &[])];

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

/// What is answered.
pub(super) enum Answer {
    /// All of it.
    Whole(Response<String>),
    /// A head, and what happens from now on.
    Events(Response<()>, Events),
}

/// Answers a request, of which only the head counts.
pub(super) fn respond(
    endpoint: Endpoint,
    request: &http::request::Parts,
    telemetry: &Telemetry,
    status: &Status,
    ui: &Ui,
) -> Answer {
    let response = whole(endpoint, request, telemetry, status, ui);
    let streams = request.uri.path() == "/ui/flows" && request.method == Method::GET;
    if !streams || response.status() != StatusCode::OK {
        return Answer::Whole(response);
    }
    match ui::events(ui, &telemetry.flows) {
        Some(events) => Answer::Events(response.map(drop), events),
        None => {
            let text = "too many follow already; close another page\n";
            Answer::Whole(plain(StatusCode::SERVICE_UNAVAILABLE, text.into()))
        }
    }
}

fn whole(
    endpoint: Endpoint,
    request: &http::request::Parts,
    telemetry: &Telemetry,
    status: &Status,
    ui: &Ui,
) -> Response<String> {
    let path = request.uri.path();
    if endpoint == Endpoint::Admin && !is_own_host(request) {
        return plain(
            StatusCode::FORBIDDEN,
            "the admin endpoint answers to localhost and to IP addresses only\n".into(),
        );
    }
    let Some(found) = endpoint.pages().iter().find(|page| page.path == path) else {
        let near = nearest(path, endpoint.pages().iter().map(|page| page.path));
        let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        let text = format!("no page {path:?} here{near}\n\n{}", help(endpoint));
        return plain(StatusCode::NOT_FOUND, text);
    };
    let query = request.uri.query().unwrap_or("");
    if let Some(refused) = wrong_parameter(found, query) {
        return refused;
    }
    let level = (path == "/logging").then(|| parameter(query, "level")).flatten();
    if let Some(refused) = wrong_method(found, request, level.is_some()) {
        return refused;
    }
    if let Some(refused) = wrong_ui(path, request, ui) {
        return refused;
    }
    if let Some(response) = ui::respond(path, telemetry, status) {
        return response;
    }
    match path {
        "/ready" | "/healthz/ready" => ready(status),
        "/stats" => stats_page(query, telemetry, status),
        "/stats/prometheus" => {
            page(StatusCode::OK, exposition::CONTENT_TYPE, prometheus::text(telemetry, status))
        }
        "/clusters" => match format(query) {
            Ok(Format::Text) => plain(StatusCode::OK, clusters::text(telemetry, &status.config())),
            Ok(Format::Json) => {
                page(StatusCode::OK, JSON, clusters::json(telemetry, &status.config()))
            }
            Err(found) => wrong_format(&found),
        },
        "/listeners" => match format(query) {
            Ok(Format::Text) => plain(StatusCode::OK, info::listeners_text(&status.listeners())),
            Ok(Format::Json) => {
                page(StatusCode::OK, JSON, info::listeners_json(&status.listeners()))
            }
            Err(found) => wrong_format(&found),
        },
        "/certs" => {
            let states = status.certificates();
            page(StatusCode::OK, JSON, info::certificates(&states, SystemTime::now()))
        }
        "/memory" => page(StatusCode::OK, JSON, info::memory()),
        "/config_dump" => config_dump(query, status),
        "/server_info" => page(StatusCode::OK, JSON, info::server(telemetry, status)),
        "/logging" => {
            let (code, text) = logging::page(level.as_deref(), log_filter());
            plain(code, text)
        }
        "/healthcheck/fail" => {
            status.set_failed(true);
            plain(StatusCode::OK, "OK\n".into())
        }
        "/healthcheck/ok" => {
            status.set_failed(false);
            plain(StatusCode::OK, "OK\n".into())
        }
        "/drain_listeners" => {
            let graceful = parameter(query, "graceful").is_some();
            status.ask_drain(if graceful { DrainManner::Graceful } else { DrainManner::AtOnce });
            plain(StatusCode::OK, "OK\n".into())
        }
        _ => plain(StatusCode::OK, help(endpoint)),
    }
}

/// The page for browsers is served where it was asked for, and to itself alone: another page in the browser could
/// take the places of those who follow.
fn wrong_ui(path: &str, request: &http::request::Parts, ui: &Ui) -> Option<Response<String>> {
    if path != "/ui" && !path.starts_with("/ui/") {
        return None;
    }
    if !ui.is_on() {
        let text = "the page is off; start the gateway with --admin-ui\n";
        return Some(plain(StatusCode::NOT_FOUND, text.into()));
    }
    // Fetch Metadata: `none` is an address that a person has entered.
    let site = request.headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let own = matches!(site, None | Some(b"none" | b"same-origin"));
    let is_foreign = !own || request.headers.contains_key(header::ORIGIN);
    is_foreign.then(|| plain(StatusCode::FORBIDDEN, format!("{path} is not for other pages\n")))
}

/// A parameter that a page does not have is a mistake, and what it was meant to do would be missed.
fn wrong_parameter(found: &Page, query: &str) -> Option<Response<String>> {
    let names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    let unknown =
        names.filter(|name| !name.is_empty()).find(|name| !found.parameters.contains(name));
    let unknown = unknown?;
    let near = nearest(unknown, found.parameters.iter().copied());
    let hint = match (near, found.parameters) {
        (Some(near), _) => format!("did you mean {near}?"),
        (None, []) => "this page has none".to_owned(),
        (None, all) => format!("this page has {}", all.join(", ")),
    };
    let text = format!("unknown parameter {unknown:?} of {}; {hint}\n", found.path);
    Some(plain(StatusCode::BAD_REQUEST, text))
}

/// What changes something is asked for by `POST`, and never by a page in a browser: those name where
/// they come from (RFC 6454 §7).
fn wrong_method(
    found: &Page,
    request: &http::request::Parts,
    sets: bool,
) -> Option<Response<String>> {
    let reads = request.method == Method::GET || request.method == Method::HEAD;
    let changes = found.changes || sets;
    let (allowed, text) = match (changes, reads, request.method == Method::POST) {
        (true, _, true) if request.headers.contains_key(header::ORIGIN) => {
            let text = format!("{} is not for pages in a browser\n", found.path);
            return Some(plain(StatusCode::FORBIDDEN, text));
        }
        (true, _, true) | (false, true, _) => return None,
        (true, ..) => ("POST", format!("{} changes something: use POST\n", found.path)),
        (false, ..) => ("GET, HEAD", format!("{} only answers GET\n", found.path)),
    };
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, text);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    Some(response)
}

fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|name| (strsim::jaro_winkler(text, name), name));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| *score > 0.8).map(|(_, name)| name)
}

/// `?format=` of pages that have two.
enum Format {
    Text,
    Json,
}

fn format(query: &str) -> Result<Format, String> {
    match parameter(query, "format").as_deref() {
        None | Some("" | "text") => Ok(Format::Text),
        Some("json") => Ok(Format::Json),
        Some(other) => Err(other.to_owned()),
    }
}

fn wrong_format(found: &str) -> Response<String> {
    plain(StatusCode::BAD_REQUEST, format!("found format={found}, expected text or json\n"))
}

fn config_dump(query: &str, status: &Status) -> Response<String> {
    let wanted = parameter(query, "resource");
    if let Some(wanted) = wanted.as_deref().filter(|wanted| !dump::RESOURCES.contains(wanted)) {
        let known = dump::RESOURCES.join(", ");
        let text = format!("found resource={wanted}, expected one of {known}\n");
        return plain(StatusCode::BAD_REQUEST, text);
    }
    page(StatusCode::OK, JSON, dump::json(&status.config(), wanted.as_deref()))
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

fn help(endpoint: Endpoint) -> String {
    let mut text = String::from("pages:\n");
    for Page { path, what, changes, .. } in endpoint.pages() {
        let post = if *changes { " (POST)" } else { "" };
        text.push_str(&format!("  {path}{post}: {what}\n"));
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
