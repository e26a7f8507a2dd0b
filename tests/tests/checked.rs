//! What `check` says of a configuration, and what requests then get, side by side.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    plan,
    process::Process,
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until_is},
};

const WWW: &str = "www.example.com";
/// A host that configurations add to what there was before.
const NEW: &str = "packages.example.org";

/// What a request is answered: its status, and the reason of a refusal.
type Answer = (&'static str, &'static str);
const SERVED: Answer = ("301", "");
const UNKNOWN: Answer = ("403", "host_not_in_registry");

/// A host that is routed through the gateway, in a rule with more fields, to this destination.
fn routed(host: &str, fields: &str, destination: &str) -> String {
    let name = host.replace('.', "-");
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{host}]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  selector: {{istio: egressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{host}]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [{host}]
  gateways: [mesh, {name}]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route: [{{destination: {{host: istio-egressgateway.istio-system.svc.cluster.local, port: {{number: 80}}}}}}]
  - match: [{{gateways: [{name}], port: 80}}]
    {fields}route: [{{destination: {destination}}}]
"
    )
}

/// The host of every row, with more fields of its rule.
fn www(fields: &str) -> String {
    routed(WWW, fields, &format!("{{host: {WWW}, port: {{number: 80}}}}"))
}

/// The host of a row, and a new one.
fn both(of_new: &str) -> String {
    www("") + &routed(NEW, "", of_new)
}

fn rule(policy: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: www}}\n\
         spec: {{host: {WWW}, trafficPolicy: {policy}}}\n"
    )
}

struct Row {
    resources: String,
    /// Of `check`.
    code: i32,
    /// Parts of its text.
    says: [&'static str; 2],
    /// Whether the agents take it.
    taken: bool,
    www: Answer,
    new: Answer,
}

/// In this order, because what is not taken leaves what was there before.
fn rows() -> Vec<Row> {
    let in_force = |resources: String, says| Row {
        resources,
        code: 0,
        says,
        taken: true,
        www: SERVED,
        new: UNKNOWN,
    };
    let part_refused = |resources: String, says, reason| Row {
        resources,
        code: 3,
        says,
        taken: true,
        www: ("403", reason),
        new: UNKNOWN,
    };
    let nothing_taken = |resources: String, first, new| Row {
        resources,
        code: 1,
        says: [
            first,
            "1 error, no warnings in 3 files; nothing of it is put in force before the errors are gone",
        ],
        taken: false,
        www: SERVED,
        new,
    };
    let one_warning = "no errors, 1 warning in 3 files";
    let served = format!("{{host: {NEW}, port: {{number: 80}}}}");
    vec![
        in_force(www(""), ["no errors, no warnings in 3 files", ""]),
        in_force(
            www("timeout: 0s\n    "),
            ["warning: a current API server refuses durations below 1ms", one_warning],
        ),
        in_force(
            www("timeuot: 1s\n    "),
            [
                "warning: unknown field \"timeuot\"; it has no effect. Did you mean \"timeout\"?",
                one_warning,
            ],
        ),
        in_force(
            www("retries: {attempts: 1, retryRemoteLocalities: true}\n    "),
            ["warning: has no effect: a retry goes where the load balancer sends it", one_warning],
        ),
        // In force, and this part of it is refused.
        part_refused(
            routed(WWW, "", "{host: nowhere.example}"),
            [
                "refused[IST0101]: no ServiceEntry has the host nowhere.example; what is routed there is refused",
                "no errors, 1 refusal, no warnings in 3 files; all of it is in force but what is refused",
            ],
            "host_not_in_registry",
        ),
        part_refused(
            www("") + &rule("{tls: {mode: ISTIO_MUTUAL}}"),
            [
                "destination is a ServiceEntry's; requests that need this policy are refused",
                "no errors, 2 refusals, no warnings in 3 files; all of it is in force but what is refused",
            ],
            "tls_policy_unavailable",
        ),
        // What is new is served where nothing is wrong with it, and nothing of what is not taken is in force: neither
        // it nor what the resource beside it says.
        Row { new: SERVED, ..in_force(both(&served), ["no errors, no warnings in 3 files", ""]) },
        in_force(www(""), ["no errors, no warnings in 3 files", ""]),
        nothing_taken(
            both(&format!("{{host: {NEW}, port: {{name: http}}}}")),
            "error: not supported: the API has no names of ports here, and an API server drops them: ports are selected by number",
            UNKNOWN,
        ),
        nothing_taken(
            both(&served) + &rule("{connectionPool: {tcp: {maxConnections: many}}}"),
            "error: wrong value",
            UNKNOWN,
        ),
        in_force(www(""), ["no errors, no warnings in 3 files", ""]),
    ]
}

struct Site {
    gateway: Process,
    _node: Process,
    testbed: Testbed,
}

impl Site {
    /// Configurations that the gateway took, or refused, so far.
    fn reloads(&self, taken: bool) -> u64 {
        let result = if taken { "accepted" } else { "rejected" };
        let name = format!("egress_config_reloads_total{{result=\"{result}\"}} ");
        let text = self.testbed.admin(0, "stats/prometheus").unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        // A process that has just begun says nothing yet.
        value.map_or(0, |value| value.parse().unwrap())
    }

    fn answered(&self, host: &str) -> (String, String) {
        let done =
            self.testbed.curl(&["-w", "\n%{http_code}", &format!("http://{host}/")]).unwrap();
        let (body, status) = done.stdout.rsplit_once('\n').unwrap_or_default();
        let reason = body.rsplit_once('(').and_then(|(_, end)| end.split_once(')'));
        let reason = reason.filter(|_| status == "403").map_or("", |(reason, _)| reason);
        (status.to_owned(), reason.to_owned())
    }

    fn gets(&self, host: &str, (status, reason): Answer, row: &str) {
        let what = format!("{host} to be answered {status} {reason} with\n{row}");
        let expected = (status.to_owned(), reason.to_owned());
        until_is(SOON, &what, || self.answered(host), |seen| *seen == expected)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.gateway.stderr()));
    }

    /// Exit code and text, in one line.
    fn check(&self) -> (i32, String) {
        let (config, mesh) = (self.testbed.config(), self.testbed.mesh());
        let args = ["check", config.to_str().unwrap(), "--mesh", mesh.to_str().unwrap()];
        let agent = self.testbed.agent().to_string_lossy().into_owned();
        let done = self.testbed.app().run(&agent, &args).unwrap();
        (done.code, done.stdout.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

#[test]
fn requests_get_what_check_says() {
    let testbed = Testbed::test(1).unwrap();
    testbed.apply_mesh(&mesh_yaml(1).replace("direct: registry\n", "")).unwrap();
    let cnn = routed(plan::HOST, "", &format!("{{host: {}, port: {{number: 80}}}}", plan::HOST));
    testbed.apply("cnn.yaml", &cnn).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    let site = Site { gateway, _node: node, testbed };
    site.gets(plan::HOST, SERVED, &cnn);
    for Row { resources, code, says, taken, www, new } in rows() {
        let before = site.reloads(taken);
        site.testbed.apply("row.yaml", &resources).unwrap();
        let (seen, text) = site.check();
        assert_eq!(seen, code, "{text}\n{resources}");
        for part in says {
            assert!(text.contains(part), "{part:?} in {text}\n{resources}");
        }
        let count = || site.reloads(taken);
        until_is(SOON, "the gateway to read it", count, |now| *now > before).unwrap();
        site.gets(WWW, www, &resources);
        site.gets(NEW, new, &resources);
        // What nothing is wrong with is served whatever is beside it.
        site.gets(plan::HOST, SERVED, &resources);
    }
    // A gateway that has nothing from before has nothing in force where `check` says so.
    let Site { gateway, _node: node, testbed } = site;
    drop(gateway);
    testbed.apply("row.yaml", &both("{host: nowhere.example, port: {name: http}}")).unwrap();
    let gateway = testbed.start_agent(testbed.gateway(0), "fresh", &testbed.gateway_args());
    let site = Site { gateway: gateway.unwrap(), _node: node, testbed };
    assert_eq!(site.check().0, 1);
    let rejected = || site.reloads(false);
    until_is(SOON, "the new gateway to read it", rejected, |count| *count > 0).unwrap();
    for host in [plan::HOST, WWW, NEW] {
        // Nodes send nothing to a gateway that is not ready.
        let nothing = |(status, reason): &(String, String)| {
            status == "000" || (status == "403" && reason == "not_configured")
        };
        until_is(SOON, host, || site.answered(host), nothing).unwrap();
    }
    site.testbed.apply("row.yaml", &www("")).unwrap();
    for host in [plan::HOST, WWW] {
        site.gets(host, SERVED, "no error");
    }
}
