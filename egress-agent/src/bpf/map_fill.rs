//! How full the maps are.

use std::path::Path;

use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError};
use egress_ebpf::abi::ABI_VERSION;

use super::pinned::below;

/// How full a map is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapFill {
    /// Its name.
    pub name: String,
    /// Entries; `None` where they can't be counted, as in arrays, which are always whole.
    pub entries: Option<u32>,
    /// How many it takes; for a ring buffer, bytes.
    pub capacity: u32,
    /// Whether a full one forgets its oldest entries, rather than refuse new ones.
    pub evicts: bool,
}

impl MapFill {
    /// Whether it refuses new entries.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.evicts && self.entries.is_some_and(|entries| entries >= self.capacity)
    }

    /// Whether it is about to: nine tenths are taken.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        let taken = |entries| u64::from(entries) * 10 >= u64::from(self.capacity) * 9;
        !self.evicts && self.entries.is_some_and(taken)
    }
}

/// How full the maps of this agent's version are, which are pinned below `dir`. One that can't be read is
/// left out.
#[must_use]
pub fn map_fills(dir: &Path) -> Vec<MapFill> {
    let maps = dir.join(format!("v{ABI_VERSION}")).join("maps");
    let named = below(&maps).into_iter().filter_map(|path| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        of(&path, name).ok()
    });
    let mut fills: Vec<MapFill> = named.collect();
    fills.sort_by(|a, b| a.name.cmp(&b.name));
    fills
}

/// Opens a map and counts its entries.
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
pub(super) fn of(path: &Path, name: String) -> Result<MapFill, MapError> {
    let data = MapData::from_pin(path)?;
    let info = data.info()?;
    let (key, value, capacity) = (info.key_size(), info.value_size(), info.max_entries());
    let map = Map::from_map_data(data)?;
    let evicts = matches!(map, Map::LruHashMap(_));
    let entries = match &map {
        Map::HashMap(_) | Map::LruHashMap(_) => count_hash(map, key, value, capacity)?,
        // The length of the prefix comes before the data.
        Map::LpmTrie(_) => count_trie(map, key.saturating_sub(4), value, capacity)?,
        _ => None,
    };
    Ok(MapFill { name, entries, capacity, evicts })
}

/// Calls `$count::<K, V>` with arrays of bytes as long as keys and values are; aya wants types, and
/// the map may be of another version.
macro_rules! sized {
    ($count:ident, $map:expr, $capacity:expr, ($key:expr, $value:expr),
     [$($k:literal),*], $values:tt) => {
        match $key {
            $($k => sized!(@value $count, $map, $capacity, $k, $value, $values),)*
            _ => Ok(None),
        }
    };
    (@value $count:ident, $map:expr, $capacity:expr, $k:literal, $value:expr, [$($v:literal),*]) => {
        match $value {
            $($v => $count::<[u8; $k], [u8; $v]>($map, $capacity).map(Some),)*
            _ => Ok(None),
        }
    };
}

fn count_hash(map: Map, key: u32, value: u32, capacity: u32) -> Result<Option<u32>, MapError> {
    fn count<K: aya::Pod, V: aya::Pod>(map: Map, capacity: u32) -> Result<u32, MapError> {
        let map: HashMap<MapData, K, V> = HashMap::try_from(map)?;
        number(map.keys(), capacity)
    }
    sized!(
        count,
        map,
        capacity,
        (key, value),
        [4, 8, 16, 20, 24, 32, 36, 40, 44, 48],
        [4, 8, 12, 16, 24, 32, 36, 40, 48, 56, 64, 104]
    )
}

fn count_trie(map: Map, key: u32, value: u32, capacity: u32) -> Result<Option<u32>, MapError> {
    fn count<K: aya::Pod, V: aya::Pod>(map: Map, capacity: u32) -> Result<u32, MapError> {
        let map: LpmTrie<MapData, K, V> = LpmTrie::try_from(map)?;
        number(map.keys(), capacity)
    }
    sized!(count, map, capacity, (key, value), [16, 20, 24, 32], [4, 8, 12, 16])
}

/// At most as many as the map holds: where keys come and go, the kernel may begin anew.
fn number<K>(
    keys: impl Iterator<Item = Result<K, MapError>>,
    capacity: u32,
) -> Result<u32, MapError> {
    let mut count = 0;
    for key in keys.take(usize::try_from(capacity).unwrap_or(usize::MAX)) {
        key?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_is_told_from_nearly_full_and_from_forgetful() {
        let map = |entries, evicts| MapFill {
            name: "DENIED".into(),
            entries: Some(entries),
            capacity: 100,
            evicts,
        };
        assert!(map(100, false).is_full() && map(100, false).is_nearly_full());
        assert!(!map(99, false).is_full() && map(90, false).is_nearly_full());
        assert!(!map(89, false).is_nearly_full());
        assert!(!map(100, true).is_full() && !map(100, true).is_nearly_full());
    }

    #[test]
    fn nothing_pinned_has_no_maps() {
        let dir = tempfile::TempDir::new().unwrap();
        assert_eq!(map_fills(dir.path()), []);
    }
}
