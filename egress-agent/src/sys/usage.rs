//! What this process uses.

use std::{
    fs,
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// When the process began; see [`begin`].
static STARTED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// Remembers when the process began. Called first of all.
pub fn begin() {
    LazyLock::force(&STARTED);
}

/// What is used; `None` where the kernel does not say.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Usage {
    /// CPU time of all threads, in seconds.
    pub cpu: Option<f64>,
    /// Memory in RAM, in bytes.
    pub resident: Option<u64>,
    /// Address space, in bytes.
    pub virtual_memory: Option<u64>,
    /// Descriptors that are open.
    pub open_files: Option<u64>,
    /// Descriptors that may be open.
    pub most_files: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// When it began, in seconds since 1970.
    pub started: Option<f64>,
}

/// What is used now.
#[must_use]
pub fn now() -> Usage {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = std::time::Duration::try_from(cpu).ok().map(|cpu| cpu.as_secs_f64());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let open = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    Usage {
        cpu,
        resident: kilobytes(&status, "VmRSS:"),
        virtual_memory: kilobytes(&status, "VmSize:"),
        // The one that the directory is read with is among them.
        open_files: open
            .and_then(|open| u64::try_from(open).ok())
            .map(|open| open.saturating_sub(1)),
        most_files: getrlimit(Resource::Nofile).current,
        threads: value(&status, "Threads:"),
        started: STARTED.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64()),
    }
}

fn kilobytes(status: &str, field: &str) -> Option<u64> {
    value(status, field)?.checked_mul(1024)
}

/// The number after a field's name, proc_pid_status(5).
fn value(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let status = "Name:\tegress\nVmSize:\t  200 kB\nVmRSS:\t 100 kB\nThreads:\t4\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(102_400));
        assert_eq!(value(status, "Threads:"), Some(4));
        assert_eq!(value(status, "Absent:"), None);
    }

    #[test]
    fn this_process_uses_something() {
        begin();
        let Usage { cpu, resident, virtual_memory, open_files, most_files, threads, started } =
            now();
        assert!(cpu.is_some_and(|cpu| cpu > 0.0));
        assert!(resident > Some(1 << 20) && virtual_memory >= resident);
        assert!(open_files >= Some(3) && most_files.is_none_or(|most| Some(most) >= open_files));
        assert!(threads >= Some(1));
        assert!(started.is_some_and(|started| started > 1.6e9));
    }
}
