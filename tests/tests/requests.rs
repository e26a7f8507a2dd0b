//! Requests of a pod, as the origin sees them: their paths and what they claim of their sender, over
//! HTTP/1.1 and HTTP/2.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    access_log,
    outside::Seen,
    plan,
    process::Process,
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until, until_is},
};

/// A host of which everything but one prefix is forwarded.
const RULES: &str = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cnn}
spec:
  hosts: [edition.cnn.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress}
spec:
  selector: {istio: egressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [edition.cnn.com]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cnn}
spec:
  hosts: [edition.cnn.com]
  gateways: [mesh, egress]
  http:
  - match: [{gateways: [mesh], port: 80}]
    route:
    - destination:
        host: istio-egressgateway.istio-system.svc.cluster.local
        port: {number: 80}
  - match: [{gateways: [egress], port: 80, uri: {prefix: /admin}}]
    directResponse: {status: 418}
  - match: [{gateways: [egress], port: 80}]
    route: [{destination: {host: edition.cnn.com, port: {number: 80}}}]
";

/// curl's options for the two versions.
const VERSIONS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

struct Site {
    gateway: Process,
    _node: Process,
    testbed: Testbed,
}

impl Site {
    fn new() -> Self {
        Self::with("")
    }

    /// With more lines of `mesh.yaml`.
    fn with(more: &str) -> Self {
        let testbed = Testbed::test(1).unwrap();
        testbed.apply_mesh(&format!("{}{more}", mesh_yaml(1))).unwrap();
        testbed.apply("rules.yaml", RULES).unwrap();
        let gateway = testbed.start_gateway(0).unwrap();
        let node = testbed.start_node().unwrap();
        let site = Self { gateway, _node: node, testbed };
        for version in VERSIONS {
            let asked = || site.ask(version, "/plain", &[]).0;
            until_is(SOON, "the origin", asked, |status| status == "200").unwrap();
        }
        site.testbed.record().take();
        site
    }

    /// The status and the body of a request whose path curl sends as it is.
    fn ask(&self, version: &str, path: &str, more: &[&str]) -> (String, String) {
        let url = format!("http://{}{path}", plan::HOST);
        let args = [&[version, "--path-as-is", "-w", "\n%{http_code}", &url][..], more].concat();
        let done = self.testbed.curl(&args).unwrap();
        let (body, status) = done.stdout.rsplit_once('\n').unwrap_or_default();
        (status.to_owned(), body.to_owned())
    }

    /// The paths that reached the origin since the last time.
    fn arrived(&self) -> Vec<String> {
        let seen = self.testbed.record().take().into_iter();
        seen.map(|seen| {
            let Seen::Http { host, path } = seen else { panic!("{seen:?}") };
            assert_eq!(host, plan::HOST);
            path
        })
        .collect()
    }
}

#[test]
fn no_spelling_of_a_path_gets_around_a_rule_about_it() {
    let site = Site::new();
    for version in VERSIONS {
        // The rule's own answer, or a refusal of what could be read in two ways.
        for (path, status) in [
            ("/admin/x", "418"),
            ("/%61dmin/x", "418"),
            ("/adm%69n/x", "418"),
            ("/x/../admin/x", "418"),
            ("/./admin/x", "418"),
            ("/x/%2e%2e/admin/x", "418"),
            ("/x\\..\\admin/x", "418"),
            ("//admin/x", "400"),
            ("/x/..;/admin/x", "400"),
            ("/%2561dmin/x", "400"),
            ("/x%2f..%2fadmin/x", "400"),
            ("/%2fadmin/x", "400"),
        ] {
            assert_eq!(site.ask(version, path, &[]).0, status, "{version} {path}");
            assert_eq!(site.arrived(), [""; 0], "{version} {path}");
        }
        // What the rule does not mean reaches the origin, in its normal form.
        for (path, normal) in [
            ("/politics", "/politics"),
            ("/p%6Flitics?q=%61", "/politics?q=%61"),
            ("/admins/../politics", "/politics"),
            ("/x/administrator", "/x/administrator"),
        ] {
            assert_eq!(site.ask(version, path, &[]).0, "301", "{version} {path}");
            assert_eq!(site.arrived(), [normal], "{version} {path}");
        }
    }
}

/// The rule decides about what `MERGE_SLASHES` and `DECODE_AND_MERGE_SLASHES` make of a path, and that is forwarded.
#[test]
fn slashes_that_are_merged_or_decoded_get_around_no_rule() {
    for (how, encoded) in [("MERGE_SLASHES", "400"), ("DECODE_AND_MERGE_SLASHES", "418")] {
        let site = Site::with(&format!("pathNormalization: {{normalization: {how}}}\n"));
        for version in VERSIONS {
            for (path, status) in [
                ("//admin/x", "418"),
                ("/x/..//admin/x", "418"),
                ("/\\admin/x", "418"),
                ("/%61dmin/x", "418"),
                ("/adm%69n/x", "418"),
                ("/x/%2e%2e/admin/x", "418"),
                ("/x/..;/admin/x", "400"),
                ("/%2561dmin/x", "400"),
                ("/x/%252e%252e/admin/x", "400"),
                ("/x%252fadmin/x", "400"),
                ("/%2fadmin/x", encoded),
                ("/%5cadmin/x", encoded),
                ("/x%2f..%2fadmin/x", encoded),
                ("/x%5c..%5cadmin/x", encoded),
            ] {
                assert_eq!(site.ask(version, path, &[]).0, status, "{how} {version} {path}");
                assert_eq!(site.arrived(), [""; 0], "{how} {version} {path}");
            }
            let politics = site.ask(version, "//x/..///politics", &[]).0;
            assert_eq!(politics, "301", "{how} {version}");
            assert_eq!(site.arrived(), ["/politics"], "{how} {version}");
        }
    }
}

/// Of what a client claims, the gateway believes as many addresses as there are trusted proxies, and the origin is
/// told none.
#[test]
fn of_forged_addresses_the_log_has_those_of_trusted_proxies_alone() {
    const CLAIMED: &str = "X-Forwarded-For: 192.0.2.64, 192.0.2.65,192.0.2.66";
    for (proxies, believed) in [(1, &["192.0.2.66"][..]), (2, &["192.0.2.65", "192.0.2.66"][..])] {
        let site = Site::with(&format!(
            "defaultConfig: {{gatewayTopology: {{numTrustedProxies: {proxies}}}}}\n"
        ));
        for version in VERSIONS {
            let more = ["-H", CLAIMED, "-H", "X-Real-IP: 192.0.2.64", "-A", version];
            let (status, headers) = site.ask(version, "/headers", &more);
            assert_eq!(status, "200", "{proxies} {version}");
            assert!(!headers.contains("192.0.2."), "{proxies} {version}: {headers}");
            let line = until(SOON, "its line", || {
                let lines = access_log::lines(&site.gateway.stdout());
                lines.into_iter().rfind(|line| line.user_agent == version)
            })
            .unwrap();
            let logged: Vec<&str> = line.forwarded_for.split(',').map(str::trim).collect();
            assert_eq!(logged, [believed, &[plan::POD]].concat(), "{}", line.text);
            assert!(line.downstream_remote.starts_with(plan::POD), "{}", line.text);
            assert!(!line.text.contains("192.0.2.64"), "{}", line.text);
        }
    }
}

#[test]
fn the_origin_and_the_log_are_told_nothing_that_a_pod_claims_of_itself() {
    const CLAIMED: &str = "192.0.2.66";
    let site = Site::new();
    let claims = [
        "X-Forwarded-For: 192.0.2.66",
        "Forwarded: for=192.0.2.66",
        "X-Real-IP: 192.0.2.66",
        "X-Envoy-External-Address: 192.0.2.66",
        "X_Forwarded_For: 192.0.2.66",
    ];
    let claims: Vec<&str> = claims.iter().flat_map(|claim| ["-H", claim]).collect();
    for version in VERSIONS {
        // The origin answers with the headers that it got.
        let more = [&claims[..], &["-H", "X-Own: its own", "-A", version]].concat();
        let (status, headers) = site.ask(version, "/headers", &more);
        assert_eq!(status, "200", "{version}");
        assert!(headers.contains("x-own: its own"), "{version}: {headers}");
        assert!(!headers.contains(CLAIMED), "{version}: {headers}");
        assert!(!headers.contains(plan::POD), "{version}: {headers}");
        let line = until(SOON, "its line", || {
            let lines = access_log::lines(&site.gateway.stdout());
            lines.into_iter().rfind(|line| line.user_agent == version)
        })
        .unwrap();
        assert_eq!(line.forwarded_for, plan::POD, "{}", line.text);
        assert!(line.downstream_remote.starts_with(plan::POD), "{}", line.text);
        assert!(!line.text.contains(CLAIMED), "{}", line.text);
    }
}
