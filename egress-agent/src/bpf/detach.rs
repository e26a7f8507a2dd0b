//! Removing enforcement, which nothing else does.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::programs::{
    links::{FdLink, PinnedLink},
    loaded_programs,
};

use super::{Error, attach::PinnedPlace, pins::Pins};

/// Removes everything below `dir` and says what it was, a line each; empty if there was nothing.
///
/// When it returns, nothing is enforced.
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
            && let Some((index, interface)) = place.interface()
            && let Some(direction) = place.direction()
        {
            super::attach::remove_clsact(index, &interface, direction)?;
        }
        said.push(format!("{} on {target}", place.program));
    }
    let programs = attached_programs(&pins.link_paths());
    let removed = pins.remove_all()?;
    wait_for_end(&programs);
    said.push(format!("{} pins and directories, {} among them", removed.len(), dir.display()));
    Ok(said)
}

/// Ids of the programs that pinned links attach.
fn attached_programs(links: &[PathBuf]) -> HashSet<u32> {
    let link = |path: &PathBuf| FdLink::from(PinnedLink::from_pin(path).ok()?).info().ok();
    links.iter().filter_map(link).map(|info| info.program_id()).collect()
}

/// Waits until the kernel has let go of the programs: it detaches links some time after their last
/// name went, and drops programs after that.
fn wait_for_end(programs: &HashSet<u32>) {
    const AT_MOST: Duration = Duration::from_secs(5);
    const EVERY: Duration = Duration::from_millis(5);
    let end = Instant::now() + AT_MOST;
    let lives = || loaded_programs().flatten().any(|program| programs.contains(&program.id()));
    while lives() {
        if Instant::now() >= end {
            tracing::warn!(
                "the pins are gone, but the kernel still holds programs after {} s",
                AT_MOST.as_secs()
            );
            return;
        }
        thread::sleep(EVERY);
    }
}
