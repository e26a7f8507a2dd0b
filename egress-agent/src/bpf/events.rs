//! Flow events from the kernel's ring buffer.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    time::{Duration, SystemTime},
};

use aya::{
    Ebpf,
    maps::{Map, MapData, RingBuf},
};
use egress_ebpf::{
    abi::{Command, FlowEvent, PolicyId, action, hook},
    reason::Reason,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{Interest, unix::AsyncFd};
use zerocopy::FromBytes;

use super::{Error, load};

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $code:path, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $($(#[$item_doc])* $item,)* }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($code),*].len()] = [$(Self::$item),*];

            /// The number in the map ABI.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self { $(Self::$item => $code,)* }
            }

            /// The name in events and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$item => $text,)* }
            }

            fn from_code(code: u8) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.code() == code)
            }
        }
    };
}

codes! {
    /// Which program gave a verdict.
    Hook {
        /// `connect4`, `connect6`.
        Connect = hook::CONNECT, "connect";
        /// `sendmsg4`, `sendmsg6`.
        Sendmsg = hook::SENDMSG, "sendmsg";
        /// `cgroup_skb` egress.
        Skb = hook::SKB, "skb";
        /// tc ingress of a pod's host-side interface.
        Pod = hook::POD, "pod";
        /// tc egress of the uplink.
        Uplink = hook::UPLINK, "uplink";
        /// The making of a socket, and messages to the kernel (LSM).
        Socket = hook::SOCKET, "socket";
    }
}

codes! {
    /// What a verdict was.
    Action {
        /// It passed.
        Allow = action::ALLOW, "allow";
        /// It was refused or dropped.
        Deny = action::DENY, "deny";
        /// It was sent to a gateway.
        Redirect = action::REDIRECT, "redirect";
    }
}

/// One verdict as it happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flow {
    /// When.
    pub time: SystemTime,
    /// Where.
    pub hook: Hook,
    /// What.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Audit mode let it pass.
    pub audit: bool,
    /// By which policy, and so for which set of workloads.
    pub policy: PolicyId,
    /// Where it came from; of a connect, only if it was sent to a gateway.
    pub source: Option<SocketAddr>,
    /// Where the application wanted to go; absent where it isn't IP.
    pub destination: Option<SocketAddr>,
    /// The gateway that a connect was sent to, unless the tunnel picks it.
    pub gateway: Option<SocketAddr>,
    /// Ethertype of a packet that isn't IP or ARP.
    pub ether_type: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The workload's cgroup id, where the hook sees one.
    pub cgroup: Option<u64>,
    /// The interface's index, where the hook sees one.
    pub ifindex: Option<u32>,
    /// The process that made the system call, by its number in the first PID namespace; absent for a packet.
    pub pid: Option<u32>,
    /// The name that this process has given itself (`/proc/<pid>/comm`).
    pub command: Option<String>,
}

const MAP: &str = "EVENTS";

/// Reads the ring buffer. One reader at a time.
pub struct Events {
    ring: AsyncFd<Ring>,
    boot: SystemTime,
}

struct Ring(RingBuf<MapData>);

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl Events {
    /// Must be called inside a runtime.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Self::open(load::map(ebpf, MAP)?)
    }

    /// Must be called inside a runtime.
    pub(super) fn open(map: Map) -> Result<Self, Error> {
        let ring = RingBuf::try_from(map).map_err(|error| Error::Map { map: MAP, error })?;
        #[expect(
            deprecated,
            reason = "its successor is the same but unsafe; this ring keeps its descriptor open"
        )]
        let ring = AsyncFd::with_interest(Ring(ring), Interest::READABLE)
            .map_err(Error::io("can't wait for flow events"))?;
        Ok(Self { ring, boot: boot_time() })
    }

    /// Waits for events and hands over all that are there. An event that this agent can't read
    /// (of an unknown reason, say) is counted in the result.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn read(&mut self, mut each: impl FnMut(Flow)) -> io::Result<usize> {
        let mut guard = self.ring.readable_mut().await?;
        let mut unreadable = 0;
        while let Some(item) = guard.get_inner_mut().0.next() {
            match decode(&item, self.boot) {
                Some(flow) => each(flow),
                None => unreadable += 1,
            }
        }
        guard.clear_ready();
        Ok(unreadable)
    }
}

/// When CLOCK_MONOTONIC, which the programs use, was zero.
fn boot_time() -> SystemTime {
    let monotonic = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(monotonic.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(monotonic.tv_nsec).unwrap_or(0);
    SystemTime::now() - Duration::new(seconds, nanoseconds)
}

fn decode(bytes: &[u8], boot: SystemTime) -> Option<Flow> {
    let event = FlowEvent::read_from_bytes(bytes).ok()?;
    let FlowEvent {
        time,
        cgroup,
        ifindex,
        policy,
        source,
        destination,
        gateway,
        source_port,
        destination_port,
        gateway_port,
        ether_type,
        protocol,
        hook,
        action,
        reason,
        audit,
        reserved: _,
        pid,
        command,
    } = event;
    let socket = |addr: IpAddr, port: u16| {
        (!addr.is_unspecified() || port != 0).then(|| SocketAddr::new(addr, port))
    };
    Some(Flow {
        time: boot + Duration::from_nanos(time),
        hook: Hook::from_code(hook)?,
        action: Action::from_code(action)?,
        reason: Reason::from_code(reason)?,
        audit: audit != 0,
        policy,
        source: socket(source.into(), source_port.get()),
        destination: socket(destination.into(), destination_port.get()),
        gateway: socket(gateway.into(), gateway_port.get()),
        ether_type,
        protocol,
        cgroup: (cgroup != 0).then_some(cgroup),
        ifindex: (ifindex != 0).then_some(ifindex),
        pid: (pid != 0).then_some(pid),
        command: name(&command),
    })
}

/// What is before the first zero; a process may have given itself any bytes.
pub(super) fn name(command: &Command) -> Option<String> {
    let name = command.split(|byte| *byte == 0).next()?;
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use egress_ebpf::addr::{Addr, PortBe};
    use zerocopy::IntoBytes;

    use super::*;

    fn event() -> FlowEvent {
        FlowEvent {
            time: 1_500_000_000,
            cgroup: 0,
            ifindex: 7,
            policy: 0,
            source: Addr::v4([10, 0, 0, 5]),
            destination: Addr::v4([198, 51, 100, 7]),
            gateway: Addr::UNSPECIFIED,
            source_port: PortBe::new(40000),
            destination_port: PortBe::new(443),
            gateway_port: PortBe::new(0),
            ether_type: 0x0800,
            protocol: 6,
            hook: hook::POD,
            action: action::DENY,
            reason: Reason::NotRedirected as u8,
            audit: 0,
            reserved: [0; 7],
            pid: 0,
            command: [0; _],
        }
    }

    #[test]
    fn an_event_is_read_in_the_right_byte_order() {
        let flow = decode(event().as_bytes(), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(flow.time, SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
        assert_eq!(flow.source, Some("10.0.0.5:40000".parse().unwrap()));
        assert_eq!(flow.destination, Some("198.51.100.7:443".parse().unwrap()));
        assert_eq!((flow.hook, flow.action), (Hook::Pod, Action::Deny));
        assert_eq!((flow.cgroup, flow.ifindex, flow.gateway), (None, Some(7), None));
        assert_eq!(flow.pid, None);
        let redirected = FlowEvent {
            gateway: Addr::v4([192, 0, 2, 10]),
            gateway_port: PortBe::new(8443),
            ..event()
        };
        let flow = decode(redirected.as_bytes(), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(flow.gateway, Some("192.0.2.10:8443".parse().unwrap()));
        assert_eq!(flow.command, None);
        let connect = FlowEvent { pid: 4711, command: *b"curl\0\0\0leftover\0", ..event() };
        let flow = decode(connect.as_bytes(), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!((flow.pid, flow.command.as_deref()), (Some(4711), Some("curl")));
        let strange = FlowEvent { command: *b"16 bytes, no end", ..connect };
        let flow = decode(strange.as_bytes(), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(flow.command.as_deref(), Some("16 bytes, no end"));
    }

    #[test]
    fn what_is_unknown_or_short_is_not_guessed() {
        let boot = SystemTime::UNIX_EPOCH;
        assert!(decode(&event().as_bytes()[1..], boot).is_none());
        assert!(decode(&[], boot).is_none());
        for change in [
            |event: &mut FlowEvent| event.reason = 255,
            |event: &mut FlowEvent| event.hook = hook::COUNT,
            |event: &mut FlowEvent| event.action = action::COUNT,
        ] {
            let mut event = event();
            change(&mut event);
            assert!(decode(event.as_bytes(), boot).is_none(), "{event:?}");
        }
    }
}
