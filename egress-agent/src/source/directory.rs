//! Reading a directory of resources.
//!
//! What counts: regular files (or links to such) named `*.yaml` or `*.yml`, in the directory itself
//! and one level below it, so that a directory for each namespace or application works. Hidden
//! entries (`.git`, kubelet's `..data`, vim's `.x.swp`) don't count, nor do names that editors give
//! to backups, which end in neither suffix (`x.yaml~`, `#x.yaml#`, `x.yaml.orig`).

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use super::{
    stamp::{Fingerprint, parent},
    verdicts::ObjectGenerations,
    watch::Watched,
};
use crate::config::{Discovered, RawFile};

/// The mesh-wide settings, where `--mesh` names no other file.
const MESH_FILE: &str = "mesh.yaml";
/// A file above this is a mistake; the API server takes 1.5 MiB.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// So many files are a mistake, such as `/`.
const MAX_FILES: usize = 10_000;

/// A directory of resources and the file of mesh-wide settings.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    /// `None`: `mesh.yaml` in the directory, if it is there.
    mesh: Option<PathBuf>,
}

/// Everything that was read, in the order of paths.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Files {
    /// The resources.
    pub resources: Vec<RawFile>,
    /// The mesh-wide settings.
    pub mesh: Option<RawFile>,
    /// What a cluster says of itself.
    pub discovered: Discovered,
    /// The objects that the resources are, where they are some.
    pub objects: ObjectGenerations,
}

/// A part of the configuration that couldn't be read. It is the environment's fault, and nothing
/// changes because of it: the last good configuration stays.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ReadError {
    /// The directory isn't there, isn't a directory, or may not be read.
    #[error(
        "can't read the configuration directory {}: {error}; expected a directory of *.yaml files",
        path.display()
    )]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// A file may not be read, or vanished.
    #[error("can't read {}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// A file isn't text.
    #[error("{} isn't UTF-8 text (byte {at} is wrong); expected YAML", path.display())]
    NotText {
        /// Which.
        path: PathBuf,
        /// Offset of the first bad byte.
        at: usize,
    },
    /// A file is too large to be a configuration.
    #[error("{} has more than {MAX_FILE_BYTES} bytes; split it up", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// There are too many files for this to be the right directory.
    #[error("{} holds more than {MAX_FILES} YAML files; is it the right directory?", path.display())]
    TooMany {
        /// Which.
        path: PathBuf,
    },
}

impl Directory {
    /// `mesh`: the file of mesh-wide settings; `mesh.yaml` in the directory where absent.
    #[must_use]
    pub fn new(path: PathBuf, mesh: Option<PathBuf>) -> Self {
        Self { path, mesh }
    }

    /// Reads everything.
    ///
    /// # Errors
    /// Every part that can't be read, not only the first.
    pub fn read(&self) -> Result<Files, Vec<ReadError>> {
        let mut errors = Vec::new();
        let mut files = Files::default();
        match &self.mesh {
            Some(path) => files.mesh = keep(read_file(path), &mut errors),
            None => {
                let path = self.path.join(MESH_FILE);
                if path.exists() {
                    files.mesh = keep(read_file(&path), &mut errors);
                }
            }
        }
        match self.list() {
            Ok(paths) => {
                files.resources =
                    paths.iter().filter_map(|path| keep(read_file(path), &mut errors)).collect();
            }
            Err(error) => errors.push(error),
        }
        if errors.is_empty() { Ok(files) } else { Err(errors) }
    }

    /// The resource files, sorted; without the mesh file.
    fn list(&self) -> Result<Vec<PathBuf>, ReadError> {
        let unreadable = |path: &Path, error: io::Error| ReadError::Directory {
            path: path.to_owned(),
            error: error.to_string(),
        };
        let mut paths = Vec::new();
        for entry in entries(&self.path).map_err(|error| unreadable(&self.path, error))? {
            if entry.is_dir() {
                let below = entries(&entry).map_err(|error| unreadable(&entry, error))?;
                paths.extend(below.into_iter().filter(|path| is_resource(path)));
            } else if is_resource(&entry) {
                paths.push(entry);
            }
            if paths.len() > MAX_FILES {
                return Err(ReadError::TooMany { path: self.path.clone() });
            }
        }
        let mesh = self.mesh_path();
        let same = mesh.canonicalize().ok();
        paths.retain(|path| *path != mesh && (same.is_none() || path.canonicalize().ok() != same));
        paths.sort();
        Ok(paths)
    }

    fn mesh_path(&self) -> PathBuf {
        self.mesh.clone().unwrap_or_else(|| self.path.join(MESH_FILE))
    }
}

impl Watched for Directory {
    type Content = Result<Arc<Files>, Vec<ReadError>>;

    const WHAT: &'static str = "configuration is";

    fn read(&self) -> Self::Content {
        Self::read(self).map(Arc::new)
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut paths = match self.list() {
            Ok(paths) => paths,
            // A directory that can't be listed differs from an empty one.
            Err(_) => return Fingerprint::of([self.mesh_path()]),
        };
        paths.push(self.mesh_path());
        // The directory itself counts by being listed, not by its times.
        Fingerprint::of(paths).with(self.path.clone())
    }

    /// The parents are among them, so that a directory or link which is replaced as a whole is
    /// noticed.
    fn places(&self) -> Vec<PathBuf> {
        let mut watched = vec![self.path.clone()];
        watched.extend(parent(&self.path));
        watched.extend(parent(&self.mesh_path()));
        watched.extend(
            entries(&self.path).unwrap_or_default().into_iter().filter(|entry| entry.is_dir()),
        );
        watched.sort();
        watched.dedup();
        watched
    }
}

/// The entries that aren't hidden.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden {
            entries.push(path);
        }
    }
    Ok(entries)
}

fn is_resource(path: &Path) -> bool {
    let suffix = path.extension().is_some_and(|suffix| suffix == "yaml" || suffix == "yml");
    // A broken link counts, so that it is reported instead of silently meaning "nothing".
    suffix && fs::metadata(path).map_or(true, |metadata| metadata.is_file())
}

fn read_file(path: &Path) -> Result<RawFile, ReadError> {
    let failed =
        |error: io::Error| ReadError::File { path: path.to_owned(), error: error.to_string() };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_FILE_BYTES) {
        return Err(ReadError::TooLarge { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|error| ReadError::NotText {
        path: path.to_owned(),
        at: error.utf8_error().valid_up_to(),
    })?;
    Ok(RawFile { path: path.display().to_string(), text })
}

fn keep<T, E>(result: Result<T, E>, errors: &mut Vec<E>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

#[cfg(test)]
mod tests;
