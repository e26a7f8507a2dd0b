//! Names of header fields that are seen again and again: a name that is not one of HTTP's own takes memory of
//! its own, and this once for all messages of a thread.

use std::cell::RefCell;

use http::{HeaderName, header::InvalidHeaderName};

/// Names that a thread remembers: one a place. Another name of the same place takes it, so whoever makes up
/// names costs others no more than asking for memory would.
const PLACES: usize = 256;
/// Longer names are not remembered, in bytes.
const LONGEST: usize = 64;

/// A name as it was spelled, and what it stands for.
type KnownName = Option<(Box<[u8]>, HeaderName)>;

thread_local!(static KNOWN: RefCell<Box<[KnownName]>> =
    RefCell::new(std::iter::repeat_with(|| None).take(PLACES).collect()));

/// The field's name.
///
/// # Errors
/// It is none.
pub(super) fn name(spelled: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    if spelled.len() > LONGEST {
        return HeaderName::from_bytes(spelled);
    }
    KNOWN.with_borrow_mut(|known| {
        let place = &mut known[place(spelled)];
        if let Some((its, name)) = place
            && **its == *spelled
        {
            return Ok(name.clone());
        }
        let name = HeaderName::from_bytes(spelled)?;
        *place = Some((spelled.into(), name.clone()));
        Ok(name)
    })
}

/// FNV-1a (32 bits), folded.
fn place(spelled: &[u8]) -> usize {
    let hash = spelled
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let [a, b, c, d] = hash.to_ne_bytes();
    usize::from(a ^ b ^ c ^ d) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::allocations::Allocations;

    #[test]
    fn a_name_is_what_it_says_however_often_and_however_spelled() {
        for _ in 0..3 {
            for number in 0..2 * PLACES {
                let lower = format!("x-name-{number}");
                for spelled in [lower.clone(), lower.to_ascii_uppercase()] {
                    assert_eq!(name(spelled.as_bytes()).unwrap().as_str(), lower);
                }
            }
            assert_eq!(name(b"Host").unwrap(), http::header::HOST);
            assert!(name(b"not a name").is_err() && name(b"").is_err());
            let long = "x".repeat(LONGEST + 1);
            assert_eq!(name(long.as_bytes()).unwrap().as_str(), long);
        }
    }

    #[test]
    fn a_known_name_asks_for_no_memory() {
        let first = name(b"X-Own-Name").unwrap();
        let again = name(b"X-Own-Name").unwrap();
        let before = Allocations::here();
        assert_eq!(name(b"X-Own-Name").unwrap(), first);
        assert_eq!((Allocations::here() - before).made, 0, "{again}");
    }
}
