//! The gateway's own answers.

use std::{future::poll_fn, task::Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{
    Connection, after::After, body::Data, clock::Clock, framing, inbound::Inbound, record::Record,
    response::Response,
};
use crate::telemetry::ResponseFlag;

/// An answer of a status and some text.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    /// Besides `Content-Type` and `Content-Length`.
    pub(super) headers: HeaderMap,
    text: Bytes,
}

impl Reply {
    pub(super) fn new(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self { status, headers: HeaderMap::new(), text: text.into() }
    }

    /// An answer of gRPC alone: a head with its status, which is the response's end as well.
    pub(super) fn grpc(code: u8, message: &'static str) -> Self {
        let mut reply = Self::new(StatusCode::OK, Bytes::new());
        let kind = HeaderValue::from_static("application/grpc");
        reply.headers.insert(header::CONTENT_TYPE, kind);
        reply.headers.insert("grpc-status", HeaderValue::from(u16::from(code)));
        reply.headers.insert("grpc-message", HeaderValue::from_static(message));
        reply
    }

    /// Sends it. What the client still sends of its request is not waited for.
    pub(super) async fn send<D: Inbound>(
        self,
        connection: &Connection,
        record: &mut Record,
        method: &Method,
        down: &mut D,
        clock: &mut Clock<'_>,
    ) -> After {
        let Self { status, headers, text } = self;
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
            return After::Abort;
        }
        if unread { After::Close } else { After::Done }
    }
}
