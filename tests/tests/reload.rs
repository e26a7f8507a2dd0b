//! Configuration that changes under the agents: editors' habits, and mistakes.

use std::{fs, os::unix::fs::symlink};

use egress_tests::{
    manifests::Walkthrough,
    testbed::Testbed,
    wait::{SOON, until, until_is},
};

#[test]
fn changes_are_followed_and_mistakes_leave_the_last_good_configuration() {
    let testbed = Testbed::test(1).unwrap();
    let files = Walkthrough::example().unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    let status = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    let served = |how: &str| {
        until_is(SOON, &format!("served after {how}"), status, |seen| seen == "200").unwrap();
    };
    let refused = |how: &str| {
        until_is(SOON, &format!("refused after {how}"), status, |seen| seen != "200").unwrap();
    };
    let text: String =
        files.passthrough.files.iter().map(|(_, text)| format!("---\n{text}")).collect();
    let path = testbed.config().join("all.yaml");

    // Written beside and renamed over (vim, kubectl, ansible).
    testbed.apply("all.yaml", &text).unwrap();
    served("a rename");
    // Written in place.
    fs::write(&path, "# nothing\n").unwrap();
    refused("a write in place");
    fs::write(&path, &text).unwrap();
    served("a write in place");
    // Moved away as a backup, then a new file under the old name (emacs, vim with `backupcopy=no`).
    fs::rename(&path, testbed.config().join("all.yaml~")).unwrap();
    refused("a backup");
    fs::write(&path, &text).unwrap();
    served("a new file under the old name");
    // A symbolic link that is turned elsewhere, as the kubelet does with config maps.
    fs::remove_file(&path).unwrap();
    fs::remove_file(testbed.config().join("all.yaml~")).unwrap();
    refused("a deletion");
    for version in ["..1", "..2"] {
        fs::create_dir(testbed.config().join(version)).unwrap();
    }
    fs::write(testbed.config().join("..1/all.yaml"), "# nothing\n").unwrap();
    fs::write(testbed.config().join("..2/all.yaml"), &text).unwrap();
    symlink("..1", testbed.config().join("..data")).unwrap();
    symlink("..data/all.yaml", &path).unwrap();
    let turn = testbed.config().join("..data_tmp");
    symlink("..2", &turn).unwrap();
    fs::rename(&turn, testbed.config().join("..data")).unwrap();
    served("a turned link");

    // A mistake: said by both, with file and field, and nothing changes.
    let broken = files.passthrough.files[0].1.replace("name: cnn", "name: broken");
    let broken = broken.replace("edition.cnn.com", "broken.example.com").replace("443", "0");
    testbed.apply("broken.yaml", &broken).unwrap();
    for (who, agent) in [("gateway", &gateway), ("node", &node)] {
        until(SOON, &format!("the {who} to report the mistake"), || {
            let said = agent.stderr();
            (said.contains("broken.yaml") && said.contains("port")).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error:#}:\n{}", agent.stderr()));
    }
    for _ in 0..3 {
        assert_eq!(status(), "200", "the last good configuration stays in force");
    }
    // Repaired, by taking it away: changes are followed again.
    testbed.delete("broken.yaml").unwrap();
    fs::remove_file(&path).unwrap();
    refused("the mistake was repaired");
}
