//! One connection from accept to its end: detect → decide → act, each state consumed by the next.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use bytes::BytesMut;
use egress_ebpf::reason::Reason;
use futures_util::future::LocalBoxFuture;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout_at},
};

use super::{
    Downstream, Worker, forward,
    http::{self, Version},
    next_step::NextStep,
    record::Record,
    refuse::{RefusalKind, refuse},
    terminate::terminate,
    transport::Transport,
};
use crate::{
    net::RelayIo,
    policy::{Accepted, Denied, GatewayPolicy, TcpRoute, Termination, TlsConnection, TlsRoute},
    telemetry::ResponseFlag,
    types::{Host, OriginalDst},
    wire::{ClientHello, HelloError, HelloReader, Parsed, Protocol, detect},
};

/// Room for the usual ClientHello or request head in one read.
const FIRST_READ: usize = 2048;

/// Serves a connection to its end.
// What comes before the relay is boxed, and nothing is held twice: a connection that lies idle pays
// for the relay alone.
pub(super) fn serve(
    worker: Rc<Worker>,
    downstream: Downstream,
    stream: Transport,
) -> impl Future<Output = ()> + 'static {
    let deciding: LocalBoxFuture<'static, NextStep> =
        Box::pin(decide(Rc::clone(&worker), downstream, stream));
    async move {
        let act = deciding.await;
        match act {
            NextStep::Nothing => {}
            NextStep::Http(serving) => serving.await,
            // HTTP is not to pay for a relay.
            NextStep::Forward(forward) => Box::pin(forward.run(&worker)).await,
        }
    }
}

/// What is known of a connection that wasn't decided yet.
enum State {
    /// Nothing but its port.
    Accepted,
    /// It speaks HTTP or TLS; these are its first bytes.
    Detect(BytesMut),
    /// It speaks TLS.
    Hello(HelloReader, BytesMut),
    /// The ClientHello is complete.
    Named(ClientHello, BytesMut),
    /// Policy has a route.
    Routed(TcpRoute, Option<Host>, BytesMut),
    /// Policy has none.
    Denied(Denied, RefusalKind, Option<Host>, BytesMut),
    /// TLS is terminated here.
    Terminate(Termination, Option<Host>, BytesMut),
    /// It can't be understood.
    Unreadable(Reason, RefusalKind, BytesMut),
    /// A deadline passed.
    Late(BytesMut),
    /// The client went away, or the worker ends.
    Gone(BytesMut),
    /// Another source needs the room.
    Evicted(BytesMut),
    /// It speaks HTTP.
    Http(Version, BytesMut),
}

async fn decide(worker: Rc<Worker>, mut downstream: Downstream, mut stream: Transport) -> NextStep {
    let worker = &worker;
    let policy = match worker.policy() {
        Ok(policy) => policy,
        Err(denied) => {
            let record = Record::denied(worker, &downstream, &denied);
            stream.reset();
            record.finish(worker, downstream);
            return NextStep::Nothing;
        }
    };
    let mut state = State::Accepted;
    loop {
        state = match state {
            State::Accepted => accepted(&policy, &downstream),
            State::Detect(read) => detected(worker, &downstream, &mut stream, read).await,
            State::Hello(reader, read) => {
                hello(worker, &downstream, &mut stream, reader, read).await
            }
            State::Named(hello, read) => {
                downstream.encrypted_hello = hello.encrypted;
                named(&policy, &downstream, hello, read)
            }
            State::Http(version, read) => {
                let worker = Rc::clone(worker);
                let hop = http::IncomingHop::Plain;
                // The usual case pays for no other: a socket is served as a socket.
                return NextStep::Http(match stream {
                    Transport::Plain(stream) => {
                        Box::pin(http::serve(worker, downstream, hop, stream, read, version))
                    }
                    other @ (Transport::Originated(_)
                    | Transport::Terminated(_)
                    | Transport::Tunnel(_)
                    | Transport::Posted(_)) => {
                        Box::pin(http::serve(worker, downstream, hop, other, read, version))
                    }
                });
            }
            State::Terminate(termination, name, read) => match stream {
                Transport::Plain(stream) => {
                    let ending = terminate(worker, downstream, stream, termination, name, read);
                    return Box::pin(ending).await;
                }
                // No policy says so of what comes through a tunnel.
                other @ (Transport::Originated(_)
                | Transport::Terminated(_)
                | Transport::Tunnel(_)
                | Transport::Posted(_)) => {
                    let mut record = Record::black_hole(worker, &downstream, Reason::WrongProtocol);
                    record.server_name = name.as_ref().map(Host::text);
                    return end(worker, downstream, other, record, RefusalKind::Reset, read).await;
                }
            },
            State::Routed(route, name, read) => {
                let forward =
                    forward::prepare(worker, &policy, downstream, stream, route, name, read);
                return forward.await.map_or(NextStep::Nothing, NextStep::Forward);
            }
            State::Denied(denied, manner, name, read) => {
                let mut record = Record::denied(worker, &downstream, &denied);
                record.server_name = name.as_ref().map(Host::text);
                tracing::debug!(
                    "{}: {} ({})",
                    downstream.peer,
                    denied.detail,
                    denied.reason.name()
                );
                return end(worker, downstream, stream, record, manner, read).await;
            }
            State::Unreadable(reason, manner, read) => {
                let mut record = Record::black_hole(worker, &downstream, reason);
                record.flags.set(ResponseFlag::NoRouteFound);
                return end(worker, downstream, stream, record, manner, read).await;
            }
            State::Late(read) => {
                let record = Record::local(worker, &downstream, Reason::Timeout);
                return end(worker, downstream, stream, record, RefusalKind::Reset, read).await;
            }
            State::Evicted(read) => {
                let record = Record::overflow(worker, &downstream);
                return end(worker, downstream, stream, record, RefusalKind::Reset, read).await;
            }
            // A connection without a byte is a health check's: nothing to tell.
            State::Gone(read) if read.is_empty() => return NextStep::Nothing,
            State::Gone(read) => {
                let mut record = Record::black_hole(worker, &downstream, Reason::Reset);
                record.flags.set(ResponseFlag::DownstreamConnectionTermination);
                return end(worker, downstream, stream, record, RefusalKind::Reset, read).await;
            }
        }
    }
}

/// Tells the client, and logs.
async fn end(
    worker: &Worker,
    downstream: Downstream,
    stream: Transport,
    mut record: Record,
    manner: RefusalKind,
    read: BytesMut,
) -> NextStep {
    record.received = u64::try_from(read.len()).unwrap_or(u64::MAX);
    drop(read);
    refuse(worker, stream, manner).await;
    record.finish(worker, downstream);
    NextStep::Nothing
}

fn accepted(policy: &Arc<GatewayPolicy>, downstream: &Downstream) -> State {
    let Downstream { source, port, hop, .. } = downstream;
    let dialled = OriginalDst(downstream.local.0);
    match policy.accept(source, *hop, *port, dialled) {
        Ok(Accepted::Detect) => State::Detect(BytesMut::new()),
        Ok(Accepted::Tcp(route)) => State::Routed(route, None, BytesMut::new()),
        Err(denied) => State::Denied(denied, RefusalKind::Reset, None, BytesMut::new()),
    }
}

async fn detected(
    worker: &Worker,
    downstream: &Downstream,
    stream: &mut Transport,
    mut read: BytesMut,
) -> State {
    let limits = &worker.limits;
    // No buffer is held while the client says nothing.
    let first = async {
        stream.readable().await?;
        read.reserve(FIRST_READ);
        stream.read_buf(&mut read).await
    };
    match within(worker, downstream, limits.first_byte, first).await {
        FirstBytes::Some => {}
        FirstBytes::Late => return State::Late(read),
        FirstBytes::Nothing => return State::Gone(read),
        FirstBytes::Evicted => return State::Evicted(read),
    }
    let until = Instant::now() + limits.request_head;
    loop {
        match detect(&read) {
            Parsed::Complete(Protocol::Tls) => {
                return State::Hello(HelloReader::new(limits.client_hello_bytes), read);
            }
            Parsed::Complete(Protocol::Http1) => return State::Http(Version::H1, read),
            Parsed::Complete(Protocol::Http2) => return State::Http(Version::H2, read),
            Parsed::Complete(Protocol::Unknown) => {
                return State::Unreadable(Reason::WrongProtocol, RefusalKind::Reset, read);
            }
            Parsed::Incomplete => {}
        }
        let left = until.saturating_duration_since(Instant::now());
        match within(worker, downstream, left, stream.read_buf(&mut read)).await {
            FirstBytes::Some => {}
            FirstBytes::Late => return State::Late(read),
            FirstBytes::Nothing => return State::Gone(read),
            FirstBytes::Evicted => return State::Evicted(read),
        }
    }
}

async fn hello(
    worker: &Worker,
    downstream: &Downstream,
    stream: &mut Transport,
    mut reader: HelloReader,
    mut read: BytesMut,
) -> State {
    let until = Instant::now() + worker.limits.client_hello;
    loop {
        match reader.parse(&read) {
            Ok(Parsed::Complete(hello)) => return State::Named(hello, read),
            Ok(Parsed::Incomplete) => {}
            Err(error) => {
                let reason = match error {
                    HelloError::ServerName => Reason::InvalidServerName,
                    HelloError::NotTls
                    | HelloError::NotClientHello
                    | HelloError::TooLong { .. }
                    | HelloError::Malformed
                    | HelloError::DuplicateExtension(_) => Reason::BadRequest,
                };
                return State::Unreadable(reason, RefusalKind::hello(error), read);
            }
        }
        if read.capacity() - read.len() < FIRST_READ / 4 {
            read.reserve(FIRST_READ);
        }
        let left = until.saturating_duration_since(Instant::now());
        match within(worker, downstream, left, stream.read_buf(&mut read)).await {
            FirstBytes::Some => {}
            FirstBytes::Late => return State::Late(read),
            FirstBytes::Nothing => return State::Gone(read),
            FirstBytes::Evicted => return State::Evicted(read),
        }
    }
}

fn named(
    policy: &Arc<GatewayPolicy>,
    downstream: &Downstream,
    hello: ClientHello,
    read: BytesMut,
) -> State {
    let ClientHello { server_name, alpn: _, encrypted } = hello;
    let refuse = |reason, detail: &str, name| {
        let denied = Denied { reason, detail: detail.into(), matched: None };
        (denied, RefusalKind::tls(reason), name)
    };
    let (denied, manner, name) = match server_name {
        None => match policy.unnamed(downstream.port, downstream.hop).filter(|_| !encrypted) {
            Some(to) => return State::Terminate(to, None, read),
            None => refuse(Reason::NoServerName, "TLS without a server name", None),
        },
        Some(name) => {
            let Downstream { source, port, hop, .. } = downstream;
            let (port, hop) = (*port, *hop);
            let question = TlsConnection { source, port, server_name: &name, hop, encrypted };
            match policy.tls(&question) {
                Ok(TlsRoute::Forward(route)) => return State::Routed(route, Some(name), read),
                Ok(TlsRoute::Terminate(to)) => return State::Terminate(to, Some(name), read),
                Err(denied) => {
                    let manner = RefusalKind::tls(denied.reason);
                    (denied, manner, Some(name))
                }
            }
        }
    };
    State::Denied(denied, manner, name, read)
}

/// Result of a bounded read.
enum FirstBytes {
    Some,
    /// The end, an error, or the worker's end.
    Nothing,
    Late,
    /// Another source needs the room.
    Evicted,
}

async fn within(
    worker: &Worker,
    downstream: &Downstream,
    limit: Duration,
    read: impl Future<Output = io::Result<usize>>,
) -> FirstBytes {
    tokio::select! {
        result = timeout_at(Instant::now() + limit, read) => match result {
            Ok(Ok(0) | Err(_)) => FirstBytes::Nothing,
            Ok(Ok(_)) => FirstBytes::Some,
            Err(_) => FirstBytes::Late,
        },
        () = worker.drain.expired() => FirstBytes::Nothing,
        () = downstream.holder.evicted() => FirstBytes::Evicted,
    }
}
