//! The filters of an interface's clsact hooks, in the order in which a packet meets them.

use std::io;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Message, attributes, dump, number, text};

/// `RTM_NEWTFILTER` and `RTM_GETTFILTER`, include/uapi/linux/rtnetlink.h.
const NEWTFILTER: u16 = 44;
const GETTFILTER: u16 = 46;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)` and its twin, include/uapi/linux/pkt_sched.h.
const PARENT_INGRESS: u32 = 0xffff_fff2;
const PARENT_EGRESS: u32 = 0xffff_fff3;
/// `TCA_KIND`, `TCA_OPTIONS` and `TCA_CHAIN`, include/uapi/linux/rtnetlink.h.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const CHAIN: u16 = 11;
/// `TCA_BPF_NAME` and `TCA_BPF_ID`, include/uapi/linux/pkt_cls.h.
const BPF_NAME: u16 = 7;
const BPF_ID: u16 = 11;

/// `struct tcmsg`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    family: u8,
    pad: [u8; 3],
    index: u32,
    handle: u32,
    parent: u32,
    /// Priority in the upper half, protocol in the lower.
    info: u32,
}

/// Which hook of an interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Direction {
    /// What comes in.
    Ingress,
    /// What goes out.
    Egress,
}

/// A filter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// The chain that it is in; a packet begins in chain 0.
    pub chain: u32,
    /// Smaller runs first.
    pub priority: u32,
    /// Its number at that priority.
    pub handle: u32,
    /// What kind of classifier: `bpf`, `flower`, …
    pub kind: String,
    /// The name that a `bpf` one was given.
    pub name: String,
    /// The id of the program of a `bpf` one.
    pub program: Option<u32>,
}

/// The filters of a hook in the order in which a packet meets them: by chain and priority, and
/// as the kernel lists them within one. Empty without a clsact qdisc.
///
/// # Errors
/// The kernel can't be asked.
pub fn list(index: u32, direction: Direction) -> io::Result<Vec<Filter>> {
    let parent = match direction {
        Direction::Ingress => PARENT_INGRESS,
        Direction::Egress => PARENT_EGRESS,
    };
    let header = Header { index, parent, ..Header::default() };
    let request = Message { kind: GETTFILTER, payload: header.as_bytes().to_vec() };
    let mut filters: Vec<Filter> = dump(None, &request)?.iter().filter_map(filter).collect();
    // Stable: `cls_bpf` walks and lists its filters in the same order, the newest first.
    filters.sort_by_key(|filter| (filter.chain, filter.priority));
    Ok(filters)
}

/// `None` for what is no filter: each priority also announces itself, with handle zero.
fn filter(message: &Message) -> Option<Filter> {
    let (header, rest) = Header::read_from_prefix(&message.payload).ok()?;
    if message.kind != NEWTFILTER || header.handle == 0 {
        return None;
    }
    let find = |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, v)| v);
    let options = find(rest, OPTIONS).unwrap_or_default();
    Some(Filter {
        chain: find(rest, CHAIN).and_then(number).unwrap_or(0),
        priority: header.info >> 16,
        handle: header.handle,
        kind: find(rest, KIND).map(text).unwrap_or_default(),
        name: find(options, BPF_NAME).map(text).unwrap_or_default(),
        program: find(options, BPF_ID).and_then(number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes()[..], value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_bpf_filter_tells_its_place_and_its_program() {
        let options =
            [attribute(BPF_NAME, b"ours\0"), attribute(BPF_ID, &42_u32.to_ne_bytes())].concat();
        let header = Header { index: 3, handle: 0xe9, info: 1 << 16 | 0x300, ..Header::default() };
        let payload = [
            header.as_bytes().to_vec(),
            attribute(KIND, b"bpf\0"),
            attribute(CHAIN, &0_u32.to_ne_bytes()),
            attribute(OPTIONS, &options),
        ]
        .concat();
        let message = Message { kind: NEWTFILTER, payload };
        let read = filter(&message).unwrap();
        assert_eq!((read.chain, read.priority, read.handle), (0, 1, 0xe9));
        assert_eq!((read.kind.as_str(), read.name.as_str()), ("bpf", "ours"));
        assert_eq!(read.program, Some(42));
        // The announcement of the priority.
        let mut announcement = message.clone();
        announcement.payload[8..12].fill(0);
        assert_eq!(filter(&announcement), None);
    }

    #[test]
    fn an_interface_without_clsact_has_none() {
        // Loopback of a fresh test machine has no qdisc; one that is there lists without error.
        list(1, Direction::Ingress).unwrap();
    }
}
