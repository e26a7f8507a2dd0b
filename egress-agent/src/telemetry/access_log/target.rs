//! Where lines go: the process's output, or a file that may be rotated.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Write as _},
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
    File { path: PathBuf, file: File },
}

impl Target {
    pub(super) fn open(path: &str) -> io::Result<Self> {
        match path {
            "/dev/stdout" => Ok(Self::Stdout),
            "/dev/stderr" => Ok(Self::Stderr),
            path => Ok(Self::File { path: path.into(), file: append(path.as_ref())? }),
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
            Self::File { file, .. } => file.write_all(bytes),
        }
    }

    /// Opens the file anew if another one, or none, is at its path: it was rotated.
    pub(super) fn follow(&mut self) -> io::Result<bool> {
        let Self::File { path, file } = self else { return Ok(false) };
        let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        match (file.metadata(), path.metadata()) {
            (Ok(ours), Ok(there)) if same(&ours, &there) => Ok(false),
            _ => {
                *file = append(path)?;
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
