//! The options themselves, each with what it asks of a flow.

use std::{net::IpAddr, time::SystemTime};

use egress_ebpf::reason::Reason;

use super::values::{LabelSelector, Moment, PodName, Protocol, Verdict, address, port};
use crate::{
    cli::reasons::reason,
    telemetry::FlowRecord,
    types::{Port, TraceId},
};

/// Whether a value of an option is what the flow has, at this time.
type Matches<T> = fn(&T, &FlowRecord, SystemTime) -> bool;

/// Defines the options and their values, which `--not` negates, and whether a flow matches one.
macro_rules! options {
    ($($(#[$meta:meta])* $name:ident: $type:ty = |$value:ident, $flow:ident, $now:ident| $matches:expr;)*) => {
        /// Values of the options; none is no condition.
        #[derive(clap::Args, Clone, Debug, Default)]
        pub(super) struct Options {
            $($(#[$meta])* $name: Vec<$type>,)*
        }

        impl Options {
            /// The names of the options.
            pub(super) const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// Whether none is given.
            pub(super) fn is_empty(&self) -> bool {
                [$(self.$name.is_empty()),*].iter().all(|is_empty| *is_empty)
            }

            /// Whether one value of each option that is given matches.
            pub(super) fn all_match(&self, flow: &FlowRecord, now: SystemTime) -> bool {
                $(
                    let matches: Matches<$type> = |$value, $flow, $now| $matches;
                    if !self.$name.is_empty() && !self.$name.iter().any(|v| matches(v, flow, now)) {
                        return false;
                    }
                )*
                true
            }

            /// Whether any value of any option matches.
            pub(super) fn one_matches(&self, flow: &FlowRecord, now: SystemTime) -> bool {
                $(
                    let matches: Matches<$type> = |$value, $flow, $now| $matches;
                    if self.$name.iter().any(|v| matches(v, flow, now)) {
                        return true;
                    }
                )*
                false
            }

            /// Parts the values: `negated` tells for an option, by its name, which of them are.
            pub(super) fn split(self, negated: impl Fn(&str) -> Vec<bool>) -> (Self, Self) {
                let (mut only, mut not) = (Self::default(), Self::default());
                $(
                    // One of them may have come from elsewhere than the command line.
                    let told = negated(stringify!($name)).into_iter().chain(std::iter::repeat(false));
                    for (value, negated) in self.$name.into_iter().zip(told) {
                        if negated { not.$name.push(value) } else { only.$name.push(value) }
                    }
                )*
                (only, not)
            }
        }
    };
}

options! {
    /// With this verdict: `denied` by policy, what audit mode let pass included (`AUDIT would
    /// deny`); `failed` between a gateway and the external host; `audited` is what enforcement would
    /// have denied or redirected.
    #[arg(long, value_enum, value_delimiter = ',')]
    verdict: Verdict = |value, flow, _now| value.is_of(flow);
    /// With this reason; `egress-agent reasons` lists them.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = reason)]
    reason: Reason = |value, flow, _now| flow.reason.as_deref() == Some(value.name());
    /// Of this workload.
    #[arg(long, visible_alias = "from-pod", value_name = "[NAMESPACE/]NAME", value_delimiter = ',')]
    pod: PodName = |value, flow, _now| value.is_of(flow);
    /// Of workloads in this namespace.
    #[arg(short, long, visible_alias = "from-namespace", value_name = "NAMESPACE", value_delimiter = ',')]
    namespace: String = |value, flow, _now| flow.namespace.as_ref() == Some(value);
    /// Of workloads with these labels: `app=web`, `app=web,tier=front` for both, or `app` for any value.
    #[arg(short, long, visible_alias = "from-label", value_name = "KEY[=VALUE],...")]
    label: LabelSelector = |value, flow, _now| value.is_of(flow);
    /// From or to this address.
    #[arg(long, visible_alias = "ip", value_name = "IP", value_delimiter = ',', value_parser = address)]
    address: IpAddr = |value, flow, _now| {
        from_address(flow, *value) || to_address(flow, *value)
    };
    /// From this address.
    #[arg(long, visible_alias = "from-ip", value_name = "IP", value_delimiter = ',', value_parser = address)]
    from_address: IpAddr = |value, flow, _now| from_address(flow, *value);
    /// To this address; the gateway's, and the one that a gateway connected to, included.
    #[arg(long, visible_alias = "to-ip", value_name = "IP", value_delimiter = ',', value_parser = address)]
    to_address: IpAddr = |value, flow, _now| to_address(flow, *value);
    /// From or to this port.
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = port)]
    port: Port = |value, flow, _now| flow.source_port == Some(value.get()) || to_port(flow, value.get());
    /// From this port.
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = port)]
    from_port: Port = |value, flow, _now| flow.source_port == Some(value.get());
    /// To this port; the gateway's, and the one that a gateway connected to, included.
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = port)]
    to_port: Port = |value, flow, _now| to_port(flow, value.get());
    /// To this host; `*.example.com` is all below it.
    #[arg(long, visible_aliases = ["to-host", "fqdn"], value_name = "NAME", value_delimiter = ',')]
    host: String = |value, flow, _now| names(flow, value);
    /// Of the connection that has this trace id, on its node or its gateway.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    trace: TraceId = |value, flow, _now| {
        flow.trace_id.as_ref().is_some_and(|id| id.parse::<TraceId>() == Ok(*value))
    };
    /// Of this protocol: tcp, udp, icmp, tls, http (of any version).
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    protocol: Protocol = |value, flow, _now| value.is_of(flow);
    /// Not older than this: 30s, 1h30m, 2d, or a time such as 2026-11-29T12:00:00Z.
    #[arg(long, value_name = "DURATION|TIME")]
    since: Moment = |value, flow, now| value.is_before(flow.time, now);
    /// Not newer than this, in the same forms.
    #[arg(long, value_name = "DURATION|TIME")]
    until: Moment = |value, flow, now| value.is_after(flow.time, now);
}

impl Options {
    /// The begin of the time that is asked for; `None` is open.
    pub(super) fn begin(&self, now: SystemTime) -> Option<SystemTime> {
        self.since.iter().map(|since| since.time(now)).min()
    }

    /// Its end.
    pub(super) fn end(&self, now: SystemTime) -> Option<SystemTime> {
        self.until.iter().map(|until| until.time(now)).max()
    }
}

fn from_address(flow: &FlowRecord, addr: IpAddr) -> bool {
    flow.source_address == Some(addr.to_canonical())
}

fn to_address(flow: &FlowRecord, addr: IpAddr) -> bool {
    let wanted = addr.to_canonical();
    flow.destination_address == Some(wanted)
        || [flow.gateway, flow.upstream].iter().flatten().any(|there| there.ip() == wanted)
}

fn to_port(flow: &FlowRecord, port: u16) -> bool {
    flow.destination_port == Some(port)
        || [flow.gateway, flow.upstream].iter().flatten().any(|there| there.port() == port)
}

/// A node may know several names of an address, and an authority may have a port.
fn names(flow: &FlowRecord, wanted: &str) -> bool {
    let Some(known) = &flow.host else { return false };
    let is_meant = |name: &str| match wanted.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') => {
            let name = name.to_ascii_lowercase();
            name.len() > suffix.len() && name.ends_with(&suffix.to_ascii_lowercase())
        }
        _ => name.eq_ignore_ascii_case(wanted),
    };
    known.split(',').any(|name| {
        let bare = match name.rsplit_once(':') {
            Some((bare, port)) if port.bytes().all(|b| b.is_ascii_digit()) => bare,
            _ => name,
        };
        is_meant(name) || is_meant(bare)
    })
}
