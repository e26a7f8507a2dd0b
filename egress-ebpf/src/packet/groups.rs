//! A host's reports of the multicast groups that it listens to.

use super::{Bytes, protocol};

/// Groups that one report may tell of: more than the interface of a pod has. What is longer than an interface
/// needs carries something else.
const GROUPS: u32 = 16;

/// Bytes of a group's record without sources: its kind, the lengths of what else it could have, and the group
/// (RFC 3810 §5.2.4).
const RECORD: u32 = 20;

/// Bytes of the hop-by-hop header and of the message's own.
const HEADERS: u32 = 8 + 8;

/// Bytes of the other version's message behind its hop-by-hop header (RFC 2710 §3).
const FIRST_VERSION: u32 = 24;

/// Whether the `length` bytes at `offset`, which IPv6 carries, are a report of multicast groups and nothing else:
/// MLD version 2 (RFC 3810 §5.2), or 1 with its farewell (RFC 2710 §3), after the one hop-by-hop header that they
/// have, a router alert. Queries are a router's.
///
/// Whoever is on the link gets it, external routers too, so it has room for groups alone: none for lists of sources,
/// nor for auxiliary data, which nobody sends (RFC 3810 §5.2.6).
#[inline(always)]
pub(super) fn is_report(bytes: &impl Bytes, offset: u32, length: u32) -> bool {
    let header = bytes.load::<16>(offset).filter(|_| length >= HEADERS);
    match header {
        Some([protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0, 131 | 132, ..]) => length == 8 + FIRST_VERSION,
        Some([protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0, 143, .., high, low]) => {
            let groups = u32::from(u16::from_be_bytes([high, low]));
            (1..=GROUPS).contains(&groups) && length == HEADERS + groups * RECORD
        }
        _ => false,
    }
}
