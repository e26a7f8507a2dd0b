//! Removing enforcement, which nothing else does.

use std::path::Path;

use super::{Error, attach::PinnedPlace, pins::Pins};

/// Removes everything below `dir` and says what it was, a line each; empty if there was nothing.
///
/// # Errors
/// [`Error::Owned`] while an agent runs, which would only attach again; or a pin that can't be
/// removed.
pub fn detach(dir: &Path) -> Result<Vec<String>, Error> {
    let Some(pins) = Pins::own_existing(dir)? else { return Ok(Vec::new()) };
    let mut said = Vec::new();
    for name in pins.all_link_names() {
        let Some(place) = PinnedPlace::parse(&name) else { continue };
        let target = place.now().unwrap_or_else(|| "something that is gone".into());
        if place.clsact
            && let Some(interface) = place.interface()
        {
            super::attach::remove_clsact(&interface, place.direction())?;
        }
        said.push(format!("{} on {target}", place.program));
    }
    let removed = pins.remove_all()?;
    said.push(format!("{} pins and directories, {} among them", removed.len(), dir.display()));
    Ok(said)
}
