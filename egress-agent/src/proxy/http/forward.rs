//! A request's way to an upstream and back.

use std::sync::Arc;

use http::{StatusCode, header};

use super::{
    Connection,
    affinity::Affinity,
    attempt::Attempt,
    bad::BadMessage,
    body::Relay,
    clock::Clock,
    cors::Cors,
    disposition::Disposition,
    failure::Failure,
    grpc, headers,
    inbound::Inbound,
    outbound::Outbound,
    pool::{Key, Version},
    record::Record,
    relay_response,
    request::Request,
    watch::watch,
};
use crate::policy::{GatewayPolicy, HttpRoute};

/// Sends the request where its route leads, and the response to the client.
pub(super) async fn forward<D: Inbound>(
    connection: &Connection,
    policy: &Arc<GatewayPolicy>,
    route: &HttpRoute,
    request: &Request,
    record: &mut Record,
    down: &mut D,
    clock: &mut Clock<'_>,
) -> Result<Disposition, Failure> {
    let worker = &connection.worker;
    let stats = worker.telemetry.stats.of(&route.cluster);
    let downstream = &connection.downstream;
    let place = match route.cluster.pool.max_requests {
        u32::MAX => worker.dialer.states().unlimited_request(&route.cluster),
        limit => {
            let (states, owner) = (worker.dialer.states(), downstream.owner());
            let asking = states.request_place(&route.cluster, &owner);
            let Some(place) = watch(connection, down, clock, asking).await? else {
                stats.inc_upstream_rq_pending_overflow();
                return Err(Failure::Overflow { cluster: route.cluster.name.to_string(), limit });
            };
            place
        }
    };
    let under_way = (stats.request(), place);
    let mut relay = Relay::new();
    let key = Key {
        cluster: Arc::clone(&route.cluster),
        host: route.host.clone(),
        version: Version::of(&route.cluster, request),
        from: route.from.as_ref().map(|from| (Arc::clone(from), downstream.owner())),
        client: route.cluster.proxy_protocol.map(|_| (downstream.peer, downstream.local)),
    };
    let affinity = Affinity::of(&route.cluster, request, connection.downstream.source.addr);
    let attempt = Attempt::new(connection, policy, route, request, key, &stats, &record.entry);
    let attempt = attempt.balanced_by(affinity.hash);
    let answered = attempt.until_answered(down, &mut relay, clock, record).await;
    let (up, mut response) = answered.inspect_err(|failure| {
        if let Some(status) = failure.account().status {
            stats.response(status);
        }
    })?;
    stats.response(response.status);
    up.link().endpoint.response(response.status);
    up.link().lease.report_answer(response.status);
    record.answered(response.status);
    if request.is_grpc() {
        record.entry.grpc_status = grpc::status(&response.headers);
    }
    clock.answered();
    let changes = &route.action.response_headers;
    headers::apply_to_response(&mut response.headers, changes, &record.entry, attempt.headers());
    if let Some(cors) = Cors::of(route.action.cors.as_deref(), request) {
        cors.apply(&mut response.headers);
    }
    if let Some(cookie) = affinity.cookie {
        response.headers.append(header::SET_COOKIE, cookie);
    }
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return match up {
            Outbound::H1(up) => {
                Ok(Disposition::Switch(up, response, route.cluster.pool.tcp_idle_timeout))
            }
            Outbound::H2(_) => Err(Failure::Protocol(BadMessage::Switch)),
        };
    }
    let (after, up) =
        relay_response::run(connection, up, &response, down, &mut relay, clock, record).await;
    match up {
        Some(Outbound::H1(up)) => worker.http.pool.put(attempt.into_key(), up, policy),
        Some(Outbound::H2(_)) | None => {}
    }
    drop(under_way);
    Ok(after)
}
