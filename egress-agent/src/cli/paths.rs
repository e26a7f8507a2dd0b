//! The configuration that a command line names: files and directories.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    config::RawFile,
    source::{Directory, Files},
};

/// Everything that the paths name, or every path that can't be read.
pub(super) fn read(paths: &[PathBuf], mesh: Option<&Path>) -> (Files, Vec<String>) {
    let mut all = Files::default();
    let mut errors = Vec::new();
    let given = mesh.map(read_file);
    // What is wrong with it is said once, whatever the directories.
    let readable = mesh.filter(|_| matches!(given, Some(Ok(_))));
    for path in paths {
        if path.is_dir() {
            match Directory::new(path.clone(), readable.map(Path::to_owned)).read() {
                Ok(Files { resources, mesh: found, discovered: _, objects: _ }) => {
                    all.resources.extend(resources);
                    all.mesh = all.mesh.or(found);
                }
                Err(unreadable) => errors.extend(unreadable.iter().map(ToString::to_string)),
            }
        } else {
            match read_file(path) {
                Ok(file) if mesh.is_none() && is_mesh(path) => all.mesh = Some(file),
                Ok(file) => all.resources.push(file),
                Err(error) => errors.push(error),
            }
        }
    }
    if let (Some(mesh), Some(given)) = (mesh, given) {
        match given {
            Ok(file) => all.mesh = Some(file),
            Err(error) => errors.push(error),
        }
        all.resources.retain(|file| !is_same(Path::new(&file.path), mesh));
    }
    let mut seen = HashSet::new();
    all.resources.retain(|file| {
        let path = PathBuf::from(&file.path);
        seen.insert(path.canonicalize().unwrap_or(path))
    });
    errors.sort();
    errors.dedup();
    (all, errors)
}

fn is_mesh(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "mesh.yaml" || name == "mesh.yml")
}

fn is_same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn read_file(path: &Path) -> Result<RawFile, String> {
    match fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(RawFile { path: path.display().to_string(), text }),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                Err(format!(
                    "{} isn't UTF-8 text (byte {at} is wrong); expected YAML",
                    path.display()
                ))
            }
        },
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            Err(format!("{} is a directory; expected a file", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if path == Path::new("-") {
                return Err(
                    "found `-`, expected a file or a directory; standard input is /dev/stdin"
                        .into(),
                );
            }
            if let Ok(target) = fs::read_link(path) {
                let (path, target) = (path.display(), target.display());
                return Err(format!("{path} is a link to {target}, which doesn't exist"));
            }
            let hint = neighbour(path).map(|near| format!("; did you mean {near}?"));
            Err(format!("{} doesn't exist{}", path.display(), hint.unwrap_or_default()))
        }
        Err(error) => Err(format!("can't read {}: {error}", path.display())),
    }
}

/// The entry beside a path that doesn't exist which was probably meant.
fn neighbour(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let entries = fs::read_dir(parent.unwrap_or(Path::new("."))).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let scored = names.map(|name| (strsim::jaro_winkler(wanted, &name), name));
    let (score, name) = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    let near = parent.map_or_else(|| PathBuf::from(&name), |parent| parent.join(&name));
    (score > 0.85).then(|| near.display().to_string())
}
