//! What a process asks of the kernel over a netlink socket: whether a message about interfaces names a
//! network namespace by its id.
//!
//! A pod's network namespace has an id for the node's, which the other end of its interface brings.
//! With it, rtnetlink acts in the node's namespace, and asks for `CAP_NET_ADMIN` in the user namespace
//! that owns *that* one. A pod without a user namespace of its own has it there. So it could list and
//! delete the node's interfaces, or put an interface of its own on the uplink. No workload needs these
//! ids: who sets up containers below its own names them by process or descriptor, and reaches only
//! what it can open.
//!
//! Messages are told apart as the kernel does it (`netlink_rcv_skb`). In one about interfaces, every
//! aligned word counts that could be the head of such an attribute, wherever it is: that finds all that
//! the kernel would find, and takes no state that the verifier would have to follow. Words are read by the
//! piece and compared by reckoning alone: each branch would be followed once more at every step. What is too
//! long to be read to its end counts as one that names a namespace.

use crate::packet::Bytes;

/// The protocol of rtnetlink's sockets (`NETLINK_ROUTE`, include/uapi/linux/netlink.h).
pub const NETLINK_ROUTE: u16 = 0;

/// Messages, and pieces of those about interfaces, that are read of what is sent at once. Tools send one
/// message of some hundred bytes.
pub const STEPS: u32 = 200;
/// Words of a piece.
const WORDS: usize = 8;
const PIECE: u32 = 32;

/// `NLMSG_HDRLEN`.
const MESSAGE: u32 = 16;
/// `NLA_TYPE_MASK`.
const TYPE: u16 = 0x3fff;
/// Bytes of an attribute with an id.
const ATTRIBUTE: u16 = 8;
/// Attributes that name a namespace by its id (include/uapi/linux/if_link.h).
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_TARGET_NETNSID: u16 = 46;

/// Whether a message is about interfaces: `RTM_NEWLINK` to `RTM_SETLINK`, `RTM_NEWLINKPROP` to
/// `RTM_GETLINKPROP` (include/uapi/linux/rtnetlink.h).
#[inline(always)]
const fn is_link(message: u16) -> bool {
    message.wrapping_sub(16) < 4 || message.wrapping_sub(108) < 3
}

#[inline(always)]
const fn aligned(length: u32) -> u32 {
    length.wrapping_add(3) & !3
}

/// One where `a < b`, zero elsewhere, for what is less than 2⁶³: without a branch, as long as the compiler
/// doesn't know that.
#[inline(always)]
const fn below(a: u64, b: u64) -> u64 {
    a.wrapping_sub(b) >> 63
}

/// One for a word that is the head of an attribute with an id of a namespace, zero for others.
#[inline(always)]
fn names(word: u64) -> u64 {
    // Halves in the machine's order, of which the first is the size.
    let (first, second) = (word & 0xffff, word >> 16);
    let (size, kind) =
        if cfg!(target_endian = "little") { (first, second) } else { (second, first) };
    let kind = kind & u64::from(TYPE);
    let is = |number: u16| below(kind ^ u64::from(number), 1);
    below(u64::from(ATTRIBUTE) - 1, size) & (is(IFLA_LINK_NETNSID) | is(IFLA_TARGET_NETNSID))
}

/// Whether what is sent to rtnetlink names a network namespace by its id, or is too long to tell.
#[inline(always)]
#[must_use]
pub fn names_namespace(sent: &impl Bytes) -> bool {
    let length = sent.length();
    // Where to read, and how many bytes of a message about interfaces are left there.
    let (mut at, mut left) = (0_u32, 0_u32);
    for _ in 0..STEPS {
        if left < 4 {
            // What is left of the last message is less than an attribute's head.
            at = aligned(at.wrapping_add(left));
            if at > length || length - at < MESSAGE {
                return false;
            }
            let Some([a, b, c, d, low, high]) = sent.load::<6>(at) else { return true };
            let size = u32::from_ne_bytes([a, b, c, d]);
            // The kernel reads no further.
            if size < MESSAGE || size > length - at {
                return false;
            }
            if is_link(u16::from_ne_bytes([low, high])) {
                at = at.wrapping_add(MESSAGE);
                left = size - MESSAGE;
            } else {
                at = at.wrapping_add(size);
                left = 0;
            }
        } else {
            let Some(words) = sent.load_words::<WORDS>(at) else { return true };
            let left_here = sent.forget_long(left.into());
            let mut named = 0;
            let mut end = 0;
            for word in words {
                end += 4;
                let is_there = below(end - 1, left_here);
                named |= is_there & names(sent.forget_long(word.into()));
            }
            if named != 0 {
                return true;
            }
            // Attributes are aligned, so what is less than a word belongs to none.
            let read = if left < PIECE { left & !3 } else { PIECE };
            at = at.wrapping_add(read);
            left -= read;
        }
        (at, left) = (sent.forget_word(at), sent.forget_word(left));
    }
    true
}

#[cfg(test)]
mod tests;
