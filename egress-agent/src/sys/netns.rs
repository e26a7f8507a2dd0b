//! Working in other network namespaces.

use std::{fs::File, io, os::fd::AsFd, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Does `work` in a network namespace, on a thread of its own: the caller stays where it is.
///
/// # Errors
/// `PermissionDenied` without `CAP_SYS_ADMIN` here and in the namespace's user namespace.
pub fn inside<T: Send>(ns: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = thread::Builder::new().spawn_scoped(scope, move || {
            move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        })?;
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_can_be_entered_and_others_files_cannot() {
        let own = File::open("/proc/self/ns/net").unwrap();
        assert_eq!(inside(&own, || 7).unwrap(), 7);
        let other = File::open("/proc/self/ns/mnt").unwrap();
        assert!(inside(&other, || panic!("not entered")).is_err());
    }
}
