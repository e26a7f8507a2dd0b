//! What runs in the guest, as a script, and what it says about it. Output goes to the console, which
//! people read; results go over a second serial line, which nothing else writes to.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

/// The guest's end of the line for results.
const RESULTS: &str = "/dev/ttyS1";
/// The last result: everything was run.
const DONE: &str = "done";

/// One program to run in the guest.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// What it is called in results.
    pub(crate) name: String,
    /// Where it runs.
    pub(crate) dir: PathBuf,
    /// The program and its arguments, none of which needs quoting in a shell.
    pub(crate) command: Vec<String>,
    /// Whether its standard output is a result: each line is one, after the job's name.
    pub(crate) tells: bool,
}

/// What a guest said.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Results {
    /// Exit codes by job; 124 where its time was up.
    pub(crate) codes: Vec<(String, i32)>,
    /// Lines that jobs told, with the job's name.
    pub(crate) told: Vec<(String, String)>,
    /// Whether everything was run.
    pub(crate) done: bool,
}

/// The script that `/init` becomes. Modules load themselves, but for `tun`, whose device file there is
/// no udev to make. Nothing in it may stop it before the last line.
pub(crate) fn script(
    modules: &str,
    env: &[(&str, String)],
    jobs: &[Job],
    limit: Duration,
) -> String {
    let mut script = format!(
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /lib/modules
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs securityfs /sys/kernel/security
mount --bind {modules} /lib/modules
modprobe tun
ip link set lo up
echo \"Linux $(uname -r); security modules: $(cat /sys/kernel/security/lsm)\"
"
    );
    for (name, value) in env {
        writeln!(script, "export {name}={value}").ok();
    }
    for job in jobs {
        let (name, dir, command) = (&job.name, job.dir.display(), job.command.join(" "));
        let limit = limit.as_secs();
        let output =
            if job.tells { format!("| sed 's/^/told {name} /' >{RESULTS}") } else { String::new() };
        // A pipe's exit code is its last program's: the job's goes through a file.
        writeln!(
            script,
            "echo; echo '=== {name}'
{{ cd {dir} && timeout --kill-after=10 {limit} {command} </dev/null; echo $? >/run/code; }} {output}
echo \"code {name} $(cat /run/code)\" >{RESULTS}"
        )
        .ok();
    }
    // As pid 1 it must not end; the kernel powers off by itself.
    writeln!(script, "echo {DONE} >{RESULTS}\nsync\necho o >/proc/sysrq-trigger\nexec sleep 1000")
        .ok();
    script
}

impl Results {
    /// Reads what came over the line.
    pub(crate) fn parse(text: &str) -> Self {
        let mut results = Self::default();
        for line in text.lines() {
            let line = line.trim_end();
            let mut words = line.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("code"), Some(name), Some(code)) => {
                    results.codes.push((name.to_owned(), code.parse().unwrap_or(-1)));
                }
                (Some("told"), Some(name), Some(text)) => {
                    results.told.push((name.to_owned(), text.to_owned()));
                }
                (Some(DONE), None, None) => results.done = true,
                _ => {}
            }
        }
        results
    }

    /// Each job's outcome in words, and whether it is a success. One without a code was never run.
    pub(crate) fn outcome(&self, job: &Job) -> (String, bool) {
        match self.codes.iter().find(|(name, _)| *name == job.name) {
            Some((_, 0)) => ("ok".to_owned(), true),
            Some((_, 124 | 137)) => ("FAILED: its time was up".to_owned(), false),
            Some((_, code)) => (format!("FAILED: exit code {code}"), false),
            None => ("FAILED: the guest ended before it".to_owned(), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> Job {
        Job { name: name.into(), dir: "/".into(), command: vec!["true".into()], tells: false }
    }

    #[test]
    fn a_job_that_never_ran_has_failed() {
        let results =
            Results::parse("code a 0\r\ntold v one 2 three\r\ncode b 101\r\ncode c 124\n");
        assert!(results.outcome(&job("a")).1);
        for failed in ["b", "c", "d"] {
            assert!(!results.outcome(&job(failed)).1, "{failed}");
        }
        assert_eq!(results.told, [("v".to_owned(), "one 2 three".to_owned())]);
        assert!(!results.done);
        assert!(Results::parse("code a 0\ndone\n").done);
        // The kernel may die in the middle of a line.
        assert_eq!(Results::parse("code a\nco"), Results::default());
    }

    #[test]
    fn the_script_runs_every_job_and_ends() {
        let script =
            script("/m", &[("A", "1".into())], &[job("x"), job("y")], Duration::from_secs(7));
        for line in [
            "mount --bind /m /lib/modules",
            "export A=1",
            "{ cd / && timeout --kill-after=10 7 true </dev/null; echo $? >/run/code; } ",
            "echo \"code y $(cat /run/code)\" >/dev/ttyS1",
            "echo done >/dev/ttyS1",
        ] {
            assert!(script.lines().any(|other| other == line), "{line}:\n{script}");
        }
    }
}
