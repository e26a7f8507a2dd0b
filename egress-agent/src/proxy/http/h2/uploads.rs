//! The part of a connection's window that its uploads take.
//!
//! An upstream that does not read the bodies of some requests uses the window up, and every other body on
//! the connection waits (RFC 9113 §5.2.2). So a request goes where the window has room for its body. What
//! is sent counts in the window itself; what is about to be sent counts here.

use std::{cell::Cell, rc::Rc};

use super::super::framing::Framing;

/// What a body of unknown length has for itself, in bytes.
const UNKNOWN: usize = 1024;
/// Window of a connection before its peer opens it further, in bytes (RFC 9113 §6.9.2). A body has at
/// most so much for itself.
pub(in super::super) const FIRST_WINDOW: usize = 65_535;
/// What has to be left of the window for a long body, in bytes: it gets more as the upstream reads.
const BEGINNING: usize = 16 * 1024;

/// The uploads of one connection.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    /// Promised to bodies that have not been handed over.
    promised: Cell<usize>,
    /// Handed to the library since it last wrote.
    handed: Cell<usize>,
}

/// What one body will still take. It is given back with it.
#[derive(Debug, Default)]
pub(super) struct WindowReservation {
    uploads: Rc<Uploads>,
    left: usize,
}

/// What a body will take of a connection's window, in bytes, as far as it is known before.
pub(in super::super) fn expected(framing: Framing) -> usize {
    match framing {
        Framing::None => 0,
        Framing::Length(length) => {
            usize::try_from(length).unwrap_or(FIRST_WINDOW).min(FIRST_WINDOW)
        }
        Framing::Chunked | Framing::UntilClose => UNKNOWN,
    }
}

impl Uploads {
    /// Whether a body of which so many bytes are [`expected`] need not wait for others. `window` is what the
    /// upstream takes now.
    pub(super) fn has_room(&self, window: i64, body: usize) -> bool {
        let taken = self.promised.get().saturating_add(self.handed.get());
        let free = usize::try_from(window).unwrap_or(0).saturating_sub(taken);
        free >= body.min(BEGINNING)
    }

    /// Keeps room for a body of which so many bytes are [`expected`].
    pub(super) fn promise(self: &Rc<Self>, bytes: usize) -> WindowReservation {
        self.promised.set(self.promised.get().saturating_add(bytes));
        WindowReservation { uploads: Rc::clone(self), left: bytes }
    }

    /// The library has written what it was handed, as far as it may.
    pub(super) fn wrote(&self) {
        self.handed.set(0);
    }
}

impl WindowReservation {
    /// So many bytes of the body were handed to the library.
    pub(super) fn hand(&mut self, bytes: usize) {
        let handed = &self.uploads.handed;
        handed.set(handed.get().saturating_add(bytes));
        self.keep(self.left.saturating_sub(bytes));
    }

    /// Nothing more will come.
    pub(super) fn end(&mut self) {
        self.keep(0);
    }

    fn keep(&mut self, left: usize) {
        let promised = &self.uploads.promised;
        promised.set(promised.get().saturating_sub(self.left).saturating_add(left));
        self.left = left;
    }
}

impl Drop for WindowReservation {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: i64 = 65_535;

    #[test]
    fn a_body_goes_where_the_window_has_room_for_it() {
        let uploads = Rc::<Uploads>::default();
        let long = expected(Framing::Length(1_000_000));
        assert!(uploads.has_room(FIRST, long));
        let first = uploads.promise(long);
        assert!(!uploads.has_room(FIRST, long), "all of it is promised");
        assert!(!uploads.has_room(FIRST, expected(Framing::Chunked)));
        assert!(
            uploads.has_room(FIRST, expected(Framing::None)),
            "what has no body waits for none"
        );
        assert!(uploads.has_room(1 << 20, long), "a larger window has room for more");
        drop(first);
        assert!(uploads.has_room(FIRST, long));
    }

    #[test]
    fn small_bodies_share_a_window_until_it_is_used_up() {
        let uploads = Rc::<Uploads>::default();
        let small = expected(Framing::Length(10_000));
        let bodies: Vec<_> = std::iter::repeat_with(|| {
            uploads.has_room(FIRST, small).then(|| uploads.promise(small))
        })
        .map_while(|body| body)
        .collect();
        assert_eq!(bodies.len(), 6);
    }

    #[test]
    fn what_was_written_is_no_longer_counted_here() {
        let uploads = Rc::<Uploads>::default();
        let mut body = uploads.promise(60_000);
        body.hand(60_000);
        assert!(!uploads.has_room(FIRST, 10_000), "handed over, and not in the window yet");
        uploads.wrote();
        assert!(uploads.has_room(FIRST, 10_000));
        assert!(!uploads.has_room(FIRST - 60_000, 10_000), "it is in the window");
        // More than was expected is no promise.
        body.hand(10_000);
        uploads.wrote();
        body.end();
        assert!(uploads.has_room(FIRST, 60_000));
    }
}
