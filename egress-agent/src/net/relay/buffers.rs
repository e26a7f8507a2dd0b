//! What the relayed connections of a worker share.

use std::{
    cell::{Cell, RefCell, RefMut},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, ReadBuf};

use crate::net::RelayIo;
use crate::sys::splice::Pipe;

/// The buffer that all connections of a worker share.
const SHARED: usize = 64 * 1024;
/// Larger pipes brought nothing; a user without privilege may have 256 of these.
const PIPE: usize = 256 * 1024;
/// Empty pipes kept for later.
const POOLED: usize = 64;

/// A piece of less than this, in bytes, is copied: as one of its own it would keep the whole buffer alive that
/// it was read into.
const SMALL: usize = 4 * 1024;

/// What the relayed connections of a worker share.
#[derive(Debug)]
pub struct Buffers {
    shared: RefCell<Box<[u8]>>,
    /// Where what is kept in a buffer of its own is read into.
    own: RefCell<BytesMut>,
    pub(super) pool: RefCell<Vec<Pipe>>,
    lent: Cell<usize>,
    most: usize,
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new(1024)
    }
}

impl Buffers {
    /// With so many pipes at most, which take two descriptors each; connections beyond them copy.
    #[must_use]
    pub fn new(pipes: usize) -> Self {
        Self {
            shared: RefCell::new(vec![0; SHARED].into()),
            own: RefCell::default(),
            pool: RefCell::default(),
            lent: Cell::new(0),
            most: pipes,
        }
    }

    /// An empty pipe, unless too many are lent or the process is out of files.
    pub(super) fn lend(&self) -> Option<Pipe> {
        if self.lent.get() >= self.most {
            return None;
        }
        let pooled = self.pool.borrow_mut().pop();
        let pipe = pooled.or_else(|| Pipe::new(PIPE).ok())?;
        self.lent.set(self.lent.get() + 1);
        Some(pipe)
    }

    /// Takes a pipe back. One with bytes in it is closed: they belong to its connection alone.
    pub(super) fn give_back(&self, pipe: Pipe) {
        self.lent.set(self.lent.get() - 1);
        let mut pool = self.pool.borrow_mut();
        if pipe.is_empty() && self.lent.get() + pool.len() < self.most && pool.len() < POOLED {
            pool.push(pipe);
        }
    }

    /// Pipes lent to connections now.
    #[must_use]
    pub fn pipes_lent(&self) -> usize {
        self.lent.get()
    }

    /// Reads what there is: into the shared buffer, or where `keeps` says so into one of its own.
    pub(super) fn poll_read<F: RelayIo>(
        &self,
        cx: &mut Context<'_>,
        from: &mut F,
        keeps: bool,
    ) -> Poll<io::Result<Read<'_>>> {
        if !keeps {
            let mut shared = self.shared.borrow_mut();
            let mut buffer = ReadBuf::new(&mut shared);
            ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
            let length = buffer.filled().len();
            return Poll::Ready(Ok(Read::Shared(shared, length)));
        }
        let mut own = self.own.borrow_mut();
        own.clear();
        own.reserve(SHARED);
        ready!(pin!(from.read_buf(&mut (&mut *own).limit(SHARED))).poll(cx))?;
        let read = match own.len() {
            small if small < SMALL => Bytes::copy_from_slice(&own),
            _ => own.split().freeze(),
        };
        Poll::Ready(Ok(Read::Own(read)))
    }
}

/// What was read.
pub(super) enum Read<'a> {
    /// So many bytes of the shared buffer.
    Shared(RefMut<'a, Box<[u8]>>, usize),
    /// In a buffer of its own.
    Own(Bytes),
}

impl Read<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Shared(_, length) => *length,
            Self::Own(bytes) => bytes.len(),
        }
    }

    /// The end.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes what is taken at once, and gives what is left. It keeps little more alive than it is long.
    pub(super) fn pass_on<T: RelayIo>(self, cx: &mut Context<'_>, to: &mut T) -> io::Result<Bytes> {
        let written = |written| match written {
            0 => Err(io::Error::from(io::ErrorKind::WriteZero)),
            written => Ok(written),
        };
        match self {
            Self::Shared(buffer, length) => {
                let mut rest = buffer.get(..length).unwrap_or_default();
                while !rest.is_empty() {
                    let Poll::Ready(taken) = Pin::new(&mut *to).poll_write(cx, rest) else {
                        return Ok(Bytes::copy_from_slice(rest));
                    };
                    rest = rest.get(written(taken?)?..).unwrap_or_default();
                }
                Ok(Bytes::new())
            }
            Self::Own(mut rest) => {
                while !rest.is_empty() {
                    let Poll::Ready(taken) = to.poll_write_bytes(cx, &mut rest) else {
                        let is_small = rest.len() < SMALL;
                        return Ok(if is_small { Bytes::copy_from_slice(&rest) } else { rest });
                    };
                    written(taken?)?;
                }
                Ok(Bytes::new())
            }
        }
    }
}
