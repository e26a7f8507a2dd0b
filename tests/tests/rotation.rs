//! Certificates of the hop between node and gateway, with real curl through the tunnel: renewal and a
//! new root lose no request, what is revoked ends, and openssl sees the gateway's identity.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use egress_tests::{
    ca::{Authority, Subject, Time, issue_mutual, revocation_list},
    manifests::Walkthrough,
    mtls::{self, GATEWAY_ID, NODE_ID, TUNNEL},
    plan::GATEWAYS,
    process::Process,
    testbed::Testbed,
    wait::{SOON, until, until_is},
};

const URL: &str = "http://edition.cnn.com/politics";

/// A pod, a node and a gateway with a tunnel between them, and the walkthrough's HTTP.
struct Site {
    gateway: Process,
    node: Process,
    testbed: Testbed,
    root: Authority,
}

impl Site {
    fn new() -> Self {
        let testbed = Testbed::test(1).unwrap();
        let root = testbed.prepare_mtls(1).unwrap();
        let files = Walkthrough::example_mtls().unwrap();
        let dir = testbed.dir().join("gateway");
        files.service_entry.with_certificates(&dir).apply(&testbed).unwrap();
        files.http.with_certificates(&dir).apply(&testbed).unwrap();
        let gateway = testbed.start_gateway_mtls(0).unwrap();
        let node = testbed.start_node_mtls().unwrap();
        let site = Self { gateway, node, testbed, root };
        site.sees("301");
        site
    }

    fn told(&self) -> String {
        format!("node:\n{}\ngateway:\n{}", self.node.stderr(), self.gateway.stderr())
    }

    /// Waits until a request of the pod ends this way.
    fn sees(&self, expected: &str) {
        let ask = || self.testbed.curl_status(&[URL]).unwrap();
        until_is(SOON, &format!("curl to see {expected}"), ask, |seen| seen == expected)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.told()));
    }

    /// Replaces one agent's identity, and waits until it is in use.
    fn give(&self, name: &str, leaf: &Authority, serial: u64, roots: &str) {
        let (agent, uri) = match name {
            "node" => (&self.node, NODE_ID),
            _ => (&self.gateway, GATEWAY_ID),
        };
        let taken = || agent.stderr().matches("certificate identity is in use").count();
        let before = taken();
        let subject = Subject { name: "mesh.example", uri, serial, time: Time::Now };
        let (chain, key) = issue_mutual(leaf, &subject).unwrap();
        let dir = self.testbed.dir().join(name);
        for (file, text) in
            [("cert-chain.pem", chain.as_str()), ("key.pem", &key), ("root-cert.pem", roots)]
        {
            replace(&dir, file, text);
        }
        until(SOON, &format!("{name} to use its new identity"), || {
            (taken() > before).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.told()));
    }
}

fn replace(dir: &Path, file: &str, text: &str) {
    let next = dir.join(format!(".{file}.next"));
    fs::write(&next, text).unwrap();
    fs::rename(next, dir.join(file)).unwrap();
}

#[test]
fn renewal_and_a_new_root_lose_no_request() {
    let site = Site::new();
    let dir = site.testbed.dir();
    let stop = dir.join("stop");
    let (stop_path, out) = (stop.display(), "-s -o /dev/null -w '%{http_code}\\n' --max-time 20");
    let short = format!("while [ ! -e {stop_path} ]; do curl {out} {URL} || echo failed; done");
    // One connection for as long as it lasts; it tells on standard error, which isn't held back.
    let long = format!(
        "exec curl -s --rate 20/s --fail-early -o /dev/null -w '%{{stderr}}%{{http_code}} %{{num_connects}}\\n' '{URL}?[1-5000]'"
    );
    let start = |name: &str, script: &str| {
        site.testbed.pod().start(&dir, name, "sh", &["-c", script]).unwrap()
    };
    let (mut short, mut long) = (start("short", &short), start("long", &long));
    let requests = |process: &Process, text: fn(&Process) -> String, what: &str| {
        let seen = || text(process).lines().count();
        let before = seen();
        until(SOON, &format!("requests after {what}"), || (seen() > before + 3).then_some(()))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", site.told()));
    };
    let both_go_on = |short: &Process, long: &Process, what: &str| {
        requests(short, Process::stdout, what);
        requests(long, Process::stderr, what);
    };
    both_go_on(&short, &long, "the start");
    let old = site.root.pem();
    for round in 0..2 {
        site.give("node", &site.root, 10 + round, &old);
        both_go_on(&short, &long, "a new leaf of the node");
        site.give("gateway", &site.root, 20 + round, &old);
        both_go_on(&short, &long, "a new leaf of the gateway");
    }
    // The root: both are trusted first, then the leaves are the new one's.
    let new = Authority::new("The next authority").unwrap();
    let both = format!("{old}{}", new.pem());
    site.give("gateway", &site.root, 30, &both);
    site.give("node", &site.root, 31, &both);
    both_go_on(&short, &long, "a second root");
    site.give("gateway", &new, 32, &both);
    site.give("node", &new, 33, &both);
    both_go_on(&short, &long, "leaves of the second root");
    // What is open was made with a leaf of the old one; it ends when that is trusted no more.
    long.kill();
    let codes = long.stderr();
    // Its last line may have been cut off with it.
    let codes = &codes[..=codes.rfind('\n').unwrap()];
    let expected =
        |(index, line): (usize, &str)| line == ["301 0", "301 1"][usize::from(index == 0)];
    assert!(codes.lines().enumerate().all(expected), "one connection all along: {codes}");
    site.give("gateway", &new, 34, &new.pem());
    site.give("node", &new, 35, &new.pem());
    requests(&short, Process::stdout, "the old root's end");
    fs::write(&stop, "").unwrap();
    short.wait(SOON).unwrap();
    let codes = short.stdout();
    assert!(codes.lines().all(|code| code == "301"), "{codes}\n{}", site.told());
    // The twin: a leaf of the old root is believed no more.
    let dir = site.testbed.dir().join("node");
    let subject = Subject { name: "mesh.example", uri: NODE_ID, serial: 36, time: Time::Now };
    let (chain, key) = issue_mutual(&site.root, &subject).unwrap();
    replace(&dir, "key.pem", &key);
    replace(&dir, "cert-chain.pem", &chain);
    until(SOON, "the old root's leaf to be refused", || {
        site.testbed.curl_status(&[URL]).unwrap();
        site.gateway.stdout().contains("\"reason\":\"untrusted_client_certificate\"").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", site.told()));
}

#[test]
fn a_revoked_node_is_cut_off_and_a_renewed_one_served() {
    let site = Site::new();
    let dir = site.testbed.dir();
    let script = format!("exec curl -s --rate 20/s --fail-early -o /dev/null '{URL}?[1-5000]'");
    let mut long = site.testbed.pod().start(&dir, "long", "sh", &["-c", &script]).unwrap();
    // A list with another certificate's number cuts off nobody.
    let list = |serial| revocation_list(&site.root, &[serial]).unwrap();
    let seen = || {
        let lines = site.gateway.stdout();
        lines.lines().filter(|line| line.contains("\"response_code\":301")).count()
    };
    let taken = || site.gateway.stderr().matches("certificate identity is in use").count();
    let before = taken();
    replace(&dir.join("gateway"), "ca.crl", &list(99));
    until_is(SOON, "the list to be read", taken, |now| *now > before).unwrap();
    let before = seen();
    until(SOON, "requests of the open connection", || (seen() > before + 10).then_some(()))
        .unwrap();
    replace(&dir.join("gateway"), "ca.crl", &list(2));
    // The connection is cut, and nothing new begins.
    long.wait(SOON).unwrap();
    let refused = until(SOON, "the reason in the log", || {
        site.testbed.curl_status(&[URL]).unwrap();
        let log = site.gateway.stdout();
        log.contains("\"reason\":\"revoked_client_certificate\"").then_some(())
    });
    refused.unwrap_or_else(|error| panic!("{error:#}\n{}", site.told()));
    let status = site.testbed.curl_status(&[URL]).unwrap();
    assert!(status.starts_with("curl: (") || status.starts_with('5'), "{status}");
    site.give("node", &site.root, 3, &site.root.pem());
    site.sees("301");
}

#[test]
fn openssl_sees_the_gateways_identity_on_the_tunnels_port() {
    let site = Site::new();
    let dir = site.testbed.dir().join("node");
    let dir = dir.display();
    let ask = |more: &str| {
        let script = format!(
            "openssl s_client -connect {}:{TUNNEL} -alpn h2 -tls1_3 -showcerts {more} </dev/null \
             2>/dev/null | openssl x509 -noout -text",
            GATEWAYS[0]
        );
        site.testbed.gateway(0).run("sh", &["-c", &script]).unwrap().stdout
    };
    let with = format!("-cert {dir}/cert-chain.pem -key {dir}/key.pem -CAfile {dir}/root-cert.pem");
    let text = ask(&with);
    assert!(text.contains(&format!("URI:{GATEWAY_ID}")), "{text}");
    // Without a certificate there is an alert, and a line in the log.
    let refusals = || {
        let log = site.gateway.stdout();
        log.lines().filter(|line| line.contains("\"reason\":\"no_client_certificate\"")).count()
    };
    assert_eq!(refusals(), 0, "{}", site.gateway.stdout());
    ask("");
    until(SOON, "the refusal in the log", || (refusals() == 1).then_some(())).unwrap();
    // The same from the agent's own view, and in the node's metrics.
    let metrics = site.testbed.node_metrics().unwrap();
    assert!(
        metrics.contains("egress_certificate_current{certificate=\"identity\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("egress_certificate_days_left{certificate=\"identity\"} "),
        "{metrics}"
    );
}

/// What an alert on certificates looks at, exported by both roles.
#[test]
fn both_roles_export_the_second_in_which_their_certificate_expires() {
    let site = Site::new();
    let exported = |name: &str| {
        let metrics = match name {
            "node" => site.testbed.node_metrics(),
            _ => site.testbed.admin(0, "stats/prometheus"),
        };
        let metrics = metrics.unwrap();
        let series = "egress_certificate_not_after_timestamp_seconds{certificate=\"identity\"} ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(series));
        value.unwrap_or_else(|| panic!("{metrics}")).parse::<u64>().unwrap()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (name, uri, serial, end) in
        [("node", NODE_ID, 41, now + 86_400), ("gateway", GATEWAY_ID, 42, now + 7 * 86_400)]
    {
        let dir = site.testbed.dir().join(name);
        assert_ne!(exported(name), end);
        let time = Time::Until(UNIX_EPOCH + Duration::from_secs(end));
        let subject = Subject { name: "mesh.example", uri, serial, time };
        let (chain, key) = issue_mutual(&site.root, &subject).unwrap();
        replace(&dir, "cert-chain.pem", &chain);
        replace(&dir, "key.pem", &key);
        let seen = || exported(name);
        until_is(SOON, &format!("the new end of {name}'s certificate"), seen, |seen| *seen == end)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", site.told()));
    }
}

/// TLS handshakes of an agent, by peer and group, from its metrics.
fn handshakes(metrics: &str, peer: &str, group: &str) -> u64 {
    let series = format!("egress_tls_handshakes_total{{peer=\"{peer}\",group=\"{group}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&*series));
    value.unwrap_or_else(|| panic!("{series}: {metrics}")).parse().unwrap()
}

/// Between node and gateway, and between gateway and host.
#[test]
fn the_hybrid_group_is_used_in_the_tunnel_and_towards_hosts_unless_it_is_switched_off() {
    const HYBRID: &str = "X25519MLKEM768";
    let site = Site::new();
    let dir = site.testbed.dir().join("gateway");
    let files = Walkthrough::example_mtls().unwrap();
    files.tls_origination.with_certificates(&dir).apply(&site.testbed).unwrap();
    site.sees("200");
    let node = |group: &str| handshakes(&site.testbed.node_metrics().unwrap(), "upstream", group);
    let gateway = |peer: &str, group: &str| {
        handshakes(&site.testbed.admin(0, "stats/prometheus").unwrap(), peer, group)
    };
    // The requests so far that reached the host in this group.
    let logged = |group: &str| {
        let wanted = format!("\"upstream_tls_group\":\"{group}\"");
        site.gateway.stdout().lines().filter(|line| line.contains(&wanted)).count()
    };
    for group in ["X25519", "P-256", "P-384"] {
        let seen = [node(group), gateway("downstream", group), gateway("upstream", group)];
        assert_eq!(seen, [0; 3], "{group}");
    }
    let seen = [node(HYBRID), gateway("downstream", HYBRID), gateway("upstream", HYBRID)];
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    until(SOON, "the group in the log", || (logged(HYBRID) > 0).then_some(())).unwrap();
    assert_eq!(logged("X25519"), 0);

    let off = format!("{}tlsDefaults: {{ecdhCurves: [X25519, P-256]}}\n", mtls::mesh(1));
    site.testbed.apply_mesh(&off).unwrap();
    until(SOON, "requests in the other group", || {
        site.sees("200");
        let legs = [node("X25519"), gateway("downstream", "X25519"), gateway("upstream", "X25519")];
        legs.iter().all(|count| *count > 0).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", site.told()));
    // From here on there is none of it.
    let all = || [node(HYBRID), gateway("downstream", HYBRID), gateway("upstream", HYBRID)];
    let (before, lines) = (all(), logged("X25519"));
    site.sees("200");
    until(SOON, "its line in the log", || (logged("X25519") > lines).then_some(())).unwrap();
    assert_eq!(all(), before);
}
