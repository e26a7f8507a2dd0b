//! What the programs counted. The maps are pinned, so counts go on over restarts of the agent.

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError, PerCpuArray},
};
use egress_ebpf::{
    abi::{KERNEL_REASONS, counter_index, lost},
    reason::Reason,
};

use super::{
    Error,
    events::{Action, Hook},
    load,
};

/// The counters of all CPUs.
pub struct Counters {
    verdicts: PerCpuArray<MapData, u64>,
    lost: PerCpuArray<MapData, u64>,
}

/// How often a verdict was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdicts {
    /// By which hook.
    pub hook: Hook,
    /// What it was.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Audit mode let it pass.
    pub audit: bool,
    /// How often.
    pub count: u64,
}

/// Flow events that nobody saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lost {
    /// Over the limit of events per second.
    pub rate: u64,
    /// The ring buffer was full.
    pub full: u64,
}

impl Counters {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Self::open(load::map(ebpf, "COUNTERS")?, load::map(ebpf, "LOST")?)
    }

    pub(super) fn open(verdicts: Map, lost: Map) -> Result<Self, Error> {
        Ok(Self { verdicts: array("COUNTERS", verdicts)?, lost: array("LOST", lost)? })
    }

    /// All verdicts that were given at least once.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn verdicts(&self) -> Result<Vec<Verdicts>, Error> {
        let reasons = Reason::ALL.iter().filter(|reason| (**reason as u8) < KERNEL_REASONS);
        let mut verdicts = Vec::new();
        for reason in reasons {
            for (hook, action, audit) in kinds() {
                let index = counter_index(hook.code(), action.code(), *reason as u8, audit);
                let Some(index) = index else { continue };
                let count = sum("COUNTERS", &self.verdicts, index)?;
                if count > 0 {
                    verdicts.push(Verdicts { hook, action, reason: *reason, audit, count });
                }
            }
        }
        Ok(verdicts)
    }

    /// Events lost since the maps were made.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn lost(&self) -> Result<Lost, Error> {
        Ok(Lost {
            rate: sum("LOST", &self.lost, lost::RATE)?,
            full: sum("LOST", &self.lost, lost::FULL)?,
        })
    }
}

fn kinds() -> impl Iterator<Item = (Hook, Action, bool)> {
    Hook::ALL.into_iter().flat_map(|hook| {
        Action::ALL
            .into_iter()
            .flat_map(move |action| [false, true].map(|audit| (hook, action, audit)))
    })
}

fn array(name: &'static str, map: Map) -> Result<PerCpuArray<MapData, u64>, Error> {
    PerCpuArray::try_from(map).map_err(|error| Error::Map { map: name, error })
}

fn sum(map: &'static str, array: &PerCpuArray<MapData, u64>, index: u32) -> Result<u64, Error> {
    let values = array.get(&index, 0).map_err(|error: MapError| Error::Map { map, error })?;
    Ok(values.iter().fold(0u64, |sum, value| sum.wrapping_add(*value)))
}
