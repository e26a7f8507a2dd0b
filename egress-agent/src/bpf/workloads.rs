//! Which cgroups are workloads. The hooks of a cgroup run for its own processes alone, but the
//! uplink's program meets the sockets of the whole node: without these entries it takes a
//! workload on the host's network for the node itself.

use aya::{
    Ebpf,
    maps::{HashMap, MapError},
};
use egress_ebpf::abi::PolicyId;

use super::{Error, plan::POLICY};

const MAP: &str = "WORKLOADS";

/// Makes workloads of the cgroups. Those of an earlier agent stay, as its hooks do.
pub(super) fn claim(ebpf: &mut Ebpf, cgroups: &[u64]) -> Result<(), Error> {
    fill(ebpf, cgroups).map_err(|error| Error::Map { map: MAP, error })
}

fn fill(ebpf: &mut Ebpf, ids: &[u64]) -> Result<(), MapError> {
    let Some(map) = ebpf.map_mut(MAP) else { return Err(MapError::ElementNotFound) };
    let mut map: HashMap<_, u64, PolicyId> = HashMap::try_from(map)?;
    ids.iter().try_for_each(|id| map.insert(id, POLICY, 0))
}
