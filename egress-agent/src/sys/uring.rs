//! Single operations through `io_uring`, which reach the kernel's sockets without the system calls
//! that seccomp and others look at.
#![allow(unsafe_code, reason = "operations refer to memory by pointer")]

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

use io_uring::{IoUring, opcode, squeue::Entry, types};

use super::raw::address;

/// An instance with room for one operation.
pub struct Ring(IoUring);

impl Ring {
    /// Sets it up.
    ///
    /// # Errors
    /// `EPERM` or `ENOSYS` where it is switched off or filtered.
    pub fn new() -> io::Result<Self> {
        IoUring::new(2).map(Self)
    }

    /// `connect(2)`. The socket should be non-blocking; then `WouldBlock` says that it is under way.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn connect(&mut self, fd: impl AsFd, to: SocketAddr, family: u16) -> io::Result<()> {
        let name = address(to, family);
        let length = u32::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let fd = types::Fd(fd.as_fd().as_raw_fd());
        let entry = opcode::Connect::new(fd, name.as_ptr().cast(), length).build();
        self.run(&entry, name).map(drop)
    }

    /// `sendmsg(2)` of one buffer to an address.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn send_message(&mut self, fd: impl AsFd, data: &[u8], to: &[u8]) -> io::Result<()> {
        let mut kept = Box::new(Message {
            data: data.to_vec(),
            name: to.to_vec(),
            // SAFETY: both are plain structures of the kernel's interface, for which zeros mean
            // "nothing".
            vector: unsafe { std::mem::zeroed() },
            // SAFETY: as above.
            header: unsafe { std::mem::zeroed() },
        });
        let length = u32::try_from(to.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        kept.vector.iov_base = kept.data.as_mut_ptr().cast();
        kept.vector.iov_len = kept.data.len();
        kept.header.msg_name = kept.name.as_mut_ptr().cast();
        kept.header.msg_namelen = length;
        kept.header.msg_iov = &raw mut kept.vector;
        kept.header.msg_iovlen = 1;
        let fd = types::Fd(fd.as_fd().as_raw_fd());
        let entry = opcode::SendMsg::new(fd, &raw const kept.header).build();
        self.run(&entry, kept).map(drop)
    }

    /// `socket(2)` (kernel 5.19).
    ///
    /// # Errors
    /// What the kernel said; `InvalidInput` where it doesn't know the operation.
    pub fn socket(&mut self, domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
        let entry = opcode::Socket::new(domain, kind, protocol).build();
        let fd = self.run(&entry, ())?;
        // SAFETY: the operation succeeded, so its result is a new descriptor that nobody owns yet.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Runs one operation; `kept` owns the memory that it refers to.
    fn run<T>(&mut self, entry: &Entry, kept: T) -> io::Result<i32> {
        // SAFETY: what the entry points to lives in `kept`, on the heap, which is dropped only
        // after the operation has completed and is leaked where it hasn't.
        let pushed = unsafe { self.0.submission().push(entry) };
        if pushed.is_err() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let limit = types::Timespec::from(Duration::from_secs(2));
        let wait = types::SubmitArgs::new().timespec(&limit);
        let waited = self.0.submitter().submit_with_args(1, &wait);
        let Some(done) = self.0.completion().next() else {
            std::mem::forget(kept);
            waited?;
            return Err(io::ErrorKind::TimedOut.into());
        };
        if done.result() < 0 {
            return Err(io::Error::from_raw_os_error(-done.result()));
        }
        Ok(done.result())
    }
}

struct Message {
    data: Vec<u8>,
    name: Vec<u8>,
    vector: libc::iovec,
    header: libc::msghdr,
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::sys::raw::INET;

    #[test]
    fn operations_do_what_their_system_calls_do() {
        let mut ring = match Ring::new() {
            Ok(ring) => ring,
            Err(error) => {
                // Nothing else excuses it: the kernel lacks it, or it is switched off.
                let excuses = [Some(libc::ENOSYS), Some(libc::EPERM)];
                assert!(excuses.contains(&error.raw_os_error()), "{error}");
                return;
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = ring.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        ring.connect(&fd, listener.local_addr().unwrap(), INET).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(TcpStream::from(fd).local_addr().unwrap(), peer);

        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = address(receiver.local_addr().unwrap(), INET);
        ring.send_message(&sender, b"datagram", &to).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 8);
        let nowhere = ring.socket(99, 1, 0).unwrap_err();
        assert_eq!(nowhere.raw_os_error(), Some(libc::EAFNOSUPPORT));
    }
}
