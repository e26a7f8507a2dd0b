//! Working in other network namespaces.
#![allow(unsafe_code, reason = "a socket option is read by pointer")]

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd as _},
    thread,
};

use rustix::{
    net::{AddressFamily, SocketType, socket},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

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

/// Moves the calling thread into a network namespace, for good. Of the first thread of a process, `/proc/PID/ns/net`
/// shows it.
///
/// # Errors
/// `PermissionDenied` without `CAP_SYS_ADMIN` here and in the namespace's user namespace.
pub fn enter(ns: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// The cookie of the network namespace that the calling thread is in.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 5.14.
pub fn cookie() -> io::Result<u64> {
    /// `SO_NETNS_COOKIE`, include/uapi/asm-generic/socket.h.
    const NETNS_COOKIE: libc::c_int = 71;
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes, which is the size
    // of the number that it is given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
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
