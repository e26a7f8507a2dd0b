//! The configuration for hosts that is shipped (`deploy/hosts/config`), applied as the documentation says:
//! only the addresses of `mesh.yaml` are this site's own.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{collections::BTreeMap, fs, path::Path};

use egress_tests::{
    cgroup::{self, below_mount},
    cluster::{Cluster, ask},
    page::{self, Step},
    plan,
    process::{Finished, Place},
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

/// `payments.yaml` with the rule that its comment offers: only workloads with this label.
fn for_billing_alone(payments: &str) -> String {
    let at = payments.find("      port: 443\n      sniHosts:").expect("the mesh's match");
    let labels = "      sourceLabels:\n        app: billing\n";
    format!("{}{labels}{}", &payments[..at], &payments[at..])
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
    testbed.apply("payments.yaml", &for_billing_alone(&files["payments.yaml"])).unwrap();
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

const OPERATIONS: &str = "docs/operations.md";
/// Below this heading, `docs/operations.md` has what a rule for a service in a slice takes.
const ONE_SERVICE: &str = "Rules for one service";
/// The page's slice, address and directory.
const SLICE: &str = "/workloads.slice/workloads-billing.slice";
const HOST: &str = "10.20.0.1";
const IDENTITY: &str = "/etc/egress/identity";

/// The options that the page has a role's unit start with, with this site's address and identity.
fn options(testbed: &Testbed, role: &str) -> Vec<String> {
    let steps: Vec<Step> = page::blocks(OPERATIONS, ONE_SERVICE)
        .unwrap()
        .iter()
        .filter_map(|block| block.steps().ok())
        .flatten()
        .collect();
    let file = format!("egress-{role}.env");
    let line = steps.iter().find_map(|step| match step {
        Step::Run(line) if line.ends_with(&file) => Some(line),
        Step::Run(_) | Step::Write { .. } => None,
    });
    let given = line.and_then(|line| line.split('"').nth(1)).expect("options in the page");
    let identity = testbed.dir().join(role);
    let given = replace(given, IDENTITY, &identity.to_string_lossy());
    given.replace(HOST, plan::APP).split(' ').map(str::to_owned).collect()
}

/// As the page has it: two services in slices of one host, of which a rule allows one by its label. Through the tunnel
/// the gateway knows which is which; without it neither is known.
#[test]
fn a_rule_for_one_service_in_a_slice_matches_through_the_tunnel_alone() {
    let testbed = Testbed::test(1).unwrap();
    testbed.prepare_mtls(1).unwrap();
    let slice = |name: &str| {
        let cgroup = testbed.pod().cgroup.join(name);
        cgroup::create(&cgroup).unwrap();
        Place { cgroup, ..testbed.host_network() }
    };
    let (billing, web) = (slice("workloads-billing.slice"), slice("workloads-web.slice"));

    let files = shipped();
    let blocks = page::blocks(OPERATIONS, ONE_SERVICE).unwrap();
    let named = blocks.iter().find(|block| block.text.starts_with("nodes:")).expect("the host");
    let named = replace(&named.text, HOST, plan::APP);
    let named = replace(&named, SLICE, &below_mount(&billing.cgroup).unwrap());
    let mesh = edited(&files["mesh.yaml"]);
    let (mesh, _) = mesh.split_once("\nworkloads:\n").expect("the shipped workloads");
    let second = below_mount(&web.cgroup).unwrap();
    let second = format!(
        "- name: web\n  namespace: shop\n  node: app\n  serviceAccount: web\n  labels: {{app: \
         web}}\n  cgroups: [{second}]\n"
    );
    testbed.apply_mesh(&format!("{mesh}\n{named}{second}")).unwrap();
    testbed.apply("payments.yaml", &for_billing_alone(&files["payments.yaml"])).unwrap();
    let tunnel = &page::blocks("docs/tasks/mutual-tls.md", "Mutual TLS to the gateway").unwrap()[0];
    testbed.apply("tunnel.yaml", &tunnel.text).unwrap();

    let gateway = testbed.start_gateway_with(0, &options(&testbed, "gateway")).unwrap();
    let args = [testbed.node_args(), options(&testbed, "node")].concat();
    let node = testbed.start_node_with(&args).unwrap();
    let asks = |place: &Place| -> Finished {
        place.run("curl", &["-s", "--max-time", "10", "-o", "/dev/null", PAYMENTS]).unwrap()
    };
    let served = |when: &str| {
        until_is(SOON, when, || asks(&billing), Finished::ok)
            .unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", gateway.stdout(), node.stderr()));
    };
    let refused = |place: &Place, condition: &str| {
        until(SOON, condition, || {
            let done = asks(place);
            let detail = refusal(&testbed, "no_matching_rule");
            (!done.ok() && detail.is_some_and(|detail| detail.contains(condition))).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", gateway.stdout(), node.stderr()));
    };
    served("the service that the rule names");
    refused(&web, "sourceLabels app=billing (shop/web has app=web)");

    // The same rule without the tunnel.
    testbed.delete("tunnel.yaml").unwrap();
    let unknown = format!("sourceLabels app=billing (no workload is known at {})", plan::APP);
    refused(&billing, &unknown);
    testbed.apply("tunnel.yaml", &tunnel.text).unwrap();
    served("the tunnel again");
}
