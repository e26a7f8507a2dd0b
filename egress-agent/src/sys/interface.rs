//! Interfaces of the network namespace that the process is in. (`/sys/class/net` shows those of the
//! namespace that `/sys` was mounted in.)
#![allow(unsafe_code, reason = "ioctl takes a structure by pointer")]

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `struct ifreq`: a name and a union, of which addresses are read here.
#[repr(C, align(8))]
struct Request {
    name: [u8; 16],
    /// A `sockaddr`, in a union of 24 bytes.
    value: [u8; 24],
}

/// The interface's IPv4 address (its first).
///
/// # Errors
/// `ENODEV` without the interface, `EADDRNOTAVAIL` without an address.
pub fn ipv4(name: &str) -> io::Result<Ipv4Addr> {
    let value = ask(name, libc::SIOCGIFADDR)?;
    Ok(Ipv4Addr::new(value[4], value[5], value[6], value[7]))
}

/// The interface's hardware address, as Ethernet's.
///
/// # Errors
/// `ENODEV` without the interface.
pub fn mac(name: &str) -> io::Result<[u8; 6]> {
    let value = ask(name, libc::SIOCGIFHWADDR)?;
    Ok([value[2], value[3], value[4], value[5], value[6], value[7]])
}

fn ask(name: &str, request: libc::Ioctl) -> io::Result<[u8; 24]> {
    let mut asked = Request { name: [0; 16], value: [0; 24] };
    let bytes = name.as_bytes();
    // The last byte ends the name.
    let place = asked.name[..15].get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
    place.copy_from_slice(bytes);
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    // SAFETY: both requests read the name and write the union of an `ifreq`, whose size and
    // alignment `Request` has.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request, &raw mut asked) };
    if done == 0 { Ok(asked.value) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_and_nonsense_is_not() {
        assert_eq!(size_of::<Request>(), size_of::<libc::ifreq>());
        assert_eq!(ipv4("lo").unwrap(), Ipv4Addr::LOCALHOST);
        assert_eq!(mac("lo").unwrap(), [0; 6]);
        assert_eq!(ipv4("no-such").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(ipv4("a name that is far too long").is_err());
    }
}
