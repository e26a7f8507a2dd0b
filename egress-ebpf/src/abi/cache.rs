//! The layout of the table of verdicts that were found before.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of `VERDICTS` (per-CPU array): an entry of the [`cache`](crate::cache).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CachedVerdict {
    /// How many began to write it.
    pub begun: u64,
    /// How many of them are done.
    pub done: u64,
    /// The epoch that it was found in; zero for none.
    pub epoch: u64,
    /// The destination's address.
    pub addr: [u64; 2],
    /// [`Key::what`](crate::cache::Key::what).
    pub what: u64,
    /// The verdict's [`Number`](crate::verdict::Number).
    pub verdict: u64,
    /// Always zero. With it an entry is as long as a line of the CPU's cache.
    pub reserved: u64,
}
