//! A suggestion compiles, allows everything that was seen, and nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Method};
use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};

use super::{GatewayPlace, Labelled, Seen, istio, policies};
use crate::{
    config::{RawFile, compile},
    explain::{Question, Url, Verdict, explain},
    telemetry::{FlowRecord, FlowVerdict, flow_tests::dropped},
    types::Labels,
};

const MESH: &str = "\
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
gateways:
- service: istio-egressgateway.istio-system.svc.cluster.local
  labels: {istio: egressgateway}
  endpoints: [192.0.2.10]
workloads:
- {name: web, namespace: shop, labels: {app: web}, addresses: [10.0.0.5]}
- {name: job, namespace: shop, labels: {app: job}, addresses: [10.0.0.6]}
- {name: web, namespace: team, labels: {app: web, tier: 'on'}, addresses: [10.0.0.7]}
";

const WORKLOADS: [(&str, &str); 3] = [("shop", "web"), ("shop", "job"), ("team", "web")];
const HOSTS: [&str; 6] =
    ["a.example", "b.example", "c.d.example", "e.d.example", "f.d.example", "d.example"];
/// What is spoken, as flows and URLs have it, and the port.
const SPOKEN: [(&str, &str, u16); 3] =
    [("TLS", "https", 443), ("HTTP/1.1", "http", 80), ("HTTP/2.0", "http", 8080)];

/// A workload, a host and what is spoken, by number.
type Asked = (usize, usize, usize);

fn flow((workload, host, spoken): Asked) -> FlowRecord {
    let (namespace, name) = WORKLOADS[workload];
    let (protocol, _, port) = SPOKEN[spoken];
    FlowRecord {
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        verdict: FlowVerdict::Deny,
        reason: Some("host_not_in_registry".into()),
        workload: Some(name.into()),
        namespace: Some(namespace.into()),
        host: Some(HOSTS[host].to_uppercase()),
        protocol: protocol.into(),
        destination_address: None,
        destination_port: Some(port),
        ..dropped()
    }
}

fn known() -> Vec<Labelled> {
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    };
    let all = [
        ("shop", "web", labels(&[("app", "web"), ("pod-template-hash", "1")])),
        ("shop", "job", labels(&[("app", "job")])),
        ("team", "web", labels(&[("app", "web"), ("tier", "on")])),
    ];
    all.map(|(namespace, name, labels)| Labelled {
        namespace: namespace.into(),
        name: name.into(),
        labels,
    })
    .into()
}

fn gateway() -> GatewayPlace {
    GatewayPlace {
        service: "istio-egressgateway.istio-system.svc.cluster.local".into(),
        namespace: "istio-system".into(),
        labels: [("istio".to_owned(), "egressgateway".to_owned())].into(),
    }
}

#[test]
fn what_was_seen_is_allowed_and_nothing_else() {
    let gateway = gateway();
    let one = (0..WORKLOADS.len(), 0..HOSTS.len(), 0..SPOKEN.len());
    let strategy = (vec(one, 1..12), select(vec![false, true]), select(vec![false, true]));
    let (allowed, refused) = (AtomicU32::new(0), AtomicU32::new(0));
    let mut runner = TestRunner::new(ProptestConfig { cases: 200, ..<_>::default() });
    runner
        .run(&strategy, |(asked, as_istio, wildcards)| {
            let flows: Vec<_> = asked.iter().map(|asked| flow(*asked)).collect();
            let seen = Seen::of(&flows, &known());
            let seen = if wildcards { seen.with_wildcards() } else { seen };
            let text = if as_istio { istio(&seen, &gateway) } else { policies(&seen) };
            let file = |path: &str, text: &str| RawFile { path: path.into(), text: text.into() };
            let mesh = file("mesh.yaml", MESH);
            let compiled = compile(&[file("suggested.yaml", &text)], Some(&mesh));
            let compiled =
                compiled.map_err(|problems| TestCaseError::fail(format!("{problems}\n{text}")))?;
            prop_assert!(compiled.warnings.is_empty(), "{:#?}\n{}", compiled.warnings, text);
            let snapshot = Arc::new(compiled.snapshot);
            for (workload, who) in WORKLOADS.iter().enumerate() {
                for (host, name) in HOSTS.iter().enumerate() {
                    for (spoken, (_, scheme, port)) in SPOKEN.iter().enumerate() {
                        let url = format!("{scheme}://{name}:{port}/");
                        let question = Question {
                            workload: Arc::clone(&snapshot.mesh.workloads[workload]),
                            url: Url::parse(&url).unwrap(),
                            method: Method::GET,
                            headers: HeaderMap::new(),
                            address: None,
                        };
                        let verdict = explain(&snapshot, &question).outcome.verdict;
                        let was_seen = asked.contains(&(workload, host, spoken));
                        let below = |asked: &&Asked| {
                            asked.0 == workload
                                && asked.2 == spoken
                                && HOSTS[asked.1].ends_with(".d.example")
                        };
                        let mut siblings: Vec<_> =
                            asked.iter().filter(below).map(|a| a.1).collect();
                        siblings.sort_unstable();
                        siblings.dedup();
                        let is_below = name.ends_with(".d.example");
                        let expected = was_seen || (wildcards && is_below && siblings.len() >= 3);
                        let found = verdict == Verdict::Allowed;
                        prop_assert_eq!(found, expected, "{:?} {}\n{}", who, url, text);
                        if found { &allowed } else { &refused }.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(allowed.into_inner() > 500 && refused.into_inner() > 500);
}

#[test]
fn what_no_resource_could_allow_is_left_out_and_counted() {
    let base = flow((0, 0, 0));
    let flows = [
        FlowRecord { protocol: "UDP".into(), ..base.clone() },
        FlowRecord { host: Some("a..b".into()), ..base.clone() },
        FlowRecord { namespace: None, workload: None, ..base.clone() },
        FlowRecord { reason: Some("spoofed_source".into()), ..base.clone() },
        FlowRecord { verdict: FlowVerdict::Allow, ..base },
    ];
    let seen = Seen::of(&flows, &[]);
    assert!(seen.is_empty());
    let text = policies(&seen);
    for line in [
        "# Left out: 1 flow of other protocols than TCP.",
        "# Left out: 1 flow for hosts that are no names.",
        "# Left out: 1 flow of workloads that are not known.",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
}

#[test]
fn without_labels_a_policy_is_for_the_namespace_and_says_so() {
    let text = policies(&Seen::of(&[flow((0, 0, 0))], &[]));
    assert!(
        text.contains("# For every pod of the namespace: no labels are known of web."),
        "{text}"
    );
    assert!(!text.contains("podSelector"), "{text}");
}

#[test]
fn no_policy_has_the_name_of_another() {
    // Two groups of the name `web`, one of the name that the second would have, and names of signs alone.
    let apps = [
        ("web", "1"),
        ("web", "2"),
        ("web-2", "1"),
        ("web_2", "1"),
        ("Web", "3"),
        ("web-3", "1"),
        ("_", "1"),
        ("__", "1"),
    ];
    let known = apps.iter().enumerate().map(|(number, (app, tier))| Labelled {
        namespace: "shop".into(),
        name: format!("pod-{number}"),
        labels: [("app".to_owned(), (*app).to_owned()), ("tier".to_owned(), (*tier).to_owned())]
            .into(),
    });
    let known: Vec<_> = known.collect();
    let flows =
        known.iter().map(|pod| FlowRecord { workload: Some(pod.name.clone()), ..flow((0, 0, 0)) });
    let text = policies(&Seen::of(&flows.collect::<Vec<_>>(), &known));
    let names = text.lines().filter_map(|line| line.strip_prefix("  name: "));
    let mut names: Vec<_> = names.collect();
    assert_eq!(names.len(), apps.len(), "{text}");
    for begin in ["suggested-web-", "suggested-web-2-", "suggested-web-3-", "suggested-"] {
        assert!(names.iter().any(|name| name.starts_with(begin)), "{names:?}");
    }
    for name in &names {
        let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        assert!(name.bytes().all(fine) && !name.ends_with('-'), "{name}");
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), apps.len(), "{text}");
    // Each with its own workloads.
    let of =
        |name: &str| text.split("---\n").find(|policy| policy.contains(&format!("  name: {name}")));
    assert!(of("suggested-web-3-").unwrap().contains("app: web-3\n"), "{text}");
}

/// What is refused after a suggestion was applied is suggested by itself, and takes nothing away.
#[test]
fn a_second_suggestion_adds_to_the_first() {
    let gateway = gateway();
    let [first, second] = [(0, 0, 0), (0, 1, 0)].map(|asked| Seen::of(&[flow(asked)], &known()));
    for (one, other) in
        [(policies(&first), policies(&second)), (istio(&first, &gateway), istio(&second, &gateway))]
    {
        let names = |text: &str| -> Vec<String> {
            text.lines().filter(|line| line.starts_with("  name: ")).map(str::to_owned).collect()
        };
        assert!(names(&one).iter().all(|name| !names(&other).contains(name)), "{one}\n{other}");
        let file = |path: &str, text: &str| RawFile { path: path.into(), text: text.into() };
        let mesh = file("mesh.yaml", MESH);
        let both = [file("1.yaml", &one), file("2.yaml", &other)];
        let snapshot = Arc::new(compile(&both, Some(&mesh)).unwrap().snapshot);
        let verdict = |workload: usize, host: &str| {
            let question = Question {
                workload: Arc::clone(&snapshot.mesh.workloads[workload]),
                url: Url::parse(&format!("https://{host}/")).unwrap(),
                method: Method::GET,
                headers: HeaderMap::new(),
                address: None,
            };
            explain(&snapshot, &question).outcome.verdict
        };
        for host in [HOSTS[0], HOSTS[1]] {
            assert_eq!(verdict(0, host), Verdict::Allowed, "{host}\n{one}\n{other}");
            // The denied twins: another workload, and another host.
            assert_ne!(verdict(1, host), Verdict::Allowed, "{host}");
        }
        assert_ne!(verdict(0, HOSTS[2]), Verdict::Allowed);
    }
    // The same again is the same policy.
    let again = Seen::of(&[flow((0, 0, 0)), flow((0, 0, 0))], &known());
    let name =
        |text: &str| text.lines().find(|line| line.starts_with("  name: ")).map(str::to_owned);
    assert_eq!(name(&policies(&again)), name(&policies(&first)));
}
