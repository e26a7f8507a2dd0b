//! A connection to a gateway that many streams share, from its first to its last.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    convert::Infallible,
    future::{Future as _, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{
    FlowControl, Ping, PingPong, Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{Request, StatusCode};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    Closed,
    client::{OpenConnection, STREAM_WINDOW},
    key::Key,
    stats::Gauge,
    worker::Worker,
};
use crate::net::{Windows, stream_window};

/// What streams of one thread may hold for pods that don't read, in bytes, before all have the smallest
/// windows.
const HELD: usize = 128 * 1024 * 1024;

/// A connection, as those who use it see it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) to: SocketAddr,
    /// `None` once no new stream may begin. HTTP/2 then ends it after its last stream.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    streams: Cell<usize>,
    /// The first stream began, or the last one ended.
    busy: Notify,
    /// Bytes that were received for pods and not yet taken by them.
    held: Cell<usize>,
    /// The window that its streams are to have, if it is another than the gateway was told.
    window: Notify,
    windows: Windows,
    /// The windows of the streams that pods read.
    readers: RefCell<HashMap<u32, FlowControl>>,
}

/// A place for one stream.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) connection: Rc<Connection>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let streams = &self.connection.streams;
        streams.set(streams.get().saturating_sub(1));
        if streams.get() == 0 {
            self.connection.busy.notify_one();
        }
    }
}

/// How a CONNECT failed.
#[derive(Debug)]
pub(super) enum StreamError {
    /// The tunnel is of no use, and the gateway did nothing: another try can't do harm.
    Broken(String),
    /// The gateway's answer.
    Status(StatusCode),
    /// The gateway's reset.
    Reset(String),
}

impl Connection {
    pub(super) fn new(to: SocketAddr, sender: SendRequest<Bytes>) -> Rc<Self> {
        Rc::new(Self {
            to,
            sender: RefCell::new(Some(sender)),
            streams: Cell::new(0),
            busy: Notify::new(),
            held: Cell::new(0),
            window: Notify::new(),
            windows: Windows::new(STREAM_WINDOW),
            readers: RefCell::default(),
        })
    }

    /// A place, unless the gateway's limit of streams is reached; `Err` if none will ever be free.
    pub(super) fn slot(self: &Rc<Self>) -> Result<Option<Slot>, Unusable> {
        let mut sender = self.sender.borrow_mut();
        let usable = sender.as_mut().ok_or(Unusable)?;
        // It is told at once whether the connection broke or the gateway said GOAWAY.
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(_)) = usable.poll_ready(&mut nobody) {
            *sender = None;
            return Err(Unusable);
        }
        if self.streams.get() >= usable.current_max_send_streams() {
            return Ok(None);
        }
        self.streams.set(self.streams.get() + 1);
        if self.streams.get() == 1 {
            self.busy.notify_one();
        }
        Ok(Some(Slot { connection: Rc::clone(self) }))
    }

    /// No new stream begins on it; those that are open go on.
    pub(super) fn retire(&self) {
        self.sender.borrow_mut().take();
    }

    /// So many bytes wait here for a pod.
    pub(super) fn hold(&self, worker: &Worker, bytes: usize) {
        self.set_held(worker, self.held.get() + bytes);
    }

    /// So many went on, or are dropped.
    pub(super) fn let_go(&self, worker: &Worker, bytes: usize) {
        self.set_held(worker, self.held.get().saturating_sub(bytes));
    }

    fn set_held(&self, worker: &Worker, held: usize) {
        let before = self.held.replace(held);
        worker.held.set((worker.held.get() + held).saturating_sub(before));
        if self.target(worker) != self.windows.announced() {
            self.window.notify_one();
        }
    }

    /// A pod begins to read a stream.
    pub(super) fn add_reader(&self, flow: &FlowControl) {
        self.readers.borrow_mut().insert(flow.stream_id().as_u32(), flow.clone());
    }

    /// It reads no more.
    pub(super) fn remove_reader(&self, flow: &FlowControl) {
        self.readers.borrow_mut().remove(&flow.stream_id().as_u32());
    }

    /// The task that drives the connection has had its turn.
    fn turn(
        &self,
        cx: &Context<'_>,
        worker: &Worker,
        set: impl FnOnce(u32) -> Result<(), h2::Error>,
    ) {
        self.windows.turn(cx, self.target(worker), set, |visit| {
            self.readers.borrow_mut().values_mut().for_each(visit);
        });
    }

    /// The window of its streams. Bytes that wait for a pod which doesn't read don't count against the
    /// connection's window, which a few such pods would leave nothing of; instead the windows of all its
    /// streams shrink, as the thread's memory for that gets short.
    fn target(&self, worker: &Worker) -> u32 {
        let others = worker.held.get().saturating_sub(self.held.get());
        stream_window(STREAM_WINDOW, self.held.get(), HELD.saturating_sub(others))
    }
}

/// No stream will ever begin on it.
#[derive(Debug)]
pub(super) struct Unusable;

impl Slot {
    /// Opens a stream. The first byte of a pod goes out after the answer: until then the stream can
    /// be moved to another gateway with nothing lost or sent twice.
    pub(super) async fn connect(
        &self,
        request: Request<()>,
    ) -> Result<(SendStream<Bytes>, RecvStream), StreamError> {
        let (response, send) = self.begin(request)?;
        match response.await {
            Ok(response) if response.status().is_success() => Ok((send, response.into_body())),
            Ok(response) => Err(StreamError::Status(response.status())),
            Err(error) if is_of_stream(&error) => Err(StreamError::Reset(error.to_string())),
            Err(error) => Err(StreamError::Broken(error.to_string())),
        }
    }

    fn begin(
        &self,
        request: Request<()>,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), StreamError> {
        // A clone of its own: a handle that waits for a place would hold up the others.
        let sender = self.connection.sender.borrow().clone();
        let mut sender =
            sender.ok_or_else(|| StreamError::Broken("it is being replaced".into()))?;
        let sent = sender.send_request(request, false);
        sent.map_err(|error| StreamError::Broken(error.to_string()))
    }
}

/// Whether the gateway judged this stream. `REFUSED_STREAM` says that it did not (RFC 9113 §8.7).
fn is_of_stream(error: &h2::Error) -> bool {
    error.is_reset() && error.is_remote() && error.reason() != Some(Reason::REFUSED_STREAM)
}

/// Drives a connection until it ends, however that comes about.
pub(super) async fn drive(
    worker: Rc<Worker>,
    key: Key,
    shared: Rc<Connection>,
    config: Arc<ClientConfig>,
    opened: OpenConnection,
) {
    let _open = Gauge::new(&worker.stats, |stats| &stats.connections);
    let OpenConnection { sender, mut connection, ping, chain } = opened;
    // The pool's handle is the last one that can begin a stream.
    drop(sender);
    let to = shared.to;
    let driven = async {
        loop {
            let turn = poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                shared.turn(cx, &worker, |window| connection.set_initial_window_size(window));
                polled
            });
            tokio::select! {
                result = turn => break result,
                // A turn of its own: the connection has none while nothing moves on it.
                () = shared.window.notified() => {}
            }
        }
    };
    let (cause, why) = tokio::select! {
        result = driven => match result {
            Ok(()) => (Closed::Regular, "closed".to_owned()),
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => {
                (Closed::Regular, "the gateway closed it".to_owned())
            }
            Err(error) => (Closed::Broken, error.to_string()),
        },
        why = ping_timeout(&worker, ping) => (Closed::Silent, why),
        why = revalidate_peer(&worker, &key, to, &chain) => (Closed::Distrusted, why),
        never = replacement(&worker, &key, &shared, &config) => match never {},
        never = idle_timeout(&worker, &shared) => match never {},
    };
    shared.retire();
    worker.stats.count_closed(cause);
    let streams = shared.streams.get();
    match cause {
        Closed::Regular => tracing::debug!("tunnel to {to}: {why}"),
        Closed::Broken | Closed::Silent | Closed::Distrusted => {
            tracing::warn!("tunnel to {to}: {why}; {streams} connections of pods are reset");
        }
    }
}

/// Completes when the gateway gives no sign of life in time.
async fn ping_timeout(worker: &Worker, mut ping: PingPong) -> String {
    loop {
        sleep(worker.limits.ping).await;
        match timeout(worker.limits.pong, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection itself says what happened.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => {
                let limit = worker.limits.pong.as_secs_f64();
                return format!("no sign of life of the gateway within {limit} s");
            }
        }
    }
}

/// Completes when the gateway's certificate is no longer to be trusted.
async fn revalidate_peer(
    worker: &Worker,
    key: &Key,
    to: SocketAddr,
    chain: &[CertificateDer<'static>],
) -> String {
    let why = worker.credentials.ends(&key.tls, to.ip(), chain).await;
    format!("the gateway's certificate is no longer acceptable: {why}")
}

/// Retires the connection when the next one would be dialled in another way: new streams are for a
/// new one. Without any way now, it goes on as it is.
async fn replacement(
    worker: &Worker,
    key: &Key,
    shared: &Connection,
    config: &Arc<ClientConfig>,
) -> Infallible {
    let mut epoch = worker.credentials.epoch();
    loop {
        epoch.mark_unchanged();
        let now = worker.credentials.client(&key.tls);
        if now.is_ok_and(|now| !Arc::ptr_eq(&now, config)) {
            shared.retire();
            return std::future::pending().await;
        }
        if epoch.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Retires a connection that nobody has used for a while.
async fn idle_timeout(worker: &Worker, shared: &Connection) -> Infallible {
    loop {
        if shared.streams.get() > 0 {
            shared.busy.notified().await;
            continue;
        }
        tokio::select! {
            () = sleep(worker.limits.idle) => {
                if shared.streams.get() == 0 {
                    shared.retire();
                    return std::future::pending().await;
                }
            }
            () = shared.busy.notified() => {}
        }
    }
}
