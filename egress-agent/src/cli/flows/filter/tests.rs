use std::time::Duration;

use clap::Parser;

use super::*;
use crate::telemetry::flow_tests::{dropped, redirected};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    filter: Filter,
    /// Options that choose no flows.
    #[arg(long)]
    follow: bool,
    #[arg(long)]
    last: Option<usize>,
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
    // In Hubble's words.
    assert_eq!(shown(&["--verdict", "dropped"]), (true, false));
    assert_eq!(shown(&["--verdict", "forwarded"]), (false, false));
    assert_eq!(shown(&["--not", "--verdict", "dropped,audit,error"]), (false, true));
    assert_eq!(shown(&["--reason", "not_redirected"]), (true, false));
    assert_eq!(shown(&["--pod", "web"]), (true, false));
    assert_eq!(shown(&["--pod", "default/web"]), (true, false));
    assert_eq!(shown(&["--from-pod", "other/web"]), (false, false));
    assert_eq!(shown(&["--namespace", "default"]), (true, false));
    assert_eq!(shown(&["-n", "other"]), (false, false));
    assert_eq!(shown(&["--label", "app=web"]), (true, false));
    assert_eq!(shown(&["-l", "app"]), (true, false));
    assert_eq!(shown(&["-l", "app=batch"]), (false, false));
    assert_eq!(shown(&["-l", "app=batch", "-l", "app=web"]), (true, false));
    assert_eq!(shown(&["-l", "app=web,tier"]), (false, false));
    assert_eq!(shown(&["--not", "--label", "app=web"]), (false, true));
    for wrong in ["", "=web", "app=web,", "app!=web", "a b"] {
        assert!(filter(&["--label", wrong]).unwrap_err().contains("KEY=VALUE"), "{wrong}");
    }
    assert_eq!(shown(&["--address", "10.0.0.5"]), (true, true));
    assert_eq!(shown(&["--address", "192.0.2.10"]), (false, true));
    assert_eq!(shown(&["--address", "198.51.100.7"]), (true, true));
    assert_eq!(shown(&["--address", "198.51.100.8"]), (false, false));
    assert_eq!(shown(&["--from-ip", "10.0.0.5"]), (true, true));
    assert_eq!(shown(&["--from-address", "198.51.100.7"]), (false, false));
    assert_eq!(shown(&["--to-address", "198.51.100.7"]), (true, true));
    assert_eq!(shown(&["--to-ip", "10.0.0.5"]), (false, false));
    assert_eq!(shown(&["--to-ip", "192.0.2.10"]), (false, true));
    assert_eq!(shown(&["--port", "40000"]), (true, true));
    assert_eq!(shown(&["--from-port", "40000"]), (true, true));
    assert_eq!(shown(&["--to-port", "40000"]), (false, false));
    assert_eq!(shown(&["--port", "443"]), (true, true));
    assert_eq!(shown(&["--to-port", "443"]), (true, true));
    assert_eq!(shown(&["--from-port", "443"]), (false, false));
    assert_eq!(shown(&["--protocol", "tcp"]), (true, true));
    assert_eq!(shown(&["--protocol", "udp"]), (false, false));
    assert_eq!(shown(&["--since", "59s"]), (true, true));
    assert_eq!(shown(&["--since", "58s"]), (false, false));
    assert_eq!(shown(&["--until", "58s"]), (true, true));
    assert_eq!(shown(&["--until", "59s"]), (false, false));
    assert_eq!(shown(&["--since", "1970-01-01T00:00:00Z"]), (true, true));
    assert_eq!(shown(&["--since", "1970-01-01T00:00:30Z"]), (false, false));
    assert_eq!(shown(&["--until", "1970-01-01T00:00:30Z"]), (true, true));
    assert_eq!(shown(&["--port", "443", "--verdict", "denied"]), (true, false));
    assert_eq!(shown(&["--host", "edition.cnn.com"]), (false, false));
    assert_eq!(shown(&["--trace", "f18f7ecb71a95f74"]), (false, true));
    assert_eq!(shown(&["--trace", "f18f7ecb71a95f75"]), (false, false));
}

#[test]
fn not_is_for_the_next_option_alone() {
    assert_eq!(shown(&["--not", "--verdict", "denied"]), (false, true));
    assert_eq!(shown(&["--not", "--verdict=denied"]), (false, true));
    assert_eq!(shown(&["--not", "--verdict", "denied,redirected"]), (false, false));
    assert_eq!(shown(&["--not", "--pod", "web", "--port", "443"]), (false, true));
    assert_eq!(shown(&["--port", "443", "--not", "--pod", "web"]), (false, true));
    assert_eq!(shown(&["--verdict", "denied", "--not", "--verdict", "redirected"]), (true, false));
    assert_eq!(shown(&["--not", "--port", "40001", "--not", "--pod", "web"]), (false, true));
    assert_eq!(shown(&["-n", "default", "--not", "--from-ip", "10.0.0.5"]), (false, false));
    assert!(!filter(&["--not", "--port", "1"]).unwrap().is_empty());
}

#[test]
fn not_without_an_option_to_negate_is_an_error() {
    for args in [
        &["--not"][..],
        &["--port", "443", "--not"],
        &["--not", "--not", "--port", "443"],
        &["--not", "--follow", "--port", "443"],
        &["--not", "--last", "3"],
        &["--not", "--pod", "web", "--not"],
    ] {
        let error = filter(args).unwrap_err();
        assert!(error.contains("found `--not`") && error.contains("expected"), "{args:?}: {error}");
    }
}

#[test]
fn a_time_that_ends_before_it_begins_is_an_error() {
    for args in [
        ["--since", "5m", "--until", "1h"],
        ["--until", "1h", "--since", "5m"],
        ["--since", "2026-11-29T12:00:00Z", "--until", "2026-11-29T11:00:00Z"],
        ["--since", "5m", "--until", "2020-01-01T00:00:00Z"],
    ] {
        let error = filter(&args).unwrap_err();
        assert!(
            error.contains("found a `--since` that is later than `--until`"),
            "{args:?}: {error}"
        );
        assert!(error.contains("expected") && error.contains("--since 1h --until 5m"), "{error}");
    }
    for args in [
        &["--since", "1h", "--until", "5m"][..],
        &["--since", "5m", "--until", "5m"],
        &["--since", "2020-01-01T00:00:00Z", "--until", "5m"],
        // What is left out may be at any time.
        &["--since", "5m", "--not", "--until", "1h"],
    ] {
        assert!(filter(args).is_ok(), "{args:?}");
    }
}

#[test]
fn a_filter_may_leave_out_all_that_is_new() {
    let now = SystemTime::now();
    for (args, past) in [
        (&["--until", "5m"][..], true),
        (&["--until", "0"], true),
        (&["--until", "2020-01-01T00:00:00Z"], true),
        (&["--not", "--since", "5m"], true),
        (&[], false),
        (&["--since", "5m"], false),
        (&["--not", "--until", "5m"], false),
        (&["--until", "2999-01-01T00:00:00Z"], false),
    ] {
        assert_eq!(filter(args).unwrap().is_of_the_past(now), past, "{args:?}");
    }
}

#[test]
fn values_that_cannot_be_read_are_named_with_what_is_expected() {
    let port = "expected a port from 1 to 65535";
    let trace = "expected a trace id of sixteen hexadecimal digits";
    for (option, value, expected) in [
        ("--port", "0", port),
        ("--port", "x", port),
        ("--port", "65536", port),
        ("--from-port", "0", port),
        ("--to-port", "0", port),
        ("--trace", "", trace),
        ("--trace", "f18f7ecb71a95f7", trace),
        ("--trace", "f18f7ecb71a95f745", trace),
        ("--trace", "+18f7ecb71a95f74", trace),
        ("--trace", "g18f7ecb71a95f74", trace),
        ("--address", "a.example", "expected an IP address"),
        ("--from-ip", "10.0.0.0/8", "expected an IP address"),
        ("--to-ip", "x", "expected an IP address"),
    ] {
        let error = filter(&[&format!("{option}={value}")]).unwrap_err();
        let wanted = format!("found `{value}`, {expected}");
        assert!(error.contains(&wanted), "{option}={value}: {error}");
    }
    assert!(filter(&["--port", "443,0"]).unwrap_err().contains("found `0`"));
    assert_eq!(shown(&["--trace", "F18F7ECB71A95F74"]), (false, true));
}

#[test]
fn http_is_meant_in_every_version_and_tcp_carries_it() {
    let now = SystemTime::UNIX_EPOCH;
    for (found, wanted, shown) in [
        ("HTTP/1.1", "http", true),
        ("HTTP/2.0", "http", true),
        ("HTTP/2.0", "HTTP/2.0", true),
        ("HTTP/1.1", "HTTP/2.0", false),
        ("HTTP/2.0", "http/2", true),
        ("ICMPv6", "icmpv6", true),
        ("UDP-Lite", "udp-lite", true),
        ("protocol 253", "protocol 253", true),
        ("ethertype 0x88cc", "ethertype 0x88cc", true),
        ("TLS", "http", false),
        ("TLS", "tcp", true),
        ("HTTP/1.1", "tcp", true),
        ("UDP", "tcp", false),
    ] {
        let flow = FlowRecord { protocol: found.into(), ..dropped() };
        let filter = filter(&["--protocol", wanted]).unwrap();
        assert_eq!(filter.matches(&flow, now), shown, "{found} {wanted}");
    }
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
        ("b.a.example:443", "*.a.example", true),
        ("a.example", "*.a.example", false),
        ("ba.example", "*.a.example", false),
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
        (["--reason", "NR"], "`egress-agent reasons NR` lists"),
        (["--since", "5x"], "1h30m"),
        (["--until", "yesterday"], "2026-11-29T12:00:00Z"),
        (["--pod", "a/b/c"], "NAMESPACE/NAME"),
        (["--protocl", "tcp"], "--protocol"),
        (["--protocol", "tpc"], "did you mean tcp?"),
        (["--protocol", "sctp6"], "did you mean sctp?"),
        (["--protocol", "everything"], "expected tcp, udp"),
        (["--protocol", "protocol x"], "expected tcp, udp"),
    ] {
        let error = filter(&args).unwrap_err();
        assert!(error.contains(nearest), "{args:?}: {error}");
    }
    // What is like nothing gets no wild guess.
    assert!(!filter(&["--reason", "403"]).unwrap_err().contains("Did you mean"));
    for bad in ["", "s", "-1s", "99999999999999999999d", "5 m", "é"] {
        assert!(filter(&["--since", bad]).is_err(), "{bad}");
    }
}
