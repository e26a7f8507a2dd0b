//! An attacker who is root in the pod: groups below the pod's and elsewhere, and what a container's
//! capabilities don't reach. See `attacker.rs` for the network.

use std::path::Path;

use egress_tests::{
    cgroup,
    cluster::Cluster,
    container::container,
    denied::{Wall, all_get_out, attempt},
    process::Place,
    testbed::Testbed,
};

const UDP: &str = "$ASK udp 203.0.113.9:9999";
const TCP: &str = "$ASK tcp 203.0.113.9:22";

/// Groups below the pod's, groups elsewhere, and what a container's capabilities don't reach.
#[test]
fn groups_of_its_own_and_the_kernels_doors_lead_nowhere() {
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let pod = testbed.pod();
    let root = cgroup::mount_point().unwrap();
    // Deeper than the programs look for a workload, and a threaded one.
    let deep = (0..20).fold(pod.cgroup.clone(), |path, level| path.join(format!("deep{level}")));
    let domain = pod.cgroup.join("domain");
    let threaded = domain.join("threaded");
    for path in [&deep, &threaded] {
        cgroup::create(path).unwrap();
    }
    std::fs::write(threaded.join("cgroup.type"), "threaded").unwrap();
    let place = |cgroup: &Path| Place { cgroup: cgroup.to_owned(), ..pod.clone() };
    let (deep, domain) = (place(&deep), place(&domain));
    // A thread gets there from the group that is its domain.
    let join = format!("echo 0 >{}/cgroup.threads && ", threaded.display());
    let nat = "nft 'table ip own { chain out { type nat hook output priority -100; \
               ip daddr 10.96.9.9 dnat to 203.0.113.9; }; }'";
    let past =
        format!("{nat}; $ASK udp 10.96.9.9:9999; code=$?; nft delete table ip own; exit $code");
    // The file system of groups is writable here, as for a container that was given it.
    let escape = format!("echo 0 >{}/cgroup.procs && exec $ASK", root.display());
    let (past, escape) = (&past, &escape);
    let mut attempts = Vec::new();
    for (from, whose, join) in [(&deep, "a deep group", ""), (&domain, "a threaded group", &join)] {
        for (what, hook, reason, script) in [
            ("TCP", &["connect"], &["no_route"], TCP),
            ("UDP", &["sendmsg"], &["protocol"], UDP),
            ("packets", &["skb"], &["protocol"], past),
        ] {
            attempts.push(attempt(format!("{what} of {whose}"), hook, reason, move || {
                container(from, &format!("{join} {script}"))
            }));
        }
    }
    attempts.extend([
        attempt("TCP of the root group", &["pod"], &["no_route"], || {
            container(pod, &format!("{escape} tcp 203.0.113.9:22"))
        }),
        attempt("UDP of the root group", &["pod"], &["protocol"], || {
            container(pod, &format!("{escape} udp '[2001:db8:bad::9]:9999'"))
        }),
    ]);
    let capture = testbed.capture().unwrap();
    all_get_out(&capture, &attempts).unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    // What was sent once more before enforcement began.
    capture.take();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    wall.stops_all(&attempts).unwrap();

    // Whatever it writes to its own group's files, it is judged.
    let own = pod.cgroup.display();
    let files = format!(
        "for file in {own}/cgroup.* {own}/*/cgroup.subtree_control; do \
         case $file in *.kill|*.freeze|*.procs|*.threads) ;; \
         *) for word in 0 max threaded +pids; do echo $word >$file; done ;; esac; done 2>/dev/null; {TCP}"
    );
    wall.stops_at(&["connect"], "its group's files", &["no_route"], || container(pod, &files))
        .unwrap();

    // The doors of the kernel. Each opens for root on the node, so the test can fail.
    let app = testbed.app().ns.path();
    let doors = [
        ("the node's network", format!("nsenter --net={app} true")),
        ("programs of the kernel", bpf("11, [0]")),
        ("a program of its own", bpf("5, [3, 2, code, licence]")),
        ("a link of the kernel", bpf("31, [0]")),
    ];
    for (what, door) in &doors {
        let opened = pod.run("sh", &["-c", door]).unwrap();
        assert!(opened.ok(), "{what} for root on the node: {opened:?}");
        let shut = container(pod, door).unwrap();
        assert!(!shut.ok() && shut.stderr.contains("not permitted"), "{what}: {shut:?}");
    }
    let inside = container(&deep, "$ASK udp 10.10.0.2:7007").unwrap();
    assert!(inside.ok(), "{inside:?}");
}

/// The system call `bpf` with a command and the words of its argument: `BPF_PROG_GET_NEXT_ID`,
/// `BPF_PROG_LOAD` of a program that does nothing, `BPF_LINK_GET_NEXT_ID`.
fn bpf(arguments: &str) -> String {
    format!(
        r#"/usr/bin/python3 -c '
import ctypes, os, platform
memory = ctypes.create_string_buffer(bytes([0xb7] + [0] * 7 + [0x95] + [0] * 7))
terms = ctypes.create_string_buffer(b"GPL")
code, licence = ctypes.addressof(memory), ctypes.addressof(terms)
def call(command, words):
    if command == 5:
        kind, count, code, licence = words
        argument = kind.to_bytes(4, "little") + (2).to_bytes(4, "little")
        argument += code.to_bytes(8, "little") + licence.to_bytes(8, "little")
    else:
        argument = words[0].to_bytes(4, "little")
    argument = ctypes.create_string_buffer(argument.ljust(128, bytes(1)))
    number = 321 if platform.machine() == "x86_64" else 280
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, command, argument, 128) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
call({arguments})'"#
    )
}
