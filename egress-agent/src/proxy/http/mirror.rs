//! Copies of requests for other destinations (`mirror`). Nobody waits for what comes of them, and none of
//! them delays its request: a body is copied as it passes, as far as it is short, and the copy is sent when
//! it is whole. A copy counts for its source as a request does, and has a line of its own in the access log.

use std::{
    collections::VecDeque,
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{
    Connection,
    body::{BodyPiece, Data, RecvError, Sink, Source},
    clock::Clock,
    deadline::Deadline,
    forward::forward,
    framing::Framing,
    inbound::Inbound,
    record::{Record, Started},
    request::Request,
    response::Response,
};
use crate::{
    policy::{GatewayPolicy, HttpRoute, RetryPolicy},
    proxy::{
        Work,
        rates::{Meters, RateUnit},
    },
};

/// Longest body that is copied, in bytes.
const MOST: usize = 64 * 1024;

/// What is needed to send copies of a request, until its body is there.
#[derive(Debug)]
pub(super) struct MirrorPlan(Option<Waiting>);

#[derive(Debug)]
struct Waiting {
    connection: Rc<Connection>,
    policy: Arc<GatewayPolicy>,
    request: Rc<Request>,
    /// A route for each copy, its place and its rate limits.
    routes: Vec<(HttpRoute, Work, Meters)>,
    body: Vec<Bytes>,
    size: usize,
}

impl MirrorPlan {
    /// For a request that goes this way; `None` where nobody wants a copy.
    pub(super) fn new(
        connection: &Connection,
        policy: &Arc<GatewayPolicy>,
        route: &HttpRoute,
        request: &Request,
    ) -> Option<Self> {
        // What follows an upgrade is no request.
        if route.mirrors.is_empty() || request.upgrade.is_some() {
            return None;
        }
        let body = match request.framing {
            Framing::None | Framing::Length(0) => 0,
            Framing::Length(length) => {
                usize::try_from(length).ok().filter(|length| *length <= MOST)?
            }
            Framing::Chunked | Framing::UntilClose => MOST,
        };
        let bytes = request.held_bytes() + body;
        let routes: Vec<_> = route
            .mirrors
            .iter()
            .filter_map(|(cluster, host)| {
                // Without room for it, and beyond a limit of its destination, there is no copy.
                let (rates, owner) = (&connection.worker.rates, || connection.downstream.owner());
                let counted = || cluster.counted_as(Some(host));
                let meters = rates.meters(cluster.rate.iter(), owner, counted).ok()?;
                meters.count(RateUnit::Request).ok()?;
                let work = connection.downstream.holder.request(bytes)?;
                let mut action = Arc::clone(&route.action);
                let asked = action.rewrite_authority.as_deref().unwrap_or(&request.authority.text);
                let shadow = shadow(asked).into();
                Arc::make_mut(&mut action).rewrite_authority = Some(shadow);
                let route = HttpRoute {
                    cluster: Arc::clone(cluster),
                    host: host.clone(),
                    name: route.name.clone(),
                    timeout: route.timeout,
                    retry: Arc::new(RetryPolicy { attempts: 0, ..RetryPolicy::default() }),
                    action,
                    mirrors: Vec::new(),
                    rates: Vec::new(),
                    from: route.from.clone(),
                    audit: route.audit.clone(),
                };
                Some((route, work, meters))
            })
            .collect();
        let request = Request { expects_continue: false, ..request.clone() };
        let waiting = Waiting {
            connection: Rc::new(connection.clone()),
            policy: Arc::clone(policy),
            request: Rc::new(request),
            routes,
            body: Vec::new(),
            size: 0,
        };
        let mut copies = Self(Some(waiting));
        if body == 0 {
            copies.send(None);
        }
        Some(copies)
    }

    fn take(&mut self, piece: &[u8]) {
        let Some(waiting) = &mut self.0 else { return };
        waiting.size += piece.len();
        if waiting.size > MOST {
            self.0 = None;
        } else {
            waiting.body.push(Bytes::copy_from_slice(piece));
        }
    }

    /// The body is whole.
    fn send(&mut self, trailers: Option<&HeaderMap>) {
        let Some(Waiting { connection, policy, request, routes, body, size: _ }) = self.0.take()
        else {
            return;
        };
        for (route, work, meters) in routes {
            let (connection, policy) = (Rc::clone(&connection), Arc::clone(&policy));
            let client =
                DiscardingClient { body: body.clone().into(), end: Some(trailers.cloned()) };
            let request = Rc::clone(&request);
            let holder = connection.downstream.holder.clone();
            holder.spawn(async move {
                tokio::select! {
                    () = one(&connection, &policy, &route, &request, (work, meters), client) => {}
                    () = connection.worker.ends(&connection.downstream.holder) => {}
                }
            });
        }
    }
}

async fn one(
    connection: &Connection,
    policy: &Arc<GatewayPolicy>,
    route: &HttpRoute,
    request: &Request,
    (work, meters): (Work, Meters),
    mut client: DiscardingClient,
) {
    let worker = &connection.worker;
    let mut record = Record::new(connection, Started::now(), request.version);
    record.request(request, None, None);
    record.route(route);
    record.entry.authority = route.action.rewrite_authority.as_deref().map(Into::into);
    record.work = Some(work);
    record.limit(meters);
    worker.room_in_log(&connection.downstream).await;
    let idle = policy.snapshot().mesh.stream_idle_timeout.unwrap_or(worker.limits.stream_idle);
    let mut deadline = Deadline::default();
    let mut clock = Clock::new(&mut deadline, route.timeout, idle);
    let sent =
        forward(connection, policy, route, request, &mut record, &mut client, &mut clock).await;
    if let Err(failure) = sent {
        record.failed(&failure);
    }
    record.complete();
}

/// The authority of a copy: `a.example-shadow:80` of `a.example:80`, as Envoy makes it.
fn shadow(authority: &str) -> String {
    match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => {
            let (host, port) = authority.split_at(colon);
            format!("{host}-shadow{port}")
        }
        _ => format!("{authority}-shadow"),
    }
}

/// The client of a request that is copied.
#[derive(Debug)]
pub(super) struct MirroredClient<'a, D> {
    down: &'a mut D,
    copies: &'a mut MirrorPlan,
}

impl<'a, D> MirroredClient<'a, D> {
    pub(super) fn new(down: &'a mut D, copies: &'a mut MirrorPlan) -> Self {
        Self { down, copies }
    }
}

impl<D: Source> Source for MirroredClient<'_, D> {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<BodyPiece, RecvError>> {
        let polled = self.down.poll_recv(cx, scratch);
        match &polled {
            Poll::Ready(Ok(BodyPiece::Scratch(at))) => {
                self.copies.take(scratch.get(at.clone()).unwrap_or_default());
            }
            Poll::Ready(Ok(BodyPiece::Owned(bytes))) => self.copies.take(bytes),
            Poll::Ready(Ok(BodyPiece::End(trailers))) => self.copies.send(trailers.as_ref()),
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
        polled
    }
}

impl<D: Sink> Sink for MirroredClient<'_, D> {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.down.poll_room(cx)
    }

    fn send(&mut self, cx: &mut Context<'_>, data: Data<'_>) -> io::Result<()> {
        self.down.send(cx, data)
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        self.down.finish(trailers)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.down.poll_flush(cx)
    }
}

impl<D: Inbound> Inbound for MirroredClient<'_, D> {
    fn poll_gone(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<()> {
        self.down.poll_gone(cx, scratch)
    }

    fn is_received(&self) -> bool {
        self.down.is_received()
    }

    fn interim(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.down.interim(status, headers);
    }

    fn respond(&mut self, response: &Response, last: bool) -> io::Result<()> {
        self.down.respond(response, last)
    }
}

/// The client of a copy: it has the body, and takes any response.
#[derive(Debug)]
struct DiscardingClient {
    body: VecDeque<Bytes>,
    /// The body's end, until it is taken.
    end: Option<Option<HeaderMap>>,
}

impl Source for DiscardingClient {
    fn poll_recv(
        &mut self,
        _: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<BodyPiece, RecvError>> {
        let Some(piece) = self.body.front_mut() else {
            return Poll::Ready(Ok(BodyPiece::End(self.end.take().flatten())));
        };
        let part = piece.split_to(piece.len().min(scratch.len()));
        if piece.is_empty() {
            self.body.pop_front();
        }
        Poll::Ready(Ok(BodyPiece::Owned(part)))
    }
}

impl Sink for DiscardingClient {
    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(MOST))
    }

    fn send(&mut self, _: &mut Context<'_>, _: Data<'_>) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _: Option<HeaderMap>) -> io::Result<()> {
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Inbound for DiscardingClient {
    fn poll_gone(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<()> {
        Poll::Pending
    }

    fn is_received(&self) -> bool {
        self.end.is_none()
    }

    fn interim(&mut self, _: StatusCode, _: &HeaderMap) {}

    fn respond(&mut self, _: &Response, _: bool) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_says_in_its_host_that_it_is_one() {
        for (authority, expected) in [
            ("a.example", "a.example-shadow"),
            ("a.example:80", "a.example-shadow:80"),
            ("[2001:db8::1]", "[2001:db8::1]-shadow"),
            ("[2001:db8::1]:80", "[2001:db8::1]-shadow:80"),
        ] {
            assert_eq!(shadow(authority), expected);
        }
    }
}
