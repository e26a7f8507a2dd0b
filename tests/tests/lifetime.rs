//! The agent goes, enforcement stays; only `detach` removes it.

use egress_tests::{
    manifests::Walkthrough,
    plan,
    testbed::Testbed,
    wait::{SOON, until_is},
};

const URL: &str = "https://edition.cnn.com/";

#[test]
fn enforcement_outlives_the_agent_until_detach() {
    let testbed = Testbed::test(1).unwrap();
    let files = Walkthrough::example().unwrap();
    files.passthrough.apply(&testbed).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let mut node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    let served = || testbed.curl_status(&[URL]).unwrap();
    let attack = || testbed.probe(&["tcp", plan::ATTACKER, "22"]).unwrap().code;
    let wall = || testbed.probe(&["packet", plan::ATTACKER, "9999"]).unwrap().code;
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();

    // A second agent on the same pins refuses to start, and disturbs nothing.
    let mut second = testbed.start_agent(testbed.app(), "second", &testbed.node_args()).unwrap();
    let status = second.wait(SOON).unwrap();
    assert_eq!(status.code(), Some(3), "{}", second.stderr());
    assert!(second.stderr().contains("another egress-agent"), "{}", second.stderr());
    assert_eq!((served().as_str(), attack()), ("200", 1));
    // Nor can enforcement be taken away under it.
    let detach = ["detach", "--bpffs", &testbed.pins().to_string_lossy()].map(str::to_owned);
    let mut early = testbed.start_agent(testbed.app(), "early", &detach).unwrap();
    assert_eq!(early.wait(SOON).unwrap().code(), Some(3), "{}", early.stderr());

    // kill -9: what was allowed goes on, what was refused stays refused.
    node.kill();
    assert_eq!((served().as_str(), attack(), wall()), ("200", 1, 2));
    // A new agent adopts the pins, and follows changes again.
    let mut node = testbed.start_node().unwrap();
    assert_eq!((served().as_str(), attack(), wall()), ("200", 1, 2));
    files.passthrough.delete(&testbed).unwrap();
    until_is(SOON, "the deleted route to be refused", served, |seen| seen != "200").unwrap();

    // A friendly end leaves it too.
    assert!(node.end().unwrap().success(), "{}", node.stderr());
    assert_eq!((attack(), wall()), (1, 2));
    assert_eq!(capture.frames(), Vec::<String>::new());

    // Only detach opens the way.
    let mut detached = testbed.start_agent(testbed.app(), "detach", &detach).unwrap();
    assert!(detached.wait(SOON).unwrap().success(), "{}", detached.stderr());
    assert_eq!((attack(), wall()), (0, 0));
    assert!(!capture.frames().is_empty());
}
