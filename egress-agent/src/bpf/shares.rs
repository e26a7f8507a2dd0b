//! Each workload's share of the flow events: how many of its events nobody saw.

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use egress_ebpf::abi::{Share, ShareKey, capacity, share_kind};

use super::{Error, Lost, load, pod::Raw};

const MAP: &str = "EVENT_SHARES";

/// The kernel's shares.
#[derive(Debug)]
pub struct Shares(HashMap<MapData, Raw<ShareKey>, Raw<Share>>);

/// Who caused events.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EventOrigin {
    /// Processes of a cgroup, by its id; zero is none that is known.
    Cgroup(u64),
    /// Packets on an interface, by its index; zero is none that is known.
    Interface(u32),
}

impl Shares {
    pub(super) fn take_from(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let map = HashMap::try_from(load::map(ebpf, MAP)?);
        map.map(Self).map_err(|error| Error::Map { map: MAP, error })
    }

    /// Events that nobody saw, by who caused them and since the kernel remembers; most first.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn lost(&self) -> Result<Vec<(EventOrigin, Lost)>, Error> {
        let failed = |error| Error::Map { map: MAP, error };
        let most = usize::try_from(capacity::EVENT_SHARES).unwrap_or(usize::MAX);
        let mut all = Vec::new();
        // Where keys come and go, the kernel may begin anew.
        for key in self.0.keys().take(most) {
            let Raw(key) = key.map_err(failed)?;
            let [rate, full] = match self.0.get(&Raw(key), 0) {
                Ok(Raw(share)) => share.lost,
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(failed(error)),
            };
            if rate != 0 || full != 0 {
                all.extend(causer(key).map(|causer| (causer, Lost { rate, full })));
            }
        }
        all.sort_by_key(|(causer, lost)| (u64::MAX - lost.rate.wrapping_add(lost.full), *causer));
        all.dedup_by_key(|(causer, _)| *causer);
        Ok(all)
    }
}

fn causer(key: ShareKey) -> Option<EventOrigin> {
    match key.kind {
        share_kind::CGROUP => Some(EventOrigin::Cgroup(key.id)),
        share_kind::INTERFACE => u32::try_from(key.id).ok().map(EventOrigin::Interface),
        _ => None,
    }
}
