//! A host with systemd as process 1, for what is installed as units: `systemd-nspawn --boot` in the
//! network of a host of the testbed, with a root directory of its own and this machine's programs (`/usr`).
//! Nothing is downloaded.
//!
//! Its BPF file system belongs to the site, so what is pinned there outlives the host's process 1 and goes
//! with the site; [`Machine::reboot`] mounts a new one, as a boot does.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    command, copy_program, plan,
    process::{Finished, Place, Process},
    sh,
    testbed::Testbed,
    wait,
};

/// Where the host finds the namespace of the first gateway node.
pub const GATEWAY_NETWORK: &str = "/var/gateway-network";

/// Units of the distribution that this host does without: they set up the machine below.
const MASKED: [&str; 3] = ["systemd-sysctl.service", "systemd-udevd.service", "getty.target"];

/// Where a host finds this repository's `deploy`: in the home of root, where its shell begins.
const DEPLOYED: &str = "/root/deploy";

/// What this repository ships.
fn deployed() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).join("deploy")
}

/// The host. It is killed with its site.
#[derive(Debug)]
pub struct Machine<'a> {
    host: Host<'a>,
    process: Process,
    leader: u32,
}

/// What a host is made of. It outlives a reboot.
#[derive(Debug)]
struct Host<'a> {
    testbed: &'a Testbed,
    name: String,
    root: PathBuf,
    bpffs: PathBuf,
    place: Place,
    /// The changes to `/usr`, where packages may be installed; otherwise it is read-only.
    usr: Option<PathBuf>,
}

impl<'a> Machine<'a> {
    /// Makes its root directory, installs units and configuration as `docs/operations.md` does, and
    /// boots it in the app node's network. `edit` may change what was installed; it gets the root directory.
    ///
    /// # Errors
    /// No systemd-nspawn, or it doesn't come up.
    pub fn boot(testbed: &'a Testbed, edit: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let host = Host::new(testbed, "app", testbed.app(), testbed.site().bpffs())?;
        install(testbed, &host.root)?;
        edit(&host.root)?;
        Self::start(host)
    }

    /// The same for the first gateway node.
    ///
    /// # Errors
    /// As for [`Self::boot`].
    pub fn boot_gateway(
        testbed: &'a Testbed,
        edit: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let bpffs = bpf_file_system(testbed, "gateway")?;
        let host = Host::new(testbed, "gateway", testbed.gateway(0), bpffs)?;
        install(testbed, &host.root)?;
        let resolver = format!("nameserver {}\n", plan::OUTSIDE_DNS);
        fs::write(host.root.join("etc/resolv.conf"), resolver)?;
        edit(&host.root)?;
        Self::start(host)
    }

    /// The same with nothing installed and with the packages of this machine, in the network of `place`.
    ///
    /// # Errors
    /// As for [`Self::boot`].
    pub fn bare(
        testbed: &'a Testbed,
        name: &str,
        place: &Place,
        edit: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let bpffs = bpf_file_system(testbed, name)?;
        let mut host = Host::new(testbed, name, place, bpffs)?;
        host.usr = Some(packages(testbed, name, &host.root)?);
        edit(&host.root)?;
        Self::start(host)
    }

    fn start(host: Host<'a>) -> Result<Self> {
        let (process, leader) = host.start()?;
        Ok(Self { host, process, leader })
    }

    /// A path of the host, as the machine that runs it sees it.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.host.root.join(path.trim_start_matches('/'))
    }

    /// Runs a command on the host.
    ///
    /// # Errors
    /// It can't be started.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Finished> {
        let output = self.command(program, args).output();
        let output = output.with_context(|| format!("cannot run {program}"))?;
        Ok(Finished {
            code: output.status.code().unwrap_or(128),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a line of a shell on the host, as root in their home directory.
    ///
    /// # Errors
    /// It can't be started.
    pub fn shell(&self, line: &str) -> Result<Finished> {
        self.run("bash", &["-c", &format!("cd /root && export HOME=/root && {line}")])
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut full = command("nsenter");
        full.args(["--all", "--target", &self.leader.to_string(), "--", "timeout", "90", program]);
        full.args(args);
        full
    }

    /// `systemctl`, which must succeed; gives its output.
    ///
    /// # Errors
    /// It fails; the message holds the unit's log.
    pub fn systemctl(&self, args: &[&str]) -> Result<String> {
        let done = self.run("systemctl", args)?;
        if !done.ok() {
            bail!("systemctl {args:?}: {}\n{}", done.stderr, self.journal(&[])?);
        }
        Ok(done.stdout)
    }

    /// A property of a unit.
    ///
    /// # Errors
    /// systemctl can't be started.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let done = self.run("systemctl", &["show", "--value", "--property", name, unit])?;
        Ok(done.stdout.trim().to_owned())
    }

    /// The journal of this boot.
    ///
    /// # Errors
    /// journalctl can't be started.
    pub fn journal(&self, args: &[&str]) -> Result<String> {
        let all = [&["--no-pager", "--boot", "--quiet"], args].concat();
        Ok(self.run("journalctl", &all)?.stdout)
    }

    /// Shuts the host down, and starts it again with nothing pinned and nothing in `/run`.
    ///
    /// # Errors
    /// It doesn't go down or doesn't come up.
    pub fn reboot(&mut self) -> Result<()> {
        self.systemctl(&["--no-block", "poweroff"])?;
        self.process.wait(wait::START)?;
        let bpffs = self.host.bpffs.to_string_lossy();
        sh("umount", &[&bpffs])?;
        sh("mount", &["-t", "bpf", "bpf", &bpffs])?;
        (self.process, self.leader) = self.host.start()?;
        Ok(())
    }
}

/// What a host has before anything is installed.
fn make_root(root: &Path, name: &str) -> Result<()> {
    for dir in
        ["etc/systemd/system", "usr", "var/bin", "var/lib", "root/deploy", "tmp", "proc", "sys"]
    {
        fs::create_dir_all(root.join(dir))?;
    }
    for dir in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{dir}"), root.join(dir))?;
    }
    let write = |name: &str, text: &str| {
        let path = root.join("etc").join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    write("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")?;
    write("group", "root:x:0:\nnogroup:x:65534:\n")?;
    write("machine-id", "0123456789abcdef0123456789abcdef\n")?;
    write("hostname", &format!("{name}\n"))?;
    write("resolv.conf", &format!("nameserver {}\n", plan::CLUSTER_DNS))?;
    write("os-release", &fs::read_to_string("/usr/lib/os-release")?)?;
    let units = root.join("etc/systemd/system");
    symlink("/usr/lib/systemd/system/multi-user.target", units.join("default.target"))?;
    for unit in MASKED {
        symlink("/dev/null", units.join(unit))?;
    }
    let network = root.join(GATEWAY_NETWORK.trim_start_matches('/'));
    fs::write(&network, "").with_context(|| network.display().to_string())
}

/// A BPF file system of a host's own. It goes with the site.
fn bpf_file_system(testbed: &Testbed, name: &str) -> Result<PathBuf> {
    let path = testbed.dir().join(format!("bpf-{name}"));
    fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    sh("mount", &["-t", "bpf", "bpf", &path.to_string_lossy()])?;
    Ok(path)
}

/// What installing packages takes: this machine's list of them, and a place for changes of `/usr`.
fn packages(testbed: &Testbed, name: &str, root: &Path) -> Result<PathBuf> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    sh("cp", &["-a", "/var/lib/dpkg", &text(&root.join("var/lib"))])?;
    for dir in ["etc/apt/apt.conf.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"]
    {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::create_dir_all(root.join("var/log/apt"))?;
    // Users of its packages, the message bus among them.
    for name in ["passwd", "group"] {
        fs::copy(Path::new("/etc").join(name), root.join("etc").join(name))?;
    }
    // Whoever types the commands says yes.
    fs::write(root.join("etc/apt/apt.conf.d/yes"), "APT::Get::Assume-Yes \"true\";\n")?;
    let usr = testbed.dir().join(format!("usr-{name}"));
    fs::create_dir_all(&usr).with_context(|| usr.display().to_string())?;
    Ok(usr)
}

/// The commands of `docs/operations.md`: the program, the configuration, both units, the slices.
fn install(testbed: &Testbed, root: &Path) -> Result<()> {
    let (etc, units) = (root.join("etc/egress"), root.join("etc/systemd/system"));
    copy_program(testbed.agent(), &root.join("var/bin/egress-agent"))?;
    fs::create_dir_all(etc.join("config"))?;
    fs::copy(testbed.mesh(), etc.join("config/mesh.yaml"))?;
    for entry in fs::read_dir(testbed.config())? {
        let entry = entry?;
        fs::copy(entry.path(), etc.join("config").join(entry.file_name()))?;
    }
    let from = deployed().join("systemd");
    for name in ["egress-node.env", "egress-gateway.env"] {
        fs::copy(from.join(name), etc.join(name))?;
    }
    for name in ["egress-node.service", "egress-gateway.service", "workloads.slice"] {
        fs::copy(from.join(name), units.join(name))?;
    }
    let drop_ins = "workloads-.slice.d";
    fs::create_dir(units.join(drop_ins))?;
    fs::copy(from.join(drop_ins).join("egress.conf"), units.join(drop_ins).join("egress.conf"))?;
    Ok(())
}

impl<'a> Host<'a> {
    fn new(testbed: &'a Testbed, name: &str, place: &Place, bpffs: PathBuf) -> Result<Self> {
        let root = testbed.dir().join(format!("root-{name}"));
        make_root(&root, name)?;
        let cgroup = testbed.site().cgroup(&format!("machine-{name}"))?;
        let place = Place { cgroup, ..place.clone() };
        Ok(Self { testbed, name: name.to_owned(), root, bpffs, place, usr: None })
    }

    fn arguments(&self) -> Vec<String> {
        let bind = |what: &Path, place: &str| format!("--bind={}:{place}", what.display());
        let usr = match &self.usr {
            None => "--bind-ro=/usr".to_owned(),
            Some(changes) => format!("--overlay=/usr:{}:/usr", changes.display()),
        };
        let mut args = vec![
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1".to_owned(),
            "systemd-nspawn".into(),
            "--quiet".into(),
            "--boot".into(),
            "--register=no".into(),
            "--keep-unit".into(),
            "--console=pipe".into(),
            format!("--machine={}-{}", self.testbed.site().prefix(), self.name),
            format!("--directory={}", self.root.display()),
            format!("--network-namespace-path={}", self.place.ns.path()),
            "--resolv-conf=off".into(),
            "--timezone=off".into(),
            "--link-journal=no".into(),
            "--capability=all".into(),
            "--system-call-filter=bpf perf_event_open".into(),
            usr,
            format!("--bind-ro={}:{DEPLOYED}", deployed().display()),
            bind(&self.bpffs, "/sys/fs/bpf"),
        ];
        if self.usr.is_none() {
            let gateway = self.testbed.gateway(0).ns.path();
            args.extend([
                bind(&self.root.join("var/bin"), "/usr/local/bin"),
                bind(Path::new(&gateway), GATEWAY_NETWORK),
                bind(&self.testbed.dir().join("ca.pem"), "/var/ca.pem"),
            ]);
        }
        args
    }

    /// Starts process 1 and waits until it has started all that it starts by itself.
    fn start(&self) -> Result<(Process, u32)> {
        let args = self.arguments();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        // On a hybrid hierarchy systemd-nspawn makes cgroups in systemd's own one as well.
        let script = "dir=/sys/fs/cgroup/systemd; if [ -d $dir ]; then mkdir -p $dir/$1 && \
                      echo 0 >$dir/$1/cgroup.procs; fi && shift && exec env \"$@\"";
        let group = format!("{}/{}", self.testbed.site().prefix(), self.name);
        let all = [&["-c", script, "sh", &group][..], &args].concat();
        let name = format!("machine-{}", self.name);
        let mut process = self.place.start(&self.testbed.dir(), &name, "sh", &all)?;
        let leader = wait::until(wait::START, "systemd to be up", || {
            if process.ended().is_some() {
                return Some(None);
            }
            let children =
                fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.pid()));
            let leader: u32 = children.ok()?.split_whitespace().next()?.parse().ok()?;
            let mut state = command("nsenter");
            state.args(["--all", "--target", &leader.to_string(), "--"]);
            let state = state.args(["systemctl", "is-system-running"]).output().ok()?;
            let up = ["running\n", "degraded\n"].map(str::as_bytes).contains(&&state.stdout[..]);
            up.then_some(Some(leader))
        })
        .with_context(|| format!("{}\n{}", process.stdout(), process.stderr()))?;
        let leader = leader
            .with_context(|| format!("it ended: {}\n{}", process.stdout(), process.stderr()))?;
        Ok((process, leader))
    }
}
