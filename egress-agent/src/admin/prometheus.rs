//! Prometheus' text exposition format, with Envoy's and Istio's names.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::SystemTime,
};

use super::{
    State, Status, certificate_metrics, exposition::Exposition, otlp_metrics, process_metrics,
    stats::denials,
};
use crate::{
    net::empty_frames,
    policy::KeyGroup,
    telemetry::{
        ADMIN_ENDPOINTS, AdminRefusal, ClusterCounter, DURATION_BUCKETS, LimitStats, LineFate,
        Normalized, Resource, Series, Telemetry, TlsPeer, UnwrittenLines, handshakes, normalized,
        panics,
    },
};

/// Everything there is.
pub(super) fn text(telemetry: &Telemetry, status: &Status) -> String {
    let mut out = Exposition::default();
    let written = write_all(telemetry, status, &mut out);
    debug_assert!(written.is_ok(), "a text in memory takes everything");
    out.into_text()
}

fn write_all(telemetry: &Telemetry, status: &Status, out: &mut Exposition) -> fmt::Result {
    clusters(telemetry, out)?;
    series(telemetry, out)?;
    out.family("egress_denied_total", "counter", "Refusals and failures by reason.")?;
    for reason in denials(telemetry) {
        let value = telemetry.stats.denied_total(reason);
        out.sample("egress_denied_total", &[("reason", reason.name())], value)?;
    }
    let name = "egress_upstream_normalized_total";
    out.family(name, "counter", "Responses of upstreams that were put right, by what was wrong.")?;
    for kind in Normalized::ALL {
        out.sample(name, &[("kind", kind.name())], normalized(kind))?;
    }
    let name = "egress_tls_handshakes_total";
    out.family(
        name,
        "counter",
        "TLS handshakes that succeeded, by the group of the key exchange.",
    )?;
    for peer in TlsPeer::ALL {
        for group in KeyGroup::ALL {
            let labels = [("peer", peer.name()), ("group", group.name())];
            out.sample(name, &labels, handshakes(peer, *group))?;
        }
    }
    tunnels(telemetry, out)?;
    limits(telemetry, out)?;
    certificate_metrics::write(&status.certificates(), SystemTime::now(), out)?;
    process(telemetry, status, out)
}

/// Tunnels of nodes; by the names that the node's end has for the same.
fn tunnels(telemetry: &Telemetry, out: &mut Exposition) -> fmt::Result {
    let stats = telemetry.stats.tunnels();
    let all = [
        ("egress_tunnel_connections", "gauge", "Tunnels of nodes that are open.", &stats.open),
        (
            "egress_tunnel_handshakes_total",
            "counter",
            "Tunnels of nodes that were ever opened.",
            &stats.opened,
        ),
        ("egress_tunnel_streams", "gauge", "Connections in tunnels that are open.", &stats.streams),
        (
            "egress_tunnel_streams_total",
            "counter",
            "Connections in tunnels that were ever accepted.",
            &stats.streams_opened,
        ),
    ];
    for (name, kind, help, value) in all {
        out.family(name, kind, help)?;
        out.sample(name, &[], value.load(Relaxed))?;
    }
    Ok(())
}

/// Shared resources, and the places at the admin endpoints.
fn limits(telemetry: &Telemetry, out: &mut Exposition) -> fmt::Result {
    type Value = fn(&LimitStats, Resource) -> u64;
    let all: [(&str, &str, &str, Value); 4] = [
        ("egress_limit", "gauge", "Bounds of shared resources.", LimitStats::limit),
        ("egress_limit_used", "gauge", "Use of shared resources.", LimitStats::used),
        (
            "egress_limit_refused_total",
            "counter",
            "Connections and requests refused because their source had its share.",
            LimitStats::refused_total,
        ),
        (
            "egress_limit_closed_total",
            "counter",
            "Connections closed because their source had the most and another needed room.",
            LimitStats::closed_total,
        ),
    ];
    for (name, kind, help, value) in all {
        out.family(name, kind, help)?;
        for resource in Resource::ALL {
            let value = value(telemetry.stats.limits(), resource);
            out.sample(name, &[("resource", resource.name())], value)?;
        }
    }
    let name = "egress_node_address_connections_total";
    let help = "Connections of the plain hop that came from the address of a node.";
    out.family(name, "counter", help)?;
    out.sample(name, &[], telemetry.stats.node_sources().count())?;
    let name = "egress_admin_refused_total";
    out.family(name, "counter", "Connections to admin endpoints that were not served.")?;
    for (index, endpoint) in ADMIN_ENDPOINTS.iter().enumerate() {
        for why in AdminRefusal::ALL {
            let value = telemetry.stats.admin_refusals().get(index, why);
            out.sample(name, &[("endpoint", endpoint), ("cause", why.name())], value)?;
        }
    }
    Ok(())
}

fn clusters(telemetry: &Telemetry, out: &mut Exposition) -> fmt::Result {
    let clusters = telemetry.stats.clusters();
    for counter in ClusterCounter::ALL {
        // Istio takes the class of the response out of the name and makes it a label.
        let (name, class) = match counter.name().strip_prefix("upstream_rq_") {
            Some(class @ ("2xx" | "3xx" | "4xx" | "5xx")) => ("upstream_rq", Some(class)),
            _ => (counter.name(), None),
        };
        let name = format!("envoy_cluster_{}", name.replace('.', "_"));
        if class.is_none_or(|class| class == "2xx") {
            let kind = if counter.is_gauge() { "gauge" } else { "counter" };
            out.family(&name, kind, counter.help())?;
        }
        for (cluster, stats) in &clusters {
            let cluster = ("cluster_name", &*cluster.0);
            let value = stats.get(*counter);
            match class {
                Some(class) => {
                    out.sample(&name, &[("response_code_class", class), cluster], value)?
                }
                None => out.sample(&name, &[cluster], value)?,
            }
        }
    }
    let gauges: Vec<_> = clusters.iter().map(|(name, stats)| (name, stats.gauges())).collect();
    for (index, (gauge, _)) in
        gauges.first().map(|(_, gauges)| *gauges).iter().flatten().enumerate()
    {
        let name = format!("envoy_cluster_{}", gauge.replace('.', "_"));
        let help = "As of the last connection: endpoints of the cluster.";
        out.family(&name, "gauge", help)?;
        for (cluster, values) in &gauges {
            out.sample(&name, &[("cluster_name", &*cluster.0)], values[index].1)?;
        }
    }
    Ok(())
}

fn series(telemetry: &Telemetry, out: &mut Exposition) -> fmt::Result {
    let all = telemetry.stats.series();
    let of = |requests: bool| {
        let is = move |series: &&Series| series.key().protocol.has_requests() == requests;
        all.iter().map(|series| &**series).filter(is)
    };
    let count = |series: &Series| series.durations()[DURATION_BUCKETS.len()];
    out.family("istio_requests_total", "counter", "HTTP requests.")?;
    for series in of(true) {
        out.labelled("istio_requests_total", &istio_labels(series), count(series))?;
    }
    let name = "istio_request_duration_milliseconds";
    out.family(name, "histogram", "From the request's first byte to the response's last.")?;
    for series in of(true) {
        let labels = istio_labels(series);
        let durations = series.durations();
        for (bound, below) in DURATION_BUCKETS.iter().zip(durations) {
            out.labelled_le(name, &labels, &bound.to_string(), below)?;
        }
        out.labelled_le(name, &labels, "+Inf", count(series))?;
        let micros = series.microseconds();
        let sum = format!("{}.{:03}", micros / 1000, micros % 1000);
        out.labelled("istio_request_duration_milliseconds_sum", &labels, sum)?;
        out.labelled("istio_request_duration_milliseconds_count", &labels, count(series))?;
    }
    type Value = fn(&Series) -> u64;
    let tcp: [(&str, &str, Value); 4] = [
        ("istio_tcp_connections_opened_total", "Connections opened.", Series::connections_opened),
        ("istio_tcp_connections_closed_total", "Connections closed.", Series::connections_closed),
        ("istio_tcp_received_bytes_total", "Bytes from clients.", |series| series.bytes().0),
        ("istio_tcp_sent_bytes_total", "Bytes to clients.", |series| series.bytes().1),
    ];
    for (name, help, value) in tcp {
        out.family(name, "counter", help)?;
        for series in of(false) {
            out.labelled(name, &istio_labels(series), value(series))?;
        }
    }
    Ok(())
}

/// Istio's labels; what a gateway can't know is `unknown`, as Istio has it.
fn istio_labels(series: &Series) -> String {
    let key = series.key();
    let (workload, namespace) = key.source.unwrap_or(("unknown", "unknown"));
    // `outbound|<port>|<subset>|<host>`; the other clusters name no service.
    let host = key.cluster.and_then(|cluster| cluster.split('|').nth(3));
    let service = host.unwrap_or("unknown");
    let service_name = host.or(key.cluster).unwrap_or("unknown");
    let code = key.response_code.to_string();
    let grpc = key.grpc_status.map(|status| status.to_string());
    let flags = key.response_flags.to_string();
    let mut labels = Exposition::default();
    let mut all = vec![
        ("reporter", "source"),
        ("source_workload", workload),
        ("source_workload_namespace", namespace),
        ("source_principal", key.principal.unwrap_or("unknown")),
        ("destination_workload", "unknown"),
        ("destination_workload_namespace", "unknown"),
        ("destination_principal", "unknown"),
        ("destination_service", service),
        ("destination_service_name", service_name),
        ("destination_service_namespace", "unknown"),
        ("request_protocol", key.protocol.name()),
    ];
    if key.protocol.has_requests() {
        all.push(("response_code", &code));
    }
    if let Some(status) = &grpc {
        all.push(("grpc_response_status", status));
    }
    let security = if key.principal.is_some() { "mutual_tls" } else { "unknown" };
    all.extend([("response_flags", flags.as_str()), ("connection_security_policy", security)]);
    let written = labels.labels(&all);
    debug_assert!(written.is_ok(), "a text in memory takes everything");
    labels.into_text()
}

fn process(telemetry: &Telemetry, status: &Status, out: &mut Exposition) -> fmt::Result {
    let config = status.config();
    let log = telemetry.access_log.counts();
    let gauges = [
        ("egress_ready", "Whether this process is ready.", (status.state() == State::Live).into()),
        (
            "egress_config_current",
            "Whether the files, as last read, are what is in force.",
            config.current.into(),
        ),
        ("envoy_server_uptime", "Seconds since start.", telemetry.stats.uptime()),
    ];
    let counters = [
        ("egress_access_log_lines_total", "Lines of the access log written.", log.lines),
        (
            "egress_access_log_dropped_total",
            "Lines of the access log lost: its output was too slow or failed.",
            log.dropped,
        ),
        (
            "egress_http2_empty_frames_total",
            "Empty DATA frames of HTTP/2 peers that were taken out.",
            empty_frames(),
        ),
        ("egress_panics_total", "Faults of this program that interrupted something.", panics()),
    ];
    for (kind, values) in [("gauge", &gauges[..]), ("counter", &counters[..])] {
        for (name, help, value) in values {
            out.family(name, kind, help)?;
            out.sample(name, &[], *value)?;
        }
    }
    unwritten(telemetry, out)?;
    otlp_metrics::write(telemetry.exports.get().map(|exports| &**exports), out)?;
    process_metrics::reloads(config.accepted, config.rejected, out)?;
    process_metrics::write("gateway", out)
}

/// Lines of the access log by workload, whose names are the configuration's.
fn unwritten(telemetry: &Telemetry, out: &mut Exposition) -> fmt::Result {
    let all = telemetry.access_log.unwritten();
    let lost = "egress_access_log_lost_total";
    let aggregated = "egress_access_log_aggregated_total";
    out.family(lost, "counter", "Lines lost: the output was too slow or failed; by workload.")?;
    for UnwrittenLines { workload, fate, count } in &all {
        if *fate == LineFate::Lost {
            out.sample(lost, &workload_labels(workload.as_ref()), *count)?;
        }
    }
    out.family(aggregated, "counter", "Refusals that share a line of the access log with others.")?;
    for UnwrittenLines { workload, fate, count } in &all {
        if let LineFate::Aggregated(reason) = fate {
            let [name, namespace] = workload_labels(workload.as_ref());
            out.sample(aggregated, &[name, namespace, ("reason", reason.name())], *count)?;
        }
    }
    Ok(())
}

fn workload_labels(workload: Option<&(Arc<str>, Arc<str>)>) -> [(&'static str, &str); 2] {
    let (namespace, name) =
        workload.map_or(("unknown", "unknown"), |(namespace, name)| (namespace, name));
    [("source_workload", name), ("source_workload_namespace", namespace)]
}
