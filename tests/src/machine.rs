//! A host with systemd as process 1, for what is installed as units: `systemd-nspawn --boot` in the
//! network of a node of the testbed, with a root directory of its own and this machine's programs (`/usr`,
//! read-only). Nothing is downloaded.
//!
//! The BPF file system of the app node's host is the site's, so what is pinned there outlives the host's process 1
//! and goes with the site; [`Machine::reboot`] mounts a new one, as a boot does.

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

/// The units of this repository.
fn deployed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd")
}

/// The host. It is killed with its site.
#[derive(Debug)]
pub struct Machine<'a> {
    testbed: &'a Testbed,
    name: &'static str,
    root: PathBuf,
    place: Place,
    process: Process,
    leader: u32,
}

impl<'a> Machine<'a> {
    /// The app node. Makes its root directory, installs units and configuration as `docs/operations.md`
    /// does, and boots it. `edit` may change what was installed; it gets the root directory.
    ///
    /// # Errors
    /// No systemd-nspawn, or it doesn't come up.
    pub fn boot(testbed: &'a Testbed, edit: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        Self::boot_on(testbed, ("app", testbed.app()), plan::CLUSTER_DNS, edit)
    }

    /// The first gateway node, in the same way.
    ///
    /// # Errors
    /// As [`Self::boot`].
    pub fn boot_gateway(
        testbed: &'a Testbed,
        edit: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        Self::boot_on(testbed, ("gateway", testbed.gateway(0)), plan::OUTSIDE_DNS, edit)
    }

    fn boot_on(
        testbed: &'a Testbed,
        (name, node): (&'static str, &Place),
        resolver: &str,
        edit: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let root = testbed.dir().join(format!("root-{name}"));
        make_root(&root, name, resolver)?;
        install(testbed, &root)?;
        edit(&root)?;
        let cgroup = testbed.site().cgroup(&format!("machine-{name}"))?;
        let place = Place { cgroup, ..node.clone() };
        let (process, leader) = start(testbed, name, &place, &root)?;
        Ok(Self { testbed, name, root, place, process, leader })
    }

    /// A path of the host, as the machine that runs it sees it.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
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
        let bpffs = self.testbed.site().bpffs();
        let bpffs = bpffs.to_string_lossy();
        sh("umount", &[&bpffs])?;
        sh("mount", &["-t", "bpf", "bpf", &bpffs])?;
        let (process, leader) = start(self.testbed, self.name, &self.place, &self.root)?;
        (self.process, self.leader) = (process, leader);
        Ok(())
    }
}

/// What a host has before anything is installed.
fn make_root(root: &Path, name: &str, resolver: &str) -> Result<()> {
    for dir in ["etc/systemd/system", "usr", "var/bin", "var/lib", "root", "tmp", "proc", "sys"] {
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
    write("resolv.conf", &format!("nameserver {resolver}\n"))?;
    write("os-release", &fs::read_to_string("/usr/lib/os-release")?)?;
    let units = root.join("etc/systemd/system");
    symlink("/usr/lib/systemd/system/multi-user.target", units.join("default.target"))?;
    for unit in MASKED {
        symlink("/dev/null", units.join(unit))?;
    }
    let network = root.join(GATEWAY_NETWORK.trim_start_matches('/'));
    fs::write(&network, "").with_context(|| network.display().to_string())
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
    let from = deployed();
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

/// Starts process 1 and waits until it has started all that it starts by itself.
fn start(testbed: &Testbed, name: &str, place: &Place, root: &Path) -> Result<(Process, u32)> {
    let bind = |what: &Path, place: &str| format!("--bind={}:{place}", what.display());
    let network = place.ns.path();
    let gateway = testbed.gateway(0).ns.path();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let args = [
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1".into(),
        "systemd-nspawn".into(),
        "--quiet".into(),
        "--boot".into(),
        "--register=no".into(),
        "--keep-unit".into(),
        "--console=pipe".into(),
        format!("--machine={}-{name}", testbed.site().prefix()),
        format!("--directory={}", text(root)),
        format!("--network-namespace-path={network}"),
        "--resolv-conf=off".into(),
        "--timezone=off".into(),
        "--link-journal=no".into(),
        "--capability=all".into(),
        "--system-call-filter=bpf perf_event_open".into(),
        "--bind-ro=/usr".into(),
        bind(&root.join("var/bin"), "/usr/local/bin"),
        // A gateway's host has its own.
        bind(&testbed.site().bpffs(), if name == "app" { "/sys/fs/bpf" } else { "/mnt" }),
        bind(Path::new(&gateway), GATEWAY_NETWORK),
        bind(&testbed.dir().join("ca.pem"), "/var/ca.pem"),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // On a hybrid hierarchy systemd-nspawn makes cgroups in systemd's own one as well.
    let script = "dir=/sys/fs/cgroup/systemd; if [ -d $dir ]; then mkdir -p $dir/$1 && \
                  echo 0 >$dir/$1/cgroup.procs; fi && shift && exec env \"$@\"";
    let own = format!("{}/{name}", testbed.site().prefix());
    let all = [&["-c", script, "sh", &own][..], &args].concat();
    let mut process = place.start(&testbed.dir(), &format!("machine-{name}"), "sh", &all)?;
    let leader = wait::until(wait::START, "systemd to be up", || {
        if process.ended().is_some() {
            return Some(None);
        }
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.pid()));
        let leader: u32 = children.ok()?.split_whitespace().next()?.parse().ok()?;
        let mut state = command("nsenter");
        state.args(["--all", "--target", &leader.to_string(), "--"]);
        let state = state.args(["systemctl", "is-system-running"]).output().ok()?;
        let up = ["running\n", "degraded\n"].map(str::as_bytes).contains(&&state.stdout[..]);
        up.then_some(Some(leader))
    })
    .with_context(|| format!("{}\n{}", process.stdout(), process.stderr()))?;
    let leader =
        leader.with_context(|| format!("it ended: {}\n{}", process.stdout(), process.stderr()))?;
    Ok((process, leader))
}
