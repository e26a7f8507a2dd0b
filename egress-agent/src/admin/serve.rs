//! Connections to the admin endpoints: who gets a place, and what is answered.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
    time::{self, Duration},
};

use super::{
    AdminSources, Status,
    places::{Admission, EndpointConnections, Id, origin},
    rollout,
    routes::{self, Answer, Endpoint},
    ui::Ui,
};
use crate::{
    policy::{Caller, OwnPort},
    sys::spare::SpareDescriptors,
    telemetry::{AdminRefusal, Telemetry},
};

/// From one request's end, or the accept, to the next one's head.
const HEAD: Duration = Duration::from_secs(5);
/// A whole connection, however many requests it carries.
const CONNECTION: Duration = Duration::from_secs(60);
/// How long to wait when there is no descriptor, not even a spare one.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Largest head.
const HEAD_BYTES: usize = 16 * 1024;
/// Descriptors that an endpoint holds so that it can accept where the process has no others.
const SPARE: usize = 16;

/// How far the endpoints are from their end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Serving,
    /// Another process accepts from the same listeners; what is open ends with its next answer.
    Leaving,
    Ended,
}

/// What all endpoints answer from.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) status: Arc<Status>,
    pub(super) sources: AdminSources,
    pub(super) ui: Ui,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl Service {
    fn caller(&self, endpoint: Endpoint, stream: &TcpStream, peer: SocketAddr) -> Caller {
        let Ok(local) = stream.local_addr() else { return Caller::Refused };
        let (port, served) = match endpoint {
            // It listens on loopback only.
            Endpoint::Admin => (OwnPort::ForObservers, &[][..]),
            Endpoint::Health => (OwnPort::ForNodes, &self.sources.health[..]),
            Endpoint::Metrics => (OwnPort::ForObservers, &self.sources.metrics[..]),
        };
        self.status.callers().classify(peer.ip(), local.ip(), port, served)
    }
}

/// Accepts, judges and serves until the runtime ends, or another process does. No source keeps another one
/// waiting: a connection is judged as soon as it is there.
pub(super) async fn accept(
    endpoint: Endpoint,
    listener: TcpListener,
    service: Arc<Service>,
    mut phases: watch::Receiver<Phase>,
) {
    let leaving = phases.clone();
    let mut places = EndpointConnections::default();
    // Dropping a connection's sender closes it.
    let mut open: HashMap<Id, oneshot::Sender<Infallible>> = HashMap::new();
    let (over, mut ended) = mpsc::unbounded_channel();
    let mut spare = SpareDescriptors::new(SPARE);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(id) = ended.recv() => {
                places.leave(id);
                open.remove(&id);
                spare.refill();
                continue;
            }
            () = left(&mut phases) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_out_of_files(&error) && spare.release() => continue,
            Err(error) => {
                tracing::warn!(%error, "an admin endpoint can't accept a connection");
                time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let refusals = service.telemetry.stats.admin_refusals();
        let caller = service.caller(endpoint, &stream, peer);
        let id = match places.admit(origin(peer.ip()), caller) {
            Admission::Admitted(id) => id,
            Admission::Instead { id, of } => {
                refusals.add(endpoint.name(), AdminRefusal::Overflow);
                open.remove(&of);
                id
            }
            Admission::Refused => {
                refusals.add(endpoint.name(), AdminRefusal::Source);
                tracing::debug!(%peer, endpoint = endpoint.name(), "not served: its source is refused");
                // The client sees a reset, as of a port that is closed. It fails only where the
                // client has gone.
                stream.set_zero_linger().ok();
                continue;
            }
        };
        let (keep, closed) = oneshot::channel();
        open.insert(id, keep);
        let (service, over) = (Arc::clone(&service), over.clone());
        let leaving = leaving.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = answer(endpoint, stream, peer.ip(), &service, leaving) => {}
                _ = closed => {}
            }
            // It fails only where nothing more is accepted.
            over.send(id).ok();
        });
    }
    drop((listener, over));
    // What is open keeps its place until it has ended.
    while let Some(id) = ended.recv().await {
        open.remove(&id);
    }
}

/// Completes when what is new is another process's.
async fn left(phases: &mut watch::Receiver<Phase>) {
    // An error says that the handle is gone, and the runtime with it.
    phases.wait_for(|phase| *phase != Phase::Serving).await.ok();
}

fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE].iter().any(|e| errno == Some(e.raw_os_error()))
}

async fn answer(
    endpoint: Endpoint,
    stream: TcpStream,
    peer: IpAddr,
    service: &Service,
    mut phases: watch::Receiver<Phase>,
) {
    let follows = AtomicBool::new(false);
    let answering = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let (head, _) = request.into_parts();
        let Service { telemetry, status, ui, .. } = service;
        let mut response = match routes::respond(endpoint, &head, telemetry, status, ui) {
            Answer::Whole(response) => {
                response.map(|text| Full::new(Bytes::from(text)).boxed_unsync())
            }
            Answer::Events(response, events) => {
                follows.store(true, Ordering::Relaxed);
                response.map(|()| StreamBody::new(events.stream()).boxed_unsync())
            }
        };
        if let (Endpoint::Health, Some(rollout)) = (endpoint, status.rollout()) {
            rollout::exchange(rollout, peer, &head.headers, response.headers_mut());
        }
        std::future::ready(Ok::<_, Infallible>(finish(response)))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answering);
    let mut connection = pin!(connection);
    let mut served = pin!(async {
        tokio::select! {
            served = connection.as_mut() => return served,
            () = left(&mut phases) => {}
        }
        // The client's next request is for the other process, on another connection.
        connection.as_mut().graceful_shutdown();
        connection.await
    });
    let ended = match time::timeout(CONNECTION, served.as_mut()).await {
        // Who follows may stay, until the place is needed.
        Err(_) if follows.load(Ordering::Relaxed) => served.await,
        Err(_) => {
            tracing::debug!("a connection to an admin endpoint took too long");
            return;
        }
        Ok(ended) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to an admin endpoint failed");
    }
}

fn finish(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("egress-agent"));
    response
}
