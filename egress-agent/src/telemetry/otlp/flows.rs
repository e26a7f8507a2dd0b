//! A node's flow as a log record.

use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

use super::attributes::{Attributes, body, nanoseconds};
use crate::telemetry::flow::{FlowRecord, FlowVerdict};

/// The record: what `flows -o json` shows, as attributes, and the line of `flows` as its body.
pub(super) fn record(flow: &FlowRecord) -> LogRecord {
    let (severity, text) = match flow.verdict {
        FlowVerdict::Allow | FlowVerdict::Redirect => (SeverityNumber::Info, "INFO"),
        FlowVerdict::Deny | FlowVerdict::Fail => (SeverityNumber::Warn, "WARN"),
    };
    LogRecord {
        time_unix_nano: nanoseconds(flow.time),
        observed_time_unix_nano: nanoseconds(flow.time),
        severity_number: severity.into(),
        severity_text: text.into(),
        body: body(&flow.text()),
        attributes: attributes(flow).into_pairs(),
        event_name: "egress.flow".into(),
        ..LogRecord::default()
    }
}

fn attributes(flow: &FlowRecord) -> Attributes {
    let FlowRecord {
        time: _,
        hook,
        verdict,
        reason,
        audit,
        set,
        workload,
        namespace,
        labels,
        pid,
        executable,
        command,
        container,
        cgroup,
        interface,
        source_address,
        source_port,
        destination_address,
        destination_port,
        gateway,
        trace_id,
        host,
        protocol,
        ech,
        upstream,
        response_code,
        response_flags,
        detail,
        server: _,
    } = flow;
    let mut all = Attributes::default();
    all.text("egress.hook", Some(hook));
    let verdict = match verdict {
        FlowVerdict::Allow => "allow",
        FlowVerdict::Deny => "deny",
        FlowVerdict::Redirect => "redirect",
        FlowVerdict::Fail => "fail",
    };
    all.text("egress.verdict", Some(verdict));
    all.text("egress.reason", reason.as_deref());
    all.holds("egress.audit", *audit);
    all.text("egress.set", set.as_deref());
    all.text("egress.workload", workload.as_deref());
    all.text("egress.workload_namespace", namespace.as_deref());
    for (key, value) in labels {
        all.text(format!("egress.workload_label.{key}"), Some(value));
    }
    all.number("process.pid", *pid);
    all.text("process.executable.path", executable.as_deref());
    all.text("process.command", command.as_deref());
    all.text("container.id", container.as_deref());
    all.text("egress.cgroup", cgroup.as_deref());
    all.text("egress.interface", interface.as_deref());
    all.shown("source.address", *source_address);
    all.number("source.port", *source_port);
    all.shown("destination.address", *destination_address);
    all.number("destination.port", *destination_port);
    all.shown("egress.gateway", *gateway);
    all.text("egress.trace_id", trace_id.as_deref());
    all.text("server.address", host.as_deref());
    all.text("egress.protocol", Some(protocol));
    all.holds("egress.encrypted_client_hello", *ech);
    all.shown("network.peer.address", upstream.map(|upstream| upstream.ip()));
    all.number("network.peer.port", upstream.map(|upstream| upstream.port()));
    all.number("http.response.status_code", *response_code);
    all.text("egress.response_flags", response_flags.as_deref());
    all.text("egress.detail", detail.as_deref());
    all
}
