//! Running a guest.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{guest::Results, initramfs, package::Kernel};
use crate::run;

/// A guest that is to run a script.
pub(crate) struct Guest<'a> {
    pub(crate) kernel: &'a Kernel,
    /// Security modules that the kernel is told to use (`lsm=`).
    pub(crate) lsm: &'a str,
    /// Path of the script, here and there.
    pub(crate) script: &'a Path,
    /// Without suffix: `.initrd`, `.results` and `.log` are written.
    pub(crate) files: &'a Path,
    pub(crate) limit: Duration,
}

impl Guest<'_> {
    /// Boots it, shows and keeps its output, and gives what it said when it is off.
    ///
    /// # Errors
    /// It can't be started, or its time is up. Half of the results are lost then; the log isn't.
    pub(crate) fn run(&self) -> Result<Results> {
        let file = |suffix| self.files.with_file_name(format!("{}.{suffix}", self.name()));
        let (initrd, results, log) = (file("initrd"), file("results"), file("log"));
        fs::write(&initrd, initramfs::build(self.kernel, self.script)?)?;
        fs::write(&results, "")?;
        let mut command = self.command(&initrd, &results);
        println!("{}\n", run::text(&command));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start QEMU")?;
        let output = child.stdout.take().context("QEMU has no standard output")?;
        let copy = {
            let (log, prefix) = (File::create(&log)?, self.kernel.version.clone());
            thread::spawn(move || copy(BufReader::new(output), log, &prefix))
        };
        let ended = wait(&mut child, self.limit);
        if ended.is_err() {
            child.kill().ok();
            child.wait().ok();
        }
        if copy.join().is_err() {
            bail!("the guest's output can't be shown");
        }
        println!("the guest's output is in {}", log.display());
        ended?;
        let text = fs::read(&results).with_context(|| results.display().to_string())?;
        Ok(Results::parse(&String::from_utf8_lossy(&text)))
    }

    fn name(&self) -> String {
        self.files.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Emulation, not virtualisation: it needs no privilege and behaves the same everywhere.
    fn command(&self, initrd: &Path, results: &Path) -> Command {
        // However this process ends, the guest ends with it.
        let mut command = run::command("setpriv");
        command
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-nic", "none"])
            .args(["-serial", "stdio"])
            .arg("-serial")
            .arg(format!("file:{}", results.display()))
            .arg("-virtfs")
            .arg(format!(
                "local,path=/,mount_tag={},security_model=none,readonly=on,multidevs=remap",
                initramfs::TAG
            ))
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(initrd)
            .arg("-append")
            .arg(format!("console=ttyS0 loglevel=4 panic=-1 lsm={}", self.lsm));
        command
    }
}

fn wait(child: &mut Child, limit: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("QEMU ended with {status}");
            }
            return Ok(());
        }
        // The standard library can't wait for a child with a limit.
        thread::sleep(Duration::from_millis(200));
    }
    bail!("the guest didn't end within {} minutes", limit.as_secs() / 60)
}

/// Copies lines to the log, and with a prefix to the terminal.
fn copy(mut from: impl BufRead, mut log: File, prefix: &str) {
    let mut line = Vec::new();
    loop {
        line.clear();
        match from.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        // Output is for people: where it can't be written, the run goes on.
        writeln!(log, "{text}").ok();
        writeln!(std::io::stdout(), "{prefix} | {text}").ok();
    }
}
