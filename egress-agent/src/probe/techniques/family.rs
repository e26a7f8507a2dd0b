//! Sockets that aren't of the internet's families.

use std::io;

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    super::{
        attempt::{AttemptResult, RunningAttempt},
        outcome::{Call, Outcome},
        packet,
    },
    raw, stream,
    udp::{await_echo, ear},
};
use crate::sys::{
    raw::{INET, INET6, address, connect},
    xdp::XdpSocket,
};

/// linux/socket.h: AF_SMC.
const SMC: i32 = 43;
/// linux/in.h: IPPROTO_SMC.
const IPPROTO_SMC: i32 = 256;
/// linux/vm_sockets.h: VMADDR_CID_HOST.
const HOST: u32 = 2;

/// The hypervisor's socket, past all networks.
pub(crate) fn vsock(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = this.needed("socket(AF_VSOCK)", Socket::new(Domain::VSOCK, Type::STREAM, None))?;
    this.needed("non-blocking", socket.set_nonblocking(true))?;
    // struct sockaddr_vm: family, nothing, port, host, flags and nothing.
    let mut to = u16::try_from(libc::AF_VSOCK).unwrap_or(0).to_ne_bytes().to_vec();
    to.extend([0, 0]);
    to.extend(u32::from(this.port).to_ne_bytes());
    to.extend(HOST.to_ne_bytes());
    to.extend([0; 4]);
    let begun = connect(&socket, &to);
    if let Err(error) = &begun
        && error.raw_os_error() == Some(libc::ENODEV)
    {
        return Err(Outcome::NotApplicable("connect(AF_VSOCK): ENODEV, no hypervisor".into()));
    }
    stream::finish(this, &socket, Call::Connect, begun)?;
    Ok(Outcome::Answered("the hypervisor accepted a connection".into()))
}

/// Shared memory over RDMA, which falls back to a TCP connection of the kernel's own.
pub(crate) fn smc(this: &RunningAttempt<'_>) -> AttemptResult {
    let v6 = this.target.is_ipv6();
    let made = Socket::new(Domain::from(SMC), Type::STREAM, Some(Protocol::from(i32::from(v6))));
    let socket = this.needed("socket(AF_SMC)", made)?;
    this.needed("non-blocking", socket.set_nonblocking(true))?;
    let to = address(this.to(), if v6 { INET6 } else { INET });
    stream::finish(this, &socket, Call::Connect, connect(&socket, &to))?;
    Ok(stream::converse(this, &socket))
}

/// The same as a protocol of the internet's families (kernel 6.11).
pub(crate) fn smc_protocol(this: &RunningAttempt<'_>) -> AttemptResult {
    let domain = Domain::for_address(this.to());
    let made = Socket::new(domain, Type::STREAM, Some(Protocol::from(IPPROTO_SMC)));
    let socket = this.needed("socket(IPPROTO_SMC)", made)?;
    stream::establish(this, &socket, &this.to().into())?;
    Ok(stream::converse(this, &socket))
}

/// A frame through an `AF_XDP` socket.
pub(crate) fn xdp(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let packet = raw::datagram(this, this.own()?, port);
    let network = this.network()?;
    let frame = packet::ethernet(network.link(), packet::ether_type(&packet), &packet);
    let opened: io::Result<XdpSocket> = XdpSocket::open(network.index);
    let socket = this.needed("AF_XDP socket", opened)?;
    let sent = socket.send(&frame);
    // xsk_generic_xmit: the driver has dropped it. Linux 6.1 does so with each on a veth interface.
    if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy) {
        let cause = "send: EBUSY, this kernel drops the frame before it is sent";
        return Err(Outcome::NotApplicable(cause.into()));
    }
    this.tried(Call::Send, sent)?;
    Ok(await_echo(this, &ear))
}
