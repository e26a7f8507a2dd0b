//! Empty HTTP/2 frames that say nothing and are taken out as they come; many of them are an attack.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static EMPTY: AtomicU64 = AtomicU64::new(0);

/// Empty DATA frames of all connections so far.
#[must_use]
pub fn empty_frames() -> u64 {
    EMPTY.load(Relaxed)
}

/// One more was taken out.
pub(super) fn count_empty_frame() {
    EMPTY.fetch_add(1, Relaxed);
}
