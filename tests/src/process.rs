//! Processes on a host of the testbed.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::{command, netns::NetNs, wait};

/// Where a process runs: a namespace, a cgroup, and optionally a resolver of its own.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its network.
    pub ns: NetNs,
    /// Its cgroup.
    pub cgroup: PathBuf,
    /// Bound over `/etc/resolv.conf` in a mount namespace of its own.
    pub resolv_conf: Option<PathBuf>,
    /// Environment on top of this process's.
    pub env: Vec<(String, String)>,
}

/// What a command left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code; 124 where its time was up, 128 and more for signals.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Exit code 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.code == 0
    }
}

impl Place {
    /// The command as it is started there: `nsenter` for the network (unlike `ip netns exec` it
    /// leaves `/sys`, and so the cgroups, in view), then a shell that moves itself into the cgroup
    /// and becomes the program, so the process id stays.
    #[must_use]
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut script = String::from("echo 0 >\"$1/cgroup.procs\" && shift && ");
        let mut full = command("nsenter");
        full.arg(format!("--net={}", self.ns.path())).arg("--");
        if self.resolv_conf.is_some() {
            full.args(["unshare", "--mount", "--propagation", "private", "--"]);
            script.push_str("mount --bind \"$1\" /etc/resolv.conf && shift && ");
        }
        script.push_str("exec \"$@\"");
        full.args(["sh", "-c", &script, "sh"]).arg(&self.cgroup);
        full.args(self.resolv_conf.as_ref());
        for name in
            ["http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_DIR"]
        {
            full.env_remove(name);
        }
        full.arg(program).args(args).envs(self.env.iter().map(|(name, value)| (name, value)));
        full
    }

    /// Runs a command to its end, at most 60 seconds.
    ///
    /// # Errors
    /// It can't be started.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Finished> {
        self.run_for(Duration::from_secs(60), program, args)
    }

    /// Runs a command to its end, at most `limit` (see [`wait::patiently`]).
    ///
    /// # Errors
    /// It can't be started.
    pub fn run_for(&self, limit: Duration, program: &str, args: &[&str]) -> Result<Finished> {
        let limit = format!("{:.3}", wait::patiently(limit).as_secs_f64());
        let mut all = vec!["--kill-after=2", limit.as_str(), program];
        all.extend(args);
        let output = self
            .command("timeout", &all)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {program} in {}", self.ns.name()))?;
        Ok(Finished {
            code: output.status.code().unwrap_or(128),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts a process that stays; its output goes to `DIR/NAME.out` and `DIR/NAME.err`.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(&self, dir: &Path, name: &str, program: &str, args: &[&str]) -> Result<Process> {
        let (stdout, stderr) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        let child = self
            .command(program, args)
            .stdin(Stdio::null())
            .stdout(append(&stdout)?)
            .stderr(append(&stderr)?)
            .spawn()
            .with_context(|| format!("cannot start {program} in {}", self.ns.name()))?;
        Ok(Process { child, name: name.to_owned(), stdout, stderr, ended: None })
    }
}

fn append(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| path.display().to_string())
}

/// A process that stays until it is ended, or dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Waits for it to end.
    ///
    /// # Errors
    /// It doesn't within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait::until(limit, &what, || self.ended())
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            // It may end at this very moment.
            kill_process(pid, signal).ok();
        }
    }

    /// Ends it by SIGTERM.
    ///
    /// # Errors
    /// It takes longer than 15 seconds.
    pub fn end(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait(wait::SOON)
    }

    /// Ends it in the unfriendly way (`kill -9`).
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.ended = self.child.wait().ok();
    }

    /// Lets it live on when this is dropped.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
