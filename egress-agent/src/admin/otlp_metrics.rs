//! How the export over OTLP fares, for both roles.

use std::fmt;

use super::exposition::Exposition;
use crate::telemetry::{Exports, Loss, SignalReport};

/// Writes the families; without an export they have no samples.
pub(super) fn write(exports: Option<&Exports>, out: &mut Exposition) -> fmt::Result {
    let reports = exports.map(Exports::reports).unwrap_or_default();
    let signal = |report: &SignalReport| ("signal", report.signal.name());
    let name = "egress_otlp_records_total";
    out.family(name, "counter", "Records that a collector has taken over OTLP.")?;
    for report in &reports {
        out.sample(name, &[signal(report)], report.exported)?;
    }
    let name = "egress_otlp_lost_total";
    let help =
        "Records that no collector has: no room in the queue, not delivered in time, rejected.";
    out.family(name, "counter", help)?;
    for report in &reports {
        for (why, lost) in Loss::ALL.iter().zip(report.lost) {
            out.sample(name, &[signal(report), ("cause", why.name())], lost)?;
        }
    }
    let name = "egress_otlp_failures_total";
    out.family(name, "counter", "Attempts to send records over OTLP that failed.")?;
    for report in &reports {
        out.sample(name, &[signal(report)], report.failures)?;
    }
    let name = "egress_otlp_up";
    out.family(name, "gauge", "Whether the last attempt to send records over OTLP succeeded.")?;
    for report in &reports {
        out.sample(name, &[signal(report)], u64::from(report.failure.is_none()))?;
    }
    let name = "egress_otlp_queue_bytes";
    out.family(name, "gauge", "Bytes of records that wait to be sent over OTLP.")?;
    for report in &reports {
        out.sample(name, &[signal(report)], report.fill.0)?;
    }
    let name = "egress_otlp_queue_capacity_bytes";
    out.family(name, "gauge", "Bytes of records that may wait to be sent over OTLP.")?;
    for report in &reports {
        out.sample(name, &[signal(report)], report.fill.1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::{Queue, Signal};

    #[test]
    fn losses_and_failures_are_seen() {
        let queue = Arc::new(Queue::new(Signal::Logs));
        queue.exported(5);
        queue.failed("refused".into());
        queue.lost(Loss::Undelivered, 7);
        let exports = Exports { logs: Some(queue), traces: None };
        let mut out = Exposition::default();
        write(Some(&exports), &mut out).unwrap();
        let text = out.into_text();
        for line in [
            "egress_otlp_records_total{signal=\"logs\"} 5",
            "egress_otlp_lost_total{signal=\"logs\",cause=\"full\"} 0",
            "egress_otlp_lost_total{signal=\"logs\",cause=\"undelivered\"} 7",
            "egress_otlp_failures_total{signal=\"logs\"} 1",
            "egress_otlp_up{signal=\"logs\"} 0",
            "egress_otlp_queue_capacity_bytes{signal=\"logs\"} 8388608",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}:\n{text}");
        }
        let [warning] = &exports.warnings()[..] else { panic!("one warning") };
        assert!(warning.contains("logs over OTLP fails: refused; 7 records are lost"), "{warning}");
        let mut out = Exposition::default();
        write(None, &mut out).unwrap();
        assert!(out.into_text().lines().all(|line| line.starts_with('#')), "off: no samples");
    }
}
