use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use egress_ebpf::reason::Reason;

use super::*;
use crate::{
    policy::ClusterName,
    telemetry::{AccessLogEntry, ResponseFlag},
    types::{ClientAddr, LocalAddr, Namespace, UpstreamAddr, Workload},
};

/// A packet that the enforcement point dropped.
pub(crate) fn dropped() -> FlowRecord {
    FlowRecord {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
        hook: "pod".into(),
        verdict: FlowVerdict::Deny,
        reason: Some("not_redirected".into()),
        audit: false,
        set: None,
        workload: Some("web".into()),
        namespace: Some("default".into()),
        labels: [("app".into(), "web".into())].into(),
        pid: None,
        executable: None,
        command: None,
        container: None,
        cgroup: None,
        interface: Some("veth-web".into()),
        source_address: Some("10.0.0.5".parse().unwrap()),
        source_port: Some(40000),
        destination_address: Some("198.51.100.7".parse().unwrap()),
        destination_port: Some(443),
        gateway: None,
        trace_id: None,
        host: None,
        protocol: "TCP".into(),
        ech: false,
        upstream: None,
        response_code: None,
        response_flags: None,
        detail: None,
        server: None,
    }
}

/// A connect that was redirected.
pub(crate) fn redirected() -> FlowRecord {
    FlowRecord {
        hook: "connect".into(),
        verdict: FlowVerdict::Redirect,
        reason: Some("routed".into()),
        workload: None,
        namespace: None,
        labels: Default::default(),
        cgroup: Some("/pods/web".into()),
        interface: None,
        gateway: Some("192.0.2.10:443".parse().unwrap()),
        trace_id: Some("f18f7ecb71a95f74".into()),
        ..dropped()
    }
}

/// A request that the gateway refused.
fn entry() -> AccessLogEntry {
    AccessLogEntry {
        duration: Duration::from_millis(20),
        protocol: Some(http::Version::HTTP_11),
        method: Some(http::Method::GET),
        path: Some("/".into()),
        authority: Some("unknown.example".into()),
        response_code: 403,
        response_flags: ResponseFlag::NoRouteFound.into(),
        upstream_cluster: Some(ClusterName::black_hole()),
        reason: Some(Reason::HostNotInRegistry),
        detail: Some("no ServiceEntry names unknown.example with port 80".into()),
        workload: Some(Arc::new(Workload {
            name: "web".into(),
            namespace: Namespace("shop".into()),
            labels: [].into(),
            addresses: vec![],
            cgroups: vec![],
            interface: None,
            node: None,
            service_account: "default".into(),
        })),
        ..AccessLogEntry::new(
            SystemTime::UNIX_EPOCH,
            LocalAddr("192.0.2.10:80".parse().unwrap()),
            ClientAddr("[::ffff:10.0.0.5]:40000".parse().unwrap()),
        )
    }
}

#[test]
fn a_line_reads_like_a_sentence() {
    assert_eq!(
        dropped().text(),
        "Jan 01 00:00:01.500: default/web 10.0.0.5:40000 -> 198.51.100.7:443 TCP DENIED \
         (not_redirected) at pod, interface veth-web"
    );
    assert_eq!(
        redirected().text(),
        "Jan 01 00:00:01.500: 10.0.0.5:40000 -> 198.51.100.7:443 TCP REDIRECTED (routed) at connect, \
         gateway 192.0.2.10:443, cgroup /pods/web, trace f18f7ecb71a95f74"
    );
    let named = FlowRecord {
        workload: Some("web".into()),
        namespace: Some("default".into()),
        host: Some("db.example".into()),
        audit: true,
        set: Some("batch".into()),
        source_address: None,
        source_port: None,
        gateway: None,
        trace_id: None,
        ..redirected()
    };
    assert_eq!(
        named.text(),
        "Jan 01 00:00:01.500: default/web -> 198.51.100.7:443 (db.example) TCP AUDIT would \
         redirect (routed) at connect, cgroup /pods/web, set batch"
    );
    assert_eq!(
        FlowRecord::from(&entry()).text(),
        "Jan 01 00:00:00.020: shop/web 10.0.0.5:40000 -> unknown.example:80 HTTP/1.1 DENIED \
         (host_not_in_registry) at gateway, 403, NR, trace f18b13cb71a4c0cc: no ServiceEntry names \
         unknown.example with port 80"
    );
}

#[test]
fn a_host_cannot_forge_a_line_or_fill_the_memory() {
    let forged = "a\nJan 01 00:00:00.000: b\u{1b}[2J\u{202e}";
    let flow = FlowRecord::from(&AccessLogEntry { authority: Some(forged.into()), ..entry() });
    let line = flow.text();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(!line.contains('\u{1b}') && !line.contains('\u{202e}'), "{line}");
    assert!(line.contains("\\u{1b}[2J"), "{line}");
    let long =
        FlowRecord::from(&AccessLogEntry { authority: Some("é".repeat(9000).into()), ..entry() });
    assert_eq!(long.host.unwrap().chars().count(), 127 + 1);
}

#[test]
fn no_name_in_a_flow_can_forge_a_line() {
    let forged = "/pods/a\nJan 01 00:00:00.000: b\u{1b}[2J\u{202e}";
    let flow = FlowRecord {
        cgroup: Some(forged.into()),
        interface: Some(forged.into()),
        set: Some(forged.into()),
        workload: Some(forged.into()),
        namespace: Some(forged.into()),
        ..dropped()
    };
    let line = flow.text();
    let unseen = |c: char| c.is_control() || c == '\u{202e}';
    assert!(!line.contains(unseen), "{line:?}");
    assert_eq!(line.matches("/pods/a\\u{a}Jan").count(), 5, "{line}");
}

#[test]
fn what_failed_is_not_what_was_denied() {
    let failed = AccessLogEntry {
        upstream_host: Some(UpstreamAddr("198.51.100.10:443".parse().unwrap())),
        upstream_failure: Some("connection refused".into()),
        reason: Some(Reason::ConnectFailed),
        detail: None,
        ..entry()
    };
    let failed = FlowRecord::from(&failed);
    assert_eq!((failed.verdict, failed.is_refusal()), (FlowVerdict::Fail, true));
    let end = "NR, upstream 198.51.100.10:443, trace f18b13cb71a4c0cc: connection refused";
    assert!(failed.text().ends_with(end), "{}", failed.text());
    let served = AccessLogEntry { reason: None, response_code: 200, ..entry() };
    let served = FlowRecord::from(&served);
    assert_eq!((served.verdict, served.is_refusal()), (FlowVerdict::Allow, false));
}

#[test]
fn a_record_survives_the_wire() {
    for flow in [dropped(), redirected(), FlowRecord::from(&entry())] {
        let text = serde_json::to_string(&flow).unwrap();
        assert_eq!(serde_json::from_str::<FlowRecord>(&text).unwrap(), flow, "{text}");
    }
    let text = serde_json::to_string(&redirected()).unwrap();
    assert!(
        text.starts_with(
            r#"{"time":"1970-01-01T00:00:01.5Z","hook":"connect","verdict":"redirect","#
        )
    );
    assert!(!text.contains("null"), "{text}");
}

#[test]
fn refusals_are_remembered_apart_from_the_rest() {
    let log = FlowLog::default();
    log.push(dropped());
    for _ in 0..5000 {
        log.push(redirected());
    }
    let history = log.history();
    assert_eq!(history.len(), 4096 + 1);
    assert_eq!(*history[0], dropped(), "the oldest first");
    for _ in 0..5000 {
        log.push(dropped());
    }
    assert_eq!(log.history().len(), 2 * 4096);
}

#[test]
fn a_gateway_makes_flows_of_refusals_and_of_the_rest_only_for_followers() {
    let log = Arc::new(FlowLog::default());
    let served = AccessLogEntry { reason: None, ..entry() };
    log.decided(&served);
    assert!(log.history().is_empty());
    log.decided(&entry());
    assert_eq!(log.history().len(), 1);
    let (_, follower) = log.follow();
    log.decided(&served);
    assert_eq!(log.history().len(), 2);
    drop(follower);
    assert!(!log.is_followed());
    log.decided(&served);
    assert_eq!(log.history().len(), 2);
}

#[tokio::test]
async fn a_follower_gets_each_flow_once_and_a_slow_one_is_told_what_it_lost() {
    let log = Arc::new(FlowLog::default());
    log.push(dropped());
    let (history, mut follower) = log.follow();
    assert_eq!(history.len(), 1);
    log.push(redirected());
    assert_eq!(follower.next().await, Some(FollowItem::Flow(Arc::new(redirected()))));
    for _ in 0..4096 + 12 {
        log.push(dropped());
    }
    assert_eq!(follower.next().await, Some(FollowItem::Lost(12)));
    assert_eq!(follower.next().await, Some(FollowItem::Flow(Arc::new(dropped()))));
}

/// A workload's flood pushes out its own.
#[test]
fn the_history_of_others_survives_a_flood() {
    let log = FlowLog::default();
    let by = |name: &str, number: u16| FlowRecord {
        workload: Some(name.into()),
        destination_port: Some(number),
        ..dropped()
    };
    for number in 0..20 {
        log.push(by("quiet", number));
    }
    for number in 0..10_000 {
        log.push(by("loud", number));
    }
    let history = log.history();
    assert_eq!(history.len(), 4096);
    let of = |name: &str| -> Vec<u16> {
        let own = history.iter().filter(|flow| flow.workload.as_deref() == Some(name));
        own.map(|flow| flow.destination_port.unwrap()).collect()
    };
    assert_eq!(of("quiet"), (0..20).collect::<Vec<_>>());
    // Of the loud one the newest are there, in their order.
    assert_eq!(of("loud"), (10_000 - 4076..10_000).collect::<Vec<_>>());
    // Where all have as many, the oldest goes.
    let log = FlowLog::default();
    for number in 0..5000 {
        log.push(by(&format!("pod-{number}"), number));
    }
    let ports: Vec<_> = log.history().iter().map(|flow| flow.destination_port.unwrap()).collect();
    assert_eq!(ports, (5000 - 4096..5000).collect::<Vec<_>>());
}

#[test]
fn what_only_audit_mode_let_pass_is_told_as_a_refusal_that_was_not_carried_out() {
    let passed = |audit: &str| {
        let entry = AccessLogEntry {
            reason: None,
            detail: None,
            response_code: 200,
            audit: Some(audit.into()),
            ..entry()
        };
        let log = FlowLog::default();
        log.decided(&entry);
        (FlowRecord::from(&entry), log.history().len())
    };
    for label in ["EgressPolicy shop/web", "ClusterEgressPolicy all"] {
        let (flow, remembered) = passed(label);
        assert!(flow.audit && flow.is_refusal(), "{flow:?}");
        assert_eq!(flow.reason.as_deref(), Some("egress_policy_denied"));
        assert!(flow.text().contains("AUDIT would deny (egress_policy_denied)"), "{}", flow.text());
        assert_eq!(remembered, 1);
    }
    // An authorization policy of the action AUDIT would refuse nothing.
    let (flow, remembered) = passed("shop/watch");
    assert!(!flow.audit && !flow.is_refusal(), "{flow:?}");
    assert_eq!(remembered, 0);
}
