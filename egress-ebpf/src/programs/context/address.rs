//! The addresses of system calls.

use aya_ebpf::bindings::bpf_sock_addr;
use egress_ebpf::{
    addr::{Addr, PortBe},
    endpoint::Reach,
    packet::{Flow, protocol},
};

const AF_UNSPEC: u32 = 0;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// A socket's protocol, not a packet's: its packets are TCP (`include/uapi/linux/in.h`).
const IPPROTO_MPTCP: u32 = 262;

/// An IPv6 address from four words in network byte order.
///
/// The words are read one by one, since the verifier knows of no wider access to every context.
macro_rules! read_addr6 {
    ($words:expr) => {{
        egress_ebpf::addr::Addr::from_words([
            (&raw const $words[0]).read_volatile(),
            (&raw const $words[1]).read_volatile(),
            (&raw const $words[2]).read_volatile(),
            (&raw const $words[3]).read_volatile(),
        ])
    }};
}
pub(crate) use read_addr6;

/// The address of a system call, in a hook of one family: the verifier lets a hook touch only its
/// own family's fields.
pub(crate) trait SocketAddr: Copy {
    /// The kernel's context.
    fn context(self) -> *mut bpf_sock_addr;
    /// The address in it.
    fn addr(self) -> Addr;
    /// Whether the hook knows what this address family means.
    fn knows(family: u32) -> bool;
    /// Puts another address in.
    fn set_addr(self, addr: Addr);
    /// What a socket that asks for `addr` can be sent to.
    fn reach(self, addr: &Addr) -> Reach;

    /// The port in it.
    #[inline(always)]
    fn port(self) -> PortBe {
        // SAFETY: the kernel gives a valid context, and the verifier checks each access to it.
        let port = unsafe { (&raw const (*self.context()).user_port).read_volatile() };
        // The low half holds the port in network byte order; the rest is zero.
        let [low, high, ..] = port.to_le_bytes();
        PortBe(u16::from_le_bytes([low, high]).to_ne_bytes())
    }

    /// Puts another port in.
    #[inline(always)]
    fn set_port(self, port: PortBe) {
        let port = u32::from(u16::from_ne_bytes(port.0));
        // SAFETY: as in `port`; the field may be written in connect and getpeername hooks.
        unsafe { (&raw mut (*self.context()).user_port).write_volatile(port) };
    }

    /// Whether the hook can judge the system call.
    #[inline(always)]
    fn judges(self) -> bool {
        // SAFETY: as in `port`.
        Self::knows(unsafe { (&raw const (*self.context()).user_family).read_volatile() })
    }

    /// What the system call wants.
    #[inline(always)]
    fn flow(self) -> Flow {
        // SAFETY: as in `port`.
        let protocol = unsafe { (&raw const (*self.context()).protocol).read_volatile() };
        let protocol = match protocol {
            IPPROTO_MPTCP => protocol::TCP,
            // A number without a route: whatever else can't be named here is refused.
            other => u8::try_from(other).unwrap_or(u8::MAX),
        };
        Flow { destination: self.addr(), destination_port: self.port(), protocol, ..Flow::UNKNOWN }
    }
}

/// The context of a hook for IPv4.
#[derive(Clone, Copy)]
pub(crate) struct V4(pub(crate) *mut bpf_sock_addr);

impl SocketAddr for V4 {
    #[inline(always)]
    fn context(self) -> *mut bpf_sock_addr {
        self.0
    }

    #[inline(always)]
    fn addr(self) -> Addr {
        // SAFETY: as in `SocketAddr::port`.
        Addr::v4(unsafe { (&raw const (*self.0).user_ip4).read_volatile() }.to_ne_bytes())
    }

    /// Linux takes an `AF_UNSPEC` address in `sendto` on an IPv4 socket for an IPv4 address; in
    /// `connect` it disconnects and doesn't come here.
    #[inline(always)]
    fn knows(family: u32) -> bool {
        matches!(family, AF_INET | AF_UNSPEC)
    }

    #[inline(always)]
    fn set_addr(self, addr: Addr) {
        if let Some(octets) = addr.as_v4() {
            // SAFETY: as in `SocketAddr::set_port`.
            unsafe { (&raw mut (*self.0).user_ip4).write_volatile(u32::from_ne_bytes(octets)) };
        }
    }

    #[inline(always)]
    fn reach(self, _addr: &Addr) -> Reach {
        Reach::V4
    }
}

/// The context of a hook for IPv6. IPv4-mapped addresses come here, too.
#[derive(Clone, Copy)]
pub(crate) struct V6(pub(crate) *mut bpf_sock_addr);

impl SocketAddr for V6 {
    #[inline(always)]
    fn context(self) -> *mut bpf_sock_addr {
        self.0
    }

    #[inline(always)]
    fn addr(self) -> Addr {
        // SAFETY: as in `SocketAddr::port`.
        unsafe { read_addr6!((*self.0).user_ip6) }
    }

    #[inline(always)]
    fn knows(family: u32) -> bool {
        family == AF_INET6
    }

    #[inline(always)]
    fn set_addr(self, addr: Addr) {
        let [a, b, c, d] = addr.words();
        // SAFETY: as in `SocketAddr::set_port`.
        unsafe {
            let words = &raw mut (*self.0).user_ip6;
            (&raw mut (*words)[0]).write_volatile(a);
            (&raw mut (*words)[1]).write_volatile(b);
            (&raw mut (*words)[2]).write_volatile(c);
            (&raw mut (*words)[3]).write_volatile(d);
        }
    }

    #[inline(always)]
    fn reach(self, addr: &Addr) -> Reach {
        if addr.is_v4() { Reach::V4First } else { Reach::V6First }
    }
}
