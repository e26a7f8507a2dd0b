//! Single files that belong together, such as a certificate and its key.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    stamp::{Fingerprint, parent},
    watch::Watched,
};

/// A file above this is a mistake: bundles of all public roots have 250 KiB, revocation lists of
/// large CAs some MiB.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Files that are read together. Some of them may be absent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileSet(BTreeSet<PathBuf>);

/// What was read, by path.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct FileContents(BTreeMap<PathBuf, Result<Vec<u8>, Unreadable>>);

impl fmt::Debug for FileContents {
    /// Without the contents: keys are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Why a file can't be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// It isn't there.
    Absent,
    /// This process may not.
    Denied,
    /// It is too large to be what it should be.
    TooLarge,
    /// What the system said.
    Other(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("the file does not exist"),
            Self::Denied => f.write_str("this process may not read the file"),
            Self::TooLarge => write!(f, "the file has more than {MAX_FILE_BYTES} bytes"),
            Self::Other(error) => write!(f, "can't be read: {error}"),
        }
    }
}

impl FromIterator<PathBuf> for FileSet {
    fn from_iter<I: IntoIterator<Item = PathBuf>>(paths: I) -> Self {
        Self(paths.into_iter().collect())
    }
}

impl FromIterator<FileSet> for FileSet {
    fn from_iter<I: IntoIterator<Item = FileSet>>(sets: I) -> Self {
        Self(sets.into_iter().flat_map(|set| set.0).collect())
    }
}

impl FromIterator<(PathBuf, Result<Vec<u8>, Unreadable>)> for FileContents {
    fn from_iter<I: IntoIterator<Item = (PathBuf, Result<Vec<u8>, Unreadable>)>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

impl FileContents {
    /// Both.
    #[must_use]
    pub fn with(&self, other: Self) -> Self {
        Self(self.0.clone().into_iter().chain(other.0).collect())
    }

    /// The content of one of the files.
    ///
    /// # Errors
    /// It can't be read, or isn't one of them.
    pub fn get(&self, path: &Path) -> Result<&[u8], Unreadable> {
        match self.0.get(path) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(error)) => Err(error.clone()),
            None => Err(Unreadable::Absent),
        }
    }
}

impl Watched for FileSet {
    type Content = FileContents;

    const WHAT: &'static str = "certificates are";

    fn read(&self) -> FileContents {
        FileContents(self.0.iter().map(|path| (path.clone(), read(path))).collect())
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.0.iter().cloned())
    }

    /// The directories with the files, and theirs: kubelet swaps a link beside the files, others
    /// replace the directory.
    fn places(&self) -> Vec<PathBuf> {
        let mut places = BTreeSet::new();
        for path in &self.0 {
            let Some(dir) = parent(path) else { continue };
            places.extend(parent(&dir));
            places.insert(dir);
        }
        places.into_iter().collect()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the standard library's enum, which may grow")]
fn read(path: &Path) -> Result<Vec<u8>, Unreadable> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_FILE_BYTES) => {
            Err(Unreadable::TooLarge)
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => Unreadable::Absent,
            io::ErrorKind::PermissionDenied => Unreadable::Denied,
            _ => Unreadable::Other(error.to_string()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, time::Duration};

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;
    use crate::source::{Timing, Watcher};

    /// What kubelet does on every change of a Secret: a new directory, and one rename.
    fn publish(dir: &Path, version: &str, certificate: &str, key: &str) {
        let data = dir.join(version);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("tls.crt"), certificate).unwrap();
        fs::write(data.join("tls.key"), key).unwrap();
        symlink(version, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), dir.join(name)).ok();
        }
    }

    #[tokio::test]
    async fn a_swap_as_kubelet_makes_it_is_seen_whole() {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        publish(dir.path(), "..1", "certificate 1", "key 1");
        let files: FileSet = ["tls.crt", "tls.key", "ca.crt"].into_iter().map(path).collect();
        let timing = Timing { quiet: Duration::from_millis(10), ..Timing::default() };
        let mut watcher = Watcher::new(files, timing);
        let first = watcher.next().await;
        assert_eq!(first.get(&path("tls.crt")), Ok(&b"certificate 1"[..]));
        assert_eq!(first.get(&path("ca.crt")), Err(Unreadable::Absent));
        for version in 2..6 {
            let (certificate, key) = (format!("certificate {version}"), format!("key {version}"));
            publish(dir.path(), &format!("..{version}"), &certificate, &key);
            let next = timeout(Duration::from_secs(20), watcher.next()).await.unwrap();
            assert_eq!(next.get(&path("tls.crt")), Ok(certificate.as_bytes()));
            assert_eq!(next.get(&path("tls.key")), Ok(key.as_bytes()));
        }
        fs::remove_dir_all(dir.path()).unwrap();
        let gone = timeout(Duration::from_secs(20), watcher.next()).await.unwrap();
        assert_eq!(gone.get(&path("tls.key")), Err(Unreadable::Absent));
    }

    #[test]
    fn contents_are_not_shown() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("tls.key");
        fs::write(&path, "secret").unwrap();
        let read = FileSet::from_iter([path]).read();
        let shown = format!("{read:?}");
        assert!(shown.contains("tls.key") && !shown.contains("115"), "{shown}");
    }
}
