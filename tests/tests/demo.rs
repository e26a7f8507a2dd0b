//! The demo is what its table says: every check as it must be, with an uplink that fills checksums in, as real
//! devices do, and with one that leaves them.

use std::process::{Command, Stdio};

use egress_tests::{
    site::{self, DEMO},
    wait,
};

/// Seconds that all steps take at most, on an ordinary machine.
const LIMIT: u32 = 300;

#[test]
fn every_check_of_the_demo_is_as_it_must_be_whoever_fills_checksums_in() {
    assert!(!site::exists(DEMO), "a demo is up: `cargo xtask demo --down` removes it");
    let program = site::demo_program().expect("the demo is built");
    for args in [&[][..], &["--left-checksums"]] {
        let mut demo = Command::new("timeout");
        demo.arg((LIMIT * wait::patience()).to_string()).arg(&program).args(args);
        let done = demo.stdin(Stdio::null()).output().expect("the demo runs");
        let shown = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{args:?}: {done:?}");
        assert!(shown.contains("checks were as they must be."), "{shown}");
        assert!(!shown.contains("LEAKED"), "{shown}");
        let left = shown.contains("leaves checksums as they are");
        assert_eq!(left, !args.is_empty(), "{shown}");
        assert!(!site::exists(DEMO), "something is left of the demo");
    }
}
