//! The rules and dashboards that are shipped, in a real Prometheus that scrapes real agents: each expression is
//! evaluated, and what has to have data has some.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use egress_tests::{
    manifests::Walkthrough,
    plan,
    process::Process,
    testbed::Testbed,
    wait::{SOON, START, until_is},
};
use serde_json::Value;

/// Where Prometheus listens, in the app node's network.
const AT: &str = "127.0.0.1:9090";

/// Of dashboards: what has no data here, since nothing is in audit mode.
const QUIET: [&str; 1] = [
    r#"sum by (reason) (rate(egress_verdicts_total{instance=~".*",action="deny",audit="true"}[5m]))"#,
];

fn shipped() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart/egress-enforcer/files")
}

/// What Prometheus answers; an error is one of the test.
fn ask(testbed: &Testbed, path: &str, parameter: &str) -> Result<Value, String> {
    let url = format!("http://{AT}/api/v1/{path}");
    let args = ["-s", "-G", "--data-urlencode", parameter, &url];
    let answer = testbed.app().run("curl", &args).map_err(|error| format!("{error:#}"))?.stdout;
    let value: Value =
        serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
    if value["status"] == "success" { Ok(value["data"].clone()) } else { Err(answer) }
}

/// The series of an expression, now.
fn evaluate(testbed: &Testbed, expression: &str) -> Result<usize, String> {
    let data = ask(testbed, "query", &format!("query={expression}"))?;
    Ok(data["result"].as_array().map_or(0, Vec::len))
}

/// Every expression of a dashboard's panels, and what its variables are made of.
fn expressions(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let own = ["expr", "query"].iter().filter_map(|name| fields.get(*name)?.as_str());
            let own = own.filter(|text| *text != "prometheus").map(str::to_owned);
            own.chain(fields.values().flat_map(expressions)).collect()
        }
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// Starts it with the shipped rules. It scrapes both agents each second.
fn start(testbed: &Testbed) -> Process {
    let configuration = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n\
         - job_name: egress-node\n  metrics_path: /metrics\n  static_configs: [{{targets: \
         ['127.0.0.1:15020']}}]\n- job_name: egress-gateway\n  metrics_path: /stats/prometheus\n  \
         static_configs: [{{targets: ['{}:15090']}}]\n",
        shipped().join("rules.yaml").display(),
        plan::GATEWAYS[0]
    );
    let path = testbed.dir().join("prometheus.yaml");
    fs::write(&path, configuration).unwrap();
    let args = [
        format!("--config.file={}", path.display()),
        format!("--storage.tsdb.path={}", testbed.dir().join("prometheus").display()),
        format!("--web.listen-address={AT}"),
    ];
    let args = args.each_ref().map(String::as_str);
    testbed.app().start(&testbed.dir(), "prometheus", "prometheus", &args).unwrap()
}

#[test]
fn a_real_prometheus_evaluates_every_rule_and_every_panel() {
    let testbed = Testbed::test(1).unwrap();
    let _root = testbed.prepare_mtls(1).unwrap();
    let files = Walkthrough::example_mtls().unwrap();
    let dir = testbed.dir().join("gateway");
    files.service_entry.with_certificates(&dir).apply(&testbed).unwrap();
    let http = files.http.with_certificates(&dir);
    http.apply(&testbed).unwrap();
    let gateway = testbed.start_gateway_mtls(0).unwrap();
    let node = testbed.start_node_mtls().unwrap();
    let prometheus = start(&testbed);
    let told = || format!("{}\n{}\n{}", prometheus.stderr(), node.stderr(), gateway.stderr());
    let count = |expression: &str| evaluate(&testbed, expression);
    until_is(START, "both agents to be scraped", || count("up == 1"), |up| *up == Ok(2))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", told()))
        .unwrap();

    // Each rule is loaded, and evaluated.
    let text = fs::read_to_string(shipped().join("rules.yaml")).unwrap();
    let written: Value = serde_saphyr::from_str(&text).unwrap();
    let written = written["groups"][0]["rules"].as_array().unwrap().len();
    assert!(written > 15, "{written}");
    let rules = || {
        let data = ask(&testbed, "rules", "type=alert").unwrap();
        let rules = data["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        rules.iter().map(|rule| rule["health"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let evaluated = |health: &Vec<String>| {
        health.len() == written && health.iter().all(|health| health != "unknown")
    };
    let health = until_is(SOON, "every rule to be evaluated", rules, evaluated).unwrap();
    assert!(health.iter().all(|health| health == "ok"), "{health:?}\n{}", told());

    // Traffic of each kind: HTTP, TLS, what the gateway refuses, and what the node does.
    let sees = |url: &str, expected: &str| {
        let ask = || testbed.curl_status(&[url]).unwrap();
        until_is(SOON, &format!("{url} to be {expected}"), ask, |seen| seen == expected)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", told()));
    };
    sees("http://edition.cnn.com/politics", "301");
    sees("http://www.example.com/", "403");
    assert_ne!(testbed.probe(&["tcp", plan::ATTACKER, "22"]).unwrap().code, 0);
    http.delete(&testbed).unwrap();
    files.passthrough.with_certificates(&dir).apply(&testbed).unwrap();
    sees("https://edition.cnn.com/politics", "200");

    let mut all = BTreeSet::new();
    for name in ["nodes.json", "gateways.json"] {
        let text = fs::read_to_string(shipped().join("dashboards").join(name)).unwrap();
        let found = expressions(&serde_json::from_str(&text).unwrap());
        assert!(found.len() > 10, "{name}: {found:?}");
        all.extend(found);
    }
    // As Grafana puts them: every instance.
    let all: BTreeSet<String> = all.iter().map(|one| one.replace("$instance", ".*")).collect();
    let without_data = || {
        let is_quiet = |expression: &&String| match expression.strip_prefix("label_values(") {
            Some(rest) => {
                let (metric, label) = rest.trim_end_matches(')').split_once(", ").unwrap();
                let path = format!("label/{label}/values");
                let values = ask(&testbed, &path, &format!("match[]={metric}")).unwrap();
                values.as_array().unwrap().is_empty()
            }
            None => evaluate(&testbed, expression).unwrap() == 0,
        };
        all.iter().filter(is_quiet).map(String::as_str).collect::<BTreeSet<_>>()
    };
    let quiet = BTreeSet::from(QUIET);
    assert!(quiet.iter().all(|one| all.contains(*one)), "{all:?}");
    until_is(SOON, "every panel to have data", without_data, |found| *found == quiet)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", told()));

    // The twins: what is no expression is an error, and what no agent exports has no data.
    assert!(evaluate(&testbed, "sum by (reason (egress_ready)").is_err());
    assert_eq!(evaluate(&testbed, "egress_no_such_metric"), Ok(0));
    // A scrape that a busy machine answers late is one that failed.
    until_is(SOON, "both agents to be up", || count("up == 0"), |down| *down == Ok(0))
        .unwrap()
        .unwrap();
    drop(node);
    until_is(SOON, "the node's end", || count("up == 0"), |down| *down == Ok(1)).unwrap().unwrap();
}
