//! A connection that was upgraded: from the `101` on, bytes are copied.

use std::{cell::Cell, future::poll_fn, time::Duration};

use super::{
    Connection,
    body::Sink as _,
    h1::{H1Inbound, UpstreamIo},
    outbound::H1Connection,
    record::Record,
    response::Response,
};
use crate::{
    net::{Meter, Peer, RelayIo, RelayOutcome, relay},
    proxy::rates,
    telemetry::ResponseFlag,
};

/// Copies until both sides are done, or no byte came for `idle`. Whether they ended in good order.
pub(super) async fn run<I: RelayIo>(
    connection: &Connection,
    down: &mut H1Inbound<I>,
    mut up: Box<H1Connection>,
    response: &Response,
    idle: Option<Duration>,
    mut record: Record,
) -> bool {
    let worker = &connection.worker;
    down.switch(response);
    let said = up.outbound.stream.take_input();
    down.stream.queue(&said);
    if poll_fn(|cx| down.stream.poll_flush(cx)).await.is_err() {
        record.gone();
        return false;
    }
    let early = down.stream.take_input().to_vec();
    let bytes = Bytes { up: Cell::new(0), down: Cell::new(said.len() as u64) };
    let upstream: &mut UpstreamIo = &mut up.outbound.stream.io;
    let client = &mut down.stream.io;
    let end = if record.meters.paces() {
        let meters = &record.meters;
        rates::relay(&worker.buffers, client, upstream, early, idle, &bytes, meters).await
    } else {
        relay(&worker.buffers, client, upstream, early, idle, &bytes).await
    };
    record.entry.bytes_received = bytes.up.get();
    record.entry.bytes_sent = bytes.down.get();
    up.link.count(bytes.down.get(), bytes.up.get());
    match end {
        RelayOutcome::Closed => return true,
        RelayOutcome::Idle => record.broken(ResponseFlag::StreamIdleTimeout, "stream_idle_timeout"),
        RelayOutcome::Reset(Peer::Downstream, _) => record.gone(),
        RelayOutcome::Reset(Peer::Upstream, _) => record.broken(
            ResponseFlag::UpstreamConnectionTermination,
            "upstream_reset_after_response_started{connection_termination}",
        ),
    }
    false
}

#[derive(Debug)]
struct Bytes {
    up: Cell<u64>,
    down: Cell<u64>,
}

impl Meter for Bytes {
    fn add(&self, from: Peer, bytes: usize) {
        let total = match from {
            Peer::Downstream => &self.up,
            Peer::Upstream => &self.down,
        };
        total.set(total.get() + bytes as u64);
    }
}
