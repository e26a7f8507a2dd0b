//! Loading the programs, with maps that are pinned or adopted.

use std::{mem::size_of, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapInfo},
    programs::{Program, ProgramType},
    sys::{BpfHelper, is_helper_supported},
};
use egress_ebpf::{
    abi::{
        ABI_VERSION, COUNTERS_ENTRIES, FlowKey, FlowPlace, FlowState, GatewayKey, Globals, Group,
        OriginalDst, PodAddress, Policy, PolicyId, Route, RouteKey, Share, ShareKey, Slot, Tunnel,
        Tunneled, TunneledKey, TunneledPlace, capacity, lost,
    },
    addr::Addr,
    inbound::REFUSED_SYNS,
};

use super::{Error, host, object::PROGRAMS, offload, packet_origin, pins::Pins, socket_lsm};

/// Bytes of an LPM trie's prefix length, which comes before the data.
const LPM: usize = 4;

/// A pinned map: name, bytes of key and value, entries (zero for a ring buffer's bytes: checked by
/// entries alone).
type Layout = (&'static str, usize, usize, u32);

/// The maps of the node. The gateway's (`CAPTURE_*`) belong to its process and aren't pinned, and what verdicts
/// the programs have kept (`VERDICTS`) to the programs.
const PINNED: [Layout; 23] = [
    ("GLOBALS", size_of::<u32>(), size_of::<Globals>(), 1),
    ("EPOCH", size_of::<u32>(), size_of::<u64>(), 1),
    ("POLICIES", size_of::<u32>(), size_of::<Policy>(), capacity::POLICIES),
    ("ROUTES", LPM + size_of::<RouteKey>(), size_of::<Route>(), capacity::ROUTES),
    ("GROUPS", size_of::<u32>(), size_of::<Group>(), capacity::GROUPS),
    ("GATEWAYS", size_of::<GatewayKey>(), size_of::<u32>(), capacity::GATEWAYS),
    ("INTERNAL", LPM + size_of::<Addr>(), size_of::<u32>(), capacity::PREFIXES),
    ("DENIED", LPM + size_of::<Addr>(), size_of::<u32>(), capacity::PREFIXES),
    ("POD_ADDRESSES", size_of::<PodAddress>(), size_of::<u32>(), capacity::POD_ADDRESSES),
    ("SLOTS", size_of::<u32>(), size_of::<Slot>(), capacity::SLOTS),
    ("MOVED_SLOTS", size_of::<u32>(), size_of::<u32>(), capacity::SLOTS),
    ("WORKLOADS", size_of::<u64>(), size_of::<PolicyId>(), capacity::WORKLOADS),
    ("ORIGINAL_DST", size_of::<u64>(), size_of::<OriginalDst>(), capacity::ORIGINAL_DST),
    ("TUNNEL", size_of::<u32>(), size_of::<Tunnel>(), 1),
    ("TUNNELED", size_of::<TunneledKey>(), size_of::<Tunneled>(), capacity::TUNNELED),
    (
        "TUNNELED_PLACES",
        size_of::<FlowPlace>(),
        size_of::<TunneledPlace>(),
        capacity::TUNNELED_PLACES,
    ),
    ("FLOWS", size_of::<FlowKey>(), size_of::<FlowState>(), capacity::FLOWS),
    ("FLOW_PLACES", size_of::<FlowPlace>(), size_of::<FlowKey>(), capacity::FLOW_PLACES),
    ("FLOW_TURNS", size_of::<FlowPlace>(), size_of::<u64>(), capacity::FLOW_TURNS),
    ("REFUSED_SYNS", size_of::<u32>(), size_of::<u64>(), REFUSED_SYNS),
    ("EVENT_SHARES", size_of::<ShareKey>(), size_of::<Share>(), capacity::EVENT_SHARES),
    ("COUNTERS", size_of::<u32>(), size_of::<u64>(), COUNTERS_ENTRIES),
    ("LOST", size_of::<u32>(), size_of::<u64>(), lost::COUNT),
];
/// Pinned too, but of kinds whose sizes the kernel states in its own way.
const PINNED_OTHERS: [&str; 1] = ["EVENTS"];

/// The global that says whether the kernel has `bpf_set_retval`.
const SET_RETVAL: &str = "SET_RETVAL";

/// The names of the maps that are pinned.
pub(super) fn pinned() -> impl Iterator<Item = &'static str> {
    PINNED.iter().map(|(name, ..)| *name).chain(PINNED_OTHERS)
}

/// Whether the maps that are pinned as ours have our layout.
///
/// # Errors
/// [`Error::Layout`] for the first one that hasn't.
pub(super) fn check(pins: &Pins) -> Result<(), Error> {
    let maps = pins.maps();
    PINNED.iter().try_for_each(|layout| check_layout(&maps, layout))
}

/// Loads the object with the node's maps pinned below `pins`, adopting those that are there.
pub(super) fn node(pins: &Pins) -> Result<Ebpf, Error> {
    check(pins)?;
    let maps = pins.maps();
    let paths: Vec<_> = pinned().map(|name| (name, maps.join(name))).collect();
    let mut loader = EbpfLoader::new();
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    let set_retval = u8::from(has_set_retval());
    loader.override_global(SET_RETVAL, &set_retval, true);
    socket_lsm::set_globals(&mut loader);
    packet_origin::set_globals(&mut loader)?;
    let network = host::node_network();
    loader.override_global("NODE_NETWORK", &network, true);
    offload::set_globals(&mut loader)?;
    Ok(loader.load(PROGRAMS)?)
}

/// Loads the object for a gateway: nothing is pinned, so its capture ends with its process.
pub(super) fn gateway() -> Result<Ebpf, Error> {
    Ok(EbpfLoader::new().load(PROGRAMS)?)
}

/// Loads the object as a node would, with maps of its own that end with it.
pub(super) fn unpinned() -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    let set_retval = u8::from(has_set_retval());
    loader.override_global(SET_RETVAL, &set_retval, true);
    socket_lsm::set_globals(&mut loader);
    packet_origin::set_globals(&mut loader)?;
    let network = host::node_network();
    loader.override_global("NODE_NETWORK", &network, true);
    offload::set_globals(&mut loader)?;
    Ok(loader.load(PROGRAMS)?)
}

/// `bpf_set_retval` (Linux 5.18) gives a refused connect its errno. Its helper is probed, since
/// distributions backport.
pub(super) fn has_set_retval() -> bool {
    let helper = BpfHelper::BPF_FUNC_set_retval;
    match is_helper_supported(ProgramType::CgroupSockAddr, helper) {
        Ok(true) => true,
        Ok(false) => {
            tracing::info!("this kernel has no bpf_set_retval: a refused connect says EPERM");
            false
        }
        Err(error) => {
            tracing::warn!("can't tell whether the kernel has bpf_set_retval ({error})");
            false
        }
    }
}

/// aya takes a pinned map as it is; a different layout would be read as garbage.
fn check_layout(maps: &Path, (name, key, value, entries): &Layout) -> Result<(), Error> {
    let path = maps.join(name);
    if !path.exists() {
        return Ok(());
    }
    let info = MapInfo::from_pin(&path).map_err(|error| Error::Map { map: name, error })?;
    let sizes = |key: u64, value: u64, entries: u64| {
        format!("{key} bytes of key, {value} of value, {entries} entries")
    };
    let found = sizes(info.key_size().into(), info.value_size().into(), info.max_entries().into());
    let expected = sizes(*key as u64, *value as u64, u64::from(*entries));
    if found == expected {
        return Ok(());
    }
    Err(Error::Layout { path, found, expected, version: ABI_VERSION })
}

/// Hands the program's code to the kernel, whose verifier may refuse it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the object has programs of no other kind")]
pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, Error> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| Error::Missing { what: "program", name: name.to_owned() })?;
    let result = match program {
        Program::CgroupSockAddr(program) if program.fd().is_err() => program.load(),
        Program::CgroupSkb(program) if program.fd().is_err() => program.load(),
        Program::SchedClassifier(program) if program.fd().is_err() => program.load(),
        Program::SockOps(program) if program.fd().is_err() => program.load(),
        Program::SkLookup(program) if program.fd().is_err() => program.load(),
        Program::Lsm(program) if program.fd().is_err() => socket_lsm::load(program, name),
        _ => Ok(()),
    };
    result.map_err(|error| Error::Verify { program: name.to_owned(), error })?;
    Ok(program)
}

/// Takes a map out of the object.
pub(super) fn map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, Error> {
    ebpf.take_map(name).ok_or_else(|| Error::Missing { what: "map", name: name.to_owned() })
}
