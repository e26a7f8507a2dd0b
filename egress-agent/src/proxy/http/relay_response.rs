//! The response on its way to the client, while the rest of the request may still be on its way to
//! the upstream.

use std::{future::poll_fn, task::Poll};

use super::{
    Connection,
    body::{RecvError, Relay, RelayError},
    clock::Clock,
    disposition::Disposition,
    failure::Failure,
    inbound::Inbound,
    outbound::Outbound,
    paced::Paced,
    record::Record,
    response::Response,
};
use crate::telemetry::ResponseFlag;

/// How the response ended.
enum ResponseEnd {
    Complete,
    /// The upstream broke off.
    Upstream(RecvError),
    /// The client went away.
    Client,
    Expired(Failure),
}

/// Sends the response. Gives back the upstream's connection if it is clean.
pub(super) async fn run<D: Inbound>(
    connection: &Connection,
    mut up: Outbound,
    response: &Response,
    down: &mut D,
    request: &mut Relay,
    clock: &mut Clock<'_>,
    record: &mut Record,
) -> (Disposition, Option<Outbound>) {
    let worker = &connection.worker;
    // Until its body has arrived the request isn't over, and what follows it can't be found.
    let last = worker.drain.is_draining() || !down.is_received();
    if down.respond(response, last).is_err() {
        record.gone();
        return (Disposition::Abort, None);
    }
    let mut relay = Relay::new();
    let mut stopped = false;
    let end = poll_fn(|cx| {
        let scratch = &mut worker.http.scratch.borrow_mut();
        if !stopped && !request.is_done() {
            // Whatever becomes of the request's rest, the response decides.
            let mut source = Paced::new(down, &mut record.upload);
            stopped =
                matches!(request.poll(cx, &mut source, &mut up, scratch), Poll::Ready(Err(_)));
        }
        let mut source = Paced::new(&mut up, &mut record.download);
        let polled = relay.poll(cx, &mut source, down, scratch);
        record.entry.bytes_received = request.bytes;
        record.entry.bytes_sent = relay.bytes;
        match polled {
            Poll::Ready(Ok(())) => return Poll::Ready(ResponseEnd::Complete),
            Poll::Ready(Err(RelayError::Source(error))) => {
                return Poll::Ready(ResponseEnd::Upstream(error));
            }
            Poll::Ready(Err(RelayError::Sink)) => return Poll::Ready(ResponseEnd::Client),
            Poll::Pending => {}
        }
        if request.is_received() && down.poll_gone(cx, scratch).is_ready() {
            return Poll::Ready(ResponseEnd::Client);
        }
        clock.progress(request.bytes + relay.bytes);
        clock.poll(cx).map(ResponseEnd::Expired)
    })
    .await;
    up.count(request.bytes, relay.bytes);
    record.entry.grpc_status = relay.grpc_status.or(record.entry.grpc_status);
    let cut = matches!(end, ResponseEnd::Upstream(_));
    let (flag, details) = match end {
        ResponseEnd::Complete if request.is_done() => return (Disposition::Done, Some(up)),
        // The rest of the request goes nowhere: neither connection can carry on.
        ResponseEnd::Complete => return (Disposition::Close, None),
        ResponseEnd::Upstream(RecvError::Truncated) => (
            ResponseFlag::UpstreamConnectionTermination,
            "upstream_reset_after_response_started{connection_termination}",
        ),
        ResponseEnd::Upstream(RecvError::Io(error)) => {
            record.entry.upstream_failure = Some(error.to_string());
            (
                ResponseFlag::UpstreamConnectionTermination,
                "upstream_reset_after_response_started{connection_termination}",
            )
        }
        ResponseEnd::Upstream(RecvError::Bad(bad)) => {
            record.entry.upstream_failure = Some(bad.to_string());
            (
                ResponseFlag::UpstreamProtocolError,
                "upstream_reset_after_response_started{protocol_error}",
            )
        }
        ResponseEnd::Client => {
            record.gone();
            return (Disposition::Abort, None);
        }
        ResponseEnd::Expired(failure) => {
            let account = failure.account();
            (account.flag, account.details)
        }
    };
    record.broken(flag, details);
    up.link().lease.report(false);
    (if cut { Disposition::Cut } else { Disposition::Abort }, None)
}
