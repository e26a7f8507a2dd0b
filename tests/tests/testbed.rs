//! The testbed itself: without an agent everything leaks, and the capture sees it. What the other
//! tests find refused would have gone through.

use egress_tests::{
    outside::PAGE_BYTES, outside::Seen, plan, probe::patient_seconds, site, testbed::Testbed,
    verdicts, wait,
};

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

    let canary = testbed.canary().unwrap();
    // Answers come, however busy the machine is.
    let timeout = patient_seconds(4);
    let run = testbed.probe_all(testbed.pod(), &["--risky", "--timeout", &timeout]).unwrap();
    assert_eq!(run.code, 1);
    if let Err(error) = verdicts::open(&run, &canary) {
        panic!("{error:#}");
    }
    // Everything that the outside's servers or the canary answer has passed the capture.
    assert!(capture.take().len() > run.attempts.len() / 2);

    // Sockets from before and from elsewhere are nothing special here.
    let run = testbed.hold_for(testbed.pod(), &timeout).unwrap().go().unwrap();
    if let Err(error) = verdicts::open(&run, &canary) {
        panic!("{error:#}");
    }
    let path = testbed.dir().join("sockets");
    let path = path.to_string_lossy();
    let args = ["probe", "--pass-sockets", &*path].map(str::to_owned);
    let giver = testbed.start_agent(&testbed.outside_cgroup(), "giver", &args).unwrap();
    let offered = || giver.stdout().contains("waiting").then_some(());
    wait::until(wait::SOON, "sockets to be offered", offered).unwrap();
    let run = testbed
        .probe_all(testbed.pod(), &["--sockets-from", &path, "--timeout", &timeout])
        .unwrap();
    if let Err(error) = verdicts::open(&run, &canary) {
        panic!("{error:#}");
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
