//! The gateway's capture: one listener gets the connections to every TCP port of its addresses.
//! Minimum kernel version: 5.9.

use std::{
    fs::File,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapError, SockMap},
    programs::Program,
};
use egress_ebpf::{
    abi::{CAPTURE_EVERY_ADDRESS, capture_socket},
    addr::{Addr, PortBe},
};

use super::{Error, host, load, pod::Raw};

const PROGRAM: &str = "capture";

/// A capture in force; dropping it ends it. It isn't pinned: without its process there is nobody to
/// answer, and a connection that nobody captures is refused.
#[derive(Debug)]
pub struct Capture {
    _ebpf: Ebpf,
}

/// Sends new TCP connections to `addresses` (every local address but loopback, if empty), whatever
/// port they are for but `excluded` ones, to `listener`. The accepted socket's local port is the
/// port that was dialled.
///
/// A listener for both families is given as `v6` and as `v4`; only one on the unspecified address
/// is one, the kernel makes others IPv6-only. One of a group of `SO_REUSEPORT` stands for the group.
///
/// # Errors
/// The host can't do it, or the kernel refuses.
pub fn attach(
    v4: Option<BorrowedFd<'_>>,
    v6: Option<BorrowedFd<'_>>,
    addresses: &[IpAddr],
    excluded: &[u16],
) -> Result<Capture, Error> {
    host::check()?;
    let mut ebpf = load::gateway()?;
    let Program::SkLookup(program) = load::program(&mut ebpf, PROGRAM)? else {
        return Err(Error::Missing { what: "sk_lookup program", name: PROGRAM.to_owned() });
    };
    let netns = File::open("/proc/thread-self/ns/net")
        .map_err(Error::io("can't open the network namespace"))?;
    program.attach(netns.as_fd()).map_err(|error| Error::Attach {
        program: PROGRAM,
        target: "the network namespace".into(),
        error: error.to_string(),
    })?;
    // Filled last: an address that is captured has its listener in place.
    fill_excluded(&mut ebpf, excluded).map_err(in_map("CAPTURE_EXCLUDED"))?;
    fill_sockets(&mut ebpf, v4, v6).map_err(in_map("CAPTURE_SOCKETS"))?;
    fill_addresses(&mut ebpf, addresses).map_err(in_map("CAPTURE_ADDRESSES"))?;
    Ok(Capture { _ebpf: ebpf })
}

fn in_map(map: &'static str) -> impl FnOnce(MapError) -> Error {
    move |error| Error::Map { map, error }
}

fn fill_excluded(ebpf: &mut Ebpf, ports: &[u16]) -> Result<(), MapError> {
    let Some(map) = ebpf.map_mut("CAPTURE_EXCLUDED") else { return Err(MapError::ElementNotFound) };
    let mut map: HashMap<_, Raw<PortBe>, u32> = HashMap::try_from(map)?;
    ports.iter().try_for_each(|port| map.insert(Raw(PortBe::new(*port)), 1, 0))
}

fn fill_sockets(
    ebpf: &mut Ebpf,
    v4: Option<BorrowedFd<'_>>,
    v6: Option<BorrowedFd<'_>>,
) -> Result<(), MapError> {
    let Some(map) = ebpf.map_mut("CAPTURE_SOCKETS") else { return Err(MapError::ElementNotFound) };
    let mut map = SockMap::try_from(map)?;
    for (index, listener) in [(capture_socket::V4, v4), (capture_socket::V6, v6)] {
        if let Some(listener) = listener {
            map.set(index, &listener.as_raw_fd(), 0)?;
        }
    }
    Ok(())
}

fn fill_addresses(ebpf: &mut Ebpf, addresses: &[IpAddr]) -> Result<(), MapError> {
    let Some(map) = ebpf.map_mut("CAPTURE_ADDRESSES") else {
        return Err(MapError::ElementNotFound);
    };
    let mut map: HashMap<_, Raw<Addr>, u32> = HashMap::try_from(map)?;
    if addresses.is_empty() {
        return map.insert(Raw(CAPTURE_EVERY_ADDRESS), 1, 0);
    }
    addresses.iter().try_for_each(|addr| map.insert(Raw(Addr::from(*addr)), 1, 0))
}
