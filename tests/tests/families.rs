//! Sockets that no packet hook sees: who may make them.
#![expect(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

use std::io::{self, Write as _};

use egress_tests::{
    process::{Place, Process},
    testbed::Testbed,
    wait::{SOON, until, until_is},
};

/// Makes a socket, and says `made` or the error's name.
const MAKE: &str = "import errno, socket, sys\n\
    family, kind, protocol = map(int, sys.argv[1:])\n\
    try:\n    socket.socket(family, kind, protocol)\n    print('made')\n\
    except OSError as error:\n    print(errno.errorcode[error.errno])\n";

const INET: i32 = 2;
const KEY: i32 = 15;
const PACKET: i32 = 17;
const RDS: i32 = 21;
const VSOCK: i32 = 40;
const XDP: i32 = 44;
const STREAM: i32 = 1;
const DGRAM: i32 = 2;
const RAW: i32 = 3;

fn make(place: &Place, family: i32, kind: i32, protocol: i32) -> String {
    let [family, kind, protocol] = [family, kind, protocol].map(|number| number.to_string());
    let args = ["-c", MAKE, &family, &kind, &protocol];
    let done = place.run("/usr/bin/python3", &args).unwrap();
    assert!(done.ok(), "{done:?}");
    done.stdout.trim().to_owned()
}

fn refused(testbed: &Testbed) -> u64 {
    let metrics = testbed.node_metrics().unwrap_or_default();
    let lines = metrics.lines().filter(|line| line.contains("\"socket_family\""));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Whether this kernel has no active BPF LSM: then the gap must be told, and there is nothing else
/// to test.
fn open_here(testbed: &Testbed, agent: &Process) -> bool {
    if !agent.stderr().contains("NOT refused") {
        return false;
    }
    let socket = testbed.node_control().to_string_lossy().into_owned();
    let args = ["-s", "--max-time", "10", "--unix-socket", &socket, "http://localhost/status"];
    let status = testbed.app().run("curl", &args).unwrap();
    assert!(status.stdout.contains("NOT refused"), "{status:?}");
    let told = agent.stderr();
    let told = told.lines().find(|line| line.contains("NOT refused")).unwrap_or_default();
    // Past the harness, which shows only the output of tests that fail. Nobody may be listening.
    writeln!(io::stderr(), "not applicable: {told}").ok();
    true
}

#[test]
fn packet_sockets_are_for_ones_own_network_and_others_for_nobody() {
    let testbed = Testbed::test(0).unwrap();
    let (pod, host, node) = (testbed.pod(), testbed.host_network(), testbed.app());
    let without = |place: &Place, family| make(place, family, RAW, 0);
    assert_eq!(without(&host, PACKET), "made", "without the agent");
    let mut agent = testbed.start_node().unwrap();
    if open_here(&testbed, &agent) {
        return;
    }

    let before = refused(&testbed);
    for (family, kind) in [(PACKET, RAW), (PACKET, DGRAM), (XDP, RAW), (KEY, RAW)] {
        assert_eq!(make(&host, family, kind, 0), "EPERM", "family {family} on the host's network");
        assert_ne!(make(node, family, kind, 2), "EPERM", "the node itself, family {family}");
    }
    until_is(SOON, "four refusals", || refused(&testbed) - before, |count| *count == 4).unwrap();
    until(SOON, "an event", || agent.stdout().contains("socket_family").then_some(())).unwrap();
    // In the pod's own network there is the wall.
    assert_eq!(make(pod, PACKET, RAW, 0), "made");
    for place in [pod, &host] {
        assert_eq!(make(place, VSOCK, STREAM, 0), "EPERM");
        assert_eq!(make(place, RDS, 5, 0), "EPERM");
        // SMC, as a protocol of its own.
        assert_eq!(make(place, INET, STREAM, 256), "EPERM");
        assert_eq!(make(place, INET, STREAM, 6), "made");
        assert_eq!(make(place, INET, RAW, 17), "made");
    }

    // It outlives the agent, as everything does, and goes with the rest.
    agent.kill();
    agent.wait(SOON).unwrap();
    assert_eq!(without(&host, PACKET), "EPERM");
    let pins = testbed.pins().to_string_lossy().into_owned();
    let args = ["detach", "--bpffs", &pins];
    let detached = node.run(&testbed.agent().to_string_lossy(), &args).unwrap();
    assert!(detached.ok(), "{detached:?}");
    until_is(SOON, "the program to go", || without(&host, PACKET), |seen| seen == "made").unwrap();
}

/// Whatever audit mode is on for: it is made, and told.
#[test]
fn audit_mode_lets_them_be_made() {
    let testbed = Testbed::test(0).unwrap();
    let mesh = egress_tests::testbed::mesh_yaml(0);
    testbed.apply_mesh(&mesh.replace("enforcement: enforce", "enforcement: audit")).unwrap();
    let agent = testbed.start_node().unwrap();
    if open_here(&testbed, &agent) {
        return;
    }
    let host = testbed.host_network();
    until_is(SOON, "audit mode", || make(&host, PACKET, RAW, 0), |seen| seen == "made").unwrap();
    until(SOON, "an event", || agent.stdout().contains("socket_family").then_some(())).unwrap();
}
