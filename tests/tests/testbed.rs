//! The testbed itself: without an agent everything leaks, and the capture sees it. What the other
//! tests find refused would have gone through.

use egress_tests::{outside::PAGE_BYTES, outside::Seen, plan, site, testbed::Testbed, wait};

#[test]
fn without_enforcement_every_way_out_works_and_is_captured() {
    let testbed = Testbed::test(1).unwrap();
    let capture = testbed.capture().unwrap();
    assert_eq!(capture.frames(), Vec::<String>::new());

    assert_eq!(testbed.curl_status(&["-L", "http://edition.cnn.com/politics"]).unwrap(), "301 200");
    let page = testbed.curl(&["https://edition.cnn.com/"]).unwrap();
    assert_eq!(page.stdout.len(), PAGE_BYTES);
    assert!(!capture.take().is_empty());
    assert!(
        testbed
            .record()
            .take()
            .contains(&Seen::Http { host: "edition.cnn.com".into(), path: "/politics".into() })
    );

    let udp_port = plan::UDP_PORT.to_string();
    let answered: &[&[&str]] = &[
        &["tcp", plan::ATTACKER, "22"],
        &["tcp", plan::ATTACKER_V6, "22"],
        &["tcp-mapped", plan::ATTACKER, "22"],
        &["mptcp", plan::ATTACKER, "22"],
        &["udp", plan::ATTACKER, &udp_port],
        &["udp", plan::ATTACKER_V6, &udp_port],
        &["udp-connected", plan::ATTACKER, &udp_port],
        &["udp-mapped", plan::ATTACKER, &udp_port],
        &["ping-socket", plan::ATTACKER],
        &["raw-icmp", plan::ATTACKER],
        &["raw-icmp", plan::ATTACKER_V6],
        &["raw-ip", plan::ATTACKER, &udp_port],
        &["packet", plan::ATTACKER, &udp_port],
        &["tcp", plan::METADATA, "22"],
    ];
    let unanswered: &[&[&str]] = &[
        &["udplite", plan::ATTACKER, &udp_port],
        &["raw-spoofed", plan::ATTACKER, &udp_port],
        &["ipip", plan::ATTACKER],
    ];
    for (ways, code) in [(answered, 0), (unanswered, 2)] {
        for way in ways {
            let probe = testbed.probe(way).unwrap();
            assert_eq!(probe.code, code, "{way:?}: {probe:?}");
            wait::until(wait::SOON, &format!("{way:?} in the capture"), || {
                (!capture.take().is_empty()).then_some(())
            })
            .unwrap();
        }
    }
    let ping = testbed.pod().run("ping", &["-c1", "-W2", plan::ATTACKER]).unwrap();
    assert!(ping.ok(), "{ping:?}");
}

#[test]
fn nothing_is_left_behind() {
    let testbed = Testbed::test(0).unwrap();
    let prefix = testbed.dir().file_name().unwrap().to_str().unwrap().to_owned();
    let mut sleeper = testbed.pod().start(&testbed.dir(), "sleeper", "sleep", &["1000"]).unwrap();
    assert!(site::exists(&prefix));
    drop(testbed);
    assert!(!site::exists(&prefix));
    assert!(sleeper.wait(wait::SOON).is_ok());
}
