//! Verdicts that the programs keep: a change of the maps counts from the next packet on.

use std::{fs, path::PathBuf};

use aya::EbpfLoader;
use egress_agent::{
    bpf::{
        Contents, Enforcer, FirstStart, PlanInputs, PodHardware, PodInterface, Targets, TcMode,
        detach, object::PROGRAMS, tell_maker, tell_offload,
    },
    policy::{DirectTarget, NodeAction, NodeRoute, Snapshot},
    types::{OriginalPort, Port},
};
use egress_ebpf::{
    abi::{action, hook, route_action},
    reason::Reason,
    verdict::{TC_DROP, TC_NEXT},
};

use crate::{
    kernel::{IFINDEX, Kernel, MAC, TCP},
    packets::frame,
};

const POD: &str = "10.0.0.5";
const POD6: &str = "fd00::5";
const DIRECT: &str = "203.0.113.80";
const OTHER: &str = "203.0.113.81";
const OTHER6: &str = "2001:db8::81";

/// What `EPOCH` says decides whether what was found before counts: so without the agent's raising it, a
/// removed route would stay. That is what shows that verdicts are kept at all.
#[test]
fn a_verdict_counts_for_one_epoch_and_for_its_own_key() {
    let mut kernel = Kernel::usual();
    let direct = frame(TCP, POD, DIRECT, 9000);
    let run = |kernel: &mut Kernel, frame: &[u8]| kernel.classify("pod_ingress", frame, 0);
    kernel.epoch(7);
    for _ in 0..2 {
        assert_eq!(run(&mut kernel, &direct), TC_NEXT);
    }
    kernel.no_route(9000, DIRECT);
    assert_eq!(run(&mut kernel, &direct), TC_NEXT, "it is kept");
    // Not for another address, port, protocol or table, and not for one that was refused.
    for (other, port) in [(OTHER, 9000), (DIRECT, 9001), (DIRECT, 443)] {
        assert_eq!(run(&mut kernel, &frame(TCP, POD, other, port)), TC_DROP, "{other} {port}");
    }
    assert_eq!(run(&mut kernel, &frame(17, POD, DIRECT, 9000)), TC_DROP);
    // Who sends it is asked each time, and whose interface it is.
    assert_eq!(run(&mut kernel, &frame(TCP, OTHER, DIRECT, 9000)), TC_DROP);
    kernel.epoch(0);
    for _ in 0..2 {
        assert_eq!(run(&mut kernel, &direct), TC_DROP, "nothing that was kept counts");
    }
    kernel.epoch(8);
    for _ in 0..2 {
        assert_eq!(run(&mut kernel, &direct), TC_DROP);
    }
    kernel.route(9000, Some(DIRECT), route_action::DIRECT, 0);
    assert_eq!(run(&mut kernel, &direct), TC_DROP, "a refusal is kept, too");
    kernel.epoch(9);
    for _ in 0..2 {
        assert_eq!(run(&mut kernel, &direct), TC_NEXT);
    }
    // Every packet is counted, with its reason, whether its verdict was kept or found.
    assert_eq!(kernel.count(hook::POD, action::ALLOW, Reason::Direct, false), 5);
    assert_eq!(kernel.count(hook::POD, action::DENY, Reason::SpoofedSource, false), 1);
    assert_eq!(kernel.count(hook::POD, action::DENY, Reason::NoRoute, false), 7);
}

/// A directory for pins, which are gone with it, whatever becomes of the test.
struct Pins(PathBuf);

impl Pins {
    fn new() -> Self {
        let dir = PathBuf::from(format!("/sys/fs/bpf/egress-cache-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // Nothing here decides a test.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// With the agent's own changes of the maps, each counts from the next packet on.
#[test]
fn a_route_that_the_agent_removes_is_refused_at_the_next_packet() {
    let pins = Pins::new();
    let dir = pins.0.clone();
    let begin = FirstStart::AtOnce;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let inside = runtime.enter();
    let started = Enforcer::start(&dir, &Targets::default(), TcMode::detect(), begin);
    let mut enforcer = started.unwrap();
    let maps = enforcer.pins.maps();
    let mut loader = EbpfLoader::new();
    tell_offload(&mut loader).unwrap();
    tell_maker(&mut loader).unwrap();
    let names: Vec<_> = fs::read_dir(&maps).unwrap().map(|pin| pin.unwrap().path()).collect();
    for path in &names {
        loader.map_pin_path(path.file_name().unwrap().to_str().unwrap(), path);
    }
    let mut kernel = Kernel { ebpf: loader.load(PROGRAMS).unwrap() };
    let frames = [frame(TCP, POD, DIRECT, 9000), frame(TCP, POD6, OTHER6, 9000)];
    let mut run = || {
        // Twice: what is found, and what is kept.
        let all = frames.iter().map(|frame| {
            let [first, second] = [(); 2].map(|()| kernel.classify("pod_ingress", frame, 0));
            assert_eq!(first, second);
            first
        });
        all.collect::<Vec<_>>()
    };
    let facts = PlanInputs {
        pods: vec![PodInterface {
            ifindex: IFINDEX,
            addresses: [POD, POD6].map(|text| text.parse().unwrap()).to_vec(),
            hardware: PodHardware::Known(MAC),
            policy: 0,
        }],
        generation: 1,
        max_groups: 256,
        ..PlanInputs::default()
    };
    let mut change = |routes: &[&str], denied: &[&str]| {
        let mut snapshot = Snapshot::default();
        snapshot.mesh.cluster_cidrs = vec!["10.0.0.0/8".parse().unwrap()];
        snapshot.mesh.denied_cidrs = denied.iter().map(|net| net.parse().unwrap()).collect();
        let port = Some(OriginalPort(Port::new(9000).unwrap()));
        snapshot.node.routes = routes
            .iter()
            .map(|net| NodeRoute {
                port,
                target: DirectTarget::Net(net.parse().unwrap()),
                action: NodeAction::Direct,
            })
            .collect();
        let (contents, problems) = Contents::desired(&snapshot, &facts);
        assert!(problems.is_empty(), "{problems:?}");
        enforcer.maps.reconcile(&contents).unwrap();
    };
    let (v4, v6) = ("203.0.113.80/32", "2001:db8::/32");
    assert_eq!(run(), [TC_DROP; 2], "without a configuration");
    change(&[], &[]);
    assert_eq!(run(), [TC_DROP; 2]);
    for _ in 0..3 {
        change(&[v4, v6], &[]);
        assert_eq!(run(), [TC_NEXT; 2]);
        change(&[v4], &[]);
        assert_eq!(run(), [TC_NEXT, TC_DROP]);
        change(&[v6], &[]);
        assert_eq!(run(), [TC_DROP, TC_NEXT]);
        change(&[v4, v6], &["203.0.113.0/24"]);
        assert_eq!(run(), [TC_DROP, TC_NEXT], "denied");
    }
    drop(enforcer);
    detach(&dir).unwrap();
    drop(inside);
}
