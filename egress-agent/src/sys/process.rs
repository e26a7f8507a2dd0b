//! What a process sets for itself: open files, the core a thread runs on.

use std::{io, thread};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// Raises the soft limit of open files to the hard one, and returns it; `None` is no limit. Every
/// proxied connection takes two, and four while it is spliced.
///
/// # Errors
/// What the kernel said.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}

/// The soft limit of open files; `None` is no limit.
#[must_use]
pub fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// The cores that this process may use, by number.
#[must_use]
pub fn cores() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(_) => (0..thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// Keeps the calling thread on one core.
///
/// # Errors
/// What the kernel said.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_on_its_core() {
        thread::spawn(|| {
            let last = *cores().last().unwrap();
            pin_to_core(last).unwrap();
            assert_eq!(cores(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn open_files_are_raised_to_the_hard_limit() {
        assert_eq!(raise_open_files().unwrap(), getrlimit(Resource::Nofile).maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum);
    }
}
