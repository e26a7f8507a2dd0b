//! The header fields of W3C Trace Context.

use egress_agent::wire::{TraceParent, kept_state};

/// What is read, and written again, is read as the same; what is kept of a state is bounded and visible.
pub fn trace_context(bytes: &[u8]) {
    if let Some(parent) = TraceParent::parse(bytes) {
        assert_eq!(TraceParent::parse(&parent.text()), Some(parent), "{bytes:?}");
        let trimmed = bytes.trim_ascii();
        assert_eq!(trimmed.get(2..52), parent.text().get(2..52), "the ids are those of the field");
    }
    let kept = kept_state(bytes.split(|byte| *byte == b'\n'));
    assert!(kept.len() <= 512, "{}", kept.len());
    assert!(kept.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{kept:?}");
    assert_eq!(kept_state([kept.as_bytes()]), kept, "kept once, it is kept whole");
}
