//! What a thread of the unit tests asks the allocator for: the data path states how often it does.
#![expect(unsafe_code, reason = "an allocator is unsafe by its trait")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ops::Sub,
};

/// What a thread has asked for since it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Allocations {
    /// Pieces of memory.
    pub(crate) made: u64,
    /// Pieces that were made larger or smaller.
    pub(crate) resized: u64,
    /// Bytes, of both.
    pub(crate) bytes: u64,
    /// Bytes that it has and did not give back; what other threads give back is not known.
    pub(crate) held: i64,
}

thread_local!(static COUNTS: Cell<Allocations> = const {
    Cell::new(Allocations { made: 0, resized: 0, bytes: 0, held: 0 })
});

impl Allocations {
    /// Of this thread, until now.
    pub(crate) fn here() -> Self {
        COUNTS.get()
    }
}

impl Sub for Allocations {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            made: self.made - before.made,
            resized: self.resized - before.resized,
            bytes: self.bytes - before.bytes,
            held: self.held - before.held,
        }
    }
}

/// The system's allocator, counted by thread.
struct CountingAllocator;

#[global_allocator]
static COUNTING: CountingAllocator = CountingAllocator;

impl CountingAllocator {
    fn count(change: impl FnOnce(&mut Allocations)) {
        // What a thread asks for while it is torn down is not counted.
        let counted = COUNTS.try_with(|cell| {
            let mut counts = cell.get();
            change(&mut counts);
            cell.set(counts);
        });
        counted.unwrap_or_default();
    }

    fn made(size: usize) {
        Self::count(|counts| {
            counts.made += 1;
            counts.bytes += size as u64;
            counts.held = counts.held.wrapping_add_unsigned(size as u64);
        });
    }

    fn given_back(size: usize) {
        Self::count(|counts| counts.held = counts.held.wrapping_sub_unsigned(size as u64));
    }
}

// SAFETY: every call is the system allocator's own, with the same arguments. Counting allocates
// nothing: the cell lives in the thread's own storage, is made by a constant and has no destructor.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::made(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::made(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        Self::given_back(layout.size());
        // SAFETY: the caller's promise about both is passed on; `at` came from the same allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::given_back(layout.size());
        Self::count(|counts| {
            counts.resized += 1;
            counts.bytes += size as u64;
            counts.held = counts.held.wrapping_add_unsigned(size as u64);
        });
        // SAFETY: the caller's promise about all three is passed on; `at` came from the same allocator.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[test]
fn what_a_thread_asks_for_is_counted() {
    let before = Allocations::here();
    let mut text = String::with_capacity(10);
    text.reserve(100);
    let counted = Allocations::here() - before;
    assert_eq!((counted.made, counted.resized), (1, 1), "{text}");
    assert!(counted.bytes >= 110 && counted.held >= 100);
    drop(text);
    assert_eq!((Allocations::here() - before).held, 0);
}
