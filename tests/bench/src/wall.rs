//! What a packet costs in each program, by `BPF_PROG_TEST_RUN`; if asked, beside what it costs in the same
//! programs of another build.

use std::{env, fs, net::Ipv4Addr, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, EbpfLoader, TestRunResult,
    maps::{Array, MapData},
    programs::{CgroupSkb, SchedClassifier, TestRun, TestRunOptions},
};
use egress_agent::bpf::{
    Enforcer, FirstStart, Targets, TcMode, object::PROGRAMS, tell_maker, tell_offload,
};
use egress_ebpf::verdict::{CGROUP_PASS, CGROUP_REFUSE, TC_DROP, TC_NEXT};
use egress_tests::site::Site;

use crate::{
    connect::{Home, move_to},
    empty,
    policy::{self, DIRECT_PORT, GATEWAY, INSIDE, OUTSIDE, POD, ROUTED_PORT, service},
    table::{Row, median},
};

const ROUTES: u32 = 10_000;
const POD_COUNT: u32 = 1_000;
/// Runs in one system call, and how often each is made, in turn with the others.
const REPEAT: u32 = 1_000_000;
const ROUNDS: usize = 5;
const AIM_NS: u128 = 60;
/// Names the file with the programs of another build, `OUT_DIR/egress-ebpf` of its agent. The layout of the maps that
/// it has must be the same.
const BASE: &str = "EGRESS_BENCH_BASE";

/// A program, a packet, what must become of it.
struct Case {
    program: &'static str,
    what: &'static str,
    frame: Vec<u8>,
    /// Forwarded from another interface, or a packet of this host.
    came_in_on: u32,
    passes: bool,
}

/// Nanoseconds a packet, for each program and kind of packet.
pub(crate) fn run(site: &Site) -> Result<Vec<Row>> {
    let dir = site.bpffs().join("wall");
    let mut enforcer =
        Enforcer::start(&dir, &Targets::default(), TcMode::detect(), FirstStart::AtOnce)?;
    // As in a container: the process is two levels below the cgroup that is listed for its workload.
    let listed = site.cgroup("listed")?;
    let mut facts = policy::facts(POD_COUNT);
    facts.workloads.insert(fs::metadata(&listed)?.ino(), 0);
    let _home = Home::find()?;
    move_to(&site.cgroup("listed/pod/container")?)?;
    let contents = policy::contents(&policy::snapshot(ROUTES)?, &facts)?;
    if let Err(errors) = enforcer.maps.reconcile(&contents) {
        bail!("the maps can't be filled: {errors:?}");
    }
    let maps = enforcer.pins.maps();
    let mut programs = Programs::load(&maps, PROGRAMS)?;
    let mut base = match env::var_os(BASE) {
        Some(file) => {
            let object = fs::read(&file).with_context(|| format!("{BASE}={file:?}"))?;
            Some(Programs::load(&maps, &object)?)
        }
        None => None,
    };
    let mut epoch = Epoch::open(&maps)?;
    let cases = cases();
    let mut times = vec![Vec::new(); cases.len() + 1];
    let mut found = vec![Vec::new(); cases.len()];
    let mut of_base = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        times[0].push(programs.empty(&cases[0])?);
        let lists = times[1..].iter_mut().zip(&mut found).zip(&mut of_base);
        for (case, ((times, found), of_base)) in cases.iter().zip(lists) {
            times.push(programs.run(case, REPEAT)?);
            epoch.set(NO_EPOCH)?;
            found.push(programs.run(case, REPEAT)?);
            epoch.restore()?;
            if let Some(base) = &mut base {
                of_base.push(base.run(case, REPEAT)?);
            }
        }
    }
    let medians: Vec<u128> =
        times.iter().filter_map(|times| median(times)).map(|time| time.as_nanos()).collect();
    let (empty, cases_ns) = medians.split_first().context("nothing was measured")?;
    let mut rows = vec![Row::new("an empty tc program", format!("{empty} ns"), "")];
    let allowed = cases.iter().zip(cases_ns).filter(|(case, _)| case.passes).map(|(_, ns)| ns);
    let slowest = allowed.max().copied().unwrap_or_default();
    for (((case, ns), found), of_base) in cases.iter().zip(cases_ns).zip(&found).zip(&of_base) {
        let of_base = median(of_base).map(|time| format!("; base: {} ns", time.as_nanos()));
        let found = median(found).context("nothing was measured")?.as_nanos();
        let measured = format!("{ns} ns (looked up: {found} ns{})", of_base.unwrap_or_default());
        let aim = match (case.program, case.passes) {
            ("pod_ingress", true) => format!("≤ {AIM_NS} ns"),
            ("pod_ingress", false) => format!("≤ {slowest} ns (the slowest allowed)"),
            _ => String::new(),
        };
        rows.push(Row::new(format!("{}: {}", case.program, case.what), measured, aim));
    }
    Ok(rows)
}

fn cases() -> Vec<Case> {
    let case = |program, what, frame, passes| Case {
        program,
        what,
        frame,
        came_in_on: u32::from(program == "uplink_egress"),
        passes,
    };
    let inside = tcp(POD, INSIDE, 8080);
    let gateway = tcp(POD, GATEWAY, ROUTED_PORT);
    let direct = tcp(POD, service(0), DIRECT_PORT);
    let outside = tcp(POD, OUTSIDE, ROUTED_PORT);
    let mut cases = Vec::new();
    for program in ["pod_ingress", "uplink_egress", "cgroup_egress"] {
        cases.extend([
            case(program, "allowed, in the cluster", inside.clone(), true),
            case(program, "allowed, to a gateway", gateway.clone(), true),
            case(program, "allowed, a direct route", direct.clone(), true),
            case(program, "denied, no redirect", outside.clone(), false),
            case(program, "denied, no route", tcp(POD, OUTSIDE, 22), false),
        ]);
    }
    for program in ["pod_egress", "uplink_ingress"] {
        cases.push(case(program, "a segment from an external host", tcp(OUTSIDE, POD, 8080), true));
    }
    let spoofed = tcp(OUTSIDE, INSIDE, 8080);
    cases.push(case("pod_ingress", "denied, a forged source", spoofed, false));
    cases
}

/// What programs are told that keep no verdicts.
const NO_EPOCH: u64 = 0;

/// The epoch of the agent's maps, without which every verdict is looked up.
struct Epoch {
    map: Array<MapData, u64>,
    current: u64,
}

impl Epoch {
    fn open(maps: &Path) -> Result<Self> {
        let map = MapData::from_pin(maps.join("EPOCH"))?;
        let map = Array::try_from(aya::maps::Map::Array(map))?;
        let current = map.get(&0, 0)?;
        Ok(Self { map, current })
    }

    fn set(&mut self, epoch: u64) -> Result<()> {
        Ok(self.map.set(0, epoch, 0)?)
    }

    fn restore(&mut self) -> Result<()> {
        self.set(self.current)
    }
}

/// The loaded programs, on the maps that the agent filled.
struct Programs {
    ebpf: Ebpf,
    empty: Ebpf,
}

impl Programs {
    fn load(maps: &Path, object: &[u8]) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        tell_offload(&mut loader)?;
        let pins = fs::read_dir(maps)?.collect::<Result<Vec<_>, _>>()?;
        let names: Vec<_> = pins
            .iter()
            .map(|pin| (pin.file_name().to_string_lossy().into_owned(), pin.path()))
            .collect();
        for (name, path) in &names {
            loader.map_pin_path(name, path);
        }
        tell_maker(&mut loader)?;
        let mut ebpf = loader.load(object)?;
        for name in ["pod_ingress", "uplink_egress", "pod_egress", "uplink_ingress"] {
            classifier(&mut ebpf, name)?.load()?;
        }
        skb(&mut ebpf)?.load()?;
        let mut empty = EbpfLoader::new().load(&empty::object())?;
        classifier(&mut empty, empty::NAME)?.load()?;
        Ok(Self { ebpf, empty })
    }

    fn empty(&mut self, case: &Case) -> Result<Duration> {
        let result = test_run(classifier(&mut self.empty, empty::NAME)?, case, REPEAT)?;
        Ok(result.duration)
    }

    /// The time of a run. A verdict other than the case's is an error: what is measured would be
    /// another thing.
    fn run(&mut self, case: &Case, repeat: u32) -> Result<Duration> {
        let (result, pass, drop) = if case.program == "cgroup_egress" {
            (test_run(skb(&mut self.ebpf)?, case, repeat)?, CGROUP_PASS, CGROUP_REFUSE)
        } else {
            let program = classifier(&mut self.ebpf, case.program)?;
            (test_run(program, case, repeat)?, TC_NEXT, TC_DROP)
        };
        let expected = if case.passes { pass } else { drop };
        let found = result.return_value.cast_signed();
        if found != expected {
            bail!("{}: {} gave {found} instead of {expected}", case.program, case.what);
        }
        Ok(result.duration)
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

fn skb(ebpf: &mut Ebpf) -> Result<&mut CgroupSkb> {
    let program = ebpf.program_mut("cgroup_egress").context("no program cgroup_egress")?;
    Ok(program.try_into()?)
}

fn test_run<P>(program: &P, case: &Case, repeat: u32) -> Result<TestRunResult>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    // `struct __sk_buff`: its tenth word is `ingress_ifindex`; what isn't given must be zero.
    let mut context = [0; 192];
    context[36..40].copy_from_slice(&case.came_in_on.to_ne_bytes());
    let options = TestRunOptions {
        data_in: Some(&case.frame),
        ctx_in: Some(&context),
        repeat,
        ..TestRunOptions::default()
    };
    Ok(program.test_run(options)?)
}

/// A frame with a TCP segment.
fn tcp(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 5, 8, 0];
    frame.extend([0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend([0xc0, 1]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}
