//! Moving bytes between sockets inside the kernel, through a pipe (`splice(2)`).

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

/// A pipe that knows how many bytes lie in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    filled: usize,
}

impl Pipe {
    /// A pipe of about `capacity` bytes; of the kernel's default, 64 KiB, where the user's share
    /// of pipe memory (`fs.pipe-user-pages-soft`) is used up.
    ///
    /// # Errors
    /// Out of files or memory.
    pub fn new(capacity: usize) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let capacity = match fcntl_setpipe_size(&write, capacity) {
            Ok(capacity) => capacity,
            Err(_) => fcntl_getpipe_size(&write)?,
        };
        Ok(Self { read, write, capacity, filled: 0 })
    }

    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether nothing is in it. Only then may it serve another connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Takes what a socket has; zero is its end. Fill an empty pipe only: `WouldBlock` of a filled
    /// one could mean the pipe as well as the socket.
    ///
    /// # Errors
    /// `WouldBlock` if the socket has nothing now.
    pub fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let count = splice(from, None, &self.write, None, self.capacity, flags)?;
        self.filled += count;
        Ok(count)
    }

    /// Gives a socket what it takes.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing now.
    pub fn drain(&mut self, into: impl AsFd) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let count = splice(&self.read, None, into, None, self.filled, flags)?;
        self.filled -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    #[test]
    fn bytes_pass_whole_and_in_order() {
        let (mut sender, source) = UnixStream::pair().unwrap();
        let (sink, mut receiver) = UnixStream::pair().unwrap();
        source.set_nonblocking(true).unwrap();
        let mut pipe = Pipe::new(256 * 1024).unwrap();
        assert_eq!(pipe.fill(&source).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        sender.write_all(b"some bytes").unwrap();
        assert_eq!(pipe.fill(&source).unwrap(), 10);
        assert_eq!(pipe.len(), 10);
        assert_eq!(pipe.drain(&sink).unwrap(), 10);
        assert!(pipe.is_empty());
        drop(sender);
        assert_eq!(pipe.fill(&source).unwrap(), 0);
        drop(sink);
        let mut text = String::new();
        receiver.read_to_string(&mut text).unwrap();
        assert_eq!(text, "some bytes");
    }
}
