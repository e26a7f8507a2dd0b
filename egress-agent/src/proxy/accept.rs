//! Accepting connections, and how many there may be.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    task::Poll,
    time::{Duration, Instant, SystemTime},
};

use egress_ebpf::reason::Reason;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::spawn_local,
    time::sleep,
};

use super::{Downstream, Worker, connection, record::Record, transport::Transport, tunnel};
use crate::{
    net::Side,
    policy::Hop,
    types::{ClientAddr, LocalAddr, OriginalPort, Port, Source},
};

/// First and longest wait when the process is out of files or memory.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// What comes in at a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Listening {
    /// Connections of applications, led here.
    Captured,
    /// Tunnels of nodes.
    Tunnels,
}

/// The worker's connections, in all and by source.
#[derive(Debug, Default)]
pub(super) struct Census {
    total: Cell<usize>,
    sources: RefCell<HashMap<IpAddr, usize>>,
    empty: Notify,
}

/// One connection's place; given back on drop.
pub(super) struct Place {
    census: Rc<Census>,
    source: IpAddr,
}

impl Census {
    pub(super) fn admit(self: &Rc<Self>, worker: &Worker, source: IpAddr) -> Option<Place> {
        let limits = &worker.limits;
        let mut sources = self.sources.borrow_mut();
        let of_source = sources.entry(source).or_default();
        if self.total.get() >= limits.connections || *of_source >= limits.connections_per_source {
            if *of_source == 0 {
                sources.remove(&source);
            }
            return None;
        }
        *of_source += 1;
        self.total.set(self.total.get() + 1);
        Some(Place { census: Rc::clone(self), source })
    }

    /// Completes when no connection is left.
    pub(super) async fn empty(&self) {
        while self.total.get() > 0 {
            self.empty.notified().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let census = &self.census;
        let mut sources = census.sources.borrow_mut();
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
        census.total.set(census.total.get() - 1);
        if census.total.get() == 0 {
            census.empty.notify_one();
        }
    }
}

/// Accepts until the worker drains; what the kernel has queued by then is served too.
pub(super) async fn accept(
    worker: Rc<Worker>,
    census: Rc<Census>,
    listener: TcpListener,
    kind: Listening,
) {
    let mut back_off = BACK_OFF.0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = worker.drain.started() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                back_off = BACK_OFF.0;
                start(&worker, &census, stream, peer, kind);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!("accept: {error}; trying again in {} ms", back_off.as_millis());
                sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF.1);
            }
        }
    }
    // Closing the listener resets what waits in its queue.
    while let Some((stream, peer)) = queued(&listener).await {
        start(&worker, &census, stream, peer, kind);
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
        tls: None,
        ending: None,
        start: Instant::now(),
        start_time: SystemTime::now(),
    })
}

fn start(
    worker: &Rc<Worker>,
    census: &Rc<Census>,
    stream: TcpStream,
    peer: SocketAddr,
    kind: Listening,
) {
    let Some(downstream) = downstream(worker, &stream, peer) else { return };
    let Some(place) = census.admit(worker, downstream.peer.ip()) else {
        stream.reset();
        drop(stream);
        Record::local(worker, &downstream, Reason::Overflow).finish(worker, downstream);
        return;
    };
    let worker = Rc::clone(worker);
    match kind {
        Listening::Captured => {
            spawn_local(async move {
                connection::serve(worker, downstream, Transport::Plain(stream)).await;
                drop(place);
            });
        }
        Listening::Tunnels => {
            let census = Rc::clone(census);
            spawn_local(async move {
                tunnel::serve(worker, census, downstream, stream).await;
                drop(place);
            });
        }
    }
}
