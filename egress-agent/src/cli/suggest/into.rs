//! `--into`: a suggestion as files of a directory, which the next suggestion adds to.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::suggest::{Part, Suggestion};

/// What became of a suggestion's files.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// What is now in the directory.
    pub(super) files: Vec<PathBuf>,
    /// Why a file was left as it is.
    pub(super) left: Vec<String>,
}

/// Writes a file for each part. A file is replaced where it holds the earlier suggestion that the part takes the
/// place of, and no other file is. So no resource is defined twice, and no change that somebody made is lost.
///
/// # Errors
/// A file can't be written; those before it are.
pub(super) fn write(suggestion: &Suggestion, directory: &Path) -> io::Result<Written> {
    let mut written = Written::default();
    for part in &suggestion.parts {
        let path = directory.join(&part.file);
        match obstacle(part, &path) {
            Some(why) => written.left.push(why),
            None => {
                replace(&path, &part.text)?;
                written.files.push(path);
            }
        }
    }
    Ok(written)
}

/// What speaks against writing a part there.
fn obstacle(part: &Part, path: &Path) -> Option<String> {
    let shown = path.display();
    match &part.replaces {
        // Of an API server, which has no file: what is here is the copy that was applied.
        Some(there) if there.file().is_empty() => None,
        Some(there) if is_same(Path::new(there.file()), path) => None,
        Some(there) => Some(format!(
            "{shown} is not written: it would take the place of {there}, which is in another file. \
             Take that out of there first"
        )),
        None if path.exists() => Some(format!(
            "{shown} is left as it is: it is there already, and no suggestion that is in force is in it"
        )),
        None => None,
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// In one step: an agent that watches the directory reads the old file or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let head = "# Written by `egress-agent suggest --into`, which may replace this file.\n";
    fs::write(&beside, format!("{head}{text}"))?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suggest::InForce;

    fn suggestion(text: &str, replaces: Option<InForce>) -> Suggestion {
        let part = Part { file: "shop.a.yaml".into(), text: text.into(), replaces };
        Suggestion { head: String::new(), parts: vec![part] }
    }

    #[test]
    fn only_the_earlier_suggestion_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let path = at.join("shop.a.yaml");
        let in_force = |file: &Path| InForce {
            resource: "VirtualService shop/a".into(),
            place: format!("{}:2", file.display()),
        };
        let text = || fs::read_to_string(&path).unwrap();
        let first = write(&suggestion("first\n", None), at).unwrap();
        assert_eq!((&first.files, first.left.len()), (&vec![path.clone()], 0));
        assert!(text().ends_with("\nfirst\n"));

        // Not in force: somebody else's, for all that is known.
        let unknown = write(&suggestion("second\n", None), at).unwrap();
        assert!(unknown.files.is_empty() && unknown.left[0].contains("left as it is"));
        // In force, and in another file.
        let other = at.join("by-hand.yaml");
        fs::write(&other, "").unwrap();
        let elsewhere = write(&suggestion("second\n", Some(in_force(&other))), at).unwrap();
        assert!(elsewhere.left[0].contains("by-hand.yaml:2"), "{elsewhere:?}");
        assert!(text().ends_with("\nfirst\n"));

        let second = write(&suggestion("second\n", Some(in_force(&path))), at).unwrap();
        assert_eq!((second.files.len(), second.left.len()), (1, 0));
        assert!(text().ends_with("\nsecond\n"));
        let left = fs::read_dir(at).unwrap().count();
        assert_eq!(left, 2, "nothing else is left in the directory");
    }
}
