//! `egress-agent node` against the kernel: attach, pin, adopt, repair, detach. Needs root.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking, as the test does")]

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aya::{
    EbpfLoader,
    maps::MapData,
    programs::{LinkOrder, Program, TcAttachType, tc::TcAttachOptions},
};
use egress_agent::bpf::{self, Enforcer, Targets, TcMode, cgroup2_mount, object::PROGRAMS};
use egress_ebpf::abi::ABI_VERSION;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const AGENT: &str = env!("CARGO_BIN_EXE_egress-agent");
/// An outside address: the other end of the uplink has it.
const OUTSIDE: &str = "198.51.100.7";
/// The other end's address in the cluster.
const INSIDE: &str = "10.77.0.2";
/// Far longer than anything takes.
const LONG: Duration = Duration::from_secs(30);

/// A node with one uplink and one pod's interface, in a network namespace, and a cgroup.
struct Site {
    name: String,
    cgroup: PathBuf,
    bpffs: PathBuf,
    dir: tempfile::TempDir,
}

fn sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Site {
    fn new(test: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "needs root: namespaces, cgroups and eBPF");
        let name = format!("en{}-{test}", std::process::id());
        let cgroup = cgroup2_mount().expect("cgroup2").join(format!("egress-{name}"));
        let site = Self {
            bpffs: format!("/sys/fs/bpf/{name}").into(),
            dir: tempfile::TempDir::new().unwrap(),
            cgroup,
            name,
        };
        fs::create_dir(&site.cgroup).unwrap();
        let (node, out) = (&site.name, site.outside());
        sh(&format!(
            "ip netns add {node}; ip netns add {out}
             ip -n {node} link set lo up; ip -n {out} link set lo up
             ip -n {node} link add up0 type veth peer name eth0 netns {out}
             ip -n {node} link add pod0 type veth peer name pod1
             ip -n {node} link set up0 up; ip -n {node} link set pod0 up
             ip -n {out} link set eth0 up
             ip -n {node} addr add 10.77.0.1/24 dev up0; ip -n {out} addr add {INSIDE}/24 dev eth0
             ip -n {out} addr add {OUTSIDE}/32 dev lo; ip -n {node} route add default via {INSIDE}"
        ));
        site.mesh("clusterCidrs: [10.77.0.0/24]\n");
        site
    }

    fn outside(&self) -> String {
        format!("{}-out", self.name)
    }

    fn mesh(&self, text: &str) {
        let (new, path) = (self.dir.path().join(".new"), self.dir.path().join("mesh.yaml"));
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn node_args(&self) -> Vec<String> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut args: Vec<String> =
            ["node", "--uplink", "up0", "--pod-interface", "pod0=10.77.1.5"]
                .map(str::to_owned)
                .to_vec();
        args.extend(["--config".into(), text(self.dir.path())]);
        args.extend(["--cgroup".into(), text(&self.cgroup), "--bpffs".into(), text(&self.bpffs)]);
        args
    }

    /// The agent in the node's network namespace. `nsenter` keeps this process's mounts, and `exec`s,
    /// so the child is the agent.
    fn agent(&self, args: &[String]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(AGENT).args(args);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[String]) -> Output {
        self.agent(args).output().unwrap()
    }

    /// Starts the agent and waits until it is ready. Its log is in a file.
    fn start(&self, more: &[&str]) -> Agent {
        let mut args = self.node_args();
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let log = self.dir.path().join("log");
        let out = self.dir.path().join("events");
        let child = self
            .agent(&args)
            .stderr(File::create(&log).unwrap())
            .stdout(File::create(&out).unwrap())
            .spawn()
            .unwrap();
        let mut agent = Agent { child, log, out };
        agent.says("ready");
        agent
    }

    fn detach(&self) -> Output {
        self.run(&["detach".into(), "--bpffs".into(), self.bpffs.to_str().unwrap().into()])
    }

    fn links(&self) -> Vec<String> {
        let entries =
            fs::read_dir(self.bpffs.join(format!("v{ABI_VERSION}/links"))).into_iter().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// What a process of the cgroup gets when it connects: `ok` or bash's complaint.
    fn connect(&self, host: &str, port: u16) -> String {
        let script = format!(
            "echo $$ > {}/cgroup.procs; exec nsenter --net=/run/netns/{} \
             timeout 5 bash -c 'exec 3<>/dev/tcp/{host}/{port} && echo ok'",
            self.cgroup.display(),
            self.name
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    /// A listener outside that counts connections.
    fn listen(&self, addr: &str) -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(0));
        let listener = in_netns(&self.outside(), {
            let addr = addr.to_owned();
            move || TcpListener::bind(addr).unwrap()
        });
        thread::spawn({
            let count = Arc::clone(&count);
            move || {
                for _ in listener.incoming() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        count
    }
}

/// Runs something on a thread of its own in a network namespace.
fn in_netns<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let ns = File::open(format!("/run/netns/{name}")).unwrap();
    thread::spawn(move || {
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&ns), Some(LinkNameSpaceType::Network))
            .unwrap();
        work()
    })
    .join()
    .unwrap()
}

impl Drop for Site {
    fn drop(&mut self) {
        let script = format!(
            "for pid in $(cat {cgroup}/cgroup.procs); do kill -9 $pid; done
             ip netns del {name}; ip netns del {name}-out
             {AGENT} detach --bpffs {bpffs}; rmdir {cgroup}",
            cgroup = self.cgroup.display(),
            name = self.name,
            bpffs = self.bpffs.display()
        );
        // What is gone already complains; nothing here decides a test.
        Command::new("sh").args(["-c", &script]).output().ok();
    }
}

/// A running agent; killed when dropped, which is before its site is.
struct Agent {
    child: Child,
    log: PathBuf,
    out: PathBuf,
}

impl Agent {
    fn says(&mut self, what: &str) {
        let log = self.log.clone();
        until(&format!("the log to say {what:?}"), || {
            let text = fs::read_to_string(&log).unwrap();
            assert!(self.child.try_wait().unwrap().is_none(), "the agent ended: {text}");
            text.contains(what)
        });
    }

    fn kill(self) {
        drop(self);
    }

    fn end(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that ended by itself can't be killed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn until(what: &str, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !met() {
        assert!(Instant::now() < end, "waited too long for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn enforcement_begins_with_the_agent_and_ends_with_detach() {
    let site = Site::new("life");
    let reached = site.listen(&format!("{OUTSIDE}:443"));
    site.listen(&format!("{INSIDE}:443"));
    assert_eq!(site.connect(OUTSIDE, 443), "ok");
    until("the connection", || reached.load(Ordering::Relaxed) == 1);

    let agent = site.start(&["--metrics-addr", "off", "--events", "json"]);
    assert_eq!(site.links().len(), 11, "{:?}", site.links());
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

    // An adoption that fails: a map of another layout under our name.
    site.start(&["--metrics-addr", "off"]).kill();
    let before = site.links();
    let pin = site.bpffs.join(format!("v{ABI_VERSION}/maps/GROUPS"));
    fs::remove_file(&pin).unwrap();
    aya::maps::HashMap::<MapData, u32, u32>::create(1, 0).unwrap().pin(&pin).unwrap();
    let output = site.run(&site.node_args());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("another layout"), "{}", text(&output));
    assert_eq!(site.links(), before);
    assert!(site.connect(OUTSIDE, 443).contains("Permission denied"));
    assert_eq!(reached.load(Ordering::Relaxed), 1);
}

#[test]
fn an_interface_that_comes_back_is_enforced_on_and_our_place_is_kept() {
    let site = Site::new("iface");
    let mut agent = site.start(&["--metrics-addr", "off"]);
    let pod = |links: Vec<String>| {
        links.into_iter().filter(|name| name.starts_with("pod_ingress")).collect::<Vec<_>>()
    };
    let before = pod(site.links());
    assert_eq!(before.len(), 1);
    sh(&format!("ip -n {} link del pod0", site.name));
    agent.says("interface pod0 is gone");
    sh(&format!(
        "ip -n {0} link add pod0 type veth peer name pod1; ip -n {0} link set pod0 up",
        site.name
    ));
    agent.says("interface pod0 is back");
    let after = pod(site.links());
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");

    // Somebody's program comes before ours, and would let everything through.
    let _intruder = in_netns(&site.name, || {
        let mut ebpf = EbpfLoader::new().load(PROGRAMS).unwrap();
        let Some(Program::SchedClassifier(program)) = ebpf.program_mut("uplink_egress") else {
            panic!("no such program")
        };
        program.load().unwrap();
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        program.attach_with_options("up0", TcAttachType::Egress, first).unwrap();
        ebpf
    });
    agent.says("another program came before ours on up0");
    agent.end();
}

/// What kernels without tcx get.
#[test]
fn a_clsact_filter_outlives_its_agent_and_is_replaced_in_place() {
    let site = Site::new("clsact");
    let filters = |direction: &str, interface: &str| {
        let output = Command::new("tc")
            .args(["-n", &site.name, "filter", "show", "dev", interface, direction])
            .output()
            .unwrap();
        text(&output).matches("direct-action").count()
    };
    let targets = Targets {
        cgroups: Vec::new(),
        pod_interfaces: vec!["pod0".into()],
        uplinks: vec!["up0".into()],
    };
    let start = || {
        let (bpffs, targets) = (site.bpffs.clone(), targets.clone());
        in_netns(&site.name, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            let _inside = runtime.enter();
            Enforcer::start(&bpffs, &targets, TcMode::Clsact).map(|enforcer| enforcer.adopted)
        })
    };
    for adopted in [false, true] {
        assert_eq!(start().unwrap(), adopted);
        assert_eq!((filters("ingress", "pod0"), filters("egress", "up0")), (1, 1));
    }
    let bpffs = site.bpffs.clone();
    let removed = in_netns(&site.name, move || bpf::detach(&bpffs).unwrap());
    assert!(removed.iter().any(|line| line == "pod_ingress on interface pod0"), "{removed:?}");
    assert_eq!((filters("ingress", "pod0"), filters("egress", "up0")), (0, 0));
    assert!(!site.bpffs.exists());
}
