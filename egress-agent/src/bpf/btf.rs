//! Where the kernel keeps a field, by its own description of its types (BTF,
//! Documentation/bpf/btf.rst). aya reads it too, but keeps members to itself.

use std::{fs, os::unix::fs::MetadataExt, sync::OnceLock};

/// Linux's types, described by itself (5.4, `CONFIG_DEBUG_INFO_BTF`).
pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// `BTF_MAGIC`.
const MAGIC: u16 = 0xeb9f;

const STRUCT: u32 = 4;
const UNION: u32 = 5;

/// What `read` finds in the running kernel's description. The description is some megabytes, so it is
/// read once for each cell.
pub(super) fn once<T>(
    cell: &'static OnceLock<Option<T>>,
    read: fn(&[u8]) -> Option<T>,
) -> Option<&'static T> {
    cell.get_or_init(|| read(&fs::read(VMLINUX).ok()?)).as_ref()
}

/// The number of the calling thread's network namespace, which the agent's programs know the node by.
pub(super) fn own_network_namespace() -> Option<u32> {
    u32::try_from(fs::metadata("/proc/thread-self/ns/net").ok()?.ino()).ok()
}

/// The description, as `/sys/kernel/btf/vmlinux` holds it.
pub(super) struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

/// A structure or union: what it is called, and its members.
#[derive(Clone, Copy)]
struct Record<'a> {
    name: u32,
    /// Whether members' offsets hold the size of a bit field too.
    bits: bool,
    members: &'a [u8],
}

impl<'a> Types<'a> {
    /// Takes the description apart; `None` if it isn't one.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        if bytes.first_chunk().copied().map(u16::from_ne_bytes)? != MAGIC {
            return None;
        }
        // magic, version, flags; then lengths and offsets.
        let [header, types, types_length, strings, strings_length] =
            [4, 8, 12, 16, 20].map(|at| word(bytes, at));
        let part = |start: Option<u32>, length: Option<u32>| {
            let start = usize::try_from(header?.checked_add(start?)?).ok()?;
            bytes.get(start..)?.get(..usize::try_from(length?).ok()?)
        };
        Some(Self { types: part(types, types_length)?, strings: part(strings, strings_length)? })
    }

    /// The offset of a member in bytes. Members of members without a name count as the structure's
    /// own, as they do in C.
    pub(super) fn offset(&self, structure: &str, member: &str) -> Option<u32> {
        self.bit(structure, member).filter(|bit| bit % 8 == 0).map(|bit| bit / 8)
    }

    /// The offset of a network namespace's number in its `struct net`.
    pub(super) fn namespace_number(&self) -> Option<u32> {
        Some(self.offset("net", "ns")? + self.offset("ns_common", "inum")?)
    }

    /// The offset of a member in bits, which a bit field may begin at.
    pub(super) fn bit(&self, structure: &str, member: &str) -> Option<u32> {
        let mut found = None;
        self.each(|_, record| {
            if found.is_none() && self.is_named(record.name, structure) {
                found = self.within(record, member, 0);
            }
        });
        found
    }

    fn within(&self, record: Record<'a>, member: &str, depth: u32) -> Option<u32> {
        // Deeper than any structure is nested.
        if depth > 4 {
            return None;
        }
        record.members.chunks_exact(12).find_map(|entry| {
            let (name, kind, offset) = (word(entry, 0)?, word(entry, 4)?, word(entry, 8)?);
            let bits = if record.bits { offset & 0x00ff_ffff } else { offset };
            if self.is_named(name, member) {
                return Some(bits);
            }
            if name != 0 {
                return None;
            }
            let inner = self.within(self.record(kind)?, member, depth + 1)?;
            bits.checked_add(inner)
        })
    }

    /// The structure or union with this number.
    fn record(&self, wanted: u32) -> Option<Record<'a>> {
        let mut found = None;
        self.each(|number, record| {
            if number == wanted {
                found = Some(record);
            }
        });
        found
    }

    /// Goes through all structures and unions. What is of no known kind ends it: its length isn't
    /// known.
    fn each(&self, mut visit: impl FnMut(u32, Record<'a>)) {
        let mut rest = self.types;
        // Number 0 is `void`, which isn't written down.
        for number in 1.. {
            let (Some(name), Some(info)) = (word(rest, 0), word(rest, 4)) else { return };
            let count = (info & 0xffff) as usize;
            let kind = info >> 24 & 0x1f;
            let behind = match kind {
                // integer, variable, tag
                1 | 14 | 17 => 4,
                // array
                3 => 12,
                STRUCT | UNION | 15 | 19 => count * 12,
                // enumeration, parameters
                6 | 13 => count * 8,
                // pointer, forward, typedef, qualifiers, function, float, type tag
                2 | 7..=12 | 16 | 18 => 0,
                _ => return,
            };
            let Some(members) = rest.get(12..12 + behind) else { return };
            if matches!(kind, STRUCT | UNION) {
                visit(number, Record { name, bits: info >> 31 == 1, members });
            }
            rest = &rest[12 + behind..];
        }
    }

    fn is_named(&self, at: u32, name: &str) -> bool {
        let bytes = usize::try_from(at).ok().and_then(|at| self.strings.get(at..));
        bytes.is_some_and(|bytes| {
            bytes.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; struct { int b; int c; }; int d : 3, f : 2; }`, an array and a typedef.
    fn description() -> Vec<u8> {
        let strings = b"\0outer\0a\0b\0c\0d\0f\0";
        let words: [u32; 42] = [
            // 1: int
            0,
            1 << 24,
            4,
            0, //
            // 2: array of it
            0,
            3 << 24,
            0,
            1,
            1,
            7, //
            // 3: struct { b, c }
            0,
            4 << 24 | 2,
            8,
            9,
            1,
            0,
            11,
            1,
            32, //
            // 4: struct outer, with bit fields
            1,
            1 << 31 | 4 << 24 | 4,
            16,
            7,
            1,
            0,
            0,
            3,
            32,
            13,
            1,
            3 << 24 | 96,
            15,
            1,
            2 << 24 | 99, //
            // 5: typedef
            7,
            8 << 24,
            4, //
            // 6: a pointer, and half of something
            0,
            2 << 24,
            4,
            0,
            0,
        ];
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let length = u32::try_from(types.len()).unwrap();
        let header = [24, 0, length, length, u32::try_from(strings.len()).unwrap()];
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(header.iter().flat_map(|word: &u32| word.to_ne_bytes()));
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_are_found_also_those_of_nameless_ones() {
        let bytes = description();
        let types = Types::new(&bytes).unwrap();
        let offset = |member| types.offset("outer", member);
        assert_eq!(
            (offset("a"), offset("b"), offset("c"), offset("d")),
            (Some(0), Some(4), Some(8), Some(12))
        );
        assert_eq!((offset("e"), types.bit("outer", "e")), (None, None));
        assert_eq!(
            (types.bit("outer", "c"), types.bit("outer", "f"), offset("f")),
            (Some(64), Some(99), None)
        );
        assert_eq!(types.offset("oute", "a"), None);
        assert_eq!(types.offset("outer2", "a"), None);
    }

    #[test]
    fn every_prefix_is_no_description_or_one_without_it() {
        let bytes = description();
        for length in 0..bytes.len() {
            if let Some(types) = Types::new(&bytes[..length]) {
                panic!("{length} bytes: {:?}", types.offset("outer", "a"));
            }
        }
    }

    #[test]
    fn this_kernels_own_is_read() {
        let bytes = fs::read(VMLINUX).unwrap();
        let types = Types::new(&bytes).unwrap();
        for (structure, member) in [
            ("task_struct", "nsproxy"),
            ("nsproxy", "net_ns"),
            ("net", "ns"),
            ("ns_common", "inum"),
        ] {
            assert!(types.offset(structure, member).is_some(), "{structure}.{member}");
        }
    }
}
