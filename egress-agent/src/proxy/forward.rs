//! Acting on the decision for a TLS or TCP connection: dial, and relay its bytes.

use std::{cell::Cell, future::poll_fn, io, mem, pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::BytesMut;
use egress_ebpf::reason::Reason;
use futures_util::future::{Either, OptionFuture};
use thiserror::Error;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Downstream, Work, Worker,
    post_tunnel::PostTunnel,
    preface::{ask_proxy, proxy_header},
    rates::{self, Meters, RateUnit},
    record::Record,
    refuse::{RefusalKind, refuse},
    transport::Transport,
};
use crate::{
    net::{InFlight, Lease, Meter, Peer, RelayIo, RelayOutcome, Upstream, relay},
    policy::{Cluster, EgressAddresses, GatewayPolicy, KeyGroup, TcpRoute},
    telemetry::{ClusterStats, ConnectionGuard, EndpointGuard, ResponseFlag},
    tls::{Alpn, ClientHandshake, PeerEnded, TlsError, basic_authorization, negotiated_group},
    types::{Host, UpstreamAddr},
};

/// A connection with both ends, ready to be relayed.
pub(super) struct Forward {
    downstream: Downstream,
    down: Transport,
    up: Transport,
    early: Vec<u8>,
    record: Record,
    held: ConnectionGuards,
    work: Option<Work>,
    /// How long it may go without a byte.
    idle: Option<Duration>,
    /// When it is closed in any case.
    until: Option<Instant>,
    /// Its rate limits.
    meters: Meters,
}

/// How a relayed connection ended.
enum RelayEnded {
    /// By itself.
    Relayed(RelayOutcome),
    /// It was open for as long as it may be.
    Over,
    /// With the worker, or for another source's sake.
    Worker,
}

/// What is counted or limited as long as the connection is open.
struct ConnectionGuards {
    lease: Lease,
    _in_flight: Option<InFlight>,
    connection: ConnectionGuard,
    _endpoint: EndpointGuard,
}

/// Dials and, where the rule says so, originates TLS. `None` if that failed: then the client was
/// told, and it is logged.
pub(super) async fn prepare(
    worker: &Worker,
    policy: &GatewayPolicy,
    downstream: Downstream,
    down: Transport,
    route: TcpRoute,
    server_name: Option<Host>,
    read: BytesMut,
) -> Option<Box<Forward>> {
    let owner = || downstream.owner();
    let counted = || route.cluster.counted_as(route.host.as_ref());
    let metered = worker.rates.meters(route.rate_limits(), owner, counted);
    let metered = metered.and_then(|meters| meters.count(RateUnit::Connection).map(|()| meters));
    let TcpRoute { cluster, host, rates: _, from, audit } = route;
    let stats = worker.telemetry.stats.of(&cluster);
    let mut record = Record::opened(worker, &downstream, cluster.name.clone());
    record.server_name = server_name.as_ref().map(Host::text);
    record.audit = audit;
    let is_tls = server_name.is_some();
    let work = downstream.holder.request(read.len());
    let connecting = async {
        worker.room_in_log(&downstream).await;
        let host = host.as_ref();
        let to = (&*cluster, host);
        connect(worker, policy, to, from.as_deref(), &downstream, &stats, &mut record).await
    };
    let result = if work.is_none() {
        drop(connecting);
        Err(record.overflowed(worker))
    } else if let Err(limited) = &metered {
        drop(connecting);
        Err(record.rate_limited(worker, limited))
    } else {
        tokio::select! {
            result = connecting => result,
            () = worker.ends(&downstream.holder) => Err(match downstream.holder.is_evicted() {
                true => record.overflowed(worker),
                false => {
                    record.flags.set(ResponseFlag::LocalReset);
                    Reason::Reset
                }
            }),
        }
    };
    match result {
        Ok((up, held)) => {
            let early = read.into();
            let idle = cluster.pool.tcp_idle_timeout;
            let most = cluster.pool.max_connection_duration;
            let until = most.and_then(|most| Instant::now().checked_add(most));
            let meters = metered.unwrap_or_default();
            Some(Box::new(Forward {
                downstream,
                down,
                up,
                early,
                record,
                held,
                work,
                idle,
                until,
                meters,
            }))
        }
        Err(reason) => {
            record.received = u64::try_from(read.len()).unwrap_or(u64::MAX);
            drop(read);
            let manner = if is_tls { RefusalKind::tls(reason) } else { RefusalKind::Reset };
            match down {
                Transport::Plain(stream) => refuse(worker, stream, manner).await,
                Transport::Tunnel(stream) => refuse(worker, stream, manner).await,
                // What was promised inside can't be kept: nothing may look like its regular end.
                Transport::Originated(_) | Transport::Terminated(_) | Transport::Posted(_) => {
                    down.reset();
                }
            }
            record.finish(worker, downstream);
            None
        }
    }
}

async fn connect(
    worker: &Worker,
    policy: &GatewayPolicy,
    (cluster, host): (&Cluster, Option<&Host>),
    from: Option<&EgressAddresses>,
    downstream: &Downstream,
    stats: &Arc<ClusterStats>,
    record: &mut Record,
) -> Result<(Transport, ConnectionGuards), Reason> {
    let unready = |record: &mut Record, unready: Unready| {
        let reason = unready.reason();
        worker.telemetry.stats.denied(reason);
        record.flags.set(ResponseFlag::UpstreamConnectionFailure);
        record.reason = Some(reason);
        record.failure = Some(unready.to_string());
        reason
    };
    let preparations = match Preparations::of(worker, cluster, host).await {
        Ok(preparations) => preparations,
        Err(error) => return Err(unready(record, error)),
    };
    let dialled = worker.dial(policy, (cluster, host), from, downstream, stats).await;
    let dialled = dialled.map_err(|error| {
        record.dial_failed(worker, stats, &error);
        error.reason()
    })?;
    let Upstream { stream, addr, local, lease, in_flight, failed_attempts: _ } = dialled;
    record.upstream = Some(addr);
    record.upstream_local = Some(local);
    let held = ConnectionGuards {
        lease,
        _in_flight: in_flight,
        connection: stats.connection(),
        _endpoint: stats.endpoint(addr).connection(),
    };
    match preparations.used_on((stream, addr), worker, cluster, downstream, stats, record).await {
        Ok(transport) => Ok((transport, held)),
        Err(error) => {
            stats.inc_upstream_cx_connect_fail();
            held.lease.report(false);
            Err(unready(record, error))
        }
    }
}

/// Why there is no connection that can be used, although one stands or nothing hinders it.
#[derive(Debug, Error)]
enum Unready {
    #[error("{0}")]
    Tls(TlsError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Unready {
    fn reason(&self) -> Reason {
        match self {
            Self::Tls(error) => error.reason(),
            Self::Io(_) => Reason::ConnectFailed,
        }
    }
}

/// What is read before anybody is dialled.
struct Preparations {
    tls: Option<ClientHandshake>,
    /// `Proxy-Authorization`.
    authorization: Option<String>,
}

impl Preparations {
    async fn of(worker: &Worker, cluster: &Cluster, host: Option<&Host>) -> Result<Self, Unready> {
        let originator = &worker.originator;
        let tls = cluster.tls.as_ref().map(|tls| originator.prepare(tls, host, Alpn::None));
        let tls = tls.transpose().map_err(Unready::Tls)?;
        let credential = cluster.connect.as_ref().and_then(|target| target.credential.as_ref());
        let authorization = match credential {
            Some(name) => Some(basic_authorization(originator.credentials(), name).await?),
            None => None,
        };
        Ok(Self { tls, authorization })
    }

    /// The connection once everything was said that comes before the application's bytes: the header of
    /// the PROXY protocol, TLS, and the question to a proxy.
    async fn used_on(
        self,
        (mut stream, addr): (TcpStream, UpstreamAddr),
        worker: &Worker,
        cluster: &Cluster,
        downstream: &Downstream,
        stats: &ClusterStats,
        record: &mut Record,
    ) -> Result<Transport, Unready> {
        if let Some(version) = cluster.proxy_protocol {
            let header = proxy_header(version, downstream.peer.0, downstream.local.0);
            stream.write_all(&header).await?;
        }
        let mut transport = match self.tls {
            None => Transport::Plain(stream),
            Some(handshake) => {
                let deadline = Instant::now() + worker.limits.tls_handshake;
                let stream = handshake.run(stream, addr, deadline).await.map_err(|error| {
                    stats.inc_ssl_connection_error();
                    Unready::Tls(error)
                })?;
                stats.inc_ssl_handshake();
                let group = negotiated_group(stream.get_ref().1);
                record.upstream_tls_group = group.map(KeyGroup::name);
                Transport::Originated(Box::new(stream))
            }
        };
        if let Some(target) = &cluster.connect {
            let asking = ask_proxy(&mut transport, target, self.authorization.as_deref());
            let asking = timeout(cluster.pool.connect_timeout, asking);
            let late =
                || io::Error::new(io::ErrorKind::TimedOut, "the proxy did not answer in time");
            if let Some(framing) = asking.await.unwrap_or_else(|_| Err(late()))? {
                transport = Transport::Posted(Box::new(PostTunnel::new(transport, framing)));
            }
        }
        Ok(transport)
    }
}

/// Counts bytes where they show up at once.
struct Counter {
    stats: Arc<ClusterStats>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Meter for Counter {
    fn add(&self, from: Peer, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        match from {
            Peer::Downstream => {
                self.stats.add_tx(bytes);
                self.received.set(self.received.get() + bytes);
            }
            Peer::Upstream => {
                self.stats.add_rx(bytes);
                self.sent.set(self.sent.get() + bytes);
            }
        }
    }
}

impl Forward {
    /// Relays until the connection ends, and logs it.
    pub(super) async fn run(mut self: Box<Self>, worker: &Worker) {
        let counter = Counter {
            stats: Arc::clone(self.held.connection.cluster()),
            received: Cell::new(0),
            sent: Cell::new(0),
        };
        let end = {
            let Self { downstream, down, up, early, idle, until, meters, .. } = &mut *self;
            let (early, idle, meters) = (mem::take(early), *idle, &*meters);
            // Made in their places: what is moved would be held twice.
            let mut relayed = pin!(if meters.paces() {
                let paced = rates::relay(&worker.buffers, down, up, early, idle, &counter, meters);
                Either::Left(Box::pin(paced))
            } else {
                Either::Right(relay(&worker.buffers, down, up, early, idle, &counter))
            });
            let mut over = pin!(OptionFuture::from(until.map(|at| Box::pin(sleep_until(at)))));
            poll_fn(|cx| {
                if let Poll::Ready(end) = relayed.as_mut().poll(cx) {
                    return Poll::Ready(RelayEnded::Relayed(end));
                }
                if let Poll::Ready(Some(())) = over.as_mut().poll(cx) {
                    return Poll::Ready(RelayEnded::Over);
                }
                downstream.holder.poll_ends(cx, &worker.drain).map(|()| RelayEnded::Worker)
            })
            .await
        };
        self.record.received = counter.received.get();
        self.record.sent = counter.sent.get();
        self.end(worker, end);
    }

    /// Closes both ends, and logs how it went.
    fn end(self: Box<Self>, worker: &Worker, end: RelayEnded) {
        let Self { downstream, down, up, mut record, held, work, .. } = *self;
        match end {
            RelayEnded::Relayed(RelayOutcome::Closed) => held.lease.report(true),
            RelayEnded::Relayed(RelayOutcome::Idle) => {
                record.flags.set(ResponseFlag::LocalReset);
                record.details = Some("idle_timeout".into());
                record.reason = Some(Reason::Timeout);
            }
            RelayEnded::Relayed(RelayOutcome::Reset(Peer::Downstream, error)) => {
                match PeerEnded::of(&error) {
                    Some(ended) => {
                        up.reset();
                        worker.telemetry.stats.denied(ended.reason());
                        record.ended(ended);
                    }
                    None => {
                        record.flags.set(ResponseFlag::DownstreamConnectionTermination);
                        record.reason = Some(Reason::Reset);
                    }
                }
            }
            RelayEnded::Relayed(RelayOutcome::Reset(Peer::Upstream, error)) => {
                held.lease.report(false);
                record.flags.set(ResponseFlag::UpstreamConnectionTermination);
                record.failure = Some(error.to_string());
                record.reason = Some(Reason::Reset);
            }
            // Nobody may take a part of what is sent for the whole.
            RelayEnded::Over => {
                down.reset();
                up.reset();
                record.flags.set(ResponseFlag::DurationTimeout);
                record.details = Some("max_connection_duration".into());
                record.reason = Some(Reason::Timeout);
            }
            RelayEnded::Worker if downstream.holder.is_evicted() => {
                down.reset();
                up.reset();
                record.overflowed(worker);
            }
            RelayEnded::Worker => {
                down.reset();
                up.reset();
                record.flags.set(ResponseFlag::LocalReset);
                record.details = Some("drain_timeout".into());
                record.reason = Some(Reason::Timeout);
            }
        }
        drop((down, up, work));
        record.finish(worker, downstream);
    }
}
