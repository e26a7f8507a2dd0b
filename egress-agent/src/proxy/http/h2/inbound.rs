//! One request of an HTTP/2 client.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Duration,
};

use h2::{Reason, server::SendResponse};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    super::{
        bad::BadMessage,
        body::{BodyPiece, Data, RecvError, Sink, Source},
        framing::Framing,
        inbound::Inbound,
        response::Response,
    },
    stream::{Sender, io_error, poll_recv},
};
use crate::proxy::{ConnectionOwner, Queued, inbox::Inbox};

/// A stream that a client opened.
#[derive(Debug)]
pub(in super::super) struct H2Inbound {
    body: Inbox,
    received: bool,
    respond: SendResponse<Queued>,
    responded: bool,
    holder: ConnectionOwner,
    sender: Sender,
}

impl H2Inbound {
    pub(in super::super) fn new(
        body: Inbox,
        respond: SendResponse<Queued>,
        holder: ConnectionOwner,
    ) -> Self {
        let received = body.is_end_stream();
        let sender = Sender::none();
        Self { body, received, respond, responded: false, holder, sender }
    }

    /// Ends the stream with an error, so that no part of a response can be taken for the whole.
    pub(in super::super) fn reset(&mut self) {
        if self.responded {
            self.sender.reset(Reason::INTERNAL_ERROR);
        } else {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

impl H2Inbound {
    /// The same, but not before what was handed over, the head included, is on its way, or `limit` is over: the
    /// library throws away what waits on a stream that is reset.
    pub(in super::super) async fn cut(&mut self, limit: Duration) {
        // It fails where the stream has ended already.
        if self.sender.follow_head().is_ok() {
            let written = poll_fn(|cx| self.sender.poll_written(cx));
            // In time or not, the stream ends.
            tokio::time::timeout(limit, written).await.ok();
        }
        self.reset();
    }

    /// Ends the stream after a fault of this program.
    pub(in super::super) fn fail(&mut self) {
        let response = Response::text(StatusCode::INTERNAL_SERVER_ERROR, 0);
        if self.responded || self.respond(&response, true).is_err() {
            self.reset();
        }
    }
}

/// Says of an error whether the library found fault with the client's frames.
fn by_whom(error: RecvError) -> RecvError {
    let RecvError::Io(io) = &error else { return error };
    let http2 = io.get_ref().and_then(|error| error.downcast_ref::<h2::Error>());
    match http2.filter(|error| error.is_library()) {
        Some(reset) if reset.is_reset() => BadMessage::Http2Body.into(),
        Some(ended) => {
            BadMessage::Http2Connection(ended.reason().unwrap_or(Reason::PROTOCOL_ERROR)).into()
        }
        None => error,
    }
}

impl Inbound for H2Inbound {
    fn poll_gone(&mut self, cx: &mut Context<'_>, _: &mut [u8]) -> Poll<()> {
        if self.responded {
            self.sender.poll_reset(cx)
        } else {
            self.respond.poll_reset(cx).map(drop)
        }
    }

    fn is_received(&self) -> bool {
        self.received || self.body.is_end_stream()
    }

    fn interim(&mut self, status: StatusCode, headers: &HeaderMap) {
        let mut response = http::Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers.clone();
        if let Err(error) = self.respond.send_informational(response) {
            // The client has gone; what follows will notice.
            tracing::debug!(%error, "interim response not sent");
        }
    }

    fn respond(&mut self, response: &Response, _: bool) -> io::Result<()> {
        let mut head = http::Response::new(());
        *head.status_mut() = response.status;
        *head.headers_mut() = HeaderMap::clone(&response.headers);
        let length = match response.framing {
            Framing::Length(length) => Some(length),
            Framing::None => response.length,
            Framing::Chunked | Framing::UntilClose => None,
        };
        if let Some(length) = length {
            head.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let ended = matches!(response.framing, Framing::None | Framing::Length(0));
        let stream = self.respond.send_response(head, ended).map_err(io_error)?;
        self.responded = true;
        self.sender = Sender::new((!ended).then_some(stream), self.holder.clone());
        Ok(())
    }
}

impl Source for H2Inbound {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<Result<BodyPiece, RecvError>> {
        if self.received {
            return Poll::Ready(Ok(BodyPiece::End(None)));
        }
        let piece = poll_recv(&mut self.body, cx).map_err(by_whom);
        self.received |= matches!(piece, Poll::Ready(Ok(BodyPiece::End(_))));
        piece
    }
}

impl Sink for H2Inbound {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.sender.poll_room(cx)
    }

    fn send(&mut self, _: &mut Context<'_>, data: Data<'_>) -> io::Result<()> {
        self.sender.send(data)
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        self.sender.finish(trailers)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's own task writes.
        self.sender.pause();
        Poll::Ready(Ok(()))
    }
}
