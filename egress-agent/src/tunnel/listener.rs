//! Pods' connections, from accept to their end.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use egress_ebpf::reason::Reason;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::{
    CallingProcess, Origin, Refusal,
    connection::StreamError,
    error::Refused,
    key::Key,
    pool::Pool,
    relay::{self, RelayEnd},
    request::request,
    settings::{Group, Settings},
    worker::Worker,
};
use crate::{
    net::FairTurns,
    telemetry::{FlowRecord, FlowVerdict, TUNNEL_HOOK, kept_labels},
    types::{ClientAddr, TraceId, Workload},
};

/// First and longest wait when the process is out of files or memory.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// Tries to open a stream: at the first gateway, and at another one.
const TRIES: usize = 3;

/// Limits a thread's connections, in all and per source, and gives each source its turns.
#[derive(Debug, Default)]
struct ConnectionLimiter {
    total: Cell<usize>,
    sources: RefCell<HashMap<IpAddr, Share>>,
}

/// What one source has of a thread.
#[derive(Debug, Default)]
struct Share {
    connections: usize,
    turns: Rc<FairTurns>,
}

/// One connection's permit; given back on drop.
struct Permit {
    limiter: Rc<ConnectionLimiter>,
    source: IpAddr,
    /// Its source's.
    turns: Rc<FairTurns>,
}

impl ConnectionLimiter {
    fn admit(self: &Rc<Self>, worker: &Worker, source: IpAddr) -> Option<Permit> {
        let mut sources = self.sources.borrow_mut();
        let of_source = sources.get(&source).map_or(0, |share| share.connections);
        let limits = &worker.limits;
        if self.total.get() >= limits.connections || of_source >= limits.connections_per_source {
            return None;
        }
        let share = sources.entry(source).or_default();
        share.connections += 1;
        let turns = Rc::clone(&share.turns);
        self.total.set(self.total.get() + 1);
        Some(Permit { limiter: Rc::clone(self), source, turns })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut sources = self.limiter.sources.borrow_mut();
        if let Some(share) = sources.get_mut(&self.source) {
            share.connections -= 1;
            if share.connections == 0 {
                sources.remove(&self.source);
            }
        }
        self.limiter.total.set(self.limiter.total.get() - 1);
    }
}

/// Accepts until the last part of the drain.
pub(super) async fn accept(worker: Rc<Worker>, pool: Rc<Pool>, listener: TcpListener) {
    let limiter = Rc::<ConnectionLimiter>::default();
    let mut back_off = BACK_OFF.0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = worker.drain.closed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                back_off = BACK_OFF.0;
                start(&worker, &pool, &limiter, stream, ClientAddr(peer));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                let wait = back_off.as_millis();
                tracing::warn!("the tunnel's listener: {error}; trying again in {wait} ms");
                sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF.1);
            }
        }
    }
}

/// Whether only the connection that was to be accepted is concerned (`accept(2)`).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
    )
}

fn start(
    worker: &Rc<Worker>,
    pool: &Rc<Pool>,
    limiter: &Rc<ConnectionLimiter>,
    stream: TcpStream,
    peer: ClientAddr,
) {
    // Whatever becomes of it, closing it is a reset until its regular end; see `relay`.
    if stream.set_zero_linger().is_err() {
        return;
    }
    // The record is taken in any case: the address and port will be another connection's.
    let Some(origin) = worker.origins.take(peer) else {
        return refuse(worker, peer, None, None, &Refused::NoRecord);
    };
    let Some(permit) = limiter.admit(worker, peer.ip()) else {
        return refuse(worker, peer, Some(&origin), None, &Refused::Overflow);
    };
    let (worker, pool) = (Rc::clone(worker), Rc::clone(pool));
    let turns = Rc::clone(&permit.turns);
    let running = worker.drain.enter();
    turns.spawn(async move {
        serve(&worker, &pool, stream, peer, origin).await;
        drop((permit, running));
    });
}

async fn serve(
    worker: &Rc<Worker>,
    pool: &Rc<Pool>,
    stream: TcpStream,
    peer: ClientAddr,
    origin: Origin,
) {
    let settings = worker.settings.load_full();
    let workload = settings.workload(&origin, peer);
    let opened = open(worker, pool, &settings, &origin, peer, workload).await;
    let (slot, halves) = match opened {
        Ok(opened) => opened,
        Err(refused) => return refuse(worker, peer, Some(&origin), workload, &refused),
    };
    match relay::run(worker, stream, &slot, halves).await {
        RelayEnd::Closed => {}
        RelayEnd::Pod(error) => tracing::debug!("tunnel: {peer} to {}: {error}", origin.original),
        RelayEnd::Gateway(why) => {
            tracing::debug!("tunnel: {peer} to {}: reset: {why}", origin.original);
        }
    }
}

type Opened = (super::connection::Slot, (h2::SendStream<bytes::Bytes>, h2::RecvStream));

/// A stream at a gateway that takes it. As long as no gateway has answered another one can be tried:
/// nothing of the pod's was sent.
async fn open(
    worker: &Rc<Worker>,
    pool: &Rc<Pool>,
    settings: &Settings,
    origin: &Origin,
    peer: ClientAddr,
    workload: Option<&Arc<Workload>>,
) -> Result<Opened, Refused> {
    let (group, tls) = settings.group(origin)?;
    let identity = settings.identity(workload);
    let mut last = None;
    for endpoint in order(group, worker.turn(), TRIES) {
        let key = Key { endpoint, tls: Arc::clone(tls), identity: identity.clone() };
        let slot = match pool.slot(worker, &key).await {
            Ok(slot) => slot,
            Err(error) => {
                last = Some(Refused::Dial(error));
                continue;
            }
        };
        let request = request(origin, peer, workload);
        let request = request.map_err(|error| Refused::Request(error.to_string()))?;
        let answer = slot.connect(request);
        match timeout(worker.limits.answer, answer).await {
            Ok(Ok(stream)) => return Ok((slot, stream)),
            Ok(Err(StreamError::Broken(why))) => {
                last = Some(Refused::Broken { with: endpoint, why });
            }
            Ok(Err(StreamError::Status(status))) => {
                return Err(Refused::Status { by: endpoint, status });
            }
            Ok(Err(StreamError::Reset(why))) => return Err(Refused::Reset { by: endpoint, why }),
            Err(_) => return Err(Refused::Silent { by: endpoint }),
        }
    }
    Err(last.unwrap_or(Refused::NotConfigured { group: origin.group }))
}

/// Whom to try: each healthy gateway in turn, and the first one again, whose tunnel may only have
/// been an old one that broke.
fn order(group: &Group, turn: usize, tries: usize) -> Vec<SocketAddr> {
    let healthy = &group.healthy;
    let start = turn.checked_rem(healthy.len()).unwrap_or(0);
    healthy
        .iter()
        .cycle()
        .skip(start)
        .take(if healthy.is_empty() { 0 } else { tries })
        .copied()
        .collect()
}

/// Tells and counts; the connection is reset when it is dropped.
fn refuse(
    worker: &Worker,
    peer: ClientAddr,
    origin: Option<&Origin>,
    workload: Option<&Arc<Workload>>,
    refused: &Refused,
) {
    let refusal = refused.refusal();
    worker.stats.count_refused(refusal);
    let to = origin.map(|origin| format!(" to {}", origin.original)).unwrap_or_default();
    match worker.refusal_log.due(refusal) {
        Some(0) => tracing::warn!("tunnel: connection of {peer}{to} reset: {refused}"),
        Some(more) => {
            tracing::warn!(
                "tunnel: connection of {peer}{to} reset, and {more} before it: {refused}"
            );
        }
        None => tracing::debug!("tunnel: connection of {peer}{to} reset: {refused}"),
    }
    let reason = refusal.reason();
    // The caller of a connection without a record is unknown: whoever dialled the listener did so past the hook.
    let process = origin.map(|origin| worker.origins.process(origin)).unwrap_or_default();
    let CallingProcess { pid, executable, command, cgroup, container } = process;
    worker.flows.push(FlowRecord {
        time: SystemTime::now(),
        hook: TUNNEL_HOOK.into(),
        verdict: verdict(refusal),
        reason: Some(Reason::name(reason).into()),
        audit: false,
        set: None,
        workload: workload.map(|workload| workload.name.to_string()),
        namespace: workload.map(|workload| workload.namespace.0.to_string()),
        labels: workload.map(|workload| kept_labels(&workload.labels)).unwrap_or_default(),
        pid,
        executable,
        command,
        container,
        cgroup,
        interface: None,
        source_address: Some(peer.ip()),
        source_port: Some(peer.0.port()),
        destination_address: origin.map(|origin| origin.original.ip()),
        destination_port: origin.map(|origin| origin.original.0.port()),
        gateway: refused.gateway(),
        trace_id: origin
            .and_then(|origin| TraceId::of(peer.0, origin.original.0.port()))
            .map(|id| id.to_string()),
        host: None,
        protocol: "TCP".into(),
        ech: false,
        upstream: None,
        response_code: None,
        response_flags: None,
        detail: Some(refused.to_string()),
        server: None,
    });
}

/// Whether somebody said no, or it only went wrong.
fn verdict(refusal: Refusal) -> FlowVerdict {
    match refusal {
        Refusal::NoRecord | Refusal::Overflow | Refusal::NotConfigured | Refusal::Gateway => {
            FlowVerdict::Deny
        }
        Refusal::NoHealthyGateway
        | Refusal::Credentials
        | Refusal::Connect
        | Refusal::Timeout
        | Refusal::Tls
        | Refusal::Broken => FlowVerdict::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_take_turns_and_another_one_is_next() {
        let addr = |last: u8| SocketAddr::from(([10, 0, 0, last], 15008));
        let healthy = vec![addr(1), addr(2)];
        let group = Group { service: "s".into(), tls: None, healthy };
        assert_eq!(order(&group, 0, 3), [addr(1), addr(2), addr(1)]);
        assert_eq!(order(&group, 1, 3), [addr(2), addr(1), addr(2)]);
        assert_eq!(order(&group, 2, 3), [addr(1), addr(2), addr(1)]);
        let none = Group { healthy: Vec::new(), ..group };
        assert!(order(&none, 7, 3).is_empty());
    }
}
