//! An HTTP/2 connection from a client: every stream a task and a decision of its own.

use std::{cell::Cell, future::poll_fn, panic::AssertUnwindSafe, pin::pin, rc::Rc};

use bytes::BytesMut;
use futures_util::FutureExt as _;
use h2::server::SendResponse;

use super::{
    Connection,
    bad::BadMessage,
    clock::Clock,
    deadline::Deadline,
    exchange::{self, After},
    failure::Failure,
    h2::{self as ours, H2Inbound, Watch},
    record::{Record, Started},
    reply::Reply,
    request::Request,
};
use crate::{
    net::{Frames, Linger, Rewound, Side},
    proxy::{
        Queued,
        inbox::{Inbox, Streams},
    },
};

/// Serves until the client leaves, nothing happens for too long, or the worker ends.
pub(super) async fn serve<I: Side + 'static>(connection: Connection, io: I, read: BytesMut) {
    let connection = Rc::new(connection);
    let holder = connection.downstream.holder.clone();
    let limits = connection.worker.limits;
    let io = Linger::new(Rewound::new(read.freeze(), io), limits.linger);
    let refusing = Rc::clone(&connection);
    let io = Frames::from_client(Watch::new(io, move || refused(&refusing)));
    let streams = Streams::new(io.arrivals(), ours::STREAM_WINDOW, limits.queued_bytes / 2);
    let shaking = ours::server(limits.request_head_bytes).handshake::<_, Queued>(io);
    let mut http2 = match tokio::time::timeout(limits.request_head, shaking).await {
        Ok(Ok(http2)) => http2,
        Ok(Err(error)) => return tracing::debug!(%error, "no HTTP/2 connection"),
        Err(_) => return tracing::debug!("no HTTP/2 preface in time"),
    };
    let active = Rc::new(Cell::new(0_usize));
    let worker = Rc::clone(&connection.worker);
    let drain = worker.drain.clone();
    let mut draining = pin!(drain.started());
    let mut expired = pin!(worker.ends(&holder));
    let mut leaving = false;
    loop {
        let accepted = tokio::select! {
            accepted = poll_fn(|cx| {
                let accepted = http2.poll_accept(cx);
                streams.turn(cx, |window| http2.set_initial_window_size(window));
                accepted
            }) => accepted,
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
                if active.get() == 0 {
                    leaving = true;
                    http2.graceful_shutdown();
                }
                continue;
            }
        };
        match accepted {
            Some(Ok((request, respond))) => {
                active.set(active.get() + 1);
                let active = Active(Rc::clone(&active));
                let connection = Rc::clone(&connection);
                let request = request.map(|body| streams.open(body, holder.clone()));
                tokio::task::spawn_local(async move {
                    stream(&connection, request, respond).await;
                    drop(active);
                });
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "HTTP/2 connection of a client ended");
                return;
            }
            None => return,
        }
    }
}

/// Logs and counts a request that the library refused: nothing else is known of it.
fn refused(connection: &Connection) {
    let mut record = Record::new(connection, Started::now(), http::Version::HTTP_2);
    record.failed(&Failure::Bad(BadMessage::Http2Malformed));
    record.complete();
}

/// Counts a stream for as long as it lives.
struct Active(Rc<Cell<usize>>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

async fn stream(
    connection: &Connection,
    request: http::Request<Inbox>,
    respond: SendResponse<Queued>,
) {
    let started = Started::now();
    let (parts, body) = request.into_parts();
    let ended = body.is_end_stream();
    let holder = connection.downstream.holder.clone();
    let mut down = H2Inbound::new(body, respond, holder);
    let serving = serve_one(connection, &mut down, parts, ended, started);
    match AssertUnwindSafe(serving).catch_unwind().await {
        Ok(After::Done | After::Close) => {}
        Ok(After::Cut | After::Abort | After::Switch(..)) => down.reset(),
        // It is logged already.
        Err(_) => down.fail(),
    }
}

async fn serve_one(
    connection: &Connection,
    down: &mut H2Inbound,
    parts: http::request::Parts,
    ended: bool,
    started: Started,
) -> After {
    let mut deadline = Deadline::default();
    let max_headers = connection.worker.limits.headers;
    match Request::from_h2(parts, ended, connection.origin(), max_headers) {
        Ok(request) => exchange::run(connection, request, started, down, &mut deadline).await.0,
        Err(bad) => {
            let failure = Failure::Bad(bad);
            let mut record = Record::new(connection, started, http::Version::HTTP_2);
            let account = record.failed(&failure);
            let mut clock = Clock::new(&mut deadline, None, connection.worker.limits.linger);
            record.complete();
            match account.status {
                Some(status) => {
                    let reply = Reply::new(status, failure.body(None));
                    let method = http::Method::GET;
                    reply.send(connection, &mut record, &method, down, &mut clock).await
                }
                None => After::Abort,
            }
        }
    }
}
