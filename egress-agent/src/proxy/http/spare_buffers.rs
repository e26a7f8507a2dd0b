//! Memory that requests have one after the other: a request takes what an earlier one has left, so that in the
//! long run it asks the allocator for nothing, and a connection that lies idle holds nothing.
//!
//! Each thread keeps so many pieces of each kind at most ([`KEPT`]), none of them large; more go back to the
//! allocator.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

/// Pieces of each kind that a thread keeps.
const KEPT: usize = 64;
/// Room for the usual head, in bytes.
const HEAD: usize = 2048;
/// What grew beyond this, in bytes, is not kept.
const LARGE: usize = 16 * 1024;
/// Fields that a map has room for.
const FIELDS: usize = 12;
/// A map that grew beyond this is not kept.
const MANY_FIELDS: usize = 64;

#[derive(Default)]
struct SpareBuffers {
    inputs: Vec<BytesMut>,
    outputs: Vec<Vec<u8>>,
    maps: Vec<HeaderMap>,
    /// Where [`small`] puts bytes.
    small: BytesMut,
}

thread_local!(static SPARE: RefCell<SpareBuffers> = RefCell::default());

/// Nothing is kept by a thread that ends.
fn with<T>(use_it: impl FnOnce(&mut SpareBuffers) -> T) -> Option<T> {
    SPARE.try_with(|spare| use_it(&mut spare.borrow_mut())).ok()
}

/// An empty buffer for what is read.
pub(super) fn input() -> BytesMut {
    let spare = with(|spare| spare.inputs.pop()).flatten();
    // What is still in use elsewhere, or was left too large, is not taken.
    let usable = |buffer: &mut BytesMut| buffer.try_reclaim(HEAD) && buffer.capacity() <= LARGE;
    let usable = spare.and_then(|mut buffer| usable(&mut buffer).then_some(buffer));
    usable.unwrap_or_else(|| BytesMut::with_capacity(HEAD))
}

/// Takes a buffer back; heads that lie in it may live on.
pub(super) fn give_input(mut buffer: BytesMut) {
    buffer.clear();
    with(|spare| keep(&mut spare.inputs, buffer));
}

/// An empty buffer for what is to be written.
pub(super) fn output() -> Vec<u8> {
    with(|spare| spare.outputs.pop()).flatten().unwrap_or_else(|| Vec::with_capacity(HEAD))
}

/// Takes a buffer back.
pub(super) fn give_output(mut buffer: Vec<u8>) {
    if (1..=LARGE).contains(&buffer.capacity()) {
        buffer.clear();
        with(|spare| keep(&mut spare.outputs, buffer));
    }
}

/// A few bytes that live on, in a buffer with others.
pub(super) fn small(bytes: &[u8]) -> Bytes {
    let put = |spare: &mut SpareBuffers| {
        if spare.small.capacity() < bytes.len() {
            spare.small.reserve(HEAD.max(bytes.len()));
        }
        spare.small.extend_from_slice(bytes);
        spare.small.split().freeze()
    };
    with(put).unwrap_or_else(|| Bytes::copy_from_slice(bytes))
}

fn keep<T>(kept: &mut Vec<T>, piece: T) {
    if kept.len() < KEPT {
        kept.push(piece);
    }
}

/// Header fields, in a map that was another message's before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Headers(HeaderMap);

impl Headers {
    /// None, with room for so many.
    pub(super) fn with_room(fields: usize) -> Self {
        let spare = with(|spare| spare.maps.pop()).flatten();
        let mut map = spare.unwrap_or_else(|| HeaderMap::with_capacity(FIELDS));
        map.reserve(fields);
        Self(map)
    }
}

impl Default for Headers {
    fn default() -> Self {
        Self::with_room(0)
    }
}

impl From<HeaderMap> for Headers {
    fn from(map: HeaderMap) -> Self {
        Self(map)
    }
}

impl Deref for Headers {
    type Target = HeaderMap;

    fn deref(&self) -> &HeaderMap {
        &self.0
    }
}

impl DerefMut for Headers {
    fn deref_mut(&mut self) -> &mut HeaderMap {
        &mut self.0
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if (FIELDS..=MANY_FIELDS).contains(&self.0.capacity()) {
            let mut map = std::mem::take(&mut self.0);
            map.clear();
            with(|spare| keep(&mut spare.maps, map));
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn what_was_given_back_is_taken_again_and_empty() {
        let mut first = input();
        first.extend_from_slice(b"GET / HTTP/1.1\r\n");
        let head = first.split().freeze();
        let at = head.as_ptr();
        give_input(first);
        assert_ne!(input().as_ptr(), at, "somebody still reads it");
        let mut second = input();
        second.extend_from_slice(b"x");
        let at = second.as_ptr();
        give_input(second);
        let again = input();
        assert!(again.is_empty() && again.as_ptr() == at);

        let mut headers = Headers::default();
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        drop(headers);
        assert!(Headers::default().is_empty());

        let mut out = output();
        out.push(b'x');
        give_output(out);
        assert!(output().is_empty());
    }

    #[test]
    fn little_and_nothing_large_is_kept() {
        for _ in 0..2 * KEPT {
            give_input(BytesMut::with_capacity(HEAD));
            give_output(Vec::with_capacity(HEAD));
            drop(Headers(HeaderMap::with_capacity(FIELDS)));
        }
        let kept =
            || with(|spare| [spare.inputs.len(), spare.outputs.len(), spare.maps.len()]).unwrap();
        assert_eq!(kept(), [KEPT; 3]);
        while kept() != [0; 3] {
            drop((input(), output()));
            std::mem::forget(Headers::default());
        }
        give_output(Vec::with_capacity(LARGE + 1));
        give_output(Vec::new());
        drop(Headers(HeaderMap::with_capacity(10 * MANY_FIELDS)));
        assert_eq!(kept(), [0; 3]);
        give_input(BytesMut::with_capacity(4 * LARGE));
        assert!(input().capacity() <= LARGE);
    }

    #[test]
    fn small_texts_share_a_buffer() {
        let (first, second) = (small(b"first"), small(b"second"));
        assert_eq!((&first[..], &second[..]), (&b"first"[..], &b"second"[..]));
        let long = vec![b'x'; 3 * HEAD];
        assert_eq!(small(&long), long);
    }
}
