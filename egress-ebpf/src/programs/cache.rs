//! The verdicts that this CPU has found before: [`egress_ebpf::cache`].

use egress_ebpf::{
    abi::CachedVerdict,
    cache::{Cache, Entry, Word},
};

use super::maps::{EPOCH, VERDICTS};

/// The table of this CPU, on which a program stays as long as it runs.
pub(crate) struct Verdicts;

/// An entry of it.
pub(crate) struct Kept(*mut CachedVerdict);

impl Kept {
    #[inline(always)]
    fn word(&self, word: Word) -> *mut u64 {
        let entry = self.0;
        // SAFETY: the pointer is to the map's value, and these are its fields.
        unsafe {
            match word {
                Word::Begun => &raw mut (*entry).begun,
                Word::Done => &raw mut (*entry).done,
                Word::Epoch => &raw mut (*entry).epoch,
                Word::First => &raw mut (*entry).addr[0],
                Word::Last => &raw mut (*entry).addr[1],
                Word::What => &raw mut (*entry).what,
                Word::Verdict => &raw mut (*entry).verdict,
            }
        }
    }
}

impl Entry for Kept {
    #[inline(always)]
    fn load(&self, word: Word) -> u64 {
        // SAFETY: the word is one of the map's value, aligned to 8 bytes. Volatile, since another program
        // may write it between any two instructions.
        unsafe { self.word(word).read_volatile() }
    }

    #[inline(always)]
    fn store(&self, word: Word, value: u64) {
        // SAFETY: as in `load`.
        unsafe { self.word(word).write_volatile(value) };
    }

    #[inline(always)]
    fn add_one(&self, word: Word) {
        // SAFETY: as in `load`.
        unsafe { add_one_in_order(self.word(word)) };
    }
}

impl Cache for Verdicts {
    type Entry = Kept;

    #[inline(always)]
    fn epoch(&self) -> u64 {
        match EPOCH.get_ptr(0) {
            // SAFETY: the pointer is to the map's value, aligned to 8 bytes.
            Some(epoch) => unsafe { epoch.read_volatile() },
            None => 0,
        }
    }

    #[inline(always)]
    fn entry(&self, place: u32) -> Option<Kept> {
        VERDICTS.get_ptr_mut(place).map(Kept)
    }
}

/// Adds one atomically. Fetching what was there before makes it a barrier on every machine (`BPF_FETCH`,
/// Linux 5.12; Documentation/bpf/standardization/instruction-set.rst).
#[cfg(target_arch = "bpf")]
#[inline(always)]
unsafe fn add_one_in_order(counter: *mut u64) {
    // SAFETY: the caller's pointer is valid for a write.
    unsafe {
        core::arch::asm!(
            "{one} = atomic_fetch_add((u64 *)({counter} + 0), {one})",
            counter = in(reg) counter,
            one = inout(reg) 1_u64 => _,
        );
    }
}

/// On the host programs only compile.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
unsafe fn add_one_in_order(counter: *mut u64) {
    // SAFETY: the caller's pointer is valid for a write.
    unsafe { *counter += 1 };
}
