//! The walkthrough, step by step, with real curl: what a user sees, the access log, the counter.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    access_log::{self, Line},
    manifests::Walkthrough,
    outside::{PAGE_BYTES, Seen},
    plan,
    process::Process,
    testbed::Testbed,
    wait::{SOON, until_is},
};

const URL: &str = "http://edition.cnn.com/politics";
const SECURE_URL: &str = "https://edition.cnn.com/politics";
const CX_TOTAL: &str = "cluster.outbound|443||edition.cnn.com.upstream_cx_total";

#[test]
fn walkthrough_in_v1() {
    walk(&Walkthrough::example().unwrap().in_version("v1"));
}

#[test]
fn walkthrough_in_v1beta1() {
    walk(&Walkthrough::example().unwrap().in_version("v1beta1"));
}

/// The walkthrough's own version; or another directory's files, unchanged.
#[test]
fn walkthrough_in_v1alpha3_or_as_given() {
    let given = Walkthrough::given().unwrap();
    walk(&given.unwrap_or_else(|| Walkthrough::example().unwrap().in_version("v1alpha3")));
}

/// Istio's tasks in their other form.
#[test]
fn walkthrough_in_the_gateway_api() {
    walk(&Walkthrough::example_gateway_api().unwrap());
}

fn walk(files: &Walkthrough) {
    let testbed = Testbed::test(1).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    refused(&testbed);
    explained(&testbed, [false, false]);

    // A service entry alone: as a sidecar would serve it.
    files.service_entry.apply(&testbed).unwrap();
    sees(&testbed, &["-L", URL], "301 200");
    explained(&testbed, [true, true]);
    files.service_entry.delete(&testbed).unwrap();
    refused(&testbed);
    assert!(!capture.take().is_empty(), "`direct: registry` sends TLS directly");

    // HTTP through the gateway: the same, and a line in its log.
    files.http.apply(&testbed).unwrap();
    sees(&testbed, &["-L", URL], "301 200");
    let line = line(&gateway, |line| line.code == 301);
    assert_eq!(line.request, "GET /politics HTTP/1.1", "{line:?}");
    http_line(&line, ":80");
    explained(&testbed, [true, true]);
    files.http.delete(&testbed).unwrap();
    refused(&testbed);
    capture.take();

    // Port 443 declared as HTTP, and the application speaks TLS on it.
    let declared_http = files.tls_origination.service_entry();
    declared_http.apply(&testbed).unwrap();
    sees(&testbed, &[URL], "301");
    sees(&testbed, &["-L", URL], "curl: (35)");
    explained(&testbed, [true, false]);
    declared_http.delete(&testbed).unwrap();
    refused(&testbed);

    // TLS origination: 200 at once, over port 443.
    files.tls_origination.apply(&testbed).unwrap();
    sees(&testbed, &[URL], "200");
    let page = testbed.curl(&[URL]).unwrap();
    assert_eq!(page.stdout.len(), PAGE_BYTES);
    let over_tls = Seen::Https {
        server_name: Some(plan::HOST.into()),
        host: plan::HOST.into(),
        path: "/politics".into(),
    };
    testbed.record().take();
    sees(&testbed, &[URL], "200");
    assert_eq!(testbed.record().take(), [over_tls]);
    http_line(&self::line(&gateway, |line| line.code == 200), ":443");
    explained(&testbed, [true, false]);
    files.tls_origination.delete(&testbed).unwrap();
    refused(&testbed);

    // HTTPS passthrough: 200, and the counter grows by one with each connection.
    files.passthrough.apply(&testbed).unwrap();
    sees(&testbed, &[SECURE_URL], "200");
    let before = cx_total(&testbed);
    for more in 1..=3 {
        assert_eq!(testbed.curl_status(&[SECURE_URL]).unwrap(), "200");
        let now = until_is(SOON, CX_TOTAL, || cx_total(&testbed), |now| *now >= before + more);
        assert_eq!(now.unwrap(), before + more);
    }
    let line = self::line(&gateway, |line| line.request == "- - -" && line.upstream_host != "-");
    assert_eq!((line.code, line.flags.as_str()), (0, "-"), "{line:?}");
    assert!(line.upstream_host.ends_with(":443"), "{line:?}");
    let page_bytes = u64::try_from(PAGE_BYTES).unwrap();
    assert!(line.sent > page_bytes && line.received > 300, "{line:?}");
    let dashes = [&line.forwarded_for, &line.user_agent, &line.request_id, &line.authority];
    assert!(dashes.iter().all(|field| *field == "-"), "{line:?}");
    explained(&testbed, [false, true]);
    files.passthrough.delete(&testbed).unwrap();
    refused(&testbed);

    assert_eq!(capture.take(), Vec::<String>::new(), "all of it went through the gateway");
}

/// `explain` says of both URLs what curl sees: by the files alone, asked of the node, and asked of the
/// gateway.
fn explained(testbed: &Testbed, served: [bool; 2]) {
    let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let agent = path(testbed.agent().to_owned());
    let (config, mesh) = (path(testbed.config()), path(testbed.mesh()));
    let sockets = [testbed.node_control(), testbed.gateway_control(0)].map(path);
    for (url, served) in [URL, SECURE_URL].into_iter().zip(served) {
        let seen = testbed.curl_status(&[url]).unwrap();
        let is_served = seen != "403" && !seen.starts_with("curl: ");
        assert_eq!(is_served, served, "{url}: {seen}");
        let ask = |more: &[&str]| {
            let question = ["explain", "--from", "default/sleep", "--label", "app=sleep", url];
            testbed.app().run(&agent, &[&question[..], more].concat()).unwrap()
        };
        let expected = if served { 0 } else { 3 };
        let by_files = ask(&[&config, "--mesh", &mesh]);
        assert_eq!(by_files.code, expected, "{url}: {seen} {by_files:?}");
        for socket in &sockets {
            // A node may take a change a moment later than the gateway.
            let asked = || ask(&["--control", socket]);
            let same = until_is(SOON, &format!("{socket} to agree on {url}"), asked, |answer| {
                answer.code == expected
            });
            let steps = |text: &str| text.lines().filter(|line| !line.contains(".yaml")).count();
            assert_eq!(steps(&same.unwrap().stdout), steps(&by_files.stdout), "{url}");
        }
        let json = ask(&[&config, "--mesh", &mesh, "-o", "json"]);
        let verdict = if served { "\"verdict\": \"allowed\"" } else { "\"verdict\": \"refused\"" };
        assert!(json.stdout.contains(verdict), "{}", json.stdout);
    }
}

/// Waits until curl sees this.
fn sees(testbed: &Testbed, args: &[&str], expected: &str) {
    let ask = || testbed.curl_status(args).unwrap();
    until_is(SOON, &format!("curl {args:?} to see {expected}"), ask, |seen| seen == expected)
        .unwrap();
}

/// Without resources nothing is allowed: neither HTTP nor HTTPS.
fn refused(testbed: &Testbed) {
    for url in [URL, SECURE_URL] {
        let ask = || testbed.curl_status(&[url]).unwrap();
        let refused = |seen: &String| seen == "403" || seen.starts_with("curl: ");
        until_is(SOON, &format!("{url} to be refused"), ask, refused).unwrap();
    }
}

/// The last line of the gateway's log that is meant.
fn line(gateway: &Process, meant: impl Fn(&Line) -> bool) -> Line {
    let last = || access_log::lines(&gateway.stdout()).into_iter().rfind(&meant);
    match until_is(SOON, "a line in the access log", last, Option::is_some) {
        Ok(Some(line)) => line,
        other => panic!("{other:?}; the log:\n{}", gateway.stdout()),
    }
}

/// What every line about a served HTTP request holds.
fn http_line(line: &Line, upstream_port: &str) {
    // 2026-01-31T12:34:56.789Z
    let shape: String =
        line.start_time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{line:?}");
    assert_eq!(line.flags, "-", "{line:?}");
    assert_eq!(line.received, 0, "{line:?}");
    assert!(line.service_time.is_some_and(|time| time <= line.duration), "{line:?}");
    assert!(line.user_agent.starts_with("curl/"), "{line:?}");
    assert_eq!(line.forwarded_for, plan::POD, "{line:?}");
    assert_eq!(line.request_id.len(), 36, "{line:?}");
    assert_eq!(line.authority, plan::HOST, "{line:?}");
    assert!(line.upstream_host.ends_with(upstream_port), "{line:?}");
}

/// As the walkthrough reads it.
fn cx_total(testbed: &Testbed) -> u64 {
    let command = "curl -s localhost:15000/stats | grep edition.cnn.com.upstream_cx_total";
    let output = testbed.gateway(0).run("sh", &["-c", command]).unwrap().stdout;
    let line = output.lines().find_map(|line| line.strip_prefix(CX_TOTAL)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {CX_TOTAL} in:\n{output}")).parse().unwrap()
}
