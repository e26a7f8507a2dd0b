//! Socket calls with addresses and options as the kernel's bytes: what safe interfaces refuse to
//! say (an IPv4 address on an IPv6 socket, no address family at all) is what the probe has to say.
#![allow(
    unsafe_code,
    reason = "no safe interface takes addresses and options that contradict the socket"
)]

use std::{
    ffi::c_int,
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
};

/// `AF_UNSPEC`.
pub const UNSPEC: u16 = 0;
/// `AF_INET`.
pub const INET: u16 = 2;
/// `AF_INET6`.
pub const INET6: u16 = 10;
/// `AF_PACKET`.
pub const PACKET: u16 = 17;

/// A `sockaddr_in` or `sockaddr_in6`, as the address is of, with `family` in its first field.
#[must_use]
pub fn address(addr: SocketAddr, family: u16) -> Vec<u8> {
    let mut bytes = family.to_ne_bytes().to_vec();
    bytes.extend(addr.port().to_be_bytes());
    match addr {
        SocketAddr::V4(addr) => {
            bytes.extend(addr.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(addr) => {
            bytes.extend(addr.flowinfo().to_be_bytes());
            bytes.extend(addr.ip().octets());
            bytes.extend(addr.scope_id().to_ne_bytes());
        }
    }
    bytes
}

/// A `sockaddr_ll` (packet(7)). `ether_type` is in host byte order.
#[must_use]
pub fn link_address(ether_type: u16, ifindex: u32, mac: [u8; 6]) -> Vec<u8> {
    let mut bytes = PACKET.to_ne_bytes().to_vec();
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(ifindex.to_ne_bytes());
    // Hardware type and packet type are the kernel's to fill in.
    bytes.extend([0, 0, 0, 6]);
    bytes.extend(mac);
    bytes.extend([0, 0]);
    bytes
}

/// `setsockopt(2)`.
///
/// # Errors
/// What the kernel said: `ENOPROTOOPT` for an option that it doesn't know.
pub fn set_option(fd: impl AsFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the kernel only reads, and as many bytes as the live slice has.
    let done = unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), length(value)?) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `bind(2)`.
///
/// # Errors
/// What the kernel said.
pub fn bind(fd: impl AsFd, address: &[u8]) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the kernel copies as many bytes as the live slice has, before it looks at any; a
    // `sockaddr` has no alignment for it.
    let done = unsafe { libc::bind(fd, address.as_ptr().cast(), length(address)?) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `connect(2)`.
///
/// # Errors
/// What the kernel said.
pub fn connect(fd: impl AsFd, address: &[u8]) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: as for `bind`.
    let done = unsafe { libc::connect(fd, address.as_ptr().cast(), length(address)?) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `sendto(2)`; no address where `address` is empty.
///
/// # Errors
/// What the kernel said.
pub fn send_to(fd: impl AsFd, data: &[u8], flags: c_int, address: &[u8]) -> io::Result<usize> {
    let fd = fd.as_fd().as_raw_fd();
    let to = if address.is_empty() { std::ptr::null() } else { address.as_ptr().cast() };
    // SAFETY: the kernel only reads, as many bytes as the live slices have; the address is null
    // only with length zero.
    let sent =
        unsafe { libc::sendto(fd, data.as_ptr().cast(), data.len(), flags, to, length(address)?) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn length(bytes: &[u8]) -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn an_address_of_the_other_family_is_sent_as_it_is() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        let sender = UdpSocket::bind("[::]:0").unwrap();
        assert_eq!(send_to(&sender, b"x", 0, &address(to, INET)).unwrap(), 1);
        let mut buffer = [0; 8];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 1);
        let error = send_to(&sender, b"x", 0, &address(to, 99)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn addresses_have_the_kernels_length() {
        let v4 = address("192.0.2.1:7".parse().unwrap(), INET);
        assert_eq!(
            (v4.len(), &v4[2..8]),
            (size_of::<libc::sockaddr_in>(), &[0, 7, 192, 0, 2, 1][..])
        );
        let v6 = address("[2001:db8::1]:7".parse().unwrap(), INET6);
        assert_eq!(v6.len(), size_of::<libc::sockaddr_in6>());
        assert_eq!(link_address(0x800, 1, [0; 6]).len(), size_of::<libc::sockaddr_ll>());
    }

    #[test]
    fn an_unknown_option_is_refused() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = set_option(&socket, libc::SOL_SOCKET, 9999, &[0; 4]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT));
        set_option(&socket, libc::SOL_SOCKET, libc::SO_BROADCAST, &1_i32.to_ne_bytes()).unwrap();
    }
}
