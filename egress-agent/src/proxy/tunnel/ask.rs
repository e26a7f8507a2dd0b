//! One CONNECT of a tunnel: what it asks for, who asks, and the answer.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use egress_ebpf::reason::Reason;
use futures_util::FutureExt as _;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderName, Method, Request, Response, StatusCode};

use super::{Tunnel, TunnelStream};
use crate::{
    policy::{Denied, Hop, PortMode},
    proxy::{
        Downstream, Permit, Queued, connection, details::OVERFLOW_SENTENCE, record::Record,
        transport::Transport,
    },
    telemetry::Open,
    types::{ClientAddr, DownstreamTls, LocalAddr, OriginalDst},
    wire::hbone::{self, HboneError},
};

/// No connection, and the status that says so.
struct Refusal {
    status: StatusCode,
    denied: Denied,
    /// As far as it was known.
    downstream: Downstream,
}

/// Counts a connection of the tunnel as long as it is open.
struct TunnelConnectionGuard {
    tunnel: Rc<Tunnel>,
    _open: Open,
}

impl TunnelConnectionGuard {
    fn new(tunnel: &Rc<Tunnel>) -> Self {
        tunnel.active.set(tunnel.active.get() + 1);
        let open = tunnel.worker.telemetry.stats.tunnels().stream();
        Self { tunnel: Rc::clone(tunnel), _open: open }
    }
}

impl Drop for TunnelConnectionGuard {
    fn drop(&mut self) {
        self.tunnel.active.set(self.tunnel.active.get() - 1);
        self.tunnel.idle_since.set(tokio::time::Instant::now());
    }
}

impl Tunnel {
    /// Answers a request, and serves what it asked for.
    pub(super) fn start(
        self: &Rc<Self>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Queued>,
    ) {
        match self.judge(&request) {
            Ok((downstream, place)) => {
                // A client that is gone by now has nothing to be told.
                let Ok(send) = respond.send_response(Response::new(()), false) else { return };
                let ending = self.ending.clone();
                let holder = downstream.holder.clone();
                let inbox = self.streams.open(request.into_body(), holder.clone());
                let stream = TunnelStream::new(send, inbox, holder.clone(), ending);
                let (worker, active) = (Rc::clone(&self.worker), TunnelConnectionGuard::new(self));
                let stream = Transport::Tunnel(Box::new(stream));
                let serving = connection::serve(worker, downstream, stream);
                holder.spawn(serving.map(move |()| drop((place, active))));
            }
            Err(refusal) => {
                let Refusal { status, denied, downstream } = *refusal;
                tracing::debug!(
                    "{}: {} ({})",
                    downstream.peer,
                    denied.detail,
                    denied.reason.name()
                );
                let mut response = Response::new(());
                *response.status_mut() = status;
                // As above.
                respond.send_response(response, true).ok();
                Record::denied(&self.worker, &downstream, &denied).finish(&self.worker, downstream);
            }
        }
    }

    /// Who asks and for what, or why it is refused.
    fn judge(&self, request: &Request<RecvStream>) -> Result<(Downstream, Permit), Box<Refusal>> {
        let mut downstream = Downstream {
            start: Instant::now(),
            start_time: SystemTime::now(),
            hop: Hop::Tunnel,
            encrypted_hello: false,
            tls: Some(Arc::new(self.tls.clone())),
            ending: Some(self.ending.clone()),
            ..self.downstream.clone()
        };
        let refuse = |status, reason, detail: String, downstream: &Downstream| {
            let denied = Denied { reason, detail, matched: None };
            Box::new(Refusal { status, denied, downstream: downstream.clone() })
        };
        let bad = |error: HboneError, downstream: &Downstream| {
            refuse(StatusCode::BAD_REQUEST, Reason::BadRequest, error.to_string(), downstream)
        };
        if request.method() != Method::CONNECT {
            let detail = format!("found the method {}, expected CONNECT", request.method());
            let status = StatusCode::METHOD_NOT_ALLOWED;
            return Err(refuse(status, Reason::BadRequest, detail, &downstream));
        }
        let authority = request.uri().authority().map_or("", |authority| authority.as_str());
        let dialled = hbone::read_authority(authority).map_err(|error| bad(error, &downstream))?;
        let Some(port) = dialled.port() else {
            return Err(bad(HboneError::Authority(authority.into()), &downstream));
        };
        downstream.local = LocalAddr(dialled.0);
        downstream.port = port;
        let claim = header(request, &hbone::BAGGAGE).map(|text| hbone::read_baggage(&text?));
        let claim = claim.transpose().map_err(|error| bad(error, &downstream))?;
        let from = header(request, &hbone::FORWARDED).map(|text| hbone::read_forwarded(&text?));
        let from = from.transpose().map_err(|error| bad(error, &downstream))?;
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let policy = self
            .worker
            .policy()
            .map_err(|denied| refuse(unavailable, denied.reason, denied.detail, &downstream))?;
        let peer = self.downstream.peer.ip();
        let source = policy
            .claimed(&self.principal, peer, claim.as_ref(), from.map(ClientAddr::ip))
            .map_err(|denied| {
                refuse(StatusCode::FORBIDDEN, denied.reason, denied.detail, &downstream)
            })?;
        // The port is the application's own where the address is the one that was believed.
        let port = from.filter(|from| from.ip() == source.addr).map_or(0, |from| from.0.port());
        downstream.peer = ClientAddr(SocketAddr::new(source.addr, port));
        let vouched = source.principal.as_ref().map(|id| id.to_string().into());
        downstream.tls = Some(Arc::new(DownstreamTls { vouched, ..self.tls.clone() }));
        downstream.source = source;
        if let PortMode::Closed(reason) = policy.tunnel_mode(&downstream.source, dialled) {
            let detail = closed(dialled);
            return Err(refuse(StatusCode::FORBIDDEN, reason, detail, &downstream));
        }
        let Some(place) = self.worker.limiter.admit(&downstream.source) else {
            let detail = OVERFLOW_SENTENCE.into();
            return Err(refuse(unavailable, Reason::Overflow, detail, &downstream));
        };
        downstream.holder = place.holder();
        Ok((downstream, place))
    }
}

fn closed(dialled: OriginalDst) -> String {
    format!("no route for {dialled}")
}

/// A header's lines as one, as RFC 9110 §5.3 has it.
fn header(request: &Request<RecvStream>, name: &HeaderName) -> Option<Result<String, HboneError>> {
    let mut lines = request.headers().get_all(name).iter().peekable();
    lines.peek()?;
    let mut text = String::new();
    for line in lines {
        let Ok(line) = line.to_str() else {
            let shown = String::from_utf8_lossy(line.as_bytes()).chars().take(64).collect();
            return Some(Err(HboneError::Member(shown)));
        };
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(line);
    }
    Some(Ok(text))
}
