//! Packets with descriptors between a process and one that it starts (`unix(7)`, `SCM_RIGHTS`).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
        sendmsg, socketpair,
    },
};

/// Descriptors in one packet. The kernel takes 253 at most (`SCM_MAX_FD`).
pub const DESCRIPTORS: usize = 250;
/// Bytes of one packet.
const BYTES: usize = 64 * 1024;

/// What came in one packet.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its descriptors; programs that are started later do not inherit them.
    pub descriptors: Vec<OwnedFd>,
}

/// Two connected sockets that keep packets apart.
///
/// # Errors
/// What the kernel said.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends a packet, without waiting for room.
///
/// # Errors
/// `WouldBlock` where there is no room; what the kernel said; more descriptors or bytes than fit.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // The space is rounded up, and would take more than the other end has room for.
    let fits = descriptors.len() <= DESCRIPTORS && bytes.len() <= BYTES;
    let rights = SendAncillaryMessage::ScmRights(descriptors);
    if !fits || (!descriptors.is_empty() && !control.push(rights)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a packet that is too large"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// The next packet; `None` where the other end is gone.
///
/// # Errors
/// `WouldBlock` where there is none and it is not to `wait`; what the kernel said; a packet that was cut.
pub fn receive(socket: impl AsFd, wait: bool) -> io::Result<Option<Packet>> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; BYTES];
    let wait = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let flags = RecvFlags::CMSG_CLOEXEC | wait;
    let received = match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
        // It ended before it read all that it was sent.
        Err(Errno::CONNRESET) => return Ok(None),
        received => received?,
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet that was cut"));
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(received.bytes);
    Ok(Some(Packet { bytes, descriptors }))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_listener_goes_to_the_other_end_with_its_queue() {
        let (ours, theirs) = pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let client = TcpStream::connect(addr).unwrap();
        send(&ours, b"one", &[listener.as_fd()]).unwrap();
        send(&ours, b"two", &[]).unwrap();
        drop(listener);
        let Packet { bytes, mut descriptors } = receive(&theirs, true).unwrap().unwrap();
        assert_eq!((&*bytes, descriptors.len()), (&b"one"[..], 1));
        let taken = TcpListener::from(descriptors.remove(0));
        let (_, peer) = taken.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        let Packet { bytes, descriptors } = receive(&theirs, true).unwrap().unwrap();
        assert_eq!((&*bytes, descriptors.len()), (&b"two"[..], 0));
        assert_eq!(receive(&theirs, false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(ours);
        assert!(receive(&theirs, true).unwrap().is_none());
        assert!(send(&theirs, b"x", &[]).is_err());
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let (ours, _theirs) = pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = send(&ours, b"x", &vec![listener.as_fd(); DESCRIPTORS + 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let error = send(&ours, &vec![0; BYTES + 1], &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        send(&ours, b"x", &vec![listener.as_fd(); DESCRIPTORS]).unwrap();
    }
}
