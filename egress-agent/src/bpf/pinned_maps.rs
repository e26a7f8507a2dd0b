//! The pinned maps, held besides their pins: who removes a pin by hand takes nothing away, and the
//! next agent must find the maps that the programs use.

use std::{fs, path::Path};

use aya::maps::{MapData, MapInfo};

use super::{Error, load, pins::Pins};

/// The maps that are pinned, with their ids.
#[derive(Debug)]
pub(super) struct PinnedMaps(Vec<(&'static str, MapData, u32)>);

impl PinnedMaps {
    /// Those that were just loaded.
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        let maps = load::pinned().map(|name| {
            let failed = |error| Error::Map { map: name, error };
            let map = MapData::from_pin(pins.maps().join(name)).map_err(failed)?;
            let id = map.info().map_err(failed)?.id();
            Ok((name, map, id))
        });
        maps.collect::<Result<_, _>>().map(Self)
    }

    /// Pins again what is no longer pinned, and gives back what that was.
    pub(super) fn repair(&self, pins: &Pins) -> Vec<Result<&'static str, Error>> {
        let dir = pins.maps();
        let lost = self.0.iter().filter(|(name, _, id)| !is_pinned(&dir.join(name), *id));
        lost.map(|(name, map, _)| pin(pins, name, map).map(|()| *name)).collect()
    }
}

fn is_pinned(path: &Path, id: u32) -> bool {
    MapInfo::from_pin(path).is_ok_and(|info| info.id() == id)
}

fn pin(pins: &Pins, name: &str, map: &MapData) -> Result<(), Error> {
    pins.create()?;
    let path = pins.maps().join(name);
    // Another map under our name: the next agent would take it for ours.
    if path.exists() {
        fs::remove_file(&path).map_err(Error::io(format!("can't remove {}", path.display())))?;
    }
    map.pin(&path).map_err(|error| Error::Io {
        what: format!("can't pin {}", path.display()),
        error: std::io::Error::other(error.to_string()),
    })
}
