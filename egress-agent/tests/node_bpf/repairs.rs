//! What comes and goes under the agent, and what others do to its attachments.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{LinkOrder, Program, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};
use egress_agent::{
    bpf::{
        self, Change, Enforcer, FirstStart, PendingReason, Repair, Target, Targets, TcMode,
        object::PROGRAMS,
    },
    sys::netlink::links::Watch,
};

use super::site::{OUTSIDE, Site, in_netns, patience, sh, text, until};

/// What an agent has loaded and attached, without its loop: each look is made by hand.
fn with_enforcer<T: Send + 'static>(
    site: &Site,
    targets: Targets,
    tc: TcMode,
    work: impl FnOnce(&mut Enforcer) -> T + Send + 'static,
) -> T {
    started(site, targets, (tc, FirstStart::AtOnce), work)
}

fn started<T: Send + 'static>(
    site: &Site,
    targets: Targets,
    (tc, begin): (TcMode, FirstStart),
    work: impl FnOnce(&mut Enforcer) -> T + Send + 'static,
) -> T {
    let bpffs = site.bpffs.clone();
    in_netns(&site.name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap();
        let _inside = runtime.enter();
        let mut enforcer = Enforcer::start(&bpffs, &targets, tc, begin).unwrap();
        work(&mut enforcer)
    })
}

/// Whether this kernel has tcx links; says so where it hasn't.
fn has_tcx() -> bool {
    let has = TcMode::detect() == TcMode::Tcx;
    if !has {
        println!("not applicable: this kernel has no tcx links (Linux 6.6)");
    }
    has
}

fn targets(site: &Site) -> Targets {
    Targets {
        cgroups: vec![site.cgroup.clone()],
        pod_interfaces: vec!["pod0".into()],
        uplinks: vec!["up0".into()],
        ..Targets::default()
    }
}

/// A look that must succeed.
fn look(enforcer: &mut Enforcer) -> Vec<Change> {
    enforcer.attachments.refresh(&enforcer.pins).into_iter().map(Result::unwrap).collect()
}

fn interface(name: &str) -> Target {
    Target::Interface(name.into())
}

fn repaired(target: Target, repair: Repair) -> Change {
    Change::Repaired { target, repair }
}

fn links(version: &Path, program: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(version.join("links")).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut found: Vec<PathBuf> = all.filter(|path| name(path).starts_with(program)).collect();
    found.sort();
    found
}

/// The loop hears of interfaces at once.
#[test]
fn an_interface_that_comes_back_is_enforced_on_at_once() {
    let site = Site::new("iface");
    let agent = site.start(&["--metrics-addr", "off", "--pod-interface", "veth*"]);
    let pods = || {
        site.links().into_iter().filter(|name| name.starts_with("pod_ingress")).collect::<Vec<_>>()
    };
    let mut before = pods();
    assert_eq!(before.len(), 1);
    let mut waited = Duration::ZERO;
    const ROUNDS: u32 = 6;
    for _ in 0..ROUNDS {
        sh(&format!("ip -n {} link del pod0", site.name));
        until("the pin to go with the interface", || pods().is_empty());
        sh(&format!("ip -n {} link add pod0 type veth peer name pod1", site.name));
        let start = Instant::now();
        until("the program", || pods().len() == 1);
        waited += start.elapsed();
        assert_ne!(pods(), before);
        before = pods();
    }
    // Looking each second would take half a second on average.
    let limit = ROUNDS * Duration::from_millis(300) * patience();
    assert!(waited < limit, "{waited:?} for {ROUNDS} interfaces");
    // One that only a pattern names.
    sh(&format!("ip -n {} link add veth7 type veth peer name other", site.name));
    until("the program on the new one", || pods().len() == 2);
    let log = agent.end();
    assert!(log.contains("interface pod0 is gone; waiting"), "{log}");
    assert!(log.contains("interface pod0 is back"), "{log}");
    assert!(log.contains("interface veth7 is new"), "{log}");
}

#[test]
fn the_kernel_tells_of_interfaces_of_this_namespace() {
    let site = Site::new("watch");
    let name = site.name.clone();
    in_netns(&site.name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async move {
            let mut watch = Watch::new().unwrap();
            let quiet = tokio::time::timeout(Duration::from_millis(100), watch.changed());
            assert!(quiet.await.is_err(), "nothing has changed yet");
            sh(&format!("ip -n {name} link add veth1 type veth peer name veth2"));
            watch.changed().await.unwrap();
        });
    });
}

#[test]
fn a_pattern_is_followed_and_a_renamed_interface_keeps_its_program() {
    let site = Site::new("pattern");
    let targets = Targets { pod_interfaces: vec!["v?-*".into()], ..targets(&site) };
    let (name, version) = (site.name.clone(), site.version());
    with_enforcer(&site, targets, TcMode::detect(), move |enforcer| {
        assert_eq!(links(&version, "pod_ingress").len(), 0, "no such interface yet");
        sh(&format!("ip -n {name} link add v1-a type veth peer name nothing"));
        assert_eq!(look(enforcer), [Change::Appeared { target: interface("v1-a") }]);
        let pinned = links(&version, "pod_ingress");
        assert_eq!(pinned.len(), 1);
        // Out of the pattern: it is the same interface, and nothing happens.
        sh(&format!("ip -n {name} link set v1-a name renamed"));
        assert_eq!(look(enforcer), []);
        assert_eq!(links(&version, "pod_ingress"), pinned);
        assert_eq!(enforcer.attachments.ifindex("v1-a"), enforcer.attachments.ifindex("renamed"));
        sh(&format!("ip -n {name} link del renamed"));
        let gone = Change::Gone { target: interface("renamed"), named: false };
        assert_eq!(look(enforcer), [gone]);
        assert_eq!(links(&version, "pod_ingress").len(), 0);
    });
}

/// Where nothing was enforced, what runs goes on until the agent knows who is who; what comes meanwhile is
/// enforced at once.
#[test]
fn a_first_start_leaves_what_runs_until_it_is_told_and_takes_what_comes() {
    let site = Site::new("first");
    let reached = site.listen(&format!("{OUTSIDE}:443"));
    let patterns = vec!["pod0".into(), "v?-*".into()];
    let targets = Targets { pod_interfaces: patterns, ..targets(&site) };
    let (name, version) = (site.name.clone(), site.version());
    let first = (TcMode::detect(), FirstStart::WhenFilled);
    started(&site, targets.clone(), first, {
        let version = version.clone();
        move |enforcer| {
            assert_eq!(enforcer.attachments.waiting(), Some(PendingReason::FirstStart));
            let count = |program: &str| links(&version, program).len();
            let all = ["pod_ingress", "uplink_egress", "connect4", "cgroup_egress"];
            assert_eq!(all.map(count), [0; 4]);
            assert!(enforcer.attachments.ifindex("pod0").is_some(), "it is known all the same");
            assert_eq!(look(enforcer), []);
            sh(&format!("ip -n {name} link add v1-a type veth peer name nothing"));
            assert_eq!(look(enforcer), [Change::Appeared { target: interface("v1-a") }]);
            assert_eq!(all.map(count), [1, 0, 0, 0]);
        }
    });
    assert_eq!(site.connect(OUTSIDE, 443), "ok");
    until("the connection", || reached.load(Ordering::Relaxed) == 1);
    // The first agent has died so. What it has not attached to is not left as it is again.
    started(&site, targets, first, move |enforcer| {
        assert_eq!(enforcer.attachments.waiting(), None);
        assert_eq!(links(&version, "pod_ingress").len(), 2);
    });
    assert!(site.connect(OUTSIDE, 443).contains("Permission denied"));
}

/// The same, told.
#[test]
fn a_first_start_enforces_on_everything_once_it_is_told() {
    let site = Site::new("told");
    site.listen(&format!("{OUTSIDE}:443"));
    let first = (TcMode::detect(), FirstStart::WhenFilled);
    started(&site, targets(&site), first, |enforcer| {
        enforcer.attachments.take_over(&enforcer.pins).unwrap();
        assert_eq!(enforcer.attachments.waiting(), None);
        assert_eq!(look(enforcer), []);
    });
    let told = site.links();
    assert!(site.connect(OUTSIDE, 443).contains("Permission denied"));
    // As at a start that waits for nothing.
    with_enforcer(&site, targets(&site), TcMode::detect(), |_| {});
    assert_eq!(site.links(), told);
}

fn intruder() -> (Ebpf, &'static str) {
    (EbpfLoader::new().load(PROGRAMS).unwrap(), "uplink_egress")
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    let Some(Program::SchedClassifier(program)) = ebpf.program_mut(name) else {
        panic!("no such program")
    };
    if program.fd().is_err() {
        program.load().unwrap();
    }
    program
}

#[test]
fn our_place_is_kept_and_a_detached_program_is_attached_again() {
    if !has_tcx() {
        // What replaces them is tested below, on every kernel.
        return;
    }
    let site = Site::new("place");
    let version = site.version();
    with_enforcer(&site, targets(&site), TcMode::Tcx, move |enforcer| {
        assert_eq!(look(enforcer), []);
        // Somebody's program comes before ours, and would let everything through.
        let (mut ebpf, name) = intruder();
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let program = classifier(&mut ebpf, name);
        program.attach_with_options("up0", TcAttachType::Egress, first).unwrap();
        assert_eq!(look(enforcer), [repaired(interface("up0"), Repair::Order)]);
        assert_eq!(look(enforcer), []);
        // Ours is detached by force, which its pin doesn't show.
        let pin = links(&version, "pod_ingress").remove(0);
        sh(&format!("bpftool link detach pinned {}", pin.display()));
        assert_eq!(look(enforcer), [repaired(interface("pod0"), Repair::Detached)]);
        assert_eq!(look(enforcer), []);
    });
}

#[test]
fn a_cgroups_program_that_was_detached_is_attached_again() {
    let site = Site::new("cgroup");
    site.listen(&format!("{OUTSIDE}:443"));
    let mut agent = site.start(&["--metrics-addr", "off"]);
    assert!(site.connect(OUTSIDE, 443).contains("Permission denied"));
    let id = |pin: &Path| {
        let output = Command::new("bpftool").args(["link", "show", "pinned"]).arg(pin).output();
        text(&output.unwrap()).split(':').next().unwrap().to_owned()
    };
    for program in ["connect4", "cgroup_egress"] {
        let pin = links(&site.version(), program).remove(0);
        let before = id(&pin);
        sh(&format!("bpftool link detach pinned {}", pin.display()));
        until("another link", || id(&pin) != before);
    }
    agent.says("a program of ours was detached from cgroup");
    assert!(site.connect(OUTSIDE, 443).contains("Permission denied"));
    // The directory goes and comes back.
    let cgroup = site.cgroup.display();
    until("the cgroup to be empty", || fs::remove_dir(&site.cgroup).is_ok());
    agent.says("is gone; waiting for it to come back");
    sh(&format!("mkdir {cgroup}"));
    agent.says("was made again");
    assert!(site.connect(OUTSIDE, 443).contains("Permission denied"));
    agent.end();
}

#[test]
fn pins_that_were_removed_by_hand_come_back_and_nothing_was_open() {
    let site = Site::new("pins");
    site.listen(&format!("{OUTSIDE}:443"));
    let mut agent = site.start(&["--metrics-addr", "off"]);
    let everything = |dir: &str| {
        let mut names: Vec<_> = fs::read_dir(site.version().join(dir))
            .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect())
            .unwrap_or_default();
        names.sort();
        names
    };
    let before = (everything("links"), everything("maps"));
    assert!(before.0.len() > 10 && before.1.len() > 10, "{before:?}");
    sh(&format!("rm -r {}", site.version().display()));
    // The agent holds what was pinned.
    assert!(site.connect(OUTSIDE, 443).contains("Permission denied"));
    until("all pins", || (everything("links"), everything("maps")) == before);
    agent.says("a pin of map ROUTES was removed");
    agent.says("a pin of interface pod0 was removed");
    // Where the kernel asks security modules of ours, their links are pinned, too.
    if before.0.iter().any(|name| name.to_string_lossy().ends_with("-host")) {
        agent.says("a pin of the host was removed");
    }
    // They are those that are in force: the next agent adopts them.
    agent.kill();
    assert!(site.connect(OUTSIDE, 443).contains("Permission denied"));
    let mut agent = site.start(&["--metrics-addr", "off"]);
    agent.says("took over");
    assert_eq!((everything("links"), everything("maps")), before);
    agent.end();
}

/// What kernels without tcx get.
#[test]
fn a_clsact_filter_outlives_its_agent_and_stays_first() {
    let site = Site::new("clsact");
    let show = |direction: &str, interface: &str| {
        let output = Command::new("tc")
            .args(["-n", &site.name, "filter", "show", "dev", interface, direction])
            .output()
            .unwrap();
        text(&output)
    };
    let filters = |direction: &str, interface: &str| {
        show(direction, interface).matches("direct-action").count()
    };
    let targets = Targets { cgroups: Vec::new(), ..targets(&site) };
    for adopted in [false, true, true] {
        let was = with_enforcer(&site, targets.clone(), TcMode::Clsact, |enforcer| {
            assert_eq!(look(enforcer), []);
            enforcer.adopted
        });
        assert_eq!(was, adopted);
        assert_eq!((filters("ingress", "pod0"), filters("egress", "up0")), (1, 1));
    }
    let name = site.name.clone();
    with_enforcer(&site, targets, TcMode::Clsact, move |enforcer| {
        // A newer filter of the same priority comes first; the kernel can't be asked otherwise.
        let (mut ebpf, intruding) = intruder();
        let options = |handle| {
            TcAttachOptions::Netlink(aya::programs::tc::NlOptions {
                priority: 1,
                handle: aya::programs::tc::TcHandle::new(0, handle),
                classid: None,
            })
        };
        let program = classifier(&mut ebpf, intruding);
        program.attach_with_options("up0", TcAttachType::Egress, options(7)).unwrap();
        assert_eq!(look(enforcer), [repaired(interface("up0"), Repair::Order)]);
        assert_eq!(look(enforcer), []);
        sh(&format!("tc -n {name} filter del dev pod0 ingress"));
        assert_eq!(look(enforcer), [repaired(interface("pod0"), Repair::Detached)]);
        sh(&format!("tc -n {name} qdisc del dev up0 clsact"));
        assert_eq!(look(enforcer), [repaired(interface("up0"), Repair::Detached)]);
        assert_eq!(look(enforcer), []);
        // Its own program is gone with the qdisc; detaching it again would say so.
        std::mem::forget(ebpf);
    });
    assert_eq!((filters("ingress", "pod0"), filters("egress", "up0")), (1, 1));
    let bpffs = site.bpffs.clone();
    let removed = in_netns(&site.name, move || bpf::detach(&bpffs).unwrap());
    assert!(removed.iter().any(|line| line == "pod_ingress on interface pod0"), "{removed:?}");
    assert_eq!((filters("ingress", "pod0"), filters("egress", "up0")), (0, 0));
    assert!(!site.bpffs.exists());
}
