//! What arrives outside: a packet socket on the outside's interface.

use std::{
    io::{ErrorKind, Read},
    net::Ipv6Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{netns::NetNs, plan};

/// `ETH_P_ALL` in network byte order: every packet, of either direction.
const EVERY_PACKET: u16 = 0x0003_u16.to_be();

/// Frames that the app node sent to the outside since the capture began, or was last asked: pods'
/// packets that got past the wall. What the gateways send isn't among them, nor are ARP and
/// neighbour discovery between the nodes.
#[derive(Debug)]
pub struct Capture {
    frames: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Begins. It captures from the moment this returns.
    ///
    /// # Errors
    /// No packet socket.
    pub fn start(outside: &NetNs) -> Result<Self> {
        let mut socket = outside.enter(|| -> Result<Socket> {
            let socket = Socket::new(
                Domain::PACKET,
                Type::RAW,
                Some(Protocol::from(i32::from(EVERY_PACKET))),
            )?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            socket.set_recv_buffer_size(8 << 20)?;
            Ok(socket)
        })??;
        let frames = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (frames, stop) = (frames.clone(), stop.clone());
            move || {
                let mut buffer = vec![0; 65_536];
                while !stop.load(Ordering::Acquire) {
                    match socket.read(&mut buffer) {
                        Ok(length) => {
                            if let Some(text) = leak(&buffer[..length]) {
                                frames.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                            }
                        }
                        Err(error)
                            if matches!(
                                error.kind(),
                                ErrorKind::WouldBlock
                                    | ErrorKind::TimedOut
                                    | ErrorKind::Interrupted
                            ) => {}
                        Err(_) => return,
                    }
                }
            }
        });
        Ok(Self { frames, stop, thread: Some(thread) })
    }

    /// The frames so far, one line each; the list starts anew.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.frames.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The frames so far; the list stays.
    #[must_use]
    pub fn frames(&self) -> Vec<String> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Describes a frame from the app node to the outside, unless it is the nodes' own business.
fn leak(frame: &[u8]) -> Option<String> {
    let (head, body) = frame.split_at_checked(14)?;
    if head[..6] != plan::mac_bytes(plan::OUTSIDE_MAC)
        || head[6..12] != plan::mac_bytes(plan::APP_MAC)
    {
        return None;
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match [head[12], head[13]] {
        // ARP
        [0x08, 0x06] => None,
        // Neighbour discovery (RFC 4861: ICMPv6 types 133 to 137), the node's own.
        [0x86, 0xdd]
            if body.get(6) == Some(&58)
                && matches!(body.get(40), Some(133..=137))
                && from_app_node(body) =>
        {
            None
        }
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

/// Whether an IPv6 packet's source is the app node: its address, or a link-local one.
fn from_app_node(packet: &[u8]) -> bool {
    let source = packet.get(8..24).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    source
        .map(Ipv6Addr::from)
        .is_some_and(|source| source.is_unicast_link_local() || plan::APP_V6.parse() == Ok(source))
}
