//! One request, from the decision to the end of the response.

use std::{net::IpAddr, sync::Arc};

use egress_ebpf::reason::Reason;
use http::{HeaderMap, Method, StatusCode, header};

use super::{
    Connection,
    clock::Clock,
    cors::Cors,
    deadline::Deadline,
    disposition::Disposition,
    failure::Failure,
    forward::forward,
    headers,
    inbound::Inbound,
    mirror::{MirrorPlan, MirroredClient},
    record::{Record, Started},
    reply::Reply,
    request::Request,
    trace,
    watch::watch,
};
use crate::{
    policy::{Denied, GatewayPolicy, HttpAction, HttpRequest, HttpRoute, normalise},
    proxy::{
        Work,
        rates::{Meters, RateUnit},
    },
    telemetry::ResponseFlag,
};

/// Serves one request, which has `work` as its place; without one it is refused. The record is dropped,
/// and so logged, when the exchange is over.
pub(super) async fn run<D: Inbound>(
    connection: &Connection,
    mut request: Request,
    work: Option<Work>,
    started: Started,
    down: &mut D,
    deadline: &mut Deadline,
) -> (Disposition, Record) {
    let policy = connection.worker.policy();
    let mesh = policy.as_ref().ok().map(|policy| &policy.snapshot().mesh);
    let received = mesh.and_then(|mesh| normalise(&request.path, mesh.path_normalization));
    let received = received.map(|path| std::mem::replace(&mut request.path, path.into()));
    let trusted = mesh.map_or(0, |mesh| mesh.trusted_proxies);
    let note = mesh.and_then(|mesh| mesh.refusal_note.clone());
    let forwarded = headers::take_claims(&mut request.headers, trusted);
    let made = headers::ensure_request_id(&mut request.headers);
    request.id = made.or_else(|| request.text(&headers::REQUEST_ID));
    let mut record = Record::new(connection, started, request.version);
    let remote = headers::remote(forwarded.as_deref(), trusted, connection.downstream.source.addr);
    record.request(&request, received, forwarded);
    if mesh.is_some_and(|mesh| mesh.tracing)
        && let Some(traces) = connection.worker.telemetry.traces()
    {
        record.entry.span = trace::begin(traces, &mut request.headers);
    }
    record.work = work;
    let decided = if record.work.is_some() {
        decide(connection, policy, &request, remote)
    } else {
        Err(Failure::SourceOverflow)
    };
    let mut permission = HeaderMap::new();
    let exchanged = match decided {
        Ok(decided) => {
            let cors = Cors::of(decided.1.action.cors.as_deref(), &request);
            if let Some(cors) = &cors {
                cors.apply(&mut permission);
            }
            let cors = cors.as_ref();
            exchange(connection, &decided, cors, &mut request, &mut record, down, deadline).await
        }
        Err(failure) => Err(failure),
    };
    let after = match exchanged {
        Ok(after) => after,
        Err(failure) => {
            let account = record.failed(&failure);
            match account.status {
                Some(status) => {
                    let mut text = failure.body(Some(&request.authority.text));
                    if let Some(note) = note.filter(|_| failure.is_refusal()) {
                        text.push_str(&note);
                    }
                    let idle = connection.worker.limits.stream_idle;
                    let mut clock = Clock::new(deadline, None, idle);
                    let mut reply = Reply::new(status, text);
                    // A page may read why its request failed, as in Envoy.
                    reply.headers.extend(permission);
                    let reply = reply.fit(request.is_grpc(), &mut record.entry);
                    reply.send(connection, &mut record, &request.method, down, &mut clock).await
                }
                None => Disposition::Abort,
            }
        }
    };
    record.complete();
    (after, record)
}

/// The policy to serve the request by, and its verdict.
type RouteDecision = (Arc<GatewayPolicy>, HttpRoute);

fn decide(
    connection: &Connection,
    policy: Result<Arc<GatewayPolicy>, Denied>,
    request: &Request,
    remote: Option<IpAddr>,
) -> Result<RouteDecision, Failure> {
    if request.method == Method::CONNECT {
        return Err(Failure::Upgrade("CONNECT"));
    }
    let policy = policy.map_err(Failure::Denied)?;
    connection.still_identified().map_err(Failure::Denied)?;
    // A rule may ask for it, although it is a matter of this hop.
    let with_upgrade = request.upgrade.as_ref().map(|upgrade| {
        let mut headers = HeaderMap::clone(&request.headers);
        headers.insert(header::UPGRADE, upgrade.clone());
        headers
    });
    let asked = HttpRequest {
        source: &connection.downstream.source,
        entry: connection.entry(),
        port: connection.downstream.port,
        host: &request.authority.host,
        authority: &request.authority.text,
        scheme: request.scheme,
        method: &request.method,
        path_and_query: &request.path,
        headers: with_upgrade.as_ref().unwrap_or(&*request.headers),
        server_name: connection.server_name(),
        remote,
    };
    let route = policy.http(&asked).map_err(Failure::Denied)?;
    if request.upgrade.as_ref().is_some_and(|protocol| !route.action.upgrades.allow(protocol)) {
        return Err(Failure::Upgrade("Upgrade"));
    }
    Ok((policy, route))
}

async fn exchange<D: Inbound>(
    connection: &Connection,
    (policy, route): &RouteDecision,
    cors: Option<&Cors<'_>>,
    request: &mut Request,
    record: &mut Record,
    down: &mut D,
    deadline: &mut Deadline,
) -> Result<Disposition, Failure> {
    let worker = &connection.worker;
    record.route(route);
    record.limit(admit(connection, route)?);
    let idle = policy.snapshot().mesh.stream_idle_timeout;
    let idle = idle.unwrap_or(worker.limits.stream_idle);
    // Whoever gives a route more time expects it to be silent for as long.
    let idle = route.timeout.map_or(idle, |timeout| idle.max(timeout));
    let mut clock = Clock::new(deadline, route.timeout, idle);
    if let Some(delay) = route.action.delay {
        record.flag(ResponseFlag::DelayInjected);
        watch(connection, down, &mut clock, tokio::time::sleep(delay)).await?;
    }
    if let Some(reply) = cors.and_then(Cors::answer) {
        record.local(StatusCode::OK, "cors_response");
        return Ok(reply.send(connection, record, &request.method, down, &mut clock).await);
    }
    if let Some(mut reply) = own_answer(&route.action, request, record) {
        if let Some(cors) = cors {
            cors.apply(&mut reply.headers);
        }
        let reply = reply.fit(request.is_grpc(), &mut record.entry);
        return Ok(reply.send(connection, record, &request.method, down, &mut clock).await);
    }
    let room = worker.room_in_log(&connection.downstream);
    watch(connection, down, &mut clock, room).await?;
    if request.expects_continue && !policy.snapshot().mesh.forward_continue {
        request.expects_continue = false;
        down.interim(StatusCode::CONTINUE, &HeaderMap::new());
    }
    let mut copies = MirrorPlan::new(connection, policy, route, request);
    match &mut copies {
        None => forward(connection, policy, route, request, record, down, &mut clock).await,
        Some(copies) => {
            let mut down = MirroredClient::new(down, copies);
            forward(connection, policy, route, request, record, &mut down, &mut clock).await
        }
    }
}

/// Counts the request for its workload and host.
fn admit(connection: &Connection, route: &HttpRoute) -> Result<Meters, Failure> {
    let owner = || connection.downstream.owner();
    let rates = &connection.worker.rates;
    let host = || route.cluster.counted_as(Some(&route.host));
    let meters = rates.meters(route.rate_limits(), owner, host);
    let meters = meters.map_err(Failure::RateLimited)?;
    meters.count(RateUnit::Request).map_err(Failure::RateLimited)?;
    Ok(meters)
}

/// The answer of a route that doesn't lead to an upstream.
fn own_answer(action: &HttpAction, request: &Request, record: &mut Record) -> Option<Reply> {
    let (asked, changes) = (&request.headers, &action.response_headers);
    if let Some((status, location)) = &action.redirect {
        record.local(*status, "direct_response");
        let mut reply = Reply::new(*status, String::new());
        if let Ok(location) = http::HeaderValue::from_str(location) {
            reply.headers.insert(header::LOCATION, location);
        }
        headers::apply_to_response(&mut reply.headers, changes, &record.entry, asked);
        return Some(reply);
    }
    let (status, body) = action.respond.as_ref()?;
    record.local(*status, "direct_response");
    let is_error = status.is_client_error() || status.is_server_error();
    if is_error || action.grpc_status.is_some() {
        record.entry.reason = Some(Reason::RouteRefused);
        record.flag(ResponseFlag::FaultInjected);
    }
    let mut reply = Reply::new(*status, body.clone()).with_grpc_status(action.grpc_status);
    headers::apply_to_response(&mut reply.headers, changes, &record.entry, asked);
    Some(reply)
}
