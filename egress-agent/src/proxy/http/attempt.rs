//! The tries of one request, up to the head of a response.

mod choice;
mod connecting;

use std::{
    borrow::Cow,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, uri::PathAndQuery};

use self::choice::Choice;
use super::{
    Connection,
    bad::BadMessage,
    body::{Relay, RelayError},
    clock::Clock,
    connect::plan,
    failure::Failure,
    framing::Framing,
    h1::HeadLimits,
    headers,
    inbound::Inbound,
    outbound::Outbound,
    paced::Paced,
    pool::Key,
    record::Record,
    request::Request,
    resend,
    response::Response,
    retry,
    watch::watch,
};
use crate::{
    net::{DialContext, now},
    policy::{GatewayPolicy, HeaderOps, HttpRoute},
    proxy::rates::Pace,
    telemetry::{AccessLogEntry, ClusterCounter, ClusterStats, ResponseFlag, RetryGuard},
};

/// How often a request that no upstream has processed is sent again, whatever the route says about
/// retries.
const RESENDS: u32 = 4;

/// Everything that a try needs.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    connection: &'a Connection,
    policy: &'a GatewayPolicy,
    route: &'a HttpRoute,
    request: &'a Request,
    key: Key,
    stats: &'a Arc<ClusterStats>,
    /// What consistent hashing goes by.
    hash: Option<u64>,
    /// What is sent, with the route's changes.
    path: &'a str,
    host: HeaderValue,
    headers: Cow<'a, HeaderMap>,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        policy: &'a GatewayPolicy,
        route: &'a HttpRoute,
        request: &'a Request,
        key: Key,
        stats: &'a Arc<ClusterStats>,
        entry: &AccessLogEntry,
    ) -> Self {
        let action = &route.action;
        let mut headers = Cow::Borrowed(&*request.headers);
        if action.request_headers != HeaderOps::default() {
            headers::apply_to_request(headers.to_mut(), &action.request_headers, entry);
        }
        let rewritten =
            action.rewrite_authority.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
        let host = rewritten.unwrap_or_else(|| request.authority.to_header());
        let path = action.rewrite_path.as_deref().unwrap_or(&request.path);
        Self { connection, policy, route, request, key, stats, hash: None, path, host, headers }
    }

    /// With what consistent hashing goes by.
    pub(super) fn balanced_by(self, hash: Option<u64>) -> Self {
        Self { hash, ..self }
    }

    /// The headers that are sent.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Gives the key back.
    pub(super) fn into_key(self) -> Key {
        self.key
    }

    /// Tries until there is a response, or nothing is left to try.
    ///
    /// # Errors
    /// The last try's failure.
    pub(super) async fn until_answered<D: Inbound>(
        &self,
        down: &mut D,
        relay: &mut Relay,
        clock: &mut Clock<'_>,
        record: &mut Record,
    ) -> Result<(Outbound, Response), Failure> {
        let policy = &self.route.retry;
        let mut choice = Choice::Any;
        let mut resends = 0;
        let mut left = policy.attempts;
        let mut pause = policy.backoff;
        // Held as long as a retry is under way, and given back before the next one asks.
        let mut place: Option<RetryGuard> = None;
        loop {
            clock.attempt(policy.per_try_timeout);
            let mut reused = false;
            let mut untouched = false;
            let tried =
                self.once(down, relay, clock, record, choice, &mut reused, &mut untouched).await;
            let replayable = self.is_replayable(down, relay);
            let failure = match tried {
                Ok((up, response)) => {
                    let wanted = replayable && retry::on_response(&policy.retry_on, &response);
                    drop(place.take());
                    place = if wanted && left > 0 { self.retry_place(record) } else { None };
                    if wanted && left == 0 && policy.attempts > 0 {
                        record.flag(ResponseFlag::UpstreamRetryLimitExceeded);
                    }
                    if place.is_none() {
                        relay.discard();
                        return Ok((up, response));
                    }
                    up.link().lease.report_answer(response.status);
                    Failure::RetriableStatus(response.status)
                }
                Err(failure) => failure,
            };
            if matches!(failure, Failure::TryTimeout | Failure::Timeout) {
                self.stats.inc_upstream_rq_timeout();
            }
            if failure.is_unprocessed()
                && resends < RESENDS
                && resend::rewind(self.request.framing, relay)
            {
                // Without a pause the first time: a server that shuts down is no busy one.
                if resends > 0 {
                    clock.attempt(None);
                    let pausing = tokio::time::sleep(retry::jitter(pause));
                    watch(self.connection, down, clock, pausing).await?;
                    pause = pause.saturating_mul(2).min(policy.backoff.saturating_mul(10));
                }
                resends += 1;
                let refused = matches!(failure, Failure::RefusedStream);
                choice = choice.after_unprocessed(refused, resends);
                continue;
            }
            if !replayable {
                return Err(failure);
            }
            // An upstream may close an idle connection just as the request goes out.
            let stale = reused
                && matches!(failure, Failure::Closed | Failure::Reset(_))
                && (untouched || self.request.method.is_idempotent());
            if stale && choice != Choice::New {
                choice = Choice::New;
                *relay = Relay::new();
                continue;
            }
            let wanted = matches!(failure, Failure::RetriableStatus(_))
                || retry::on_failure(&policy.retry_on, &failure);
            if !wanted || left == 0 {
                if wanted && policy.attempts > 0 {
                    record.flag(ResponseFlag::UpstreamRetryLimitExceeded);
                }
                return Err(failure);
            }
            if !matches!(failure, Failure::RetriableStatus(_)) {
                drop(place.take());
                place = self.retry_place(record);
            }
            if place.is_none() {
                return Err(failure);
            }
            left -= 1;
            self.stats.inc_upstream_rq_retry();
            *relay = Relay::new();
            clock.attempt(None);
            let pausing = tokio::time::sleep(retry::jitter(pause));
            watch(self.connection, down, clock, pausing).await?;
            pause = pause.saturating_mul(2).min(policy.backoff.saturating_mul(10));
        }
    }

    /// A place among the retries to the cluster, unless too many are under way.
    fn retry_place(&self, record: &mut Record) -> Option<RetryGuard> {
        let requests = self.stats.get(ClusterCounter::RqActive);
        let most = self.key.cluster.most_retries(requests);
        let place = RetryGuard::begin(self.stats, most);
        if place.is_none() {
            self.stats.inc_upstream_rq_retry_overflow();
            record.flag(ResponseFlag::UpstreamOverflow);
        }
        place
    }

    /// Whether the request can be sent once more: nothing of a body has been taken.
    fn is_replayable<D: Inbound>(&self, down: &D, relay: &Relay) -> bool {
        match self.request.framing {
            Framing::None | Framing::Length(0) => true,
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => {
                relay.is_fresh() && !down.is_received()
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what one try finds out, for all that follow")]
    async fn once<D: Inbound>(
        &self,
        down: &mut D,
        relay: &mut Relay,
        clock: &mut Clock<'_>,
        record: &mut Record,
        choice: Choice,
        reused: &mut bool,
        untouched: &mut bool,
    ) -> Result<(Outbound, Response), Failure> {
        let worker = &self.connection.worker;
        let owner = self.connection.downstream.owner();
        let dial = DialContext { owner: &owner, hash: self.hash, from: self.route.from.as_deref() };
        let planning = plan(worker, self.policy, dial, &self.key, self.stats);
        let plan = watch(self.connection, down, clock, planning).await??;
        let drain = self.policy.snapshot().mesh.address_drain_time;
        worker.http.pool.known(&self.key, &plan, drain);
        let connected = self.connection_for(down, clock, &plan, choice, reused).await;
        worker.dialer.done(plan);
        let mut up = connected?;
        up.begin();
        record.link(up.link());
        let sent = now();
        let before = up.written();
        if matches!(up, Outbound::H2(_)) {
            resend::keep(self.request.framing, &self.connection.downstream.holder, relay);
        }
        self.send_head(&mut up)?;
        let (bytes, headers) = (worker.limits.request_head_bytes, worker.limits.response_headers);
        let limits = HeadLimits { bytes, headers };
        let mut stopped = false;
        let head = poll_fn(|cx| {
            let scratch = &mut worker.http.scratch.borrow_mut();
            let expects = self.request.expects_continue;
            let pace = &mut record.upload;
            let polled =
                poll_head(cx, &mut up, down, relay, pace, &mut stopped, scratch, limits, expects);
            if polled.is_ready() {
                return polled;
            }
            record.entry.bytes_received = relay.bytes;
            clock.progress(relay.bytes);
            clock.poll(cx).map(|failure| {
                let silent_client = matches!(failure, Failure::StreamIdle) && !relay.is_received();
                Err(if silent_client { Failure::BodyTimeout } else { failure })
            })
        })
        .await;
        record.entry.bytes_received = relay.bytes;
        *untouched = up.written() == before;
        match head {
            Ok(response)
                if response.status == StatusCode::SWITCHING_PROTOCOLS
                    && self.request.upgrade.is_none() =>
            {
                up.link().lease.report(false);
                Err(Failure::Protocol(BadMessage::Switch))
            }
            Ok(response) => {
                record.entry.upstream_service_time = Some(now().duration_since(sent));
                Ok((up, response))
            }
            Err(failure) => {
                if !matches!(
                    failure,
                    Failure::Gone | Failure::Body(_) | Failure::BodyTimeout | Failure::LeftOut
                ) {
                    up.link().lease.report(false);
                    up.link().endpoint.inc_rq_error();
                }
                if matches!(failure, Failure::Timeout | Failure::TryTimeout) {
                    up.link().endpoint.inc_rq_timeout();
                }
                // It may be this request that found out that the connection was gone before it.
                *reused |= up.is_silent();
                Err(failure)
            }
        }
    }

    fn send_head(&self, up: &mut Outbound) -> Result<(), Failure> {
        match up {
            Outbound::H1(up) => {
                up.started = up.started.saturating_add(1);
                let upgrade = self.request.upgrade.as_ref();
                up.outbound.request(self.request, self.path, &self.host, &self.headers, upgrade);
                Ok(())
            }
            Outbound::H2(up) => {
                let scheme = if self.route.cluster.tls.is_some() { "https" } else { "http" };
                let uri = Uri::builder()
                    .scheme(scheme)
                    .authority(self.host.as_bytes())
                    .path_and_query(h2_path(self.path)?)
                    .build()
                    .map_err(|_| Failure::Bad(BadMessage::Target))?;
                let mut headers = self.headers.as_ref().clone();
                if self.request.expects_continue {
                    headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
                }
                if let Framing::Length(length) = self.request.framing {
                    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                }
                let (framing, holder) = (self.request.framing, &self.connection.downstream.holder);
                up.request(&self.request.method, uri, headers, framing, holder).map_err(|error| {
                    match error.is_go_away() || error.is_io() {
                        true => Failure::LeftOut,
                        false => Failure::Reset(error.to_string()),
                    }
                })
            }
        }
    }
}

/// A path for an HTTP/2 upstream. Characters that the library takes for none of a path's are
/// encoded, as RFC 3986 §2.1 wants them anyway.
fn h2_path(path: &str) -> Result<PathAndQuery, Failure> {
    if let Ok(path) = PathAndQuery::try_from(path) {
        return Ok(path);
    }
    let mut encoded = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '"' => encoded.push_str("%22"),
            '<' => encoded.push_str("%3C"),
            '>' => encoded.push_str("%3E"),
            '`' => encoded.push_str("%60"),
            c => encoded.push(c),
        }
    }
    PathAndQuery::try_from(encoded).map_err(|_| Failure::Bad(BadMessage::Target))
}

/// Moves the request's body and waits for the response's head.
#[expect(clippy::too_many_arguments, reason = "both ends of one try, borrowed apart")]
fn poll_head<D: Inbound>(
    cx: &mut Context<'_>,
    up: &mut Outbound,
    down: &mut D,
    relay: &mut Relay,
    pace: &mut Pace,
    stopped: &mut bool,
    scratch: &mut [u8],
    limits: HeadLimits,
    expects_continue: bool,
) -> Poll<Result<Response, Failure>> {
    if !*stopped && !relay.is_done() {
        match relay.poll(cx, &mut Paced::new(down, pace), up, scratch) {
            Poll::Ready(Err(RelayError::Source(error))) => {
                return Poll::Ready(Err(Failure::Body(error)));
            }
            // It may have answered before it closed: a refusal of a large body, for example.
            Poll::Ready(Err(RelayError::Sink)) => *stopped = true,
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
    }
    if relay.is_received() && down.poll_gone(cx, scratch).is_ready() {
        return Poll::Ready(Err(Failure::Gone));
    }
    loop {
        let response = match up.poll_head(cx, scratch, limits) {
            Poll::Ready(response) => response?,
            Poll::Pending => break,
        };
        match response.status {
            // For a client that didn't ask it means nothing (RFC 9110 §15.2.1).
            StatusCode::CONTINUE if !expects_continue => {}
            StatusCode::SWITCHING_PROTOCOLS => return Poll::Ready(Ok(response)),
            status if status.is_informational() => down.interim(status, &response.headers),
            _ => return Poll::Ready(Ok(response)),
        }
    }
    match down.poll_flush(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::Gone)),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}
