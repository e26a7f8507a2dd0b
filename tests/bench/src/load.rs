//! Filling the maps, changing one entry, and what they weigh.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use aya::maps::MapInfo;
use egress_agent::{
    bpf::{Contents, Enforcer, FirstStart, PlanInputs, Targets, TcMode},
    policy::{DirectTarget, Snapshot},
};
use egress_tests::site::Site;

use crate::{
    policy,
    table::{Row, median, milliseconds},
};

const ROUTES: u32 = 100_000;
const WORKLOADS: u32 = 10_000;
const ROUNDS: u32 = 5;
const LOAD_AIM: &str = "< 2000 ms";
const CHANGE_AIM: &str = "< 10 ms";

/// Loads everything into fresh maps, several times; then changes one route.
pub(crate) fn run(site: &Site) -> Result<Vec<Row>> {
    let mut loads = Vec::new();
    let mut changes = Vec::new();
    let mut rows = Vec::new();
    for round in 0..ROUNDS {
        let before = resident()?;
        let mut snapshot = policy::snapshot(ROUTES)?;
        let facts = policy::facts(WORKLOADS);
        let dir = site.bpffs().join(format!("load{round}"));
        let mut enforcer =
            Enforcer::start(&dir, &Targets::default(), TcMode::detect(), FirstStart::AtOnce)?;
        let empty = map_bytes(&enforcer.pins.maps())?;
        let (load, made) = apply(&mut enforcer, &snapshot, &facts)?;
        if made < usize::try_from(ROUTES)? {
            bail!("only {made} entries were made");
        }
        loads.push(load);
        for number in 1..=ROUNDS {
            // One service moves.
            let route = snapshot.node.routes.get_mut(usize::try_from(number * 1000)?);
            let route = route.context("the policy is too small")?;
            route.target = DirectTarget::Net(policy::moved(number).into());
            let (change, made) = apply(&mut enforcer, &snapshot, &facts)?;
            if made != 2 {
                bail!("moving a service made {made} changes instead of a removal and a new entry");
            }
            changes.push(change);
        }
        if round + 1 == ROUNDS {
            let full = map_bytes(&enforcer.pins.maps())?;
            rows.extend(memory(empty, full, resident()?.saturating_sub(before)));
        }
        drop(enforcer);
        egress_agent::bpf::detach(&dir)?;
    }
    let mut table = vec![
        parts("load 100,000 routes, 10,000 workloads", &loads, LOAD_AIM)?,
        parts("move one of the services", &changes, CHANGE_AIM)?,
    ];
    table.append(&mut rows);
    Ok(table)
}

/// Plan, and difference with changes.
type Times = (Duration, Duration);

fn apply(
    enforcer: &mut Enforcer,
    snapshot: &Snapshot,
    facts: &PlanInputs,
) -> Result<(Times, usize)> {
    let start = Instant::now();
    let (desired, problems) = Contents::desired(snapshot, facts);
    let planned = start.elapsed();
    if !problems.is_empty() {
        bail!("the plan has problems: {problems:?}");
    }
    let start = Instant::now();
    let made = enforcer.maps.reconcile(&desired);
    let reconciled = start.elapsed();
    match made {
        Ok(made) => Ok(((planned, reconciled), made)),
        Err(errors) => bail!("the maps can't be filled: {errors:?}"),
    }
}

fn parts(what: &str, times: &[Times], aim: &str) -> Result<Row> {
    let column = |part: fn(&Times) -> Duration| {
        median(&times.iter().map(part).collect::<Vec<_>>()).context("nothing was measured")
    };
    let (plan, reconcile) = (column(|times| times.0)?, column(|times| times.1)?);
    let all = column(|times| times.0 + times.1)?;
    let measured = format!(
        "{} (plan {}, maps {})",
        milliseconds(all),
        milliseconds(plan),
        milliseconds(reconcile)
    );
    Ok(Row::new(what, measured, aim))
}

fn memory(empty: u64, full: u64, resident: u64) -> [Row; 3] {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    [
        Row::new("kernel memory of empty maps", mib(empty), ""),
        Row::new("kernel memory of these maps", mib(full), ""),
        Row::new("the agent's memory for plan and maps", mib(resident), ""),
    ]
}

/// What the kernel has charged for the pinned maps (`memlock` in /proc/PID/fdinfo).
fn map_bytes(maps: &Path) -> Result<u64> {
    let mut sum = 0;
    for pin in fs::read_dir(maps)? {
        let path = pin?.path();
        let fd = MapInfo::from_pin(&path)?.fd()?;
        let info = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        sum += field(&fs::read_to_string(&info)?, "memlock:")
            .with_context(|| format!("{}: {info} has no memlock", path.display()))?;
    }
    Ok(sum)
}

/// This process's resident memory, in bytes.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = field(&status, "VmRSS:").context("/proc/self/status has no VmRSS")?;
    Ok(kib * 1024)
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
