use proptest::prelude::*;

use super::*;

const GETLINK: u16 = 18;
const NEWLINK: u16 = 16;
const NEWROUTE: u16 = 24;
const IFNAME: u16 = 3;
const LINK_NETNSID: u16 = 37;
const TARGET_NETNSID: u16 = 46;
const NET_NS_PID: u16 = 19;

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap();
    padded([&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat())
}

fn message(kind: u16, header: usize, attributes: &[Vec<u8>]) -> Vec<u8> {
    let payload = [vec![0; header], attributes.concat()].concat();
    let length = u32::try_from(payload.len() + 16).unwrap();
    let rest = [1, 0, 7, 0, 0, 0, 0, 0, 0, 0];
    padded([&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &rest, &payload].concat())
}

fn link(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    message(kind, 16, attributes)
}

fn names(sent: &[u8]) -> bool {
    names_namespace(&sent)
}

#[test]
fn ids_of_namespaces_are_found_wherever_the_kernel_looks() {
    let id = |kind: u16| attribute(kind, &0_u32.to_ne_bytes());
    let name = || attribute(IFNAME, b"eth0\0");
    for kind in [16, 17, 18, 19, 108, 109, 110] {
        assert!(names(&link(kind, &[id(TARGET_NETNSID)])), "{kind}");
        assert!(names(&link(kind, &[name(), id(LINK_NETNSID)])), "{kind}");
        // Flags of a type don't count.
        assert!(names(&link(kind, &[id(TARGET_NETNSID | 0x8000)])), "{kind}");
        assert!(names(&link(kind, &[id(TARGET_NETNSID | 0x4000), name()])), "{kind}");
        // The twins.
        assert!(!names(&link(kind, &[name(), id(4)])), "{kind}");
        assert!(!names(&link(kind, &[id(NET_NS_PID)])), "{kind}");
    }
    // A link dump in its old form.
    assert!(names(&message(GETLINK, 4, &[id(TARGET_NETNSID)])));
    assert!(!names(&message(GETLINK, 4, &[id(29)])));
    // Other messages have attributes of the same numbers.
    assert!(!names(&message(NEWROUTE, 12, &[id(37), id(46)])));
}

#[test]
fn no_message_hides_behind_another() {
    let bad = link(NEWLINK, &[attribute(LINK_NETNSID, &[0; 4])]);
    let good = link(GETLINK, &[attribute(IFNAME, b"eth0\0")]);
    let route = message(NEWROUTE, 12, &[attribute(1, &[10, 0, 0, 1])]);
    for before in [vec![good.clone()], vec![route.clone(); 100], vec![good.clone(), route.clone()]]
    {
        assert!(names(&[before.concat(), bad.clone()].concat()));
        assert!(!names(&[before.concat(), good.clone()].concat()));
    }
    // A message that is longer than what is there, or shorter than its header, is the last one.
    let mut long = good.clone();
    long[0] = 0xff;
    assert!(!names(&[long, bad[..20].to_vec()].concat()));
    // The end need not be aligned.
    let mut short = bad.clone();
    short.truncate(16 + 16 + 8);
    assert!(names(&short));
}

#[test]
fn what_is_too_long_is_not_believed() {
    let route = message(NEWROUTE, 12, &[attribute(1, &[10, 0, 46, 0])]);
    assert!(!names(&route.repeat(140)));
    assert!(names(&route.repeat(160)));
    let many = vec![attribute(IFNAME, b"x"); 150];
    assert!(!names(&link(NEWLINK, &many[..70])));
    assert!(names(&link(NEWLINK, &many)));
}

/// Reads as the kernel does: whether it finds an id.
fn kernel(sent: &[u8]) -> bool {
    let Some(head) = sent.get(..16) else { return false };
    let size = usize::try_from(u32::from_ne_bytes(head[..4].try_into().unwrap())).unwrap();
    if size < 16 || size > sent.len() {
        return false;
    }
    let rest = || kernel(&sent[size.next_multiple_of(4).min(sent.len())..]);
    let header = match u16::from_ne_bytes([head[4], head[5]]) {
        16..=19 | 108..=110 if size < 32 => 4,
        16..=19 | 108..=110 => 16,
        _ => return rest(),
    };
    let mut attributes = sent[16..size].get(header..).unwrap_or_default();
    while let Some(head) = attributes.get(..4) {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        if length < 4 || length > attributes.len() {
            break;
        }
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        if matches!(kind, 37 | 46) && length >= 8 {
            return true;
        }
        attributes = &attributes[length.next_multiple_of(4).min(attributes.len())..];
    }
    rest()
}

proptest! {
    #[test]
    fn it_finds_whatever_the_kernel_finds(
        parts in prop::collection::vec(
            (
                prop::sample::select(vec![16_u16, 18, 20, 24, 58, 88, 90, 108, 200]),
                prop::sample::select(vec![0_usize, 4, 8, 12, 16]),
                prop::collection::vec(
                    (prop::sample::select(vec![1_u16, 3, 4, 10, 37, 46, 0x8025]), 0_usize..9),
                    0..4,
                ),
            ),
            0..4,
        ),
        cut in 0_usize..200,
        flip in prop::option::of((0_usize..200, any::<u8>())),
    ) {
        let messages: Vec<Vec<u8>> = parts
            .into_iter()
            .map(|(kind, header, attributes)| {
                let attributes: Vec<_> = attributes
                    .into_iter()
                    .map(|(kind, length)| attribute(kind, &vec![0; length]))
                    .collect();
                message(kind, header, &attributes)
            })
            .collect();
        let mut sent = messages.concat();
        sent.truncate(sent.len().saturating_sub(cut / 10));
        if let Some((at, value)) = flip
            && let Some(byte) = sent.get_mut(at)
        {
            *byte = value;
        }
        prop_assert!(names(&sent) || !kernel(&sent));
    }

    #[test]
    fn any_bytes_are_read(sent in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(names(&sent) || !kernel(&sent));
    }
}
