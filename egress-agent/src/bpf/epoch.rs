//! Which state of the policy maps the kernel's programs may keep verdicts of: see [`egress_ebpf::cache`].

use std::hash::{BuildHasher as _, RandomState};

use aya::{
    Ebpf,
    maps::{Array, Map, MapData, MapError},
};

use super::{Error, diff::Op, load, pins::Pins};

const MAP: &str = "EPOCH";
/// The epoch while maps change: no verdict is kept, and none that was kept counts.
const NONE: u64 = 0;

/// The map's one entry.
pub(super) struct Epoch {
    map: Array<MapData, u64>,
    /// Whether it is [`NONE`] now.
    is_closed: bool,
}

impl Epoch {
    /// Takes the map. Whatever an earlier agent left unfinished, from now on a new epoch counts.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let map = Array::try_from(load::map(ebpf, MAP)?).map_err(failed)?;
        let mut epoch = Self { map, is_closed: true };
        epoch.open()?;
        Ok(epoch)
    }

    /// Before a change: ends the epoch if verdicts depend on what changes. When this fails the change must
    /// not be made.
    pub(super) fn before(&mut self, op: &Op) -> Result<(), Error> {
        if is_judged_by(op) { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), Error> {
        if !self.is_closed {
            self.map.set(0, NONE, 0).map_err(failed)?;
            self.is_closed = true;
        }
        Ok(())
    }

    /// After all changes, and also where one failed: begins a new epoch if one was ended. When this fails
    /// every verdict is found anew until the next time.
    pub(super) fn open(&mut self) -> Result<(), Error> {
        if self.is_closed {
            self.map.set(0, unused(), 0).map_err(failed)?;
            self.is_closed = false;
        }
        Ok(())
    }
}

/// Makes a change of a map that verdicts depend on, and that nobody else makes: with no epoch meanwhile, and a new
/// one afterwards.
pub(super) fn around<T>(
    pins: &Pins,
    change: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let map = Map::Array(MapData::from_pin(pins.maps().join(MAP)).map_err(failed)?);
    let mut epoch = Epoch { map: Array::try_from(map).map_err(failed)?, is_closed: false };
    epoch.close()?;
    let result = change();
    epoch.open()?;
    result
}

fn failed(error: MapError) -> Error {
    Error::Map { map: MAP, error }
}

/// A number that was never an epoch and never will be, by chance: earlier agents' are not known, and half of
/// one beside half of another, as a program may see it while it is written, is none either.
fn unused() -> u64 {
    RandomState::new().hash_one(MAP).max(1)
}

/// Whether what is kept depends on what this changes: what [`by_table`](egress_ebpf::decide::by_table) asks for, and
/// whose a cgroup is. How a policy is carried out, where a pod is and where a redirected connection goes is asked each
/// time.
fn is_judged_by(op: &Op) -> bool {
    match op {
        Op::Globals(_)
        | Op::Route(_)
        | Op::Gateway(_)
        | Op::Internal(_)
        | Op::Denied(_)
        | Op::Workload(_) => true,
        Op::Policy(..)
        | Op::Group(..)
        | Op::Tunnel(_)
        | Op::PodInterface(_)
        | Op::PodAddress(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn epochs_are_never_used_twice() {
        let epochs: HashSet<u64> = (0..1000).map(|_| unused()).collect();
        assert_eq!(epochs.len(), 1000);
        assert!(!epochs.contains(&NONE));
    }
}
