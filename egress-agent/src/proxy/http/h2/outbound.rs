//! HTTP/2 upstreams: connections that the requests of one source share, and one request on one of them.

use std::{
    cell::Cell,
    future::{Future as _, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use h2::{
    Reason,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Method, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    super::{
        bad::BadMessage,
        body::{BodyPiece, Data, RecvError, Sink, Source},
        framing::Framing,
        h1::HeadLimits,
        link::{Link, RequestInFlight},
        response::Response,
    },
    stream::{Sender, io_error, poll_recv},
    uploads::{Uploads, WindowReservation, expected},
};
use crate::{
    net::{CONNECTION_WINDOW, FrameObserver, Frames},
    proxy::{
        ConnectionOwner, Limits, Queued,
        inbox::{Inbox, Streams, field_bytes},
        ping_timeout::ping_timeout,
    },
    types::ShareOwner,
};

/// A connection to an upstream, shared by the requests of one source.
#[derive(Debug)]
pub(in super::super) struct H2Connection {
    pub(in super::super) link: Link,
    /// Whose requests it was made for. Those of others go on it only where there is no room for a
    /// connection of their own.
    owner: ShareOwner,
    /// Requests that may be under way on it, as far as we are asked.
    most: usize,
    sender: SendRequest<Queued>,
    streams: Rc<Streams>,
    active: Cell<usize>,
    /// Requests that were started on it.
    pub(in super::super) started: Cell<u32>,
    /// What comes and goes on it.
    arrivals: Rc<FrameObserver>,
    uploads: Rc<Uploads>,
    state: Rc<State>,
}

/// What the task that drives it says of a connection.
#[derive(Debug, Default)]
struct State {
    closed: Cell<bool>,
    /// How long the upstream had not answered a PING when it was given up.
    silent: Cell<Option<Duration>>,
}

/// Makes HTTP/2 out of a connection and starts the task that drives it, which ends with it and has its turns
/// with those of `holder`'s source.
///
/// # Errors
/// The peer doesn't speak HTTP/2.
pub(in super::super) async fn handshake<I>(
    io: I,
    link: Link,
    owner: ShareOwner,
    most: usize,
    limits: &Limits,
    holder: &ConnectionOwner,
) -> Result<H2Connection, h2::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let io = Frames::from_server(io);
    let arrivals = io.arrivals();
    let room = limits.queued_bytes / 2;
    let streams = Streams::new(Rc::clone(&arrivals), super::STREAM_WINDOW, room);
    let (sender, mut connection) = h2::client::Builder::new()
        .initial_window_size(super::STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(super::DATA_FRAMES)
        .max_concurrent_reset_streams(super::RESET_STREAMS)
        .max_local_error_reset_streams(None)
        .max_send_buffer_size(super::SEND_BUFFER)
        .max_header_list_size(u32::try_from(limits.request_head_bytes).unwrap_or(u32::MAX))
        .enable_push(false)
        .handshake::<_, Queued>(io)
        .await?;
    let state = Rc::<State>::default();
    let (driven, known) = (Rc::clone(&streams), Rc::clone(&state));
    let (uploads, heard) = (Rc::<Uploads>::default(), Rc::clone(&arrivals));
    let written = Rc::clone(&uploads);
    let rhythm = limits.upstream_pulse;
    let ping = connection.ping_pong();
    holder.spawn_upstream(async move {
        let driving = poll_fn(|cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            written.wrote();
            driven.turn(cx, |window| connection.set_initial_window_size(window));
            polled
        });
        tokio::select! {
            ended = driving => {
                known.closed.set(true);
                if let Err(error) = ended {
                    tracing::debug!(%error, "HTTP/2 connection to an upstream ended");
                }
            }
            () = ping_timeout(ping, rhythm, &heard) => {
                tracing::debug!("HTTP/2 connection to an upstream: no sign of life");
                known.silent.set(Some(rhythm.give_up_after));
                known.closed.set(true);
            }
        }
        // Dropping the connection ends what runs on it.
    });
    let (active, started) = (Cell::new(0), Cell::new(0));
    Ok(H2Connection {
        link,
        owner,
        most,
        sender,
        streams,
        active,
        started,
        arrivals,
        uploads,
        state,
    })
}

impl H2Connection {
    /// Whether another request of this source may be started on it, with a body that is [`expected`] to
    /// take so many bytes, without being stopped by others whose readers do not read or whose bodies are
    /// not taken.
    pub(in super::super) fn has_room(&self, owner: &ShareOwner, body: usize) -> bool {
        self.owner == *owner
            && self.may_take()
            && !self.streams.is_short()
            && self.uploads.has_room(self.arrivals.window(), body)
    }

    /// Whether another request may be started on it at all.
    pub(in super::super) fn may_take(&self) -> bool {
        let most = self.sender.current_max_send_streams().min(self.most);
        self.is_open() && self.active.get() < most
    }

    /// Whether no request is under way.
    pub(in super::super) fn is_idle(&self) -> bool {
        self.active.get() == 0
    }

    /// Whether it still stands and takes requests (no GOAWAY).
    pub(in super::super) fn is_open(&self) -> bool {
        if self.state.closed.get() {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        !matches!(self.sender.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// How long the upstream was silent, if it was given up for that.
    pub(in super::super) fn silent(&self) -> Option<Duration> {
        self.state.silent.get()
    }
}

/// One request.
#[derive(Debug)]
pub(in super::super) struct H2Outbound {
    connection: Rc<H2Connection>,
    method: Method,
    sent: bool,
    response: Option<ResponseFuture>,
    body: Option<Inbox>,
    sender: Sender,
    /// Bytes of the interim responses.
    interim: usize,
    holder: ConnectionOwner,
    promise: WindowReservation,
    /// Its part of what counts for the endpoint.
    pub(in super::super) in_flight: Option<RequestInFlight>,
}

impl H2Outbound {
    /// A place on a connection for one request.
    pub(in super::super) fn new(connection: Rc<H2Connection>) -> Self {
        let shared = &connection;
        shared.active.set(shared.active.get() + 1);
        shared.link.lease.set_owner(Some(&shared.owner));
        shared.started.set(shared.started.get().saturating_add(1));
        let method = Method::GET;
        Self {
            connection,
            method,
            sent: false,
            response: None,
            body: None,
            interim: 0,
            sender: Sender::none(),
            holder: ConnectionOwner::default(),
            promise: WindowReservation::default(),
            in_flight: None,
        }
    }

    /// The connection that it is on.
    pub(in super::super) fn connection(&self) -> &Rc<H2Connection> {
        &self.connection
    }

    /// Whether a request was sent.
    pub(in super::super) fn is_sent(&self) -> bool {
        self.sent
    }

    /// Sends the request's head. What is sent counts for the connection of `holder`.
    ///
    /// # Errors
    /// The connection takes no more requests; nothing was sent.
    pub(in super::super) fn request(
        &mut self,
        method: &Method,
        uri: Uri,
        headers: HeaderMap,
        framing: Framing,
        holder: &ConnectionOwner,
    ) -> Result<(), h2::Error> {
        let mut head = http::Request::new(());
        *head.method_mut() = method.clone();
        *head.uri_mut() = uri;
        *head.version_mut() = http::Version::HTTP_2;
        *head.headers_mut() = headers;
        let ended = matches!(framing, Framing::None | Framing::Length(0));
        let mut sender = self.connection.sender.clone();
        let (response, stream) = sender.send_request(head, ended)?;
        self.method = method.clone();
        self.sent = true;
        self.promise = self.connection.uploads.promise(expected(framing));
        self.response = Some(response);
        self.holder = holder.clone();
        self.sender = Sender::new((!ended).then_some(stream), holder.clone());
        Ok(())
    }

    /// The next response head, interim ones too, which may have as many bytes together as one head.
    pub(in super::super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: HeadLimits,
    ) -> Poll<Result<Response, HeadError>> {
        let Some(future) = &mut self.response else {
            return Poll::Ready(Err(HeadError::Recv(RecvError::Truncated)));
        };
        if let Poll::Ready(Some(Ok(interim))) = future.poll_informational(cx) {
            let (parts, ()) = interim.into_parts();
            // With its status, a field of its own.
            self.interim += 32 + field_bytes(&parts.headers);
            if self.interim > limits.bytes {
                let bad = BadMessage::Interim { limit: limits.bytes };
                return Poll::Ready(Err(HeadError::Recv(bad.into())));
            }
            let response = Response::from_h2(parts, false, &self.method);
            return Poll::Ready(response.map_err(|bad| HeadError::Recv(bad.into())));
        }
        let (parts, body) = match ready!(Pin::new(future).poll(cx)) {
            Ok(response) => response.into_parts(),
            Err(error) if error.reason() == Some(Reason::REFUSED_STREAM) => {
                return Poll::Ready(Err(HeadError::Refused));
            }
            // The library ends streams so that are above the last one that GOAWAY names.
            Err(error) if error.is_go_away() && error.is_remote() => {
                return Poll::Ready(Err(HeadError::LeftOut));
            }
            // What the library resets by itself is a response that it cannot read.
            Err(error) if error.is_library() && error.is_reset() => {
                return Poll::Ready(Err(HeadError::Recv(BadMessage::Http2Response.into())));
            }
            Err(error) => return Poll::Ready(Err(HeadError::Recv(io_error(error).into()))),
        };
        self.response = None;
        let max_headers = limits.headers;
        let too_many = parts.headers.len() > max_headers;
        let response = Response::from_h2(parts, body.is_end_stream(), &self.method);
        self.body = Some(self.connection.streams.open(body, self.holder.clone()));
        Poll::Ready(match response {
            Ok(_) if too_many => {
                Err(HeadError::Recv(BadMessage::TooManyHeaders { limit: max_headers }.into()))
            }
            Ok(response) if response.status == StatusCode::SWITCHING_PROTOCOLS => {
                Err(HeadError::Recv(BadMessage::Switch.into()))
            }
            Ok(response) => Ok(response),
            Err(bad) => Err(HeadError::Recv(bad.into())),
        })
    }
}

/// Why there is no response.
#[derive(Debug)]
pub(in super::super) enum HeadError {
    /// `REFUSED_STREAM`: nothing was processed (RFC 9113 §8.7).
    Refused,
    /// The connection's GOAWAY names an earlier stream as the last one processed (RFC 9113 §6.8).
    LeftOut,
    /// It didn't arrive.
    Recv(RecvError),
}

impl Drop for H2Outbound {
    fn drop(&mut self) {
        // A request that is given up ends upstream too; after its end this does nothing.
        self.sender.reset(Reason::CANCEL);
        let shared = &self.connection;
        shared.active.set(shared.active.get().saturating_sub(1));
        if shared.is_idle() {
            shared.link.lease.set_owner(None);
        }
    }
}

impl Source for H2Outbound {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<Result<BodyPiece, RecvError>> {
        match &mut self.body {
            Some(body) => poll_recv(body, cx),
            None => Poll::Ready(Err(RecvError::Truncated)),
        }
    }
}

impl Sink for H2Outbound {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.sender.poll_room(cx)
    }

    fn send(&mut self, _: &mut Context<'_>, data: Data<'_>) -> io::Result<()> {
        self.promise.hand(data.as_slice().len());
        self.sender.send(data)
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        self.promise.end();
        self.sender.finish(trailers)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's own task writes.
        self.sender.pause();
        Poll::Ready(Ok(()))
    }
}
