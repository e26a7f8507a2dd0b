//! Agents of different versions, one after the other, without a gap.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use aya::maps::MapData;

use super::site::{INSIDE, OUTSIDE, Site, links_in, sh, until};

const QUIET: [&str; 2] = ["--metrics-addr", "off"];

/// Connects without pause, to what is allowed and to what isn't; gives back what went wrong, and
/// how often it tried.
fn connecting<T>(site: &Site, during: impl FnOnce(&AtomicU64) -> T) -> T {
    /// Also when an assertion fails in the meantime.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let done = Done(&over);
        let trying = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert_eq!(site.connect(INSIDE, 443), "ok", "what is allowed");
                let refused = site.connect(OUTSIDE, 443);
                assert!(refused.contains("Permission denied"), "what isn't: {refused}");
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        let result = during(&rounds);
        drop(done);
        trying.join().unwrap();
        result
    })
}

fn more(rounds: &AtomicU64) {
    let before = rounds.load(Ordering::Relaxed);
    until("more connections", || rounds.load(Ordering::Relaxed) >= before + 3);
}

fn listening(site: &Site) -> Arc<AtomicU64> {
    site.listen(&format!("{INSIDE}:443"));
    site.listen(&format!("{OUTSIDE}:443"))
}

const GOOD: &str = "clusterCidrs: [10.77.0.0/24]\n";
const BAD: &str = "clusterCidrs: [nonsense]\n";

#[test]
fn another_versions_programs_enforce_until_a_configuration_is_accepted() {
    let site = Site::new("version");
    let reached = listening(&site);
    // Older or newer is the same: its maps can't be read.
    for other in ["v1", "v99"] {
        site.start(&QUIET).kill();
        let theirs = site.bpffs.join(other);
        fs::rename(site.version(), &theirs).unwrap();
        let before = links_in(&theirs);
        connecting(&site, |rounds| {
            site.mesh(BAD);
            let pattern = [&QUIET[..], &["--pod-interface", "veth*"]].concat();
            let mut agent = site.start_until("programs of another version enforce here", &pattern);
            agent.says("nonsense");
            more(rounds);
            assert_eq!(site.links(), Vec::<String>::new());
            assert_eq!(links_in(&theirs), before);
            // Where the other version isn't, ours denies at once.
            sh(&format!("ip -n {} link add veth1 type veth peer name veth2", site.name));
            until("programs on the new interfaces", || {
                site.links().iter().filter(|name| name.starts_with("pod_ingress")).count() == 2
            });
            more(rounds);
            site.mesh(GOOD);
            agent.says("took over enforcement from another version");
            agent.says(" ready");
            assert!(!theirs.exists());
            more(rounds);
            sh(&format!("ip -n {} link del veth1", site.name));
            until("nothing on them", || site.links().len() == before.len());
            agent.end();
        });
    }
    assert_eq!(reached.load(Ordering::Relaxed), 0);
}

#[test]
fn maps_of_another_layout_are_another_versions() {
    let site = Site::new("layout");
    let reached = listening(&site);
    site.start(&QUIET).kill();
    let before = site.links();
    let pin = site.version().join("maps/GROUPS");
    fs::remove_file(&pin).unwrap();
    aya::maps::HashMap::<MapData, u32, u32>::create(1, 0).unwrap().pin(&pin).unwrap();
    connecting(&site, |rounds| {
        // Wrong options touch nothing.
        let mut wrong = site.node_args();
        wrong.extend(["--uplink", "lo"].map(str::to_owned));
        assert_eq!(site.run(&wrong).status.code(), Some(1));
        assert_eq!(site.links(), before);
        more(rounds);
        let mut agent = site.start(&QUIET);
        agent.says("another layout");
        agent.says("took over enforcement from another version");
        assert_eq!(site.links(), before);
        assert_eq!(fs::read_dir(&site.bpffs).unwrap().count(), 1);
        more(rounds);
        agent.end();
    });
    assert_eq!(reached.load(Ordering::Relaxed), 0);
}
