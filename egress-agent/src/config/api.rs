//! What the rest of the agent asks of the configuration.

use super::{Compiled, Discovered, Problems, RawFile, resource};

/// Compiles all resources in `files`, with the mesh-wide settings of `mesh`.
///
/// A file named `mesh.yaml` among `files` holds the settings where `mesh` is absent.
///
/// # Errors
/// Every problem of every file at once, warnings included.
pub fn compile(files: &[RawFile], mesh: Option<&RawFile>) -> Result<Compiled, Problems> {
    super::compile::compile(files, mesh, &Discovered::default())
}

/// The kinds that are read: group, name, versions, the newest first.
pub fn kinds() -> impl Iterator<Item = (&'static str, &'static str, &'static [&'static str])> {
    resource::kinds()
}

/// The same in a cluster, which says where its gateways are and what is inside.
///
/// # Errors
/// As for [`compile()`].
pub fn compile_in(
    discovered: &Discovered,
    files: &[RawFile],
    mesh: Option<&RawFile>,
) -> Result<Compiled, Problems> {
    super::compile::compile(files, mesh, discovered)
}
