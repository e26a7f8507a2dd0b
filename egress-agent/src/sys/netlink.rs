//! Asking the kernel over netlink (netlink(7)), in the network namespace of the calling thread.
//!
//! Messages are framed by `netlink-packet-core`; of their content only what is needed is read, so
//! that an interface or a filter of a kind that nobody here has heard of is listed all the same.

pub mod addresses;
pub mod filters;
pub mod links;
pub mod namespaces;
pub mod routes;
pub mod sockets;

use std::{convert::Infallible, io, ops::ControlFlow, os::fd::OwnedFd};

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::SocketAddrNetlink, recv, send, socket_with,
};

/// The kernel's messages are at most this long (`NLMSG_GOODSIZE` up to 32 KiB in dumps).
const BUFFER: usize = 64 * 1024;
/// Attempts at a dump that changes under its reader, before it is taken as it is.
const ATTEMPTS: usize = 5;

/// A message that isn't netlink's own: its type and what follows the header.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Message {
    kind: u16,
    payload: Vec<u8>,
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self { kind: header.message_type, payload: payload.to_vec() })
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.payload);
    }
}

/// A socket for requests; no protocol is rtnetlink. What others than the kernel send is refused.
fn connect(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let socket = open(protocol, SocketFlags::empty())?;
    rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

fn open(protocol: Option<Protocol>, flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?)
}

/// Asks for everything of a kind. A dump that the kernel calls inconsistent is asked for again.
fn dump(protocol: Option<Protocol>, request: &Message) -> io::Result<Vec<Message>> {
    let socket = connect(protocol)?;
    let mut answer = Vec::new();
    for _ in 0..ATTEMPTS {
        let consistent;
        (answer, consistent) = exchange(&socket, request, NLM_F_DUMP)?;
        if consistent {
            break;
        }
    }
    Ok(answer)
}

/// Sends a request and reads its answer to the end; the flag says whether it is consistent.
fn exchange(socket: &OwnedFd, request: &Message, flags: u16) -> io::Result<(Vec<Message>, bool)> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.clone()));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    send(socket, &bytes, SendFlags::empty())?;

    let mut messages = Vec::new();
    let mut consistent = true;
    let mut buffer = vec![0; BUFFER];
    loop {
        let (got, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let end = read(&buffer[..got], |header, message| {
            consistent &= header.flags & NLM_F_DUMP_INTR == 0;
            messages.push(message);
        })?;
        if end.is_break() {
            return Ok((messages, consistent));
        }
    }
}

/// Reads the messages of one datagram; `Break` when the answer is complete.
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn read(
    datagram: &[u8],
    mut each: impl FnMut(&NetlinkHeader, Message),
) -> io::Result<ControlFlow<()>> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message: NetlinkMessage<Message> = NetlinkMessage::deserialize(rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => each(&message.header, inner),
            // Zero is an acknowledgement.
            NetlinkPayload::Error(error) if error.code.is_none() => {
                return Ok(ControlFlow::Break(()));
            }
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            NetlinkPayload::Done(done) if done.code != 0 => {
                return Err(io::Error::from_raw_os_error(done.code.saturating_abs()));
            }
            NetlinkPayload::Done(_) => return Ok(ControlFlow::Break(())),
            // No-operation, a lost message (the socket's error tells of it), and what may come.
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(ControlFlow::Continue(()))
}

/// The attributes of a message after its fixed part, up to the first one that can't be read.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let readable = NlasIterator::new(bytes).map_while(Result::ok);
    readable.filter_map(|attribute| {
        let end = usize::from(attribute.length());
        Some((attribute.kind(), attribute.into_inner().get(NLA_HEADER_SIZE..end)?))
    })
}

/// A number in an attribute, in the host's byte order.
fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// A name in an attribute, which ends with a zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u16, payload: &[u8]) -> Vec<u8> {
        let message = Message { kind, payload: payload.to_vec() };
        let payload = NetlinkPayload::InnerMessage(message);
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), payload);
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_datagram_is_read_message_by_message() {
        let datagram = [frame(16, b"one"), frame(17, b"two!"), frame(3, &[0; 4])].concat();
        let mut seen = Vec::new();
        let end = read(&datagram, |_, message| seen.push((message.kind, message.payload))).unwrap();
        assert!(end.is_break());
        assert_eq!(seen, [(16, b"one".to_vec()), (17, b"two!".to_vec())]);
        // Not to the end of the answer.
        assert!(read(&frame(16, b"one"), |_, _| {}).unwrap().is_continue());
    }

    #[test]
    fn refusals_and_garbage_are_errors() {
        // NLMSG_ERROR with -EPERM, and the header of what was asked.
        let refusal = frame(2, &[&(-1_i32).to_ne_bytes()[..], &[0; 16]].concat());
        let error = read(&refusal, |_, _| {}).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let whole = frame(16, b"payload");
        for end in 1..whole.len() - 1 {
            assert!(read(&whole[..end], |_, _| panic!("it isn't whole")).is_err(), "{end}");
        }
    }

    #[test]
    fn attributes_end_where_they_cannot_be_read() {
        let good = [8, 0, 3, 0, b'l', b'o', 0, 0];
        let bad = [200, 0, 1, 0];
        let bytes = [&good[..], &bad[..]].concat();
        let all: Vec<_> = attributes(&bytes).map(|(kind, value)| (kind, text(value))).collect();
        assert_eq!(all, [(3, "lo".to_owned())]);
        assert_eq!((number(&[1]), number(&1_u32.to_ne_bytes())), (None, Some(1)));
    }
}
