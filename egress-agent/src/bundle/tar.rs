//! A tar archive in POSIX's form (ustar), of regular files alone.

use std::{
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

/// Everything in an archive is in blocks of this size.
const BLOCK: usize = 512;

/// An archive that is being written.
#[derive(Debug)]
pub struct Archive<W> {
    out: W,
    /// The directory that all files are in.
    directory: String,
    time: u64,
}

impl<W: Write> Archive<W> {
    /// An archive whose files are in a directory of this name and have this time.
    pub fn new(out: W, directory: &str, time: SystemTime) -> Self {
        let time = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { out, directory: directory.to_owned(), time }
    }

    /// Adds a file.
    ///
    /// # Errors
    /// It can't be written, or its name is too long.
    pub fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = format!("{}/{name}", self.directory);
        let length = u64::try_from(content.len()).map_err(io::Error::other)?;
        self.out.write_all(&header(&path, length, self.time)?)?;
        self.out.write_all(content)?;
        let rest = content.len() % BLOCK;
        if rest > 0 {
            self.out.write_all(&vec![0; BLOCK - rest])?;
        }
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// It can't be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// The block before a file: name, mode, owner, size, time, checksum, type, magic.
fn header(path: &str, length: u64, time: u64) -> io::Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8], most: usize| match block.get_mut(at..at + bytes.len()) {
        Some(place) if bytes.len() <= most => {
            place.copy_from_slice(bytes);
            Ok(())
        }
        _ => Err(io::Error::other(format!("{path} doesn't fit into the archive"))),
    };
    put(0, path.as_bytes(), 100)?;
    put(100, b"0000600\0", 8)?;
    put(108, b"0000000\0", 8)?;
    put(116, b"0000000\0", 8)?;
    put(124, format!("{length:011o}\0").as_bytes(), 12)?;
    put(136, format!("{time:011o}\0").as_bytes(), 12)?;
    // The checksum counts as spaces while it is computed.
    put(148, b"        ", 8)?;
    put(156, b"0", 1)?;
    put(257, b"ustar\x0000", 8)?;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// What tar itself makes of it.
    #[test]
    fn tar_reads_it() {
        let mut archive = Archive::new(Vec::new(), "report", SystemTime::now());
        let long = "x".repeat(3 * BLOCK + 7);
        archive.add("empty", b"").unwrap();
        archive.add("long.txt", long.as_bytes()).unwrap();
        archive.add("block", &[b'b'; BLOCK]).unwrap();
        assert!(archive.add(&"n".repeat(100), b"").is_err());
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let dir = tempfile::TempDir::new().unwrap();
        let mut tar = Command::new("tar");
        let mut tar =
            tar.arg("-x").arg("-C").arg(dir.path()).stdin(Stdio::piped()).spawn().unwrap();
        tar.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(tar.wait().unwrap().success());
        let read =
            |name: &str| std::fs::read_to_string(dir.path().join("report").join(name)).unwrap();
        assert_eq!(read("long.txt"), long);
        assert_eq!(read("empty"), "");
        assert_eq!(read("block"), "b".repeat(BLOCK));
    }
}
