//! What goes over the wire between two hosts: the TCP streams on one interface, put together.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, bail};

use crate::{netns::NetNs, packets::Packets};

/// One direction of a TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Flow {
    /// Sender.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
}

/// Segments by sequence number, relative to the first.
#[derive(Clone, Debug, Default)]
struct Segments {
    first: Option<u32>,
    data: BTreeMap<u32, Vec<u8>>,
}

type Streams = BTreeMap<Flow, Segments>;

/// A capture; it ends when it is dropped.
#[derive(Debug)]
pub struct Between {
    streams: Arc<Mutex<Streams>>,
    _packets: Packets,
}

impl Between {
    /// Captures everything that this host sends and receives over Ethernet.
    ///
    /// # Errors
    /// No packet socket.
    pub fn start(host: &NetNs) -> Result<Self> {
        let streams = Arc::<Mutex<Streams>>::default();
        let noted = Arc::clone(&streams);
        let packets = Packets::read(host, 64 << 20, move |frame| {
            note(&mut noted.lock().unwrap_or_else(PoisonError::into_inner), frame);
        })?;
        Ok(Self { streams, _packets: packets })
    }

    /// The bytes of each direction so far, from its first to the first that is missing.
    #[must_use]
    pub fn streams(&self) -> BTreeMap<Flow, Vec<u8>> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.iter().map(|(flow, segments)| (*flow, segments.joined())).collect()
    }
}

impl Segments {
    fn joined(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (at, data) in &self.data {
            let at = usize::try_from(*at).unwrap_or(usize::MAX);
            // What was sent again may overlap.
            let Some(known) = bytes.len().checked_sub(at) else { break };
            bytes.extend_from_slice(data.get(known..).unwrap_or_default());
        }
        bytes
    }
}

/// Takes a frame, if it is TCP.
fn note(streams: &mut Streams, frame: &[u8]) -> Option<()> {
    let packet = frame.get(14..)?;
    let (from, to, segment) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 15) * 4;
            let length = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
            if *packet.get(9)? != 6 {
                return None;
            }
            let addr = |at: usize| -> Option<IpAddr> {
                let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(bytes).into())
            };
            // A length of zero stands for a packet that is still to be cut into segments.
            let end = if length == 0 { packet.len() } else { length.min(packet.len()) };
            (addr(12)?, addr(16)?, packet.get(header..end)?)
        }
        [0x86, 0xdd] => {
            if *packet.get(6)? != 6 {
                return None;
            }
            let addr = |at: usize| -> Option<IpAddr> {
                let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(bytes).into())
            };
            let length = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
            let end = if length == 0 { packet.len() } else { (40 + length).min(packet.len()) };
            (addr(8)?, addr(24)?, packet.get(40..end)?)
        }
        _ => return None,
    };
    let port = |at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(segment.get(at..at + 2)?.try_into().ok()?))
    };
    let flow = Flow { from: (from, port(0)?).into(), to: (to, port(2)?).into() };
    let number = u32::from_be_bytes(segment.get(4..8)?.try_into().ok()?);
    let (header, flags) = (usize::from(segment.get(12)? >> 4) * 4, *segment.get(13)?);
    let data = segment.get(header..)?;
    let stream = streams.entry(flow).or_default();
    if flags & 0x02 != 0 {
        stream.first = Some(number.wrapping_add(1));
    }
    let first = *stream.first.get_or_insert(number);
    let offset = number.wrapping_sub(first);
    // A keep-alive lies one byte before the data.
    if !data.is_empty() && offset < 1 << 31 {
        stream.data.entry(offset).or_insert_with(|| data.to_vec());
    }
    Some(())
}

/// Whether the bytes of one direction are TLS 1.3 from the first record on: one hello, and then
/// nothing that can be read but the change-cipher-spec that middleboxes want to see (RFC 8446 §D.4).
///
/// # Errors
/// What they are instead.
pub fn is_tls13(bytes: &[u8]) -> Result<()> {
    let (mut rest, mut records) = (bytes, 0);
    while let Some((head, body)) = rest.split_at_checked(5) {
        let (kind, version) = (head[0], [head[1], head[2]]);
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if version[0] != 3 || length > 16_384 + 256 {
            bail!("record {records} isn't TLS: {head:02x?}");
        }
        let whole = body.len() >= length;
        let data = &body[..length.min(body.len())];
        match kind {
            22 if records == 0 => {
                // Both hellos name the version in `supported_versions` (43): a list, or the choice.
                let offered = data.windows(4).any(|part| part == [0, 43, 0, 2])
                    && data.windows(6).any(|part| part == [0, 43, 0, 2, 3, 4]);
                let only = data.windows(7).any(|part| part == [0, 43, 0, 3, 2, 3, 4]);
                if whole && !offered && !only {
                    bail!("the hello doesn't name TLS 1.3 and nothing else: {data:02x?}");
                }
            }
            20 | 23 if records > 0 => {}
            kind => bail!("record {records} has the type {kind}, which can be read"),
        }
        records += 1;
        rest = body.get(length..).unwrap_or_default();
    }
    if records == 0 && !bytes.is_empty() {
        bail!("{bytes:02x?} is no TLS record");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_and_older_versions_are_told() {
        assert!(is_tls13(b"GET / HTTP/1.1\r\n").is_err());
        let hello = |versions: &[u8]| {
            let mut hello = vec![22, 3, 1, 0, u8::try_from(versions.len()).unwrap()];
            hello.extend_from_slice(versions);
            hello
        };
        let client = hello(&[0, 43, 0, 3, 2, 3, 4]);
        let server = hello(&[0, 43, 0, 2, 3, 4]);
        for good in [&client, &server] {
            let all = [&good[..], &[20, 3, 3, 0, 1, 1], &[23, 3, 3, 0, 2, 9, 9]].concat();
            is_tls13(&all).unwrap();
            // A certificate that can be read, as TLS 1.2 sends it.
            let older = [&good[..], &[22, 3, 3, 0, 1, 11]].concat();
            assert!(is_tls13(&older).is_err());
        }
        // Both versions offered.
        assert!(is_tls13(&hello(&[0, 43, 0, 5, 4, 3, 4, 3, 3])).is_err());
        assert!(is_tls13(&hello(&[0, 23, 0, 0])).is_err());
    }

    #[test]
    fn segments_are_put_together_in_order() {
        let mut segments = Segments { first: Some(1), ..Segments::default() };
        segments.data.insert(3, b"def".to_vec());
        assert_eq!(segments.joined(), b"");
        segments.data.insert(0, b"abcd".to_vec());
        assert_eq!(segments.joined(), b"abcdef");
    }
}
