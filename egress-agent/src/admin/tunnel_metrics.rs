//! The metrics of the node's end of the tunnel, in Prometheus' text form.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::exposition::Exposition;
use crate::{
    policy::KeyGroup,
    telemetry::{TlsPeer, handshakes},
    tunnel::Stats,
};

/// The tunnel's metrics.
pub(super) fn write(stats: &Stats, out: &mut Exposition) -> fmt::Result {
    let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
    for (name, kind, help, value) in [
        ("egress_tunnel_connections", "gauge", "Tunnels that are open.", &stats.connections),
        (
            "egress_tunnel_handshakes_total",
            "counter",
            "Tunnels that were ever opened.",
            &stats.handshakes,
        ),
        (
            "egress_tunnel_failed_dials_total",
            "counter",
            "Tunnels that could not be opened.",
            &stats.failed_dials,
        ),
        ("egress_tunnel_streams", "gauge", "Connections in tunnels that are open.", &stats.streams),
        (
            "egress_tunnel_streams_total",
            "counter",
            "Connections in tunnels that were ever accepted.",
            &stats.streams_total,
        ),
        (
            "egress_tunnel_streams_reset_total",
            "counter",
            "Connections in tunnels that ended in a reset.",
            &stats.streams_reset,
        ),
    ] {
        out.single(name, kind, help, load(value))?;
    }
    let name = "egress_tls_handshakes_total";
    let help = "TLS handshakes that succeeded, by the group of the key exchange.";
    out.family(name, "counter", help)?;
    for group in KeyGroup::ALL {
        let labels = [("peer", TlsPeer::Upstream.name()), ("group", group.name())];
        out.sample(name, &labels, handshakes(TlsPeer::Upstream, *group))?;
    }
    let name = "egress_tunnel_bytes_total";
    out.family(name, "counter", "Bytes of connections in tunnels.")?;
    for (direction, count) in [("sent", load(&stats.sent)), ("received", load(&stats.received))] {
        out.sample(name, &[("direction", direction)], count)?;
    }
    let name = "egress_tunnel_closed_total";
    out.family(name, "counter", "Tunnels that ended, by cause.")?;
    for (cause, count) in stats.closed() {
        out.sample(name, &[("cause", cause.name())], count)?;
    }
    let name = "egress_tunnel_refused_total";
    out.family(name, "counter", "Connections to the tunnel that were reset, by reason.")?;
    for (reason, count) in stats.refused() {
        out.sample(name, &[("reason", reason.name())], count)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_own_series() {
        let mut out = Exposition::default();
        write(&Stats::default(), &mut out).unwrap();
        let text = out.into_text();
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
