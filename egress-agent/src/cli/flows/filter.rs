//! Which flows are shown.

use std::{
    net::IpAddr,
    str::FromStr,
    time::{Duration, SystemTime},
};

use clap::ValueEnum;
use egress_ebpf::reason::Reason;

use crate::{
    cli::reasons::reason,
    telemetry::{FlowRecord, FlowVerdict},
};

/// Options that choose flows. Those of one option are alternatives; of different ones, all have to
/// match.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct Filter {
    /// With this verdict: `denied` by policy, what audit mode let pass included (`AUDIT would
    /// deny`); `failed` between a gateway and the external host; `audited` is what enforcement would have denied
    /// or redirected.
    #[arg(long, value_enum, value_delimiter = ',')]
    verdict: Vec<Verdict>,
    /// With this reason; `egress-agent reasons` lists them.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = reason)]
    reason: Vec<Reason>,
    /// Of this workload.
    #[arg(long, value_name = "[NAMESPACE/]NAME", value_delimiter = ',')]
    pod: Vec<PodName>,
    /// From or to this address.
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    address: Vec<IpAddr>,
    /// From or to this port.
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    port: Vec<u16>,
    /// To this host.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    host: Vec<String>,
    /// Not older than this: 30s, 5m, 2h, 1d.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
}

/// `--verdict`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Verdict {
    Denied,
    Allowed,
    Redirected,
    Audited,
    Failed,
}

impl Verdict {
    fn is_of(self, flow: &FlowRecord) -> bool {
        match self {
            Self::Audited => flow.audit,
            Self::Denied => flow.verdict == FlowVerdict::Deny,
            Self::Allowed => flow.verdict == FlowVerdict::Allow && !flow.audit,
            Self::Redirected => flow.verdict == FlowVerdict::Redirect && !flow.audit,
            Self::Failed => flow.verdict == FlowVerdict::Fail && !flow.audit,
        }
    }
}

/// `--pod`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct PodName {
    namespace: Option<String>,
    name: String,
}

impl FromStr for PodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') || namespace == Some("") {
            return Err(format!("found `{text}`, expected NAME or NAMESPACE/NAME"));
        }
        Ok(Self { namespace: namespace.map(Into::into), name: name.into() })
    }
}

impl PodName {
    fn is_of(&self, flow: &FlowRecord) -> bool {
        flow.workload.as_ref() == Some(&self.name)
            && (self.namespace.is_none() || self.namespace == flow.namespace)
    }
}

impl Filter {
    /// Whether nothing is asked for, so that everything is shown.
    pub(super) fn is_empty(&self) -> bool {
        let Self { verdict, reason, pod, address, port, host, since } = self;
        verdict.is_empty()
            && reason.is_empty()
            && pod.is_empty()
            && address.is_empty()
            && port.is_empty()
            && host.is_empty()
            && since.is_none()
    }

    /// Whether the flow is shown, at this time.
    pub(super) fn matches(&self, flow: &FlowRecord, now: SystemTime) -> bool {
        let Self { verdict, reason, pod, address, port, host, since } = self;
        let addresses = [
            flow.source_address,
            flow.destination_address,
            flow.upstream.map(|upstream| upstream.ip()),
        ];
        let ports = [
            flow.source_port,
            flow.destination_port,
            flow.upstream.map(|upstream| upstream.port()),
        ];
        any(verdict, |verdict| verdict.is_of(flow))
            && any(reason, |reason| flow.reason.as_deref() == Some(reason.name()))
            && any(pod, |pod| pod.is_of(flow))
            && any(address, |addr| addresses.contains(&Some(addr.to_canonical())))
            && any(port, |port| ports.contains(&Some(*port)))
            && any(host, |host| names(flow, host))
            && since.is_none_or(|since| {
                // A flow of the future isn't old.
                now.duration_since(flow.time).is_ok_and(|age| age <= since) || flow.time > now
            })
    }
}

/// Whether one of the alternatives holds; there may be none.
fn any<T>(alternatives: &[T], holds: impl Fn(&T) -> bool) -> bool {
    alternatives.is_empty() || alternatives.iter().any(holds)
}

/// A node may know several names of an address, and an authority may have a port.
fn names(flow: &FlowRecord, host: &str) -> bool {
    let Some(known) = &flow.host else { return false };
    known.split(',').any(|name| {
        let bare = match name.rsplit_once(':') {
            Some((bare, port)) if port.bytes().all(|b| b.is_ascii_digit()) => bare,
            _ => name,
        };
        [name, bare].iter().any(|name| name.eq_ignore_ascii_case(host))
    })
}

/// `90s`, `5m`, `2h`, `1d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("found `{text}`, expected a duration such as 30s, 5m, 2h or 1d");
    let unit = text.chars().next_back().ok_or_else(expected)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(expected()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| expected())?;
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::telemetry::flow_tests::{dropped, redirected};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    fn filter(args: &[&str]) -> Result<Filter, String> {
        let line = Line::try_parse_from([&["flows"], args].concat());
        line.map(|line| line.filter).map_err(|error| error.to_string())
    }

    /// Whether the two flows match.
    fn shown(args: &[&str]) -> (bool, bool) {
        let filter = filter(args).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        (filter.matches(&dropped(), now), filter.matches(&redirected(), now))
    }

    #[test]
    fn each_option_lets_through_what_it_names_and_nothing_else() {
        assert_eq!(shown(&[]), (true, true));
        assert_eq!(shown(&["--verdict", "denied"]), (true, false));
        assert_eq!(shown(&["--verdict", "redirected"]), (false, true));
        assert_eq!(shown(&["--verdict", "denied,redirected"]), (true, true));
        assert_eq!(shown(&["--verdict", "audited"]), (false, false));
        assert_eq!(shown(&["--reason", "not_redirected"]), (true, false));
        assert_eq!(shown(&["--pod", "web"]), (true, false));
        assert_eq!(shown(&["--pod", "default/web"]), (true, false));
        assert_eq!(shown(&["--pod", "other/web"]), (false, false));
        assert_eq!(shown(&["--address", "10.0.0.5"]), (true, false));
        assert_eq!(shown(&["--address", "198.51.100.7"]), (true, true));
        assert_eq!(shown(&["--address", "198.51.100.8"]), (false, false));
        assert_eq!(shown(&["--port", "40000"]), (true, false));
        assert_eq!(shown(&["--port", "443"]), (true, true));
        assert_eq!(shown(&["--since", "59s"]), (true, true));
        assert_eq!(shown(&["--since", "58s"]), (false, false));
        assert_eq!(shown(&["--port", "443", "--verdict", "denied"]), (true, false));
        assert_eq!(shown(&["--host", "edition.cnn.com"]), (false, false));
    }

    #[test]
    fn an_audited_refusal_is_a_denied_flow_and_an_audited_redirect_is_none() {
        let now = SystemTime::UNIX_EPOCH;
        let refusal = FlowRecord { audit: true, ..dropped() };
        let redirect = FlowRecord { audit: true, ..redirected() };
        for flow in [&refusal, &redirect] {
            assert!(filter(&["--verdict", "audited"]).unwrap().matches(flow, now));
        }
        let denied = filter(&["--verdict", "denied"]).unwrap();
        assert!(denied.matches(&refusal, now) && !denied.matches(&redirect, now));
        assert!(refusal.is_refusal() && !redirect.is_refusal());
    }

    #[test]
    fn a_host_is_found_with_and_without_its_port() {
        let now = SystemTime::UNIX_EPOCH;
        for (host, wanted, found) in [
            ("a.example", "a.example", true),
            ("A.example:8080", "a.example", true),
            ("a.example:8080", "a.example:8080", true),
            ("b.example,a.example", "a.example", true),
            ("aa.example", "a.example", false),
        ] {
            let flow = FlowRecord { host: Some(host.into()), ..dropped() };
            let filter = filter(&["--host", wanted]).unwrap();
            assert_eq!(filter.matches(&flow, now), found, "{host} {wanted}");
        }
    }

    #[test]
    fn typos_are_answered_with_the_nearest() {
        for (args, nearest) in [
            (["--verdict", "denid"], "denied"),
            (["--reason", "no_rote"], "no_route"),
            (["--since", "5x"], "5m"),
            (["--pod", "a/b/c"], "NAMESPACE/NAME"),
        ] {
            let error = filter(&args).unwrap_err();
            assert!(error.contains(nearest), "{args:?}: {error}");
        }
        for bad in ["", "s", "-1s", "1.5h", "99999999999999999999d", "5 m", "é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
