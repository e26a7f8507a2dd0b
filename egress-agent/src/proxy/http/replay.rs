//! What was sent of a request's body, kept until the upstream has shown that it took the request: what
//! it has not processed is sent again on another connection (RFC 9113 §6.8 and §8.7).

use bytes::Bytes;
use http::HeaderMap;

use crate::proxy::Work;

/// Most that is kept of one body, in bytes. Requests of RPCs are smaller; what is longer is sent once.
pub(super) const MOST: usize = 64 * 1024;

/// The beginning of a body, or all of it.
#[derive(Debug)]
pub(super) struct Replay {
    pieces: Vec<Bytes>,
    size: usize,
    /// The body's end, with its trailers, once it has come.
    end: Option<Option<HeaderMap>>,
    /// More came than may be kept.
    overflowed: bool,
    /// The next piece to be sent again, and the bytes of it that were.
    at: (usize, usize),
    /// Its part of what the bytes of all requests may take.
    _place: Work,
}

/// What comes next out of a [`Replay`].
#[derive(Debug)]
pub(super) enum ReplayItem {
    Data(Bytes),
    End(Option<HeaderMap>),
}

impl Replay {
    /// Nothing yet; `place` is for [`MOST`] bytes.
    pub(super) fn new(place: Work) -> Self {
        Self {
            pieces: Vec::new(),
            size: 0,
            end: None,
            overflowed: false,
            at: (0, 0),
            _place: place,
        }
    }

    /// Whether all that came is here.
    pub(super) fn is_whole(&self) -> bool {
        !self.overflowed
    }

    /// Whether nothing came yet.
    pub(super) fn is_empty(&self) -> bool {
        self.size == 0 && self.end.is_none() && !self.overflowed
    }

    /// The next piece is sent for the first time.
    pub(super) fn keep(&mut self, piece: &Bytes) {
        if self.overflowed || self.size + piece.len() > MOST {
            self.overflowed = true;
            self.pieces = Vec::new();
            return;
        }
        self.size += piece.len();
        self.pieces.push(piece.clone());
        self.at = (self.pieces.len(), 0);
    }

    /// The body has ended.
    pub(super) fn keep_end(&mut self, trailers: Option<&HeaderMap>) {
        self.end = Some(trailers.cloned());
    }

    /// From here on all is sent again.
    pub(super) fn rewind(&mut self) {
        self.at = (0, 0);
    }

    /// At most `room` bytes that are to be sent again, or the end; `None` where the body goes on at its
    /// source.
    pub(super) fn next(&mut self, room: usize) -> Option<ReplayItem> {
        let (index, from) = self.at;
        let Some(piece) = self.pieces.get(index) else {
            return self.end.clone().map(ReplayItem::End);
        };
        let to = piece.len().min(from.saturating_add(room));
        self.at = if to == piece.len() { (index + 1, 0) } else { (index, to) };
        Some(ReplayItem::Data(piece.slice(from..to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::ConnectionOwner;

    fn replay() -> Replay {
        Replay::new(ConnectionOwner::default().spare(MOST).unwrap())
    }

    fn text(replay: &mut Replay, room: usize) -> String {
        let mut text = String::new();
        while let Some(next) = replay.next(room) {
            match next {
                ReplayItem::Data(bytes) => text += std::str::from_utf8(&bytes).unwrap(),
                ReplayItem::End(trailers) => {
                    text += if trailers.is_some() { "+" } else { "." };
                    break;
                }
            }
        }
        text
    }

    #[test]
    fn all_of_it_comes_again_in_pieces_that_fit() {
        let mut replay = replay();
        for piece in ["hello, ", "", "world"] {
            replay.keep(&Bytes::from_static(piece.as_bytes()));
            assert!(replay.next(8).is_none(), "what is new is not sent twice");
        }
        for room in [1, 3, 100] {
            replay.rewind();
            assert_eq!(text(&mut replay, room), "hello, world");
        }
        replay.rewind();
        assert!(matches!(replay.next(2), Some(ReplayItem::Data(bytes)) if bytes == "he"));
        replay.keep_end(None);
        replay.rewind();
        assert_eq!(text(&mut replay, 4), "hello, world.");
        let trailers = HeaderMap::new();
        replay.keep_end(Some(&trailers));
        replay.rewind();
        assert_eq!(text(&mut replay, 4), "hello, world+");
        assert!(replay.is_whole());
    }

    #[test]
    fn a_long_body_is_not_kept() {
        let mut replay = replay();
        replay.keep(&Bytes::from(vec![0; MOST]));
        assert!(replay.is_whole());
        replay.keep(&Bytes::from_static(b"x"));
        assert!(!replay.is_whole());
        replay.rewind();
        assert!(replay.next(1).is_none());
    }
}
