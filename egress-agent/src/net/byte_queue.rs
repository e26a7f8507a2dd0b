//! Bytes that were received and wait for whoever takes them.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::net::TcpStream;

/// A piece of less than this, in bytes, is copied: as one of its own it would keep the whole buffer
/// alive that it was read into.
const SMALL: usize = 4 * 1024;
/// Pieces that are written at once.
const SLICES: usize = 16;

/// A queue of bytes. Small pieces are put together, so it takes little more memory than it has
/// bytes, however small the frames are that they came in.
#[derive(Debug, Default)]
pub struct ByteQueue {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl ByteQueue {
    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, data: Bytes) {
        self.len += data.len();
        if data.len() < SMALL {
            self.tail.extend_from_slice(&data);
            return;
        }
        self.end_tail();
        self.pieces.push_back(data);
    }

    /// Takes the first bytes, as many as lie together, but at most so many.
    pub fn pop(&mut self, most: usize) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.end_tail();
        }
        let first = self.pieces.front_mut()?;
        let piece =
            if first.len() > most { first.split_to(most) } else { self.pieces.pop_front()? };
        self.len -= piece.len();
        Some(piece)
    }

    /// Writes what the socket takes, and gives the number of bytes.
    ///
    /// # Errors
    /// What the socket says; [`io::ErrorKind::WouldBlock`] if it takes nothing now.
    pub fn write(&mut self, to: &TcpStream) -> io::Result<usize> {
        if self.pieces.is_empty() {
            self.end_tail();
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = self.pieces.len().min(SLICES);
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
        }
        let written = to.try_write_vectored(slices.get(..count).unwrap_or_default())?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.advance(written);
        Ok(written)
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.len -= written;
        while let Some(first) = self.pieces.front_mut() {
            if first.len() > written {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(sizes in prop::collection::vec(0_usize..10_000, 0..20)) {
            let mut queue = ByteQueue::default();
            let mut all = Vec::new();
            for (size, mark) in sizes.iter().zip(0_u8..) {
                queue.push(Bytes::from(vec![mark; *size]));
                all.extend(vec![mark; *size]);
                prop_assert_eq!(queue.len(), all.len());
            }
            let mut got = Vec::new();
            while let Some(piece) = queue.pop(5000) {
                prop_assert!(piece.len() <= 5000);
                got.extend_from_slice(&piece);
                prop_assert_eq!(queue.len(), all.len() - got.len());
            }
            prop_assert!(got == all && queue.is_empty());
        }
    }

    #[test]
    fn small_pieces_share_one_buffer() {
        let mut queue = ByteQueue::default();
        for _ in 0..1000 {
            queue.push(Bytes::from_static(b"0123456789"));
        }
        assert_eq!(queue.pop(usize::MAX).map(|piece| piece.len()), Some(10_000));
        assert!(queue.pop(1).is_none());
    }
}
