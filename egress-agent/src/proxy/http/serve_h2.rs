//! An HTTP/2 connection from a client: every stream a task and a decision of its own.

use std::{
    cell::Cell,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::BytesMut;
use futures_util::FutureExt as _;
use h2::{RecvStream, server::SendResponse};
use http::uri::{Authority, PathAndQuery};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Connection,
    clock::Clock,
    deadline::Deadline,
    disposition::Disposition,
    exchange,
    failure::Failure,
    grpc,
    h2::{self as ours, ClientBounds, H2Inbound, LibraryRefusal, Unaccepted, Watch},
    record::{Record, Started},
    reply::Reply,
    request::{Request, held_bytes},
};
use crate::{
    net::{FrameObserver, Frames, HalfClose, InputEnd, Linger, PrefixedIo, RelayIo},
    proxy::{
        ConnectionOwner, Queued, Work,
        inbox::{Inbox, Streams},
    },
};

/// Serves until the client leaves, nothing happens for too long, or the worker ends.
pub(super) async fn serve<I: RelayIo + 'static>(connection: Connection, io: I, read: BytesMut) {
    let connection = Rc::new(connection);
    let holder = connection.downstream.holder.clone();
    let limits = connection.worker.limits;
    let io = HalfClose::new(io);
    let end = io.end();
    let io = Linger::new(PrefixedIo::new(read.freeze(), io), limits.linger);
    let io = Watch::new(io);
    let requests = io.requests();
    let io = Frames::from_client(io);
    let mut intake = StreamIntake::new(io.arrivals(), requests, Rc::clone(&end), &connection);
    let bounds = ClientBounds::new(holder.bytes_left(), &limits);
    let shaking = ours::server(bounds).handshake::<_, Queued>(io);
    let mut http2 = match tokio::time::timeout(limits.request_head, shaking).await {
        Ok(Ok(http2)) => http2,
        Ok(Err(error)) => return tracing::debug!(%error, "no HTTP/2 connection"),
        Err(_) => return tracing::debug!("no HTTP/2 preface in time"),
    };
    end.keep();
    let worker = Rc::clone(&connection.worker);
    let drain = worker.drain.clone();
    let mut draining = pin!(drain.started());
    let mut expired = pin!(worker.ends(&holder));
    let mut leaving = false;
    loop {
        let taken = tokio::select! {
            taken = poll_fn(|cx| intake.poll(cx, &mut http2)) => taken,
            () = &mut draining, if !leaving => {
                leaving = true;
                http2.graceful_shutdown();
                continue;
            }
            () = &mut expired => {
                http2.abrupt_shutdown(h2::Reason::CANCEL);
                return;
            }
            () = tokio::time::sleep(limits.idle), if !leaving => {
                if intake.active.get() == 0 {
                    leaving = true;
                    http2.graceful_shutdown();
                }
                continue;
            }
        };
        match taken {
            StreamResult::Request(request, respond, work) => {
                let active = StreamGuard::new(&intake.active, &end);
                let connection = Rc::clone(&connection);
                let request = request.map(|body| intake.streams.open(body, holder.clone()));
                holder.spawn(async move {
                    stream(&connection, request, respond, work).await;
                    drop(active);
                });
            }
            StreamResult::Excess(request, respond) => {
                refuse(&connection, request, respond);
                if holder.is_pressed() {
                    http2.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                    return;
                }
            }
            StreamResult::ExcessHead => {
                refused_head(&connection);
                http2.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                return;
            }
            StreamResult::Refused(refused) => library_refused(&connection, &refused, &bounds),
            StreamResult::End(error) => {
                if let Some(error) = error {
                    tracing::debug!(%error, "HTTP/2 connection of a client ended");
                }
                return library_refused(&connection, &intake.requests.take_rest(), &bounds);
            }
        }
    }
}

/// What comes of a client's connection.
enum StreamResult {
    /// A request that has its place.
    Request(http::Request<RecvStream>, SendResponse<Queued>, Work),
    /// A request that its source has no room for.
    Excess(http::Request<RecvStream>, SendResponse<Queued>),
    /// The same of a head that has not come whole, where nothing else is under way.
    ExcessHead,
    /// Requests that the library refused by itself.
    Refused(Vec<LibraryRefusal>),
    End(Option<h2::Error>),
}

/// Takes what comes on a connection from the library, which bounds none of it: requests, parts of heads,
/// bodies and trailers count for the connection's source before more is read.
struct StreamIntake {
    arrivals: Rc<FrameObserver>,
    requests: Rc<Unaccepted>,
    end: Rc<InputEnd>,
    streams: Rc<Streams>,
    holder: ConnectionOwner,
    /// Requests under way.
    active: Rc<Cell<usize>>,
    /// Most bytes of a head.
    head: usize,
    /// The place of a head that has begun.
    part: Option<Work>,
}

impl StreamIntake {
    fn new(
        arrivals: Rc<FrameObserver>,
        requests: Rc<Unaccepted>,
        end: Rc<InputEnd>,
        connection: &Connection,
    ) -> Self {
        let limits = &connection.worker.limits;
        let room = limits.queued_bytes / 2;
        let streams = Streams::new(Rc::clone(&arrivals), ours::STREAM_WINDOW, room);
        let holder = connection.downstream.holder.clone();
        let (active, head) = (Rc::default(), limits.request_head_bytes);
        Self { arrivals, requests, end, streams, holder, active, head, part: None }
    }

    fn poll<I: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        http2: &mut h2::server::Connection<I, Queued>,
    ) -> Poll<StreamResult> {
        let accepted = http2.poll_accept(cx);
        self.streams.turn(cx, |window| http2.set_initial_window_size(window));
        // A head that has come whole is a request, which has a place of its own.
        let unfinished = self.arrivals.has_unfinished_head();
        if !unfinished {
            self.part = None;
        }
        match accepted {
            Poll::Ready(Some(Ok((request, respond)))) => {
                self.arrivals.pause();
                self.requests.accepted(respond.stream_id().as_u32());
                let uri = request.uri();
                let part = |text: Option<&str>| text.map_or(0, str::len);
                let target = part(uri.path_and_query().map(PathAndQuery::as_str))
                    + part(uri.authority().map(Authority::as_str));
                let bytes = held_bytes(request.headers(), target);
                Poll::Ready(match self.holder.request(bytes) {
                    Some(work) => StreamResult::Request(request, respond, work),
                    None => StreamResult::Excess(request, respond),
                })
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(StreamResult::End(Some(error))),
            Poll::Ready(None) => Poll::Ready(StreamResult::End(None)),
            Poll::Pending => {
                let refused = self.requests.take_refused();
                if !refused.is_empty() {
                    return Poll::Ready(StreamResult::Refused(refused));
                }
                if self.arrivals.resume() {
                    cx.waker().wake_by_ref();
                }
                if unfinished && self.part.is_none() {
                    self.part = self.holder.partial_head(self.head);
                    // Requests that are under way do not end for one that is refused when it is whole.
                    let alone = self.active.get() == 0 || self.holder.is_pressed();
                    if self.part.is_none() && alone {
                        return Poll::Ready(StreamResult::ExcessHead);
                    }
                }
                if self.end.has_come() {
                    self.half_closed(cx, http2);
                }
                Poll::Pending
            }
        }
    }

    /// The client says nothing more. If it has asked for all that it wanted, it is served first.
    fn half_closed<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        cx: &Context<'_>,
        http2: &mut h2::server::Connection<I, Queued>,
    ) {
        // One that is gone altogether answers anything with a reset, so it is sent something, once.
        if let Some(mut ping) = http2.ping_pong() {
            ping.send_ping(h2::Ping::opaque()).ok();
            cx.waker().wake_by_ref();
        }
        let served = self.active.get() == 0 && self.holder.is_written() && self.end.is_flushed();
        if served || self.streams.is_receiving() {
            self.end.release();
        }
    }
}

/// Refuses a request that its source has no room for. Nothing of it is kept for a client that does not
/// read: the answer is a head alone, which no window holds up.
fn refuse(
    connection: &Connection,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Queued>,
) {
    let (parts, body) = request.into_parts();
    let mut record = Record::new(connection, Started::now(), http::Version::HTTP_2);
    let speaks_grpc = grpc::is_grpc(&parts.headers);
    let (ended, max_headers) = (body.is_end_stream(), connection.worker.limits.headers);
    let read = || Request::from_h2(parts, ended, connection.origin(), max_headers);
    if let Ok(Ok(request)) = catch_unwind(AssertUnwindSafe(read)) {
        record.request(&request, None, None);
    }
    let failure = Failure::SourceOverflow;
    let status = record.failed(&failure).status;
    let status = status.unwrap_or(http::StatusCode::SERVICE_UNAVAILABLE);
    let text = if speaks_grpc { failure.body(None) } else { String::new() };
    let reply = Reply::new(status, text).fit(speaks_grpc, &mut record.entry);
    if respond.send_response(reply.into_head(), true).is_err() {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
    }
    record.complete();
}

/// Logs and counts a head that its source has no room for.
fn refused_head(connection: &Connection) {
    let mut record = Record::new(connection, Started::now(), http::Version::HTTP_2);
    record.failed(&Failure::SourceOverflow);
    record.complete();
}

/// Logs and counts requests that the library refused: nothing else is known of them.
fn library_refused(connection: &Connection, refused: &[LibraryRefusal], bounds: &ClientBounds) {
    for refusal in refused {
        let mut record = Record::new(connection, Started::now(), http::Version::HTTP_2);
        record.failed(&refusal.failure(bounds));
        record.complete();
    }
}

/// Counts a stream for as long as it lives.
struct StreamGuard(Rc<Cell<usize>>, Rc<InputEnd>);

impl StreamGuard {
    fn new(count: &Rc<Cell<usize>>, end: &Rc<InputEnd>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count), Rc::clone(end))
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
        self.1.wake();
    }
}

async fn stream(
    connection: &Connection,
    request: http::Request<Inbox>,
    respond: SendResponse<Queued>,
    work: Work,
) {
    let started = Started::now();
    let (parts, body) = request.into_parts();
    let ended = body.is_end_stream();
    let holder = connection.downstream.holder.clone();
    let mut down = H2Inbound::new(body, respond, holder);
    let serving = serve_one(connection, &mut down, parts, work, ended, started);
    match AssertUnwindSafe(serving).catch_unwind().await {
        Ok(Disposition::Done | Disposition::Close) => {}
        // What the upstream had delivered before it broke off arrives.
        Ok(Disposition::Cut) => down.cut(connection.worker.limits.linger).await,
        Ok(Disposition::Abort | Disposition::Switch(..)) => down.reset(),
        // It is logged already.
        Err(_) => down.fail(),
    }
}

async fn serve_one(
    connection: &Connection,
    down: &mut H2Inbound,
    parts: http::request::Parts,
    work: Work,
    ended: bool,
    started: Started,
) -> Disposition {
    let mut deadline = Deadline::default();
    let max_headers = connection.worker.limits.headers;
    let speaks_grpc = grpc::is_grpc(&parts.headers);
    match Request::from_h2(parts, ended, connection.origin(), max_headers) {
        Ok(request) => {
            let work = Some(work);
            exchange::run(connection, request, work, started, down, &mut deadline).await.0
        }
        Err(bad) => {
            let failure = Failure::Bad(bad);
            let mut record = Record::new(connection, started, http::Version::HTTP_2);
            record.work = Some(work);
            let account = record.failed(&failure);
            let mut clock = Clock::new(&mut deadline, None, connection.worker.limits.linger);
            record.complete();
            match account.status {
                Some(status) => {
                    let reply = Reply::new(status, failure.body(None));
                    let reply = reply.fit(speaks_grpc, &mut record.entry);
                    let method = http::Method::GET;
                    reply.send(connection, &mut record, &method, down, &mut clock).await
                }
                None => Disposition::Abort,
            }
        }
    }
}
