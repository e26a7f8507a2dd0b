//! A suggestion compiles, allows everything that was seen, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Method};
use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};

use super::{
    EarlierRoutes, GatewayPlace, InForce, Labelled, ObservedTraffic, applied,
    policies as suggested_policies,
};
use crate::{
    config::{RawFile, compile},
    explain::{ExplainRequest, Url, Verdict, explain},
    policy::Snapshot,
    telemetry::{FlowRecord, FlowVerdict, flow_tests::dropped},
    types::Labels,
};

/// The resources as one text, with no earlier suggestion in force.
fn policies(seen: &ObservedTraffic) -> String {
    suggested_policies(seen, &BTreeMap::new()).to_string()
}

/// As Istio's resources, as one text.
fn istio(seen: &ObservedTraffic, gateway: &GatewayPlace, earlier: &[EarlierRoutes]) -> String {
    super::istio(seen, gateway, earlier).to_string()
}

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

fn file(path: &str, text: &str) -> RawFile {
    RawFile { path: path.into(), text: text.into() }
}

/// A workload, a host and what is spoken.
fn one() -> impl Strategy<Value = Asked> {
    (0..WORKLOADS.len(), 0..HOSTS.len(), 0..SPOKEN.len())
}

fn seen(asked: &[Asked], wildcards: bool) -> ObservedTraffic {
    let flows: Vec<_> = asked.iter().map(|asked| flow(*asked)).collect();
    let seen = ObservedTraffic::of(&flows, &known());
    if wildcards { seen.with_wildcards() } else { seen }
}

/// Whether what is suggested by these flows allows something.
fn expected(asked: &[Asked], wildcards: bool, one: Asked) -> bool {
    let (workload, host, spoken) = one;
    let below = |asked: &&Asked| {
        asked.0 == workload && asked.2 == spoken && HOSTS[asked.1].ends_with(".d.example")
    };
    let siblings: BTreeSet<_> = asked.iter().filter(below).map(|asked| asked.1).collect();
    let is_below = HOSTS[host].ends_with(".d.example");
    asked.contains(&one) || (wildcards && is_below && siblings.len() >= 3)
}

/// The configuration of these files, which nothing is to be said of.
fn compiled(files: &[RawFile]) -> Result<Arc<Snapshot>, TestCaseError> {
    let text = || files.iter().map(|file| file.text.as_str()).collect::<String>();
    let compiled = compile(files, Some(&file("mesh.yaml", MESH)));
    let compiled =
        compiled.map_err(|problems| TestCaseError::fail(format!("{problems}\n{}", text())))?;
    prop_assert!(compiled.warnings.is_empty(), "{:#?}\n{}", compiled.warnings, text());
    Ok(Arc::new(compiled.snapshot))
}

fn is_allowed(snapshot: &Arc<Snapshot>, workload: usize, url: &str) -> bool {
    let question = ExplainRequest {
        workload: Arc::clone(&snapshot.mesh.workloads[workload]),
        url: Url::parse(url).unwrap(),
        method: Method::GET,
        headers: HeaderMap::new(),
        address: None,
    };
    explain(snapshot, &question).outcome.verdict == Verdict::Allowed
}

/// Whether a configuration allows what is expected and nothing else. How much of each there was is counted.
fn allows(
    snapshot: &Arc<Snapshot>,
    counts: &[AtomicU32; 2],
    expected: impl Fn(Asked) -> bool,
) -> Result<(), TestCaseError> {
    for (workload, who) in WORKLOADS.iter().enumerate() {
        for (host, name) in HOSTS.iter().enumerate() {
            for (spoken, (_, scheme, port)) in SPOKEN.iter().enumerate() {
                let url = format!("{scheme}://{name}:{port}/");
                let found = is_allowed(snapshot, workload, &url);
                prop_assert_eq!(found, expected((workload, host, spoken)), "{:?} {}", who, url);
                counts[usize::from(found)].fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

#[test]
fn what_was_seen_is_allowed_and_nothing_else() {
    let gateway = gateway();
    let strategy = (vec(one(), 1..12), select(vec![false, true]), select(vec![false, true]));
    let counts = [AtomicU32::new(0), AtomicU32::new(0)];
    let mut runner = TestRunner::new(ProptestConfig { cases: 200, ..<_>::default() });
    runner
        .run(&strategy, |(asked, as_istio, wildcards)| {
            let seen = seen(&asked, wildcards);
            let text = if as_istio { istio(&seen, &gateway, &[]) } else { policies(&seen) };
            let snapshot = compiled(&[file("suggested.yaml", &text)])?;
            allows(&snapshot, &counts, |one| expected(&asked, wildcards, one))
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) > 500));
}

/// Only a word that is longer makes a line longer than a page is wide.
#[test]
fn resources_of_long_names_are_no_wider_than_a_page() {
    let word = "a-rather-long-label-of-sixty-three-letters-and-signs-and-digits";
    let host = [word, word, "example"].join(".");
    let flows = [
        FlowRecord { host: Some(host.clone()), ..flow((0, 0, 0)) },
        FlowRecord { host: Some(host.clone()), ..flow((0, 0, 1)) },
    ];
    let labels = ["app.kubernetes.io/component", "app.kubernetes.io/part-of", "tier"];
    let known = Labelled {
        namespace: "shop".into(),
        name: "web".into(),
        labels: labels.map(|key| (key.to_owned(), word.to_owned())).into(),
    };
    let seen = ObservedTraffic::of(&flows, &[known]);
    // Comments, too: an earlier suggestion in a file of a long name, and workloads without labels.
    let place = format!("/etc/egress/{word}.yaml:1");
    let earlier = EarlierRoutes {
        namespace: "shop".into(),
        host: host.clone(),
        place,
        routes: Some(Vec::new()),
    };
    let many = (0..40)
        .map(|number| FlowRecord { workload: Some(format!("pod-{number}")), ..flow((0, 0, 0)) });
    let many = ObservedTraffic::of(&many.collect::<Vec<_>>(), &[]);
    let unlabelled = policies(&many);
    assert!(unlabelled.contains("\n#   pod-"), "{unlabelled}");
    assert!(unlabelled.lines().all(|line| line.len() <= 80), "{unlabelled}");
    let replacing = istio(&seen, &gateway(), &[earlier]);
    assert!(replacing.contains("# Takes the place of"), "{replacing}");
    for text in [policies(&seen), replacing] {
        for line in text.lines().filter(|line| line.len() > 80) {
            let value = line.trim_start().trim_start_matches("- ").trim_start_matches("#   ");
            let value = value.split_once(": ").map_or(value, |(_key, value)| value);
            assert!(!value.contains([' ', '{', '[']), "{line}\n{text}");
        }
    }
}

/// The resources of a text, by kind, namespace and name. An API server replaces what it has of one.
fn resources(text: &str) -> BTreeMap<String, String> {
    let all = text.split("---\n").filter(|one| one.contains("kind: "));
    let key = |one: &str| {
        let lines = one.lines().map(str::trim);
        let head = lines.filter(|line| {
            ["kind: ", "name: ", "namespace: "].iter().any(|key| line.starts_with(key))
        });
        head.take(3).collect::<Vec<_>>().join(", ")
    };
    all.map(|one| (key(one), one.to_owned())).collect()
}

/// One after the other is applied: what both allow is allowed, whatever of it is for the same host.
#[test]
fn a_second_suggestion_for_the_same_hosts_keeps_what_the_first_allows() {
    let gateway = gateway();
    let wildcards = || select(vec![false, true]);
    let strategy = (vec(one(), 1..9), wildcards(), vec(one(), 1..9), wildcards());
    let counts = [AtomicU32::new(0), AtomicU32::new(0)];
    let replaced = AtomicU32::new(0);
    let mut runner = TestRunner::new(ProptestConfig { cases: 100, ..<_>::default() });
    runner
        .run(&strategy, |(first, first_wildcards, second, second_wildcards)| {
            let text = istio(&seen(&first, first_wildcards), &gateway, &[]);
            let before = resources(&text);
            let earlier = EarlierRoutes::of(&*compiled(&[file("1.yaml", &text)])?);
            // The same evidence has the same names, whatever is in force.
            let again = resources(&istio(&seen(&first, first_wildcards), &gateway, &earlier));
            prop_assert!(again.keys().eq(before.keys()), "{:#?}\n{:#?}", again, before);

            let after = istio(&seen(&second, second_wildcards), &gateway, &earlier);
            let news = resources(&after);
            let both: u32 = news.keys().map(|key| u32::from(before.contains_key(key))).sum();
            replaced.fetch_add(both, Ordering::Relaxed);
            // What is replaced is named, with its place.
            prop_assert_eq!(
                both > 0,
                after.contains("# Takes the place of VirtualService "),
                "{}",
                after
            );
            let all: BTreeMap<_, _> = before.into_iter().chain(news).collect();
            let all: String = all.into_values().map(|one| format!("---\n{one}")).collect();
            let snapshot = compiled(&[file("both.yaml", &all)])?;
            allows(&snapshot, &counts, |one| {
                expected(&first, first_wildcards, one) || expected(&second, second_wildcards, one)
            })
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) > 250));
    assert!(replaced.into_inner() > 50);
}

/// What somebody has made of a suggestion is not undone.
#[test]
fn a_suggestion_that_was_changed_is_left_as_it_is() {
    let gateway = gateway();
    let first = istio(&seen(&[(0, 0, 1)], false), &gateway, &[]);
    let after = |text: &str| {
        let snapshot = compiled(&[file("1.yaml", text)]).unwrap();
        istio(&seen(&[(1, 0, 1), (1, 1, 1)], false), &gateway, &EarlierRoutes::of(&snapshot))
    };
    let replaced = after(&first);
    assert!(
        replaced.contains("# Takes the place of VirtualService shop/suggested.a.example (1.yaml:")
    );
    assert_eq!(resources(&replaced).len(), 6, "{replaced}");

    // A condition of the mesh's stage, and what is done besides at the gateway's.
    let condition = first
        .replace("port: 80\n      source", "port: 80\n      uri: {prefix: /only}\n      source");
    let (mesh, gateway) = first.rsplit_once("    route:\n").unwrap();
    let at_gateway = |more: &str| format!("{mesh}    {more}\n    route:\n{gateway}");
    for changed in [
        condition,
        at_gateway("retries: {attempts: 0}"),
        at_gateway("timeout: 5s"),
        at_gateway("headers: {request: {remove: [cookie]}}"),
        at_gateway("headers: {response: {set: {x-a: b}}}"),
        at_gateway("rewrite: {uri: /only}"),
        at_gateway("corsPolicy: {allowOrigins: [{exact: https://b.example}]}"),
    ] {
        assert_ne!(changed, first);
        let left = after(&changed).replace("\n#   ", " ");
        let named =
            "# Left out: a.example of shop. VirtualService shop/suggested.a.example (1.yaml:";
        assert!(left.contains(named), "{changed}\n{left}");
        assert!(!left.contains("Takes the place"), "{left}");
        // The other host is suggested all the same.
        assert_eq!(resources(&left).len(), 3, "{left}");
        assert!(left.contains("name: suggested.b.example\n"), "{left}");
    }
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
    let seen = ObservedTraffic::of(&flows, &[]);
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
    let text = policies(&ObservedTraffic::of(&[flow((0, 0, 0))], &[]));
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
    let text = policies(&ObservedTraffic::of(&flows.collect::<Vec<_>>(), &known));
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
    let [first, second] = [(0, 0, 0), (0, 1, 0)].map(|asked| seen(&[asked], false));
    let as_istio = |seen: &ObservedTraffic| istio(seen, &gateway, &[]);
    for (one, other) in
        [(policies(&first), policies(&second)), (as_istio(&first), as_istio(&second))]
    {
        let names = |text: &str| -> Vec<String> {
            text.lines().filter(|line| line.starts_with("  name: ")).map(str::to_owned).collect()
        };
        assert!(names(&one).iter().all(|name| !names(&other).contains(name)), "{one}\n{other}");
        let snapshot = compiled(&[file("1.yaml", &one), file("2.yaml", &other)]).unwrap();
        let allows = |workload, host| is_allowed(&snapshot, workload, &format!("https://{host}/"));
        for host in [HOSTS[0], HOSTS[1]] {
            assert!(allows(0, host), "{host}\n{one}\n{other}");
            // The denied twins: another workload, and another host.
            assert!(!allows(1, host), "{host}");
        }
        assert!(!allows(0, HOSTS[2]));
    }
    // The same again is the same policy.
    let again = seen(&[(0, 0, 0), (0, 0, 0)], false);
    let name =
        |text: &str| text.lines().find(|line| line.starts_with("  name: ")).map(str::to_owned);
    assert_eq!(name(&policies(&again)), name(&policies(&first)));
    // Once it is in force it is left out, and only what is new is suggested.
    let snapshot = compiled(&[file("1.yaml", &policies(&first))]).unwrap();
    let left = suggested_policies(&again, &applied(&snapshot)).to_string();
    assert!(resources(&left).is_empty(), "{left}");
    let named = "# Left out: EgressPolicy shop/suggested-web-";
    assert!(left.contains(named) && left.contains(" (1.yaml:4) is in force.\n"), "{left}");
    let other = suggested_policies(&second, &applied(&snapshot)).to_string();
    assert_eq!(resources(&other).len(), 1, "{other}");
}

/// One after the other is written into the directory of the configuration, in either form: it compiles as it is, and
/// allows what all of them do.
#[test]
fn suggestions_in_one_directory_are_one_configuration() {
    let gateway = gateway();
    let strategy = (vec(vec(one(), 1..6), 2..5), select(vec![false, true]));
    let counts = [AtomicU32::new(0), AtomicU32::new(0)];
    let mut runner = TestRunner::new(ProptestConfig { cases: 60, ..<_>::default() });
    runner
        .run(&strategy, |(batches, as_istio)| {
            let mut directory: BTreeMap<String, String> = BTreeMap::new();
            for batch in &batches {
                let files: Vec<_> = directory.iter().map(|(name, text)| file(name, text)).collect();
                let snapshot = compiled(&files)?;
                let seen = seen(batch, false);
                let suggestion = if as_istio {
                    super::istio(&seen, &gateway, &EarlierRoutes::of(&snapshot))
                } else {
                    suggested_policies(&seen, &applied(&snapshot))
                };
                for part in suggestion.parts {
                    let before = directory.insert(part.file.clone(), part.text);
                    // What a file holds is replaced only by what says so.
                    let replaced = part.replaces.as_ref().map(InForce::file);
                    prop_assert_eq!(before.map(|_| &*part.file), replaced);
                }
            }
            let files: Vec<_> = directory.iter().map(|(name, text)| file(name, text)).collect();
            let all = batches.concat();
            allows(&compiled(&files)?, &counts, |one| expected(&all, false, one))
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) > 250));
}
