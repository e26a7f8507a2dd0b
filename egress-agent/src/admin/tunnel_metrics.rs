//! The metrics of the node's end of the tunnel, in Prometheus' text form.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    policy::KeyGroup,
    telemetry::{TlsPeer, handshakes},
    tunnel::Stats,
};

/// The tunnel's metrics, in Prometheus' text form.
pub(super) fn render(text: &mut String, stats: &Stats) {
    let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
    let mut series = |name: &str, kind: &str, values: &[(String, u64)]| {
        // Writing to a string can't fail.
        writeln!(text, "# TYPE {name} {kind}").ok();
        for (labels, value) in values {
            writeln!(text, "{name}{labels} {value}").ok();
        }
    };
    let mut single = |name: &str, kind: &str, value: &AtomicU64| {
        series(name, kind, &[(String::new(), load(value))]);
    };
    single("egress_tunnel_connections", "gauge", &stats.connections);
    single("egress_tunnel_handshakes_total", "counter", &stats.handshakes);
    single("egress_tunnel_failed_dials_total", "counter", &stats.failed_dials);
    single("egress_tunnel_streams", "gauge", &stats.streams);
    single("egress_tunnel_streams_total", "counter", &stats.streams_total);
    single("egress_tunnel_streams_reset_total", "counter", &stats.streams_reset);
    let groups = KeyGroup::ALL.iter().map(|group| {
        let (peer, name) = (TlsPeer::Upstream, group.name());
        (format!("{{peer=\"{}\",group=\"{name}\"}}", peer.name()), handshakes(peer, *group))
    });
    series("egress_tls_handshakes_total", "counter", &groups.collect::<Vec<_>>());
    let bytes = [("sent", load(&stats.sent)), ("received", load(&stats.received))];
    let bytes = bytes.map(|(direction, count)| (format!("{{direction=\"{direction}\"}}"), count));
    series("egress_tunnel_bytes_total", "counter", &bytes);
    let label = |name: &str, value: &str| format!("{{{name}=\"{value}\"}}");
    let closed = stats.closed().map(|(cause, count)| (label("cause", cause.name()), count));
    series("egress_tunnel_closed_total", "counter", &closed.collect::<Vec<_>>());
    let refused = stats.refused().map(|(reason, count)| (label("reason", reason.name()), count));
    series("egress_tunnel_refused_total", "counter", &refused.collect::<Vec<_>>());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_own_series() {
        let mut text = String::new();
        render(&mut text, &Stats::default());
        for line in [
            "egress_tunnel_handshakes_total 0",
            "egress_tunnel_bytes_total{direction=\"received\"} 0",
            "egress_tunnel_closed_total{cause=\"silent\"} 0",
            "egress_tunnel_refused_total{reason=\"no_record\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
        // Counted for the whole process, and so by other tests, too.
        let of_group = "egress_tls_handshakes_total{peer=\"upstream\",group=\"P-384\"} ";
        assert!(text.lines().any(|found| found.starts_with(of_group)), "{text}");
    }
}
