//! The node's metrics, in Prometheus' text form.

use std::{
    collections::HashSet,
    convert::Infallible,
    fmt::Write as _,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use egress_ebpf::verdict::Mode;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use super::{event_losses, tunnel_metrics};
use crate::{
    bpf::{Counters, Error, Lost, Repair, Shares, Verdicts},
    enforcement::{Condition, Exposure, Modes, Pod, Promise, Tally, Who, mode_name},
    pods::UnknownInterface,
    source::Loaded,
    tls::{CredentialState, Credentials, days_left, unix_seconds},
    tunnel::Stats,
};

/// Scrapes at a time; more wait.
const CONNECTIONS: usize = 16;
/// Until a request's head is there, and for a whole connection.
const HEAD: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_secs(60);

/// Where the values come from.
pub(crate) struct Sources {
    pub counters: Arc<Counters>,
    pub shares: Shares,
    pub pods: Vec<Pod>,
    pub tally: Arc<Tally>,
    pub condition: Arc<Condition>,
    pub loaded: watch::Receiver<Loaded>,
    pub healthy: watch::Receiver<HashSet<IpAddr>>,
    pub modes: watch::Receiver<Modes>,
    pub credentials: Arc<Credentials>,
    pub tunnel: Arc<Stats>,
    /// Interfaces whose pods are not known.
    pub unknown: watch::Receiver<Vec<UnknownInterface>>,
}

impl Sources {
    /// All metrics, as of now.
    fn render(&self) -> Result<String, Error> {
        let mut text = String::new();
        verdicts(&mut text, &self.counters.verdicts()?);
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let tally = &self.tally;
        lost(&mut text, self.counters.lost()?, load(&tally.dropped), load(&tally.unreadable));
        event_losses::render(&mut text, &self.shares.lost()?, &self.who());
        self.gateways(&mut text);
        enforcement(&mut text, &self.modes.borrow());
        let loaded = self.loaded.borrow();
        gauge(&mut text, "egress_config_current", u64::from(loaded.current));
        let name = "egress_config_reloads_total";
        kind(&mut text, name, "counter");
        let reloads = [("accepted", loaded.accepted), ("rejected", loaded.rejected)];
        for (result, count) in reloads {
            push(&mut text, format_args!("{name}{{result=\"{result}\"}} {count}\n"));
        }
        gauge(&mut text, "egress_maps_behind", load(&tally.behind));
        counter(&mut text, "egress_map_update_failures_total", load(&tally.failures));
        let name = "egress_repairs_total";
        kind(&mut text, name, "counter");
        for (repair, count) in Repair::ALL.iter().zip(&tally.repairs) {
            let (label, count) = (repair.name(), load(count));
            push(&mut text, format_args!("{name}{{kind=\"{label}\"}} {count}\n"));
        }
        counter(&mut text, "egress_sockets_destroyed_total", load(&tally.sockets_destroyed));
        certificates(&mut text, &self.credentials.states(), SystemTime::now());
        gauge(&mut text, "egress_ready", u64::from(self.condition.unready(&loaded).is_empty()));
        exposed(&mut text, &self.condition.exposures());
        unknown(&mut text, &self.unknown.borrow(), SystemTime::now());
        counter(&mut text, "egress_process_looks_total", self.condition.looks());
        tunnel_metrics::render(&mut text, &self.tunnel);
        Ok(text)
    }

    /// Workloads by name.
    fn who(&self) -> Who {
        let loaded = self.loaded.borrow();
        let mesh = loaded.snapshot.as_ref().map(|snapshot| &snapshot.mesh);
        mesh.map(|mesh| Who::new(mesh, &self.pods)).unwrap_or_default()
    }

    fn gateways(&self, text: &mut String) {
        let name = "egress_gateway_healthy";
        kind(text, name, "gauge");
        let loaded = self.loaded.borrow();
        let healthy = self.healthy.borrow();
        let gateways = loaded.snapshot.iter().flat_map(|snapshot| &snapshot.mesh.gateways);
        for gateway in gateways {
            for addr in &gateway.endpoints {
                let (service, value) = (&gateway.service, u8::from(healthy.contains(addr)));
                let labels = format_args!("service=\"{service}\",address=\"{addr}\"");
                push(text, format_args!("{name}{{{labels}}} {value}\n"));
            }
        }
    }
}

/// How many interfaces are unknown, and for how long the oldest of them.
fn unknown(text: &mut String, interfaces: &[UnknownInterface], now: SystemTime) {
    let count = u64::try_from(interfaces.len()).unwrap_or(u64::MAX);
    gauge(text, "egress_unknown_interfaces", count);
    let ages =
        interfaces.iter().map(|one| now.duration_since(one.since).map_or(0, |age| age.as_secs()));
    gauge(text, "egress_unknown_interface_oldest_seconds", ages.max().unwrap_or(0));
}

/// For each promise whether it doesn't hold on this node, and for how many workloads.
fn exposed(text: &mut String, exposures: &[Exposure]) {
    let find = |promise: Promise| exposures.iter().find(|found| found.promise == promise.name());
    for (metric, of) in [
        ("egress_exposed", (|_| 1) as fn(&Exposure) -> u64),
        ("egress_exposed_workloads", |exposure| exposure.count),
    ] {
        kind(text, metric, "gauge");
        for promise in Promise::ALL {
            let (value, promise) = (find(promise).map_or(0, of), promise.name());
            push(text, format_args!("{metric}{{promise=\"{promise}\"}} {value}\n"));
        }
    }
}

/// How the certificates of the tunnels fare; by the names that the gateway's metrics have.
fn certificates(text: &mut String, states: &[CredentialState], now: SystemTime) {
    if states.is_empty() {
        return;
    }
    let label = |state: &CredentialState| state.name.replace('\\', r"\\").replace('"', "\\\"");
    let name = "egress_certificate_days_left";
    kind(text, name, "gauge");
    for state in states {
        if let Some(end) = state.not_after {
            let days = days_left(end, now);
            push(text, format_args!("{name}{{certificate=\"{}\"}} {days}\n", label(state)));
        }
    }
    let name = "egress_certificate_not_after_timestamp_seconds";
    kind(text, name, "gauge");
    for state in states {
        if let Some(end) = state.not_after {
            let (label, end) = (label(state), unix_seconds(end));
            push(text, format_args!("{name}{{certificate=\"{label}\"}} {end}\n"));
        }
    }
    let name = "egress_certificate_current";
    kind(text, name, "gauge");
    for state in states {
        let current = u8::from(state.current);
        push(text, format_args!("{name}{{certificate=\"{}\"}} {current}\n", label(state)));
    }
}

fn verdicts(text: &mut String, verdicts: &[Verdicts]) {
    let name = "egress_verdicts_total";
    kind(text, name, "counter");
    for Verdicts { hook, action, reason, audit, count } in verdicts {
        let (hook, action, reason) = (hook.name(), action.name(), reason.name());
        let labels = format_args!(
            "hook=\"{hook}\",action=\"{action}\",reason=\"{reason}\",audit=\"{audit}\""
        );
        push(text, format_args!("{name}{{{labels}}} {count}\n"));
    }
}

/// One series for each mode of each set, so that an alert can ask for any that is in audit.
fn enforcement(text: &mut String, sets: &Modes) {
    let metric = "egress_enforcement_mode";
    kind(text, metric, "gauge");
    for set in sets {
        for mode in [Mode::Enforce, Mode::Audit, Mode::Exempt] {
            let (name, value) = (&set.name, u8::from(set.mode == mode));
            let labels = format_args!("set=\"{name}\",mode=\"{}\"", mode_name(mode));
            push(text, format_args!("{metric}{{{labels}}} {value}\n"));
        }
    }
}

fn lost(text: &mut String, lost: Lost, dropped: u64, unreadable: u64) {
    let name = "egress_events_lost_total";
    kind(text, name, "counter");
    let causes =
        [("rate", lost.rate), ("full", lost.full), ("output", dropped), ("unknown", unreadable)];
    for (cause, count) in causes {
        push(text, format_args!("{name}{{cause=\"{cause}\"}} {count}\n"));
    }
}

fn kind(text: &mut String, name: &str, kind: &str) {
    push(text, format_args!("# TYPE {name} {kind}\n"));
}

fn gauge(text: &mut String, name: &str, value: u64) {
    kind(text, name, "gauge");
    push(text, format_args!("{name} {value}\n"));
}

fn counter(text: &mut String, name: &str, value: u64) {
    kind(text, name, "counter");
    push(text, format_args!("{name} {value}\n"));
}

/// Writing to a string can't fail.
fn push(text: &mut String, args: std::fmt::Arguments<'_>) {
    text.write_fmt(args).ok();
}

/// Listens. What can't be listened on is an error at the start, not in the log later.
pub(crate) async fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Answers scrapes for as long as the runtime lives.
pub(crate) async fn serve(listener: TcpListener, sources: Arc<Sources>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("can't accept a scrape: {error}");
                // Most likely out of descriptors: asking again at once would only burn the CPU.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let sources = Arc::clone(&sources);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                std::future::ready(Ok::<_, Infallible>(respond(&request, &sources)))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = timeout(CONNECTION, connection).await {
                tracing::debug!("a scrape failed: {error}");
            }
            drop(place);
        });
    }
}

fn respond(request: &Request<Incoming>, sources: &Sources) -> Response<Full<Bytes>> {
    const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, content_type, text) = match request.uri().path() {
        _ if request.method() != Method::GET => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is answered\n".into())
        }
        "/metrics" | "/stats/prometheus" => match sources.render() {
            Ok(text) => (StatusCode::OK, METRICS, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/healthz/ready" => {
            let causes = sources.condition.unready(&sources.loaded.borrow());
            let condition = &sources.condition;
            let (status, text) = readiness(&causes, &condition.exposures(), &condition.unknown());
            (status, TEXT, text)
        }
        _ => {
            let pages = "metrics are at /metrics, readiness is at /healthz/ready\n";
            (StatusCode::NOT_FOUND, TEXT, pages.into())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let content_type = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// `ready`, or why not, a line each; then the promises that don't hold and the unknown
/// interfaces, which are no reason to take the node out of service.
fn readiness(
    causes: &[String],
    exposures: &[Exposure],
    unknown: &[String],
) -> (StatusCode, String) {
    let (status, mut text) = match causes.is_empty() {
        true => (StatusCode::OK, "ready\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
    };
    for cause in causes {
        push(&mut text, format_args!("{cause}\n"));
    }
    for exposure in exposures {
        push(&mut text, format_args!("exposed: {exposure}\n"));
    }
    for interface in unknown {
        push(&mut text, format_args!("unknown: {interface}\n"));
    }
    (status, text)
}

#[cfg(test)]
mod tests {
    use egress_ebpf::reason::Reason;

    use super::*;
    use crate::{
        bpf::{Action, Hook},
        enforcement::SetMode,
    };

    #[test]
    fn readiness_names_every_cause() {
        assert_eq!(readiness(&[], &[], &[]), (StatusCode::OK, "ready\n".into()));
        let causes = ["map DENIED is full".to_owned(), "interface a is gone".to_owned()];
        let (status, text) = readiness(&causes, &[], &[]);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "not ready\nmap DENIED is full\ninterface a is gone\n");
        let (status, text) = readiness(&[], &[exposure()], &[]);
        assert_eq!((status, &*text), (StatusCode::OK, "ready\nexposed: they can: shop/vpn\n"));
    }

    fn exposure() -> Exposure {
        Exposure {
            promise: "net_admin".into(),
            text: "they can".into(),
            count: 1,
            workloads: vec!["shop/vpn".into()],
        }
    }

    #[test]
    fn every_promise_is_a_series_whether_it_holds_or_not() {
        let mut text = String::new();
        exposed(&mut text, &[Exposure { count: 7, ..exposure() }]);
        assert!(text.contains("egress_exposed{promise=\"net_admin\"} 1\n"), "{text}");
        assert!(text.contains("egress_exposed_workloads{promise=\"net_admin\"} 7\n"), "{text}");
        assert!(text.contains("egress_exposed{promise=\"sockets\"} 0\n"), "{text}");
    }

    #[test]
    fn every_verdict_has_its_own_series() {
        let mut text = String::new();
        let denied = Verdicts {
            hook: Hook::Pod,
            action: Action::Deny,
            reason: Reason::Protocol,
            audit: false,
            count: 7,
        };
        verdicts(&mut text, &[denied]);
        lost(&mut text, Lost { rate: 1, full: 2 }, 3, 4);
        assert_eq!(
            text,
            "# TYPE egress_verdicts_total counter\n\
             egress_verdicts_total{hook=\"pod\",action=\"deny\",reason=\"protocol\",audit=\"false\"} 7\n\
             # TYPE egress_events_lost_total counter\n\
             egress_events_lost_total{cause=\"rate\"} 1\n\
             egress_events_lost_total{cause=\"full\"} 2\n\
             egress_events_lost_total{cause=\"output\"} 3\n\
             egress_events_lost_total{cause=\"unknown\"} 4\n"
        );
    }

    #[test]
    fn each_set_is_in_one_mode() {
        let mut text = String::new();
        let set = |name: &str, mode| SetMode { name: name.into(), mode };
        enforcement(&mut text, &vec![set("default", Mode::Enforce), set("batch", Mode::Audit)]);
        assert_eq!(
            text,
            "# TYPE egress_enforcement_mode gauge\n\
             egress_enforcement_mode{set=\"default\",mode=\"enforce\"} 1\n\
             egress_enforcement_mode{set=\"default\",mode=\"audit\"} 0\n\
             egress_enforcement_mode{set=\"default\",mode=\"exempt\"} 0\n\
             egress_enforcement_mode{set=\"batch\",mode=\"enforce\"} 0\n\
             egress_enforcement_mode{set=\"batch\",mode=\"audit\"} 1\n\
             egress_enforcement_mode{set=\"batch\",mode=\"exempt\"} 0\n"
        );
    }
}
