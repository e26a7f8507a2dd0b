//! `egress-agent node` against the kernel: attach, pin, adopt, repair, detach. Needs root.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking, as the test does")]

mod indices;
mod repairs;
mod site;
mod versions;

use std::{
    fs,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use self::site::{AGENT, INSIDE, OUTSIDE, Site, text, until};

#[test]
fn enforcement_begins_with_the_agent_and_ends_with_detach() {
    let site = Site::new("life");
    let reached = site.listen(&format!("{OUTSIDE}:443"));
    site.listen(&format!("{INSIDE}:443"));
    assert_eq!(site.connect(OUTSIDE, 443), "ok");
    until("the connection", || reached.load(Ordering::Relaxed) == 1);

    let agent = site.start(&["--metrics-addr", "off", "--events", "json"]);
    assert_eq!(site.links().len(), 16, "{:?}", site.links());
    assert!(site.connect(OUTSIDE, 443).contains("Permission denied"));
    assert_eq!(site.connect(INSIDE, 443), "ok");
    // It is told.
    until("the event", || {
        fs::read_to_string(&agent.out).unwrap().lines().any(|line| {
            line.contains(r#""reason":"no_route""#)
                && line.contains(r#""verdict":"deny""#)
                && line.contains(&format!(r#""destination_address":"{OUTSIDE}""#))
        })
    });

    // A second agent, and a `detach`, are refused while it runs.
    let pid = agent.child.id();
    for output in [site.run(&site.node_args()), site.detach()] {
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains(&format!("pid {pid}")), "{}", text(&output));
    }

    // Killed: enforcement stays. Another one takes over, and goes in peace: it stays.
    agent.kill();
    assert!(site.connect(OUTSIDE, 443).contains("Permission denied"));
    assert_eq!(site.connect(INSIDE, 443), "ok");
    let before = site.links();
    let mut agent = site.start(&["--metrics-addr", "off"]);
    agent.says("took over");
    assert_eq!(site.links(), before);
    assert!(agent.end().contains("until `egress-agent detach`"));
    assert!(site.connect(OUTSIDE, 443).contains("Permission denied"));

    let output = site.detach();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("removed connect4 on cgroup"), "{}", text(&output));
    assert!(text(&output).contains("removed pod_ingress on "), "{}", text(&output));
    assert!(!site.bpffs.exists());
    assert_eq!(reached.load(Ordering::Relaxed), 1);
    assert_eq!(site.connect(OUTSIDE, 443), "ok");
    assert!(text(&site.detach()).contains("nothing to detach"));
}

#[test]
fn no_connection_slips_out_while_agents_come_and_go() {
    let site = Site::new("gap");
    let reached = site.listen(&format!("{OUTSIDE}:443"));
    let agent = site.start(&["--metrics-addr", "off"]);
    let done = Arc::new(AtomicBool::new(false));
    let tries = Arc::new(AtomicU64::new(0));
    let script = format!(
        "echo $$ > {}/cgroup.procs; exec nsenter --net=/run/netns/{} \
         bash -c 'while :; do (exec 3<>/dev/tcp/{OUTSIDE}/443) 2>&1; done'",
        site.cgroup.display(),
        site.name
    );
    let mut trying =
        Command::new("bash").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let counting = thread::spawn({
        let (done, tries) = (Arc::clone(&done), Arc::clone(&tries));
        let lines = std::io::BufReader::new(trying.stdout.take().unwrap());
        move || {
            for line in std::io::BufRead::lines(lines) {
                if line.is_err() || done.load(Ordering::Relaxed) {
                    break;
                }
                tries.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let more = |what: &str| {
        let before = tries.load(Ordering::Relaxed);
        until(what, || tries.load(Ordering::Relaxed) > before + 20);
    };
    more("refusals with an agent");
    let mut last = agent;
    for round in 0..3 {
        last.kill();
        more("refusals without an agent");
        last = site.start(&["--metrics-addr", "off"]);
        more(&format!("refusals in round {round}"));
    }
    done.store(true, Ordering::Relaxed);
    trying.kill().unwrap();
    trying.wait().unwrap();
    counting.join().unwrap();
    assert_eq!(reached.load(Ordering::Relaxed), 0);
    last.end();
}

#[test]
fn a_start_that_fails_leaves_everything_as_it_was() {
    let site = Site::new("fail");
    let reached = site.listen(&format!("{OUTSIDE}:443"));
    let mut wrong = site.node_args();
    wrong.extend(["--uplink".into(), "uq0".into()]);
    let output = site.run(&wrong);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("did you mean up0?"), "{}", text(&output));
    let mut wrong = site.node_args();
    wrong.extend(["--cgroup".into(), "/tmp".into()]);
    let output = site.run(&wrong);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("isn't a cgroup2 directory"), "{}", text(&output));
    // Without a privilege: which one is said.
    let output = Command::new("setpriv")
        .args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin", AGENT])
        .args(site.node_args())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("missing privilege: CAP_NET_ADMIN"), "{}", text(&output));
    assert_eq!(site.links(), Vec::<String>::new());
    assert_eq!(site.connect(OUTSIDE, 443), "ok");
    until("the connection", || reached.load(Ordering::Relaxed) == 1);
}
