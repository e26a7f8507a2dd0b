//! A `tc` program that does nothing, to compare with: `r0 = TC_ACT_UNSPEC; exit`, in an object file
//! that is put together here, since the project's own programs all do something.

/// `struct bpf_insn` twice: `BPF_ALU64 | BPF_MOV | BPF_K` of -1 to r0, `BPF_JMP | BPF_EXIT`.
const CODE: [u8; 16] = [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// The program's name.
pub(crate) const NAME: &str = "empty";

/// Names of sections and of the one symbol, each ended by a zero.
const STRINGS: &[u8] = b"\0classifier\0.symtab\0.strtab\0empty\0";
const CLASSIFIER: u32 = 1;
const SYMTAB: u32 = 12;
const STRTAB: u32 = 20;
const EMPTY: u32 = 28;

/// Size of the file header and of a section header (elf(5), 64 bits).
const FILE_HEADER: u64 = 64;
const SECTION_HEADER: u16 = 64;
const SYMBOL: u64 = 24;

/// A section header's fields that are ever set here: name, type, flags, offset, size, link, info,
/// alignment, size of an entry.
type Section = (u32, u32, u64, u64, u64, u32, u32, u64, u64);

/// The object: a relocatable ELF file for BPF with one section of code.
pub(crate) fn object() -> Vec<u8> {
    let code_at = FILE_HEADER;
    let symbols_at = code_at + CODE.len() as u64;
    let strings_at = symbols_at + 2 * SYMBOL;
    let sections_at = (strings_at + STRINGS.len() as u64).next_multiple_of(8);

    let mut elf = Vec::new();
    // 64 bits, little endian, version 1; ET_REL, EM_BPF.
    elf.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 247, 0, 1, 0, 0, 0]);
    elf.extend([0; 16]);
    elf.extend(sections_at.to_le_bytes());
    elf.extend([0; 4]);
    // Size of this header, no program headers, four sections of which the last holds the names.
    for half in [64, 0, 0, SECTION_HEADER, 4, 3_u16] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(CODE);
    elf.extend([0; 24]);
    // The symbol: name, STB_GLOBAL and STT_FUNC, default visibility, section 1, value, size.
    elf.extend(EMPTY.to_le_bytes());
    elf.extend([0x12, 0, 1, 0]);
    elf.extend(0_u64.to_le_bytes());
    elf.extend((CODE.len() as u64).to_le_bytes());
    elf.extend(STRINGS);
    elf.extend(vec![0; usize::try_from(sections_at).unwrap_or_default() - elf.len()]);
    let sections: [Section; 4] = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0),
        // SHT_PROGBITS; SHF_ALLOC and SHF_EXECINSTR.
        (CLASSIFIER, 1, 6, code_at, CODE.len() as u64, 0, 0, 8, 0),
        // SHT_SYMTAB; its strings are section 3, its first global symbol is number 1.
        (SYMTAB, 2, 0, symbols_at, 2 * SYMBOL, 3, 1, 8, SYMBOL),
        // SHT_STRTAB.
        (STRTAB, 3, 0, strings_at, STRINGS.len() as u64, 0, 0, 1, 0),
    ];
    for (name, kind, flags, offset, size, link, info, align, entry) in sections {
        elf.extend(name.to_le_bytes());
        elf.extend(kind.to_le_bytes());
        elf.extend(flags.to_le_bytes());
        elf.extend(0_u64.to_le_bytes());
        elf.extend(offset.to_le_bytes());
        elf.extend(size.to_le_bytes());
        elf.extend(link.to_le_bytes());
        elf.extend(info.to_le_bytes());
        elf.extend(align.to_le_bytes());
        elf.extend(entry.to_le_bytes());
    }
    elf
}
