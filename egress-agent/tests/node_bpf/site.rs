//! A node in a network namespace, with an uplink, a pod's interface and a cgroup.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use egress_agent::bpf::cgroup2_mount;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_egress-agent");
/// An external address: the other end of the uplink has it.
pub(crate) const OUTSIDE: &str = "198.51.100.7";
/// The other end's address in the cluster.
pub(crate) const INSIDE: &str = "10.77.0.2";
/// Far longer than anything takes, on an emulated machine too.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// How many times longer things take than on an ordinary machine: `EGRESS_TEST_PATIENCE`, or 1.
pub(crate) fn patience() -> u32 {
    std::env::var("EGRESS_TEST_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A node with one uplink and one pod's interface, in a network namespace, and a cgroup.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) cgroup: PathBuf,
    pub(crate) bpffs: PathBuf,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Site {
    pub(crate) fn new(test: &str) -> Self {
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

    pub(crate) fn outside(&self) -> String {
        format!("{}-out", self.name)
    }

    pub(crate) fn mesh(&self, text: &str) {
        let (new, path) = (self.dir.path().join(".new"), self.dir.path().join("mesh.yaml"));
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    pub(crate) fn node_args(&self) -> Vec<String> {
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
    pub(crate) fn agent(&self, args: &[String]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(AGENT).args(args);
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[String]) -> Output {
        self.agent(args).output().unwrap()
    }

    /// Starts the agent and waits until it is ready. Its log is in a file.
    pub(crate) fn start(&self, more: &[&str]) -> Agent {
        self.start_until("ready", more)
    }

    /// Starts the agent and waits until its log says something.
    pub(crate) fn start_until(&self, said: &str, more: &[&str]) -> Agent {
        let mut args = self.node_args();
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        self.start_as(&args, said)
    }

    /// Starts the agent with these arguments alone, and waits until its log says something.
    pub(crate) fn start_as(&self, args: &[String], said: &str) -> Agent {
        let log = self.dir.path().join("log");
        let out = self.dir.path().join("events");
        let child = self
            .agent(args)
            .stderr(File::create(&log).unwrap())
            .stdout(File::create(&out).unwrap())
            .spawn()
            .unwrap();
        let mut agent = Agent { child, log, out };
        agent.says(said);
        agent
    }

    pub(crate) fn detach(&self) -> Output {
        self.run(&["detach".into(), "--bpffs".into(), self.bpffs.to_str().unwrap().into()])
    }

    /// Where this version pins.
    pub(crate) fn version(&self) -> PathBuf {
        self.bpffs.join(format!("v{}", egress_ebpf::abi::ABI_VERSION))
    }

    pub(crate) fn links(&self) -> Vec<String> {
        links_in(&self.version())
    }

    /// What a process of the cgroup gets when it connects: `ok` or bash's complaint.
    pub(crate) fn connect(&self, host: &str, port: u16) -> String {
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
    pub(crate) fn listen(&self, addr: &str) -> Arc<AtomicU64> {
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
pub(crate) fn in_netns<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
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
pub(crate) struct Agent {
    pub(crate) child: Child,
    log: PathBuf,
    pub(crate) out: PathBuf,
}

impl Agent {
    pub(crate) fn says(&mut self, what: &str) {
        let log = self.log.clone();
        until(&format!("the log to say {what:?}"), || {
            let text = fs::read_to_string(&log).unwrap();
            assert!(self.child.try_wait().unwrap().is_none(), "the agent ended: {text}");
            text.contains(what)
        });
    }

    pub(crate) fn kill(self) {
        drop(self);
    }

    pub(crate) fn end(mut self) -> String {
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

pub(crate) fn until(what: &str, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !met() {
        assert!(Instant::now() < end, "waited too long for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The links that a version has pinned, but for the one of the whole host: it is there on kernels that
/// ask BPF security modules, from the start.
pub(crate) fn links_in(version: &Path) -> Vec<String> {
    let entries = fs::read_dir(version.join("links")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.ends_with("-host")).collect();
    names.sort();
    names
}
