//! Accepting connections, and how many there may be.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant, SystemTime},
};

use egress_ebpf::reason::Reason;
use futures_util::FutureExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    task::yield_now,
    time::sleep,
};

use super::{
    ConnectionOwner, Downstream, Worker, connection, record::Record, transport::Transport, tunnel,
};
use crate::{
    net::RelayIo,
    policy::{Caller, Denied, Hop, OwnPort},
    sys::spare::SpareDescriptors,
    telemetry::Resource,
    types::{ClientAddr, LocalAddr, OriginalPort, Port, Source},
};

/// First and longest wait when the process is out of files or memory.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// How many connections a listener's task takes before all other tasks have their turn. Each of them may cost a
/// refusal and its line in the log.
pub(super) const AT_ONCE: u32 = 8;

/// What comes in at a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Listening {
    /// Connections of applications, led here.
    Captured,
    /// Tunnels of nodes.
    Tunnels,
}

/// Accepts until the worker drains; what the kernel has queued by then is served too. `spare` is for all of
/// the worker's listeners.
pub(super) async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    kind: Listening,
    spare: Rc<RefCell<SpareDescriptors>>,
) {
    let mut back_off = BACK_OFF.0;
    let mut taken = 0_u32;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = worker.drain.started() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                back_off = BACK_OFF.0;
                start(&worker, stream, peer, kind);
                taken = taken.wrapping_add(1);
                if taken.is_multiple_of(AT_ONCE) {
                    yield_now().await;
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            // Nobody is to wait in the queue for an answer that does not come.
            Err(error) if is_out_of_files(&error) && spare.borrow_mut().release() => {
                if let Some((stream, peer)) = queued(&listener).await {
                    refuse(&worker, stream, peer);
                }
                spare.borrow_mut().refill();
                sleep(BACK_OFF.0).await;
            }
            Err(error) => {
                tracing::warn!("accept: {error}; trying again in {} ms", back_off.as_millis());
                sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF.1);
            }
        }
    }
    // The process that took over has the same listener, and takes what waits in its queue.
    if !worker.drain.is_last() {
        return;
    }
    // Closing the listener resets what waits in its queue.
    while let Some((stream, peer)) = queued(&listener).await {
        start(&worker, stream, peer, kind);
    }
}

/// The next connection, if one is waiting.
async fn queued(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    poll_fn(|cx| match listener.poll_accept(cx) {
        Poll::Ready(result) => Poll::Ready(result.ok()),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// There is no descriptor for what the connection would need.
fn refuse(worker: &Worker, stream: TcpStream, peer: SocketAddr) {
    let Some(downstream) = downstream(worker, &stream, peer) else { return };
    stream.reset();
    drop(stream);
    worker.telemetry.stats.limits().refused(Resource::Descriptors);
    Record::overflow(worker, &downstream).finish(worker, downstream);
}

fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE].iter().any(|e| errno == Some(e.raw_os_error()))
}

/// Whether only the connection that was to be accepted is concerned (`accept(2)`).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
    )
}

/// What is known of a connection from the start; `None` if it is gone already.
pub(super) fn downstream(
    worker: &Worker,
    stream: &TcpStream,
    peer: SocketAddr,
) -> Option<Downstream> {
    let peer = ClientAddr(peer);
    let local = stream.local_addr().ok()?;
    let source = match &*worker.policy.load() {
        Some(policy) => policy.source(peer.ip()),
        None => Source::unauthenticated(peer.ip(), None),
    };
    Some(Downstream {
        peer,
        local: LocalAddr(local),
        port: OriginalPort(Port::new(local.port())?),
        hop: Hop::Plain,
        source,
        encrypted_hello: false,
        tls: None,
        ending: None,
        holder: ConnectionOwner::default(),
        start: Instant::now(),
        start_time: SystemTime::now(),
    })
}

/// Why a connection to a port that only nodes use is refused, where it comes from a workload.
fn own_port(worker: &Worker, downstream: &Downstream, kind: Listening) -> Option<Denied> {
    if kind == Listening::Captured {
        return None;
    }
    let policy = worker.policy.load();
    let callers = policy.as_ref()?.callers();
    let (source, local) = (downstream.peer.ip(), downstream.local.0.ip());
    match callers.classify(source, local, OwnPort::ForNodes, &[]) {
        Caller::Node | Caller::Other => None,
        Caller::Refused => Some(Denied {
            reason: Reason::GatewayPort,
            detail: format!("port {} is for nodes; the source is a workload", downstream.port),
            matched: None,
        }),
    }
}

/// Notes a connection that comes from a node's address, where the pod that it is from cannot be known.
fn note_node(worker: &Worker, downstream: &Downstream) {
    let address = downstream.peer.ip();
    let policy = worker.policy.load();
    let Some(node) = policy.as_ref().and_then(|policy| policy.node_at(address)) else { return };
    let now = Instant::now();
    if worker.telemetry.stats.node_sources().note(node, address, now) {
        tracing::warn!(
            "a connection came from {address}, the address of the node {node}: which pod it is from is not \
             known, and rules by workload do not match it"
        );
    }
}

fn start(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, kind: Listening) {
    let Some(mut downstream) = downstream(worker, &stream, peer) else { return };
    if let Some(denied) = own_port(worker, &downstream, kind) {
        stream.reset();
        drop(stream);
        Record::denied(worker, &downstream, &denied).finish(worker, downstream);
        return;
    }
    let Some(place) = worker.limiter.admit(&downstream.source) else {
        stream.reset();
        drop(stream);
        Record::overflow(worker, &downstream).finish(worker, downstream);
        return;
    };
    if kind == Listening::Captured {
        note_node(worker, &downstream);
    }
    let holder = place.holder();
    downstream.holder = holder.clone();
    let worker = Rc::clone(worker);
    match kind {
        Listening::Captured => {
            // Not in a block that is `async`: that would hold what it is made of as long as the connection.
            let serving = connection::serve(worker, downstream, Transport::Plain(stream));
            holder.spawn(serving.map(move |()| drop(place)));
        }
        Listening::Tunnels => {
            holder.spawn(async move {
                tunnel::serve(worker, downstream, stream).await;
                drop(place);
            });
        }
    }
}
