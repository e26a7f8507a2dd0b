//! What arrives outside: a packet socket on the outside's interface.

use std::{
    net::Ipv6Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;

use crate::{netns::NetNs, packets::Packets, plan, wait};

/// Frames that arrived outside since the capture began, or was last asked: pods' packets that got
/// past the enforcement point, by way of the app node, of the remote node or of an interface of
/// their own. What the gateways send isn't among them, nor are ARP and neighbour discovery between
/// the nodes.
#[derive(Debug)]
pub struct Capture {
    outside: NetNs,
    frames: Arc<Mutex<Vec<String>>>,
    /// How many marks were sent, and how many were seen.
    sent: AtomicU64,
    seen: Arc<AtomicU64>,
    _packets: Packets,
}

impl Capture {
    /// Begins. It captures from the moment this returns.
    ///
    /// # Errors
    /// No packet socket.
    pub fn start(outside: &NetNs) -> Result<Self> {
        let frames = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::new(AtomicU64::new(0));
        let (leaks, marks) = (Arc::clone(&frames), Arc::clone(&seen));
        let packets = Packets::read(outside, 8 << 20, move |frame| {
            if let Some(number) = mark(frame) {
                marks.fetch_max(number, Ordering::AcqRel);
            } else if let Some(text) = leak(frame) {
                leaks.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
        })?;
        let outside = outside.clone();
        Ok(Self { outside, frames, sent: AtomicU64::new(0), seen, _packets: packets })
    }

    /// Waits until everything that has arrived by now is in the list: a mark that is sent after it
    /// comes behind it in the socket's queue.
    fn settle(&self) -> Result<()> {
        let number = self.sent.fetch_add(1, Ordering::AcqRel) + 1;
        let payload = [MARK, &number.to_be_bytes()[..]].concat();
        self.outside.enter(|| -> Result<()> {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
            socket.send_to(&payload, "127.0.0.1:9")?;
            Ok(())
        })??;
        wait::until(wait::SOON, "the capture's mark", || {
            (self.seen.load(Ordering::Acquire) >= number).then_some(())
        })
    }

    /// The frames so far, one line each; the list starts anew.
    ///
    /// # Panics
    /// The capture is broken: an empty list would prove nothing.
    pub fn take(&self) -> Vec<String> {
        if let Err(error) = self.settle() {
            panic!("the capture is broken: {error:#}");
        }
        std::mem::take(&mut *self.frames.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The frames so far; the list stays.
    ///
    /// # Panics
    /// As for [`Self::take`].
    #[must_use]
    pub fn frames(&self) -> Vec<String> {
        if let Err(error) = self.settle() {
            panic!("the capture is broken: {error:#}");
        }
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Begins the payload of a capture's own datagrams on loopback.
const MARK: &[u8] = b"capture's mark ";

/// The number of a mark.
fn mark(frame: &[u8]) -> Option<u64> {
    // Ethernet, IPv4 without options, UDP.
    let number = frame.get(14 + 20 + 8..)?.strip_prefix(MARK)?;
    number.first_chunk().copied().map(u64::from_be_bytes)
}

/// Describes a frame to the outside, unless it is the nodes' own business.
fn leak(frame: &[u8]) -> Option<String> {
    let (head, body) = frame.split_at_checked(14)?;
    let (to, from) = (&head[..6], &head[6..12]);
    let is = |address: &[u8], mac: &str| address == plan::mac_bytes(mac);
    let mut others = plan::GATEWAY_MACS.into_iter().chain([plan::OUTSIDE_MAC]);
    // Loopback's frames have addresses of zeros.
    if others.any(|mac| is(from, mac)) || from == [0; 6] {
        return None;
    }
    // Neighbour discovery (RFC 4861: ICMPv6 types 133 to 137).
    let discovers = head[12..] == [0x86, 0xdd]
        && body.get(6) == Some(&58)
        && matches!(body.get(40), Some(133..=137));
    // Group frames of the nodes are their own: they don't forward any. Questions in another's name are not.
    let node = is(from, plan::APP_MAC) || is(from, plan::REMOTE_MAC);
    let group = to[0] & 1 == 1 && (!node || (discovers && !from_link(body)));
    if !is(to, plan::OUTSIDE_MAC) && !group {
        return None;
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match [head[12], head[13]] {
        // ARP
        [0x08, 0x06] => None,
        // On the link of the nodes.
        [0x86, 0xdd] if discovers && from_link(body) && to_link(body) => None,
        // Multicast listener reports (RFC 3810): a hop-by-hop header first.
        [0x86, 0xdd] if group && body.get(6) == Some(&0) && body.get(48) == Some(&143) => None,
        [0x08, 0x00] if body.len() >= 20 => {
            let address = |at: usize| {
                format!("{}.{}.{}.{}", body[at], body[at + 1], body[at + 2], body[at + 3])
            };
            Some(format!("IPv4 protocol {} {} > {}", body[9], address(12), address(16)))
        }
        [0x86, 0xdd] if body.len() >= 40 => Some(format!(
            "IPv6 next header {} {} > {}",
            body[6],
            hex(&body[8..24]),
            hex(&body[24..40])
        )),
        ether_type => {
            Some(format!("ethertype {} {}", hex(&ether_type), hex(&body[..body.len().min(32)])))
        }
    }
}

/// Whether an IPv6 packet's source is on the link of the nodes, and no pod.
fn from_link(packet: &[u8]) -> bool {
    address(packet, 8).is_some_and(|source| source.is_unspecified() || is_on_link(source))
}

/// Whether its destination is on that link, or a group.
fn to_link(packet: &[u8]) -> bool {
    address(packet, 24).is_some_and(|to| to.is_multicast() || is_on_link(to))
}

fn is_on_link(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local() || address.segments()[..4] == plan::NODES_V6
}

fn address(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    packet.get(at..)?.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes))
}
