//! An HTTP/1 connection from a client: one request after the other.

use std::{
    cell::RefCell,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    task::{Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use tokio::io::AsyncWriteExt as _;

use super::{
    Connection,
    bad::BadMessage,
    body::Sink as _,
    boxed_future::BoxedFuture,
    clock::Clock,
    deadline::Deadline,
    disposition::Disposition,
    exchange,
    failure::Failure,
    h1::{H1Inbound, HeadLimits, Sender, Stream, parse_request},
    inbound::Inbound as _,
    record::{Record, Started},
    reply::Reply,
    request::Request,
    response::Response,
    tunnel,
};
use crate::{
    net::{RelayIo, now},
    types::Host,
};

/// Of a head that has not come whole, so many bytes are counted with the connection; a longer part takes
/// a place of its own, for as much as a head may have.
const PART: usize = 16 * 1024;

/// A connection and what its requests have one after the other.
#[derive(Debug)]
struct Served<I> {
    connection: Connection,
    /// Taken by whoever has its turn: the wait for a request, or the request.
    turn: RefCell<Turn<I>>,
}

#[derive(Debug)]
struct Turn<I> {
    down: H1Inbound<I>,
    deadline: Deadline,
    /// The host that was asked for last.
    last: Option<Host>,
}

/// Serves until either side has had enough.
pub(super) fn serve<I: RelayIo + 'static>(
    connection: Connection,
    io: I,
    read: BytesMut,
) -> impl Future<Output = ()> {
    let down = H1Inbound::new(Stream::new(io, read, Sender::Client));
    let turn = RefCell::new(Turn { down, deadline: Deadline::default(), last: None });
    let served = Rc::new(Served { connection, turn });
    async move {
        let connection = &served.connection;
        let end = {
            let mut requests = pin!(requests(&served));
            let (holder, drain) = (&connection.downstream.holder, &connection.worker.drain);
            poll_fn(|cx| {
                if let Poll::Ready(end) = requests.as_mut().poll(cx) {
                    return Poll::Ready(end);
                }
                holder.poll_ends(cx, drain).map(|()| ConnectionEnd::Abort)
            })
            .await
        };
        match end {
            ConnectionEnd::Idle => {}
            ConnectionEnd::Close => Box::pin(linger(&served)).await,
            ConnectionEnd::Abort => served.turn.borrow().down.stream.io.reset(),
        }
    }
}

/// How the connection ends.
enum ConnectionEnd {
    /// Between two requests.
    Idle,
    /// After a response that was the last.
    Close,
    /// In the middle of one.
    Abort,
}

/// What comes next on a connection.
enum NextRequest {
    /// The head of a request.
    Head(Bytes, Started),
    Bad(Box<Failure>, Started),
    End,
}

async fn requests<I: RelayIo + 'static>(served: &Rc<Served<I>>) -> ConnectionEnd {
    loop {
        // What a request needs is given back between requests; an idle connection stays small.
        let end = match next(served).await {
            NextRequest::End => return ConnectionEnd::Idle,
            NextRequest::Bad(failure, started) => Box::pin(refuse(served, failure, started)).await,
            NextRequest::Head(head, started) => {
                let one = BoxedFuture::new(one(Rc::clone(served), head, started));
                match AssertUnwindSafe(one).catch_unwind().await {
                    Ok(end) => end,
                    Err(_) => Some(Box::pin(fail(served)).await),
                }
            }
        };
        if let Some(end) = end {
            return end;
        }
        // Requests that were sent without waiting for answers have a turn each.
        if served.turn.borrow().down.stream.has_input() {
            give_way().await;
        }
    }
}

/// Goes on at the next turn.
async fn give_way() {
    let mut given = false;
    poll_fn(|cx| {
        if given {
            return Poll::Ready(());
        }
        given = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Serves one request. `None` if another may follow.
#[expect(clippy::await_holding_refcell_ref, reason = "nobody else has a turn until it has ended")]
async fn one<I: RelayIo + 'static>(
    served: Rc<Served<I>>,
    head: Bytes,
    started: Started,
) -> Option<ConnectionEnd> {
    let connection = &served.connection;
    let turn = &mut *served.turn.borrow_mut();
    let limits = head_limits(connection);
    let parse = || -> Result<Request, BadMessage> {
        let head = parse_request(&head, limits)?;
        Request::from_h1(head, connection.origin(), turn.last.as_ref())
    };
    let request = match catch_unwind(AssertUnwindSafe(parse)) {
        Ok(Ok(request)) => request,
        Ok(Err(bad)) => return refused(connection, turn, Failure::Bad(bad), started).await,
        Err(_) => return refused(connection, turn, Failure::Panicked, started).await,
    };
    drop(head);
    let host = &request.authority.host;
    if turn.last.as_ref() != Some(host) {
        turn.last = Some(host.clone());
    }
    let Turn { down, deadline, .. } = turn;
    down.begin(request.version, request.framing, request.keep_alive);
    // What was read beyond the head waits as long as the request is under way.
    let held = request.held_bytes() + down.stream.buffered();
    let work = connection.downstream.holder.request(held);
    let (after, record) = exchange::run(connection, request, work, started, down, deadline).await;
    match after {
        Disposition::Done if down.keep_alive && down.stream.is_at_rest() => None,
        Disposition::Done | Disposition::Close => Some(ConnectionEnd::Close),
        Disposition::Cut if down.delimited => Some(flush(connection, down).await),
        Disposition::Cut | Disposition::Abort => Some(ConnectionEnd::Abort),
        Disposition::Switch(up, response, idle) => {
            let whole = tunnel::run(connection, down, up, &response, idle, record).await;
            Some(if whole { ConnectionEnd::Idle } else { ConnectionEnd::Abort })
        }
    }
}

fn head_limits(connection: &Connection) -> HeadLimits {
    let limits = &connection.worker.limits;
    HeadLimits { bytes: limits.request_head_bytes, headers: limits.headers }
}

/// Waits for a request, holding no buffer, and reads its head.
#[expect(clippy::await_holding_refcell_ref, reason = "nobody else has a turn until it has ended")]
async fn next<I: RelayIo>(served: &Served<I>) -> NextRequest {
    let connection = &served.connection;
    let Turn { down, deadline, .. } = &mut *served.turn.borrow_mut();
    let worker = &connection.worker;
    let limits = &worker.limits;
    down.stream.release();
    if !down.stream.has_input() {
        deadline.set(now().checked_add(limits.idle));
        let arrived = poll_fn(|cx| {
            let scratch = &mut worker.http.scratch.borrow_mut();
            if let Poll::Ready(filled) = down.stream.poll_fill(cx, scratch) {
                return Poll::Ready(filled.unwrap_or(false));
            }
            // Who waits for the connection's end is woken when this comes true.
            if worker.drain.is_last() {
                return Poll::Ready(false);
            }
            deadline.poll_expired(cx).map(|()| false)
        })
        .await;
        if !arrived {
            return NextRequest::End;
        }
    }
    let started = Started::now();
    deadline.set(now().checked_add(limits.request_head));
    let head_limits = head_limits(connection);
    let holder = &connection.downstream.holder;
    // Given back when the request takes its place.
    let mut part = None;
    let head = poll_fn(|cx| {
        loop {
            match down.stream.take_request_head(head_limits.bytes) {
                Ok(Some(head)) => return Poll::Ready(Ok(Some(head))),
                Ok(None) => {}
                Err(bad) => return Poll::Ready(Err(Failure::Bad(bad))),
            }
            let buffered = down.stream.buffered();
            if buffered >= PART && part.is_none() {
                part = holder.partial_head(head_limits.bytes);
                if part.is_none() {
                    return Poll::Ready(Err(Failure::SourceOverflow));
                }
            }
            let scratch = &mut worker.http.scratch.borrow_mut();
            let room = (head_limits.bytes.saturating_sub(buffered) + 1).min(scratch.len());
            match down.stream.poll_fill(cx, scratch.get_mut(..room).unwrap_or_default()) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(Ok(None)),
                Poll::Pending => {
                    ready!(deadline.poll_expired(cx));
                    return Poll::Ready(Err(Failure::HeadTimeout));
                }
            }
        }
    })
    .await;
    match head {
        Ok(Some(head)) => NextRequest::Head(head, started),
        Ok(None) => NextRequest::End,
        Err(failure) => NextRequest::Bad(Box::new(failure), started),
    }
}

/// Answers after a fault of this program, where nothing was answered yet. It is logged already.
#[expect(clippy::await_holding_refcell_ref, reason = "nobody else has a turn any more")]
async fn fail<I: RelayIo>(served: &Served<I>) -> ConnectionEnd {
    let (connection, turn) = (&served.connection, &mut *served.turn.borrow_mut());
    let down = &mut turn.down;
    let response = Response::text(http::StatusCode::INTERNAL_SERVER_ERROR, 0);
    if down.responded || down.respond(&response, true).is_err() {
        return ConnectionEnd::Abort;
    }
    flush(connection, down).await
}

/// Sends what is queued before the end.
async fn flush<I: RelayIo>(connection: &Connection, down: &mut H1Inbound<I>) -> ConnectionEnd {
    let mut deadline = Deadline::default();
    deadline.set(now().checked_add(connection.worker.limits.linger));
    let sent = poll_fn(|cx| match down.poll_flush(cx) {
        Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
        Poll::Pending => deadline.poll_expired(cx).map(|()| false),
    });
    if sent.await { ConnectionEnd::Close } else { ConnectionEnd::Abort }
}

/// Answers what isn't a request, and nothing after it.
#[expect(clippy::await_holding_refcell_ref, reason = "nobody else has a turn any more")]
async fn refuse<I: RelayIo>(
    served: &Served<I>,
    failure: Box<Failure>,
    started: Started,
) -> Option<ConnectionEnd> {
    refused(&served.connection, &mut served.turn.borrow_mut(), *failure, started).await
}

async fn refused<I: RelayIo>(
    connection: &Connection,
    Turn { down, deadline, .. }: &mut Turn<I>,
    failure: Failure,
    started: Started,
) -> Option<ConnectionEnd> {
    let mut record = Record::new(connection, started, http::Version::HTTP_11);
    let account = record.failed(&failure);
    let Some(status) = account.status else { return Some(ConnectionEnd::Abort) };
    down.begin(http::Version::HTTP_11, super::framing::Framing::None, false);
    let mut clock = Clock::new(deadline, None, connection.worker.limits.linger);
    let reply = Reply::new(status, failure.body(None));
    // Whether it arrived or not, the connection is closed.
    reply.send(connection, &mut record, &http::Method::GET, down, &mut clock).await;
    record.complete();
    Some(ConnectionEnd::Close)
}

/// Closes so that the response arrives: data that nobody reads would turn the close into a reset,
/// and that could destroy it (RFC 9112 §9.6).
#[expect(clippy::await_holding_refcell_ref, reason = "nobody else has a turn any more")]
async fn linger<I: RelayIo>(served: &Served<I>) {
    let (connection, turn) = (&served.connection, &mut *served.turn.borrow_mut());
    let down = &mut turn.down;
    if down.stream.io.shutdown().await.is_err() {
        return;
    }
    let worker = &connection.worker;
    let mut deadline = Deadline::default();
    deadline.set(now().checked_add(worker.limits.linger));
    poll_fn(|cx| {
        loop {
            let scratch = &mut worker.http.scratch.borrow_mut();
            let mut buf = tokio::io::ReadBuf::new(scratch);
            match Pin::new(&mut down.stream.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return deadline.poll_expired(cx),
            }
        }
    })
    .await;
}
