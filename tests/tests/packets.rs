//! Every kind of packet, from a real pod, and what else isn't a kind of socket: refused with its
//! reason, event and counter, and nothing arrives outside.

use std::collections::BTreeSet;

use egress_tests::{
    manifests::Walkthrough,
    plan,
    testbed::Testbed,
    verdicts::{self, Before, Hooks},
    wait::{SOON, until_is},
    ways,
    wiring::{Checksums, uplink_checksums},
};

#[test]
fn no_kind_of_packet_gets_out_of_a_pod() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let canary = testbed.canary().unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let mut args = testbed.node_args();
    args.extend(["--events".into(), "json".into()]);
    let node = testbed.start_node_with(&args).unwrap();
    let capture = testbed.capture().unwrap();
    let served = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    assert_eq!(capture.frames(), Vec::<String>::new());

    let mut only: Vec<&str> = ways::PACKETS.iter().flat_map(|way| ["--only", way.name]).collect();
    only.push("--risky");
    let (pod, elsewhere) = (testbed.pod().clone(), testbed.outside_cgroup());
    for (place, hooks, checksums) in [
        (&pod, Hooks::All, Checksums::Filled),
        (&elsewhere, Hooks::WallOnly, Checksums::Filled),
        (&elsewhere, Hooks::WallOnly, Checksums::Left),
    ] {
        uplink_checksums(&testbed.app().ns, checksums).unwrap();
        let before = Before::now(&testbed, &node).unwrap();
        let run = testbed.probe_all(place, &only).unwrap();
        assert_eq!(run.code, 0);
        let checked = verdicts::refused(&testbed, &node, &before, (&run, hooks), &canary, &capture);
        if let Err(error) = checked {
            panic!("{hooks:?}, {checksums:?}: {error:#}");
        }
    }

    // By address instead of name: the gateway knows no such host.
    assert_eq!(testbed.curl_status(&["-k", "https://198.51.100.10/"]).unwrap(), "curl: (35)");
    // An allowed name on the attacker's address: the gateway dials its own resolution.
    let resolve = format!("edition.cnn.com:443:{}", plan::ATTACKER);
    let lied = testbed.curl_status(&["--resolve", &resolve, "https://edition.cnn.com/"]);
    assert_eq!(lied.unwrap(), "200");

    // Replies of allowed connections, DNS and the allowed way still work.
    assert_eq!(served(), "200");
    assert_eq!(capture.frames(), Vec::<String>::new());
}

/// The program's list and the tests' tables name the same attempts: what is tried is also checked.
#[test]
fn the_tests_know_every_attempt() {
    let agent = egress_tests::agent::built().unwrap();
    let done = egress_tests::sh(&agent.to_string_lossy(), &["probe", "--list", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&done.unwrap()).unwrap();
    let mut listed = BTreeSet::new();
    for attempt in list.as_array().unwrap() {
        let name = attempt["name"].as_str().unwrap();
        for family in attempt["families"].as_array().unwrap() {
            let family = if family == "IPv6" { "v6" } else { "v4" };
            let full = format!("{name}-{family}");
            let way = ways::find(name, &full);
            assert!(way.is_some(), "nobody says what is to become of {full}");
            listed.insert(way.unwrap().name);
        }
    }
    let all = ways::SOCKETS.iter().chain(ways::OLD).chain(ways::PACKETS).chain(ways::QUESTIONS);
    for way in all {
        assert!(listed.contains(way.name), "there is no attempt {}", way.name);
    }
}
