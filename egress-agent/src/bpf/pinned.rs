//! What an agent left, or has, below its pins: read without owning them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::maps::{Map, MapData};
use egress_ebpf::abi::ABI_VERSION;

use super::{Counters, Error, Events, pins};

/// The process that owns the pins, if the kernel tells.
#[must_use]
pub fn pins_owner(dir: &Path) -> Option<u32> {
    pins::owner_of(dir)
}

/// The events and counters of this version of the ABI; `None` where there are none. There may be one
/// reader of events: make sure that nobody owns the pins. Must be called inside a runtime.
///
/// # Errors
/// They can't be opened.
pub fn orphaned(dir: &Path) -> Result<Option<(Events, Counters)>, Error> {
    let maps = dir.join(format!("v{ABI_VERSION}")).join("maps");
    if !maps.is_dir() {
        return Ok(None);
    }
    let events = Events::open(open(&maps, "EVENTS")?)?;
    let counters = Counters::open(open(&maps, "COUNTERS")?, open(&maps, "LOST")?)?;
    Ok(Some((events, counters)))
}

/// What is in a directory; nothing where it can't be read.
pub(super) fn below(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

pub(super) fn open(maps: &Path, name: &'static str) -> Result<Map, Error> {
    MapData::from_pin(maps.join(name))
        .and_then(Map::from_map_data)
        .map_err(|error| Error::Map { map: name, error })
}
