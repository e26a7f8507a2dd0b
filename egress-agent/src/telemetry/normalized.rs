//! What upstreams said in a way that the standard doesn't allow, but that has one meaning only: it is
//! put right and counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// What was put right.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Normalized { $($(#[$doc])* $name,)* }

        impl Normalized {
            /// Every kind.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$name),*];

            /// The metric's label.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

kinds! {
    /// Blanks after a chunk's size.
    ChunkBlanks = "chunk_blanks";
    /// A chunk extension that is longer than usual.
    ChunkExtension = "chunk_extension";
    /// A trailer that must not be one; it was left out.
    Trailer = "trailer";
    /// A header over several lines; they were joined.
    FoldedHeader = "folded_header";
    /// Blanks between a header's name and its colon; they were removed (RFC 9112 §5.1).
    HeaderBlanks = "header_blanks";
    /// A head whose lines end with LF alone, from the status line on (RFC 9112 §2.2).
    BareLf = "bare_lf";
    /// Several blanks between the version and the status code; one was kept (RFC 9112 §4).
    StatusBlanks = "status_blanks";
    /// `Content-Length` more than once with the same number; one was kept (RFC 9110 §8.6).
    RepeatedLength = "repeated_length";
    /// `Content-Length` beside `Transfer-Encoding: chunked`; it was removed (RFC 9112 §6.3).
    LengthAndEncoding = "length_and_encoding";
    /// A body that ends with its TLS connection, without an alert that says so.
    NoCloseNotify = "no_close_notify";
}

/// What was put right of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NormalizedKinds(u16);

const _: () = assert!(Normalized::ALL.len() <= u16::BITS as usize);

impl NormalizedKinds {
    /// Adds a kind.
    pub fn insert(&mut self, kind: Normalized) {
        self.0 |= 1 << kind as u16;
    }

    /// Whether it was of this kind, too.
    #[must_use]
    pub fn contains(self, kind: Normalized) -> bool {
        self.0 >> kind as u16 & 1 == 1
    }

    /// Each kind once.
    pub fn iter(self) -> impl Iterator<Item = Normalized> {
        Normalized::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}

static COUNTS: [AtomicU64; Normalized::ALL.len()] =
    [const { AtomicU64::new(0) }; Normalized::ALL.len()];

/// Counts one.
pub fn count_normalized(kind: Normalized) {
    if let Some(count) = COUNTS.get(kind as usize) {
        count.fetch_add(1, Relaxed);
    }
}

/// How many of this kind there were in this process.
#[must_use]
pub fn normalized(kind: Normalized) -> u64 {
    COUNTS.get(kind as usize).map_or(0, |count| count.load(Relaxed))
}
