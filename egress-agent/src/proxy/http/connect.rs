//! From a route to a connection that takes requests.

use std::sync::Arc;

use tokio::{io::AsyncWriteExt as _, time::Instant};

use super::{
    failure::Failure,
    h1::{H1Outbound, UpstreamIo},
    h2,
    link::Link,
    outbound::{H1Connection, Outbound},
    pool::{Key, Version},
};
use crate::{
    net::{DialContext, DialError, Plan, Upstream, WaitPolicy},
    policy::{GatewayPolicy, Keepalive, KeyGroup},
    proxy::{ConnectionOwner, Worker, preface::proxy_header},
    sys::socket::user_timeout,
    telemetry::ClusterStats,
    tls::{Alpn, negotiated_group},
    types::ShareOwner,
};

/// The endpoints for one request, the balancer's choice first.
///
/// # Errors
/// [`Failure`]; nothing of the request was sent.
pub(super) async fn plan(
    worker: &Worker,
    policy: &GatewayPolicy,
    asker: DialContext<'_>,
    key: &Key,
    stats: &ClusterStats,
) -> Result<Plan, Failure> {
    let planned = worker.plan(policy, &key.cluster, &key.host, asker, stats).await;
    planned.map_err(|error| failed(error, stats))
}

/// Dials, starts TLS if the cluster asks for it, and settles on a version. With TLS nothing of the
/// request is sent before the certificate was verified, and no connection is opened while what the rule
/// asks for is missing.
///
/// # Errors
/// [`Failure`]; nothing of the request was sent.
pub(super) async fn connect(
    worker: &Worker,
    key: &Key,
    plan: &Plan,
    patience: WaitPolicy,
    (owner, holder): (ShareOwner, &ConnectionOwner),
    stats: &Arc<ClusterStats>,
) -> Result<Outbound, Failure> {
    let Key { cluster, host, version, client, from: _ } = key;
    let alpn = match version {
        Version::Http2 => Alpn::Http2,
        Version::Offered => Alpn::Auto,
        Version::Http1 => Alpn::Http1,
    };
    let prepared = cluster.tls.as_ref().map(|tls| worker.originator.prepare(tls, Some(host), alpn));
    let prepared = prepared.transpose().map_err(|error| Failure::Tls { error, addr: None })?;
    let dialled = worker.connect(cluster, plan, &owner, patience, stats).await;
    let dialled = dialled.map_err(|error| failed(error, stats))?;
    let Upstream { mut stream, addr, local, lease, in_flight: _, failed_attempts: _ } = dialled;
    let mut link = Link::new(addr, local, lease, stats);
    if let (Some(version), Some((peer, own))) = (cluster.proxy_protocol, client) {
        let header = proxy_header(version, peer.0, own.0);
        stream.write_all(&header).await.map_err(|error| Failure::Reset(error.to_string()))?;
    }
    let mut http2 = *version == Version::Http2;
    let io = match prepared {
        None => UpstreamIo::Plain(stream),
        Some(prepared) => {
            let deadline = Instant::now() + worker.limits.tls_handshake;
            match prepared.run(stream, addr, deadline).await {
                Ok(stream) => {
                    stats.inc_ssl_handshake();
                    link.tls_group = negotiated_group(stream.get_ref().1).map(KeyGroup::name);
                    let settled = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    if http2 && !settled {
                        link.lease.report(false);
                        let why = "it did not choose h2 in the TLS handshake".to_owned();
                        return Err(Failure::NotHttp2 { host: host.clone(), addr, why });
                    }
                    http2 = settled;
                    UpstreamIo::Tls(Box::new(stream))
                }
                Err(error) => {
                    stats.inc_ssl_connection_error();
                    stats.inc_upstream_cx_connect_fail();
                    link.endpoint.inc_cx_connect_fail();
                    link.lease.report(false);
                    return Err(Failure::Tls { error, addr: Some(addr) });
                }
            }
        }
    };
    if http2 {
        bound_silence(&io, cluster.pool.keepalive.unwrap_or_default());
    } else {
        let outbound = H1Outbound::new(io);
        return Ok(Outbound::H1(Box::new(H1Connection {
            outbound,
            link,
            started: 0,
            in_flight: None,
        })));
    }
    let streams = h2::most_streams(&cluster.pool);
    let shaking = h2::handshake(io, link, owner, streams, &worker.limits, holder);
    let why = match tokio::time::timeout(worker.limits.tls_handshake, shaking).await {
        Ok(Ok(connection)) => {
            return Ok(Outbound::H2(worker.http.pool.share(key.clone(), connection)));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the connection preface was not taken in time".to_owned(),
    };
    Err(Failure::NotHttp2 { host: host.clone(), addr, why })
}

/// Has the kernel give up an upstream that takes nothing for as long as a silent one is probed. Every end of
/// HTTP/2 always reads; one of HTTP/1 may pause in a body, and the request's own clock ends that.
fn bound_silence(io: &UpstreamIo, keepalive: Keepalive) {
    let Keepalive { time, interval, probes } = keepalive;
    let stream = match io {
        UpstreamIo::Plain(stream) => stream,
        UpstreamIo::Tls(stream) => stream.get_ref().0,
    };
    if let Err(error) = user_timeout(stream, time.saturating_add(interval.saturating_mul(probes))) {
        tracing::debug!(%error, "no TCP_USER_TIMEOUT towards an upstream");
    }
}

fn failed(error: DialError, stats: &ClusterStats) -> Failure {
    match &error {
        DialError::Timeout { .. } => {
            stats.inc_upstream_cx_connect_timeout();
            stats.inc_upstream_cx_connect_fail();
        }
        DialError::Connect { .. } | DialError::Resolve { .. } => {
            stats.inc_upstream_cx_connect_fail();
        }
        DialError::NoHealthyUpstream { .. } => stats.inc_upstream_cx_none_healthy(),
        DialError::Overflow { .. } => {
            stats.inc_upstream_cx_overflow();
            stats.inc_upstream_rq_pending_overflow();
        }
        DialError::AddressRefused { .. } | DialError::From { .. } => {}
    }
    Failure::Dial(error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::SockRef;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_silent_upstream_of_http2_is_given_up_by_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        for (keepalive, seconds) in [
            (Keepalive::default(), 90),
            (
                Keepalive {
                    time: Duration::from_secs(5),
                    interval: Duration::from_secs(2),
                    probes: 4,
                },
                13,
            ),
        ] {
            let io = UpstreamIo::Plain(TcpStream::connect(addr).await.unwrap());
            bound_silence(&io, keepalive);
            let UpstreamIo::Plain(stream) = &io else { unreachable!("made so") };
            let limit = SockRef::from(stream).tcp_user_timeout().unwrap();
            assert_eq!(limit, Some(Duration::from_secs(seconds)));
        }
    }
}
