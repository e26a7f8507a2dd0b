use std::{fs, path::Path};

use tempfile::TempDir;

use super::{
    super::testing::{documented, golden},
    *,
};
use crate::config::{
    RawFile,
    testing::{MESH, file},
};

/// A step of the walkthrough, or further resources, with the settings of the tests.
fn compiled(files: &[(&str, &str)], more_mesh: &str) -> Arc<crate::policy::Snapshot> {
    let files: Vec<RawFile> = files.iter().map(|(name, text)| file(name, text)).collect();
    let mesh = file("mesh.yaml", &format!("{MESH}{more_mesh}"));
    let compiled = config::compile(&files, Some(&mesh));
    Arc::new(compiled.unwrap_or_else(|problems| panic!("{problems}")).snapshot)
}

macro_rules! step {
    ($dir:literal: $($file:literal),*) => {
        &[$(($file, include_str!(concat!("../../config/testdata/", $dir, "/", $file)))),*]
    };
}

const HTTP: &[(&str, &str)] = step!("1-http": "registry.yaml", "egress.yaml", "routes.yaml");
const HTTP_MTLS: &[(&str, &str)] =
    step!("1-http": "registry.yaml", "egress-mtls.yaml", "routes.yaml");
const ORIGINATION: &[(&str, &str)] =
    step!("2-tls-origination": "registry.yaml", "egress.yaml", "routes.yaml");
const HTTPS: &[(&str, &str)] = step!("3-https": "registry.yaml", "egress-and-routes.yaml");

const NODE: &str = "\
- {name: job, namespace: apps, addresses: [10.0.0.9], node: n1}
nodes:
- {name: n1, principal: spiffe://cluster.local/ns/istio-system/sa/node}
";

const CONDITIONS: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: apps}
spec:
  hosts: [api.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress, namespace: istio-system}
spec:
  selector: {istio: egressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api, namespace: apps}
spec:
  hosts: [api.example.com]
  gateways: [mesh, istio-system/egress]
  http:
  - match: [{gateways: [mesh], port: 80, uri: {prefix: /v1/}}]
    route: [{destination: {host: istio-egressgateway.istio-system.svc.cluster.local}}]
  - match: [{gateways: [istio-system/egress], port: 80}]
    route:
    - {destination: {host: api.example.com}, weight: 90}
    - {destination: {host: api.example.com}, weight: 10}
";

const DENY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-post, namespace: istio-system}
spec:
  action: DENY
  rules: [{to: [{operation: {methods: [POST]}}]}]
";

/// Two policies for pods of one namespace.
const POLICIES: &str = "\
apiVersion: egress-enforcer.io/v1alpha1
kind: EgressPolicy
metadata: {name: news, namespace: apps}
spec:
  podSelector: {matchLabels: {app: sleep}}
  rules:
  - hosts: [edition.cnn.com]
    ports: [{port: 80, protocol: HTTP}]
    http: {methods: [GET], paths: [/politics]}
  - hosts: [edition.cnn.com]
    ports: [{port: 443, protocol: TLS}]
---
apiVersion: egress-enforcer.io/v1alpha1
kind: EgressPolicy
metadata: {name: orders, namespace: apps}
spec:
  podSelector: {matchLabels: {app: job}}
  rules:
  - hosts: [api.example.com]
    ports: [{port: 8080, protocol: HTTP}]
";

const JOB: &str = "- {name: job, namespace: apps, labels: {app: job}, addresses: [10.0.0.9]}\n";

fn ask(from: &str, url: &str) -> Query {
    Query { from: from.into(), url: url.into(), ..Query::default() }
}

fn shown(snapshot: &Arc<crate::policy::Snapshot>, ask: &Query) -> String {
    text::render(&ask.answer(snapshot).unwrap())
}

#[test]
fn the_steps_of_the_walkthrough() {
    let sleep = |url: &str| ask("apps/sleep", url);
    let http = compiled(HTTP, "");
    golden("explain-http.txt", &shown(&http, &sleep("http://edition.cnn.com/politics")));
    golden("explain-refused.txt", &shown(&http, &sleep("https://edition.cnn.com/politics")));
    golden("explain-typo.txt", &shown(&http, &sleep("http://edition.cnm.com/")));
    let origination = compiled(ORIGINATION, "");
    golden("explain-origination.txt", &shown(&origination, &sleep("http://edition.cnn.com/")));
    let https = compiled(HTTPS, "");
    golden("explain-passthrough.txt", &shown(&https, &sleep("https://edition.cnn.com/")));
    let direct = compiled(&HTTP[..1], "direct: registry\n");
    golden("explain-direct.txt", &shown(&direct, &sleep("https://edition.cnn.com/")));
}

#[test]
fn a_refusal_names_the_nearest_rule() {
    let conditions = compiled(&[("api.yaml", CONDITIONS)], "");
    golden(
        "explain-unmet.txt",
        &shown(&conditions, &ask("apps/sleep", "http://api.example.com/v2")),
    );
    golden(
        "explain-weights.txt",
        &shown(&conditions, &ask("apps/sleep", "http://api.example.com/v1/")),
    );
    let denied = compiled(&[("api.yaml", CONDITIONS), ("deny.yaml", DENY)], "");
    let post =
        Query { method: Some("POST".into()), ..ask("apps/sleep", "http://api.example.com/v1/") };
    golden("explain-denied.txt", &shown(&denied, &post));
    let get = Query { method: None, ..post };
    assert_eq!(get.answer(&denied).unwrap().outcome.verdict, Verdict::Allowed);
}

#[test]
fn a_refusal_names_the_nearest_policy() {
    let policies = compiled(&[("policies.yaml", POLICIES)], JOB);
    let of = |from: &str, url: &str| shown(&policies, &ask(from, url));
    golden("explain-policy-typo.txt", &of("apps/sleep", "http://edition.cnm.com/politics"));
    golden("explain-policy-other-pod.txt", &of("apps/job", "http://edition.cnn.com/politics"));
    let get = ask("apps/sleep", "http://edition.cnn.com/politics");
    let post = Query { method: Some("POST".into()), ..get.clone() };
    golden("explain-policy-denied.txt", &shown(&policies, &post));
    let allowed = get.answer(&policies).unwrap();
    assert_eq!(allowed.outcome.verdict, Verdict::Allowed);
    assert!(allowed.steps.iter().all(|line| line.step != "nearest"), "{allowed:#?}");
}

/// The texts of the steps `nearest`, and the resources that each names.
fn nearest(
    snapshot: &Arc<crate::policy::Snapshot>,
    from: &str,
    url: &str,
) -> Vec<(String, Vec<String>)> {
    let steps = ask(from, url).answer(snapshot).unwrap().steps.into_iter();
    let near = steps.filter(|line| line.step == "nearest");
    let by = |line: &crate::explain::Line| -> Vec<String> {
        line.by.iter().map(|place| format!("{}:{}", place.resource, place.line)).collect()
    };
    near.map(|line| (line.text.clone(), by(&line))).collect()
}

#[test]
fn another_port_of_a_policys_host_is_named() {
    let policies = compiled(&[("policies.yaml", POLICIES)], JOB);
    let text = "EgressPolicy apps/news names edition.cnn.com with port 80 and port 443";
    let news = vec!["EgressPolicy apps/news:1".to_owned()];
    // At the gateway, where another policy opens the port, and at the node, where nothing does.
    for port in [8080, 81] {
        let url = format!("http://edition.cnn.com:{port}/");
        let found = nearest(&policies, "apps/sleep", &url);
        assert_eq!(found, [(text.to_owned(), news.clone())], "{url}");
    }
    // Of a host that no policy names, each policy that routes anything is named once.
    let found = nearest(&policies, "apps/sleep", "tcp://198.51.100.9:22");
    let [(text, by)] = &found[..] else { panic!("{found:?}") };
    for port in ["port 80 ", "port 443 ", "port 8080 "] {
        assert!(text.contains(port), "{text}");
    }
    assert_eq!(by[..], ["EgressPolicy apps/news:1", "EgressPolicy apps/orders:13"]);
    // A pod that a policy does not select is told of no port and no typing error of that policy.
    let of_job = |host: &str| nearest(&policies, "apps/job", &format!("http://{host}:8080/"));
    assert_eq!(of_job("edition.cnn.com"), []);
    assert_eq!(of_job("edition.cnm.com"), []);
    assert_eq!(of_job("api.exampel.com").len(), 1);
}

#[test]
fn a_policy_that_confines_a_pod_is_named() {
    let any = MESH.replace("REGISTRY_ONLY", "ALLOW_ANY");
    let mesh = file("mesh.yaml", &format!("{any}{JOB}"));
    let compiled = config::compile(&[file("policies.yaml", POLICIES)], Some(&mesh)).unwrap();
    let snapshot = Arc::new(compiled.snapshot);
    let found = ask("apps/sleep", "http://www.example.com/").answer(&snapshot).unwrap();
    assert_eq!(found.outcome.reason, "egress_policy_denied", "{found:#?}");
    let policy: Vec<_> = found.steps.iter().filter(|line| line.step == "policy").collect();
    let [line] = &policy[..] else { panic!("{found:#?}") };
    assert!(line.text.contains("confines"), "{line:?}");
    assert_eq!((&*line.by[0].resource, line.by[0].line), ("EgressPolicy apps/news", 1));
}

#[test]
fn audit_mode_is_told_with_what_would_be() {
    let audit = compiled(HTTP, "enforcement: audit\n");
    golden("explain-audit.txt", &shown(&audit, &ask("apps/sleep", "http://edition.cnn.com/")));
    golden(
        "explain-audit-refused.txt",
        &shown(&audit, &ask("apps/sleep", "tcp://edition.cnn.com:22")),
    );
}

/// Nothing is refused, so the answer says that it passes, and what would be.
#[test]
fn a_policy_in_audit_mode_is_told_with_what_would_be() {
    let audited = POLICIES.replacen("spec:\n", "spec:\n  mode: Audit\n", 1);
    let audit = compiled(&[("policies.yaml", &audited)], JOB);
    let other = ask("apps/sleep", "http://www.example.com/");
    golden("explain-policy-audit.txt", &shown(&audit, &other));
    // What the policy names, and other than it allows.
    let post = ask("apps/sleep", "http://edition.cnn.com/politics");
    let post = Query { method: Some("POST".into()), ..post }.answer(&audit).unwrap();
    let policies = post.steps.iter().filter(|line| line.step == "policy");
    let told: Vec<_> = policies.map(|line| line.text.as_str()).collect();
    assert!(
        told.iter().any(|text| text.contains("would be refused (egress_policy_denied)")),
        "{told:?}"
    );
    assert_eq!(post.outcome.verdict, Verdict::Allowed);
    // The twins: enforced it is refused as told, and what a rule allows passes without a word of audit.
    let enforced = compiled(&[("policies.yaml", POLICIES)], JOB);
    let refused = other.answer(&enforced).unwrap().outcome;
    let told = shown(&audit, &other).split_whitespace().collect::<Vec<_>>().join(" ");
    let would = format!("it would be refused ({}): {}", refused.reason, refused.detail);
    assert_eq!(refused.verdict, Verdict::Refused);
    assert!(told.contains(&would), "{would}\n{told}");
    let allowed = ask("apps/sleep", "http://edition.cnn.com/politics");
    assert!(!shown(&audit, &allowed).contains("udit"), "{}", shown(&audit, &allowed));
}

/// Whoever refuses: the node has no other way to say it.
#[test]
fn a_refusal_has_the_operators_words() {
    const WORDS: &str = "\
refusals:
  message: Ask the platform team, and name your service and the host that it needs.
  link: https://wiki.example.com/egress
";
    let snapshot = compiled(HTTP, WORDS);
    let shown = |url: &str| shown(&snapshot, &ask("apps/sleep", url));
    let pages = ["http://edition.cnm.com/", "tcp://edition.cnn.com:22", "http://edition.cnn.com/"]
        .map(shown);
    golden("explain-note.txt", &pages[..2].join("\n"));
    assert!(!pages[2].contains("platform team"), "{}", pages[2]);
    // In audit mode they belong to what would be refused.
    let audit = compiled(HTTP, &format!("{WORDS}enforcement: audit\n"));
    for (url, in_audit) in [("tcp://edition.cnn.com:22", true), ("http://edition.cnn.com/", false)]
    {
        let of = |snapshot| self::shown(snapshot, &ask("apps/sleep", url));
        assert_eq!(of(&audit).contains("platform team"), in_audit, "{}", of(&audit));
        assert!(of(&audit).contains("\nallowed ("), "{}", of(&audit));
    }
}

#[test]
fn the_tunnel_is_explained() {
    let mtls = compiled(HTTP_MTLS, NODE);
    let job = ask("apps/job", "http://edition.cnn.com/politics");
    golden("explain-tunnel.txt", &shown(&mtls, &job));
    // Nobody may speak for a workload whose node is not known.
    let sleep = ask("apps/sleep", "http://edition.cnn.com/politics").answer(&mtls).unwrap();
    let expected =
        if sleep.steps.iter().any(|line| line.step == "hop" && line.text.starts_with("tunnel")) {
            (Verdict::Refused, "claimed_workload")
        } else {
            (Verdict::Allowed, "gateway")
        };
    assert_eq!((sleep.outcome.verdict, sleep.outcome.reason.as_str()), expected, "{sleep:#?}");
}

/// Exit code and standard output of the command over a directory.
fn ran(directory: &Path, more: &[&str]) -> (u8, String) {
    use clap::Parser as _;
    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: ExplainArgs,
    }
    let directory = directory.to_string_lossy().into_owned();
    let all = ["explain"].into_iter().chain(more.iter().copied()).chain([&*directory]);
    let args = Command::parse_from(all).args;
    let mut out = Vec::new();
    let code = match explained(&args).unwrap() {
        Ok(explanation) => print(&explanation, args.output, &mut out).unwrap(),
        Err((code, why)) => {
            out.extend(why.bytes());
            code
        }
    };
    (code, String::from_utf8(out).unwrap())
}

#[test]
fn exit_codes_say_what_became_of_it() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("mesh.yaml"), MESH).unwrap();
    for (name, text) in HTTP {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let of = |more: &[&str]| ran(dir.path(), more);
    let (code, out) = of(&["--from", "apps/sleep", "http://edition.cnn.com/", "-o", "json"]);
    documented("explain -o json", &serde_json::from_str(&out).unwrap());
    let json: Explanation = serde_json::from_str(&out).unwrap();
    assert_eq!((code, json.outcome.verdict), (0, Verdict::Allowed), "{out}");
    let rule = json.steps.iter().find(|line| line.step == "mesh").unwrap();
    let place = &rule.by[0];
    assert!(place.file.ends_with("/routes.yaml"), "{place:?}");
    assert_eq!((&*place.field, place.line), ("spec.http[0]", 12), "{place:?}");
    assert_eq!(of(&["--from", "apps/sleep", "http://cnn.com/"]).0, 3);
    let (code, why) = of(&["--from", "apps/slep", "http://edition.cnn.com/"]);
    assert_eq!(code, 2);
    assert!(why.contains("Did you mean apps/sleep?"), "{why}");
    assert_eq!(of(&["--from", "x/y", "--label", "app=y", "http://edition.cnn.com/"]).0, 0);
    fs::write(dir.path().join("bad.yaml"), "kind: Gatway\n").unwrap();
    let (code, why) = of(&["--from", "apps/sleep", "http://edition.cnn.com/"]);
    assert_eq!(code, 1);
    assert!(why.contains("egress-agent check"), "{why}");
    assert_eq!(of(&["--from", "apps/sleep", "http://edition.cnn.com/", "/absent"]).0, 2);
    let asked = asked(&ask("apps/sleep", "http://a.example/"), Some(&dir.path().join("none.sock")));
    let (code, why) = asked.unwrap().unwrap_err();
    assert_eq!(code, 1);
    assert!(
        why.starts_with("no agent listens on ") && why.contains("none.sock; give the"),
        "{why}"
    );
}
