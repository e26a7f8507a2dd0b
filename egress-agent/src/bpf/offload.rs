//! Where this kernel keeps what it is yet to do to a packet, told to the programs before they are
//! loaded: `__sk_buff` doesn't have it.

use std::sync::OnceLock;

use aya::EbpfLoader;

use super::{
    Error,
    btf::{self, Types, VMLINUX},
};

/// How many bytes the programs read from the one with `ip_summed` on.
const FLAGS: u32 = 16;

/// Places in `struct sk_buff`, as the programs want them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fields {
    summed: u32,
    summed_bit: u32,
    /// From the byte before.
    encapsulation: u32,
    encapsulation_bit: u32,
    /// From the same byte.
    csum: u32,
    head: u32,
}

/// Tells the programs about this kernel.
///
/// # Errors
/// [`Error::Types`]: without it nothing could be judged.
pub fn set_globals(loader: &mut EbpfLoader<'_>) -> Result<(), Error> {
    let fields = fields().ok_or(Error::Types { path: VMLINUX })?;
    loader
        .override_global("SKB_KNOWN", &1_u8, true)
        .override_global("SKB_SUMMED", &fields.summed, true)
        .override_global("SKB_SUMMED_BIT", &fields.summed_bit, true)
        .override_global("SKB_ENCAPSULATION", &fields.encapsulation, true)
        .override_global("SKB_ENCAPSULATION_BIT", &fields.encapsulation_bit, true)
        .override_global("SKB_CSUM", &fields.csum, true)
        .override_global("SKB_HEAD", &fields.head, true);
    Ok(())
}

fn fields() -> Option<&'static Fields> {
    static FIELDS: OnceLock<Option<Fields>> = OnceLock::new();
    btf::once(&FIELDS, read)
}

fn read(description: &[u8]) -> Option<Fields> {
    let types = Types::new(description)?;
    let bit = |member| types.bit("sk_buff", member);
    let byte = |member| types.offset("sk_buff", member);
    fields_at(
        (bit("ip_summed")?, bit("encapsulation")?),
        (byte("csum_start")?, byte("csum_offset")?),
        (byte("head")?, byte("data")?),
    )
}

/// What the programs rely on: flags and checksum lie close together, in this order, and what they
/// read as a pair is one.
fn fields_at(
    (summed, encapsulation): (u32, u32),
    (start, offset): (u32, u32),
    (head, data): (u32, u32),
) -> Option<Fields> {
    let first = summed / 8;
    let encapsulated = (encapsulation / 8).checked_sub(first)?;
    let csum = start.checked_sub(first)?;
    let readable = summed % 8 <= 6
        && encapsulated < FLAGS
        && csum.checked_add(4)? <= FLAGS
        && start.checked_add(2) == Some(offset)
        && head.checked_add(8) == Some(data);
    readable.then_some(Fields {
        summed: first,
        summed_bit: summed % 8,
        encapsulation: encapsulated,
        encapsulation_bit: encapsulation % 8,
        csum,
        head,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernels_packets_can_be_read() {
        assert!(fields().is_some());
        assert_eq!(read(b"garbage"), None);
    }

    #[test]
    fn an_order_that_the_programs_cannot_read_is_refused() {
        let flags = (128 * 8 + 5, 130 * 8 + 3);
        let good = fields_at(flags, (136, 138), (200, 208)).unwrap();
        assert_eq!((good.summed, good.summed_bit), (128, 5));
        assert_eq!((good.encapsulation, good.encapsulation_bit), (2, 3));
        assert_eq!((good.csum, good.head), (8, 200));
        for (flags, csum, head) in [
            ((128 * 8 + 7, flags.1), (136, 138), (200, 208)),
            ((flags.0, 127 * 8), (136, 138), (200, 208)),
            ((flags.0, 144 * 8), (136, 138), (200, 208)),
            (flags, (141, 143), (200, 208)),
            (flags, (120, 122), (200, 208)),
            (flags, (136, 140), (200, 208)),
            (flags, (136, 138), (200, 216)),
        ] {
            assert_eq!(fields_at(flags, csum, head), None, "{flags:?} {csum:?} {head:?}");
        }
    }
}
