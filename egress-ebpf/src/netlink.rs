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
//! the kernel would find, and takes no state that the verifier would have to follow. What is too long to
//! be read to its end counts as one that names a namespace.

use crate::packet::Bytes;

/// The protocol of rtnetlink's sockets (`NETLINK_ROUTE`, include/uapi/linux/netlink.h).
pub const NETLINK_ROUTE: u16 = 0;

/// Messages, and words of those about interfaces, that are read of what is sent at once: as many as the
/// verifier can follow. Tools send one message of some hundred bytes.
pub const STEPS: u32 = 150;

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
            let Some([low, high, type_low, type_high]) = sent.load::<4>(at) else { return true };
            let kind = u16::from_ne_bytes([type_low, type_high]) & TYPE;
            let size = u16::from_ne_bytes([low, high]);
            if size >= ATTRIBUTE && (kind == IFLA_TARGET_NETNSID || kind == IFLA_LINK_NETNSID) {
                return true;
            }
            at = at.wrapping_add(4);
            left -= 4;
        }
        (at, left) = (sent.forget_word(at), sent.forget_word(left));
    }
    true
}

#[cfg(test)]
mod tests;
