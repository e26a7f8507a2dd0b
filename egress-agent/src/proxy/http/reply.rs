//! The gateway's own answers.

use std::{future::poll_fn, task::Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{
    Connection, body::Data, clock::Clock, disposition::Disposition, framing, grpc,
    inbound::Inbound, record::Record, response::Response,
};
use crate::telemetry::{AccessLogEntry, ResponseFlag};

/// An answer of a status and some text.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    /// Besides `Content-Type` and `Content-Length`.
    pub(super) headers: HeaderMap,
    text: Bytes,
    /// Status of gRPC, where it doesn't follow from the other.
    grpc_status: Option<u8>,
}

impl Reply {
    pub(super) fn new(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self { status, headers: HeaderMap::new(), text: text.into(), grpc_status: None }
    }

    /// With a status for whoever asks in gRPC.
    pub(super) fn with_grpc_status(self, code: Option<u8>) -> Self {
        Self { grpc_status: code, ..self }
    }

    /// The same for a client that `speaks_grpc`: it takes any status but 200 for a fault of the way to its
    /// server, and reads no text. Notes in the log what it gets.
    pub(super) fn fit(self, speaks_grpc: bool, entry: &mut AccessLogEntry) -> Self {
        if !speaks_grpc {
            return self;
        }
        let Self { status, mut headers, text, grpc_status } = self;
        let code = grpc_status.unwrap_or_else(|| grpc::of_http(status));
        headers.insert(header::CONTENT_TYPE, grpc::CONTENT_TYPE);
        headers.insert(grpc::STATUS, HeaderValue::from(u16::from(code)));
        if let Some(message) = grpc::message(&text).filter(|message| !message.is_empty()) {
            headers.insert(grpc::MESSAGE, message);
        }
        entry.response_code = StatusCode::OK.as_u16();
        entry.grpc_status = Some(code);
        Self { status: StatusCode::OK, headers, text: Bytes::new(), grpc_status }
    }

    /// Its head, for a client that gets nothing else.
    pub(super) fn into_head(self) -> http::Response<()> {
        let mut head = http::Response::new(());
        *head.status_mut() = self.status;
        *head.headers_mut() = self.headers;
        head
    }

    /// Sends it. What the client still sends of its request is not waited for.
    pub(super) async fn send<D: Inbound>(
        self,
        connection: &Connection,
        record: &mut Record,
        method: &Method,
        down: &mut D,
        clock: &mut Clock<'_>,
    ) -> Disposition {
        let Self { status, headers, text, grpc_status: _ } = self;
        let mut response = Response::text(status, text.len() as u64);
        response.headers.extend(headers);
        let silent = framing::has_no_body(status, method);
        if silent {
            response.framing = framing::Framing::None;
        }
        let unread = !down.is_received();
        let last = unread || connection.worker.drain.is_draining();
        let mut sent = down.respond(&response, last).is_ok();
        let mut body = if silent { Bytes::new() } else { text };
        if body.is_empty() && !silent {
            sent = sent && down.finish(None).is_ok();
        }
        record.entry.bytes_sent = body.len() as u64;
        sent = sent
            && poll_fn(|cx| {
                while !body.is_empty() {
                    match down.poll_room(cx) {
                        Poll::Ready(Ok(room)) => {
                            let piece = body.split_to(room.min(body.len()));
                            if down.send(cx, Data::Owned(piece)).is_err() {
                                return Poll::Ready(false);
                            }
                            if body.is_empty() && down.finish(None).is_err() {
                                return Poll::Ready(false);
                            }
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(false),
                        Poll::Pending => return clock.poll(cx).map(|_| false),
                    }
                }
                match down.poll_flush(cx) {
                    Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
                    Poll::Pending => clock.poll(cx).map(|_| false),
                }
            })
            .await;
        if !sent {
            record.flag(ResponseFlag::DownstreamConnectionTermination);
            return Disposition::Abort;
        }
        if unread { Disposition::Close } else { Disposition::Done }
    }
}
