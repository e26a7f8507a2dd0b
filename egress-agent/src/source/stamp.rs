//! What files look like without reading them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What files looked like when their metadata was read; two equal ones are the same content, as far
/// as the file system tells. Links count as what they lead to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fingerprint(Vec<(PathBuf, Option<DirectoryStamp>)>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct DirectoryStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// Of these files, there or not.
    pub(super) fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let stamps = paths.into_iter().map(|path| {
            let stamp = stamp(&path);
            (path, stamp)
        });
        Self(stamps.collect())
    }

    /// The same, and this path, of which nothing but the name counts.
    pub(super) fn with(mut self, path: PathBuf) -> Self {
        self.0.push((path, None));
        self
    }
}

fn stamp(path: &Path) -> Option<DirectoryStamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(DirectoryStamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// The directory that a path is in.
pub(super) fn parent(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    // The parent of a bare `mesh.yaml` is the empty path.
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
}
