//! Tunnels of nodes: HTTP/2 CONNECT inside mutual TLS (HBONE). Each stream is judged on its own, and
//! then served like a connection that came in on the port that was dialled.

mod ask;
mod stream;

use std::{cell::Cell, future::poll_fn, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use egress_ebpf::reason::Reason;
use h2::server::{Builder, Connection};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout, timeout_at},
};

pub(super) use self::stream::TunnelStream;
use super::{
    Downstream, Queued, Worker,
    inbox::Streams,
    ping_timeout::ping_timeout,
    record::Record,
    refuse::{RefusalKind, leave, refuse},
    terminate::failed,
};
use crate::{
    net::{CONNECTION_WINDOW, FrameObserver, Frames, Linger, PrefixedIo, RelayIo},
    policy::{Denied, ServerTls},
    sys::socket::user_timeout,
    tls::{AcceptError, PeerEnded, Refused, RevocationSignal, Terminated, accept},
    types::{DownstreamTls, SpiffeId},
    wire::hbone,
};

/// What one connection of a tunnel may have under way towards us, as long as readers read: a bulk
/// upload at 4 Gbit/s over 2 ms.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// What small frames may cost, in bytes as the library counts them, before it closes a tunnel. Our own
/// queues take frames over as they come, so that only what comes between two turns counts.
const DATA_FRAMES: usize = 64 * 1024 * 1024;
/// A frame's data in bytes: small enough that nobody waits long for another's.
const FRAME: u32 = 64 * 1024;
/// Bytes of one stream that wait to be written.
const SEND_BUFFER: usize = 1024 * 1024;
/// Connections of pods that may have come and gone before they were answered. With h2's own 20 a pod
/// that dials and resets in a burst would end the tunnel for all of its identity; what one costs here
/// is its entry in a list.
const GONE: usize = 4096;
/// Streams that were reset here and whose late frames are ignored.
const RESET_STREAMS: usize = 10_000;
/// A node always reads, so one that takes nothing for so long is gone.
const NODE_GONE: Duration = Duration::from_secs(30);
/// Bytes of a CONNECT's headers.
const HEAD: u32 = 32 * 1024;
/// For the last frames of a tunnel that is ended at once.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// An open tunnel.
struct Tunnel {
    worker: Rc<Worker>,
    /// The tunnel itself, as its listener accepted it.
    downstream: Downstream,
    /// What its client proved.
    tls: DownstreamTls,
    principal: SpiffeId,
    /// Set once its certificates are no longer valid.
    ending: RevocationSignal,
    /// Connections in it.
    active: Cell<usize>,
    /// When the last one ended.
    idle_since: Cell<Instant>,
    /// What its connections have received and not taken.
    streams: Rc<Streams>,
}

/// What a tunnel's HTTP/2 runs on.
type Io = Frames<Linger<Terminated>>;

/// Serves a tunnel from its handshake to its end.
pub(super) async fn serve(worker: Rc<Worker>, downstream: Downstream, stream: TcpStream) {
    let wanted = worker.policy().and_then(|policy| {
        policy.tunnel().cloned().ok_or_else(|| Denied {
            reason: Reason::NoRoute,
            detail: "no DestinationRule asks for a tunnel to this gateway".into(),
            matched: None,
        })
    });
    let settings = match wanted {
        Ok(settings) => settings,
        Err(denied) => {
            let record = Record::denied(&worker, &downstream, &denied);
            stream.reset();
            drop(stream);
            record.finish(&worker, downstream);
            return;
        }
    };
    if let Err(error) = user_timeout(&stream, NODE_GONE) {
        tracing::debug!(%error, "the kernel does not watch a tunnel's node");
    }
    let deadline = Instant::now() + worker.limits.tls_handshake;
    let Some(AuthenticatedPeer { stream, tls, principal, downstream }) =
        shake(&worker, &settings, downstream, stream, deadline).await
    else {
        return;
    };
    let chain = stream.tls().peer_certificates().unwrap_or_default();
    let chain: Vec<_> = chain.iter().map(|der| der.clone().into_owned()).collect();
    let stream = Frames::from_client(Linger::new(stream, worker.limits.linger));
    let arrivals = stream.arrivals();
    let opening = open(worker.limits.tunnel_streams, stream);
    let connection = tokio::select! {
        opened = timeout_at(deadline, opening) => opened,
        () = worker.ends(&downstream.holder) => return,
    };
    let connection = match connection {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let reason = if error.is_io() { Reason::Reset } else { Reason::BadRequest };
            let detail = format!("HTTP/2 inside the tunnel's TLS failed: {error}");
            failed(&worker, &downstream, None, reason, detail).finish(&worker, downstream);
            return;
        }
        Err(_) => {
            Record::local(&worker, &downstream, Reason::Timeout).finish(&worker, downstream);
            return;
        }
    };
    tracing::debug!("{}: a tunnel of {principal}", downstream.peer);
    let _open = worker.telemetry.stats.tunnels().tunnel();
    let room = worker.limits.queued_bytes / 2;
    let streams = Streams::new(Rc::clone(&arrivals), STREAM_WINDOW, room);
    let tunnel = Rc::new(Tunnel {
        worker,
        downstream,
        tls,
        principal,
        ending: RevocationSignal::default(),
        active: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
        streams,
    });
    tunnel.run(connection, &settings, &chain, &arrivals).await;
}

/// A client that proved who it is.
struct AuthenticatedPeer {
    stream: Terminated,
    tls: DownstreamTls,
    principal: SpiffeId,
    downstream: Downstream,
}

/// The TLS handshake. `None` if it failed: then the client was told, and it is logged.
async fn shake(
    worker: &Rc<Worker>,
    settings: &Arc<ServerTls>,
    downstream: Downstream,
    stream: TcpStream,
    deadline: Instant,
) -> Option<AuthenticatedPeer> {
    let config = match worker.credentials.server(settings) {
        Ok(config) => config,
        Err(unusable) => {
            let reason = Reason::NoServerCertificate;
            let record = failed(worker, &downstream, None, reason, unusable.to_string());
            refuse(worker, stream, RefusalKind::tls(reason)).await;
            record.finish(worker, downstream);
            return None;
        }
    };
    let handshake = accept(http2_alone(&config), PrefixedIo::new(Bytes::new(), stream), deadline);
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        () = worker.ends(&downstream.holder) => return None,
    };
    let refused = |error: AcceptError| {
        tracing::debug!("{}: {error} ({})", downstream.peer, error.reason().name());
        failed(worker, &downstream, None, error.reason(), error.to_string())
    };
    match accepted {
        Ok((stream, tls)) => {
            let error = match (tls.principal(), stream.tls().alpn_protocol()) {
                (Some(principal), Some(hbone::ALPN)) => {
                    let principal = principal.clone();
                    return Some(AuthenticatedPeer { stream, tls, principal, downstream });
                }
                (None, _) => AcceptError::Identity("it holds no SPIFFE ID of a workload".into()),
                (Some(_), _) => AcceptError::Protocol("the client doesn't offer h2 (ALPN)".into()),
            };
            let record = refused(error);
            stream.reset();
            drop(stream);
            record.finish(worker, downstream);
        }
        Err(Refused { error, stream }) => {
            let record = refused(error);
            if let Some(stream) = stream {
                leave(worker, stream).await;
            }
            record.finish(worker, downstream);
        }
    }
    None
}

/// The same configuration, for HTTP/2 and nothing else.
fn http2_alone(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![hbone::ALPN.to_vec()];
    Arc::new(config)
}

async fn open(streams: u32, stream: Io) -> Result<Connection<Io, Queued>, h2::Error> {
    Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(streams)
        .max_header_list_size(HEAD)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(GONE)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(None)
        .data_frame_budget(DATA_FRAMES)
        .handshake(stream)
        .await
}

impl Tunnel {
    async fn run(
        self: Rc<Self>,
        mut connection: Connection<Io, Queued>,
        settings: &Arc<ServerTls>,
        chain: &[CertificateDer<'static>],
        arrivals: &FrameObserver,
    ) {
        let credentials = Arc::clone(&self.worker.credentials);
        let mut not_good = std::pin::pin!(credentials.client_ends(settings, chain));
        let ping = connection.ping_pong();
        let mut silent =
            std::pin::pin!(ping_timeout(ping, self.worker.limits.tunnel_pulse, arrivals));
        let drain = &self.worker.drain;
        let mut closing = false;
        loop {
            tokio::select! {
                accepted = poll_fn(|cx| {
                    let accepted = connection.poll_accept(cx);
                    self.streams.turn(cx, |window| connection.set_initial_window_size(window));
                    accepted
                }) => match accepted {
                    Some(Ok((request, respond))) => self.start(request, respond),
                    Some(Err(error)) => {
                        tracing::debug!("{}: the tunnel broke: {error}", self.downstream.peer);
                        return;
                    }
                    None => return,
                },
                error = &mut not_good => {
                    self.end(error);
                    return at_once(connection, h2::Reason::INADEQUATE_SECURITY).await;
                }
                () = &mut silent => {
                    tracing::debug!("{}: the tunnel's node gives no sign of life", self.downstream.peer);
                    return;
                }
                () = drain.expired() => return at_once(connection, h2::Reason::CANCEL).await,
                () = drain.started(), if !closing => {
                    closing = true;
                    connection.graceful_shutdown();
                }
                () = sleep_until(self.idle_until()), if !closing => {
                    if self.active.get() == 0 && self.idle_until() <= Instant::now() {
                        closing = true;
                        connection.graceful_shutdown();
                    }
                }
            }
        }
    }

    /// When it has been idle for long enough; while it isn't, when to look again.
    fn idle_until(&self) -> Instant {
        let limit = self.worker.limits.tunnel_idle;
        let since = self.idle_since.get();
        if self.active.get() == 0 { since + limit } else { since.max(Instant::now()) + limit }
    }

    /// Its client's certificates are no longer valid: what runs in it fails for that reason.
    fn end(&self, error: AcceptError) {
        let ended = PeerEnded(error);
        tracing::info!("{}: {ended}", self.downstream.peer);
        let mut downstream = self.downstream.clone();
        downstream.tls = Some(Arc::new(self.tls.clone()));
        let mut record = Record::black_hole(&self.worker, &downstream, ended.reason());
        record.ended(&ended);
        record.finish(&self.worker, downstream);
        self.ending.set(ended);
    }
}

/// Ends a tunnel and all in it, with a word of why as far as the other end listens.
async fn at_once(mut connection: Connection<Io, Queued>, why: h2::Reason) {
    connection.abrupt_shutdown(why);
    // An end that doesn't come in time is made by dropping the connection.
    timeout(LAST_WORDS, poll_fn(|cx| connection.poll_closed(cx))).await.ok();
}
