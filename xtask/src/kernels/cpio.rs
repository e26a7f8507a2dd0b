//! An archive as the kernel unpacks it into its first root file system: cpio in the "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{collections::BTreeMap, ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// Files by path, which has no leading slash. Directories are made as they are needed.
#[derive(Default)]
pub(crate) struct Archive(BTreeMap<String, Entry>);

struct Entry {
    mode: u32,
    data: Vec<u8>,
}

impl Archive {
    /// Adds an executable file; `path` may have a leading slash.
    pub(crate) fn program(&mut self, path: &Path, data: Vec<u8>) -> Result<()> {
        let path = relative(path)?;
        for (end, _) in path.match_indices('/') {
            self.directory(Path::new(&path[..end]))?;
        }
        self.0.insert(path, Entry { mode: PROGRAM, data });
        Ok(())
    }

    /// Adds a directory. Its parents must be there, or be added too.
    pub(crate) fn directory(&mut self, path: &Path) -> Result<()> {
        let entry = Entry { mode: DIRECTORY, data: Vec::new() };
        self.0.entry(relative(path)?).or_insert(entry);
        Ok(())
    }

    pub(crate) fn has(&self, path: &Path) -> bool {
        relative(path).is_ok_and(|path| self.0.contains_key(&path))
    }

    /// The archive's bytes. A directory sorts before what is in it.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for (number, (path, entry)) in self.0.iter().enumerate() {
            write(&mut out, number + 1, path, entry)?;
        }
        write(&mut out, 0, "TRAILER!!!", &Entry { mode: 0, data: Vec::new() })?;
        Ok(out)
    }
}

fn relative(path: &Path) -> Result<String> {
    let bytes: Vec<&OsStr> = path
        .components()
        .filter(|part| part.as_os_str() != "/")
        .map(|part| part.as_os_str())
        .collect();
    let bytes = bytes.join(OsStr::new("/"));
    String::from_utf8(bytes.as_bytes().to_vec()).with_context(|| path.display().to_string())
}

fn write(out: &mut Vec<u8>, inode: usize, name: &str, entry: &Entry) -> Result<()> {
    let size = u32::try_from(entry.data.len()).context("a file of 4 GiB and more")?;
    // Magic, inode, mode, uid, gid, links, mtime, size, four device numbers, length of the name
    // with its final zero, checksum (unused in this format).
    let head = format!(
        "070701{inode:08x}{:08x}{zero:08x}{zero:08x}{:08x}{zero:08x}{size:08x}{zero:08x}{zero:08x}\
         {zero:08x}{zero:08x}{:08x}{zero:08x}",
        entry.mode,
        1,
        name.len() + 1,
        zero = 0,
    );
    out.extend(head.bytes());
    out.extend(name.bytes());
    out.push(0);
    pad(out);
    out.extend(&entry.data);
    pad(out);
    Ok(())
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_read_back_as_it_was_written() -> Result<()> {
        let mut archive = Archive::default();
        archive.program(Path::new("/bin/tools/sh"), b"#!abc".to_vec())?;
        archive.directory(Path::new("proc"))?;
        assert!(archive.has(Path::new("/bin")) && !archive.has(Path::new("/sbin")));

        let bytes = archive.bytes()?;
        let mut seen = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            assert_eq!(&rest[..6], b"070701");
            let field = |number: usize| {
                let hex = std::str::from_utf8(&rest[6 + number * 8..14 + number * 8]);
                usize::from_str_radix(hex.unwrap_or_default(), 16).unwrap_or(usize::MAX)
            };
            let (mode, size, name) = (field(1), field(6), field(11));
            let data = (110 + name).next_multiple_of(4);
            let text = String::from_utf8_lossy(&rest[110..110 + name - 1]).into_owned();
            assert_eq!(rest[110 + name - 1], 0);
            seen.push((text, mode, rest[data..data + size].to_vec()));
            rest = &rest[(data + size).next_multiple_of(4)..];
        }
        let names: Vec<&str> = seen.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["bin", "bin/tools", "bin/tools/sh", "proc", "TRAILER!!!"]);
        assert_eq!((seen[2].1, seen[2].2.as_slice()), (0o100_755, &b"#!abc"[..]));
        assert_eq!(seen[0].1, 0o040_755);
        Ok(())
    }
}
