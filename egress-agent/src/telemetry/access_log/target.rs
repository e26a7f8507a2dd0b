//! Where lines go: the process's output, or a file that may be rotated.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// Where lines go.
#[derive(Debug)]
pub(super) enum Target {
    /// The process's own output, also where it is a socket and so can't be opened by name.
    Stdout,
    /// The same, the error output.
    Stderr,
    /// A file, appended to.
    File { path: PathBuf, lines: Lines<File> },
}

/// Appends whole lines: where a write broke off in the middle of one, as on a full disk, the next write
/// ends it first.
#[derive(Debug)]
pub(super) struct Lines<W> {
    output: W,
    torn: bool,
}

impl<W: Write> Lines<W> {
    fn new(output: W) -> Self {
        Self { output, torn: false }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.output.write_all(b"\n")?;
            self.torn = false;
        }
        let mut left = bytes;
        while !left.is_empty() {
            let written = match self.output.write(left) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => Ok(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                Err(error) => Err(error),
            };
            let written = written.inspect_err(|_| {
                let done = bytes.len() - left.len();
                let last = done.checked_sub(1).and_then(|last| bytes.get(last));
                self.torn = last.is_some_and(|last| *last != b'\n');
            })?;
            left = left.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}

impl Target {
    pub(super) fn open(path: &str) -> io::Result<Self> {
        match path {
            "/dev/stdout" => Ok(Self::Stdout),
            "/dev/stderr" => Ok(Self::Stderr),
            path => Ok(Self::File { path: path.into(), lines: Lines::new(append(path.as_ref())?) }),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::File { lines, .. } => lines.write(bytes),
        }
    }

    /// Opens the file anew if another one, or none, is at its path: it was rotated.
    pub(super) fn follow(&mut self) -> io::Result<bool> {
        let Self::File { path, lines } = self else { return Ok(false) };
        let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        match (lines.output.metadata(), path.metadata()) {
            (Ok(ours), Ok(there)) if same(&ours, &there) => Ok(false),
            _ => {
                *lines = Lines::new(append(path)?);
                Ok(true)
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    // A pipe without a reader is an error, not something to wait for; writes may wait again.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(nonblocking)
        .open(path)?;
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with this much room.
    #[derive(Default)]
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Never all at once.
            let taken = bytes.len().min(self.room).min(5);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.bytes.extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_glues_no_two_lines_together() {
        for room in 0..=30 {
            let mut lines = Lines::new(Disk { bytes: Vec::new(), room });
            while lines.write(b"first line\nsecond line\n").is_ok() {}
            assert!(lines.write(b"lost\n").is_err());
            lines.output.room = 1000;
            lines.write(b"whole again\n").unwrap();
            let text = String::from_utf8(lines.output.bytes).unwrap();
            let last = text.lines().last().unwrap();
            assert_eq!(last, "whole again", "{room}: {text:?}");
            for line in text.lines() {
                let known = ["first line", "second line", "whole again"];
                assert!(known.iter().any(|known| known.starts_with(line)), "{room}: {line:?}");
            }
        }
    }
}
