//! What of a process is exported.

use std::sync::Arc;

use prost::Message as _;

use super::{Loss, Queue, Sampler, Signal, entries, flows, queue::Owner, spans};
use crate::telemetry::{
    AccessLogEntry,
    flow::{FlowOrigin, FlowRecord},
};

/// The queues of a process that exports something.
#[derive(Debug, Default)]
pub struct Exports {
    /// Records of the access log (gateway) or of flows (node).
    pub logs: Option<Arc<Queue>>,
    /// Spans (gateway).
    pub traces: Option<Traces>,
}

/// Spans on their way.
#[derive(Debug)]
pub struct Traces {
    /// Where they wait.
    pub queue: Arc<Queue>,
    /// Which of them do.
    pub sampler: Sampler,
}

/// How the export of one kind fares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignalReport {
    /// Which kind.
    pub signal: Signal,
    /// Records that the collector has.
    pub exported: u64,
    /// Records that are lost, by [`Loss::ALL`].
    pub lost: [u64; Loss::ALL.len()],
    /// Attempts that failed.
    pub failures: u64,
    /// Bytes that wait, and how many may.
    pub fill: (usize, usize),
    /// Why the last attempt failed, if it did.
    pub failure: Option<String>,
}

impl Exports {
    /// A request or connection at the gateway is over; `line` makes the access log's line.
    pub(in crate::telemetry) fn finished(
        &self,
        entry: &AccessLogEntry,
        line: impl FnOnce() -> String,
    ) {
        if let Some(logs) = &self.logs {
            let owner = Owner::Share(entry.owner());
            logs.offer(owner, || entries::record(entry, &line()).encode_to_vec());
        }
        if let (Some(traces), Some(span)) = (&self.traces, entry.span.as_deref())
            && span.sampled
        {
            let owner = Owner::Share(entry.owner());
            traces.queue.offer(owner, || spans::span(entry, span).encode_to_vec());
        }
    }

    /// A node has a flow.
    pub(in crate::telemetry) fn flow(&self, flow: &FlowRecord) {
        if let Some(logs) = &self.logs {
            let owner = Owner::Flow(FlowOrigin::of(flow));
            logs.offer(owner, || flows::record(flow).encode_to_vec());
        }
    }

    /// How each kind fares.
    #[must_use]
    pub fn reports(&self) -> Vec<SignalReport> {
        let traces = self.traces.as_ref().map(|traces| &traces.queue);
        let report = |queue: &Arc<Queue>| SignalReport {
            signal: queue.signal(),
            exported: queue.exported_total(),
            lost: Loss::ALL.map(|why| queue.lost_total(why)),
            failures: queue.failures_total(),
            fill: queue.fill(),
            failure: queue.last_failure(),
        };
        self.logs.iter().chain(traces).map(report).collect()
    }

    /// A sentence for each kind that does not reach its collector, or has lost something.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.reports().iter().filter_map(SignalReport::warning).collect()
    }
}

impl SignalReport {
    fn warning(&self) -> Option<String> {
        let lost: u64 = self.lost.iter().sum();
        let name = self.signal.name();
        match (&self.failure, lost) {
            (None, 0) => None,
            (None, lost) => Some(format!("export of {name} over OTLP: {lost} records are lost")),
            (Some(why), lost) => Some(format!(
                "export of {name} over OTLP fails: {why}; {lost} records are lost so far, traffic goes on"
            )),
        }
    }
}
