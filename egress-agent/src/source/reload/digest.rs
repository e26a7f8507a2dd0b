//! What tells one configuration from another.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use aws_lc_rs::digest::{Context, SHA256};

use crate::{config::Discovered, source::Files};

/// Of what was read, in the order of paths: each file's name and text, with their lengths. Where the
/// directory is doesn't matter.
pub(super) fn digest(files: &Files) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    for file in files.resources.iter().chain(&files.mesh) {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        for part in [name, &file.text] {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part.as_bytes());
        }
    }
    if files.discovered != Discovered::default() {
        let mut hasher = DefaultHasher::new();
        files.discovered.hash(&mut hasher);
        context.update(&hasher.finish().to_be_bytes());
    }
    let digest = context.finish();
    let mut first = [0; 16];
    first.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    first
}
