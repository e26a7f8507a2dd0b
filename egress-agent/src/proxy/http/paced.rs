//! A body that waits for its bytes' turn.

use std::task::{Context, Poll, ready};

use super::body::{BodyPiece, RecvError, Source};
use crate::proxy::rates::Pace;

/// A source, read at its pace.
#[derive(Debug)]
pub(super) struct Paced<'a, S> {
    source: &'a mut S,
    pace: &'a mut Pace,
}

impl<'a, S> Paced<'a, S> {
    pub(super) fn new(source: &'a mut S, pace: &'a mut Pace) -> Self {
        Self { source, pace }
    }
}

impl<S: Source> Source for Paced<'_, S> {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<BodyPiece, RecvError>> {
        let most = ready!(self.pace.poll(cx)).min(scratch.len());
        let polled = self.source.poll_recv(cx, scratch.get_mut(..most).unwrap_or_default());
        match &polled {
            Poll::Ready(Ok(BodyPiece::Scratch(at))) => self.pace.moved(at.len()),
            Poll::Ready(Ok(BodyPiece::Owned(bytes))) => self.pace.moved(bytes.len()),
            Poll::Ready(Ok(BodyPiece::End(_)) | Err(_)) | Poll::Pending => {}
        }
        polled
    }
}
