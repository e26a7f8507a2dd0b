//! Flow events: from the kernel's ring buffer to the history, to followers, and to standard output
//! as lines.

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use clap::ValueEnum;
use tokio::sync::watch;

use super::{
    counters::NodeCounters,
    dns::Resolved,
    enrichment::{FlowEnricher, WorkloadIndex},
    pods::Pod,
};
use crate::{
    bpf::Events,
    source::Loaded,
    telemetry::{FlowLog, FlowRecord},
};

/// Lines that may wait for a slow reader; more are dropped and counted.
const QUEUE: usize = 8192;

/// How flow events are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
    /// Not at all; they are counted all the same.
    Off,
}

/// Writes flow events without ever holding up the one who hands them over.
pub(crate) struct Printer {
    format: Format,
    lines: SyncSender<String>,
    dropped: Arc<AtomicU64>,
}

impl Printer {
    /// Starts the thread that writes.
    pub(crate) fn start(format: Format) -> io::Result<Self> {
        let (lines, receiver) = sync_channel(QUEUE);
        if format != Format::Off {
            thread::Builder::new().name("events".into()).spawn(move || write(&receiver))?;
        }
        Ok(Self { format, lines, dropped: Arc::default() })
    }

    /// Lines that were dropped because nobody read them in time.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Hands one flow over.
    fn print(&self, flow: &FlowRecord) {
        let text = match self.format {
            Format::Text => flow.text(),
            Format::Json => serde_json::to_string(flow).unwrap_or_default(),
            Format::Off => return,
        };
        match self.lines.try_send(text) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Writes until the printer is gone. Flushes whenever nothing waits, so that a reader sees an
/// event at once and a flood costs few system calls.
fn write(lines: &Receiver<String>) {
    let mut out = io::BufWriter::new(io::stdout());
    while let Ok(line) = lines.recv() {
        let mut result = writeln!(out, "{line}");
        while let Ok(line) = lines.try_recv() {
            result = result.and_then(|()| writeln!(out, "{line}"));
        }
        if let Err(error) = result.and_then(|()| out.flush()) {
            tracing::warn!("can't write flow events any more: {error}");
            return;
        }
    }
}

/// What names come from.
pub(crate) struct Naming {
    pub(crate) loaded: watch::Receiver<Loaded>,
    pub(crate) resolved: watch::Receiver<Resolved>,
    pub(crate) pods: Vec<Pod>,
}

impl Naming {
    /// Takes over what changed since the last time.
    fn refresh(&mut self, namer: &mut FlowEnricher) {
        if self.loaded.has_changed().unwrap_or(false)
            && let Some(snapshot) = &self.loaded.borrow_and_update().snapshot
        {
            namer.set_who(WorkloadIndex::new(&snapshot.mesh, &self.pods));
        }
        if self.resolved.has_changed().unwrap_or(false) {
            namer.set_hosts(&self.resolved.borrow_and_update());
        }
    }
}

/// Reads events until the ring buffer can't be read any more; then it waits for ever.
pub(crate) async fn run(
    mut events: Events,
    printer: Printer,
    mut naming: Naming,
    log: Arc<FlowLog>,
    tally: Arc<NodeCounters>,
) {
    let mut namer = FlowEnricher::default();
    naming.loaded.mark_changed();
    naming.resolved.mark_changed();
    loop {
        let read = events.read(|flow| {
            naming.refresh(&mut namer);
            let flow = namer.record(&flow);
            printer.print(&flow);
            log.push(flow);
        });
        match read.await {
            Ok(0) => {}
            Ok(unreadable) => {
                let unreadable = u64::try_from(unreadable).unwrap_or(u64::MAX);
                tally.unreadable.fetch_add(unreadable, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::error!("can't read flow events any more: {error}");
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::flow_tests::dropped;

    fn printer(format: Format) -> (Printer, Receiver<String>) {
        let (lines, receiver) = sync_channel(1);
        (Printer { format, lines, dropped: Arc::default() }, receiver)
    }

    #[test]
    fn json_holds_values_and_leaves_out_what_is_unknown() {
        let (printer, lines) = printer(Format::Json);
        printer.print(&dropped());
        let value: serde_json::Value = serde_json::from_str(&lines.recv().unwrap()).unwrap();
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:01.5Z",
            "hook": "pod",
            "verdict": "deny",
            "reason": "not_redirected",
            "audit": false,
            "workload": "web",
            "namespace": "default",
            "labels": { "app": "web" },
            "interface": "veth-web",
            "source_address": "10.0.0.5",
            "source_port": 40000,
            "destination_address": "198.51.100.7",
            "destination_port": 443,
            "protocol": "TCP",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_slow_reader_costs_lines_and_nothing_else() {
        let (printer, lines) = printer(Format::Text);
        for _ in 0..3 {
            printer.print(&dropped());
        }
        assert_eq!(printer.dropped().load(Ordering::Relaxed), 2);
        assert!(lines.recv().is_ok());
        let (off, _lines) = self::printer(Format::Off);
        off.print(&dropped());
        assert_eq!(off.dropped().load(Ordering::Relaxed), 0);
    }
}
