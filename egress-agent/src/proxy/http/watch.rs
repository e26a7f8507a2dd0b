//! Waiting for something on behalf of a client.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use super::{Connection, clock::Clock, failure::Failure, inbound::Inbound};

/// Waits for `future` as long as the client is there and no deadline passes.
pub(super) async fn watch<D: Inbound, F: Future>(
    connection: &Connection,
    down: &mut D,
    clock: &mut Clock<'_>,
    future: F,
) -> Result<F::Output, Failure> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let scratch = &mut connection.worker.http.scratch.borrow_mut();
        if down.is_received() && down.poll_gone(cx, scratch).is_ready() {
            return Poll::Ready(Err(Failure::Gone));
        }
        clock.poll(cx).map(Err)
    })
    .await
}
