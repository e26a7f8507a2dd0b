//! The configuration for hosts that is shipped (`deploy/hosts/config`), applied as the documentation says:
//! only the addresses of `mesh.yaml` are this site's own.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{collections::BTreeMap, fs, path::Path};

use egress_tests::{
    cluster::{Cluster, ask},
    plan,
    testbed::Testbed,
    wait::{SOON, until, until_is},
};

const PAYMENTS: &str = "https://payments.example.com/";
const PACKAGES: &str = "http://packages.example.org/";

/// Path and text of each file.
fn shipped() -> BTreeMap<String, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/hosts/config");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read_to_string(entry.path()).unwrap())
    };
    files.map(read).collect()
}

fn replace(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?} is to be replaced in\n{text}");
    text.replace(from, to)
}

/// What the documentation asks to edit: networks inside, the gateway's address, workloads.
fn edited(mesh: &str) -> String {
    let inside: Vec<String> =
        plan::CLUSTER_CIDRS.iter().map(|cidr| format!("- \"{cidr}\"\n")).collect();
    let mesh = replace(mesh, "- 10.20.0.0/16\n", &inside.concat());
    let gateway = format!("  - {}\n", plan::GATEWAYS[0]);
    let mesh = replace(&mesh, "  - 192.0.2.10\n  - 192.0.2.11\n", &gateway);
    let mesh = replace(&mesh, "10.20.0.11", plan::POD);
    replace(&mesh, "10.20.0.12", plan::NEIGHBOUR)
}

/// The sentence of the gateway's last refusal for this reason.
fn refusal(testbed: &Testbed, reason: &str) -> Option<String> {
    let (agent, control) = (testbed.agent(), testbed.gateway_control(0));
    let args = ["flows", "--control", control.to_str()?, "-o", "json", "--last", "1", "--reason"];
    let args = [&args[..], &[reason]].concat();
    let done = testbed.gateway(0).run(&agent.to_string_lossy(), &args).unwrap();
    assert!(done.ok(), "{done:?}");
    let flow: serde_json::Value = serde_json::from_str(done.stdout.lines().next()?).unwrap();
    Some(flow["detail"].as_str()?.to_owned())
}

#[test]
fn the_shipped_configuration_for_hosts_does_what_its_comments_say() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let files = shipped();
    for (name, text) in &files {
        match name.as_str() {
            "mesh.yaml" => testbed.apply_mesh(&edited(text)).unwrap(),
            _ => testbed.apply(name, text).unwrap(),
        }
    }
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let curl = |args: &[&str]| testbed.curl_status(args).unwrap();
    let named = |reason: &str, words: &str| {
        until(SOON, &format!("{reason}: {words}"), || {
            refusal(&testbed, reason).filter(|detail| detail.contains(words))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.stdout()));
    };

    // HTTPS passthrough, and a host that is not listed.
    until_is(SOON, "payments", || curl(&[PAYMENTS]), |seen| seen == "200").unwrap();
    assert!(curl(&["https://www.example.com/"]).starts_with("curl: ("));

    // TLS origination, for GET and HEAD alone.
    assert_eq!(curl(&[PACKAGES]), "200");
    assert_ne!(curl(&["-X", "POST", PACKAGES]), "200");
    named("no_matching_rule", "method /GET|HEAD/");

    // Raw TCP by address and port, and another port of the same address.
    let ledger = |port| ask(testbed.pod(), "tcp", plan::LEDGER, port, &[]).unwrap().ok();
    assert!(ledger(5432));
    assert!(!ledger(plan::TCP_PORTS[0]));

    // Only workloads with a label, as the comment in payments.yaml has it.
    let payments = &files["payments.yaml"];
    let at = payments.find("      port: 443\n      sniHosts:").expect("the mesh's match");
    let labels = "      sourceLabels:\n        app: billing\n";
    let text = format!("{}{labels}{}", &payments[..at], &payments[at..]);
    testbed.apply("payments.yaml", &text).unwrap();
    let args = [
        "-sk",
        "--max-time",
        "10",
        "--resolve",
        &format!("payments.example.com:443:{}", plan::WEB),
        PAYMENTS,
    ];
    let web = || cluster.neighbour.run("curl", &args).unwrap().ok();
    until_is(SOON, "the refusal of another workload", web, |served| !served).unwrap();
    named("no_matching_rule", "sourceLabels app=billing (shop/web has app=web)");
    assert_eq!(curl(&[PAYMENTS]), "200");
    // A service in a slice has the host's address, so the gateway does not know it.
    assert!(!testbed.host_network().run("curl", &args).unwrap().ok());
    let unknown = format!("sourceLabels app=billing (no workload is known at {})", plan::APP);
    named("no_matching_rule", &unknown);
}
